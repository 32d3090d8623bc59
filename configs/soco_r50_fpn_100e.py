# SoCo-FPN, ResNet-50, 100 epochs on ImageNet, with cutout inside the boxes.
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_100e.py 8
#
# Hardware: 8 GPUs x 256 images (total batch 2048), mixed precision, SyncBN; GPUs with 80 GB (not
# measured). For 8 smaller GPUs use the first command. For 2 machines with 8 GPUs each run the second
# command on both, with NODE_RANK=0 and 1:
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_100e.py 8 --cfg-options \
#       train_dataloader.batch_size=128 optim_wrapper.accumulative_counts=2
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 bash tools/dist_train.sh configs/soco_r50_fpn_100e.py 8 \
#       --cfg-options train_dataloader.batch_size=128
#
# The effect of accumulation, and other batch sizes: see soco_r50_fpn_400e.py.
#
# Official result (Mask R-CNN R50-FPN 1x, COCO val2017): box AP 42.3, mask AP 37.6.
_base_ = [
    '_base_/models/soco_r50_fpn.py',
    '_base_/datasets/imagenet_soco.py',
    '_base_/schedules/lars_100e.py',
    '_base_/default_runtime.py',
]
_base_.train_dataloader.dataset.pipeline[2].prob = 0.5
