"""Classes are matched by name: lists of configs against categories."""
import re

import pytest
from test_annotations.marks import marks

from projects.soco.annotations.classes import class_list, compare_lists, match_classes
from projects.soco.annotations.findings import MENDED, NOTE
from projects.soco.annotations.judge import judge_coco


def matched(*classes: str, content: dict | None = None, **options: bool):
    judged = judge_coco(content or marks(), 'a.json').accept()
    match_classes(judged, classes, **options)
    return judged


def names(judged) -> list[tuple]:
    return [(row['id'], row['name']) for row in judged.content['categories']]


def test_the_order_of_the_config_holds_and_ids_stay() -> None:
    assert not matched('car', 'bird').findings
    judged = matched('bird', 'car')
    assert names(judged) == [(2, 'bird'), (1, 'car')]
    assert judged.content['annotations'] == marks()['annotations']
    assert len(judged.of(MENDED)) == 1 and 'Order of the categories' in judged.lines()[0]


@pytest.mark.parametrize('classes, message', [
    (('car', 'brid'), "Classes, of the config's 2, that are not among its 2 categories: 1 .'brid' .did "
                      "you mean 'bird'.*It has 'car', 'bird'.*subset=True"),
    (('car', ), "Categories with objects that are not among the config's classes: 1 .'bird' with 3"),
    (('car', 'bird', 'cup'), "that are not among its 2 categories: 1 .'cup'")])
def test_a_name_on_one_side_only_is_refused(classes: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matched(*classes).accept()


def test_a_subset_that_is_meant() -> None:
    judged = matched('bird', subset=True).accept()
    assert names(judged)[0] == (2, 'bird')
    assert re.search('objects of other classes, left out as the config says .*: 3',
                     judged.of(NOTE)[0].line())
    with pytest.raises(ValueError, match='cup'):  # nothing to train it on
        matched('bird', 'cup', subset=True).accept()
    judged = matched('cup', 'bird', 'car', subset=True, training=False).accept()
    assert names(judged) == [(3, 'cup'), (2, 'bird'), (1, 'car')]


def test_a_category_without_objects_may_be_left_out() -> None:
    content = marks()
    content['categories'].insert(0, dict(id=0, name='my-project', supercategory='none'))
    judged = matched('car', 'bird', content=content).accept()
    assert names(judged) == [(1, 'car'), (2, 'bird'), (0, 'my-project')] and not judged.mended


def test_names_that_differ_in_spaces_or_normal_form() -> None:
    content = marks()
    content['categories'][0]['name'] = 'cafe\u0301 '
    judged = matched('caf\xe9', 'bird', content=content).accept()
    assert names(judged) == [(1, 'caf\xe9'), (2, 'bird')]
    assert 'spaces or Unicode normal form: 1' in judged.lines()[0]


@pytest.mark.parametrize('classes, message', [
    ('car', r"the text 'car'.*classes=\('car', \)"), ((1, 2), '1, which is not a text'),
    (('car', 'car'), "lists 'car' more than once")])
def test_lists_that_are_none(classes: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_list(classes)


def test_lists_are_compared() -> None:
    assert compare_lists(['a', 'b'], ('a', 'b'), 'x', 'y') == ''
    assert compare_lists(['a', 'b'], ['b', 'a'], 'x', 'y') == (
        "The order differs: class 0 is 'a' for x, 'b' for y")
    assert compare_lists(['a', 'b'], ['b', 'c'], 'x', 'y') == "Only x has 'a'. Only y has 'c'"
