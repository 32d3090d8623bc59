"""Tests of the json export, and of merge, subset and validation of stores."""
import numpy as np
import pytest

from projects.soco.proposals import ProposalStore, StoreWriter, store
from projects.soco.proposals.formats import export_coco, export_official
from projects.soco.proposals.store_operations import (
    box_dtype_for,
    merge_stores,
    validate_store,
    write_subset,
)
from projects.soco.proposals.store_statistics import measure

METADATA = dict(generator=dict(name='hand'), rules=['all', 'nothing'], source=dict(kind='hand'))


def write(path, rows, metadata=METADATA, box_dtype='uint16'):
    with StoreWriter(path, metadata, box_dtype) as writer:
        for image, regions in rows:
            writer.add(image, 100, 80, np.array(regions).reshape(-1, 4), 'all')
    return ProposalStore.open(path)


def content(opened):
    return [(opened.name(i), *opened.size(i), opened.regions(i).tolist(), opened.rule(i))
            for i in range(len(opened))]


@pytest.mark.parametrize('values, expected', [
    ([], 'uint16'), ([0, 65535, 3.0], 'uint16'), ([-1], 'float32'), ([65536], 'float32'),
    ([473.07, 0.5], 'float32'), ([123456.789], 'float64'), ([100_000_001], 'float64')])
def test_smallest_exact_type(values, expected):
    assert box_dtype_for(values) == expected


def test_coco_export_can_be_read_by_pycocotools(tmp_path):
    coco = pytest.importorskip('pycocotools.coco')
    store = write(tmp_path / 's.arrow', [('a.jpg', [[1, 2, 3, 4]]), ('b.jpg', [])])
    export_coco(store, tmp_path / 'out.json')
    read = coco.COCO(str(tmp_path / 'out.json'))
    assert read.imgs[1] == dict(id=1, file_name='a.jpg', width=100, height=80)
    assert read.loadAnns(read.getAnnIds(imgIds=[1]))[0]['area'] == 12


def test_base_names_must_differ(tmp_path, small_photos):
    store = write(tmp_path / 's.arrow', [('a/1.jpg', []), ('b/1.png', [])])
    with pytest.raises(ValueError, match='a/1.jpg and b/1.png have the same base name'):
        export_official(store, tmp_path / 'out.json')


def test_merge_and_subset(tmp_path):
    one = write(tmp_path / '1.arrow', [('a', [[1, 2, 3, 4]]), ('d', [])])
    two = write(tmp_path / '2.arrow', [('b', [[5, 6, 7, 8]] * 2), ('c', [])])
    merge_stores([one.path, two.path], tmp_path / 'm.arrow')
    merged = ProposalStore.open(tmp_path / 'm.arrow')
    assert content(merged) == sorted(content(one) + content(two))
    assert merged.metadata['source']['images'] == 4
    write_subset(merged, ['d', 'a'], tmp_path / 's.arrow')
    assert content(ProposalStore.open(tmp_path / 's.arrow')) == content(one)
    with pytest.raises(ValueError, match='does not list 1 of 2 images.*first is x'):
        write_subset(merged, ['a', 'x'], tmp_path / 't.arrow')
    with pytest.raises(ValueError, match='each once'):
        merge_stores([merged.path, two.path], tmp_path / 't.arrow')
    for action in (lambda: write_subset(merged, ['a'], merged.path),
                   lambda: merge_stores([merged.path], merged.path),
                   lambda: merge_stores([], tmp_path / 't.arrow')):
        with pytest.raises(ValueError):
            action()
    assert not (tmp_path / 't.arrow').exists() and len(merged) == 4


def test_stores_made_in_other_ways_are_not_merged(tmp_path):
    one = write(tmp_path / '1.arrow', [('a', [])])
    two = write(tmp_path / '2.arrow', [('b', [])], dict(METADATA, generator=dict(name='foot')))
    with pytest.raises(ValueError, match='generator.name: hand, now foot'):
        merge_stores([one.path, two.path], tmp_path / 'm.arrow')
    three = write(tmp_path / '3.arrow', [('b', [])], box_dtype='float32')
    with pytest.raises(ValueError, match='uint16, now float32'):
        merge_stores([one.path, three.path], tmp_path / 'm.arrow')


def test_validation_names_rows(tmp_path, monkeypatch):
    good = write(tmp_path / 'g.arrow', [('a', [[0, 0, 100, 80]]), ('b/c.jpg', [])])
    assert validate_store(good) == []
    bad = write(tmp_path / 'b.arrow', [('../a', []), ('/b', []), ('c', [[1, 0, 100, 1]])])
    assert [p.split(':')[0] for p in validate_store(bad)] == [
        'row 0 (../a)', 'row 1 (/b)', 'row 2 (c)']
    assert len(validate_store(bad, most=1)) == 1
    # store invalid boxes, as another program might
    monkeypatch.setattr(store, 'exact_boxes', lambda boxes, _, dtype: boxes.astype(dtype))
    floats = write(tmp_path / 'f.arrow', [('a', [[-0.5, 0, 100.5, 80]]), ('b', [[0, 0, -1, 1]]),
                                          ('c', [[0, 0, 1, 1], [float('nan'), 0, 1, 1]])],
                   box_dtype='float32')
    wrong = 'is not finite or has a negative side'
    assert validate_store(floats) == [f'row 1 (b): box 0 (0, 0, -1, 1) {wrong}',
                                      f'row 2 (c): box 1 (nan, 0, 1, 1) {wrong}']


def test_statistics(tmp_path):
    store = write(tmp_path / 's.arrow', [('a', [[0, 0, 40, 10], [0, 0, 20, 20]]), ('b', [])])
    figures = measure(store)
    assert figures.counts.tolist() == [2, 0] and figures.rules == {'all': 2}
    assert figures.sides.tolist() == [20, 20] and figures.ratios.tolist() == [4, 1]
    np.testing.assert_allclose(figures.shares, 20 / np.sqrt(8000))
    assert measure(store, sample=1).sampled == 1
