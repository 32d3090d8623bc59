"""Tests of the proposal store: exact round trips, and detection of damage."""
import json
import pickle
import zlib
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
from projects.soco.proposals.store_operations import validate_store

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
    assert opened.metadata == dict(METADATA, format_version=2)
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
    assert len(opened._columns) == 6
    assert [row.width for row in opened] == list(range(1, 24))
    assert opened.box_counts().tolist() == [i % 3 for i in range(23)]
    assert opened.index('017') == 17 and opened[17].boxes[0].tolist() == [17, 17, 34, 34]


def test_thousands_of_boxes(tmp_path, monkeypatch):
    """Offsets are 32 bits wide, so images with many boxes give shorter batches."""
    monkeypatch.setattr(store, 'BATCH_BOXES', 10_000)
    boxes = np.random.default_rng(0).integers(0, 60000, (60_000, 4), dtype=np.uint16)
    rows = [('a', 65535, 65535, boxes), ('b', 9, 9, boxes[:3000]), ('c', 9, 9, boxes[:3000]),
            ('d', 9, 9, boxes[:9000]), ('e', 9, 9, [])]
    opened = ProposalStore.open(write(tmp_path / 's.arrow', rows))
    assert len(opened._columns) == 3
    assert opened.box_counts().tolist() == [60_000, 3000, 3000, 9000, 0]
    for row, (*_, wanted) in enumerate(rows):
        np.testing.assert_array_equal(opened.regions(row), np.reshape(wanted, (-1, 4)))


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
    with pytest.raises(ValueError, match='is not a proposal store, or it is truncated'):
        ProposalStore.open(tmp_path / 's.arrow')


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.999])
def test_truncated_store_is_refused(tmp_path, share):
    path = write(tmp_path / 's.arrow', [(f'{i:04d}', 1, 1, [[1, 2, 3, 4]]) for i in range(500)])
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * share)])
    with pytest.raises(ValueError, match='s.arrow is not a proposal store, or it is truncated'):
        ProposalStore.open(path)


def _write_arrow(path, metadata, columns=None):
    table = pa.table(columns or {'x': [1]}).replace_schema_metadata(metadata)
    with pa.OSFile(str(path), 'wb') as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize('metadata, message', [
    (None, 'not a proposal store'),
    ({'soco_proposals': 'no json'}, 'metadata of .* cannot be read'),
    ({'soco_proposals': '[1]'}, 'metadata of .* cannot be read'),
    ({'soco_proposals': '[' * 100_000}, 'metadata of .* cannot be read'),
    ({'soco_proposals': json.dumps(dict(format_version=1))},
     'format version 1, .*version 2.*generate_proposals.py IMAGES OUT.arrow'),
    ({'soco_proposals': json.dumps(dict(format_version=2))}, 'columns of .* are not those'),
])
def test_other_arrow_files_are_refused(tmp_path, metadata, message):
    _write_arrow(tmp_path / 's.arrow', metadata)
    with pytest.raises(ValueError, match=message):
        ProposalStore.open(tmp_path / 's.arrow')


def batches_of(path):
    with pa.ipc.open_file(path) as reader:
        found = [reader.get_batch_with_custom_metadata(i) for i in range(reader.num_record_batches)]
        return reader.schema, found


def write_batches(path, schema, batches):
    with pa.OSFile(str(path), 'wb') as file, pa.ipc.new_file(file, schema) as writer:
        for batch, custom in batches:
            writer.write_batch(batch, custom_metadata=custom)


@pytest.fixture
def three_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(store, 'BATCH_ROWS', 2)
    rows = [(f'{i}', 9, 9, [[i, 2, 3, 4]] * 3) for i in range(6)]
    return write(tmp_path / 's.arrow', rows)


@pytest.mark.parametrize('order', [[0, 1], [0], [], [1, 2], [0, 2, 1], [0, 1, 1, 2], [0, 1, 2, 2]])
def test_batches_that_were_moved_or_lost_are_told_at_once(tmp_path, three_batches, order):
    schema, batches = batches_of(three_batches)
    write_batches(tmp_path / 't.arrow', schema, batches)
    assert [row.image for row in ProposalStore.open(tmp_path / 't.arrow')] == list('012345')
    write_batches(tmp_path / 't.arrow', schema, [batches[i] for i in order])
    with pytest.raises(ValueError, match='t.arrow is damaged .*batch.*restore the file, or make it'):
        ProposalStore.open(tmp_path / 't.arrow')


def test_batches_of_another_store_are_told(tmp_path, three_batches):
    schema, batches = batches_of(three_batches)
    other = write(tmp_path / 'o.arrow', [(f'{i}', 9, 9, [[0, 0, 1, 1]]) for i in range(6)],
                  dict(METADATA, other=1))
    batches[1] = batches_of(other)[1][1]
    write_batches(tmp_path / 't.arrow', schema, batches)
    with pytest.raises(ValueError, match='t.arrow is damaged .batch 1 is not the one'):
        ProposalStore.open(tmp_path / 't.arrow')


def test_changed_metadata_are_told(tmp_path, three_batches):
    schema, batches = batches_of(three_batches)
    text = schema.metadata[b'soco_proposals'].replace(b'"hand"', b'"hind"')
    changed = schema.with_metadata({**schema.metadata, b'soco_proposals': text})
    write_batches(tmp_path / 't.arrow', changed, batches)
    with pytest.raises(ValueError, match='t.arrow is damaged .the metadata'):
        ProposalStore.open(tmp_path / 't.arrow')


@pytest.mark.parametrize('read', [
    lambda opened: opened[3], lambda opened: opened.name(3), lambda opened: opened.size(3),
    lambda opened: opened.rule(3), lambda opened: opened.regions(3), lambda opened: opened.box_counts(),
    lambda opened: '3' in opened, lambda opened: opened.verify(), list])
def test_a_changed_box_is_told_by_every_way_to_read(three_batches, read):
    boxes = np.array([[2, 2, 3, 4]] * 3 + [[3, 2, 3, 4]] * 3, dtype=np.uint16).tobytes()
    content = three_batches.read_bytes()
    assert content.count(boxes) == 1
    three_batches.write_bytes(content.replace(boxes, b'\1' + boxes[1:]))
    opened = ProposalStore.open(three_batches)
    assert opened[0].boxes[0].tolist() == [0, 2, 3, 6] and opened.regions(5)[0, 0] == 5
    for _ in range(2):
        with pytest.raises(ValueError, match='s.arrow is damaged .rows 2 to 3: the checksum.*restore'):
            read(opened)
    assert len(validate_store(opened)) == 1


def test_offsets_that_lead_out_are_told_even_where_checksums_fit(tmp_path, monkeypatch):
    path = write(tmp_path / 's.arrow', [(f'{i}', 9, 9, [[1, 2, 3, 4]] * 3) for i in range(5)])
    offsets = np.arange(0, 18, 3, dtype=np.int32)
    damaged = offsets.copy()
    damaged[2] = 1_000_000
    content = path.read_bytes()
    assert content.count(offsets.tobytes()) == 1
    path.write_bytes(content.replace(offsets.tobytes(), damaged.tobytes()))
    monkeypatch.setattr(zlib, 'crc32', lambda *args: 0)
    monkeypatch.setattr(store, 'checksum_of', lambda *args: opened_checksum(path))
    monkeypatch.setattr(store, 'sealed_checksum', lambda *args: 0)
    with pytest.raises(ValueError, match='s.arrow is damaged .rows 0 to 4: '):
        ProposalStore.open(path)[0]


def opened_checksum(path):
    with pa.ipc.open_file(path) as reader:
        return reader.schema.metadata[b'soco_checksum']


def test_failed_writing_leaves_the_old_store(tmp_path):
    path = write(tmp_path / 's.arrow', three_rows())
    before = path.read_bytes()
    with pytest.raises(RuntimeError), StoreWriter(path, METADATA) as writer:
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
    ([('a', 1, 1, [[0, 0, 1, 1], [0, np.nan, 1, 1]])], "box 1 of 'a' is not finite"),
    ([('a', 1, 1, [[0, 0, np.inf, 1]])], "box 0 of 'a' is not finite"),
    ([('a', 1, 1, [[5, 5, -2, 1]])], "box 0 of 'a' .*negative side"),
    ([('a', 1, 1, [1, 2, 3, 4])], r"'a' should be \(n, 4\)"),
    ([('a', 1, 1, [[1, 2, 3, 4, 5, 6, 7, 8]])], r"'a' should be \(n, 4\)"),
    ([('a', 1, 1, [['1', '2', '3', '4']])], 'numbers .*type <U1'),
    ([('a', 1, 1, [[None, 2, 3, 4]])], 'numbers .*type object'),
    ([('a', 1, 1, [[True, True, True, True]])], 'numbers .*type bool'),
    ([('a', 1, 1, [[1j, 2, 3, 4]])], 'numbers .*type complex'),
    ([('a', 0, 1, [])], 'measures 0 × 1 pixels.*at least 1'),
    ([('a', 1, 2**31, [])], 'measures 1 × 2147483648 pixels'),
])
def test_rows_that_do_not_fit_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / 's.arrow', rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('box_dtype', ['float32', 'float64'])
@pytest.mark.parametrize('box', [[0, np.nan, 1, 1], [-np.inf, 0, 1, 1], [0, 0, 1, -0.5]])
def test_float_columns_hold_boxes_only(tmp_path, box_dtype, box):
    with pytest.raises(ValueError, match="box 0 of 'a' is not finite or has a negative side"):
        write(tmp_path / 's.arrow', [('a', 1, 1, [box])], box_dtype=box_dtype)


def test_an_unknown_rule_is_refused(tmp_path):
    with (pytest.raises(ValueError, match="rule is 'best'.*one of all"),
          StoreWriter(tmp_path / 's.arrow', METADATA) as writer):
        writer.add('a', 1, 1, [], 'best')


def test_unknown_box_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match='int8'):
        StoreWriter(tmp_path / 's.arrow', METADATA, 'int8')
