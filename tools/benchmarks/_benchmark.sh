# Sourced by the scripts in tools/benchmarks/, which set SOCO_EXAMPLE before: a config and weights, shown
# with the usage. All of them call tools/train.py and tools/test.py, whatever the detector.

SOCO_TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$SOCO_TOOLS/_environment.sh"

PRETRAIN_IS="PRETRAIN is a SoCo checkpoint, weights of another library or method (docs/weights.md),"
PRETRAIN_IS+=" supervised:FILE (only its backbone is needed) or random."
CHECKPOINT_IS="CHECKPOINT is a file that fine-tuning wrote."
SELF=${0#"$SOCO_ROOT/"}

# CFG PRETRAIN GPUS [arguments of tools/train.py], on GPUs of this machine
benchmark_dist_train() {
    [[ $# -ge 3 && "$3" =~ ^[0-9]+$ ]] || soco_fail "usage: bash $SELF CFG PRETRAIN GPUS [arguments" \
        "of tools/train.py], for example: bash $SELF $SOCO_EXAMPLE 8. $PRETRAIN_IS"
    local config=$1 pretrain=$2 gpus=$3
    shift 3
    soco_launch tools/train.py "$gpus" "$config" --pretrained "$pretrain" "$@"
}

# CFG CHECKPOINT GPUS [arguments of tools/test.py], on GPUs of this machine
benchmark_dist_test() {
    [[ $# -ge 3 && "$3" =~ ^[0-9]+$ ]] || soco_fail "usage: bash $SELF CFG CHECKPOINT GPUS" \
        "[arguments of tools/test.py], for example: bash $SELF $SOCO_EXAMPLE 8. $CHECKPOINT_IS"
    local config=$1 checkpoint=$2 gpus=$3
    shift 3
    [[ -f "$checkpoint" ]] || soco_fail "There is no checkpoint at $checkpoint. $CHECKPOINT_IS"
    soco_launch tools/test.py "$gpus" "$config" "$checkpoint" "$@"
}

# PARTITION JOB_NAME CFG PRETRAIN [arguments of tools/train.py], through Slurm
benchmark_slurm_train() {
    [[ $# -ge 4 ]] || soco_fail "usage: [GPUS=8] bash $SELF PARTITION JOB_NAME CFG PRETRAIN [arguments" \
        "of tools/train.py], for example: bash $SELF gpu soco $SOCO_EXAMPLE. $PRETRAIN_IS"
    local partition=$1 job_name=$2 config=$3 pretrain=$4
    shift 4
    soco_srun tools/train.py "$partition" "$job_name" "$config" --pretrained "$pretrain" "$@"
}

# PARTITION JOB_NAME CFG CHECKPOINT [arguments of tools/test.py], through Slurm
benchmark_slurm_test() {
    [[ $# -ge 4 ]] || soco_fail "usage: [GPUS=8] bash $SELF PARTITION JOB_NAME CFG CHECKPOINT" \
        "[arguments of tools/test.py], for example: bash $SELF gpu soco $SOCO_EXAMPLE. $CHECKPOINT_IS"
    soco_srun tools/test.py "$@"
}
