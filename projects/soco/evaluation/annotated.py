"""Object features of annotated photos: reading a COCO json and embedding its boxes."""
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor
from torchvision.ops import roi_align

from ..annotations.findings import MENDED, NOTE
from ..annotations.judge import TABLES, read_coco
from ..annotations.photos import PhotoTree
from ..datasets.geometry import to_view
from ..datasets.transforms import cut_view, transform_in
from ..models.soco import SoCo
from ..proposals.images import ImageError, decode_image
from ..proposals.sources import FolderSource, ImageSource
from .objects import unit, working_copy

LABELLED_FEATURES = ('object', 'backbone')


class LabelledPhotos(NamedTuple):
    """Photos resized to one square size, and their n objects, grouped by photo.

    Args:
        names (list[str]): Photos with an object.
        views (list[Tensor]): For each photo (3, S, S) uint8, BGR.
        photos (Tensor): (n,) int64, each object's photo.
        boxes (Tensor): (n, 4), x1 y1 x2 y2 in pixels of the photo.
        view_boxes (Tensor): (n, 4) in pixels of the view.
        classes (Tensor): (n,) int64, index in `class_names`.
        areas (Tensor): (n,) in pixels of the photo, from the json.
        class_names (list[str]): Classes that have objects.
        left_out (list[str]): Messages on what was left out and why.
        finest_level (int): See `read_labelled`. Defaults to 0.
        mended (Sequence[str]): What was mended in the annotations. Defaults to nothing.
    """
    names: list[str]
    views: list[Tensor]
    photos: Tensor
    boxes: Tensor
    view_boxes: Tensor
    classes: Tensor
    areas: Tensor
    class_names: list[str]
    left_out: list[str]
    finest_level: int = 0
    mended: Sequence[str] = ()


class _Object(NamedTuple):
    category: int | str
    box: tuple[float, float, float, float]  # x1 y1 x2 y2
    area: float


def first_view(cfg: Config) -> dict:
    """Return a pretraining config's first view, with the size that whole photos are resized to.

    It is the view's own, or, if views are cut from tiles, the short side at which the detector sees
    photos, so that objects have about the sizes of training.
    """
    transform = transform_in(cfg, 'ProposalViews')
    seen_at = transform_in(cfg, 'LoadProposals').get('seen_at') if transform.get('tile') else None
    return {**transform.views[0], **(dict(size=min(seen_at.scale)) if seen_at else {})}


def read_labelled(path: str | Path, source: ImageSource, view_size: int,
                  num_photos: int | None = None,
                  report: Callable[[int, int], None] = lambda done, total: None,
                  finest_level: int = 0) -> LabelledPhotos:
    """Read photos and the objects that a COCO json annotates in them.

    Crowd regions, boxes of zero size, photos that cannot be read, and categories with a single
    object (no other object can match it) are left out and listed in `LabelledPhotos.left_out`.

    Args:
        path (str | Path): COCO json of instances.
        source (ImageSource): The photos; the json's `file_name`s are relative to it.
        view_size (int): Side of the square that each photo is resized to, in pixels.
        num_photos (int, optional): Photos to use, evenly spread. Defaults to None: all.
        report (Callable): Called with the number of photos read and the total. Defaults to a
            function that does nothing.
        finest_level (int): The finest pyramid level that is computed, see `SoCo.forward`.
            Defaults to 0.

    Returns:
        LabelledPhotos: The photos that have objects, and their objects.

    Raises:
        FileNotFoundError: If the json does not exist.
        ValueError: If the json is invalid, its photos are not in `source` or have another size, or
            no object is left.
    """
    # A folder may have photos that `names` passes over, which a json may list all the same.
    listed = None if type(source) is FolderSource else source.names()
    judged = read_coco(path, photos=PhotoTree(source.path, listed, source.open),
                       broken_level=NOTE).accept()
    images, annotations, categories = (judged.content[table] for table in TABLES)
    by_image, notes = _read_objects(annotations, {row['id'] for row in images})
    images = _choose(images, by_image, num_photos)
    views, view_boxes, names, objects, photos, unreadable = [], [], [], [], [], []
    for done, row in enumerate(images, 1):
        name = row['file_name']
        found = by_image[row['id']]
        try:
            picture = decode_image(source.read_bytes(name))
        except (ImageError, OSError) as error:
            unreadable.append(f'{name} ({error})')
            continue
        finally:
            report(done, len(images))
        height, width = picture.shape[:2]
        moved = to_view(np.array([o.box for o in found]), (0, 0, width, height), (view_size, view_size))
        inside = (moved[:, 2:] > moved[:, :2]).all(axis=1)
        notes['boxes too small for the view'] += int((~inside).sum())
        if inside.any():
            bgr = np.ascontiguousarray(picture[..., ::-1])
            view = cut_view(bgr, (0, 0, width, height), view_size, flip=False)
            views.append(torch.from_numpy(np.stack(cv2.split(view))))
            view_boxes.append(torch.from_numpy(moved[inside]))
            objects += [o for o, keep in zip(found, inside) if keep]
            photos += [len(names)] * int(inside.sum())
            names.append(name)
    left_out = [f'{count} {what}' for what, count in notes.items() if count]
    if unreadable:
        left_out.append(f'{len(unreadable)} photos that cannot be read: {_some(unreadable)}')
    titles = {row['id']: str(row.get('name', row['id'])) for row in categories}
    labelled = _without_single(names, views, view_boxes, objects, photos, titles, left_out, path)
    return labelled._replace(finest_level=finest_level,
                             mended=[finding.line() for finding in judged.of(MENDED)])


def _read_objects(annotations: list[dict], images: set
                  ) -> tuple[dict[int | str, list[_Object]], Counter]:
    """Return the objects of each image, and the number of annotations left out by reason."""
    by_image: dict[int | str, list[_Object]] = {image: [] for image in images}
    notes: Counter = Counter()
    for row in annotations:
        x, y, w, h = row['bbox']
        if row['iscrowd']:
            notes['crowd regions'] += 1
        elif 0 in (w, h):
            notes['boxes of zero size'] += 1
        else:
            by_image[row['image_id']].append(
                _Object(row['category_id'], (x, y, x + w, y + h), row['area']))
    return by_image, notes


def _choose(images: list[dict], by_image: dict, num_photos: int | None) -> list[dict]:
    """Choose evenly spread images among those with objects."""
    images = sorted((row for row in images if by_image[row['id']]), key=lambda row: row['file_name'])
    if num_photos is None or num_photos >= len(images):
        return images
    return [images[i] for i in np.linspace(0, len(images) - 1, num_photos).astype(int)]


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:5]) + (f' and {len(names) - 5} more' if len(names) > 5 else '')


def _without_single(names: list[str], views: list[Tensor], view_boxes: list[Tensor],
                    objects: list[_Object], photos: list[int], titles: dict, left_out: list[str],
                    path: str | Path) -> LabelledPhotos:
    """Leave out objects that are alone in their class, and photos that have no other object."""
    counts = Counter(o.category for o in objects)
    kept = [i for i, o in enumerate(objects) if counts[o.category] > 1]
    single = sorted(titles[category] for category, count in counts.items() if count == 1)
    if single:
        left_out = [*left_out, f'{len(single)} categories with a single object: {", ".join(single)}']
    if not kept:
        raise ValueError(f'{path} has no object to score'
                         f'{"".join(f"; left out: {note}" for note in left_out)}. It must contain at '
                         'least two objects of one category in photos that can be read.')
    order = sorted({objects[i].category for i in kept}, key=lambda c: (titles[c], str(c)))
    used = sorted({photos[i] for i in kept})
    return LabelledPhotos(
        [names[p] for p in used], [views[p] for p in used],
        torch.tensor([used.index(photos[i]) for i in kept]),
        torch.tensor([objects[i].box for i in kept]), torch.cat(view_boxes)[kept],
        torch.tensor([order.index(objects[i].category) for i in kept]),
        torch.tensor([objects[i].area for i in kept]), [titles[c] for c in order], left_out)


@torch.no_grad()
def embed_labelled(model: SoCo, labelled: LabelledPhotos, batch_size: int = 8,
                   report: Callable[[int], None] = lambda photos: None,
                   features: str = 'object') -> Tensor:
    """Compute the target network's features of the annotated boxes of whole photos.

    Photos are normalised, not augmented. BatchNorm uses the statistics of the batch; see
    `objects.working_copy`.

    Args:
        model (SoCo): The model, on any device. It is not changed.
        labelled (LabelledPhotos): Photos and boxes.
        batch_size (int): Photos per batch. Defaults to 8.
        report (Callable): Called after each batch with its number of photos. Defaults to a function
            that does nothing.
        features (str): 'object' for the RoI head's output, or 'backbone' for `backbone_features`,
            which compares networks of which only the backbone was trained. Defaults to 'object'.

    Returns:
        Tensor: (n, D) unit vectors, on the CPU.

    Raises:
        ValueError: If `features` is unknown, or features are not finite.
    """
    if features not in LABELLED_FEATURES:
        raise ValueError(f'features must be one of {", ".join(LABELLED_FEATURES)}, not {features!r}.')
    model = working_copy(model)
    net, preprocessor = model.target, model.data_preprocessor
    device = next(net.parameters()).device
    found = []
    for part in torch.arange(len(labelled.views)).tensor_split(
            math.ceil(len(labelled.views) / batch_size)):
        images = torch.stack([labelled.views[i] for i in part]).to(device)
        view = torch.empty(images.shape, device=device)
        preprocessor.prepare(images, 0, None, view)
        feats = net.backbone(view.contiguous(memory_format=model.memory_format))
        mine = (labelled.photos >= part[0]) & (labelled.photos <= part[-1])
        index = (labelled.photos[mine] - part[0])[:, None]
        rois = torch.cat([index.float(), labelled.view_boxes[mine]], dim=1)
        if features == 'backbone':
            embedded = backbone_features(feats, rois.to(device), view.shape[-1])
        else:
            if model.with_neck:
                finest = labelled.finest_level
                feats = net.neck(feats, finest) if finest else net.neck(feats)
            embedded = net.roi_head.embed(feats, rois)
        found.append(unit(embedded).cpu())
        report(len(part))
    return torch.cat(found)


def backbone_features(feats: Sequence[Tensor], rois: Tensor, view_size: int) -> Tensor:
    """Describe boxes by the features of all stages of a backbone, without neck and RoI head.

    Args:
        feats (Sequence[Tensor]): The maps of the backbone's stages, (N, C_i, H_i, W_i).
        rois (Tensor): (k, 5), in pixels of the view, on the maps' device.
        view_size (int): Side of the view in pixels.

    Returns:
        Tensor: (k, sum of C_i): each stage's average over the box (RoIAlign, 7x7), scaled to length 1.
    """
    pooled = [roi_align(feat.float(), rois, 7, feat.shape[-1] / view_size, aligned=True).mean((2, 3))
              for feat in feats]
    return torch.cat([unit(part) for part in pooled], dim=1)
