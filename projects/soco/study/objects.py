"""Object scores of a study's arms before fine-tuning."""
from collections.abc import Mapping

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor
from torchvision.ops import box_iou

from ..datasets.dataset import SoCoDataset
from ..evaluation.annotated import LABELLED_FEATURES, LabelledPhotos, embed_labelled
from ..evaluation.class_score import draw_photos, drawn_means, rank_classes
from ..evaluation.loading import build_model
from ..evaluation.objects import ViewObjects, embed_objects, found_again, same_photo_counts
from ..models.soco import SoCo
from ..weights.match import match_weights
from .resampling import DRAWS

NEIGHBOURS = 5
NUM_PHOTOS = 1000  # more than a study has, to use all


def build_arm(cfg: Config, seed: int, parts: Mapping[str, Tensor]) -> SoCo:
    """Build the network that a detector would start from, with some parts pretrained, others random.

    Args:
        cfg (Config): Pretraining config with the network.
        seed (int): Seed of the random parts.
        parts (Mapping[str, Tensor]): Tensors of the pretrained parts; empty for none.

    Returns:
        SoCo: The network.

    Raises:
        ValueError: If a tensor is not in the network, or a pretrained part lacks a tensor.
    """
    model = build_model(cfg, None, seed)
    tops = sorted({key.split('.')[0] for key in parts})
    report = match_weights(model.state_dict(), parts, tops)
    if report.unused or not report.complete:
        holes = [key for key in report.unfilled if report.is_required(key)]
        raise ValueError(f'The pretrained parts do not fit {cfg.filename}: '
                         + ', '.join([f'{key} is not in the network' for key in report.unused[:3]]
                                     + [f'{key} does not match' for key in holes[:3]])
                         + '. All methods of a study must share its backbone.')
    model.load_state_dict(dict(parts), strict=False)
    model.copy_to_target()
    return model


def judge(model: SoCo, labelled: LabelledPhotos, seed: int, resamples: int,
          views: SoCoDataset | None = None) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Compute the object scores of a network.

    The scores, all within [0, 1]:

    - `knn_…`: share of objects whose class gets most votes of the 5 nearest objects in other photos.
    - `knn_classes_…`: its mean over the classes.
    - `map_…`: mean average precision of retrieving an object's class.
    - `…_object`: with the RoI head's features, which the detector starts from.
    - `…_backbone`: with the backbone's features.
    - `found_again`: share of objects whose nearest object in another view is the same object.
    - `found_again_own`: the same among the objects of the same photo.
    - `place`: overlap (IoU) of an object's box with that of the nearest object of another photo, each
      in its view. It is high for features that encode where an object is and not what it is.
    - `place_chance`: the mean overlap with any object of another photo.

    Args:
        model (SoCo): The network.
        labelled (LabelledPhotos): Annotated photos.
        seed (int): Seed of the views.
        resamples (int): Number of draws of photos, R.
        views (SoCoDataset, optional): Photos with proposals, for the scores in another view. Defaults
            to None: no such scores.

    Returns:
        tuple[dict[str, float], dict[str, np.ndarray]]: Scores by name, and for each name the (R,)
        scores under draws of photos with replacement. The draws are the same for all networks.
    """
    # name: value and photo of each object, and its class for a mean over classes
    outcomes: dict[str, tuple[Tensor, Tensor, Tensor | None]] = {}
    for features in LABELLED_FEATURES:
        feats = embed_labelled(model, labelled, features=features)
        found = rank_classes(feats, labelled.classes, labelled.photos, NEIGHBOURS, other_photos=True)
        photos, classes = labelled.photos[found.counted], labelled.classes[found.counted]
        outcomes[f'knn_{features}'] = found.correct[found.counted], photos, None
        outcomes[f'knn_classes_{features}'] = found.correct[found.counted], photos, classes
        outcomes[f'map_{features}'] = found.precision[found.counted], photos, None
    again = {} if views is None else _found_again(model, views, seed)
    outcomes.update(again)
    values, samples = {}, {}
    for name, (value, photos, classes) in outcomes.items():
        # Draw from all photos, also those without objects, so that draws are the same for all networks.
        total = len(views.store) if name in again else len(labelled.names)
        means = [value] if classes is None else [value[classes == c] for c in classes.unique()]
        values[name] = float(torch.stack([part.double().mean() for part in means]).mean())
        samples[name] = drawn_means(
            value.double().numpy(), photos.numpy(), draw_photos(total, resamples, DRAWS),
            None if classes is None else classes.numpy())
    return values, samples


def _overlaps(objects: ViewObjects) -> tuple[Tensor, Tensor]:
    """Return each object's IoU (n,) with the nearest object of another photo, and the mean with any."""
    alien = objects.rows[:, None] != objects.rows
    iou = box_iou(objects.boxes[:, 0], objects.boxes[:, 1]) * alien
    nearest = (objects.feats[0] @ objects.feats[1].T).masked_fill(~alien, -2).argmax(dim=1)
    return iou.gather(1, nearest[:, None])[:, 0], iou.sum(dim=1) / alien.sum(dim=1).clamp_min(1)


def _found_again(model: SoCo, views: SoCoDataset, seed: int) -> dict[str, tuple[Tensor, Tensor, None]]:
    """Return value and photo of each object for the scores in another view of the same size."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {
        name: [] for name in ('found_again', 'found_again_own', 'place', 'place_chance')}
    for objects in embed_objects(model, views, NUM_PHOTOS, 1, seed=seed, features='object'):
        if objects.sizes[0] == objects.sizes[1]:
            first, other = objects.feats
            found['found_again'].append((found_again(first, other, 1), objects.rows))
            several = same_photo_counts(objects.rows) > 1
            found['found_again_own'].append(
                (found_again(first, other, 1, objects.rows)[several], objects.rows[several]))
            overlaps, chance = _overlaps(objects)
            found['place'].append((overlaps, objects.rows))
            found['place_chance'].append((chance, objects.rows))
    return {name: (torch.cat([v for v, _ in parts]), torch.cat([r for _, r in parts]), None)
            for name, parts in found.items()}
