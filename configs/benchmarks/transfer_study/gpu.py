# From random weights on one GPU: ResNet-50-FPN at the paper's view sizes, on four small sets and a part
# of COCO. SoCo and BYOL see the same photos for as many epochs.
#
#   python tools/benchmarks/transfer_study.py configs/benchmarks/transfer_study/gpu.py \
#       --data DIR --minutes 9
#
# Repeat the command until it prints no "Stopped": it goes on where it stopped. The first ones give the
# table of one set and one seed. DIR: see own_photos.py and coco_mini.py. Written for a GPU with 80 GB;
# not run yet.
here = 'configs/benchmarks/transfer_study'
starts = ['random', 'soco', 'byol']

study = dict(
    name='gpu',
    detector='configs/benchmarks/mmdetection/own_photos/faster-rcnn_r50_fpn.py',
    iters=300,
    sets=dict(
        **{
            name: dict(images=f'{name}/images', train=f'{name}/train.json', val=f'{name}/val.json')
            for name in ('cards', 'bccd', 'raccoon', 'aquarium')
        },
        coco_mini=dict(
            images='coco_mini/images',
            train='coco_mini/annotations/train.json',
            val='coco_mini/annotations/val.json',
            classes='supercategory',
            unlabelled=['photos'])),
    pretrainings=dict(
        soco=dict(config=f'{here}/soco_r50.py', epochs=100),
        byol=dict(config=f'{here}/byol_r50.py', epochs=100)),
    starts=dict(
        random=dict(title='random'),
        soco=dict(title='SoCo, backbone + FPN + head', pretraining='soco'),
        byol=dict(title='BYOL, backbone', pretraining='byol', parts=['backbone'])),
    pairs=[('soco', 'random'), ('soco', 'byol'), ('byol', 'random')],
    steps=[
        dict(starts=starts, shares=[100], seeds=[0], sets=['cards']),
        dict(starts=starts, shares=[100], seeds=[0, 1, 2]),
        dict(starts=starts, shares=[25], seeds=[0, 1, 2]),
    ])
