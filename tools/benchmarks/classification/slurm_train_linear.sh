#!/usr/bin/env bash
# Trains a linear classifier on a frozen backbone, through Slurm:
#   PARTITION JOB_NAME CFG PRETRAIN [arguments of tools/train.py]
set -euo pipefail
SOCO_EXAMPLE="configs/benchmarks/classification/resnet50_linear-8xb32-steplr-100e_in1k.py "
SOCO_EXAMPLE+=work_dirs/soco_r50_fpn_400e/epoch_400.pth
source "$(dirname "${BASH_SOURCE[0]}")/../_benchmark.sh"
benchmark_slurm_train "$@"
