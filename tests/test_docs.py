"""The documentation: it builds, its commands run or say what they need, its messages are the code's."""
import argparse
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import parity
import pytest
import torch
from mmengine.runner import Runner
from scripts import WARM
from small import ROOT, make_photos, make_store, tiny_config

from projects.soco.runs.record import describe_session

NEEDS = {'an NVIDIA GPU', 'several GPUs', 'a cluster', 'a data set', 'a compiler', 'a browser'}
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
PAGE_NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]


class Block(NamedTuple):
    """A fenced block of a page, and what is said of it in a comment before it."""
    page: str
    line: int
    language: str
    title: str
    text: str
    marks: tuple[str, ...]


def blocks(page: str) -> Iterator[Block]:
    lines = (ROOT / page).read_text().splitlines()
    i, marks = 0, []
    while i < len(lines):
        if found := re.fullmatch(r'\s*<!-- ((?:needs|run elsewhere): .*?) -->', lines[i]):
            marks.append(found[1])
        elif found := re.match(r'\s*```(\w*)(?: title="(.*?)")?', lines[i]):
            start = i + 1
            i = next(j for j in range(start, len(lines)) if lines[j].strip() == '```')
            text = '\n'.join(lines[start:i])
            yield Block(page, start, found[1], found[2] or '', text, tuple(marks))
            marks = []
        elif lines[i].strip():
            marks = []
        i += 1


def bash_blocks() -> list[Block]:
    return [block for page in PAGE_NAMES for block in blocks(page) if block.language == 'bash']


# Every command of a block, in words as bash gives them, without running any.
RECORD = r"""
rec() { printf '%s\0' "$@" $'\1' >> "$RECORD_LOG"; }  # one write: the ends of a pipe run at once
python() { rec python "$@"; }; bash() { rec bash "$@"; }; source() { rec source "$@"; }; cd() { :; }
command_not_found_handle() { rec "$@"; }
PATH=/nonexistent
"""


def commands(text: str, folder: Path) -> list[list[str]]:
    log = folder / 'words'
    log.write_text('')
    subprocess.run(['/bin/bash', '-c', RECORD + text], cwd=folder, check=True, capture_output=True,
                   env={'RECORD_LOG': str(log)})
    return [command.split('\0')[:-1] for command in log.read_text().split('\1\0')[:-1]]


def inline_commands(page: str) -> Iterator[str]:
    text = re.sub(r'```.*?```', '', (ROOT / page).read_text(), flags=re.S)
    for code in re.findall(r'(?<!`)`([^`]+)`(?!`)', text):
        if re.match(r'(?:[A-Z_]+=\S+ )*(?:python|bash|pytest) ', code) and '…' not in code:
            yield ' '.join(code.split())


class Captured(Exception):
    """Carries the parser of a tool out of its parse_args."""


@cache
def parser_of(tool: str) -> argparse.ArgumentParser:
    spec = importlib.util.spec_from_file_location('tool_' + Path(tool).stem, ROOT / tool)
    module = importlib.util.module_from_spec(spec)
    path = sys.path[:]
    spec.loader.exec_module(module)
    sys.path[:] = path

    def capture(self, *args, **kwargs):
        raise Captured(self)

    patch = pytest.MonkeyPatch()
    patch.setattr(argparse.ArgumentParser, 'parse_args', capture)
    try:
        (module.parse_args if hasattr(module, 'parse_args') else module.main)()
    except Captured as captured:
        return captured.args[0]
    finally:
        patch.undo()
    raise AssertionError(f'{tool} parses no arguments')


def check_arguments(tool: str, words: list[str], complaint: str) -> None:
    parser = parser_of(tool)

    def fail(message: str) -> None:
        raise AssertionError(f'{complaint}: {message}')

    parser.error = fail
    parser.parse_args(words)


def check_command(words: list[str], complaint: str) -> None:
    """Files that are named are there, and a tool takes the arguments."""
    for word in words:
        if re.match(r'(configs|tools|tests|docs|requirements)/[\w./-]+\.\w+', word):
            file = word.split('::')[0]
            assert (ROOT / file).exists() or re.search(r'[A-Z]{3}', file), f'{complaint}: no {file}'
    if words[0] not in ('python', 'bash') or len(words) < 2:
        return
    found = re.search(r'(?:^|/)(tools/.+)', words[1])
    if not found:
        return
    script, rest = found[1], words[2:]
    assert (ROOT / script).is_file(), f'{complaint}: no {script}'
    if script.endswith('.py'):
        check_arguments(script, rest, complaint)
    elif re.search(r'/(dist|slurm)_(train|test)', script):
        if '/slurm_' in script:
            rest = rest[2:]
        given = 1 if script in ('tools/dist_train.sh', 'tools/slurm_train.sh') else 2
        gpus = '/dist_' in script
        assert not gpus or rest[given].isdigit(), f'{complaint}: no number of GPUs'
        more = rest[given + gpus:]
        tool = 'tools/test.py' if '_test' in script else 'tools/train.py'
        check_arguments(tool, [*rest[:given if '_test' in script else 1], *more], complaint)
    else:
        source = (ROOT / script).read_text()
        for word in rest:
            assert not word.startswith('-') or word.split('=')[0] in source, f'{complaint}: no {word}'


@pytest.mark.parametrize('page', PAGE_NAMES)
def test_commands_name_what_is_there(page: str, tmp_path: Path):
    texts = [(block.line, block.text) for block in blocks(page) if block.language == 'bash']
    texts += [(0, command) for command in inline_commands(page)]
    for line, text in texts:
        found = commands(text, tmp_path)
        assert found, f'{page}:{line} has no command: {text}'
        for words in found:
            check_command(words, f'{page}:{line}: {shlex.join(words)}')


@pytest.mark.parametrize('page', PAGE_NAMES)
def test_python_in_the_pages_compiles(page: str):
    for block in blocks(page):
        if block.language == 'python':
            compile(block.text, f'{page}:{block.line}', 'exec')


def how(block: Block) -> str:
    """'run', or the mark that says why not."""
    if not block.marks:
        return 'run'
    (mark, ) = block.marks
    kind, _, what = mark.partition(': ')
    if kind == 'needs':
        assert what in NEEDS, f'{block.page}:{block.line}: needs what? One of {sorted(NEEDS)}'
    else:
        for node in what.split(', '):
            file, _, test = node.partition('::')
            assert (ROOT / file).is_file(), f'{block.page}:{block.line}: no {file}'
            assert not test or re.search(rf'^def {test}\(', (ROOT / file).read_text(), re.M), \
                f'{block.page}:{block.line}: no {node}'
    return mark


def test_every_command_is_run_or_says_what_it_needs(tmp_path: Path):
    rows = [(how(block), f'{block.page}:{block.line}', shlex.join(words)) for block in bash_blocks()
            for words in commands(block.text, tmp_path)]
    for row in rows:
        print(' | '.join(row))
    run = sum(row[0] == 'run' for row in rows)
    print(f'{len(rows)} commands: {run} run here, {len(rows) - run} marked')
    assert run >= 20
    # a mark belongs to a command: none stands where no block follows
    text = '\n'.join((ROOT / page).read_text() for page in PAGE_NAMES)
    assert len([block for block in bash_blocks() if block.marks]) == len(
        re.findall(r'^<!-- (?:needs|run elsewhere): ', text, re.M))


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    """A folder like a checkout, with small data where the pages have theirs."""
    # Not projects: numba would compile the kernels again for a package at another path.
    for name in ('tools', 'configs', 'docs', 'mkdocs.yml'):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / '.venv').symlink_to(WARM)
    for folder in ('IMAGES', 'photos', 'held_out', 'data/imagenet/train/n01440764',
                   'data/coco/train2017', 'work_dirs/quickstart/photos'):
        # a single photo for the quickstart's config, which shows each ten times in an epoch
        number = {'photos': 8, 'work_dirs/quickstart/photos': 1}.get(folder, 3)
        make_photos(tmp_path / folder, number, seed=len(folder))
    quickstart = tmp_path / 'work_dirs/quickstart'
    make_store(quickstart / 'proposals.arrow', quickstart / 'photos')
    for run in ('quickstart/pretrain', 'one', 'another'):
        log = tmp_path / 'work_dirs' / run / '20260102_030405/vis_data/scalars.json'
        log.parent.mkdir(parents=True)
        records = [dict(loss=-i, lr=0.1, step=i, iter=i) for i in (1, 2, 3)]
        log.write_text(''.join(json.dumps(record) + '\n' for record in records))
    for i, name in enumerate(('OLD', 'B', 'A')):
        make_photos(tmp_path / f'of_{name}', 2, seed=i)
        for photo in (tmp_path / f'of_{name}').iterdir():
            photo.rename(photo.with_stem(f'{name}_{photo.stem}'))
        make_store(tmp_path / f'{name}.arrow', tmp_path / f'of_{name}')
    (tmp_path / 'names.txt').write_text('OLD_photo_000.png\n')
    names = sorted(path.name for path in (tmp_path / 'data/coco/train2017').iterdir())
    write(tmp_path / 'results.bbox.json', [
        dict(image_id=i, category_id=1, bbox=[4, 5, 40, 30], score=0.5) for i in range(len(names))])
    write(tmp_path / 'train_ratio3size0308post.json', {
        Path(name).stem: [[4, 5, 40, 30]] for name in names})
    for place, folder in (('instances_train2017.json', 'data/coco/train2017'),
                          ('data/coco/annotations/instances_train2017.json', 'data/coco/train2017'),
                          ('photos.json', 'photos'), ('held_out.json', 'held_out')):
        write(tmp_path / place, annotated(tmp_path / folder))
    # an official checkpoint's worth of names
    with torch.device('meta'):
        state = parity.build_model('SoCo_FPN', 'resnet18').state_dict()
    torch.save(dict(state_dict={name: torch.zeros(1) for name in state}), tmp_path / 'IN.pth')
    return tmp_path


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def annotated(folder: Path) -> dict:
    """A COCO annotation with an object of each of two classes on every photo of a folder."""
    names = sorted(path.name for path in folder.iterdir())
    boxes = {1: [4, 5, 40, 30], 2: [40, 20, 45, 50]}
    return dict(
        images=[dict(id=i, file_name=name, width=96, height=72) for i, name in enumerate(names)],
        annotations=[dict(id=10 * i + k, image_id=i, category_id=k, bbox=[x, y, w, h], area=w * h,
                          iscrowd=0, segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]])
                     for i in range(len(names)) for k, (x, y, w, h) in boxes.items()],
        categories=[dict(id=1, name='cat'), dict(id=2, name='dog')])


@pytest.mark.slow(25)
@pytest.mark.parametrize('page', [page for page in PAGE_NAMES if any(
    block.language == 'bash' and not block.marks for block in blocks(page))])
def test_commands_run(page: str, sandbox: Path):
    """A page's blocks in their order; blocks with a title are files that it tells to write."""
    programs = f'{WARM}/bin:{Path(sys.executable).parent}'
    shell = {**os.environ, 'PATH': f'{programs}:{os.environ["PATH"]}',
             'PYTHONPATH': f'{ROOT}:{sandbox}', 'OMP_NUM_THREADS': '1', 'SOCO_VENV': str(WARM)}
    for block in blocks(page):
        if block.title:
            (sandbox / block.title).write_text(block.text + '\n')
        elif block.language == 'bash' and not block.marks:
            done = subprocess.run(['bash', '-euo', 'pipefail', '-c', block.text], cwd=sandbox,
                                  env=shell, text=True, capture_output=True)
            assert done.returncode == 0, \
                f'{page}:{block.line}\n{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}'


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages; a warning, such as a broken link, is an error."""
    folder = tmp_path_factory.mktemp('docs') / 'site'
    done = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '-d', str(folder)], cwd=ROOT, text=True,
        capture_output=True, env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_a_checkpoint_and_a_record_have_the_keys_that_are_listed(tmp_path: Path):
    cfg = tiny_config(tmp_path, photos=4, **{'train_cfg.max_epochs': 1})
    runner = Runner.from_cfg(cfg)
    runner.train()
    content = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=True)
    keys = {'state_dict', 'optimizer', 'param_schedulers'}
    keys |= {f'{name}.{key}' for name in ('meta', 'message_hub') for key in content[name]}
    assert set(content) == {key.split('.')[0] for key in keys}
    page = (ROOT / 'docs/formats.md').read_text()
    table = page.split('## Checkpoint')[1].split('| names in')[0]
    cells = [line.split('|')[1] for line in table.splitlines() if line.startswith('| `')]
    assert {name for cell in cells for name in re.findall('`(.*?)`', cell)} == keys
    table = page.split('| names in')[1].split('## run.json')[0]
    begins = [name.split('{')[0] for name in re.findall('`(.*?)…`', table)]
    assert all(any(key.startswith(begin) for begin in begins) for key in content['state_dict'])
    record = set(re.findall('`([a-z_]+)`', page.split('## run.json')[1]))
    assert set(describe_session('configs/soco_r50_fpn_100e.py')) | {'ended', 'how'} == record


class Loads(HTMLParser):
    """What a page loads by itself when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ('script', 'img', 'iframe', 'source', 'video', 'audio'):
            self.found.append(values.get('src') or '')
        if tag == 'link' and values.get('rel') not in ('canonical', 'next', 'prev', 'alternate'):
            self.found.append(values.get('href') or '')


def test_the_pages_build_and_load_nothing_from_outside(site: Path):
    pages = {path.relative_to(site).with_suffix('.md').as_posix() for path in site.rglob('*.html')}
    assert pages - {'404.md'} == {name.removeprefix('docs/') for name in PAGE_NAMES} - {'README.md'}
    named = re.findall(r'^ +- ([\w/-]+\.md)$', (ROOT / 'mkdocs.yml').read_text(), re.M)
    assert sorted(named) == sorted(pages - {'404.md'}), 'each page once in the navigation'
    for path in site.rglob('*.html'):
        loads = Loads()
        loads.feed(path.read_text())
        outside = [where for where in loads.found if re.match(r'(https?:)?//', where)]
        assert not outside, f'{path.relative_to(site)}: {outside}'
    styles = ''.join(path.read_text() for path in site.rglob('*.css'))
    assert not re.findall(r'url\(["\']?https?:|@import', styles)


def test_the_api_pages_hold_every_module(site: Path):
    text = ''.join(path.read_text() for path in (site / 'api').glob('*.html'))
    for path in (ROOT / 'projects/soco').rglob('*.py'):
        name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
        if '.mim' not in path.parts and path.stem != '__init__':
            assert f'id="{name}"' in text, f'docs/api lacks {name}'


def source_messages() -> list[str]:
    spec = importlib.util.spec_from_file_location('messages', ROOT / 'docs/_from_source.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [text for _, text in module.messages()]


def test_messages_that_are_explained_are_the_code_s():
    text = (ROOT / 'docs/troubleshooting.md').read_text()
    explained = [line.strip('# `') for line in text.splitlines() if line.startswith('### ')]
    known = source_messages()
    shell = ' '.join(' '.join(path.read_text().split()) for path in (ROOT / 'tools').rglob('*.sh'))
    shell = re.sub(r'" \\? ?"', ' ', shell)
    assert len(explained) >= 25
    for message in explained:
        pattern = '.*'.join(re.escape(part.strip()) for part in message.split('…'))
        assert any(re.search(pattern, other) for other in known) or re.search(pattern, shell), message


FILES = (r"(?<![\w/.])(?<!MMDetection's `)((?:tools|configs|docs)/[\w./-]+\.(?:py|sh|md))"
         '(?! of MMDetection)')


def files_named(text: str) -> Iterator[str]:
    """Yield the files of the project that a text names, but not those that it says are of a commit."""
    for paragraph in text.split('\n\n'):
        if not re.search(r'\(commit [0-9a-f]{7}', paragraph):
            yield from (name for name in re.findall(FILES, ' '.join(paragraph.split()))
                        if not re.search('[A-Z]{3}', Path(name).stem))


def test_files_and_sections_that_code_and_pages_name_are_there():
    """Messages, help texts, the comments of configs and pages send a reader to what exists."""
    named = 'See `tools/gone.py`.\n\nThat is of before (commit 0123abc, `tools/old.py`).\n'
    assert list(files_named(named)) == ['tools/gone.py']
    sources = (path for folder in ('projects', 'tools', 'configs')
               for path in (ROOT / folder).rglob('*.*')
               if path.suffix in ('.py', '.sh', '.md', '.html') and '.mim' not in path.parts)
    for path in (*sources, *PAGES):
        text = re.sub(r"""['"]\n\s*f?['"]""", '', path.read_text())
        for name in files_named(text):
            assert (ROOT / name).is_file(), f'{path}: no {name}'
        for section, page in re.findall(r'see "([^"]+)" in ([\w/-]+\.md)', text):
            assert re.search(rf'^#+ {section}$', (ROOT / page).read_text(), re.M), (
                f'{path}: {page} has no section {section!r}')


def test_every_message_is_listed(site: Path):
    text = re.sub(r'<[^>]+>', '', (site / 'troubleshooting.html').read_text())
    assert len(source_messages()) > 150
    for message in ('There is no checkpoint at', 'is not an uncompressed tar archive',
                    'A checkpoint every', 'Nothing to draw of'):
        assert message in text
