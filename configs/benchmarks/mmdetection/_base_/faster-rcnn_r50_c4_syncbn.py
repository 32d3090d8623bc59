# Faster R-CNN R50-C4 with the settings of mask-rcnn_r50_c4_syncbn.py.
_base_ = 'mask-rcnn_r50_c4_syncbn.py'
model = dict(
    type='FasterRCNN', data_preprocessor=dict(pad_mask=False), roi_head=dict(mask_head=None))
