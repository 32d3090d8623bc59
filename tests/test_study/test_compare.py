"""Tests of the comparison of starts: fitted configs, plan, records, page."""
import contextlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from rich.console import Console
from small import ROOT, make_store, write_set

from projects.soco.detectors.build import build_detector
from projects.soco.detectors.fit import as_shares, fit_detector, needs_masks, thaw
from projects.soco.engine.schedules import CosineLR
from projects.soco.launch.configs import dicts_in
from projects.soco.launch.errors import Stopped
from projects.soco.study import training
from projects.soco.study.compare import Comparison
from projects.soco.study.compare_page import bands_of, draw, summarise, values_of, write_results
from projects.soco.study.compare_run import facts_of, plan_warnings, show, warnings_of
from projects.soco.study.inputs import Start, read_annotations, read_starts
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


@pytest.mark.parametrize('name, hook', [
    ('yolox/yolox_tiny_8xb8-300e_coco.py', 'YOLOXModeSwitchHook'),
    ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'PipelineSwitchHook')])
def test_what_switches_in_a_late_epoch_is_left_out_and_said(name: str, hook: str):
    """In an iteration loop, YOLOX's would switch the augmentations off at once, RTMDet's never."""
    assert hook in load(name).pretty_text
    cfg, notes = fitted(load(name), iters=40)
    assert hook not in cfg.pretty_text and 'EMAHook' in cfg.pretty_text
    assert any(note.startswith(f'{hook} is left out') for note in notes)


def test_a_cosine_that_ends_before_the_run_ends_at_the_same_share():
    cfg, _ = fitted(load('yolox/yolox_tiny_8xb8-300e_coco.py'), iters=40)
    assert cfg.param_scheduler[1].until == pytest.approx(285 / 300)
    rates = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.)
    schedule = CosineLR(rates, end=40, until=.5, eta_min=.1)
    found = []
    for _ in range(40):
        found.append(rates.param_groups[0]['lr'])
        rates.step()
        schedule.step()
    assert found[10] == pytest.approx(.55) and found[20:] == pytest.approx([.1] * 20, abs=.01)
    with pytest.raises(ValueError, match='until must be a share'):
        CosineLR(rates, end=40, begin=.5, until=.4)


@pytest.mark.parametrize('given, until', [
    (dict(T_max=6), .5), (dict(begin=6, T_max=6), None), (dict(begin=3, T_max=6), .75),
    (dict(begin=6, end=9, T_max=3), .75), (dict(end=12), None)])
def test_a_cosine_is_as_long_as_it_says_from_its_beginning(given: dict, until: float | None):
    cfg = load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')  # 12 epochs
    cfg.param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, **given)]
    assert fitted(cfg)[0].param_scheduler[0].get('until') == until


@pytest.mark.parametrize('wrapper', ['RepeatDataset', 'ConcatDataset'])
def test_a_data_set_that_mixes_photos_stays_inside_another_wrapper(wrapper: str):
    cfg = load('yolox/yolox_tiny_8xb8-300e_coco.py')
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = (dict(type='RepeatDataset', times=2, dataset=inner)
                                    if wrapper == 'RepeatDataset' else
                                    dict(type='ConcatDataset', datasets=[inner, inner]))
    dataset = fitted(cfg, iters=40)[0].train_dataloader.dataset
    assert dataset.type == 'MultiImageMixDataset' and dataset.pipeline[0].type == 'Mosaic'
    assert dataset.dataset.type == 'CocoDataset' and dataset.dataset.ann_file == '/train.json'


def test_data_sets_of_different_pipelines_are_refused():
    cfg = load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    one = cfg.train_dataloader.dataset
    other = {**one, 'pipeline': one['pipeline'][:-1]}
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, other])
    with pytest.raises(ValueError, match='parts with different pipelines'):
        fitted(cfg)
    del cfg.train_dataloader['batch_size']
    with pytest.raises(ValueError, match='no train_dataloader.batch_size'):
        fitted(cfg)
    cfg.train_dataloader.batch_size = 2
    cfg.train_dataloader.dataset = {k: v for k, v in one.items() if k != 'pipeline'}
    with pytest.raises(ValueError, match='train_dataloader.dataset has no pipeline'):
        fitted(cfg)


def test_a_sampler_that_prefers_classes_is_named():
    cfg = load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    cfg.train_dataloader.sampler = dict(type='ClassAwareSampler')
    assert any(note.startswith('ClassAwareSampler is left out') for note in fitted(cfg)[1])


@pytest.mark.parametrize('name, masks', [
    ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', True),
    ('rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py', True),
    ('mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', True), ('solo/solo_r50_fpn_1x_coco.py', True),
    ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', False), ('detr/detr_r50_8xb2-150e_coco.py', False)])
def test_what_needs_masks(name: str, masks: bool):
    assert needs_masks(load(name)) is masks


def test_a_mask_head_that_is_switched_off_needs_no_masks():
    cfg = load('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    cfg.model.roi_head.mask_head = None
    assert not needs_masks(cfg) and fitted(cfg)[0].val_evaluator.metric == ['bbox']
    del cfg.model.roi_head['mask_head']
    assert not needs_masks(cfg)


@pytest.mark.parametrize('name', [
    'htc/htc_r50_fpn_1x_coco.py', 'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py'])
def test_a_detector_that_needs_a_class_for_each_pixel_is_refused(name: str):
    with pytest.raises(ValueError, match='a map of classes for every pixel'):
        fitted(load(name), masks=True)


def test_an_rpn_alone_cannot_learn_classes():
    with pytest.raises(ValueError, match='is an RPN, which tells no classes apart'):
        fitted(load('rpn/rpn_r50_fpn_1x_coco.py'))


def test_classes_that_a_head_has_by_default_are_set_and_not_those_of_a_backbone():
    cfg = load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    del cfg.model.roi_head.bbox_head['num_classes']
    model = fitted(cfg)[0].model
    assert model.roi_head.bbox_head.num_classes == 2 and 'num_classes' not in model.rpn_head
    assert 'num_classes' not in fitted(load('ssd/ssd300_coco.py'))[0].model.backbone
    head = fitted(load('mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'), True)[0].model.panoptic_head
    assert (head.num_things_classes, head.num_stuff_classes) == (2, 0)
    assert list(head.loss_cls.class_weight) == [1.0, 1.0, 0.1]


def test_the_random_start_trains_its_norms():
    """Where they are frozen at 0, as at the end of each residual branch, no branch could learn."""
    cfg, _ = fitted(load('faster_rcnn/faster-rcnn_r50-caffe_fpn_1x_coco.py'))
    assert cfg.model.backbone.norm_cfg.requires_grad is False
    told = thaw(cfg)
    assert cfg.model.backbone.norm_cfg.requires_grad is True
    assert any(line.startswith('norms with requires_grad=False') for line in told)


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
    few = 'val has 4 photos: intervals from so few are wide, and rough. Use fifty or more.'
    assert len(twice.shared) == 4 and warnings_of(data) == [few]
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
    (tmp_path / 'one.json').write_text(json.dumps({
        **rows, 'images': rows['images'][:1], 'annotations': rows['annotations'][:2]}))
    with pytest.raises(ValueError, match='one.json .--val. has a single photo'):
        read_annotations(images, train, tmp_path / 'one.json', tmp_path / 'work')
    for row in rows['annotations']:
        del row['iscrowd']
    val.write_text(json.dumps(rows))
    data = read_annotations(images, train, val, tmp_path / 'work', told.append)
    assert data.val.parent == tmp_path / 'work/annotations' and 'iscrowd' in told[0]


def edited(path: Path, edit: Callable[[dict], object]) -> Path:
    """Change the content of a json."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def test_val_may_lack_a_class_of_train_and_may_have_no_other(tmp_path: Path):
    images, train, val = write_set(tmp_path)
    edited(val, lambda rows: (rows['categories'].pop(), rows['annotations'].pop(1),
                              [row.update(category_id=1) for row in rows['annotations']]))
    data = read_annotations(images, train, val, tmp_path / 'work')
    assert [row['name'] for row in data.val_rows['categories']] == ['cat', 'dog']
    assert any("added without objects: 1 ('dog')" in line for line in data.lines)
    edited(val, lambda rows: rows['categories'].append(dict(id=7, name='cow')))
    edited(val, lambda rows: rows['annotations'][0].update(category_id=7))
    with pytest.raises(ValueError, match="'cow'.*Annotate the same classes in both files"):
        read_annotations(images, train, val, tmp_path / 'work')


def test_objects_that_cannot_be_found_are_told(tmp_path: Path):
    images, train, val = write_set(tmp_path)
    edited(val, lambda rows: rows['annotations'][0].update(bbox=[5, 5, 0, 30]))
    edited(train, lambda rows: [row.update(category_id=1) for row in rows['annotations']])
    data = read_annotations(images, train, val, tmp_path / 'work')
    assert data.val_objects == 7
    told = warnings_of(data)
    assert any(line.startswith('1 objects of val have a box of less than a pixel') for line in told)
    assert any(line.startswith("1 classes have objects in val and none in train, such as 'dog'")
               for line in told)
    edited(val, lambda rows: rows['annotations'].extend(
        dict(rows['annotations'][1], id=1000 + i, bbox=[i % 60, 5, 20, 20]) for i in range(100)))
    told = warnings_of(read_annotations(images, train, val, tmp_path / 'work'))
    assert any(line.startswith('A photo of val has 102 objects') for line in told)
    edited(train, lambda rows: [row.update(bbox=[5, 5, 0.5, 30]) for row in rows['annotations']])
    with pytest.raises(ValueError, match='train.json .--train. has no object'):
        read_annotations(images, train, val, tmp_path / 'work')


def test_a_photo_that_no_detector_can_read_is_refused_before_the_hours(tmp_path: Path):
    images, train, val = write_set(tmp_path)
    photo = images / json.loads(val.read_text())['images'][1]['file_name']
    noise = np.random.default_rng(0).integers(0, 255, (72, 96, 3), np.uint8)
    code = cv2.imencode('.jpg', noise)[1].tobytes()
    photo.write_bytes(code[:len(code) * 6 // 10])  # its header is whole
    with pytest.raises(ValueError, match=f'1 of the 8 photos cannot be read by OpenCV.*{photo.name}'):
        read_annotations(images, train, val, tmp_path / 'work')


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


def test_shares_of_the_same_photos_are_refused(comparison: Comparison):
    """Of four photos, 1 % and 10 % are the same one."""
    with pytest.raises(ValueError, match='1 % and 10 % of the labels are the same 1 photos, of 4'):
        Comparison(Config.fromfile(OURS, import_custom_modules=False), comparison.data,
                   list(comparison.starts.values()), [1, 10, 100], 2, comparison.folder)
    assert '50 % of the labels (2 photos)' in facts_of(comparison, 'x')['shares and seeds']


def test_a_class_that_a_share_lacks_is_told(tmp_path: Path):
    images, train, val = write_set(tmp_path)
    edited(train, lambda rows: [row.update(category_id=1) for row in rows['annotations'][2:]])
    data = read_annotations(images, train, val, tmp_path / 'work')
    starts = [Start('a', 'random'), Start('b', 'random')]
    some = Comparison(load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'), data, starts, [25, 100], 3,
                      tmp_path / 'work', iters=8)
    told = [line for line in plan_warnings(some) if 'of the labels' in line]
    assert len(told) == 1
    assert told[0].startswith("With 25 % of the labels (1 photos), a seed has no object of 'dog'")


def test_a_pretraining_that_saw_photos_of_val_is_told(comparison: Comparison, tmp_path: Path):
    data = comparison.data
    assert not any('of val' in line for line in plan_warnings(comparison))
    store = make_store(tmp_path / 'proposals.arrow', data.images)
    run = tmp_path / 'pretraining/run'
    run.mkdir(parents=True)
    (tmp_path / 'pretraining/detector_start.pth').write_bytes(b'weights')
    (run / 'epoch_1.pth').write_bytes(b'')
    (run / 'x.py').write_text(f'train_dataloader = dict(dataset=dict(data_root={str(data.images)!r}, '
                              f'proposals={str(store)!r}))')
    starts = [Start('random', 'random'),
              Start('soco', 'soco', tmp_path / 'pretraining/detector_start.pth')]
    told = plan_warnings(Comparison(load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'), data, starts,
                                    [100], 1, tmp_path / 'work', iters=8))
    assert len(told) == 1 and told[0].startswith('The pretraining of soco saw 4 of the 4 photos of val')


def test_without_a_gpu_what_needs_one_is_converted_and_told(comparison: Comparison):
    assert '--cpu' not in comparison.command(comparison.jobs()[0])
    cfg = load('rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
    other = Comparison(cfg, comparison.data, list(comparison.starts.values()), [100], 1,
                       comparison.folder, iters=8)
    assert other.command(other.jobs()[0])[-1] == '--cpu'
    assert any(note.startswith('there is no CUDA GPU: BN instead of SyncBN') for note in other.notes)


def test_weights_of_another_network_are_refused_before_anything_is_trained(
        comparison: Comparison, tmp_path: Path):
    with pytest.raises(ValueError, match='imagenet.pth .* is not a checkpoint'):
        comparison.check_starts()
    backbone = build_detector(comparison.fitted)[0].backbone.state_dict()
    for name, state, message in (
            ('r50', {f'backbone.{key}': value for key, value in backbone.items()}, None),
            ('junk', {'foo': torch.zeros(3)}, 'The start weights, .*junk.pth, does not fit'),
            ('r18', {'backbone.conv1.weight': torch.zeros(64, 3, 7, 7),
                     'backbone.layer1.0.conv1.weight': torch.zeros(64, 64, 3, 3)}, 'does not fit')):
        path = tmp_path / f'{name}.pth'
        torch.save(dict(state_dict=state), path)
        starts = [Start('random', 'random'), Start('weights', 'weights', path)]
        one = Comparison(load('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'), comparison.data, starts,
                         [100], 1, comparison.folder, iters=8)
        with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
            one.check_starts()


def test_a_detector_that_cannot_be_built_is_refused_before_anything_is_trained(comparison: Comparison):
    comparison.fitted.model.neck.type = 'NoSuchNeck'
    with pytest.raises(ValueError, match='The model of the detector cannot be built: .*NoSuchNeck'):
        comparison.check_starts()


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
