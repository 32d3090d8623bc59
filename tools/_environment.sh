# Sourced by the scripts in tools/: finds the project and its environment.
# Sets SOCO_ROOT, SOCO_VENV (absolute) and SOCO_PYTHON, and puts the project on PYTHONPATH.

SOCO_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SOCO_VENV=$(realpath -ms "${SOCO_VENV:-$SOCO_ROOT/.venv}")
case ":${PYTHONPATH:-}:" in
    *":$SOCO_ROOT:"*) ;;
    *) export PYTHONPATH="$SOCO_ROOT${PYTHONPATH:+:$PYTHONPATH}" ;;
esac
export SOCO_VENV
# Waiting threads must not spin: on a busy CPU, this makes a step several times slower.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

# mmengine imports pkg_resources, which warns about its deprecation in every process.
export PYTHONWARNINGS="${PYTHONWARNINGS:+$PYTHONWARNINGS,}ignore:pkg_resources is deprecated:UserWarning"

# Prints one paragraph to stderr and exits with code 2.
soco_fail() {
    printf '%s\n' "$*" | fold -s -w 96 >&2
    exit 2
}

# Sets SOCO_PYTHON to the python of the environment, or else to one on the PATH that has mmdet and
# mmselfsup, or mmpretrain in its place.
soco_find_python() {
    local candidate
    for candidate in "$SOCO_VENV/bin/python" python python3; do
        if "$candidate" -c 'import sys; from importlib.util import find_spec as f
sys.exit(not (f("mmdet") and (f("mmselfsup") or f("mmpretrain"))))' 2>/dev/null; then
            SOCO_PYTHON=$(command -v "$candidate")
            return
        fi
    done
    soco_fail "No environment was found at $SOCO_VENV, and no python on the PATH has mmdet and" \
        "mmselfsup. Create the environment with: bash tools/setup_env.sh (or set SOCO_VENV to the" \
        "folder of an existing one)."
}

# soco_help SCRIPT [arguments]: prints the help of SCRIPT and exits, if the arguments ask for it.
soco_help() {
    local script=$1 argument
    shift
    for argument in "$@"; do
        [[ "$argument" != --help && "$argument" != -h ]] ||
            exec "$SOCO_PYTHON" "$SOCO_ROOT/$script" --help
    done
}

# soco_launch SCRIPT GPUS CONFIG [arguments]: checks that a run can start, then starts it on GPUS
# devices. For several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT.
soco_launch() {
    local script=$1 gpus=$2 config=$3
    shift 3
    soco_find_python
    soco_help "$script" "$@"
    "$SOCO_PYTHON" -m projects.soco.launch "$SOCO_ROOT/$script" "$gpus" "$config" "$@"
    if [[ "$gpus" == 1 && "${NNODES:-1}" == 1 ]]; then
        exec "$SOCO_PYTHON" "$SOCO_ROOT/$script" "$config" "$@"
    fi
    # As torch and MMEngine set them for several processes, without a warning from each.
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"
    exec "$SOCO_PYTHON" -m torch.distributed.run \
        --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
        "$SOCO_ROOT/$script" "$config" --launcher pytorch "$@"
}

# soco_srun SCRIPT PARTITION JOB_NAME CONFIG [arguments]: starts SCRIPT through Slurm on GPUS devices,
# GPUS_PER_NODE on each machine. SRUN_ARGS contains further arguments of srun.
soco_srun() {
    local script=$1 partition=$2 job_name=$3 config=$4
    shift 4
    command -v srun >/dev/null || soco_fail "srun is not on the PATH: this is not a machine of a" \
        "Slurm cluster. On a single machine, use the script whose name begins with dist_."
    [[ -f "$config" ]] || soco_fail "There is no config at $config."
    soco_find_python
    soco_help "$script" "$@"
    "$SOCO_PYTHON" -m projects.soco.launch "$SOCO_ROOT/$script" elsewhere "$config" "$@"
    local gpus=${GPUS:-8}
    local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    # StopSignalHook creates this file when SIGTERM has stopped a run and its checkpoint is written. The
    # exit code 75 may be lost: srun kills the processes that exit last and returns the highest code.
    export SOCO_STOPPED="$PWD/.stopped_${SLURM_JOB_ID:-$$}"
    rm -f "$SOCO_STOPPED"
    local code=0
    # shellcheck disable=SC2086  (SRUN_ARGS is a list of words)
    srun -p "$partition" --job-name="$job_name" --gres="gpu:$per_node" --ntasks="$gpus" \
        --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-16}" --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} "$SOCO_PYTHON" -u "$SOCO_ROOT/$script" "$config" --launcher slurm "$@" ||
        code=$?
    if [[ -e "$SOCO_STOPPED" ]]; then
        rm -f "$SOCO_STOPPED"
        code=75
        if [[ -n "${SLURM_JOB_ID:-}" ]]; then
            echo "Stopped by a signal: job $SLURM_JOB_ID is queued again. Start it with --resume."
            scontrol requeue "$SLURM_JOB_ID"
        fi
    fi
    return "$code"
}
