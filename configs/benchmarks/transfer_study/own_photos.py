# Does SoCo pay on a few hundred photos of your own? Four small sets, one detector, three seeds; the
# pretraining is that of tools/pretrain_detector.py, with its defaults.
#
#   python tools/benchmarks/imagenet_lite0.py work_dirs/lite0.pth
#   python tools/benchmarks/transfer_study.py configs/benchmarks/transfer_study/own_photos.py \
#       --data DIR --weights work_dirs/lite0.pth
#
# DIR contains, for each set, images/, train.json and val.json. Days of one core; --minutes and Ctrl-C
# stop it, the same command continues. What matters most comes first.
here = 'configs/benchmarks'
main = ['imagenet', 'soco']
others = ['soco_backbone', 'soco_random_boxes', 'byol', 'soco_before']

study = dict(
    name='own_photos',
    detector=f'{here}/mmdetection/own_photos/faster-rcnn_effnetlite0_fpn.py',
    iters=300,
    sets={
        name: dict(images=f'{name}/images', train=f'{name}/train.json', val=f'{name}/val.json')
        for name in ('cards', 'bccd', 'raccoon', 'aquarium')
    },
    pretrainings=dict(
        soco=dict(weights=True),
        soco_random_boxes=dict(weights=True, boxes='random'),
        byol=dict(weights=True, boxes='random', config=f'{here}/transfer_study/byol_lite0.py'),
        # the recipe before, with the paper's loss alone
        soco_before=dict(weights=True, epochs=20, config=f'{here}/transfer_study/soco_lite0.py'),
        soco_from_random=dict()),
    starts=dict(
        random=dict(title='random'),
        imagenet=dict(title='ImageNet', weights=True),
        soco=dict(title='ImageNet → SoCo', pretraining='soco'),
        soco_backbone=dict(
            title='ImageNet → SoCo, backbone', pretraining='soco', parts=['backbone'], until=150),
        soco_random_boxes=dict(
            title='ImageNet → SoCo, random boxes', pretraining='soco_random_boxes', until=150),
        byol=dict(title='ImageNet → BYOL, backbone', pretraining='byol', parts=['backbone'], until=150),
        soco_before=dict(
            title='ImageNet → SoCo, recipe before', pretraining='soco_before', until=150),
        soco_from_random=dict(title='random → SoCo', pretraining='soco_from_random')),
    pairs=[
        ('soco', 'imagenet'), ('soco', 'soco_before'), ('soco', 'byol'), ('soco', 'soco_backbone'),
        ('soco', 'soco_random_boxes'), ('byol', 'imagenet'), ('soco_backbone', 'imagenet'),
        ('soco_from_random', 'random'), ('imagenet', 'random')],
    steps=[
        dict(starts=main, shares=[25], seeds=[0, 1, 2]),
        dict(starts=main, shares=[10, 100], seeds=[0, 1, 2]),
        dict(starts=others, shares=[25], seeds=[0]),
        dict(starts=['random', 'soco_from_random'], shares=[100], seeds=[0]),
        dict(starts=others, shares=[25], seeds=[1, 2]),
        dict(starts=['random', 'soco_from_random'], shares=[100], seeds=[1, 2]),
        dict(starts=['random'], shares=[10, 25], seeds=[0, 1, 2]),
    ])
