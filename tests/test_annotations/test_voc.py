"""VOC-style annotations: lists, XML files, photos and names of classes."""
from collections.abc import Callable
from pathlib import Path

import pytest
from miniatures import write_voc

from projects.soco.annotations.findings import Judgement
from projects.soco.annotations.voc import judge_voc, write_list

NAMES = ['2007_trainval_1', '2007_trainval_2']


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc(tmp_path) / 'VOC2007'


def judge(voc: Path, *classes: str, subset: bool = False) -> Judgement:
    return judge_voc(voc / 'ImageSets/Main/trainval.txt', voc / 'Annotations', voc / 'JPEGImages',
                     classes, subset)


def edit_xml(old: str, new: str) -> Callable[[Path], object]:
    def edit(voc: Path) -> None:
        path = voc / f'Annotations/{NAMES[0]}.xml'
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    return edit


def edit_list(text: str) -> Callable[[Path], object]:
    return lambda voc: (voc / 'ImageSets/Main/trainval.txt').write_bytes(text.encode())


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda voc: (voc / old).rename(voc / new)


def test_a_clean_data_set(voc: Path) -> None:
    judged = judge(voc, 'dog').accept()
    assert not judged.findings and judged.content == NAMES
    assert write_list(judged, voc / 'copies') == str(voc / 'ImageSets/Main/trainval.txt')
    assert 'classes without an object: 1' in judge(voc, 'dog', 'cat').lines()[0].lower()


@pytest.mark.parametrize('edit, message', [
    (edit_xml('dog', 'dgo'), r"among the config's classes: 1 .'dgo' .did you mean 'dog'.. in .*"
                             "2007_trainval_1.xml.*Its classes are 'dog'.*subset=True"),
    (edit_xml('<name>dog</name>', ''), r"1 .'' in .*2007_trainval_1.xml"),
    (edit_xml('<xmax>94</xmax>', ''), r"object 1 .'dog'.: xmin 30, ymin 20, xmax None, ymax 68"),
    (edit_xml('<xmax>94</xmax>', '<xmax>nan</xmax>'), 'xmax nan'),
    (edit_xml('<xmax>94</xmax>', '<xmax>12</xmax>'), 'first corner before the second: 1'),
    (edit_xml('</annotation>', ''), 'XML files that cannot be read: 1 .*2007_trainval_1.xml'),
    (edit_xml('<annotation>', '<annotation><size><width>0</width><height>0</height></size>'),
     'Sizes that are not numbers above 0: 1 .*2007_trainval_1.xml: 0 x 0'),
    (edit_list('2007_trainval_1\n2007_test_9\n'), r'without an XML file in .*: 1 .2007_test_9.xml'),
    (edit_list('2007_trainval_1  1\n2007_trainval_2 -1\n'), 'Lines with several columns: 2'),
    (edit_list('\n'), 'Empty lists: 1'),
    (rename('JPEGImages/2007_trainval_2.jpg', 'JPEGImages/2007_trainval_2.png'),
     r'Photos that are not in .*: 1 .2007_trainval_2.jpg, but 2007_trainval_2.png.*end in .jpg'),
    (lambda voc: (voc / 'JPEGImages/2007_trainval_2.jpg').unlink(), '2007_trainval_2.jpg')])
def test_what_is_refused(edit: Callable, message: str, voc: Path) -> None:
    edit(voc)
    with pytest.raises(ValueError, match=message):
        judge(voc, 'dog').accept()


def test_a_subset_that_is_meant(voc: Path) -> None:
    edit_xml('dog', 'cat')(voc)
    assert "objects of other classes, left out as the config says (subset): 1 ('cat'" in judge(
        voc, 'dog', subset=True).accept().lines()[0].lower()


@pytest.mark.parametrize('text', ['\ufeff' + '\n'.join(NAMES), f'{NAMES[0]}  \n\n {NAMES[1]}\n'])
def test_a_list_with_marks_and_spaces_is_read_from_a_copy(text: str, voc: Path, tmp_path: Path) -> None:
    edit_list(text)(voc)
    judged = judge(voc, 'dog').accept()
    assert judged.mended
    copy = Path(write_list(judged, tmp_path / 'copies'))
    assert copy.read_text().split() == NAMES and copy.parent == tmp_path / 'copies'
    edit_list('\r\n'.join(NAMES) + '\r\n')(voc)
    assert not judge(voc, 'dog').mended  # MMDetection reads these
