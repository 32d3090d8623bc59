#!/usr/bin/env bash
# Trains a config through Slurm:
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=16] [SRUN_ARGS=...] \
#       bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

[[ $# -ge 3 ]] || soco_fail "usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments" \
    "of tools/train.py]"
soco_srun tools/train.py "$@"
