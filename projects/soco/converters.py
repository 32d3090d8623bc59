"""Weights between formats: state dict in, state dict out, strict."""
import re
from typing import Dict

from torch import Tensor

# Official name -> ours, for the parts that the online and the target network share.
_OFFICIAL_NAMES = {
    r'encoder\.layer4\.(.+)': r'roi_head.shared_head.layer4.\1',  # C4 only
    r'encoder\.(.+)': r'backbone.\1',
    r'neck\.((?:lateral|fpn)_convs\..+)': r'neck.\1',
    r'head\.conv1\.(.+)': r'roi_head.bbox_head.shared_convs.0.conv.\1',
    r'head\.conv2\.(.+)': r'roi_head.bbox_head.shared_convs.1.conv.\1',
    r'head\.conv3\.(.+)': r'roi_head.bbox_head.shared_convs.2.conv.\1',
    r'head\.conv4\.(.+)': r'roi_head.bbox_head.shared_convs.3.conv.\1',
    r'head\.bn1\.(.+)': r'roi_head.bbox_head.shared_convs.0.bn.\1',
    r'head\.bn2\.(.+)': r'roi_head.bbox_head.shared_convs.1.bn.\1',
    r'head\.bn3\.(.+)': r'roi_head.bbox_head.shared_convs.2.bn.\1',
    r'head\.bn4\.(.+)': r'roi_head.bbox_head.shared_convs.3.bn.\1',
    r'head\.fc1\.(.+)': r'roi_head.bbox_head.shared_fcs.0.\1',
}
_OFFICIAL_MLP = {'linear1': 'fc0', 'bn1': 'bn0', 'linear2': 'fc1'}


def from_official(state_dict: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Rename the weights of an official SoCo model to ours.

    Args:
        state_dict (dict): Of an official SoCo-FPN, SoCo* or SoCo-C4 model, with or without the
            prefix `module.`.

    Returns:
        dict: The same tensors for `SoCo`, online and target network.

    Raises:
        ValueError: A key is none of the official model's; the message names it.
    """
    state_dict = {re.sub(r'^module\.', '', key): value for key, value in state_dict.items()}
    pyramid = any(key.startswith('neck.') for key in state_dict)
    renamed = {}
    for key, value in state_dict.items():
        part, rest = key.split('.', 1) if '.' in key else (key, '')
        online = re.sub(r'_k$', '', part)
        prefix = 'target.' if part != online else ''
        name = _rename(f'{online}.{rest}', pyramid)
        if name is None:
            raise ValueError(f'{key} is not a key of an official SoCo model. Give the model part of '
                             'an official checkpoint (its key `model`).')
        renamed[prefix + name] = value
    return renamed


def _rename(key: str, pyramid: bool) -> str | None:
    """Return our name of an online network's key, or None."""
    mlp = re.fullmatch(r'(projector|predictor)\.(\w+)\.(.+)', key)
    if mlp and mlp[2] in _OFFICIAL_MLP:
        where = 'head.predictor' if mlp[1] == 'predictor' else 'projector'
        return f'{where}.{_OFFICIAL_MLP[mlp[2]]}.{mlp[3]}'
    for pattern, name in _OFFICIAL_NAMES.items():
        if re.fullmatch(pattern, key) and not (pyramid and 'layer4' in pattern):
            return re.sub(pattern, name, key)
    return None
