"""Tests of the filters, against the official lists and by hand."""
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from projects.soco.proposals.filters import BoxFilter, Rule, custom_filter, get_filter

PARITY = Path(__file__).parents[1] / 'data' / 'parity'


@pytest.mark.parametrize('name', ['packaged', 'photos', 'originals'])
def test_official_boxes_and_rules(name):
    box_filter = get_filter('ratio3size0308post')
    for values in json.loads((PARITY / f'selective_search_{name}.json').read_text()).values():
        regions = np.array(values['regions_xywh'])
        boxes, rule = box_filter(regions, values['width'], values['height'])
        assert boxes.tolist() == values['kept_xywh']
        assert rule == values['rule']


def test_rules_are_tried_in_turn():
    box_filter = get_filter('ratio3size0308post')
    good, large, long, small = [0, 0, 40, 40], [0, 0, 90, 90], [0, 0, 97, 32], [0, 0, 31, 60]

    def apply(*boxes):
        kept, rule = box_filter(np.array(boxes).reshape(-1, 4), 100, 100)
        return kept.tolist(), rule

    assert apply(good, large, long, small) == ([good], 'ratio3size0308')
    assert apply(large, long, small) == ([large], 'ratio3')
    assert apply(long, small) == ([long], 'side32')
    assert apply(small) == ([], 'nothing')
    assert apply() == ([], 'nothing')


def test_limits_are_inclusive():
    boxes = np.array([[0, 0, 96, 32], [0, 0, 97, 32], [0, 0, 32, 96], [0, 0, 32, 97]])
    assert get_filter('ratio3')(boxes, 500, 500)[0].tolist() == [boxes[0].tolist(),
                                                                 boxes[2].tolist()]
    sizes = np.array([[0, 0, 30, 30], [0, 0, 32, 32], [0, 0, 80, 80], [0, 0, 81, 81]])
    assert get_filter('size0308')(sizes, 100, 100)[0].tolist() == sizes[1:3].tolist()
    assert len(get_filter('size03')(sizes, 100, 100)[0]) == 3


def test_no_fallback_without_post():
    kept, rule = get_filter('ratio3size0308')(np.array([[0, 0, 90, 90]]), 100, 100)
    assert len(kept) == 0 and rule == 'nothing'


def test_all_keeps_even_empty_boxes():
    boxes = np.array([[0, 0, 0, 0], [3, 3, 1, 50]])
    assert get_filter('all')(boxes, 100, 100)[0].tolist() == boxes.tolist()


@given(hnp.arrays(np.uint16, st.tuples(st.integers(0, 20), st.just(4)),
                  elements=st.integers(0, 300)))
def test_filters_select_in_order(boxes):
    for name in ('all', 'side32', 'ratio2', 'size0108', 'ratio3size0308post'):
        kept, _ = get_filter(name)(boxes, 300, 300)
        rows, position = boxes.tolist(), 0
        for box in kept.tolist():
            position = rows.index(box, position) + 1
        assert len(kept) or not name.endswith('post') or not (boxes[:, 2:] >= 32).all(1).any()


def test_flags_build_the_official_filter():
    rng = np.random.default_rng(0)
    boxes = rng.integers(0, 300, (500, 4))
    ours = custom_filter(32, 3, 0.3, 0.8, fallback=True)
    official = get_filter('ratio3size0308post')
    assert ours(boxes, 300, 300)[0].tolist() == official(boxes, 300, 300)[0].tolist()
    assert json.dumps(ours.describe(), allow_nan=False)


@pytest.mark.parametrize('name', ['', 'post', 'ratio0', 'size3', 'ratio3size0308posts', 'nms'])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match='unknown filter'):
        get_filter(name)


@pytest.mark.parametrize('limits', [dict(min_side=-1), dict(max_ratio=0.5),
                                    dict(min_size=0.8, max_size=0.3)])
def test_impossible_limits_are_refused(limits):
    with pytest.raises(ValueError, match='a filter needs'):
        custom_filter(**limits)


def test_an_own_rule():
    box_filter = BoxFilter('mine', (Rule('wide', min_side=10, max_ratio=1.5),))
    kept, rule = box_filter(np.array([[0, 0, 10, 10], [0, 0, 20, 10]]), 50, 50)
    assert kept.tolist() == [[0, 0, 10, 10]] and rule == 'wide'
