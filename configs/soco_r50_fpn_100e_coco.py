# SoCo-FPN on COCO images without annotations: train2017 and unlabeled2017, 100 epochs.
#
#   (cd data/coco && find train2017 unlabeled2017 -name '*.jpg' | sort > unlabelled.txt)
#   python tools/generate_proposals.py data/coco/unlabelled.txt data/proposals/coco.arrow
#   bash tools/dist_train.sh configs/soco_r50_fpn_100e_coco.py 8
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 bash tools/dist_train.sh \
#       configs/soco_r50_fpn_100e_coco.py 8 --cfg-options train_dataloader.batch_size=128
#
# If train2017 is a symbolic link that leads out of data/coco, allow it: pass --follow-links to the
# generator, and train_dataloader.dataset.follow_links=True after --cfg-options.
#
# Hardware and other batch sizes: see soco_r50_fpn_400e.py. An epoch has a fifth of ImageNet's images.
# No official result: the authors' release has no such recipe. val2017 is excluded on purpose.
_base_ = 'soco_r50_fpn_100e.py'
train_dataloader = dict(
    dataset=dict(data_root='data/coco', proposals='data/proposals/coco.arrow'))
