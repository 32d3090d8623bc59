"""AP of saved predictions, compared with that of pycocotools."""
import contextlib
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from projects.soco.study.detection import average_precision, judge_predictions, lacks_points, match


def write_truth(path: Path, photos: int = 6, seed: int = 0) -> tuple[dict, list[dict]]:
    """Write photos with up to four objects of three classes; return them and noisy predictions."""
    rng = np.random.default_rng(seed)
    content = dict(images=[dict(id=10 + i, width=100, height=80, file_name=f'{i}.png')
                           for i in range(photos)],
                   categories=[dict(id=c, name=f'c{c}') for c in (1, 2, 3)], annotations=[])
    predictions = []
    for image in content['images']:
        for _ in range(rng.integers(0, 5)):
            x, y, w, h = (float(v) for v in (*rng.integers(0, 50, 2), *rng.integers(8, 40, 2)))
            category = int(rng.integers(1, 4))
            content['annotations'].append(dict(
                id=len(content['annotations']) + 1, image_id=image['id'], category_id=category,
                bbox=[x, y, w, h], area=w * h, iscrowd=int(rng.random() < 0.1),
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
            for _ in range(rng.integers(0, 3)):
                shift = rng.normal(0, 4, 2)
                predictions.append(dict(
                    image_id=image['id'], score=float(rng.random()),
                    category_id=category if rng.random() < 0.8 else int(rng.integers(1, 4)),
                    bbox=[x + float(shift[0]), y + float(shift[1]), w, h]))
    path.write_text(json.dumps(content))
    return content, predictions


def official(truth: COCO, predictions: list[dict]) -> tuple[float, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(truth, truth.loadRes(predictions), 'bbox')
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats[0], evaluator.stats[1]


def load(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_judging_is_silent_and_takes_nothing_from_other_threads(tmp_path: Path, monkeypatch, capsys):
    _, predictions = write_truth(tmp_path / 'truth.json')
    evaluate = COCOeval.evaluate

    def report_and_evaluate(self: COCOeval) -> None:
        thread = threading.Thread(target=print, args=('of another job', ))
        thread.start()
        thread.join()
        evaluate(self)

    monkeypatch.setattr(COCOeval, 'evaluate', report_and_evaluate)
    match(COCO(str(tmp_path / 'truth.json')), predictions, 'bbox')
    assert capsys.readouterr().out == 'of another job\n'


@pytest.mark.parametrize('seed', range(5))
def test_ap_is_that_of_pycocotools(tmp_path: Path, seed: int):
    _, predictions = write_truth(tmp_path / 'truth.json', seed=seed)
    truth = load(tmp_path / 'truth.json')
    assert average_precision(match(truth, predictions, 'bbox')) == pytest.approx(
        official(truth, predictions), abs=1e-12)


def test_a_draw_of_photos_is_as_if_they_were_copied(tmp_path: Path):
    content, predictions = write_truth(tmp_path / 'truth.json', seed=3)
    matches = match(load(tmp_path / 'truth.json'), predictions, 'bbox')
    for draw in np.random.default_rng(0).integers(6, size=(5, 6)):
        images, annotations, rows = [], [], []
        for new, old in enumerate(content['images'][i]['id'] for i in draw):
            images.append(dict(id=new, width=100, height=80, file_name=f'{new}.png'))
            annotations += [{**a, 'image_id': new} for a in content['annotations']
                            if a['image_id'] == old]
            rows += [{**p, 'image_id': new} for p in predictions if p['image_id'] == old]
        copied = {**content, 'images': images,
                  'annotations': [{**a, 'id': i} for i, a in enumerate(annotations, 1)]}
        (tmp_path / 'copied.json').write_text(json.dumps(copied))
        assert average_precision(matches, draw) == pytest.approx(
            official(load(tmp_path / 'copied.json'), rows), abs=1e-12)


def test_perfect_predictions_and_none(tmp_path: Path):
    content, _ = write_truth(tmp_path / 'truth.json')
    truth = load(tmp_path / 'truth.json')
    perfect = [dict(image_id=a['image_id'], category_id=a['category_id'], bbox=a['bbox'], score=0.9)
               for a in content['annotations'] if not a['iscrowd']]
    assert average_precision(match(truth, perfect, 'bbox')) == pytest.approx((1, 1))
    assert average_precision(match(truth, [], 'bbox')) == (0, 0)


def test_files_become_values_and_draws(tmp_path: Path):
    _, predictions = write_truth(tmp_path / 'truth.json')
    (tmp_path / 'run/predictions').mkdir(parents=True)
    for iteration in (2, 10):
        (tmp_path / f'run/predictions/iter_{iteration}.bbox.json').write_text(
            json.dumps(predictions if iteration == 10 else []))
    values, samples = judge_predictions(tmp_path / 'truth.json', tmp_path / 'run', 7)
    assert set(values) == {'box_AP@2', 'box_AP50@2', 'box_AP@10', 'box_AP50@10'}
    assert values['box_AP50@2'] == 0 and values['box_AP50@10'] > 0.1
    assert samples['box_AP@10'].shape == (7, ) and samples['box_AP@10'].std() > 0
    assert not samples['box_AP@2'].any()


def test_no_predictions_is_told(tmp_path: Path):
    write_truth(tmp_path / 'truth.json')
    with pytest.raises(FileNotFoundError, match='KeepPredictionsHook'):
        judge_predictions(tmp_path / 'truth.json', tmp_path, 3)


def test_points_that_are_missing_or_torn_are_seen(tmp_path: Path):
    (tmp_path / 'predictions').mkdir()
    for point in (2, 4):
        for kind in ('bbox', 'segm'):
            assert lacks_points(tmp_path, (2, 4), ('bbox', 'segm'))
            (tmp_path / f'predictions/iter_{point}.{kind}.json').write_text('[]')
    assert not lacks_points(tmp_path, (2, 4), ('bbox', 'segm'))
    assert lacks_points(tmp_path, (2, 4, 6), ('bbox', 'segm'))
    (tmp_path / 'predictions/iter_2.segm.json').write_text('[{"image_id": 4, ')
    assert lacks_points(tmp_path, (2, 4), ('bbox', 'segm'))
