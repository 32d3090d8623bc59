#!/usr/bin/env bash
# Evaluates a fine-tuned detector on several GPUs:
#   bash tools/benchmarks/mmdetection/dist_test.sh CFG CHECKPOINT GPUS [arguments of tools/test.py]
# NNODES, NODE_RANK, MASTER_ADDR and PORT as in tools/dist_train.sh.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$tools/_environment.sh"

[[ $# -ge 3 && "$3" =~ ^[0-9]+$ ]] || soco_fail "usage: bash" \
    "tools/benchmarks/mmdetection/dist_test.sh CFG CHECKPOINT GPUS [arguments of tools/test.py]," \
    "for example: bash tools/benchmarks/mmdetection/dist_test.sh" \
    "configs/benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py" \
    "work_dirs/mask-rcnn_r50_fpn_ms-1x_coco/iter_90000.pth 8"
config=$1 checkpoint=$2 gpus=$3
shift 3
[[ -f "$config" ]] || soco_fail "There is no config at $config. Detectors for SoCo lie in" \
    "configs/benchmarks/mmdetection/."
[[ -f "$checkpoint" ]] || soco_fail "There is no checkpoint at $checkpoint. CHECKPOINT is a file" \
    "that fine-tuning wrote, such as work_dirs/mask-rcnn_r50_fpn_ms-1x_coco/iter_90000.pth."
soco_find_python

"$SOCO_PYTHON" -m projects.soco.launch "$config" "$gpus" "$@"
exec "$SOCO_PYTHON" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$tools/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
