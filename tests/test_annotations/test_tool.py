"""tools/check_annotations.py: tables, the mended file, exit codes."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import PYTHON
from small import ROOT
from test_annotations.marks import marks, write_photo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        write_photo(tmp_path / f'photos/{i}.png')
    return tmp_path


def run(folder: Path, content: dict, *args: str) -> tuple[int, str]:
    (folder / 'a.json').write_text(json.dumps(content))
    done = subprocess.run([PYTHON, str(ROOT / 'tools/check_annotations.py'), 'a.json', *args],
                          cwd=folder, text=True, capture_output=True)
    assert 'Traceback' not in done.stderr
    return done.returncode, ' '.join((done.stdout + done.stderr).split())


def test_a_clean_file(folder: Path) -> None:
    code, text = run(folder, marks(), '--images', 'photos', '--classes', 'car', 'bird', '--masks')
    assert code == 0 and 'Nothing to mend' in text and '3 photos, 6 annotations, 2 classes' in text
    assert '1 car 3 3 3 0 0 0' in text  # id, name, objects, photos, small, medium, large, crowds


def test_a_file_that_is_mended(folder: Path) -> None:
    content = marks()
    for row in content['annotations']:
        del row['iscrowd']
    content['images'][0]['file_name'] = 'x\\0.png'
    args = ('--images', 'photos', '--classes', 'bird', 'car', '--fix', 'out.json')
    code, text = run(folder, content, *args)
    assert code == 1
    assert 'mended 6 annotations without iscrowd, taken as 0 annotations[0] (id 1)' in text
    assert r"'x\\0.png' is '0.png'" in text and 'The mended file is out.json' in text
    fixed = json.loads((folder / 'out.json').read_text())
    assert fixed['annotations'] == marks()['annotations'] and fixed['images'] == marks()['images']
    assert [row['name'] for row in fixed['categories']] == ['bird', 'car']
    code, text = run(folder, content, *args)
    assert code == 2 and 'out.json already exists. Add --overwrite' in text
    assert run(folder, content, *args, '--overwrite')[0] == 1
    assert run(folder, fixed, '--images', 'photos', '--classes', 'bird', 'car')[0] == 0
    code, text = run(folder, content, '--fix', 'a.json', '--overwrite')
    assert code == 2 and 'is the json itself' in text


def test_a_file_that_is_refused(folder: Path) -> None:
    content = marks()
    content['annotations'][2]['bbox'] = [1, 2, float('nan'), 3]
    content['annotations'][3]['bbox'] = [1, 2, 3]
    code, text = run(folder, content, '--fix', 'out.json')
    assert code == 2 and 'refused 1 boxes that are not four numbers annotations[3] (id 4)' in text
    assert 'annotations[2] (id 3): [1, 2, nan, 3]' in text and not (folder / 'out.json').exists()
    code, text = run(folder, marks(), '--images', 'nowhere')
    assert code == 2 and 'there is no folder of photos at nowhere' in text
    code, text = run(folder, marks(), '--classes', 'car', 'birds')
    assert code == 2 and "'birds' (did you mean 'bird'?)" in text
    code, text = run(folder, marks(), '--classes', 'car', '--subset')
    assert code == 0 and 'note 3 objects of other classes' in text
    code, text = run(folder, dict(shapes=[], imagePath='x'))
    assert code == 2 and 'labelme' in text


def test_a_folder_of_photos_is_told_to_have_no_annotations(folder: Path) -> None:
    """Before the photos are asked for, which would not help."""
    for name, message in (('photos', 'photos contains no annotation file'),
                          ('list.txt', 'is a list, but there is no folder Annotations/')):
        (folder / 'list.txt').write_text('0\n')
        done = subprocess.run([PYTHON, str(ROOT / 'tools/check_annotations.py'), name], cwd=folder,
                              text=True, capture_output=True)
        assert done.returncode == 2 and message in ' '.join(done.stderr.split()), done.stderr
        assert '--images' not in done.stderr


def test_it_imports_neither_torch_nor_openmmlab() -> None:
    code = ('import runpy, sys\nsys.argv = ["check_annotations.py", "--help"]\n'
            'try:\n    runpy.run_path("tools/check_annotations.py")["parse_args"]()\n'
            'except SystemExit:\n    pass\n'
            'from projects.soco.annotations import copies, judge, voc\n'
            'assert not {"torch", "mmengine", "numba"} & set(sys.modules)')
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0
