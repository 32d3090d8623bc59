"""AP of saved predictions, also under bootstrap draws of photos."""
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pycocotools import coco, cocoeval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..evaluation.class_score import draw_photos
from .resampling import DRAWS

# pycocotools prints its progress. Concurrent jobs are judged in threads, which redirect_stdout would
# leave with each other's buffers: what is printed afterwards would be lost.
for _module in (coco, cocoeval):
    vars(_module)['print'] = lambda *args, **kwargs: None
KINDS = {'bbox': 'box', 'segm': 'mask'}
PREDICTIONS = 100  # of a photo that count, as in COCO's AP


def judge_predictions(labels: str | Path, folder: str | Path, resamples: int
                      ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Evaluate the predictions that `KeepPredictionsHook` saved.

    Args:
        labels (str | Path): COCO json of the validation photos.
        folder (str | Path): Work directory of the run.
        resamples (int): Number of draws of photos, R; 0 for none.

    Returns:
        tuple[dict[str, float], dict[str, np.ndarray]]: AP and AP50 within [0, 1], with names such as
        `box_AP50@200` (kind, measure, iterations of fine-tuning); and for each name the (R,) values
        under draws of photos with replacement. The draws are the same for all runs.

    Raises:
        FileNotFoundError: If there are no predictions.
    """
    paths = sorted(Path(folder).glob('predictions/iter_*.*.json'))
    if not paths:
        raise FileNotFoundError(f'There are no predictions in {folder}/predictions. The detector needs '
                                'the KeepPredictionsHook and a validation.')
    truth = COCO(str(labels))
    photos = len(truth.getImgIds())
    draws = [np.repeat(np.arange(photos), times) for times in draw_photos(photos, resamples, DRAWS)]
    values, samples = {}, {}
    for path in paths:
        found = re.fullmatch(r'iter_(\d+)\.(bbox|segm)\.json', path.name)
        if not found:
            continue
        iteration, kind = int(found[1]), found[2]
        matches = match(truth, json.loads(path.read_text()), kind)
        drawn = np.array([average_precision(matches, draw) for draw in draws]).reshape(-1, 2)
        for i, name in enumerate(('AP', 'AP50')):
            key = f'{KINDS[kind]}_{name}@{iteration}'
            values[key] = average_precision(matches)[i]
            samples[key] = drawn[:, i]
    return values, samples


def lacks_points(folder: str | Path, points: Sequence[int], kinds: Sequence[str]) -> bool:
    """Check whether a run's predictions of a validation are missing or incomplete.

    A run that was killed during a validation resumes after it, and so never repeats it.

    Args:
        folder (str | Path): Work directory of the run.
        points (Sequence[int]): Iterations after which the run validates.
        kinds (Sequence[str]): Kinds of predictions, some of `KINDS`.

    Returns:
        bool: Whether predictions are missing or incomplete.
    """
    for point in points:
        for kind in kinds:
            try:
                json.loads((Path(folder) / f'predictions/iter_{point}.{kind}.json').read_bytes())
            except (FileNotFoundError, ValueError):
                return True
    return False


def match(truth: COCO, predictions: list[dict], kind: str) -> COCOeval | None:
    """Match predictions with annotated objects in each photo.

    Args:
        truth (COCO): The annotations.
        predictions (list[dict]): Rows of a COCO result file.
        kind (str): 'bbox' or 'segm'.

    Returns:
        COCOeval | None: The evaluator with its matches, or None if there are no predictions.
    """
    if not predictions:
        return None
    evaluator = COCOeval(truth, truth.loadRes(predictions), kind)
    # Only AP over objects of all sizes is reported.
    evaluator.params.areaRng = evaluator.params.areaRng[:1]
    evaluator.params.areaRngLbl = evaluator.params.areaRngLbl[:1]
    evaluator.params.maxDets = [PREDICTIONS]
    evaluator.evaluate()
    return evaluator


def average_precision(matches: COCOeval | None, draw: np.ndarray | None = None) -> tuple[float, float]:
    """Compute AP (IoU 0.5 to 0.95) and AP50, averaged over the classes that have objects.

    Args:
        matches (COCOeval | None): Output of `match`.
        draw (np.ndarray, optional): Indices of the photos to use, with repetitions. Defaults to None:
            every photo once.

    Returns:
        tuple[float, float]: AP and AP50 within [0, 1]; NaN if the photos have no object.
    """
    if matches is None:
        return 0.0, 0.0
    photos = len(matches.params.imgIds)
    # evalImgs is ordered by class, then by photo.
    listed = np.empty(len(matches.evalImgs), dtype=object)
    listed[:] = matches.evalImgs
    by_class = listed.reshape(-1, photos)
    chosen = np.arange(photos) if draw is None else draw
    precisions = [class_precision([m for m in row[chosen] if m is not None], matches.params.recThrs)
                  for row in by_class]
    kept = [p for p in precisions if p is not None]
    if not kept:
        return float('nan'), float('nan')
    by_iou = np.mean(kept, axis=0)
    return float(by_iou.mean()), float(by_iou[0])


def class_precision(matches: list[dict], recalls: np.ndarray) -> np.ndarray | None:
    """Compute COCO's average precision of one class at each IoU from matched photos.

    Args:
        matches (list[dict]): `COCOeval.evalImgs` of the photos, possibly with repetitions.
        recalls (np.ndarray): Recalls at which the precision is sampled, in ascending order.

    Returns:
        np.ndarray | None: (IoUs,) values, or None if there is no object.
    """
    objects = sum(int(np.count_nonzero(m['gtIgnore'] == 0)) for m in matches)
    if not objects:
        return None
    scores = np.concatenate([m['dtScores'] for m in matches])
    order = np.argsort(-scores, kind='mergesort')
    hit = np.concatenate([m['dtMatches'] for m in matches], axis=1)[:, order] > 0  # (IoUs, predictions)
    counted = ~np.concatenate([m['dtIgnore'] for m in matches], axis=1)[:, order].astype(bool)
    right = np.cumsum(hit & counted, axis=1, dtype=float)
    wrong = np.cumsum(~hit & counted, axis=1, dtype=float)
    precision = right / np.maximum(right + wrong, np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    found = np.zeros(len(precision))
    for i, (p, recall) in enumerate(zip(precision, right / objects)):
        places = np.searchsorted(recall, recalls, side='left')
        found[i] = p[places[places < len(p)]].sum() / len(recalls)
    return found
