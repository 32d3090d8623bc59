# The recipe for own photos as the studies of the collapse measured it: views of 128 pixels, four
# proposals, 20 epochs at a rate of 5e-4.
_base_ = '../../soco_effnetlite0_fpn_own_photos.py'
_base_.train_dataloader.dataset.pipeline[1].num_proposals = 4
_base_.train_dataloader.dataset.pipeline[1].views[0].size = 128
_base_.train_dataloader.dataset.pipeline[1].views[1].size = 128
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_epochs=20)
