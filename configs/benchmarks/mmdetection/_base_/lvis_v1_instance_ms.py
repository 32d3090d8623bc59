# LVIS v1 instance segmentation, 2 images per GPU, short side 640-800, repeat-factor sampling 0.001.
#
# data/lvis_v1/: annotations/lvis_v1_{train,val}.json, train2017/, val2017/ (COCO images)
_base_ = 'mmdet::_base_/datasets/lvis_v1_instance.py'
train_dataloader = dict(
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))  # for an iteration-based loop
