# Does a start that is not collapsed pay? From ImageNet weights, on the photos of cards (272 of train,
# of which a quarter is held out). collapse_bccd.py is the same for bccd.
#
#   python tools/benchmarks/imagenet_lite0.py work_dirs/lite0.pth
#   python tools/benchmarks/transfer_study.py configs/benchmarks/transfer_study/collapse_cards.py \
#       --data DIR --weights work_dirs/lite0.pth
#
# DIR contains cards/train.json and cards/images/.
here = 'configs/benchmarks/transfer_study'
everything = ['backbone', 'neck', 'roi_head.bbox_head']
arms = ['soco_terms', 'imagenet', 'soco']

study = dict(
    name='collapse_cards',
    seeds=[0, 1, 2],
    data=dict(
        unlabelled=['cards/train.json'],
        images='cards/images',
        train='cards/train.json',
        val_percent=25,
        tune_percent=25),
    methods=dict(
        soco=dict(config=f'{here}/soco_lite0.py', weights=True),
        soco_terms=dict(config=f'{here}/soco_lite0_terms.py', weights=True)),
    arms=dict(
        imagenet=dict(title='ImageNet', parts=everything[:1], weights=True),
        soco=dict(title='SoCo, loss of the paper', method='soco', parts=everything),
        soco_terms=dict(title='SoCo with terms', method='soco_terms', parts=everything)),
    references=['imagenet', 'soco'],
    epochs=20,
    trial_epochs=1,
    object_config=f'{here}/soco_lite0.py',
    detector=f'{here}/faster-rcnn_lite0_cards.py',
    order=[dict(stage='finetune', arms=arms, share=share, seeds=[seed])
           for seed in (0, 1, 2) for share in (100, 25)],
    workers=1)
