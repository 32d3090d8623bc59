"""The survey: what it finds, its cache, and the page with its result."""
import json

import pytest
from small import ROOT
from test_detectors.test_samples import small_detector, small_recipe

from projects.soco.detectors import survey as module
from projects.soco.detectors.survey import (
    Finding,
    decode,
    encode,
    examine,
    family_table,
    shipped_configs,
    signature,
    survey,
)

RESULT = ROOT / 'docs/results/detectors_survey.json'


def test_a_detector_is_built_and_handed_back():
    found = examine(small_detector('faster_rcnn/faster-rcnn_r50_fpn_1x_coco'), small_recipe())
    assert found == Finding('ResNet', 'FPN', 'Shared2FCBBoxHead', 'whole', tensors=338)


def test_a_box_head_that_is_not_shared_is_not_whole():
    detector = small_detector('faster_rcnn/faster-rcnn_r50_fpn_1x_coco')
    detector.model.roi_head.bbox_head = dict(
        type='SABLHead', num_classes=2, cls_in_channels=32, reg_in_channels=32)
    found = examine(detector, small_recipe())
    assert found.status == 'part' and 'SABLHead has no convs' in found.why and found.tensors == 334
    detector.model.backbone.depth = 19
    assert examine(detector, small_recipe()).status == 'refused'


def test_equal_parts_are_examined_once(monkeypatch):
    examined = []

    def look(detector, recipe):
        examined.append(detector)
        return Finding('ResNet', 'FPN', '', 'whole')

    monkeypatch.setattr(module, 'examine', look)
    names = [f'retinanet/retinanet_r50_fpn_{name}_coco.py' for name in ('1x', '2x', '90k')]
    names.append('reid/reid_r50_8xb32-6e_mot17train80_test-mot17val20.py')
    cache: dict = {}
    findings = survey(names, small_recipe(), cache)
    assert len(examined) == 1 == len(cache) and list(findings) == names
    assert findings[names[-1]].status == 'refused'
    survey(names, small_recipe(), cache)  # goes on from the cache
    assert len(examined) == 1
    other = small_detector('retinanet/retinanet_r18_fpn_1x_coco')
    assert signature(other) not in cache


def test_configs_without_a_backbone_are_left_out(tmp_path):
    for name, text in {'_base_/a.py': 'model = dict(backbone=dict())', 'b/b.py': 'x = 1',
                       'b/c.py': 'model = dict(backbone=dict())', 'd.py': 'model = ('}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert shipped_configs(tmp_path) == ['b/c.py']
    assert shipped_configs(tmp_path, 'nothing') == []


def test_the_file_of_a_survey_is_read_again():
    findings = {'a.py': Finding('A', 'B', '', 'whole', tensors=3), 'b.py': Finding(
        'A', '', 'C', 'refused', 'no "reason"', built=False)}
    content = encode(findings, date='today')
    assert decode(content) == findings and json.loads(content)['total'] == 2
    assert content.count(b'\n') < 12
    assert family_table(findings, 'backbone') == [('A', 2, 1, 0, 1)]
    assert family_table(findings, 'neck') == [('B', 1, 1, 0, 0), ('none', 1, 0, 0, 1)]


@pytest.mark.parametrize('by', ['backbone', 'neck', 'box_head'])
def test_the_page_has_the_numbers_of_the_survey(by):
    findings = decode(RESULT.read_bytes())
    assert len(findings) == 769
    whole = sum(finding.status == 'whole' for finding in findings.values())
    assert whole >= 0.9 * len(findings)
    assert all(finding.why for finding in findings.values() if finding.status != 'whole')
    page = (ROOT / 'docs/detectors.md').read_text()
    assert f'{whole} of 769' in page
    for kind, *counts in family_table(findings, by):
        assert f'| {kind} | ' + ' | '.join(map(str, counts)) + ' |' in page
