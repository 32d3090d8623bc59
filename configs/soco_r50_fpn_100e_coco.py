# SoCo-FPN on COCO's photos without their annotations: train2017 and unlabeled2017, 100 epochs.
#
#   (cd data/coco && find train2017 unlabeled2017 -name '*.jpg' | sort > unlabelled.txt)
#   python tools/generate_proposals.py data/coco/unlabelled.txt data/proposals/coco.arrow
#   bash tools/dist_train.sh configs/soco_r50_fpn_100e_coco.py 8
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 bash tools/dist_train.sh \
#       configs/soco_r50_fpn_100e_coco.py 8 --cfg-options train_dataloader.batch_size=128
#
# Where train2017 is itself a link out of data/coco, say that this is meant: --follow-links for the
# generator, and train_dataloader.dataset.follow_links=True after --cfg-options.
#
# Hardware and other batches: see soco_r50_fpn_400e.py. An epoch has a fifth of ImageNet's photos.
# No official result: the authors' release has no such recipe. val2017 is left out on purpose.
_base_ = 'soco_r50_fpn_100e.py'
train_dataloader = dict(
    dataset=dict(data_root='data/coco', proposals='data/proposals/coco.arrow'))
