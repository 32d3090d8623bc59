"""Tests of ClassesHook: the class list against the annotation and the heads."""
from pathlib import Path

import pytest
from miniatures import write_coco, write_json, write_voc
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch import nn

from projects.soco.engine.classes_hook import _check_heads, check_classes
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
    check_classes(coco(tmp_path / 'fewer', ['sock', 'shoe'], ['sock']))  # on purpose, as mmdet allows


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
