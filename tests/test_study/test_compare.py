"""Tests of the comparison of starts: fitted configs, plan, records, page."""
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from rich.console import Console
from small import ROOT, write_set

from projects.soco.detectors.fit import as_shares, fit_detector, thaw
from projects.soco.launch.configs import dicts_in
from projects.soco.launch.errors import Stopped
from projects.soco.study import training
from projects.soco.study.compare import Comparison, Start, read_annotations, read_starts
from projects.soco.study.compare_page import bands_of, draw, summarise, values_of, write_results
from projects.soco.study.compare_run import facts_of, show, warnings_of
from projects.soco.study.records import Records

MMDET = Path(__import__('mmdet').__file__).parent / '.mim/configs'
OURS = ROOT / 'configs/benchmarks/mmdetection/own_photos/faster-rcnn_effnetlite0_fpn.py'


def load(name: str) -> Config:
    return Config.fromfile(MMDET / name, import_custom_modules=False)


def fitted(cfg: Config, masks: bool = False, **kwargs) -> tuple[Config, list[str]]:
    return fit_detector(cfg, Path('/photos'), Path('/train.json'), Path('/val.json'), ['a', 'b'],
                        masks, **{'photos': 200, **kwargs})


@pytest.mark.parametrize('name', [
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py', 'yolox/yolox_tiny_8xb8-300e_coco.py',
    'pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py', 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'])
def test_any_detector_gets_the_data_the_classes_and_the_length(name: str):
    cfg, notes = fitted(load(name), iters=80)
    assert cfg.train_cfg == dict(type='ResumableIterLoop', max_iters=80, val_interval=20)
    counts = {node['num_classes'] for node in dicts_in(cfg.model) if 'num_classes' in node}
    assert counts == {2}
    text = cfg.pretty_text
    assert "type='Pretrained'" not in text and '/train.json' in text
    assert text.count("ann_file='/val.json'") == 4
    assert 'instances_train2017' not in text and 'VOC2007' not in text
    assert {scheduler.type for scheduler in cfg.param_scheduler} <= {'WarmupLR', 'CosineLR', 'StepsLR'}
    assert {'ChannelsLastHook', 'KeepPredictionsHook', 'ResumeHook', 'PretrainedWeightsHook',
            'StopSignalHook'} <= {hook['type'] for hook in cfg.default_hooks.values()}
    assert any('80 iterations' in note for note in notes)
    base = load(name).get('auto_scale_lr')
    assert not base or cfg.auto_scale_lr == dict(enable=True, base_batch_size=base['base_batch_size'])


def test_a_start_need_not_have_what_the_config_requires():
    """ImageNet's weights have a backbone alone; the project's own detectors require more."""
    detector = Config.fromfile(OURS, import_custom_modules=False)
    assert detector.default_hooks.pretrained.require == ['backbone', 'neck', 'roi_head.bbox_head']
    cfg, _ = fitted(detector)
    assert cfg.default_hooks.pretrained == dict(type='PretrainedWeightsHook', require=None)


def test_epochs_become_iterations_and_schedules_shares():
    cfg, _ = fitted(load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'))
    assert cfg.train_cfg.max_iters == 12 * 100  # 200 photos in batches of two
    warm_up, steps = cfg.param_scheduler
    # 500 of 1200 iterations would be more than a tenth
    assert warm_up == dict(type='WarmupLR', by_epoch=False, share=0.1, start_factor=0.001)
    assert steps.shares == pytest.approx([8 / 12, 11 / 12]) and steps.gamma == 0.1


@pytest.mark.parametrize('photos, batch', [(30, 16), (100, 8), (7, 2), (3, 8)])
def test_an_epoch_whose_last_batch_is_short_counts_whole(photos: int, batch: int):
    cfg = load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    cfg.train_dataloader.batch_size = batch
    cfg, _ = fitted(cfg, photos=photos)
    assert cfg.train_cfg.max_iters == 12 * math.ceil(photos / batch)
    assert cfg.param_scheduler[1].shares == pytest.approx([8 / 12, 11 / 12])


def test_repetitions_of_the_photos_are_part_of_an_epoch():
    cfg, notes = fitted(load('pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'))
    assert cfg.train_cfg.max_iters == 4 * 3 * 100 and cfg.param_scheduler[-1].shares == [3 / 4]
    assert not any('ClassBalanced' in note for note in notes)
    cfg = load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    cfg.train_dataloader.dataset = dict(type='mmdet.ClassBalancedDataset', oversample_thr=1e-3,
                                        dataset=cfg.train_dataloader.dataset)
    assert any('ClassBalancedDataset is left out' in note for note in fitted(cfg)[1])


def test_a_schedule_of_another_kind_is_refused():
    cfg = Config(dict(param_scheduler=[dict(type='CyclicLR')]))
    with pytest.raises(ValueError, match='CyclicLR cannot be converted'):
        list(as_shares(cfg, 100, 10))


def test_masks_are_trained_where_there_are_any():
    name = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    cfg, _ = fitted(load(name), masks=True)
    assert cfg.val_evaluator.metric == ['bbox', 'segm']
    with pytest.raises(ValueError, match='needs masks.*own_photos/faster-rcnn_effnetlite0_fpn.py'):
        fitted(load(name))


def test_a_config_that_trains_no_detector_is_refused():
    with pytest.raises(ValueError, match='has no model'):
        fitted(Config(dict(train_cfg=dict(max_epochs=1))))


def test_the_random_start_trains_all_layers():
    cfg, _ = fitted(load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'))
    assert cfg.model.backbone.frozen_stages == 1
    told = thaw(cfg)
    assert cfg.model.backbone.frozen_stages == -1 and cfg.model.backbone.norm_eval is False
    assert len(told) == 2 and 'frozen_stages is -1 for the random start, not 1' in told[0]


def test_what_a_class_freezes_or_loads_by_default_is_known_too():
    cfg = load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    cfg.model.backbone.pop('norm_eval')  # mmdet's ResNet has norm_eval=True then
    cfg.model.backbone.init_cfg = [dict(type='Pretrained', checkpoint='x.pth')]
    cfg.model.neck.pretrained = True
    made, _ = fitted(cfg)
    assert made.model.backbone.init_cfg is None and made.model.neck.pretrained is False
    assert 'backbone.norm_eval is False for the random start, not True' in ' '.join(thaw(made))
    assert made.model.backbone.norm_eval is False


def test_starts_are_read(tmp_path: Path):
    (tmp_path / 'imagenet.pth').touch()
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/detector_start.pth').touch()
    starts = read_starts(['random', str(tmp_path / 'imagenet.pth'), f'soco:{tmp_path}/run',
                          f'mine=soco:{tmp_path}/run'])
    assert [(start.name, start.kind) for start in starts] == [
        ('random', 'random'), ('imagenet', 'weights'), ('soco', 'soco'), ('mine', 'soco')]
    assert starts[2].path == (tmp_path / 'run/detector_start.pth').resolve()
    for texts, message in (
            (['random'], 'at least two starts'), (['random', 'random'], 'Two starts have the name'),
            (['random', 'nowhere.pth'], 'no weights at nowhere.pth'),
            (['random', f'soco:{tmp_path}/none'], 'no work directory of a pretraining'),
            (['random', f'soco:{tmp_path}'], 'no detector_start.pth')):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_starts(texts)


def test_annotations_are_checked_before_anything_is_trained(tmp_path: Path):
    images, train, val = write_set(tmp_path)
    data = read_annotations(images, train, val, tmp_path / 'work')
    assert (data.classes, data.val_photos, data.val_objects) == (['cat', 'dog'], 4, 8)
    assert not data.masks and not data.shared
    twice = read_annotations(images, train, train, tmp_path / 'work')
    assert len(twice.shared) == 4 and not warnings_of(data)
    assert warnings_of(twice)[0].startswith('4 photos are in train and in val, such as photo_000.png')
    other = json.loads(val.read_text())
    other['categories'][0]['name'] = 'kat'
    (tmp_path / 'other.json').write_text(json.dumps(other))
    with pytest.raises(ValueError, match="other.json.*'cat'"):
        read_annotations(images, train, tmp_path / 'other.json', tmp_path / 'work')
    with pytest.raises(ValueError, match='train.json.*photo_000.png'):
        read_annotations(tmp_path, train, val, tmp_path / 'work')
    told = []
    rows = json.loads(val.read_text())
    (tmp_path / 'empty.json').write_text(json.dumps({**rows, 'annotations': []}))
    with pytest.raises(ValueError, match='empty.json.* has no object'):
        read_annotations(images, train, tmp_path / 'empty.json', tmp_path / 'work')
    for row in rows['annotations']:
        del row['iscrowd']
    val.write_text(json.dumps(rows))
    data = read_annotations(images, train, val, tmp_path / 'work', told.append)
    assert data.val.parent == tmp_path / 'work/annotations' and 'iscrowd' in told[0]


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    data = read_annotations(*write_set(tmp_path), tmp_path / 'work')
    weights = tmp_path / 'imagenet.pth'
    weights.write_bytes(b'weights')
    starts = [Start('random', 'random'), Start('imagenet', 'weights', weights),
              Start('soco', 'soco', weights)]
    return Comparison(load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'), data, starts, [100, 50], 2,
                      tmp_path / 'work', iters=8)


def test_a_first_seed_of_everything_comes_before_the_second(comparison: Comparison):
    jobs = comparison.jobs()
    assert len(jobs) == len(set(jobs)) == 12 and [job.seed for job in jobs] == [0] * 6 + [1] * 6
    assert comparison.points == [2, 4, 6, 8]


def test_each_job_has_a_config_of_its_own(comparison: Comparison):
    job = comparison.jobs()[1]
    assert job.key == 'finetune/imagenet/50percent/seed0'
    command = comparison.command(job)
    cfg = Config.fromfile(command[1], import_custom_modules=False)
    kept = json.loads(Path(cfg.train_dataloader.dataset.ann_file).read_text())
    assert len(kept['images']) == 2 and len(kept['annotations']) == 4
    assert cfg.model.backbone.frozen_stages == 1 and cfg.randomness.seed == 0
    assert command[-1].endswith('imagenet.pth')
    random = comparison.jobs()[6]
    cfg = Config.fromfile(comparison.command(random)[1], import_custom_modules=False)
    assert cfg.model.backbone.frozen_stages == -1 and cfg.randomness.seed == 1
    assert comparison.command(random)[-1] == 'random'


def fill(comparison: Comparison, ahead: float) -> Records:
    """Return records as of finished jobs: soco is ahead of imagenet by `ahead` AP50."""
    comparison.folder.mkdir(parents=True, exist_ok=True)
    records = Records(comparison.folder / 'results.json', comparison.fingerprint())
    for key, value in comparison.about().items():
        records.set(key, value)
    rng, levels = np.random.default_rng(0), dict(random=.2, imagenet=.4, soco=.4 + ahead)
    for job in comparison.jobs():
        values, samples = {}, {}
        for point in comparison.points:
            for measure in ('box_AP', 'box_AP50'):
                values[f'{measure}@{point}'] = levels[job.start] + .01 * job.seed + .0005 * job.share
                samples[f'{measure}@{point}'] = values[f'{measure}@{point}'] + rng.normal(0, .005, 50)
        records.add(job.key, dict(weights=None, values=values), samples)
    return records


@pytest.mark.parametrize('ahead, word', [(.1, 'ahead of imagenet by 10.0 AP50'),
                                         (-.1, 'behind imagenet by 10.0 AP50'),
                                         (.001, 'no difference is shown')])
def test_the_verdict_follows_from_the_records(comparison: Comparison, ahead: float, word: str):
    records = fill(comparison, ahead)
    made = summarise(records)
    assert len(made['verdicts']) == 1 and word in made['verdicts'][0]
    assert made['verdicts'][0].startswith('soco against imagenet: ')
    assert '2 seeds' in made['verdicts'][0]
    assert {(row['ours'], row['theirs']) for row in made['differences']} == {
        ('soco', 'imagenet'), ('imagenet', 'random'), ('soco', 'random')}
    assert values_of(records.content, 'random', 50, 'box_AP50')[8] == pytest.approx([.225, .235])


def test_the_page_holds_verdict_numbers_and_picture(comparison: Comparison):
    records = fill(comparison, .1)
    page, verdicts = write_results(records, comparison.folder, {'detector': '<b>x</b>'},
                                   ['<i>one</i> seed'], {'the pretraining': 'pretrain/report.html'})
    text = page.read_text()
    assert verdicts[0] in text and '&lt;b&gt;x' in text and 'data:image/png;base64,' in text
    assert '<td>43.0</td>' in text and '&lt;i&gt;one&lt;/i&gt; seed' in text
    assert '<a href="pretrain/report.html">the pretraining</a>' in text
    assert (comparison.folder / 'compare_starts.png').stat().st_size > 10_000
    stored = json.loads((comparison.folder / 'results.json').read_text())
    assert stored['verdicts'] == verdicts and len(stored['worth']) == 1
    assert 'src=' in text and 'http' not in text.split('</style>')[1]


def test_results_of_other_weights_are_refused(comparison: Comparison):
    records = fill(comparison, .1)
    with pytest.raises(ValueError, match='detectors of the start imagenet from other weights than'):
        comparison.run(records, None)


def test_a_stopped_detector_does_not_go_on_from_other_weights(
        comparison: Comparison, monkeypatch: pytest.MonkeyPatch):
    records, job = fill(comparison, .1), comparison.jobs()[2]
    records.content['records'].clear()
    began = comparison.folder / job.key

    def stopped(train: Callable, folder: Path, *args: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        raise Stopped(75)

    monkeypatch.setattr(training, 'train_detector', stopped)
    comparison.starts['soco'].path.write_bytes(b'first')
    for _ in range(2):  # the same weights may go on
        with pytest.raises(Stopped):
            comparison.train(job, records, None, None, None)
    comparison.starts['soco'].path.write_bytes(b'second')
    with pytest.raises(ValueError, match='detectors of the start soco from other weights'):
        comparison.train(job, records, None, None, None)
    shutil.rmtree(began.parents[1])  # nothing is left of it
    with pytest.raises(Stopped):
        comparison.train(job, records, None, None, None)


def test_other_photos_of_the_same_names_are_other_results(tmp_path: Path):
    images, train, val = write_set(tmp_path)
    before = read_annotations(images, train, val, tmp_path / 'work').sizes
    moved = images.rename(tmp_path / 'moved')
    assert read_annotations(moved, train, val, tmp_path / 'work').sizes == before
    photo = moved / 'photo_005.png'  # of val
    photo.write_bytes(photo.read_bytes() + b' ')
    assert read_annotations(moved, train, val, tmp_path / 'work').sizes != before


def test_a_start_that_stops_before_the_first_evaluation_is_refused(comparison: Comparison):
    with pytest.raises(ValueError, match=r'start random would stop after 1 iterations.*\(after 2\)'):
        Comparison(load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'), comparison.data,
                   [Start('random', 'random', until=1)], [10], 1, comparison.folder, 8)


def test_labels_are_compared_over_the_seeds_of_both(comparison: Comparison):
    records = fill(comparison, -.1)
    del records.content['records']['finetune/soco/50percent/seed1']
    told, = summarise(records)['worth']
    # seed 0 alone: soco 32.5; imagenet 42.5 with 50 %
    assert told.startswith('After 8 iterations, imagenet reaches the AP50 of soco with 50 % of the '
                           'labels (32.5) with at most 50 %')
    verdict, = records.content['verdicts']
    assert '1 to 2 seeds, 95 % intervals; one seed with 50 % of the labels at 4 iterations' in verdict
    for record in records.content['records'].values():
        record['values'] = {key: value / 10 for key, value in record['values'].items()}
    assert summarise(records)['worth'] == []  # neither has learned


def test_shares_without_a_detector_have_no_panel(comparison: Comparison):
    records = fill(comparison, .1)
    records.set('bands', bands_of(records))
    both = draw(records.content).shape[1]
    for key in list(records.content['records']):
        if '100percent' in key:
            del records.content['records'][key]
    assert draw(records.content).shape[1] < .6 * both


def test_the_page_says_what_was_changed_and_which_photos_are_used(comparison: Comparison):
    comparison.data.rows['images'].append(dict(id=99, file_name='empty.png'))
    facts = facts_of(comparison, 'x')
    assert facts['photos'].startswith('4 to train on (1 more have no object), 4 to evaluate on; /')
    assert 'backbone.frozen_stages is -1 for the random start' in facts['settings']


def test_shares_and_seeds_out_of_range(comparison: Comparison):
    for shares, seeds, iters in (([], 1, 8), ([0], 1, 8), ([101], 1, 8), ([10], 0, 8), ([10], 1, 2)):
        with pytest.raises(ValueError, match='--shares|--seeds'):
            Comparison(load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'), comparison.data, [], shares,
                       seeds, comparison.folder, iters)


def test_brackets_in_names_are_shown_as_they_are(capsys):
    show({'classes': 'car [/old], [red]'}, ['set [old]/a.jpg is in both'],
         Console(highlight=False, markup=False))
    assert capsys.readouterr().out.splitlines() == [
        'classes: car [/old], [red]', 'set [old]/a.jpg is in both']
