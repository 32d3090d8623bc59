"""The package outside its repository, and its versions, citation, linter and type checks."""
import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from small import ROOT, make_photos

from projects.soco import __version__

MIM = 'projects/soco/.mim/'
NOT_SOURCE = shutil.ignore_patterns(
    '.git', '.venv*', 'build', 'dist', 'data', 'work_dirs', 'site', 'tests', '.mim', '*.egg-info',
    '__pycache__', '.*_cache')


def run(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command without the repository in its environment and return its output."""
    ours = {key: value for key, value in os.environ.items()
            if key not in ('PYTHONPATH', 'SOCO_VENV', 'SOCO_ROOT')}
    done = subprocess.run([str(word) for word in command], cwd=cwd, text=True, capture_output=True,
                          env={**ours, **environment})
    assert done.returncode == 0, f'{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
    return done.stdout + done.stderr


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the repository, so that a build leaves no files in it."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp('copy') / 'source', ignore=NOT_SOURCE))


@pytest.fixture(scope='module')
def wheel(source: Path) -> Path:
    """Build the wheel offline."""
    out = source.parent / 'wheels'
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index',
        '-w', out, source)
    (path, ) = out.glob('mmsoco-*.whl')
    return path


@pytest.fixture(scope='module')
def installed(wheel: Path) -> Path:
    """Create an environment with the wheel that can also import the packages of this environment."""
    folder = wheel.parents[1] / 'environment'
    run(sys.executable, '-m', 'venv', '--without-pip', folder)
    python = folder / 'bin/python'
    print(run(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index',
              wheel))
    (site, ) = folder.glob('lib/python*/site-packages')
    # a line in a .pth file; .pth files in that folder, such as those of editable installs, are ignored
    (site / 'heavy.pth').write_text(sysconfig.get_path('purelib'))
    return folder


def shipped() -> set[str]:
    """Return the files that `.mim` of a wheel must contain."""
    files = {path.relative_to(ROOT).as_posix() for name in ('configs', 'tools')
             for path in (ROOT / name).rglob('*') if path.is_file() and '__pycache__' not in path.parts}
    of_a_checkout = {f'tools/{name}' for name in ('setup_env.sh', 'run_tests.sh', 'test_matrix.sh',
                                                  'quickstart.sh', 'quickstart.py')}
    assert of_a_checkout < files
    return files - of_a_checkout | {'model-index.yml'}


def package_files() -> set[str]:
    """Return all files of the package, including those that are not code."""
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / 'projects/soco').rglob('*')
            if path.is_file() and not {'__pycache__', '.mim'} & set(path.parts)}


def test_projects_is_an_implicit_namespace():
    assert not (ROOT / 'projects/__init__.py').exists()


@pytest.mark.slow
def test_the_wheel_holds_package_configs_and_tools_and_nothing_else(wheel: Path):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
    assert {name.removeprefix(MIM) for name in names if name.startswith(MIM)} == shipped()
    assert {name for name in names if not name.startswith(MIM)} == package_files()


# The newest versions on the package index on 2026-11-28, for Python 3.12.
NEWEST = dict(torch='2.15.0', torchvision='0.29.2', numpy='2.5.5', scipy='1.18.1', pillow='13.0.0',
              pyarrow='26.0.1', matplotlib='3.11.2', numba='0.68.1', pycocotools='2.0.11',
              **{'opencv-python': '5.0.0.93'})
HOSTS = {'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmcls', 'mmselfsup', 'onedl-mmengine', 'onedl-mmcv',
         'onedl-mmpretrain', 'setuptools'}


@pytest.mark.slow
def test_the_wheel_accepts_the_newest_versions_and_leaves_the_host_to_its_extras(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    (name, ) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
    metadata = email.message_from_bytes(archive.read(name))
    needed = [Requirement(line) for line in metadata.get_all('Requires-Dist')]
    base = {one.name: one.specifier for one in needed if one.marker is None}
    assert NEWEST.keys() <= base.keys() and not base.keys() & HOSTS
    assert all(base[name].contains(version) for name, version in NEWEST.items())
    assert all(base[name].contains(version) for name, version in  # the oldest that was seen to work
               dict(torch='2.11.0', torchvision='0.26.0', numpy='2.4.6', scipy='1.17.1').items())
    assert not any(base['torch'].contains(version) for version in ('2.10.0', '2.16.0'))
    extras = {
        extra: {one.name for one in needed if one.marker and one.marker.evaluate({'extra': extra})}
        for extra in ('lite', 'frozen', 'onedl')}
    assert extras['lite'] - {'mmcv-lite'} == extras['frozen'] == {
        'mmengine', 'mmdet', 'mmcls', 'mmselfsup', 'setuptools'}
    assert not extras['lite'] & extras['onedl'] and 'onedl-mmpretrain' in extras['onedl']
    assert metadata['Requires-Python'] == '<3.14,>=3.11'


@pytest.mark.slow
def test_an_sdist_makes_the_same_wheel(source: Path, wheel: Path, tmp_path: Path):
    build = 'import sys; from setuptools import build_meta as b; '
    run(sys.executable, '-c', build + 'b.build_sdist(sys.argv[1])', tmp_path, cwd=source)
    (archive, ) = tmp_path.glob('*.tar.gz')
    shutil.unpack_archive(archive, tmp_path, filter='data')
    (unpacked, ) = (path for path in tmp_path.iterdir() if path.is_dir())
    run(sys.executable, '-c', build + 'b.build_wheel(sys.argv[1])', tmp_path, cwd=unpacked)
    (again, ) = tmp_path.glob('*.whl')
    first, second = (zipfile.ZipFile(path) for path in (wheel, again))
    contents = [{name: file.read(name) for name in file.namelist() if '.dist-info/' not in name}
                for file in (first, second)]
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_an_editable_install_links_configs_and_tools(source: Path, tmp_path: Path):
    run(sys.executable, '-c', 'import sys; from setuptools import build_meta as b; '
        'b.build_editable(sys.argv[1])', tmp_path, cwd=source)
    for name in ('configs', 'tools', 'model-index.yml'):
        link = source / MIM / name
        assert link.is_symlink() and link.resolve() == source / name
        assert not os.path.isabs(os.readlink(link))
    # the links still work after the checkout is moved
    assert (source.parent / 'source' / MIM / 'configs/metafile.yml').is_file()


@pytest.mark.slow(22)
def test_the_wheel_works_outside_of_the_repository_beside_another_project(
        installed: Path, tmp_path: Path):
    python = installed / 'bin/python'
    other = tmp_path / 'other/projects/other'
    other.mkdir(parents=True)
    (other / '__init__.py').write_text('name = "another project"\n')
    printed = run(python, '-c', 'import projects.soco, projects.other; '
                  'print(projects.soco.__path__[0]); print(projects.soco.__version__); '
                  'print(projects.other.name)', cwd=tmp_path, PYTHONPATH=str(other.parents[1]))
    place, version, name = printed.split('\n')[:3]
    assert Path(place).is_relative_to(installed) and (version, name) == (__version__, 'another project')

    mim = Path(place) / '.mim'
    assert 'usage:' in run(python, mim / 'tools/train.py', '--help', cwd=tmp_path)
    command = installed / 'bin/mmsoco'
    listed = run(command, '--help', cwd=tmp_path)
    assert '  pretrain  ' in listed and str(mim / 'configs') in listed
    assert 'usage: mmsoco proposals' in run(command, 'proposals', '--help', cwd=tmp_path)
    assert run(python, '-c', 'from projects.soco.runs.config_changes import CONFIGS; print(CONFIGS)',
               cwd=tmp_path).strip() == str(mim / 'configs')

    make_photos(tmp_path / 'photos', 2)
    run(command, 'proposals', 'photos', 'photos.arrow', '--source', 'random', '--workers', '1',
        cwd=tmp_path)
    printed = run(
        'bash', mim / 'tools/dist_train.sh', mim / 'configs/soco_r18_fpn_quickstart.py', 1,
        '--cfg-options', 'train_dataloader.dataset.data_root=photos',
        'train_dataloader.dataset.proposals=photos.arrow', 'train_dataloader.dataset.repeat=1',
        'train_dataloader.batch_size=2', 'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False', 'train_cfg.max_epochs=1',
        'default_hooks.logger.interval=1', cwd=tmp_path,
        PATH=f'{installed / "bin"}:{os.environ["PATH"]}')
    assert re.search(r'Epoch\(train\)\s+\[1\]\[1/1\]', printed) and 'Done.' in printed
    assert (tmp_path / 'work_dirs/soco_r18_fpn_quickstart/epoch_1.pth').is_file()
    assert str(ROOT / 'projects') not in printed


def test_changelog_and_citation_bear_the_version():
    assert re.fullmatch(r'0\.\d+\.\d+', __version__)
    changes = (ROOT / 'CHANGELOG.md').read_text()
    assert re.findall(r'^## \[(.*?)\]', changes, re.M)[0] == 'Unreleased'
    assert f'`{__version__}`' in changes
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['cff-version'] == '1.2.0' and citation['version'] == __version__
    assert {'title', 'message', 'authors', 'license', 'preferred-citation'} <= set(citation)
    paper = citation['preferred-citation']
    names = [author['family-names'] for author in paper['authors']]
    assert names == ['Wei', 'Gao', 'Wu', 'Hu', 'Lin'] and paper['year'] == 2021
    assert paper['title'] in (ROOT / 'README.md').read_text().replace('\n', ' ')


def test_public_ci_and_local_ci_run_the_readmes_test_command():
    public = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())
    commands = [step['run'] for step in public['jobs']['tests']['steps'] if 'run' in step]
    assert commands == ['bash .ci/run']
    assert (ROOT / '.ci/run').read_text().rstrip().endswith('bash tools/run_tests.sh "$@"')
    assert 'bash tools/run_tests.sh' in (ROOT / 'README.md').read_text()


def test_pre_commit_runs_the_pinned_linter_and_type_checker():
    config = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())
    local = [hook for repo in config['repos'] if repo['repo'] == 'local' for hook in repo['hooks']]
    assert {hook['entry'].split()[0] for hook in local} == {'ruff', 'mypy', 'lint-imports'}
    pins = (ROOT / 'requirements/constraints.txt').read_text()
    assert {'ruff', 'mypy', 'import-linter'} <= set(re.findall(r'^([\w-]+)==', pins, re.M))


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([Path(sys.executable).with_name('lint-imports'), '--no-cache'], cwd=folder,
                          text=True, capture_output=True, env={**os.environ, 'PYTHONPATH': str(folder)})


def test_imports_go_down_the_layers():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout
    assert ' 0 broken' in done.stdout


@pytest.mark.parametrize('file, line, contract', [
    ('models/necks.py', 'from ..engine import lars', 'layers'),
    ('evaluation/levels.py', 'from ..runs import record', 'layers'),
    ('pictures/canvas.py', 'from ..launch import errors', 'layers'),
    ('proposals/filters.py', 'import torch', 'without torch'),
    ('a_new_room.py', '', 'layers')])
def test_an_import_that_goes_up_is_found(file: str, line: str, contract: str, tmp_path: Path):
    shutil.copytree(ROOT / 'projects/soco', tmp_path / 'projects/soco', ignore=NOT_SOURCE)
    shutil.copy(ROOT / 'pyproject.toml', tmp_path)
    with open(tmp_path / 'projects/soco' / file, 'a') as module:
        module.write(f'\n{line}\n')
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(f'{contract}.* BROKEN', ' '.join(done.stdout.split())) or file == 'a_new_room.py'


def test_the_readme_is_a_front_door():
    """At most 150 lines; its picture is small, and comes before everything else."""
    lines = (ROOT / 'README.md').read_text().splitlines()
    assert len(lines) <= 150
    picture = re.fullmatch(r'!\[.+\]\((.+)\)', next(line for line in lines[1:] if line))
    assert (ROOT / picture[1]).stat().st_size < 400_000


def test_ruff_finds_nothing():
    run(sys.executable, '-m', 'ruff', 'check', '--no-cache', ROOT)


@pytest.mark.slow(22)
def test_mypy_finds_nothing(tmp_path: Path):
    run(sys.executable, '-m', 'mypy', '--cache-dir', tmp_path)
