"""Localisation: the whole detector learns to find proposals, as objects of one class, without labels.

SoCo pretrains what describes a box: backbone, neck and shared layers of the box head. What finds boxes
(the RPN, or the head of a one-stage detector) stays random. DETReg (Bar et al., CVPR 2022) and AlignDet
(Li et al., ICCV 2023) pretrain that too, on boxes of selective search. Here the detector is trained as
its config says, on photos whose proposals are the annotations, and everything that does not depend on
the classes is handed over.
"""
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor
from torchvision.ops import nms

from .. import __version__
from ..files import write_whole
from ..launch.configs import dicts_in
from ..proposals.filters import BoxFilter
from ..proposals.store import ProposalStore
from ..weights.read import read_checkpoint
from .build import build_detector
from .fit import fit_detector, set_classes, thaw
from .hand_over import write_and_compare
from .read import plain

CLASS = 'object'
MOST = 60  # objects per photo
OVERLAP = 0.6  # IoU above which one of two proposals is left out
MASK_PARTS = ('mask_head', 'mask_roi_extractor', 'mask_iou_head', 'semantic_head',
              'semantic_roi_extractor')


def choose_objects(store: ProposalStore, keep: BoxFilter, row: int, most: int = MOST,
                   overlap: float = OVERLAP) -> np.ndarray:
    """Choose the proposals of a photo that the detector learns to find.

    Of proposals that overlap, one is drawn; it depends on the row alone.

    Args:
        store (ProposalStore): The proposals.
        keep (BoxFilter): Filter of the boxes.
        row (int): Row of the photo.
        most (int): Largest number of objects. Defaults to 60.
        overlap (float): Largest IoU of two objects, 0 to 1. Defaults to 0.6.

    Returns:
        np.ndarray: (n, 4) x y w h in pixels.
    """
    regions = store.regions(row).astype(np.float64)
    regions, _ = keep(regions, *store.size(row))
    regions = regions[(regions[:, 2:] >= 1).all(axis=1)]
    corners = torch.from_numpy(np.hstack([regions[:, :2], regions[:, :2] + regions[:, 2:]]))
    order = torch.from_numpy(np.random.default_rng([0, row]).random(len(regions)))
    return regions[nms(corners, order, overlap).numpy()[:most]]


def write_objects(store: ProposalStore, keep: BoxFilter, path: Path) -> int:
    """Write proposals as COCO annotations of one class.

    Args:
        store (ProposalStore): The proposals.
        keep (BoxFilter): Filter of the boxes.
        path (Path): The json to write.

    Returns:
        int: Number of objects.

    Raises:
        ValueError: If no photo has a proposal that the filter keeps.
    """
    images, annotations = [], []
    for row in range(len(store)):
        width, height = store.size(row)
        images.append(dict(id=row, file_name=store.name(row), width=width, height=height))
        for box in choose_objects(store, keep, row).tolist():
            annotations.append(dict(id=len(annotations) + 1, image_id=row, category_id=1, bbox=box,
                                    area=box[2] * box[3], iscrowd=0))
    if not annotations:
        raise ValueError(f'No photo of {store.path} has a proposal to learn localisation from. Omit '
                         'this step: --localise 0.')
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name=CLASS)])
    write_whole(path, json.dumps(content).encode())
    return len(annotations)


def why_not(detector: Config) -> str | None:
    """Return why a detector cannot learn localisation from boxes; None if it can.

    Args:
        detector (Config): The output of `read_detector`.
    """
    if not detector.get('train_dataloader') or not detector.get('optim_wrapper'):
        return 'its config has no training'
    model, nodes = detector.model, list(dicts_in(detector.train_dataloader))
    if model.get('bbox_head') is None and model.get('rpn_head') is None:
        return 'it has no head for boxes'
    kinds = {str(node.get('type')).split('.')[-1] for node in nodes}
    if 'LoadPanopticAnnotations' in kinds:
        return 'it learns from panoptic annotations'
    if any(node.get('with_mask') for node in nodes) and not model.get('roi_head'):
        return 'it learns from masks'
    try:
        _, whole = build_detector(without_masks(detector))
    except Exception as error:  # any error of any part
        return f'it cannot be built without its branch for masks ({type(error).__name__}: {error})'
    return None if whole else 'it cannot be built here as a whole'


def without_masks(detector: Config) -> Config:
    """Return the config of a detector for boxes alone.

    Args:
        detector (Config): The output of `read_detector`; it is not changed.
    """
    cfg = Config(plain(detector._cfg_dict), filename=detector.filename)
    for node in dicts_in(cfg.model):
        for part in MASK_PARTS:
            node.pop(part, None)
    for node in dicts_in(cfg.get('train_dataloader')):
        if node.get('with_seg'):  # of the semantic branch of HTC
            node['with_seg'] = False
    return cfg


def localisation_config(detector: Config, images: Path, objects: Path, photos: int, epochs: int,
                        from_random: bool, processes: int = 1) -> Config:
    """Return the config that trains a detector on proposals.

    Model, augmentations, optimiser and batch size are the detector's; branches for masks are left out.

    Args:
        detector (Config): The output of `read_detector`.
        images (Path): Folder of the photos.
        objects (Path): Output of `write_objects`.
        photos (int): Number of photos.
        epochs (int): Length of the run.
        from_random (bool): Whether the backbone has no weights to start from but the run's own, so that
            all of its layers are trained.
        processes (int): Number of GPUs or processes. Defaults to 1.

    Returns:
        Config: The config, without a validation.

    Raises:
        ValueError: See `fit_detector`.
    """
    batch = detector.train_dataloader.batch_size * processes
    iters = max(1, round(epochs * photos / batch))
    cfg, _ = fit_detector(without_masks(detector), images, objects, objects, [CLASS], masks=False,
                          photos=photos, iters=iters, points=1)
    if from_random:
        thaw(cfg)
    for key in ('val_dataloader', 'val_evaluator', 'val_cfg', 'test_dataloader', 'test_evaluator',
                'test_cfg'):
        cfg[key] = None
    cfg.train_cfg = dict(type=cfg.train_cfg.type, max_iters=iters)
    cfg.default_hooks.checkpoint.interval = max(1, iters // 4)
    cfg.default_hooks.pop('predictions', None)
    cfg.default_hooks.pop('visualization', None)
    return cfg


def class_tensors(detector: Config) -> set[str]:
    """Return the names of a detector's tensors that depend on its number of classes.

    Args:
        detector (Config): The output of `read_detector`.
    """
    one, two = (_shapes(detector, number) for number in (1, 2))
    return {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}


def _shapes(detector: Config, classes: int) -> dict[str, tuple[int, ...]]:
    cfg = Config(plain(detector._cfg_dict), filename=detector.filename)
    set_classes(cfg.model, classes)
    model, _ = build_detector(cfg)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def hand_over_localised(detector: Config, checkpoint: str | Path, out: Path) -> tuple[int, int]:
    """Write the weights of a localisation run for the detector, and prove that all of them arrive.

    What depends on the number of classes stays as the detector initialises it.

    Args:
        detector (Config): The output of `read_detector`.
        checkpoint (str | Path): Checkpoint of the run.
        out (Path): The file to write.

    Returns:
        tuple[int, int]: Number of tensors that arrived, and of those that stay.
    """
    model, _ = build_detector(detector)
    weights = localised_weights(read_checkpoint(checkpoint)['state_dict'], model.state_dict(),
                                class_tensors(detector))
    by = f'SoCo {__version__}, and localisation'
    arrived = write_and_compare(weights, model, out, by, checkpoint)
    return len(arrived), len(model.state_dict()) - len(arrived)


def localised_weights(state: Mapping[str, Tensor], detector: Mapping[str, Tensor],
                      of_classes: set[str]) -> dict[str, Tensor]:
    """Return the tensors that a detector takes from its localisation run.

    Args:
        state (Mapping[str, Tensor]): State dict of the run.
        detector (Mapping[str, Tensor]): State dict of the detector, which may have more branches.
        of_classes (set[str]): Output of `class_tensors`.
    """
    return {name: value for name, value in state.items()
            if name in detector and name not in of_classes}
