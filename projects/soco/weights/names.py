"""Names of weights in each format: this project, official code, mmdet, detectron2, torchvision.

Every table has this project's names on the left. They follow a detector's, so mmdet's are the same.
"""
import itertools
import string
from functools import cache

Rows = list[tuple[str, str]]  # (our name, the other format's name), both templates

# Values of the template fields. detectron2 and the official head start counting at other numbers:
# {res} is our {stage}, {p} our {level} and {nth} our {layer}. In C4 the backbone has {early} stages.
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


# Layers of ResNet and its blocks. The official code and torchvision use the same names as mmdet.
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
    """Return the rows of a whole ResNet; in our C4, the last stage belongs to the RoI head."""
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
SAME_NAMES = {'soco', 'mmdet'}
# The tables contain ResNets, which have both names; any other backbone keeps its names.
RESNET = ('backbone.layer1.0.conv2.weight', 'backbone.layer2.0.conv2.weight')
# What a tensor is called inside of a backbone; mmcls's TIMMBackbone has all under `timm_model`.
INSIDE_BACKBONE = r'backbone\.(?:timm_model\.)?(.+)'
SHARED_LAYERS = ('shared_convs', 'shared_fcs')  # of mmdet's box heads, in the order of the data
# A box head's prefix (one for each stage of a cascade), and its shared layers.
BOX_HEAD = r'((?:target\.)?roi_head\.bbox_head\.(?:\d+\.)?)'
SHARED_LAYER = rf'{BOX_HEAD}({"|".join(SHARED_LAYERS)})\.(\d+)\.(.+)'
# A level of a feature pyramid: its prefix, the kind of its conv, its number, the tensor.
PYRAMID_LEVEL = r'((?:target\.)?neck\.(?:\d+\.)?)(lateral|fpn)_convs\.(\d+)\.(.+)'
INSIDE_C4_HEAD = r'roi_head\.shared_head\.(layer4\..+)'  # the last stage of C4's backbone
# Of several networks in a file, one whose prefix matches this is used only if there is no other: the
# moving average of contrastive methods, the student of self-distillation.
SECOND_NETWORK = r'(^|.*[._])(k|key|target|target_net|target_network|momentum|student|ema)([._]|$)'


@cache
def name_table(format_name: str, family: str) -> dict[str, str]:
    """Return every possible name of our model's weights, with its name in another format.

    Args:
        format_name (str): 'official' or one of `TARGETS`.
        family (str): 'FPN' or 'C4'.

    Returns:
        dict[str, str]: For each of our names, the other format's name.
    """
    table = {}
    for ours, theirs in _TABLES[format_name](family):
        fields = [_FIELDS[name] for _, name, _, _ in string.Formatter().parse(ours) if name]
        for values in itertools.product(*fields):
            known = {key: value for part in values for key, value in part.items()}
            table[ours.format(**known)] = theirs.format(**known)
    return table


# Keys to drop: the reason, and a pattern of how they begin. LEFT_IN has a format's own names and
# applies to its weights as input; LEFT_OUT has our names and applies to it as the target.
LEFT_IN = {
    'official': {'queue, which SoCo does not use': r'queue(_ptr)?$'},
    'torchvision': {'classifier': r'fc\.'},
    'detectron2': {'classifier': r'backbone\.bottom_up\.stem\.fc\.'},
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

# How keys begin in each format: each pattern matches some key. The first format that fits is used.
SIGNS = {
    'official': (r'encoder\.conv1\.', r'predictor\.linear1\.|neck\.lateral_convs\.|head\.(conv|fc)1\.'),
    'detectron2': (r'(backbone\.(bottom_up\.)?)?(stem\.conv1|res2\.0)\.', ),
    'torchvision': (r'conv1\.', r'layer1\.'),
    'soco': (r'projector\.fc0\.|target\.(backbone|neck|roi_head|projector)\.', ),
    'mmdet': (r'backbone\.', ),
}
# Keys that weights with a pyramid have and weights for C4 do not. A plain ResNet may be either.
_OUR_FPN = r'backbone\.layer4\.|neck\.|roi_head\.bbox_head\.'
FPN_SIGNS = {
    'official': r'(neck|head)(_k)?\.',
    'detectron2': r'backbone\.bottom_up\.|stem\.',
    'torchvision': '',
    'soco': _OUR_FPN,
    'mmdet': _OUR_FPN,
}
# Other kinds of weights, with the keys that identify them; the first that matches any key is used.
OTHER_KINDS = {
    'a whole detector': r'rpn_head\.|proposal_generator\.|bbox_head\.|roi_head\.mask_head\.|'
                        r'roi_head\.bbox_head\.fc_(cls|reg)|roi_heads\.(box_predictor|mask_head)',
    'a classifier; to use a ResNet trained to classify in a detector, give it as supervised:FILE':
        r'head\.(fc|layers)\.|fc\.|classifier\.',
    'a SoCo-C4 checkpoint (it has no neck)': r'roi_head\.shared_head\.',
    'a SoCo-FPN checkpoint': r'neck\.(lateral|fpn)_convs\.',
    'a backbone without neck and box head; give a ResNet trained to classify as '
    'supervised:FILE': r'backbone\.',
}
_DETECTOR = 'configs/benchmarks/mmdetection/coco/mask-rcnn_{}_ms-1x_coco.py'
# Kind and backbone: a detector of this project that starts from such weights.
DETECTORS = {
    ('a SoCo-C4 checkpoint (it has no neck)', 'ResNet-50'): _DETECTOR.format('r50_c4'),
    ('a SoCo-FPN checkpoint', 'ResNet-50'): _DETECTOR.format('r50_fpn'),
    ('a SoCo-FPN checkpoint', 'ResNet-101'): _DETECTOR.format('r101_fpn'),
}
