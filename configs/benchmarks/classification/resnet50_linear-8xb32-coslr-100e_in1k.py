# Linear evaluation on ImageNet with the schedule of the SoCo authors' own scripts: 5 epochs of
# warm-up from a hundredth of the rate, then a cosine to 1e-6, both per iteration, mixed precision.
#
#   bash tools/benchmarks/classification/dist_train_linear.sh \
#       configs/benchmarks/classification/resnet50_linear-8xb32-coslr-100e_in1k.py PRETRAIN.pth 8
#
# Two things differ from their code on purpose: there, BN of the frozen backbone is in train mode,
# so that its statistics move with the labelled photos, and the last incomplete batch of each GPU
# is left out, also of the validation set.
_base_ = './resnet50_linear-8xb32-steplr-100e_in1k.py'

optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
param_scheduler = [
    dict(type='WarmupLR', start_factor=0.01, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        begin=5,
        end=100,
        T_max=95,
        convert_to_iter_based=True),
]
