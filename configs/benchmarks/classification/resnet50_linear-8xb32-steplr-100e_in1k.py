# Linear evaluation on ImageNet: a linear classifier on the frozen ResNet-50 of a SoCo run.
#
#   bash tools/benchmarks/classification/dist_train_linear.sh \
#       configs/benchmarks/classification/resnet50_linear-8xb32-steplr-100e_in1k.py PRETRAIN.pth 8
#
# Hardware: 8 GPUs x 32 images. For another total batch, add --auto-scale-lr. Data: one folder per
# class, data/imagenet/{train,val}/n01440764/*.JPEG. Lists such as meta/train.txt are not needed.
#
# This is MoCo's setting as implemented in MMSelfSup, so results are comparable to its tables: SGD with
# lr 30 and no weight decay, learning rate divided by 10 at epochs 60 and 80, full precision, and BN of
# the frozen backbone with its running statistics. The SoCo authors' scripts use the same learning
# rate, batch size and number of epochs with another schedule:
# resnet50_linear-8xb32-coslr-100e_in1k.py
#
# MMSelfSup's config cannot be used as a base: its types are those of MMCls, but MMEngine would look
# them up in MMSelfSup's registries. This config is built from the base configs of MMCls instead; a
# test compares the two.
_base_ = [
    'mmcls::_base_/models/resnet50.py',
    'mmcls::_base_/datasets/imagenet_bs32_pil_resize.py',
    'mmcls::_base_/schedules/imagenet_bs256.py',
    'mmcls::_base_/default_runtime.py',
]

custom_imports = dict(imports=['projects.soco.engine'], allow_failed_imports=False)

model = dict(backbone=dict(frozen_stages=4))

# Without a list, the classes are the folders in alphabetical order, which is ImageNet's order.
train_dataloader = dict(dataset=dict(ann_file=''), persistent_workers=True)
val_dataloader = dict(dataset=dict(ann_file=''), persistent_workers=True)
test_dataloader = dict(dataset=dict(ann_file=''))

optim_wrapper = dict(optimizer=dict(lr=30.0, weight_decay=0.0))
param_scheduler = dict(_delete_=True, type='StepsLR', by_epoch=False, shares=[0.6, 0.8], gamma=0.1)

# Save every epoch, so that a stopped run can resume from the last complete one.
default_hooks = dict(
    checkpoint=dict(type='PlainCheckpointHook', interval=1, max_keep_ckpts=3),
    # Log which tensors of the checkpoint match; stop if the backbone does not.
    pretrained=dict(type='PretrainedWeightsHook', require=['backbone']),
    resume=dict(type='ResumeHook'),  # rate and schedule of the config hold when a run is resumed
    finite_loss=dict(type='FiniteLossHook'),  # stop at NaN or Inf in the loss and report where
    same_run=dict(type='SameRunHook'),  # ranks must agree on config, code and data
    stop_signal=dict(type='StopSignalHook'))  # on SIGTERM: exit with code 75
randomness = dict(seed=0)
