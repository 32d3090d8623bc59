"""The proposal store: what goes in comes out, and damage is named."""
import json
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_proposals.worker_functions import read_width

from projects.soco.proposals import ProposalStore, StoreWriter, store

METADATA = dict(generator=dict(name='hand', version=1), filter=dict(name='all'), rules=['all'])


def write(path, rows, metadata=METADATA, box_dtype='uint16'):
    with StoreWriter(path, metadata, box_dtype) as writer:
        for image, width, height, regions in rows:
            writer.add(image, width, height, regions, 'all')
    return path


def three_rows():
    return [('a.jpg', 10, 20, [[1, 2, 3, 4]]), ('b/c.jpg', 30, 40, np.zeros((0, 4))),
            ('ü.jpg', 65535, 1, [[0, 0, 65535, 1], [5, 0, 1, 1]])]


def test_rows_come_back(tmp_path):
    path = write(tmp_path / 's.arrow', three_rows())
    opened = ProposalStore.open(path)
    assert len(opened) == 3
    first, second, third = opened
    assert first[:3] == ('a.jpg', 10, 20) and first.boxes.tolist() == [[1, 2, 4, 6]]
    assert second[:3] == ('b/c.jpg', 30, 40) and second.boxes.shape == (0, 4)
    assert third.boxes.tolist() == [[0, 0, 65535, 1], [5, 0, 6, 1]]
    assert all(row.boxes.dtype == np.float32 for row in opened)
    assert opened[-1].image == 'ü.jpg' and opened.rule(0) == 'all'
    assert opened.size(1) == (30, 40) and opened.box_counts().tolist() == [1, 0, 2]
    assert opened.metadata == dict(METADATA, format_version=1)
    assert [p.name for p in tmp_path.iterdir()] == ['s.arrow']


def test_lookup_by_name(tmp_path):
    opened = ProposalStore.open(write(tmp_path / 's.arrow', three_rows()))
    assert [opened.index(name) for name in ('a.jpg', 'b/c.jpg', 'ü.jpg')] == [0, 1, 2]
    assert 'b/c.jpg' in opened and 'b' not in opened and 'zzz' not in opened
    with pytest.raises(KeyError, match='no image'):
        opened.index('b.jpg')
    for row in (3, -4):
        with pytest.raises(IndexError):
            opened[row]


def test_boxes_may_be_changed_without_changing_the_store(tmp_path):
    opened = ProposalStore.open(write(tmp_path / 's.arrow', three_rows()))
    opened[0].boxes[:] = 0
    assert opened[0].boxes.tolist() == [[1, 2, 4, 6]]


@settings(max_examples=30, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda s: s.isprintable()),
                       hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(4)),
                                  elements=st.floats(0, 1000, width=32)), max_size=12),
       st.sampled_from(['float32', 'float64']))
def test_any_rows_come_back(tmp_path, rows, box_dtype):
    ordered = sorted(rows.items())
    path = write(tmp_path / 's.arrow', [(name, 7, 8, boxes) for name, boxes in ordered],
                 box_dtype=box_dtype)
    opened = ProposalStore.open(path)
    assert [row.image for row in opened] == [name for name, _ in ordered]
    for i, (name, boxes) in enumerate(ordered):
        assert opened.index(name) == i
        np.testing.assert_array_equal(opened.regions(i), boxes)


def test_many_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(store, 'BATCH_ROWS', 4)
    rows = [(f'{i:03d}', i + 1, 1, np.full((i % 3, 4), i)) for i in range(23)]
    opened = ProposalStore.open(write(tmp_path / 's.arrow', rows))
    assert [row.width for row in opened] == list(range(1, 24))
    assert opened.box_counts().tolist() == [i % 3 for i in range(23)]
    assert opened.index('017') == 17 and opened[17].boxes[0].tolist() == [17, 17, 34, 34]


def test_a_pickled_store_is_a_path(tmp_path):
    rows = [(f'{i:06d}', i + 1, 1, np.full((40, 4), i)) for i in range(2000)]
    opened = ProposalStore.open(write(tmp_path / 's.arrow', rows))
    assert len(pickle.dumps(opened)) < 500
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        assert pool.submit(read_width, opened, 1234).result() == (1235, opened.path)


def test_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match='generate_proposals.py IMAGES OUT.arrow'):
        ProposalStore.open(tmp_path / 'none.arrow')


@pytest.mark.parametrize('content', [b'', b'{"a": [[1, 2, 3, 4]]}', b'ARROW1\0\0', bytes(1000)])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / 's.arrow').write_bytes(content)
    with pytest.raises(ValueError, match='is not a proposal store, or only a part'):
        ProposalStore.open(tmp_path / 's.arrow')


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.999])
def test_truncated_store_is_refused(tmp_path, share):
    path = write(tmp_path / 's.arrow', [(f'{i:04d}', 1, 1, [[1, 2, 3, 4]]) for i in range(500)])
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * share)])
    with pytest.raises(ValueError, match='s.arrow is not a proposal store, or only a part'):
        ProposalStore.open(path)


def _write_arrow(path, metadata, columns=None):
    table = pa.table(columns or {'x': [1]}).replace_schema_metadata(metadata)
    with pa.OSFile(str(path), 'wb') as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize('metadata, message', [
    (None, 'not a proposal store'),
    ({'soco_proposals': 'no json'}, 'metadata of .* cannot be read'),
    ({'soco_proposals': '[1]'}, 'metadata of .* cannot be read'),
    ({'soco_proposals': json.dumps(dict(format_version=99))}, 'format version 99, .*version 1'),
    ({'soco_proposals': json.dumps(dict(format_version=1))}, r'columns of .*\(x\)'),
])
def test_other_arrow_files_are_refused(tmp_path, metadata, message):
    _write_arrow(tmp_path / 's.arrow', metadata)
    with pytest.raises(ValueError, match=message):
        ProposalStore.open(tmp_path / 's.arrow')


def test_corrupt_offsets_are_named(tmp_path):
    rows = [(f'{i}', 1, 1, [[1, 2, 3, 4]] * 3) for i in range(5)]
    path = write(tmp_path / 's.arrow', rows)
    offsets = np.arange(0, 18, 3, dtype=np.int32)
    damaged = offsets.copy()
    damaged[2] = 1_000_000
    content = path.read_bytes()
    assert content.count(offsets.tobytes()) == 1
    path.write_bytes(content.replace(offsets.tobytes(), damaged.tobytes()))
    opened = ProposalStore.open(path)
    assert len(opened[0].boxes) == 3
    for row in (1, 2):
        with pytest.raises(ValueError, match=f'row {row} of .*corrupt .*boxes'):
            opened[row]


def test_failed_writing_leaves_the_old_store(tmp_path):
    path = write(tmp_path / 's.arrow', three_rows())
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        with StoreWriter(path, METADATA) as writer:
            writer.add('a', 1, 1, [[0, 0, 1, 1]], 'all')
            raise RuntimeError
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ['s.arrow']


@pytest.mark.parametrize('rows, message', [
    ([('b', 1, 1, []), ('a', 1, 1, [])], 'order'),
    ([('a', 1, 1, []), ('a', 1, 1, [])], 'order'),
    ([('a', 1, 1, [[0.5, 0, 1, 1]])], 'exactly'),
    ([('a', 1, 1, [[-1, 0, 1, 1]])], 'exactly'),
    ([('a', 1, 1, [[0, 0, 65536, 1]])], 'exactly'),
])
def test_rows_that_do_not_fit_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / 's.arrow', rows)
    assert not list(tmp_path.iterdir())


def test_unknown_box_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match='int8'):
        StoreWriter(tmp_path / 's.arrow', METADATA, 'int8')
