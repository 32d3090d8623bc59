import contextlib
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from small import assert_same, make_photos, make_store
from torch.utils.data import DataLoader, default_collate

from projects.soco.datasets import SampleKey, SoCoDataset
from projects.soco.proposals.store import StoreWriter

PIPELINE = [
    dict(type='LoadProposals'),
    dict(type='ProposalViews', views=[dict(size=32), dict(size=32, area=(0.5, 1.0))]),
    dict(type='ProposalCutout', prob=0.5),
    dict(type='PackSoCoInputs'),
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('photos')
    make_photos(folder / 'photos', 5)
    make_store(folder / 'p.arrow', folder / 'photos')
    return folder


def dataset(folder: Path, root: str = 'photos', **kwargs) -> SoCoDataset:
    return SoCoDataset(str(folder / root), str(folder / 'p.arrow'), PIPELINE, **kwargs)


def equal(a: dict, b: dict) -> bool:
    with contextlib.suppress(AssertionError):
        assert_same(a, b)
        return True
    return False


def test_a_sample_is_a_function_of_index_epoch_and_seed(folder):
    first, again = dataset(folder), dataset(folder)
    assert len(first) == 5
    for key in (SampleKey(3, 2, 1), SampleKey(0), SampleKey(4, 7, 9)):
        assert equal(first[key], again[key])
    assert equal(first[3], first[SampleKey(3, 0, 0)])
    assert not equal(first[SampleKey(3, 0, 0)], first[SampleKey(3, 1, 0)])
    assert not equal(first[SampleKey(3, 0, 0)], first[SampleKey(3, 0, 1)])


def test_the_default_scope_does_not_matter(folder):
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('mmdet'):
        other = dataset(folder)
    assert equal(other[1], dataset(folder)[1])


def test_repeats_show_the_photo_with_other_randomness(folder):
    repeated = dataset(folder, repeat=3)
    assert len(repeated) == 15
    assert repeated.read(SampleKey(12))['img_path'] == repeated.read(SampleKey(2))['img_path']
    assert not equal(repeated[2], repeated[12])


@pytest.mark.parametrize('kind', ['zip', 'tar'])
@pytest.mark.parametrize('workers', [0, 2])
def test_archives_give_what_the_folder_gives(folder, tmp_path, kind, workers):
    archive = tmp_path / f'photos.{kind}'
    if kind == 'zip':
        with zipfile.ZipFile(archive, 'w') as file:
            for photo in (folder / 'photos').iterdir():
                file.write(photo, photo.name)
    else:
        with tarfile.open(archive, 'w') as file:
            for photo in (folder / 'photos').iterdir():
                file.add(photo, photo.name)
    packed = SoCoDataset(str(archive), str(folder / 'p.arrow'), PIPELINE)
    loader = DataLoader(packed, batch_size=5, num_workers=workers)
    assert equal(next(iter(loader)), default_collate([dataset(folder)[i] for i in range(5)]))


def test_photos_that_are_not_there_are_told_at_once(folder, tmp_path):
    make_photos(tmp_path / 'others', 2)
    (tmp_path / 'others/photo_000.png').rename(tmp_path / 'others/else.png')
    with pytest.raises(ValueError, match='4 of 5 photos.*photo_000.png.*Set data_root'):
        SoCoDataset(str(tmp_path / 'others'), str(folder / 'p.arrow'), PIPELINE)


def test_a_photo_that_breaks_later_is_named(tmp_path):
    make_photos(tmp_path / 'photos', 2)
    make_store(tmp_path / 'p.arrow', tmp_path / 'photos')
    photos = dataset(tmp_path)
    (tmp_path / 'photos/photo_001.png').write_bytes(b'broken')
    with pytest.raises(ValueError, match='photo_001.png .*cannot be used: not an image. Restore'):
        photos[1]
    (tmp_path / 'photos/photo_001.png').unlink()
    with pytest.raises(ValueError, match='photo_001.png .*No such file.*generate_proposals.*max_bad'):
        photos[1]


@pytest.fixture
def spoilt(tmp_path) -> SoCoDataset:
    """Return a data set of twelve photos, of which the third and the fourth cannot be used."""
    make_photos(tmp_path / 'photos', 12)
    make_store(tmp_path / 'p.arrow', tmp_path / 'photos')
    photos = dataset(tmp_path, max_bad_share=0.5)
    (tmp_path / 'photos/photo_002.png').write_bytes(b'')
    (tmp_path / 'photos/photo_003.png').unlink()
    return photos


def test_a_stand_in_is_named_and_the_same_with_any_number_of_workers(spoilt):
    keys = [[SampleKey(i, epoch, 3) for i in range(12)] for epoch in range(3)]
    batches = [list(DataLoader(spoilt, batch_sampler=keys, num_workers=workers)) for workers in (0, 2)]
    stood_in = set()
    for one, two in zip(*batches):
        assert equal(one, two)
        assert [bool(text) for text in one['bad']] == [i in (2, 3) for i in range(12)]
        for i, reason in ((2, 'empty file'), (3, 'unreadable: No such file or directory')):
            told = json.loads(one['bad'][i])
            assert told[0][:2] == [f'photo_{i:03}.png', reason]
            assert all(row[2] == told[0][2] for row in told)
            stood_in.add(told[0][2])
    assert len(stood_in) > 2 and not stood_in & {'photo_002.png', 'photo_003.png'}


def test_a_stand_in_is_the_photo_that_is_named_with_the_draws_of_the_sample(spoilt):
    key = SampleKey(2, 1, 3)
    sample = spoilt[key]
    row = spoilt.store.index(json.loads(sample['bad'])[0][2])
    assert equal(sample, dict(spoilt.pipeline(spoilt.read(key, row)), bad=sample['bad']))


def test_where_nothing_can_be_used_nothing_is_looked_for_without_end(spoilt):
    for path in Path(spoilt.source.path).iterdir():
        path.write_bytes(b'text')
    with pytest.raises(ValueError, match='photo_005.png .*not an image, and neither can [3-8] more'):
        spoilt[5]


@pytest.mark.parametrize('share', [-0.1, 1, float('nan')])
def test_a_share_that_is_none(folder, share):
    with pytest.raises(ValueError, match='max_bad_share must be within'):
        dataset(folder, max_bad_share=share)


def test_a_photo_without_boxes_goes_with_the_others(tmp_path):
    """Its whole views are compared, in a batch with photos that have boxes."""
    make_photos(tmp_path / 'photos', 3)
    with StoreWriter(tmp_path / 'p.arrow', dict(rules=['a'])) as writer:
        for i, boxes in enumerate(([[5, 5, 60, 50]] * 5000, [], [[95, 71, 1, 1]])):
            writer.add(f'photo_{i:03}.png', 96, 72, boxes, 'a')
    for workers in (0, 2):
        batch, = DataLoader(dataset(tmp_path), batch_size=3, num_workers=workers)
        assert batch['bboxes'].shape == (3, 1, 2, 4, 4) and batch['bboxes'].isfinite().all()
        assert (batch['bboxes'][1] == torch.tensor([0., 0, 32, 32])).all()
        assert not (batch['bboxes'][0] == torch.tensor([0., 0, 32, 32])).all()


def test_missing_and_empty_stores(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.arrow.*generate_proposals'):
        SoCoDataset(str(folder / 'photos'), str(tmp_path / 'nowhere.arrow'), PIPELINE)
    with StoreWriter(tmp_path / 'empty.arrow', dict(rules=['a'])):
        pass
    with pytest.raises(ValueError, match='lists no image'):
        SoCoDataset(str(folder / 'photos'), str(tmp_path / 'empty.arrow'), PIPELINE)
