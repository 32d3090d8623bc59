#!/usr/bin/env bash
# Trains a config on several GPUs of this machine, or of several machines:
#   bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# For several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT, and run the script on each.
# Without a CUDA device, a config that was made for the CPU is trained by GPUS processes on the CPU.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

[[ $# -ge 2 && "$2" =~ ^[0-9]+$ ]] || soco_fail "usage: bash tools/dist_train.sh CONFIG GPUS" \
    "[arguments of tools/train.py], for example: bash tools/dist_train.sh" \
    "configs/soco_r50_fpn_400e.py 8"
config=$1 gpus=$2
shift 2
soco_launch tools/train.py "$gpus" "$config" "$@"
