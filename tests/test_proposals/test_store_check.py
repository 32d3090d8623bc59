"""Tests of the check that a store and images belong together."""
import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from projects.soco.proposals import ProposalStore, StoreWriter
from projects.soco.proposals.sources import ImageSource, open_source
from projects.soco.proposals.store_check import check_has_boxes, check_store_fits


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Make the empty files data/train/{00 … 39}/x.jpg."""
    root = tmp_path_factory.mktemp('fit') / 'data'
    for i in range(40):
        (root / f'train/{i:02}').mkdir(parents=True)
        (root / f'train/{i:02}/x.jpg').touch()
    return root


def store(path, names):
    with StoreWriter(path, dict(rules=['a'])) as writer:
        for name in names:
            writer.add(name, 10, 10, np.zeros((0, 4)), 'a')
    return ProposalStore.open(path)


NAMES = [f'{i:02}/x.jpg' for i in range(40)]
LONGER = [f'train/{name}' for name in NAMES]


def test_a_store_fits_its_images_wherever_they_are(tmp_path, photos):
    made = store(tmp_path / 's.arrow', NAMES)
    check_store_fits(made, open_source(photos / 'train'))
    (tmp_path / 'list.txt').write_text('00/x.jpg')
    check_store_fits(made, open_source(tmp_path / 'list.txt', photos / 'train'))
    shutil.make_archive(str(tmp_path / 'a'), 'zip', photos / 'train')
    check_store_fits(made, open_source(tmp_path / 'a.zip'))
    with tarfile.open(tmp_path / 'a.tar', 'w') as archive:
        archive.add(photos / 'train', '.')
    check_store_fits(made, open_source(tmp_path / 'a.tar'))


@pytest.mark.parametrize('names, root, way_out', [
    (LONGER, 'train', '00/x.jpg is in {data}: give that as data_root'),
    (NAMES, '', '00/x.jpg is in {data}/train: give that as data_root'),
    (NAMES, 'train/07', '00/x.jpg is in {data}/train: give that as data_root'),
    ([f'val/{name}' for name in NAMES], 'train',
     'There is 00/x.jpg instead: give as data_root a place that contains the images under val/.'),
    ([f'else{name}' for name in NAMES], '', 'The store is of other images'),
    ([f'/abs/{name}' for name in NAMES], '', 'should be relative paths'),
])
def test_the_folder_that_fits_is_told(tmp_path, photos, names, root, way_out):
    made = store(tmp_path / 's.arrow', names)
    with pytest.raises(ValueError) as error:
        check_store_fits(made, open_source(photos / root))
    text = str(error.value)
    assert f'16 of 16 photos looked up from {made.path} are not in {photos / root}'.rstrip('/') in text
    assert names[0] in text and way_out.format(data=photos) in text


def test_the_names_in_an_archive_are_told(tmp_path, photos):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for name in LONGER:
            archive.write(photos / name, name)
    with pytest.raises(ValueError, match='There is train/00/x.jpg instead'):
        check_store_fits(store(tmp_path / 's.arrow', NAMES), open_source(tmp_path / 'a.zip'))
    with pytest.raises(ValueError, match='There is train/00/x.jpg instead: give .* under old/'):
        check_store_fits(store(tmp_path / 's.arrow', [f'old/{name}' for name in LONGER]),
                         open_source(tmp_path / 'a.zip'))


class _Asked(ImageSource):
    """Source that contains every name, and records the names that are looked up."""

    path = 'everywhere'
    asked: list[str]

    def __init__(self):
        self.asked = []

    def __contains__(self, name):
        self.asked.append(name)
        return True


def test_a_few_names_are_tried_from_first_to_last(tmp_path):
    source = _Asked()
    check_store_fits(store(tmp_path / 's.arrow', [f'{i:05}' for i in range(10_000)]), source)
    assert len(source.asked) == 16
    assert source.asked[0] == '00000' and source.asked[-1] == '09999'
    assert {name[1] for name in source.asked} == set('0123456789')


def test_half_of_the_images(tmp_path, photos):
    made = store(tmp_path / 's.arrow', sorted([*NAMES[:4], *(f'none/{i}.jpg' for i in range(4))]))
    with pytest.raises(ValueError, match=r'4 of 8 .*\(the first: none/0.jpg\)'):
        check_store_fits(made, open_source(photos / 'train'))


def test_an_empty_store(tmp_path, photos):
    with pytest.raises(ValueError, match='lists no image'):
        check_store_fits(store(tmp_path / 's.arrow', []), open_source(photos))


def test_a_store_without_a_single_box_is_refused(tmp_path, photos):
    source = open_source(photos / 'train')
    none = store(tmp_path / 'none.arrow', NAMES)
    with pytest.raises(ValueError, match=f'no box for any of the 40 photos of {photos}/train.*'
                       'none.arrow --overwrite --setting fine --keep all'):
        check_has_boxes(none, source)
    with StoreWriter(tmp_path / 'one.arrow', dict(rules=['a'])) as writer:
        for i, name in enumerate(NAMES):
            writer.add(name, 10, 10, np.full((int(i == 7), 4), 1), 'a')
    check_has_boxes(ProposalStore.open(tmp_path / 'one.arrow'), source)
