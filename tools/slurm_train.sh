#!/usr/bin/env bash
# Trains a config through Slurm:
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=16] [SRUN_ARGS=...] \
#       bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

[[ $# -ge 3 ]] || soco_fail "usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments" \
    "of tools/train.py]"
partition=$1 job_name=$2 config=$3
shift 3
command -v srun >/dev/null || soco_fail "srun is not on the PATH: this is not a machine of a Slurm" \
    "cluster. On one machine use: bash tools/dist_train.sh $config GPUS"
[[ -f "$config" ]] || soco_fail "There is no config at $config."
soco_find_python

gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
# shellcheck disable=SC2086  (SRUN_ARGS is a list of words)
exec srun -p "$partition" --job-name="$job_name" --gres="gpu:$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-16}" --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} "$SOCO_PYTHON" -u "$SOCO_ROOT/tools/train.py" "$config" --launcher slurm "$@"
