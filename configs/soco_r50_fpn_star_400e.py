# SoCo*, ResNet-50, 400 epochs on ImageNet: four views of 224, 224, 192 and 112 pixels.
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_star_400e.py 8
#
# Hardware: 8 GPUs x 256 images (total batch 2048), mixed precision, SyncBN; GPUs with 80 GB (not
# measured). For 8 smaller GPUs use the first command. For 2 machines with 8 GPUs each run the second
# command on both, with NODE_RANK=0 and 1:
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_star_400e.py 8 --cfg-options \
#       train_dataloader.batch_size=128 optim_wrapper.accumulative_counts=2
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 bash tools/dist_train.sh \
#       configs/soco_r50_fpn_star_400e.py 8 --cfg-options train_dataloader.batch_size=128
#
# The effect of accumulation, and other batch sizes: see soco_r50_fpn_400e.py.
#
# Official result (Mask R-CNN R50-FPN 1x, COCO val2017): box AP 43.2, mask AP 38.4.
_base_ = [
    '_base_/models/soco_r50_fpn.py',
    '_base_/datasets/imagenet_soco_star.py',
    '_base_/schedules/lars_400e.py',
    '_base_/default_runtime.py',
]
