# Does a start that is not collapsed pay? From ImageNet weights, on the photos of cards (272 of train,
# of which a quarter is held out). collapse_bccd.py is the same for bccd.
#
#   python tools/benchmarks/imagenet_lite0.py work_dirs/lite0.pth
#   python tools/benchmarks/transfer_study.py configs/benchmarks/transfer_study/collapse_cards.py \
#       --data DIR --weights work_dirs/lite0.pth
#
# DIR contains cards/train.json and cards/images/. The weight of the covariance term is chosen with the
# first seed and all labels of cards.
here = 'configs/benchmarks/transfer_study'
everything = ['backbone', 'neck', 'roi_head.bbox_head']
arms = ['cov016', 'imagenet', 'soco']

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
        cov004=dict(config=f'{here}/soco_lite0_cov004.py', weights=True),
        cov016=dict(config=f'{here}/soco_lite0_cov016.py', weights=True),
        cov064=dict(config=f'{here}/soco_lite0_cov064.py', weights=True),
        cov004_slow=dict(config=f'{here}/soco_lite0_cov004_slow.py', weights=True),
        cov016_slow=dict(config=f'{here}/soco_lite0_cov016_slow.py', weights=True)),
    arms=dict(
        imagenet=dict(title='ImageNet', parts=everything[:1], weights=True),
        soco=dict(title='SoCo, loss of the paper', method='soco', parts=everything),
        cov004=dict(title='SoCo, covariance 0.04', method='cov004', parts=everything),
        cov016=dict(title='SoCo, covariance 0.16', method='cov016', parts=everything),
        cov064=dict(title='SoCo, covariance 0.64', method='cov064', parts=everything),
        cov004_slow=dict(
            title='SoCo, covariance 0.04, slow backbone', method='cov004_slow', parts=everything),
        cov016_slow=dict(
            title='SoCo, covariance 0.16, slow backbone', method='cov016_slow', parts=everything)),
    references=['imagenet', 'soco'],
    epochs=20,
    trial_epochs=1,
    object_config=f'{here}/soco_lite0.py',
    detector=f'{here}/faster-rcnn_lite0_cards.py',
    order=[
        dict(stage='finetune', share=100, seeds=[0], arms=[
            'cov016', 'cov064', 'imagenet', 'cov016_slow', 'cov004_slow', 'soco', 'cov004']),
        *(dict(stage='finetune', arms=arms, share=share, seeds=[seed])
          for seed in (0, 1, 2) for share in (100, 25)),
    ],
    workers=1)
