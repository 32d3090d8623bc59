"""What weights are called in each format: our own SoCo, official code, mmdet, detectron2, torchvision.

Every table has our names on the left. They are a detector's already, so that mmdet's are the same.
"""
import itertools
import string
from functools import cache

Rows = list[tuple[str, str]]  # (our name, the other format's name), both templates

# What the fields of a template stand for. detectron2 and the official head count from elsewhere:
# {res} is our {stage}, {p} our {level} and {nth} our {layer}. In C4 the backbone ends early.
_FIELDS = {
    'stage': [dict(stage=i, res=i + 1) for i in (1, 2, 3, 4)],
    'early': [dict(early=i, res=i + 1) for i in (1, 2, 3)],
    'block': [dict(block=i) for i in range(36)],  # ResNet-152 has the longest stage
    'conv': [dict(conv=i) for i in (1, 2, 3)],
    'level': [dict(level=i, p=i + 2) for i in range(4)],
    'layer': [dict(layer=i, nth=i + 1) for i in range(4)],
    'leaf': [dict(leaf=name) for name in ('weight', 'bias', 'running_mean', 'running_var',
                                          'num_batches_tracked')],
}


def _under(ours: str, theirs: str, rows: Rows) -> Rows:
    return [(ours + a, theirs + b) for a, b in rows]


# What ResNet and its blocks hold. The official code and torchvision name it as mmdet does.
_STEM_D2 = [('conv1.{leaf}', 'stem.conv1.{leaf}'), ('bn1.{leaf}', 'stem.conv1.norm.{leaf}')]
_BLOCK_D2 = [('conv{conv}.{leaf}', 'conv{conv}.{leaf}'),
             ('bn{conv}.{leaf}', 'conv{conv}.norm.{leaf}'),
             ('downsample.0.{leaf}', 'shortcut.{leaf}'),
             ('downsample.1.{leaf}', 'shortcut.norm.{leaf}')]
_STEM, _BLOCK = ([(ours, ours) for ours, _ in rows] for rows in (_STEM_D2, _BLOCK_D2))
_STAGE = {'FPN': 'layer{stage}.{block}.', 'C4': 'layer{early}.{block}.'}
_RES5 = 'roi_head.shared_head.layer4.{block}.'

_NECK = ['neck.lateral_convs.{level}.conv.{leaf}', 'neck.lateral_convs.{level}.bn.{leaf}',
         'neck.fpn_convs.{level}.conv.{leaf}', 'neck.fpn_convs.{level}.bn.{leaf}']
_NECK_D2 = ['backbone.fpn_lateral{p}.{leaf}', 'backbone.fpn_lateral{p}.norm.{leaf}',
            'backbone.fpn_output{p}.{leaf}', 'backbone.fpn_output{p}.norm.{leaf}']
_HEAD = ['roi_head.bbox_head.shared_convs.{layer}.conv.{leaf}',
         'roi_head.bbox_head.shared_convs.{layer}.bn.{leaf}',
         'roi_head.bbox_head.shared_fcs.{layer}.{leaf}']
_HEAD_D2 = ['roi_heads.box_head.conv{nth}.{leaf}', 'roi_heads.box_head.conv{nth}.norm.{leaf}',
            'roi_heads.box_head.fc{nth}.{leaf}']
_HEAD_OFFICIAL = ['head.conv{nth}.{leaf}', 'head.bn{nth}.{leaf}', 'head.fc{nth}.{leaf}']
_MLP_OFFICIAL = [('fc0.{leaf}', 'linear1.{leaf}'), ('bn0.{leaf}', 'bn1.{leaf}'),
                 ('fc1.{leaf}', 'linear2.{leaf}')]


def _resnet(family: str, prefix: str = '') -> Rows:
    """A whole ResNet; with us the last stage of C4 belongs to the RoI head."""
    stage = _STAGE[family]
    rows = _under('backbone.', prefix, _STEM) + _under('backbone.' + stage, prefix + stage, _BLOCK)
    return rows + (_under(_RES5, f'{prefix}layer4.{{block}}.', _BLOCK) if family == 'C4' else [])


def _official(family: str) -> Rows:
    shared = _resnet(family, 'encoder.') + _under('projector.', 'projector.', _MLP_OFFICIAL)
    if family == 'FPN':
        shared += [*zip(_NECK, _NECK), *zip(_HEAD, _HEAD_OFFICIAL)]
    target = [('target.' + ours, theirs.replace('.', '_k.', 1)) for ours, theirs in shared]
    return shared + target + _under('head.predictor.', 'predictor.', _MLP_OFFICIAL)


def _detectron2(family: str) -> Rows:
    body = 'backbone.bottom_up.' if family == 'FPN' else 'backbone.'
    rows = (_under('backbone.', body, _STEM_D2)
            + _under('backbone.' + _STAGE[family], body + 'res{res}.{block}.', _BLOCK_D2))
    if family == 'C4':
        return rows + _under(_RES5, 'roi_heads.res5.{block}.', _BLOCK_D2)
    return [*rows, *zip(_NECK, _NECK_D2), *zip(_HEAD, _HEAD_D2)]


_TABLES = {
    'official': _official,
    'soco': lambda family: [(ours, ours) for ours, _ in _official(family)],
    'mmdet': lambda family: [(ours, ours) for ours, _ in _detectron2(family)],
    'detectron2': _detectron2,
    'torchvision': _resnet,
}
TARGETS = ('mmdet', 'detectron2', 'torchvision', 'soco')


@cache
def name_table(format_name: str, family: str) -> dict[str, str]:
    """Return every name that our model can have, with the name it has in another format.

    Args:
        format_name (str): 'official' or one of `TARGETS`.
        family (str): 'FPN' or 'C4'.
    """
    table = {}
    for ours, theirs in _TABLES[format_name](family):
        fields = [_FIELDS[name] for _, name, _, _ in string.Formatter().parse(ours) if name]
        for values in itertools.product(*fields):
            known = {key: value for part in values for key, value in part.items()}
            table[ours.format(**known)] = theirs.format(**known)
    return table


# Why a format leaves keys out, by how they begin: on the way in, its own names; on the way out, ours.
LEFT_IN = {
    'official': {'queue, which SoCo does not use': r'queue(_ptr)?$'},
    'torchvision': {'classifier': r'fc\.'},
}
_PRETRAINING = {
    'target network': r'target\.',
    'projector': r'projector\.',
    'predictor': r'head\.predictor\.',
}
LEFT_OUT = {
    'mmdet': _PRETRAINING,
    'detectron2': _PRETRAINING,
    'torchvision': {
        **_PRETRAINING, 'neck and box head (torchvision has none)': r'neck\.|roi_head\.bbox_head\.'},
}

# How keys begin in each format; the first format that any key fits is taken.
SIGNS = {
    'official': r'encoder(_k)?\.',
    'detectron2': r'backbone\.(bottom_up\.)?(stem|res\d)\.',
    'torchvision': r'(conv1|layer1)\.',
    'soco': r'(projector|target|head\.predictor)\.',
    'mmdet': r'backbone\.(conv1|layer1)\.',
}
# Keys that weights with a pyramid have, and those for C4 have not. A plain ResNet may be either.
_OUR_FPN = r'backbone\.layer4\.|neck\.|roi_head\.bbox_head\.'
FPN_SIGNS = {
    'official': r'(neck|head)(_k)?\.',
    'detectron2': r'backbone\.bottom_up\.',
    'torchvision': '',
    'soco': _OUR_FPN,
    'mmdet': _OUR_FPN,
}
_DETECTORS = 'configs/benchmarks/mmdetection/coco/mask-rcnn_r50_{}_ms-1x_coco.py'
# What other names tell of weights; the first that any key fits is taken.
OTHER_KINDS = {
    'a whole detector': r'rpn_head\.|proposal_generator\.|bbox_head\.|roi_head\.mask_head\.|'
                        r'roi_head\.bbox_head\.fc_(cls|reg)|roi_heads\.(box_predictor|mask_head)',
    'a classifier; a detector takes a ResNet that was trained to classify as supervised:FILE':
        r'head\.(fc|layers)\.|fc\.|classifier\.',
    'a SoCo-C4 checkpoint, which has no neck and fits detectors such as ' + _DETECTORS.format('c4'):
        r'roi_head\.shared_head\.',
    'a SoCo-FPN checkpoint, which fits detectors such as ' + _DETECTORS.format('fpn'): r'neck\.',
    'a backbone without neck and box head; a ResNet that was trained to classify is given as '
    'supervised:FILE': r'backbone\.',
}
