#!/usr/bin/env bash
# Fine-tunes a detector with FPN from a SoCo checkpoint, on several GPUs:
#   bash tools/benchmarks/mmdetection/dist_train_fpn.sh CFG PRETRAIN GPUS \
#       [arguments of tools/train.py]
# Backbone, FPN and box head come from PRETRAIN; the log says how many of their keys matched.
# NNODES, NODE_RANK, MASTER_ADDR and PORT as in tools/dist_train.sh.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$tools/_environment.sh"

[[ $# -ge 3 && "$3" =~ ^[0-9]+$ ]] || soco_fail "usage: bash" \
    "tools/benchmarks/mmdetection/dist_train_fpn.sh CFG PRETRAIN GPUS" \
    "[arguments of tools/train.py], for example: bash" \
    "tools/benchmarks/mmdetection/dist_train_fpn.sh" \
    "configs/benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py" \
    "work_dirs/soco_r50_fpn_400e/epoch_400.pth 8"
config=$1 pretrain=$2 gpus=$3
shift 3
[[ -f "$config" ]] || soco_fail "There is no config at $config. Detectors for SoCo lie in" \
    "configs/benchmarks/mmdetection/."
[[ -f "$pretrain" ]] || soco_fail "There is no checkpoint at $pretrain. PRETRAIN is a file that" \
    "tools/train.py wrote for a SoCo config with FPN, such as" \
    "work_dirs/soco_r50_fpn_400e/epoch_400.pth."
pretrain=$(realpath -s "$pretrain")
# `--cfg-options` takes a comma for a list.
[[ "$pretrain" != *,* ]] || soco_fail "The path of the checkpoint holds a comma: $pretrain." \
    "Rename it, or give a link to it."

exec bash "$tools/dist_train.sh" "$config" "$gpus" \
    --cfg-options load_from="$pretrain" "$@"
