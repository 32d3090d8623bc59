# Cityscapes instance segmentation, 1 image per GPU, short side 800-1024 (1024 in testing).
#
# data/cityscapes/: leftImg8bit/{train,val}/, gtFine/val/,
# annotations/instancesonly_filtered_gtFine_{train,val}.json
_base_ = 'mmdet::_base_/datasets/cityscapes_instance.py'
train_dataloader = dict(
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),  # for an iteration-based loop
    dataset=dict(times=1))
