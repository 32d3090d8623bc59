# Faster R-CNN R50-FPN with the settings of mask-rcnn_r50_fpn_syncbn.py.
_base_ = 'mask-rcnn_r50_fpn_syncbn.py'
model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_roi_extractor=None, mask_head=None))
