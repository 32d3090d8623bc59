"""Annotations of a config before the start: mended copies, classes by name, masks, evaluators."""
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from miniatures import WRITERS, write_voc
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, init_default_scope
from mmengine.structures import InstanceData
from test_annotations.marks import marks, write_photo

from projects.soco.launch.annotations import (
    TESTING,
    config_classes,
    follow_checkpoint,
    library_classes,
    settle_annotations,
)
from projects.soco.launch.checks import check_inputs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv('RANK', raising=False)
    for i in range(3):
        write_photo(tmp_path / f'photos/{i}.png')
    return tmp_path


def write(folder: Path, edit: Callable[[dict], Any] = lambda c: None, name: str = 'a.json') -> Path:
    content = marks()
    edit(content)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def detector(folder: Path, classes: tuple | None = ('car', 'bird'), wrap: str = '', masks: bool = False,
             **metainfo: Any) -> Config:
    """A config with the parts that are looked at: loaders, evaluators and a work directory."""
    dataset = dict(
        type='CocoDataset', data_root=str(folder), ann_file='a.json', data_prefix=dict(img='photos'),
        metainfo=dict(metainfo, **(dict(classes=classes) if classes else {})),
        pipeline=[dict(type='LoadAnnotations', with_bbox=True, with_mask=masks)])
    train = dataset
    if wrap == 'ConcatDataset':
        train = dict(type=wrap, datasets=[dataset])
    elif wrap:
        train = dict(type=wrap, dataset=dataset, **(dict(times=1) if wrap == 'RepeatDataset' else dict(
            oversample_thr=.1)))
    evaluator = dict(type='CocoMetric', ann_file=str(folder / 'a.json'), metric='bbox')
    return Config(dict(
        work_dir=str(folder / 'work'), train_dataloader=dict(dataset=train),
        val_dataloader=dict(dataset={**dataset, 'test_mode': True}), val_evaluator=evaluator,
        test_dataloader=dict(dataset={**dataset, 'test_mode': True}), test_evaluator=[evaluator]))


def settled(cfg: Config, *args: Any) -> list[str]:
    lines: list[str] = []
    settle_annotations(cfg, *args, report=lines.append)
    return lines


def no_iscrowd(c: dict) -> None:
    for row in c['annotations']:
        del row['iscrowd'], row['area']
        row['id'] = 1


@pytest.mark.parametrize('wrap', ['', 'RepeatDataset', 'ConcatDataset', 'ClassBalancedDataset'])
def test_training_and_evaluation_read_one_mended_copy(wrap: str, folder: Path) -> None:
    write(folder, no_iscrowd)
    cfg = detector(folder, wrap=wrap)
    lines = settled(cfg)
    train = cfg.train_dataloader.dataset
    train = train.datasets[0] if wrap == 'ConcatDataset' else train.dataset if wrap else train
    files = [json.loads(Path(p).read_text()) for p in (
        train.ann_file, cfg.val_dataloader.dataset.ann_file, cfg.val_evaluator.ann_file)]
    assert train.ann_file == cfg.val_dataloader.dataset.ann_file == cfg.val_evaluator.ann_file
    assert files[0] == files[1] == files[2] and files[0]['annotations'][3]['id'] == 4
    assert str(folder / 'work/annotations') in cfg.val_evaluator.ann_file
    assert cfg.test_evaluator[0].ann_file == str(folder / 'a.json')  # training does not use it
    text = '\n'.join(lines)
    assert 'without iscrowd, taken as 0: 6' in text and 'numbered from 1' in text
    assert text.count('mended in memory') == 1 and f'is read as {train.ann_file}' in text
    assert len(settled(cfg, TESTING)) >= 1
    assert 'work/annotations' in cfg.test_evaluator[0].ann_file


def test_a_clean_file_stays(folder: Path) -> None:
    write(folder)
    cfg = detector(folder)
    before = cfg.to_dict()
    assert settled(cfg) == [] and cfg.to_dict() == before


def test_other_processes_say_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, no_iscrowd)
    monkeypatch.setenv('RANK', '1')
    cfg = detector(folder)
    assert settled(cfg) == [] and 'work/annotations' in cfg.val_evaluator.ann_file


def average_precision(cfg: Config, folder: Path) -> float:
    """AP of predictions that are the annotated objects, with the numbers of the config's classes."""
    init_default_scope('mmdet')
    dataset = DATASETS.build({**cfg.val_dataloader.dataset, 'pipeline': []})
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    content = json.loads((folder / 'a.json').read_text())
    names = {row['id']: row['name'] for row in content['categories']}
    for image in content['images']:
        rows = [r for r in content['annotations'] if r['image_id'] == image['id']]
        boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (r['bbox'] for r in rows)]).float()
        labels = [dataset.metainfo['classes'].index(names[r['category_id']]) for r in rows]
        sample = dict(img_id=image['id'], ori_shape=(40, 60), pred_instances=InstanceData(
            bboxes=boxes, scores=torch.ones(len(rows)), labels=torch.tensor(labels)))
        metric.process({}, [sample])
    return metric.evaluate(len(content['images']))['coco/bbox_mAP']


def test_every_bird_is_a_bird_in_training_evaluation_and_what_is_shown(folder: Path) -> None:
    write(folder)
    cfg = detector(folder, ('bird', 'car'))
    assert average_precision(cfg, folder) < 0.1  # what MMDetection does: each bird is a car
    lines = settled(cfg)
    assert len([line for line in lines if 'Order of the categories' in line]) == 1
    assert average_precision(cfg, folder) > 0.99
    init_default_scope('mmdet')
    for loader in ('train_dataloader', 'val_dataloader'):
        dataset = DATASETS.build({**cfg[loader].dataset, 'pipeline': []})
        shown = [dataset.metainfo['classes'][i['bbox_label']]
                 for i in dataset.get_data_info(0)['instances']]
        assert shown == ['car', 'bird']


def text_ids(c: dict) -> None:
    for row in c['images']:
        row['id'] = f'img_{row["id"]}'
    for row in c['annotations']:
        row['image_id'] = f'img_{row["image_id"]}'


@pytest.mark.parametrize('edit', [no_iscrowd, text_ids])
def test_mended_objects_are_trained_and_evaluated(edit: Callable, folder: Path) -> None:
    """Without iscrowd, the first evaluation ended in a KeyError."""
    write(folder, edit)
    cfg = detector(folder)
    settled(cfg)
    assert average_precision(cfg, folder) > 0.99


@pytest.mark.parametrize('edit, message', [
    (lambda c: c['annotations'][0].update(bbox=[1, 2, 3, float('nan')]), 'a.json cannot be used.*nan'),
    (lambda c: c['images'][0].update(file_name='gone.png'), "not in .*photos: 1 .'gone.png'"),
    (lambda c: c['categories'][0].update(name='cars'), "'car' .did you mean 'cars'")])
def test_what_is_refused_stops_before_the_start(edit: Callable, message: str, folder: Path) -> None:
    write(folder, edit)
    with pytest.raises(ValueError, match=message):
        check_inputs(detector(folder))
    assert not list(folder.glob('work/**/*.json'))


@pytest.mark.parametrize('how', ['pipeline', 'metric'])
def test_a_detector_that_needs_masks(how: str, folder: Path) -> None:
    write(folder, lambda c: c['annotations'][3].update(segmentation=[]))
    settled(detector(folder))
    cfg = detector(folder, masks=how == 'pipeline')
    if how == 'metric':
        cfg.val_evaluator.metric = ['bbox', 'segm']
    with pytest.raises(ValueError, match=r'Objects, of 6, without a mask.*: 1 .annotations\[3\] .id 4.'
                                         '.*train on boxes only with configs/.*effnetlite0'):
        settled(cfg)


def test_an_evaluator_of_another_file(folder: Path) -> None:
    write(folder)
    write(folder, name='b.json')
    cfg = detector(folder)
    cfg.val_evaluator.ann_file = str(folder / 'b.json')
    with pytest.raises(ValueError, match='val_evaluator.ann_file is .*b.json, but val_dataloader reads '
                                         '.*a.json. .*set val_evaluator.ann_file='):
        settled(cfg)


def test_classes_of_mmdetections_own_types() -> None:
    import mmdet.datasets
    for kind in ('CocoDataset', 'CityscapesDataset', 'VOCDataset', 'Objects365V2Dataset'):
        wanted = tuple(getattr(mmdet.datasets, kind).METAINFO['classes'])
        assert config_classes(dict(type=kind)) == wanted == config_classes(dict(type=f'mmdet.{kind}'))
    assert [kind for kind, _ in library_classes('CityscapesDataset')][:2] == [
        'CityscapesDataset', 'CocoDataset']
    assert config_classes(dict(type='SomeonesDataset')) is None


def test_a_list_of_classes_may_be_a_file(folder: Path) -> None:
    (folder / 'names.txt').write_text('bird\ncar\n')
    write(folder)
    cfg = detector(folder, str(folder / 'names.txt'))
    settled(cfg)
    content = json.loads(Path(cfg.val_evaluator.ann_file).read_text())
    assert [row['name'] for row in content['categories']] == ['bird', 'car']
    with pytest.raises(ValueError, match='a list of one class has a comma|A list of one class'):
        settled(detector(folder, 'car'))


def test_data_without_a_list_of_classes_are_compared_with_cocos(folder: Path) -> None:
    write(folder)
    with pytest.raises(ValueError, match="of the config's 80, that are not among its 2 categories: 78"):
        settled(detector(folder, None))


def test_other_data_sets_are_left_alone(folder: Path) -> None:
    root = WRITERS['lvis'](folder / 'lvis')
    dataset = dict(type='LVISV1Dataset', data_root=str(root), ann_file='annotations/lvis_v1_train.json',
                   data_prefix=dict(img=''), pipeline=[])
    own = dict(type='SomeonesDataset', ann_file=str(write(folder, no_iscrowd)))
    remote = dict(type='CocoDataset', ann_file='s3://bucket/a.json',
                  backend_args=dict(backend='petrel'))
    for kind in (dataset, own, remote):
        cfg = Config(dict(work_dir=str(folder / 'work'), train_dataloader=dict(dataset=kind)))
        assert settled(cfg) == [] and cfg.train_dataloader.dataset.to_dict() == kind


def test_voc_style_data(folder: Path) -> None:
    root = write_voc(folder / 'voc')
    listed = root / 'VOC2007/ImageSets/Main/trainval.txt'
    listed.write_bytes(b'\xef\xbb\xbf' + listed.read_bytes())
    dataset = dict(type='VOCDataset', data_root=str(root),
                   ann_file='VOC2007/ImageSets/Main/trainval.txt',
                   data_prefix=dict(sub_data_root='VOC2007/'), metainfo=dict(classes=('dog', )),
                   pipeline=[])
    cfg = Config(dict(work_dir=str(folder / 'work'), train_dataloader=dict(dataset=dataset)))
    assert 'byte order mark' in settled(cfg)[0]
    init_default_scope('mmdet')
    built = DATASETS.build(cfg.train_dataloader.dataset)
    assert [built.get_data_info(i)['img_id'] for i in range(2)] == [
        '2007_trainval_1', '2007_trainval_2']
    cfg.train_dataloader.dataset.metainfo.classes = ('dgo', )
    with pytest.raises(ValueError, match=r"'dog' .did you mean 'dgo'.. in .*val_1.xml and 1 more"):
        settled(cfg)


def remembers(*classes: str) -> dict:
    return dict(meta=dict(dataset_meta=dict(classes=list(classes))))


def test_a_checkpoints_order_of_classes_holds_in_a_test(folder: Path) -> None:
    write(folder)
    cfg = detector(folder)
    lines: list[str] = []
    follow_checkpoint(cfg, remembers('bird', 'car'), 'x.pth', report=lines.append)
    assert cfg.test_dataloader.dataset.metainfo.classes == ('bird', 'car')
    assert lines == ['test_dataloader: the classes are put in the order that x.pth was trained with: '
                     'bird, car']
    settled(cfg, TESTING)
    content = json.loads(Path(cfg.test_evaluator[0].ann_file).read_text())
    assert [row['name'] for row in content['categories']] == ['bird', 'car']
    lines.clear()
    for checkpoint in ({}, dict(meta={}), remembers('bird', 'car')):
        follow_checkpoint(cfg, checkpoint, 'x.pth', report=lines.append)
    assert not lines


def test_a_checkpoint_of_other_classes_is_refused(folder: Path) -> None:
    for classes in (('car', 'birds'), ('car', 'bird', 'cup'), ('car', )):
        with pytest.raises(ValueError, match=f'x.pth was trained on {len(classes)} classes, and the '
                                             'data set of test_dataloader has 2. Only'):
            follow_checkpoint(detector(folder), remembers(*classes), 'x.pth')
    cfg = detector(folder, subset=True)
    follow_checkpoint(cfg, remembers('cup', 'bird', 'car'), 'x.pth', report=lambda text: None)
    write(folder)
    settled(cfg, TESTING)
    content = json.loads(Path(cfg.test_evaluator[0].ann_file).read_text())
    assert [row['name'] for row in content['categories']] == ['cup', 'bird', 'car']
