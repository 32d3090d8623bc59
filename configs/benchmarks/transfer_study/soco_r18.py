# SoCo-FPN for the CPU study: ResNet-18, narrow FPN and RoI head, views of 64, 64 and 48 pixels.
#
#   python tools/benchmarks/transfer_study.py configs/benchmarks/transfer_study/coco_mini.py --data DIR
#
# The quickstart's network and colours, in bfloat16, with a batch that is large enough for BN, and with
# the paper's loss alone. The study sets data, seed and length of the run.
_base_ = '../../soco_r18_fpn_quickstart.py'
model = dict(channels_last=True, regulariser=None)
train_dataloader = dict(batch_size=16, dataset=dict(repeat=1))
optim_wrapper = dict(type='AutocastOptimWrapper')
default_hooks = dict(
    checkpoint=dict(interval=2, max_keep_ckpts=1),
    views=dict(interval=1000),
    momentum=dict(momentum=0.99))
