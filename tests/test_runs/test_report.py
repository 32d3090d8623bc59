"""The report of a run: its sources, its warnings, and the page in a browser."""
import json
import os
import re
import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import find_browser, headless_browser
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from scripts import PYTHON, WARM
from small import ROOT, tiny_config

from projects.soco.compat.cpu import cpu_config
from projects.soco.evaluation.cost import match_detector
from projects.soco.launch.configs import load_config
from projects.soco.runs.config_changes import config_values, read_dumped
from projects.soco.runs.next_steps import browse_command, commands, transfer_command
from projects.soco.runs.read import Run, read_work_dir
from projects.soco.runs.record import RECORD, describe_session, read_record
from projects.soco.runs.report import ap_table, warnings_of, write_report

QUICKSTART = ROOT / 'configs/soco_r18_fpn_quickstart.py'
HOSTILE = '<script>document.title = "broken in"</script><img src=x onerror=alert(1)>.jpg'
CORNERS = ((200, 30, 30), (30, 160, 60), (40, 60, 200), (230, 200, 40))  # of the generated pictures


@pytest.fixture(scope='module')
def text() -> str:
    """A run's config in MMEngine's dumped form."""
    cfg = Config.fromfile(QUICKSTART)
    cfg.merge_from_dict({'train_dataloader.dataset.data_root': HOSTILE,
                         'train_dataloader.batch_size': 4})
    return cfg.pretty_text


def write_session(folder: Path, text: str, steps: range, time: str = '20261124_120000',
                  **values) -> Path:
    """Write a session's logs as MMEngine does; `values` are added to every record."""
    logs = folder / time / 'vis_data'
    logs.mkdir(parents=True)
    (logs / 'config.py').write_text(text)
    (folder / QUICKSTART.name).write_text(text)
    with open(logs / 'scalars.json', 'w') as file:
        for step in steps:
            loss = -4 * step / (step + 20)
            record = dict(lr=1e-3, data_time=.1, momentum=.99, loss=2 * loss, loss_12=loss,
                          loss_13=loss, obj_std=.6 - step / 1000, time=.5, epoch=-(-step // 10),
                          iter=step, step=step)
            file.write(json.dumps({**record, **values}) + '\n')
    return logs


def write_checkpoint(folder: Path, text: str | None, epoch: int = 10) -> Path:
    path = folder / f'epoch_{epoch}.pth'
    meta = dict(epoch=epoch, iter=epoch * 10) | ({'cfg': text} if text is not None else {})
    torch.save(dict(state_dict={'backbone.conv1.weight': torch.zeros(1)}, meta=meta), path)
    return path


def write_record(folder: Path, **values) -> None:
    session = describe_session(str(QUICKSTART))
    (folder / RECORD).write_text(json.dumps(dict(sessions=[{**session, **values}])))


def write_picture(path: Path) -> None:
    """Write a picture of four areas of known colours, wider than a phone's screen."""
    path.parent.mkdir(exist_ok=True)
    quarters = np.array(CORNERS, dtype=np.uint8).reshape(2, 2, 3)
    Image.fromarray(quarters.repeat(300, 0).repeat(600, 1)).save(path)


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory, text) -> Path:
    """A run with all parts of a report, and names that try to inject HTML."""
    folder = tmp_path_factory.mktemp('runs') / 'a <b>run'
    logs = write_session(folder, text, range(5, 105, 5))
    with open(logs / 'scalars.json', 'a') as file:
        for step, top1 in ((0, .1), (50, .425), (100, .375)):
            scores = {'objects/top1': top1, 'objects/top5': top1 + .3, 'objects/uniformity': -1.25}
            file.write(json.dumps({**scores, 'step': step}) + '\n')
    for name in ('views_0', 'views_50', 'views_60', 'views_100', 'neighbours_100'):
        write_picture(logs / f'vis_image/{name}.png')
    write_checkpoint(folder, text)
    write_record(folder, ended='2026-11-24T12:05:00+00:00', how='finished', commit=HOSTILE)
    quoted = HOSTILE.replace('"', '""')
    (folder / 'bad_images.csv').write_text(f'image,reason,replaced_by\n"{quoted}",cut off,good.jpg\n')
    return folder


class TestWhatIsWrong:

    def test_no_run(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='no work directory at .*tools/train.py'):
            write_report(tmp_path / 'none')
        with pytest.raises(ValueError, match='contains no run: no TIMESTAMP/vis_data'):
            write_report(tmp_path)
        with pytest.raises(ValueError, match='ends in .html'):
            write_report(tmp_path, tmp_path / 'page.pdf')
        assert not list(tmp_path.iterdir())

    def test_a_log_that_is_cut_in_mid_line(self, tmp_path, text):
        logs = write_session(tmp_path, text, range(5, 30, 5))
        whole = (logs / 'scalars.json').read_bytes()
        (logs / 'scalars.json').write_bytes(whole[:-40])
        run = read_work_dir(tmp_path)
        assert [r['step'] for r in run.records] == [5, 10, 15, 20] and run.done['iter'] == 20
        assert any('ends in the middle of a line' in trouble for trouble in run.troubles)
        assert 'ends in the middle of a line' in write_report(tmp_path).read_text()
        (logs / 'scalars.json').write_bytes(b'{"step": \n' + whole)
        run = read_work_dir(tmp_path)
        assert not run.records and any('line 1 is not a record' in t for t in run.troubles)
        page = write_report(tmp_path).read_text()
        assert 'line 1 is not a record' in page and 'no iteration was logged' in page.lower()

    def test_a_resumed_run_is_joined(self, tmp_path, text):
        write_session(tmp_path, text, range(5, 45, 5))
        write_session(tmp_path, text, range(35, 65, 5), time='20261124_130000', loss=-7.5)
        run = read_work_dir(tmp_path)
        losses = {r['step']: r['loss'] for r in run.records if 'loss' in r}
        assert list(losses) == list(range(5, 65, 5)) and run.starts == 2
        assert losses[35] == -7.5  # logged twice; the later session counts
        assert run.seconds == pytest.approx(30)

    def test_a_checkpoint_without_its_config(self, tmp_path, text):
        write_checkpoint(tmp_path, text)
        run = read_work_dir(tmp_path)
        assert run.config['train_dataloader']['batch_size'] == 4 and run.finished
        assert any('no config beside epoch_10.pth. The config inside' in t for t in run.troubles)
        assert 'own_photos/faster-rcnn_r18_fpn.py' in transfer_command(run).line
        write_checkpoint(tmp_path, None)
        assert 'epoch_10.pth. The checkpoint contains none' in write_report(tmp_path).read_text()
        assert not transfer_command(read_work_dir(tmp_path)).line

    def test_a_checkpoint_of_another_config(self, tmp_path, text):
        checkpoint = write_checkpoint(tmp_path, text.replace('depth=18', 'depth=34'))
        write_session(tmp_path, text, range(5, 105, 5))
        trouble, = (t for t in read_work_dir(tmp_path).troubles if 'another config' in t)
        assert 'model.backbone.depth' in trouble and 'separate work directory' in trouble
        checkpoint.write_bytes(checkpoint.read_bytes()[:300])
        run = read_work_dir(tmp_path)
        assert run.checkpoint is None and any('can be opened' in t for t in run.troubles)
        assert 'There is no checkpoint to continue from.' in warnings_of(run)

    def test_a_healthy_run_has_no_warning(self, whole_run):
        run = read_work_dir(whole_run)
        run.bad_images = []
        assert run.finished and warnings_of(run) == [] and run.troubles == []

    @pytest.mark.parametrize('values, message', [
        (dict(loss=float('nan')), 'loss is not finite at 6 logged iterations, the first is 5'),
        (dict(obj_std=.04), r'have collapsed: their spread \(obj_std\) is 0.040, under 0.1'),
        (dict(obj_std=float('nan')), 'have collapsed'),
    ])
    def test_values_gone_wrong(self, tmp_path, text, values, message):
        write_session(tmp_path, text, range(5, 35, 5), **values)
        found = warnings_of(read_work_dir(tmp_path))
        assert re.search(message, found[0])
        assert '>Warnings<' in write_report(tmp_path).read_text()

    @pytest.mark.parametrize('share, last, warned', [
        (.2, 19., True), (.2, 21., False), (.5, 21., True), (.5, 51., False)])
    def test_a_rank_that_fell(self, tmp_path, text, share, last, warned):
        text = text.replace("type='CollapseHook'", f"type='CollapseHook', rank_share={share}")
        logs = write_session(tmp_path, text, range(5, 15, 5), obj_rank=100.)
        with open(logs / 'scalars.json', 'a') as file:
            file.write(json.dumps(dict(obj_rank=last, step=15)) + '\n')
        told = [w for w in warnings_of(read_work_dir(tmp_path)) if 'into a few directions' in w]
        assert bool(told) == warned
        assert not told or f'fell from 100.0 to {last:.1f}, under {share:.0%} of the start' in told[0]
        assert not told or 'only a comparison tells (docs/results/collapse.md)' in told[0]
        assert f'100.0 → {last:.1f}' in write_report(tmp_path).read_text()

    @pytest.mark.parametrize('how, message', [
        (None, r'3 of 10 epochs, 35 iterations\). No end is recorded'),
        ('failed: disk full', r'\). It failed: disk full'),
        ('stopped by a signal', r'\). It was stopped by a signal')])
    def test_a_run_that_is_not_finished(self, tmp_path, text, how, message):
        write_session(tmp_path, text, range(5, 40, 5))
        write_record(tmp_path, **({'how': how} if how else {}))
        run = read_work_dir(tmp_path)
        warning, = (w for w in warnings_of(run) if w.startswith('The run is not finished'))
        assert re.search(message, warning)
        resume = commands(run)[0]
        assert resume.title == 'Finish the run' and resume.line == (
            f'bash tools/dist_train.sh {tmp_path}/{QUICKSTART.name} 1 --work-dir {tmp_path} --resume')

    def test_a_picture_that_is_cut_off(self, tmp_path, text):
        logs = write_session(tmp_path, text, range(5, 10, 5))
        write_picture(logs / 'vis_image/views_5.png')
        cut_off = logs / 'vis_image/views_10.png'
        cut_off.write_bytes((logs / 'vis_image/views_5.png').read_bytes()[:200])
        page = write_report(tmp_path).read_text()
        assert page.count('image/webp') == 1 and 'views_10.png cannot be shown' in page

    def test_another_kind_of_run(self, tmp_path, text):
        other = "model = dict(type='ImageClassifier', head=dict(type='LinearClsHead'))"
        write_session(tmp_path, other, range(5, 10, 5))
        with pytest.raises(ValueError, match='is a run of ImageClassifier.*plot_curves.py'):
            write_report(tmp_path)

    def test_a_detector(self, tmp_path):
        text = ("model = dict(type='MaskRCNN', roi_head=dict(type='StandardRoIHead'))\n"
                "train_cfg = dict(max_iters=100)\n")
        logs = write_session(tmp_path, text, range(5, 105, 5))
        lines = []
        for line in (logs / 'scalars.json').read_text().splitlines():
            lines.append(line)
            if ap := {50: .25, 100: .203}.get(json.loads(line)['step']):
                lines.append(json.dumps({
                    'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': 2 * ap, 'coco/segm_mAP': ap / 2,
                    'step': json.loads(line)['step']}))
        (logs / 'scalars.json').write_text('\n'.join(lines) + '\n')
        write_checkpoint(tmp_path, text)
        run = read_work_dir(tmp_path)
        assert ap_table(run.records) == dict(
            steps=[50, 100], best=(50, 'box AP 25.0'),
            rows=[('box AP', ['25.0', '20.3']), ('box AP50', ['50.0', '40.6']),
                  ('mask AP', ['12.5', '10.2'])])
        page = write_report(tmp_path).read_text()
        assert 'Detector, ' in page and 'AP on the validation set' in page
        assert 'Curve over the iterations: AP on val' in page
        assert 'The highest: box AP 25.0 after 50 iterations' in page
        assert 'Views' not in page and 'Object scores' not in page and 'collapsed' not in page
        assert [command.title for command in commands(run)] == ['Evaluate the detector']
        assert 'python tools/test.py' in page

    def test_a_report_is_written_whole_or_not_at_all(self, whole_run, tmp_path, monkeypatch):
        page = write_report(whole_run, tmp_path / 'page.html')
        before = page.read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(28, 'No space left on device')

        monkeypatch.setattr(os, 'fsync', full)
        with pytest.raises(OSError, match='page.html could not be written'):
            write_report(whole_run, page)
        assert page.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ['page.html']
        monkeypatch.undo()
        assert write_report(whole_run, tmp_path / 'new/folder/page.html').is_file()


class TestHowToGoOn:

    @pytest.mark.parametrize('config, family, detector, more', [
        ('soco_r50_fpn_400e', 'fpn', 'r50_fpn_ms-1x_coco', ''),
        ('soco_r50_c4_100e', 'c4', 'r50_c4_ms-1x_coco', ''),
        ('soco_r101_fpn_400e', 'fpn', 'r101_fpn_ms-1x_coco', ''),
        ('ablations/components_3_fpn', 'fpn', 'r50_fpn_ms-1x_coco',
         " --cfg-options 'default_hooks.pretrained.require=[backbone,neck]'"),
        ('ablations/components_2_selective_search', 'fpn', 'r50_fpn_ms-1x_coco',
         " --cfg-options 'default_hooks.pretrained.require=[backbone]'")])
    def test_the_detector_of_each_family(self, config, family, detector, more):
        checkpoint = Path("work dirs/it's/epoch_1.pth")
        run = Run(checkpoint.parent, checkpoint=checkpoint,
                  config=config_values(ROOT / f'configs/{config}.py'))
        line = transfer_command(run).line
        assert line == (
            f'bash tools/benchmarks/mmdetection/dist_train_{family}.sh configs/benchmarks/mmdetection/'
            f'coco/mask-rcnn_{detector}.py {shlex.quote(str(checkpoint))} 1{more}')
        assert shlex.split(line)[3] == str(checkpoint) and (ROOT / shlex.split(line)[1]).is_file()

    def test_the_detector_for_own_photos_reads_its_labels_from_variables(self):
        config = config_values(ROOT / 'configs/soco_effnetlite0_fpn_own_photos.py')
        config['train_dataloader']['dataset']['data_root'] = 'my photos'
        command = transfer_command(Run(Path('w'), checkpoint=Path('w/epoch_1.pth'), config=config))
        assert command.line == (
            "SOCO_PHOTOS='my photos' SOCO_TRAIN=train.json SOCO_VAL=val.json bash "
            'tools/benchmarks/mmdetection/dist_train_fpn.sh configs/benchmarks/mmdetection/own_photos/'
            'faster-rcnn_effnetlite0_fpn.py w/epoch_1.pth 1')
        assert 'COCO files of boxes' in command.note

    @pytest.mark.parametrize('config, of_coco, own', [
        ('soco_r50_fpn_100e_coco', 'coco/mask-rcnn_r50_fpn', 'own_photos/faster-rcnn_r50_fpn'),
        ('ablations/components_3_fpn', 'coco/mask-rcnn_r50_fpn', 'own_photos/faster-rcnn_r50_fpn'),
        ('soco_r101_fpn_400e', 'coco/mask-rcnn_r101_fpn', None),
        ('soco_r50_c4_100e', 'coco/mask-rcnn_r50_c4', None),
        ('soco_r18_fpn_quickstart', None, 'own_photos/faster-rcnn_r18_fpn'),
        ('soco_effnetlite0_fpn_own_photos', None, 'own_photos/faster-rcnn_effnetlite0_fpn')])
    def test_every_command_s_detector_fits_the_weights_and_the_photos(
            self, config, of_coco, own, tmp_path):
        """Photos of a user's own have boxes at most; the recipes for COCO have masks."""
        cfg = load_config(str(ROOT / f'configs/{config}.py'), {})
        with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
            state = MODELS.build(cpu_config(cfg).model).state_dict()
        checkpoint = Path('w/epoch_1.pth')
        for photos, expected in ((cfg.train_dataloader.dataset.data_root, of_coco), (tmp_path, own)):
            values = config_values(ROOT / f'configs/{config}.py')
            values['train_dataloader']['dataset']['data_root'] = str(photos)
            command = transfer_command(Run(Path('w'), checkpoint=checkpoint, config=values))
            if expected is None:
                assert photos != tmp_path or not command.line and 'for own photos' in command.note
                continue
            words = shlex.split(command.line)
            path = next(word for word in words if word.startswith('configs/'))
            assert expected in path and (words[0] == f'SOCO_PHOTOS={tmp_path}') == (photos == tmp_path)
            detector = load_config(str(ROOT / path), {})
            assert ('mask_head' in detector.model.roi_head) == (photos != tmp_path)
            require = [part for part in detector.default_hooks.pretrained.require
                       if part in ('backbone', 'neck') or any(key.startswith(part) for key in state)]
            detector.default_hooks.pretrained.require = require
            assert match_detector(detector, state).complete

    def test_the_quickstart_s_photos_have_their_annotations(self, text, tmp_path):
        config = read_dumped(text)
        config['train_dataloader']['dataset']['data_root'] = str(tmp_path)
        run = Run(Path('w'), checkpoint=Path('w/epoch_1.pth'), config=config)
        assert 'own_photos' in transfer_command(run).line
        (tmp_path / 'astronaut.png').touch()
        assert 'mask-rcnn_r18_fpn_quickstart.py' in transfer_command(run).line

    def test_own_sizes_have_no_ready_detector(self, text):
        config = read_dumped(text)
        config['model']['neck']['out_channels'] = 96
        command = transfer_command(Run(Path('w'), checkpoint=Path('w/epoch_1.pth'), config=config))
        assert not command.line and 'docs/transfer.md' in command.note


# WCAG 2 contrast of each text with the background of its nearest ancestor that has one.
CONTRASTS = """
const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => (v /= 255) <= .03928
  ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b };
const ground = e => { const c = getComputedStyle(e).backgroundColor;
  return c === 'rgba(0, 0, 0, 0)' ? ground(e.parentElement) : c };
return [...document.body.querySelectorAll('*')].filter(e => [...e.childNodes].some(
  n => n.nodeType === 3 && n.data.trim())).map(e => {
    const pair = [light(getComputedStyle(e).color), light(ground(e))];
    return [(Math.max(...pair) + .05) / (Math.min(...pair) + .05), e.outerHTML.slice(0, 80)] })"""
STICKING_OUT = """
return [...document.body.querySelectorAll('*')].filter(e => !e.parentElement.closest('.scroll, pre')
  && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""


class TestThePage:

    @pytest.fixture(scope='class')
    def browser(self, tmp_path_factory):
        with headless_browser(tmp_path_factory.mktemp('profile')) as browser:
            yield browser

    @pytest.fixture(scope='class')
    def page(self, whole_run) -> Path:
        return write_report(whole_run)

    @pytest.mark.parametrize('width', [360, 1280])
    @pytest.mark.parametrize('scheme', ['light', 'dark'])
    def test_in_a_browser(self, browser, page, width, scheme):
        browser.open(page, width, scheme=scheme)
        assert browser.console() == [] and browser.requests() == [page.as_uri()]
        assert browser.run('return document.documentElement.scrollWidth') == width
        assert browser.run(STICKING_OUT) == []
        images = browser.run(
            'return [...document.images].map(i => [i.complete, i.naturalWidth, i.alt])')
        assert len(images) == 9  # six curves, neighbours, the two latest of four views
        assert all(complete and wide > 300 and len(alt) > 20 for complete, wide, alt in images)
        contrasts = browser.run(CONTRASTS)
        assert len(contrasts) > 50 and min(contrasts)[0] >= 4.5, min(contrasts)

        shot, bright = browser.screenshot().astype(int), scheme == 'light'
        assert shot.shape[1] == width
        assert shot[2, 2].mean() > 200 if bright else shot[2, 2].mean() < 60
        title = region(shot, browser.box('h1')).mean(2)
        assert .01 < (title < 90 if bright else title > 170).mean() < .5, 'the title is written'
        curves = region(shot, browser.box('.curves img'))  # the losses
        lines = curves[np.ptp(curves, axis=2) > 80]  # coloured lines; text and grid are grey
        assert len(lines) > 200 and len({tuple(color) for color in lines // 64}) >= 2
        ground = np.median(curves)
        assert ground > 200 if bright else ground < 60, "the curves have the page's background"
        assert (abs(curves.mean(2) - ground) > 100).sum() > 300, 'axes and numbers can be read'
        left, top, _, bottom = browser.box('#what-it-saw img')
        for share, color in ((.05, CORNERS[0]), (.95, CORNERS[2])):
            found = shot[top + round(share * (bottom - top)), left + 20]
            assert abs(found - color).max() < 30, 'the page shows the picture of the view'

    def test_what_it_says(self, browser, page, whole_run):
        browser.open(page)
        assert browser.driver.title == 'a <b>run – SoCo run'
        headings = browser.run(
            "return [...document.querySelectorAll('h1, h2')].map(h => h.textContent)")
        assert headings == ['a <b>run', 'Warnings', 'Curves', 'Object scores', 'Views', 'Next steps',
                            'Run details']
        told = browser.run("return document.querySelector('#summary').innerText")
        for words in ('Finished', '10 of 10 epochs, 100 iterations', '-1.60 → -6.67',
                      'the lowest possible is -8', '0.50', '42.5%', 'top-1 at iteration 50'):
            assert words in told, words
        body = browser.run('return document.body.innerText')
        for words in (HOSTILE, 'iteration\t0\t50\t100', 'top1\t10.0%\t42.5%\t37.5%',
                      'uniformity\t-1.250', 'Iteration 60', 'train_dataloader.batch_size', '8 → 4',
                      f'torch {version("torch")}', 'This run against soco_r18_fpn_quickstart.py',
                      '50 s, 0.50 s each', '--images DIR', 'faster-rcnn_r18_fpn.py'):
            assert words in body, words
        checkpoint = shlex.quote(str(whole_run / 'epoch_10.pth'))
        lines = browser.run(
            "return [...document.querySelectorAll('#how-to-go-on code')].map(c => c.textContent)")
        assert lines[0].startswith(f'SOCO_PHOTOS={shlex.quote(HOSTILE)} SOCO_TRAIN=train.json')
        assert lines[0].endswith(f'faster-rcnn_r18_fpn.py {checkpoint} 1')
        assert lines[1].startswith(f'python tools/convert_weights.py {checkpoint} ')

    def test_names_are_not_run(self, browser, page):
        content = page.read_text()
        assert 'onerror=alert' in content and '<script' not in content and '<img src=x' not in content
        browser.open(page)
        assert browser.driver.title.endswith('SoCo run')
        foreign = 'script, iframe, object, link:not([href^="data:"])'
        assert browser.run('return document.querySelectorAll(arguments[0]).length', foreign) == 0

    def test_the_checks_see_what_they_forbid(self, browser, tmp_path):
        bad = tmp_path / 'bad.html'
        bad.write_text('<!doctype html><body style="color: #999; background: #fff">pale'
                       '<div style="width: 2000px">wide</div><img src="http://example.invalid/a.png">'
                       '<script>console.error("broken"); nothing.there()</script>')
        browser.open(bad, 360)
        assert 'http://example.invalid/a.png' in browser.requests()
        complaints = ' '.join(browser.console())
        assert 'broken' in complaints and 'nothing is not defined' in complaints
        assert browser.run(STICKING_OUT) and min(browser.run(CONTRASTS))[0] < 4.5

    def test_without_a_browser_ci_fails_and_others_skip(self, monkeypatch, tmp_path):
        monkeypatch.setenv('PATH', str(tmp_path))
        monkeypatch.setenv('CI', 'true')
        with pytest.raises(pytest.fail.Exception, match='apt-get install chromium chromium-driver'):
            find_browser()
        monkeypatch.delenv('CI')
        with pytest.raises(pytest.skip.Exception, match='needs a browser'):
            find_browser()


def region(shot: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
    left, top, right, bottom = box
    return shot[top:bottom, left:min(right, shot.shape[1] - 16)]


def test_commands_of_a_report_run_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run(tmp_path, checkpoint=tmp_path / 'epoch_1.pth')
    monkeypatch.chdir(ROOT)
    assert browse_command(run) == 'python tools/browse_views.py CONFIG'
    monkeypatch.chdir(tmp_path)
    assert browse_command(run) == f'python {ROOT}/tools/browse_views.py CONFIG'


@pytest.mark.slow(15)
def test_a_real_run_is_reported_and_goes_on_by_the_command_of_its_report(tmp_path):
    cfg = tiny_config(tmp_path, narrow=False, train_cfg__max_epochs=2,
                      default_hooks__logger__interval=2, default_hooks__checkpoint__interval=1)
    cfg.dump(tmp_path / 'mine.py')
    work = tmp_path / 'work'

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env={
            **os.environ, 'PYTHONPATH': str(ROOT), 'SOCO_VENV': str(WARM), 'OMP_NUM_THREADS': '1'})
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    run(PYTHON, 'tools/train.py', str(tmp_path / 'mine.py'), '--work-dir', str(work))
    assert read_record(work / RECORD)[-1]['how'] == 'finished'
    (work / 'epoch_2.pth').unlink()  # as if it had been killed in the second epoch
    write_record(work)
    first = read_work_dir(work)
    assert first.checkpoint.name == 'epoch_1.pth' and not first.finished
    run(*shlex.split(commands(first)[0].line))
    assert str(work / 'report.html') in run(PYTHON, 'tools/report.py', str(work))
    second = read_work_dir(work)
    assert second.finished and second.checkpoint.name == 'epoch_2.pth' and second.starts == 2
    assert second.records[-1]['epoch'] == 2 and second.troubles == []
    assert 'Finished' in (work / 'report.html').read_text()
