# Faster R-CNN for the collapse study on bccd: the detector for own photos. The study sets annotations,
# images, seed and weights.
_base_ = '../mmdetection/own_photos/faster-rcnn_effnetlite0_fpn.py'
classes = ('Platelets', 'RBC', 'WBC')
model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
train_dataloader = dict(dataset=dict(metainfo=dict(classes=classes)))
val_dataloader = dict(dataset=dict(metainfo=dict(classes=classes)))
test_dataloader = val_dataloader
default_hooks = dict(predictions=dict(type='KeepPredictionsHook'))
