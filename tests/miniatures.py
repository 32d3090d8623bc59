"""Miniatures of the data sets for fine-tuning detectors: the same layouts with a few photos each."""
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from mmengine.config import Config

SIDE = (96, 128)  # height, width of every photo
BOX = (30, 20, 64, 48)  # x, y, w, h of the one object on each


def write_photo(path: Path, seed: int, side: tuple[int, int] = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    photo = np.random.default_rng(seed).integers(0, 255, (*side, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), photo)


def coco_content(names: Sequence[str], files: Sequence[str], side: tuple[int, int] = SIDE) -> dict:
    """Return a COCO annotation with one object of the first class on each photo."""
    x, y, w, h = BOX
    return dict(
        images=[dict(id=i, file_name=name, width=side[1], height=side[0])
                for i, name in enumerate(files, start=1)],
        annotations=[dict(id=i, image_id=i, category_id=1, bbox=[x, y, w, h], area=w * h, iscrowd=0,
                          segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]])
                     for i in range(1, len(files) + 1)],
        categories=[dict(id=i, name=name) for i, name in enumerate(names, start=1)])


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def class_names(kind: str) -> list[str]:
    import mmdet.datasets
    return list(getattr(mmdet.datasets, kind).METAINFO['classes'])


def write_coco(root: Path, names: Sequence[str] = (), side: tuple[int, int] = SIDE) -> Path:
    """Write COCO 2017 with its 5 % and 10 % subsets."""
    for split in ('train2017', 'val2017'):
        for i in (1, 2):
            write_photo(root / split / f'{i}.png', i, side)
        content = coco_content(names or class_names('CocoDataset'), ['1.png', '2.png'], side)
        write_json(root / f'annotations/instances_{split}.json', content)
    for percent in (5, 10):
        source = root / 'annotations/instances_train2017.json'
        source.with_stem(f'{source.stem}_{percent}percent').write_text(source.read_text())
    return root


def write_lvis(root: Path) -> Path:
    """Write LVIS v1: the URL of a photo contains its folder, categories have frequencies."""
    names = class_names('LVISV1Dataset')
    for split in ('train', 'val'):
        for i in (1, 2):
            write_photo(root / f'{split}2017/{i}.png', i)
        content = coco_content(names, ['1.png', '2.png'])
        for category in content['categories']:
            category.update(frequency='f', image_count=2, instance_count=2)
        for image in content['images']:
            image.update(
                coco_url=f'http://images.cocodataset.org/{split}2017/{image.pop("file_name")}',
                neg_category_ids=[2], not_exhaustive_category_ids=[])
        write_json(root / f'annotations/lvis_v1_{split}.json', content)
    return root


def write_voc(root: Path) -> Path:
    """Write VOC 2007 and 2012: one XML file per photo, and lists of names."""
    x, y, w, h = BOX
    for year, splits in (('2007', ('trainval', 'test')), ('2012', ('trainval', ))):
        for split in splits:
            names = [f'{year}_{split}_{i}' for i in (1, 2)]
            for seed, name in enumerate(names):
                write_photo(root / f'VOC{year}/JPEGImages/{name}.jpg', seed)
                top = ElementTree.Element('annotation')
                thing = ElementTree.SubElement(top, 'object')
                for tag, text in (('name', 'dog'), ('difficult', '0')):
                    ElementTree.SubElement(thing, tag).text = text
                box = ElementTree.SubElement(thing, 'bndbox')
                for tag, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), (x, y, x + w, y + h)):
                    ElementTree.SubElement(box, tag).text = str(value)
                path = root / f'VOC{year}/Annotations/{name}.xml'
                path.parent.mkdir(parents=True, exist_ok=True)
                ElementTree.ElementTree(top).write(path)
            lists = root / f'VOC{year}/ImageSets/Main/{split}.txt'
            lists.parent.mkdir(parents=True, exist_ok=True)
            lists.write_text('\n'.join(names))
    return root


def write_cityscapes(root: Path) -> Path:
    """Write Cityscapes: photos, instance maps, and annotations with the names of mmdet's converter."""
    x, y, w, h = BOX
    instances = np.zeros(SIDE, dtype=np.uint16)
    instances[y:y + h, x:x + w] = 24000  # a person
    for split, city in (('train', 'aachen'), ('val', 'lindau')):
        frames = [f'{city}/{city}_00000{i}_000019' for i in (1, 2)]
        for seed, frame in enumerate(frames):
            write_photo(root / f'leftImg8bit/{split}/{frame}_leftImg8bit.png', seed)
            path = root / f'gtFine/{split}/{frame}_gtFine_instanceIds.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), instances)
        write_json(root / f'annotations/instancesonly_filtered_gtFine_{split}.json',
                   coco_content(class_names('CityscapesDataset'),
                                [f'{frame}_leftImg8bit.png' for frame in frames]))
    return root


WRITERS = dict(coco=write_coco, lvis=write_lvis, voc0712=write_voc, cityscapes=write_cityscapes)
ROOTS = dict(coco='data/coco/', lvis='data/lvis_v1/', voc0712='data/VOCdevkit/',
             cityscapes='data/cityscapes/')


def point_to(cfg: Config, old: str, new: Path) -> None:
    """Replace the data root in every path of a config."""

    def visit(node: Any) -> Any:
        if isinstance(node, dict):
            for key, value in node.items():
                node[key] = visit(value)
            return node
        if isinstance(node, (list, tuple)):
            return type(node)(visit(value) for value in node)
        return node.replace(old, f'{new}/') if isinstance(node, str) else node

    visit(cfg._cfg_dict)


def shrink(cfg: Config, iterations: int = 1) -> None:
    """Reduce photo size, RoIs and iterations so that training takes seconds on a CPU."""

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            if str(node.get('type')).split('.')[-1] in ('RandomChoiceResize', 'RandomResize', 'Resize'):
                scope = {k: v for k, v in node.items() if k == '_scope_'}
                node.clear()
                node.update(type='Resize', scale=(128, 96), keep_ratio=True, **scope)
            for value in node.values():
                visit(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                visit(value)

    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        visit(cfg[name].dataset)
        cfg[name].update(num_workers=0, persistent_workers=False)
    model = cfg.model
    if 'roi_head' in model:
        model.train_cfg.rcnn.sampler.num = 8
        model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=8)
        model.test_cfg.rpn.update(nms_pre=50, max_per_img=8)
        model.test_cfg.rcnn.update(score_thr=0., max_per_img=8)
    else:
        model.test_cfg.update(nms_pre=50, score_thr=0., max_per_img=8)
    cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)
    cfg.default_hooks.checkpoint.interval = iterations
    cfg.default_hooks.logger.interval = 1
    if 'precise_bn' in cfg.default_hooks:
        cfg.default_hooks.precise_bn.num_iters = 1
