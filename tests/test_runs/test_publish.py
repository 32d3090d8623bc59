"""Published weights: their parameters, file names, use in a detector, and model card."""
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from miniatures import write_coco
from mmengine.config import Config
from mmengine.registry import init_default_scope
from safetensors import safe_open
from scripts import PYTHON
from small import ROOT

from projects.soco import __version__
from projects.soco.runs.publish import publish, read_results
from projects.soco.runs.record import describe_session
from projects.soco.weights.read import read_checkpoint, read_weights

QUICKSTART = ROOT / 'configs/soco_r18_fpn_quickstart.py'
DETECTOR = ROOT / 'configs/benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py'


@pytest.fixture(scope='module')
def state() -> dict[str, torch.Tensor]:
    """Every parameter name of the quickstart's model with a small unique tensor."""
    from mmselfsup.registry import MODELS

    import projects.soco.models  # noqa: F401
    init_default_scope('mmselfsup')
    with torch.device('meta'):
        model = MODELS.build(Config.fromfile(QUICKSTART).model)
    return {name: torch.tensor([i, i + 0.5]) for i, name in enumerate(model.state_dict())}


@pytest.fixture
def checkpoint(state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    """A checkpoint as the quickstart writes it (weights, optimiser, log), and the record of the run."""
    meta = dict(epoch=10, iter=100, cfg=Config.fromfile(QUICKSTART).pretty_text,
                mmengine_version='0.10.7', experiment_name='soco_r18_fpn_quickstart_20260102_030405')
    path = tmp_path / 'run/epoch_10.pth'
    path.parent.mkdir()
    torch.save(dict(meta=meta, state_dict=state, optimizer=dict(state={0: torch.zeros(3)}),
                    message_hub=dict(log_scalars={}), param_schedulers=[{}]), path)
    session = describe_session(str(QUICKSTART)) | dict(commit='0123456789ab', version='0.0.9')
    (path.parent / 'run.json').write_text(json.dumps(dict(sessions=[session, session])))
    return path


def test_backbone_neck_and_head_are_kept_and_nothing_else(checkpoint, state, tmp_path):
    pth, safetensors = publish(checkpoint, tmp_path / 'out').weights
    kept = read_checkpoint(pth)
    assert set(kept) == {'state_dict', 'meta'}
    expected = {key for key in state if key.startswith(('backbone.', 'neck.', 'roi_head.'))}
    assert {key.split('.')[0] for key in state} > {'target', 'projector', 'head'}
    for weights in (kept['state_dict'], read_weights(safetensors)):
        assert set(weights) == expected
        assert all(torch.equal(value, state[key]) for key, value in weights.items())


def test_names_bear_the_files_own_hashes_and_do_not_change(checkpoint, tmp_path):
    first = publish(checkpoint, tmp_path / 'one')
    again = publish(checkpoint, tmp_path / 'two')
    for path in first.weights:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.name == f'soco_r18_fpn_quickstart-{digest[:8]}{path.suffix}'
    assert [path.name for path in first.weights] == [path.name for path in again.weights]
    assert first.card.read_text() == again.card.read_text()
    assert sorted(path.name for path in (tmp_path / 'one').iterdir()) == sorted(
        path.name for path in (*first.weights, first.card))


def test_metadata_tell_config_version_epoch_and_commit(checkpoint, tmp_path):
    pth, safetensors = publish(checkpoint, tmp_path / 'out').weights
    meta = read_checkpoint(pth)['meta']
    with safe_open(safetensors, 'pt') as file:
        header = file.metadata()
    for about in (meta, header):
        assert about['config'] == 'soco_r18_fpn_quickstart.py' and about['commit'] == '0123456789ab'
        assert (about['epoch'], about['iteration']) == ('10', '100')
        assert (about['trained_with'], about['published_with']) == ('0.0.9', __version__)
        assert Config.fromstring(about['cfg'], '.py').model.backbone.depth == 18


def test_without_a_record_the_commit_is_not_made_up(checkpoint, tmp_path):
    (checkpoint.parent / 'run.json').unlink()
    published = publish(checkpoint, tmp_path / 'out')
    assert read_checkpoint(published.weights[0])['meta']['commit'] == 'not recorded'
    assert 'commit not recorded' in published.card.read_text()


def test_the_card_is_filled_and_its_results_are_empty(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a quickstart may have been run in the checkout
    published = publish(checkpoint, tmp_path / 'out')
    text = published.card.read_text()
    assert '$' not in text
    for path in published.weights:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert f'| `{path.name}` | SHA-256 `{digest}` |' in text
    assert '10 epochs, 100 iterations' in text and 'commit 0123456789ab' in text
    assert f'own_photos/faster-rcnn_r18_fpn.py {published.weights[0].name}' in text
    assert re.findall(r'^\| Mask R-CNN 1×, COCO val2017 (.*)$', text, re.M) == [
        '| box AP |  |  |', '| mask AP |  |  |']


def test_results_come_from_a_file_and_say_whose_they_are(checkpoint, tmp_path):
    row = dict(task='Mask R-CNN', metric='box AP', value=1.5, source='ours | test')
    (tmp_path / 'results.json').write_text(json.dumps([row]))
    results = read_results(tmp_path / 'results.json')
    text = publish(checkpoint, tmp_path / 'out', results=results).card.read_text()
    assert r'| Mask R-CNN | box AP | 1.5 | ours \| test |' in text and 'COCO val2017' not in text


@pytest.mark.parametrize('content, message', [
    ('{"task": 1}', 'no list of results'), ('[', 'is not json'), ('[]', 'no list of results'),
    ('[{"task": "a", "metric": "b", "value": 1}]', 'entry 0 is not a result'),
    ('[{"task": "a", "metric": "b", "value": 1, "source": " "}]', 'entry 0 is not a result')])
def test_results_that_are_none(content, message, tmp_path):
    (tmp_path / 'results.json').write_text(content)
    with pytest.raises(ValueError, match=message):
        read_results(tmp_path / 'results.json')


def test_nothing_is_replaced_unasked(checkpoint, tmp_path):
    published = publish(checkpoint, tmp_path / 'out')
    published.card.write_text('edited by hand')
    for path in published.weights:
        path.unlink()
    with pytest.raises(FileExistsError, match=re.escape(str(published.card))):
        publish(checkpoint, tmp_path / 'out')
    assert published.card.read_text() == 'edited by hand' and not published.weights[0].exists()
    publish(checkpoint, tmp_path / 'out', overwrite=True)
    assert published.card.read_text() != 'edited by hand' and published.weights[0].exists()


def test_what_is_no_pretraining_is_refused(checkpoint, state, tmp_path):
    torch.save(dict(state_dict=state), tmp_path / 'bare.pth')
    with pytest.raises(ValueError, match='does not contain the config of a SoCo pretraining'):
        publish(tmp_path / 'bare.pth', tmp_path / 'out')
    detector = dict(meta=dict(cfg=Config.fromfile(DETECTOR).pretty_text), state_dict=state)
    torch.save(detector, tmp_path / 'detector.pth')
    with pytest.raises(ValueError, match='does not contain the config of a SoCo pretraining'):
        publish(tmp_path / 'detector.pth', tmp_path / 'out')
    content = torch.load(checkpoint)
    content['state_dict'] = {**state, 'backbone.conv1.weight': torch.tensor([0, torch.nan])}
    torch.save(content, checkpoint)
    with pytest.raises(ValueError, match='backbone.conv1.weight contains numbers that are not finite'):
        publish(checkpoint, tmp_path / 'out')
    with pytest.raises(ValueError, match="'../x' is not a valid file name prefix"):
        content['state_dict'] = state
        torch.save(content, checkpoint)
        publish(checkpoint, tmp_path / 'out', name='../x')
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_the_result_starts_a_detector_and_can_be_converted(checkpoint, tmp_path):
    from mmselfsup.registry import MODELS

    def tool(name: str, *args: object) -> str:
        coco = tmp_path / 'coco'
        done = subprocess.run(
            [PYTHON, str(ROOT / f'tools/{name}.py'), *map(str, args)], capture_output=True,
            text=True, cwd=tmp_path, env={
                **os.environ, 'PYTHONPATH': str(ROOT),
                'SOCO_PHOTOS': str(coco / 'train2017'),
                'SOCO_TRAIN': str(coco / 'annotations/instances_train2017.json'),
                'SOCO_VAL': str(coco / 'annotations/instances_train2017.json')})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    init_default_scope('mmselfsup')
    state = MODELS.build(Config.fromfile(QUICKSTART).model).state_dict()
    torch.save({**torch.load(checkpoint), 'state_dict': state}, checkpoint)
    printed = tool('publish_model', checkpoint, 'out', '--name', 'mine')
    pth, safetensors = (re.search(rf'Written: (\S+{suffix})\n', printed)[1]
                        for suffix in ('.pth', '.safetensors'))
    assert Path(pth).name.startswith('mine-')
    for path in (pth, safetensors):
        tool('convert_weights', path, f'{path}.d2.pth', '--to', 'detectron2')
        d2 = torch.load(tmp_path / f'{path}.d2.pth')['model']
        stem = d2['backbone.bottom_up.stem.conv1.weight']
        assert torch.equal(stem, state['backbone.conv1.weight'])
    write_coco(tmp_path / 'coco', ['sock', 'shoe'], side=(300, 400))
    boxes = ROOT / 'configs/benchmarks/mmdetection/own_photos/faster-rcnn_r18_fpn.py'
    printed = tool('train', boxes, '--pretrained', safetensors, '--work-dir', 'work', '--cfg-options',
                   'train_cfg.max_iters=1', 'train_cfg.val_interval=1',
                   'default_hooks.precise_bn.num_iters=1')
    assert '194 of 194 keys matched' in printed and 'Done.' in printed
