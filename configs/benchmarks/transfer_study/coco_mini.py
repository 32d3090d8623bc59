# Pretraining from random weights on 1453 photos, for a machine with two cores: ResNet-18, views of 64
# pixels, Mask R-CNN on COCO's 12 supercategories. Its results so far: docs/results/transfer_study.md.
#
#   python tools/benchmarks/transfer_study.py configs/benchmarks/transfer_study/coco_mini.py --data DIR
#
# DIR contains photos/ (any unlabelled images) and coco_mini/ (annotations/{train,val}.json, images/).
here = 'configs/benchmarks/transfer_study'
first = ['random', 'byol', 'soco']
rest = ['soco_fpn', 'soco_backbone', 'soco_random_boxes']

study = dict(
    name='coco_mini',
    detector=f'{here}/mask-rcnn_r18.py',
    iters=600,
    sets=dict(
        coco_mini=dict(
            images='coco_mini/images',
            train='coco_mini/annotations/train.json',
            val='coco_mini/annotations/val.json',
            classes='supercategory',
            unlabelled=['photos'])),
    pretrainings=dict(
        soco=dict(config=f'{here}/soco_r18.py', epochs=12),
        byol=dict(config=f'{here}/byol_r18.py', epochs=12),
        soco_random_boxes=dict(config=f'{here}/soco_r18.py', boxes='random', epochs=12)),
    starts=dict(
        random=dict(title='random'),
        byol=dict(title='BYOL, backbone', pretraining='byol', parts=['backbone']),
        soco=dict(title='SoCo, backbone + FPN + head', pretraining='soco'),
        soco_fpn=dict(title='SoCo, backbone + FPN', pretraining='soco', parts=['backbone', 'neck']),
        soco_backbone=dict(title='SoCo, backbone', pretraining='soco', parts=['backbone']),
        soco_random_boxes=dict(title='SoCo with random boxes', pretraining='soco_random_boxes')),
    pairs=[('soco', 'random'), ('soco', 'byol'), ('byol', 'random'), ('soco_fpn', 'random'),
           ('soco_backbone', 'byol'), ('soco', 'soco_random_boxes')],
    steps=[
        dict(starts=first, shares=[100], seeds=[0, 1, 2]),
        dict(starts=rest, shares=[100], seeds=[0, 1, 2]),
        dict(starts=[*first, *rest], shares=[25], seeds=[0, 1, 2]),
    ])
