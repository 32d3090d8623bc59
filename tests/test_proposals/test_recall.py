"""Recall of annotated objects: by hand, against torchvision, and from the command line."""
import json
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import PYTHON
from small import ROOT, make_photos, make_store
from torchvision.ops import box_iou

from projects.soco.proposals.recall import best_overlaps, match_objects, recall
from projects.soco.proposals.store import ProposalStore

BOXES = st.lists(st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 30)] * 2), max_size=6)


def test_by_hand():
    objects = [[0, 0, 10, 10], [20, 20, 10, 10], [0, 0, 40, 40]]
    boxes = [[5, 0, 10, 10], [20, 20, 10, 5]]
    figures = recall([(objects, boxes, (100, 100)), (np.zeros((0, 4)), boxes, (9, 9)),
                      (objects[:1], [], (20, 20))])
    assert figures.overlaps == pytest.approx([50 / 150, 0.5, 100 / 1600, 0])
    assert figures.sizes == pytest.approx([0.1, 0.1, 0.4, 0.5])
    assert figures.at(0.5) == 0.25 and figures.at(0.3) == 0.5
    assert figures.rows()[1:] == [
        ['0.1 to 0.3', '2', '50.0%', '0.0%'], ['0.3 to 0.8', '2', '0.0%', '0.0%'],
        ['all', '4', '25.0%', '0.0%']]
    assert np.isnan(recall([]).at(0.5))


@settings(max_examples=30, deadline=None)
@given(BOXES, BOXES)
def test_overlaps_are_torchvisions(objects, boxes):
    found = best_overlaps(np.array(objects).reshape(-1, 4), np.array(boxes).reshape(-1, 4))
    if not boxes:
        assert found.tolist() == [0] * len(objects)
        return
    first, second = (torch.tensor([[x, y, x + w, y + h] for x, y, w, h in each]).reshape(-1, 4).double()
                     for each in (objects, boxes))
    assert found.tolist() == pytest.approx(box_iou(first, second).max(dim=1).values.tolist())


def test_of_a_store(tmp_path):
    make_photos(tmp_path / 'photos', 3)
    make_store(tmp_path / 'p.arrow', tmp_path / 'photos', boxes_per_photo=4)
    store = ProposalStore.open(tmp_path / 'p.arrow')
    with pytest.raises(ValueError, match="none of the 1 images.*'elsewhere.jpg'.*'photo_000"):
        match_objects(store, {'elsewhere.jpg': np.zeros((1, 4))})
    (width, height), boxes = store.size(1), store.regions(1).tolist()
    image = dict(id=7, file_name=store.name(1), width=width, height=height)
    rows = [dict(id=i, image_id=7, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=0)
            for i, box in enumerate([*boxes, [0, 0, 1, 1]], 1)]
    (tmp_path / 'train.json').write_text(json.dumps(dict(
        images=[image], annotations=rows, categories=[dict(id=1, name='cat')])))
    done = subprocess.run([PYTHON, 'tools/inspect_proposals.py', tmp_path / 'p.arrow', '--annotations',
                           tmp_path / 'train.json', '--photos', '1'], cwd=ROOT, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 'in 1 of its 1 images' in done.stdout
    assert done.stdout.split('  all ')[1].split()[:3] == ['5', '80.0%', '80.0%']
