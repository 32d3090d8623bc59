# Transfer study for one GPU: ResNet-50-FPN at the paper's view sizes, bfloat16.
#
#   python tools/benchmarks/transfer_study.py configs/benchmarks/transfer_study/study_gpu.py \
#       --data DIR --minutes 9
#
# If a command may take ten minutes at most, repeat it until it prints the tables. Without --minutes it
# runs in one go. DIR: see study_cpu.py. Written for an H100 with 80 GB; not run yet.
here = 'configs/benchmarks/transfer_study'
everything = ['backbone', 'neck', 'roi_head.bbox_head']
first = ['random', 'byol', 'soco']
rest = ['soco_fpn', 'soco_backbone', 'soco_random_boxes', 'soco_star']


def rates_and_momenta(momentum):
    """Return six trials, the same for every method: learning rate and initial target momentum."""
    return [{'optim_wrapper.optimizer.lr': lr, momentum: m}
            for lr in (3e-4, 1e-3, 3e-3) for m in (0.99, 0.996)]


soco = rates_and_momenta('default_hooks.momentum.momentum')
study = dict(
    name='transfer_study_gpu',
    seeds=[0, 1, 2],
    data=dict(
        unlabelled=['photos', 'coco_mini/annotations/train.json'],
        images='coco_mini/images',
        train='coco_mini/annotations/train.json',
        val='coco_mini/annotations/val.json',
        classes='supercategory',
        tune_percent=33),
    methods=dict(
        soco=dict(config=f'{here}/soco_r50.py', options=soco),
        byol=dict(config=f'{here}/byol_r50.py', options=rates_and_momenta('model.base_momentum')),
        soco_random_boxes=dict(config=f'{here}/soco_r50.py', boxes='random', options=soco),
        soco_star=dict(config=f'{here}/soco_star_r50.py', options=soco)),
    arms=dict(
        random=dict(title='random'),
        byol=dict(title='BYOL, backbone', method='byol', parts=everything[:1]),
        soco=dict(title='SoCo, backbone + FPN + head', method='soco', parts=everything),
        soco_fpn=dict(title='SoCo, backbone + FPN', method='soco', parts=everything[:2]),
        soco_backbone=dict(title='SoCo, backbone', method='soco', parts=everything[:1]),
        soco_random_boxes=dict(
            title='SoCo with random boxes', method='soco_random_boxes', parts=everything),
        soco_star=dict(title='SoCo*', method='soco_star', parts=everything)),
    references=['random', 'byol'],
    epochs=200,
    trial_epochs=50,
    object_config=f'{here}/soco_r50.py',
    detector=f'{here}/mask-rcnn_r50.py',
    detector_options=[{'optim_wrapper.optimizer.lr': lr} for lr in (0.01, 0.02, 0.04)],
    order=[
        dict(stage='objects', arms=first),
        dict(stage='finetune', arms=first, share=100),
        dict(stage='objects', arms=rest),
        dict(stage='finetune', arms=rest, share=100),
        dict(stage='finetune', arms=first, share=25),
        dict(stage='finetune', arms=rest, share=25),
    ])
