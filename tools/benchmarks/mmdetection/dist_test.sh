#!/usr/bin/env bash
# Evaluates a fine-tuned detector on GPUs of this machine:
#   CFG CHECKPOINT GPUS [arguments of tools/test.py]
set -euo pipefail
SOCO_EXAMPLE="configs/benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py "
SOCO_EXAMPLE+=work_dirs/mask-rcnn_r50_fpn_ms-1x_coco/iter_90000.pth
source "$(dirname "${BASH_SOURCE[0]}")/../_benchmark.sh"
benchmark_dist_test "$@"
