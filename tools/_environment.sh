# Sourced by the scripts of tools/: where the project and its environment lie.
# Sets SOCO_ROOT, SOCO_VENV (absolute) and SOCO_PYTHON, and puts the project on PYTHONPATH.

SOCO_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SOCO_VENV=$(realpath -ms "${SOCO_VENV:-$SOCO_ROOT/.venv}")
case ":${PYTHONPATH:-}:" in
    *":$SOCO_ROOT:"*) ;;
    *) export PYTHONPATH="$SOCO_ROOT${PYTHONPATH:+:$PYTHONPATH}" ;;
esac
export SOCO_VENV
# Threads that wait must not spin: on a busy CPU that makes a step several times slower.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

# Ends the script with exit code 2 and one paragraph on stderr.
soco_fail() {
    printf '%s\n' "$*" | fold -s -w 96 >&2
    exit 2
}

# Sets SOCO_PYTHON: that of set-up's environment, else a python on the PATH that has mmdet.
soco_find_python() {
    local candidate
    for candidate in "$SOCO_VENV/bin/python" python python3; do
        if "$candidate" -c 'import sys; from importlib.util import find_spec as f
sys.exit(not (f("mmdet") and f("mmselfsup")))' 2>/dev/null; then
            SOCO_PYTHON=$(command -v "$candidate")
            return
        fi
    done
    soco_fail "No environment was found at $SOCO_VENV, and no python on the PATH has mmdet and" \
        "mmselfsup. Make the environment with: bash tools/setup_env.sh (or set SOCO_VENV to the" \
        "folder of the one that set-up made)."
}
