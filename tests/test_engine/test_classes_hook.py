"""Tests of ClassesHook: the class list against the annotation and the heads."""
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from miniatures import write_coco, write_json, write_voc
from mmdet.datasets import VOCDataset
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import BaseLoop
from torch import nn

from projects.soco.annotations.copies import Use, settle
from projects.soco.engine.classes_hook import ClassesHook, _check_heads, check_classes
from projects.soco.launch.errors import error_text

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs/benchmarks/mmdetection'


def coco(folder: Path, annotated: list, listed: list):
    write_coco(folder, annotated)
    init_default_scope('mmdet')
    return DATASETS.build(dict(
        type='CocoDataset', data_root=str(folder), ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017'), metainfo=dict(classes=listed), pipeline=[],
        filter_cfg=dict(filter_empty_gt=True)))


def test_a_list_that_fits(tmp_path: Path) -> None:
    check_classes(coco(tmp_path, ['sock', 'shoe'], ['sock', 'shoe']))
    check_classes(coco(tmp_path / 'fewer', ['sock', 'shoe'], ['sock']))  # no shoe is annotated


def test_objects_of_other_classes_need_a_word_in_the_config(tmp_path: Path) -> None:
    dataset = coco(tmp_path, ['sock', 'shoe'], ['sock'])
    path = Path(dataset.ann_file)
    content = json.loads(path.read_text())
    content['annotations'][0]['category_id'] = 2
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="objects of 1 categories .* such as 'shoe'.*subset=True"):
        check_classes(dataset)
    dataset._metainfo['subset'] = True
    check_classes(dataset)


def test_another_order_is_refused_where_no_tool_has_mended_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another order than .*0 is 'shoe' for the config, 'sock' "
                                         'for the file.*tools/train.py'):
        check_classes(coco(tmp_path, ['sock', 'shoe'], ['shoe', 'sock']))


class Loop(BaseLoop):
    def __init__(self, dataset: object) -> None:
        self.dataloader = SimpleNamespace(dataset=dataset)

    def run(self) -> None:
        pass


def stub_runner(dataset: object, resume: bool = False, training: bool = False) -> SimpleNamespace:
    loop = Loop(dataset)
    return SimpleNamespace(
        _train_loop=loop if training else None, _val_loop=None, _test_loop=None if training else loop,
        _resume=resume, _load_from='x.pth')


def test_a_checkpoint_of_another_order_is_neither_tested_nor_resumed() -> None:
    dataset = SimpleNamespace(metainfo=dict(classes=('sock', 'shoe')), ann_file='a.json')
    other = dict(meta=dict(dataset_meta=dict(classes=['shoe', 'sock'])))
    load = ClassesHook().after_load_checkpoint
    for runner in (stub_runner(dataset), stub_runner(dataset, resume=True, training=True)):
        with pytest.raises(ValueError, match="x.pth was trained on other classes than those of a.json. "
                                             "The order differs: class 0 is 'shoe' for the checkpoint"):
            load(runner, other)
        load(runner, dict(meta=dict(dataset_meta=dict(classes=['sock', 'shoe']))))
        load(runner, dict(meta={}))
    load(stub_runner(dataset, training=True), other)  # a new training may start from it


def test_what_was_mended_is_in_the_log(tmp_path: Path) -> None:
    dataset = coco(tmp_path, ['sock', 'shoe'], ['sock', 'shoe'])
    source = Path(dataset.ann_file)
    content = json.loads(source.read_text())
    del content['annotations'][0]['iscrowd']
    source.write_text(json.dumps(content))
    settled = settle(source, Use(str(tmp_path / 'val2017'), ('sock', 'shoe')), tmp_path / 'work')
    dataset.ann_file = settled.path
    runner, lines = stub_runner(dataset), []
    runner.work_dir, runner.model = str(tmp_path / 'work'), nn.Identity()
    runner.logger = SimpleNamespace(info=lines.append)
    ClassesHook().before_run(runner)
    assert lines == [*settled.lines, f'Reading {source} as {settled.path}']


def test_the_table_of_voc_shows_the_datas_own_classes(tmp_path: Path, monkeypatch) -> None:
    from mmdet.evaluation.functional import mean_ap
    root = write_voc(tmp_path)
    init_default_scope('mmdet')
    printed: list[str] = []
    monkeypatch.setattr(mean_ap, 'print_log', lambda text, **_: printed.append(text))
    for classes in (('dog', 'wolf'), VOCDataset.METAINFO['classes']):
        dataset = DATASETS.build(dict(
            type='VOCDataset', data_root=str(root), ann_file='VOC2007/ImageSets/Main/test.txt',
            data_prefix=dict(sub_data_root='VOC2007/'), metainfo=dict(classes=classes), pipeline=[],
            test_mode=True))
        evaluator = Evaluator(dict(type='VOCMetric'))
        evaluator.dataset_meta = dataset.metainfo
        runner = stub_runner(dataset)
        runner._test_loop.evaluator = evaluator
        runner.work_dir, runner.model = str(tmp_path / 'work'), nn.Identity()
        ClassesHook().before_run(runner)
        none, box = np.zeros((0, 4)), np.array([[30., 20., 94., 68.]])
        truth = dict(labels=np.array([0]), bboxes=box, bboxes_ignore=none, labels_ignore=np.array([]))
        evaluator.metrics[0].compute_metrics([(truth, [np.zeros((0, 5)) for _ in classes])])
    assert 'wolf' in printed[0] and 'aeroplane' not in printed[0]
    assert 'aeroplane' in printed[1]


def test_a_class_without_category_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 of the 2 classes.*instances_val2017.json, such as 'boot'"
                                         r".*It has 'sock', 'shoe'.*metainfo"):
        check_classes(coco(tmp_path, ['sock', 'shoe'], ['sock', 'boot']))


def test_no_object_of_the_listed_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        coco(tmp_path, ['sock', 'shoe'], ['shoe'])
    assert error_text(error.value).startswith('No image of a data set is left: none has an object')
    write_voc(tmp_path / 'voc')
    with pytest.raises(ValueError) as error:
        DATASETS.build(dict(
            type='VOCDataset', data_root=str(tmp_path / 'voc'), metainfo=dict(classes=('cat', )),
            ann_file='VOC2007/ImageSets/Main/test.txt', data_prefix=dict(sub_data_root='VOC2007/'),
            pipeline=[], filter_cfg=dict(filter_empty_gt=True)))
    assert 'Compare the class list with the annotation' in ' '.join(error_text(error.value).split())


def test_heads_of_another_number(tmp_path: Path) -> None:
    dataset = coco(tmp_path, ['sock', 'shoe'], ['sock', 'shoe'])
    head, rpn = nn.Identity(), nn.Identity()
    head.num_classes, rpn.num_classes = 80, 1
    with pytest.raises(ValueError, match='bbox_head has num_classes=80.*2 classes.*bbox_head.num_c'):
        _check_heads(nn.ModuleDict(dict(rpn_head=rpn, bbox_head=head)), dataset)
    head.num_classes = 2
    _check_heads(nn.ModuleDict(dict(rpn_head=rpn, bbox_head=head)), dataset)


@pytest.mark.slow
def test_a_run_stops_before_its_first_step(tmp_path: Path) -> None:
    from mmengine.runner import Runner

    from projects.soco.launch.configs import set_pretrained
    write_coco(tmp_path / 'coco', ['sock', 'shoe'])
    other = tmp_path / 'other.json'
    write_json(other, dict(categories=[dict(id=1, name='sock'), dict(id=2, name='boot')]))
    import os
    os.environ.update(SOCO_QUICKSTART_PHOTOS=str(tmp_path / 'coco/train2017'),
                      SOCO_QUICKSTART_ANNOTATIONS=str(other))
    try:
        cfg = Config.fromfile(CONFIGS / 'coco/mask-rcnn_r18_fpn_quickstart.py')
    finally:
        del os.environ['SOCO_QUICKSTART_PHOTOS'], os.environ['SOCO_QUICKSTART_ANNOTATIONS']
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.ann_file = f'{tmp_path}/coco/annotations/instances_train2017.json'
    cfg.val_evaluator.ann_file = cfg.val_dataloader.dataset.ann_file
    cfg.merge_from_dict(dict(work_dir=str(tmp_path / 'work'), experiment_name=tmp_path.name))
    set_pretrained(cfg, 'random')
    with pytest.raises(ValueError, match="such as 'boot'"):
        Runner.from_cfg(cfg).train()
    assert not list((tmp_path / 'work').glob('*.pth'))
