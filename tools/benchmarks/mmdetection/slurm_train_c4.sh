#!/usr/bin/env bash
# Fine-tunes a detector without FPN through Slurm:
#   PARTITION JOB_NAME CFG PRETRAIN [arguments of tools/train.py]
set -euo pipefail
SOCO_EXAMPLE="configs/benchmarks/mmdetection/coco/mask-rcnn_r50_c4_ms-1x_coco.py "
SOCO_EXAMPLE+=work_dirs/soco_r50_c4_400e/epoch_400.pth
source "$(dirname "${BASH_SOURCE[0]}")/../_benchmark.sh"
benchmark_slurm_train "$@"
