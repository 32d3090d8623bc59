# Transfer study for a machine with two cores (two hours): ResNet-18, views of 64 pixels.
#
#   python tools/benchmarks/transfer_study.py configs/benchmarks/transfer_study/study_cpu.py --data DIR
#
# DIR contains photos/ (any unlabelled images) and coco_mini/ (annotations/{train,val}.json, images/).
# The object scores of all arms run first, then fine-tuning as far as time allows.
here = 'configs/benchmarks/transfer_study'
rates = [{'optim_wrapper.optimizer.lr': lr} for lr in (3e-4, 1e-3, 3e-3)]
everything = ['backbone', 'neck', 'roi_head.bbox_head']
first = ['random', 'byol', 'soco']
rest = ['soco_fpn', 'soco_backbone', 'soco_random_boxes']

study = dict(
    name='transfer_study_cpu',
    seeds=[0, 1, 2],
    data=dict(
        unlabelled=['photos', 'coco_mini/annotations/train.json'],
        images='coco_mini/images',
        train='coco_mini/annotations/train.json',
        val='coco_mini/annotations/val.json',
        classes='supercategory',
        tune_percent=33),
    methods=dict(
        soco=dict(config=f'{here}/soco_r18.py', options=rates),
        byol=dict(config=f'{here}/byol_r18.py', options=rates),
        soco_random_boxes=dict(config=f'{here}/soco_r18.py', boxes='random', options=rates)),
    arms=dict(
        random=dict(title='random'),
        byol=dict(title='BYOL, backbone', method='byol', parts=everything[:1]),
        soco=dict(title='SoCo, backbone + FPN + head', method='soco', parts=everything),
        soco_fpn=dict(title='SoCo, backbone + FPN', method='soco', parts=everything[:2]),
        soco_backbone=dict(title='SoCo, backbone', method='soco', parts=everything[:1]),
        soco_random_boxes=dict(
            title='SoCo with random boxes', method='soco_random_boxes', parts=everything)),
    references=['random', 'byol'],
    epochs=12,
    trial_epochs=3,
    object_config=f'{here}/soco_r18.py',
    detector=f'{here}/mask-rcnn_r18.py',
    order=[
        dict(stage='objects', arms=first),
        dict(stage='objects', arms=rest),
        dict(stage='finetune', arms=first, share=100),
        dict(stage='finetune', arms=rest, share=100),
        dict(stage='finetune', arms=first, share=25),
        dict(stage='finetune', arms=rest, share=25),
    ],
    workers=2)
