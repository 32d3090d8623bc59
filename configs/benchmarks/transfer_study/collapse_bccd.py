# The study of collapse_cards.py on the photos of bccd (273 of train, of which a quarter is held out).
#
# DIR contains bccd/train.json and bccd/images/.
_base_ = 'collapse_cards.py'
arms = ['cov016', 'imagenet', 'soco']
study = dict(
    name='collapse_bccd',
    data=dict(unlabelled=['bccd/train.json'], images='bccd/images', train='bccd/train.json'),
    detector='configs/benchmarks/transfer_study/faster-rcnn_lite0_bccd.py',
    order=[dict(stage='finetune', arms=arms, share=share, seeds=[seed])
           for seed in (0, 1, 2) for share in (100, 25)])
