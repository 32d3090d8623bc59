# Linear evaluation on ImageNet with the schedule of the SoCo authors' scripts: 5 epochs of warm-up
# from a hundredth of the learning rate, then a cosine to 1e-6, both per iteration; mixed precision.
#
#   bash tools/benchmarks/classification/dist_train_linear.sh \
#       configs/benchmarks/classification/resnet50_linear-8xb32-coslr-100e_in1k.py PRETRAIN.pth 8
#
# Two intentional differences from their code: it keeps BN of the frozen backbone in train mode, which
# updates the running statistics on the labelled images, and it drops the last incomplete batch of
# each GPU, also for the validation set.
_base_ = './resnet50_linear-8xb32-steplr-100e_in1k.py'

optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
param_scheduler = [
    dict(type='WarmupLR', by_epoch=False, start_factor=0.01, share=0.05),
    dict(type='CosineLR', by_epoch=False, eta_min=1e-6, begin=0.05),
]
