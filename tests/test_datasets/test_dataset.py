import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from small import make_photos, make_store
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
    return all(torch.equal(x, y) for key in a for x, y in
               zip(*(s[key] if isinstance(s[key], list) else [s[key]] for s in (a, b))))


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
    with pytest.raises(ValueError, match='photo_001.png is not a readable image'):
        photos[1]
    (tmp_path / 'photos/photo_001.png').unlink()
    with pytest.raises(ValueError, match='photo_001.png.*cannot be read'):
        photos[1]


def test_missing_and_empty_stores(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.arrow.*generate_proposals'):
        SoCoDataset(str(folder / 'photos'), str(tmp_path / 'nowhere.arrow'), PIPELINE)
    with StoreWriter(tmp_path / 'empty.arrow', dict(rules=['a'])):
        pass
    with pytest.raises(ValueError, match='lists no image'):
        SoCoDataset(str(folder / 'photos'), str(tmp_path / 'empty.arrow'), PIPELINE)
