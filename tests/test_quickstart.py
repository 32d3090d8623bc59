"""The whole quickstart: photos, proposals, pretraining, a detector, pictures."""
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import PYTHON, WARM
from small import ROOT, make_photos, make_store

from projects.soco.evaluation.loading import build_model
from projects.soco.launch.configs import load_config
from projects.soco.proposals.store import ProposalStore
from projects.soco.study.own_photos import OWN_PHOTOS

# Configs in the place of the project's: networks and photos that take a tenth of the time. 100
# iterations still teach the first.
NARROW = {'soco_r18_fpn_quickstart.py': """
model = dict(
    backbone=dict(base_channels=16), neck=dict(in_channels=[16, 32, 64, 128]),
    roi_head=dict(bbox_head=dict(conv_out_channels=16)))
""", 'benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py': """
model = dict(
    backbone=dict(base_channels=16), neck=dict(in_channels=[16, 32, 64, 128]),
    roi_head=dict(bbox_head=dict(conv_out_channels=16)))
_base_.train_dataloader.dataset.pipeline[2].scale = (160, 96)
_base_.val_dataloader.dataset.pipeline[1].scale = (160, 96)
_base_.test_dataloader.dataset.pipeline[1].scale = (160, 96)
""", OWN_PHOTOS.format('effnetlite0').removeprefix('configs/'): """
model = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, conv_out_channels=16, fc_out_channels=32)))
_base_.train_dataloader.dataset.pipeline[2].scale = (96, 72)
_base_.val_dataloader.dataset.pipeline[1].scale = (96, 72)
_base_.test_dataloader.dataset.pipeline[1].scale = (96, 72)
train_dataloader = dict(batch_size=2)
"""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the project's tools and narrow networks, for work_dirs of its own."""
    (tmp_path / 'tools').symlink_to(ROOT / 'tools')
    for name, text in NARROW.items():
        base = name.replace('effnetlite0', 'r18')
        path = tmp_path / 'configs' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"_base_ = '{ROOT}/configs/{base}'\n{text}")
    return tmp_path


def start_quickstart(folder: Path, *arguments: str) -> subprocess.Popen:
    """Start the quickstart; pid.* then contain the ids of its processes."""
    return subprocess.Popen(
        [PYTHON, 'tools/quickstart.py', *arguments], cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '120',
                                     'SOCO_WARM_PID': str(folder / 'pid')})


def quickstart(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run it to its end."""
    process = start_quickstart(folder, *arguments)
    output = process.communicate(timeout=1200)
    return subprocess.CompletedProcess(arguments, process.returncode, *output)


@pytest.mark.slow(60)
def test_the_whole_way(folder):
    done = quickstart(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    out = folder / 'work_dirs/quickstart'
    assert len(ProposalStore.open(out / 'proposals.arrow')) == 8
    assert 'The results of an earlier run' not in done.stdout
    assert done.stdout.count(' yes ') == 5 and ' NO ' not in done.stdout
    assert '194 of 194 keys matched' in done.stdout
    assert re.search(r'box AP 0\.\d+', done.stdout) and re.search(r'mask AP 0\.\d+', done.stdout)
    assert 'same eight photos' in done.stdout
    assert (out / 'pretrain/epoch_10.pth').is_file() and list((out / 'finetune').glob('iter_*.pth'))
    page = (out / 'pretrain/report.html').read_text()
    assert f'report               {out.relative_to(folder)}/pretrain/report.html' in done.stdout
    assert 'Finished' in page and 'top1 same photo' in page and page.count('image/webp') == 4
    assert '>Warnings<' not in page
    for name in ('proposals', 'views', 'training'):
        with Image.open(out / f'pictures/{name}.png') as picture:
            pixels = np.asarray(picture.convert('RGB'))
        assert pixels.shape[0] > 300 and pixels.std() > 20, name


@pytest.fixture
def annotated(folder: Path) -> Path:
    """Photos with YOLO's text files."""
    make_photos(folder / 'mine', 7)
    for i in range(6):
        path = folder / f'labels/{"train" if i < 4 else "val"}/photo_{i:03}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('0 0.3 0.3 0.4 0.4\n1 0.6 0.6 0.3 0.3\n')
    (folder / 'classes.txt').write_text('cat\ndog\n')
    return folder


@pytest.mark.slow(20)
def test_from_annotations_to_the_page(annotated):
    call = ['mine', '--train', 'labels/train', '--val', 'labels/val', '--epochs', '1', '--iters', '4']
    done = quickstart(annotated, *call)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    out = annotated / 'work_dirs/quickstart_mine'
    assert 'YOLO text, 4 photos with 8 objects, written as a COCO json' in done.stdout
    # Pretraining sees the photo without labels, and none of val.
    names = [f'photo_{i:03}.png' for i in (0, 1, 2, 3, 6)]
    assert (out / 'photos.txt').read_text().split() == names
    assert len(ProposalStore.open(out / 'pretraining/proposals.arrow')) == 5
    page = (out / 'compare_starts.html').read_text()
    assert 'soco against random' in page and 'One seed, one pretraining' in page
    assert '<a href="pretraining/run/report.html">' in page and 'photos are in train and' not in page
    assert '5 photos without labels, none of val, 1 epochs' in page
    assert (out / 'pretraining/run/report.html').is_file()
    records = json.loads((out / 'results.json').read_text())['records']
    assert {key.split('/')[1] for key in records} == {'random', 'soco'}

    again = quickstart(annotated, *call)  # nothing is trained twice
    assert again.returncode == 0 and 'The run is finished' in again.stdout
    assert json.loads((out / 'results.json').read_text())['records'] == records


@pytest.mark.slow
@pytest.mark.parametrize(('arguments', 'log', 'number', 'way_out'), [
    ((), 'quickstart_mine/demo/pretrain.log', signal.SIGINT, 'starts anew'),
    (('--train', 'labels/train', '--val', 'labels/val', '--epochs', '50'),
     'quickstart_mine/pretraining/pretraining.log', signal.SIGTERM, 'continues')])
def test_a_signal_stops_the_pretraining_too(annotated, arguments, log, number, way_out):
    process, log = start_quickstart(annotated, 'mine', *arguments), annotated / 'work_dirs' / log
    while process.poll() is None and not (log.exists() and 'Epoch(train)' in log.read_text()):
        time.sleep(0.1)
    process.send_signal(number)
    told, errors = process.communicate(timeout=60)
    assert process.returncode == 75 and 'Traceback' not in errors, told + errors
    assert f'Stopped before the end; the same command {way_out}.' in told
    assert 'Stopped by a signal after iteration' in log.read_text()
    processes = [int(path.read_text()) for path in annotated.glob('pid.*')]
    assert len(processes) >= 3 and not [pid for pid in processes if Path(f'/proc/{pid}').exists()]


def test_wrong_annotations_end_the_quickstart_before_anything_is_trained(annotated):
    (annotated / 'labels/val/photo_004.txt').write_text('2 0.3 0.3 0.4 0.4\n')
    done = quickstart(annotated, 'mine', '--train', 'labels/train', '--val', 'labels/val')
    assert done.returncode == 2 and 'photo_004.txt, line 1: class 2 is not one of the 2' in ' '.join(
        done.stderr.split())
    assert not (annotated / 'work_dirs/quickstart_mine/pretraining').exists()
    done = quickstart(annotated, 'mine', '--train', 'x', '--val', 'y', '--iters', '3')
    assert done.returncode == 2 and '--iters at least 4' in done.stderr
    done = quickstart(annotated, 'mine', '--val', 'labels/val')
    assert done.returncode == 2 and '--val needs a folder of photos, --train and --val' in done.stderr


def load_quickstart() -> ModuleType:
    spec = importlib.util.spec_from_file_location('quickstart', ROOT / 'tools/quickstart.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.mark.slow
def test_a_network_that_did_not_learn_is_said_to(folder, monkeypatch, capsys):
    """The weights are those of the start, and the loss does not fall."""
    monkeypatch.chdir(folder)
    tool = load_quickstart()
    make_photos(tool.OUT / 'photos', 3)
    store = make_store(tool.OUT / 'proposals.arrow', tool.OUT / 'photos')
    options = {f'train_dataloader.dataset.{key}': str(value) for key, value in
               dict(data_root=tool.OUT / 'photos', proposals=store).items()}
    cfg = load_config(tool.PRETRAINING, options)
    log = tool.OUT / 'pretrain/20260102_030405/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('\n'.join(json.dumps(dict(
        loss=-1 - step, loss_12=-.5, loss_13=-.5, loss_regulariser=-step, step=step))
        for step in (1, 2)) + '\n')
    weights = tool.OUT / 'start.pth'
    torch.save(dict(state_dict=build_model(cfg, seed=cfg.randomness.seed).state_dict()), weights)
    assert not tool.judge(weights, options, tool.OUT)
    told = capsys.readouterr().out
    assert told.count(' NO ') == 3 and told.count('NO, ') == 3  # all but the spread and the rank
    assert re.search(r'NO, loss of the pairs of views \(-8 at best\): Train for longer', told)
    assert 'covariance_weight' not in told and '(measured on the photos of the training)' in told

    # A head with one direction: half of its units get the same weights, the others none.
    state = torch.load(weights)['state_dict']
    for prefix in ('', 'target.'):
        fc = state[f'{prefix}roi_head.bbox_head.shared_fcs.0.weight']
        fc[:128], fc[128:] = fc[:1].clone(), 0
    torch.save(dict(state_dict=state), weights)
    log.write_text('\n'.join(json.dumps(dict(loss=-step, loss_12=-step, step=step))
                             for step in (1, 2)) + '\n')
    assert not tool.judge(weights, options, tool.OUT)
    told = ' '.join(capsys.readouterr().out.split())
    assert 'The object features differ in about 1 directions, those of random' in told
    assert 'raise model.regulariser.covariance_weight' in told and 'NO, loss' not in told


def test_a_folder_without_photos_loses_nothing(folder):
    kept = folder / 'work_dirs/quickstart_empty/demo/pretrain/epoch_10.pth'
    kept.parent.mkdir(parents=True)
    kept.write_text('weights of an earlier run')
    (folder / 'empty').mkdir()
    done = quickstart(folder, 'empty')
    assert done.returncode == 2 and 'empty contains no photo' in done.stderr
    assert kept.is_file()


def test_results_of_an_earlier_run_are_replaced_aloud_and_those_of_other_photos_stay(
        folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    tool = load_quickstart()
    make_photos(folder / 'mine', 2)
    out = tool.own_folder(folder / 'mine') / 'demo'
    assert out == Path('work_dirs/quickstart_mine/demo')
    for path in (tool.OUT / 'pretrain/epoch_10.pth', out / 'pretrain/epoch_10.pth'):
        path.parent.mkdir(parents=True)
        path.touch()
    tool.collect_photos(folder / 'mine', out)
    assert f'The results of an earlier run in {out} are replaced' in capsys.readouterr().out
    assert len(list((out / 'photos').iterdir())) == 2 and not (out / 'pretrain').exists()
    assert (tool.OUT / 'pretrain/epoch_10.pth').is_file()


def run_script(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the script from a folder, in a project whose set-up and tool only say that they ran."""
    tools = folder / 'project/tools'
    tools.mkdir(parents=True, exist_ok=True)
    for name in ('quickstart.sh', '_environment.sh'):
        shutil.copy(ROOT / 'tools' / name, tools)
    (tools / 'setup_env.sh').write_text('echo SET-UP\n')
    (tools / 'quickstart.py').write_text('import sys\nprint(sys.argv[1:])\n')
    done = subprocess.run(['bash', str(tools / 'quickstart.sh'), *arguments], cwd=folder, text=True,
                          capture_output=True, env={**os.environ, 'SOCO_VENV': str(WARM)})
    return done.returncode, ' '.join((done.stdout + done.stderr).split())


def test_the_script_gives_whole_paths(tmp_path):
    (tmp_path / 'my photos').mkdir()
    for name in ('t.json', 'v.json'):
        (tmp_path / name).touch()
    expected = ['--train', f'{tmp_path}/t.json', '--val', f'{tmp_path}/v.json', '--epochs', '3',
                '--work-dir', f'{tmp_path}/new/work']
    for words in (['--train', 't.json', '--val', 'v.json', '--epochs', '3', '--work-dir', 'new/work'],
                  ['--train=t.json', '--val=v.json', '--epochs=3', '--work-dir=new/work']):
        told = f'SET-UP {[f"{tmp_path}/my photos", *expected]}'
        assert run_script(tmp_path, 'my photos', *words) == (0, told)
    assert run_script(tmp_path) == (0, 'SET-UP []')


@pytest.mark.parametrize('arguments, code, told', [
    (['--help'], 0, 'usage: bash tools/quickstart.sh'),
    (['.', '--epoch', '3'], 2, 'Unknown argument: --epoch'),
    (['.', '--epochs=many'], 2, '--epochs is a number, not many'),
    (['.', '--train'], 2, '--train needs a value'),
    (['.', '--train=nowhere.json'], 2, 'There is no nowhere.json (--train)'),
    (['.', '--iters', '3'], 2, '--iters needs a folder of photos, --train and --val'),
    (['nowhere'], 2, 'There is no folder nowhere'),
    (['.', '.'], 2, 'One folder of photos, not also .')])
def test_the_script_refuses_and_helps_before_the_set_up(tmp_path, arguments, code, told):
    found, printed = run_script(tmp_path, *arguments)
    assert found == code and told in printed and 'SET-UP' not in printed
