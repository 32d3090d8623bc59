#!/usr/bin/env bash
# Trains a config on several GPUs of this machine, or of several machines:
#   bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT, and run it on each.
# Without any CUDA device, GPUS processes on the CPU train a config that was made for one.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

[[ $# -ge 2 && "$2" =~ ^[0-9]+$ ]] || soco_fail "usage: bash tools/dist_train.sh CONFIG GPUS" \
    "[arguments of tools/train.py], for example: bash tools/dist_train.sh" \
    "configs/soco_r50_fpn_400e.py 8"
config=$1 gpus=$2
shift 2
soco_launch tools/train.py "$gpus" "$config" "$@"
