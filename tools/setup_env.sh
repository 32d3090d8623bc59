#!/usr/bin/env bash
# Creates the Python environment of this project. See --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

usage() {
    cat <<'HELP'
usage: bash tools/setup_env.sh [--mmcv lite|source]

Creates a virtual environment with the pinned packages of requirements/ and this package.
If the environment is already complete, this takes seconds.

  --mmcv lite    mmcv-lite; torchvision provides nms, RoIAlign and sigmoid focal loss (default)
  --mmcv source  builds MMCV with all its ops: with CUDA if nvcc and a GPU are found, else for the CPU

Without --mmcv, an existing environment keeps its MMCV.

environment variables:
  SOCO_VENV      folder of the environment (default: .venv in the project)
  SOCO_TORCH_INDEX  address of another index to take torch from, for an older driver or card
                 (docs/install.md, One GPU); an existing environment keeps its torch
  PYTHON         Python 3.11 or 3.12 to create it with (default: searched on the PATH)
HELP
}

say() { printf '%s\n' "$*"; }

MODE=''
while [ $# -gt 0 ]; do
    case "$1" in
        --mmcv) MODE=${2:-}; shift; [ $# -eq 0 ] || shift ;;
        --mmcv=*) MODE=${1#*=}; shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; soco_fail "Unknown argument: $1" ;;
    esac
    case "$MODE" in
        lite | source) ;;
        *) soco_fail "--mmcv takes 'lite' or 'source', not '$MODE'." ;;
    esac
done

LOCK=$SOCO_VENV/.soco-lock     # also marks a folder that this script may empty
STAMP=$SOCO_VENV/.soco-stamp   # what the finished environment was made from
LINK=$SOCO_VENV/.soco-project  # which checkout the installed package points to
LOG=$SOCO_VENV/setup.log
ASKED=$MODE

# Sets MODE to the requested MMCV, or else to that of the environment.
choose_mode() {
    MODE=${ASKED:-lite}
    if [ -z "$ASKED" ] && grep -qs '^mmcv source$' "$STAMP"; then MODE=source; fi
}

# Where pip also looks for torch: what the environment was made with, unless told otherwise.
TORCH_INDEX=${SOCO_TORCH_INDEX:-$(sed -n 's/^torch from //p' "$STAMP" 2>/dev/null || true)}

# Prints the stamp for a given Python: everything that the environment depends on.
stamp_text() {
    say "mmcv $MODE"
    [ -z "$TORCH_INDEX" ] || say "torch from $TORCH_INDEX"
    "$1" -c 'import sys; print("python", sys.version.split()[0])' 2>/dev/null || say 'python none'
    cat "$SOCO_ROOT"/requirements/{runtime,"mmcv_$MODE",quickstart,tests,docs,cluster,datasets,own_photos}.txt | sha256sum
}

is_complete() {
    [ -f "$STAMP" ] && [ "$(stamp_text "$SOCO_VENV/bin/python")" = "$(cat "$STAMP")" ]
}

# Sets BASE_PYTHON to the first Python 3.11 or 3.12 that runs and can create environments.
find_base_python() {
    local candidate answer seen=''
    local names=(python3.12 python3.11 python3 python)
    [ -z "${PYTHON:-}" ] || names=("$PYTHON")
    while read -r candidate; do
        # An activated environment is on the PATH, and is about to be emptied.
        [[ $candidate != "$SOCO_VENV"/* ]] || continue
        answer=$("$candidate" -c 'import sys
print("{}.{}".format(*sys.version_info))
import ensurepip, venv' 2>/dev/null) && [[ $answer == 3.11 || $answer == 3.12 ]] &&
            BASE_PYTHON=$candidate && return
        case "$answer" in
            3.11 | 3.12) seen+=" $candidate ($answer, without the modules venv and ensurepip);" ;;
            '') ;;
            *) seen+=" $candidate ($answer);" ;;
        esac
    done < <(type -aP "${names[@]}")
    soco_fail "Python 3.11 or 3.12 is needed, with its modules venv and ensurepip." \
        "Found${PYTHON:+ for PYTHON=$PYTHON}:${seen:- none that runs;}" \
        "none of these is suitable. Install one (on Debian and Ubuntu:" \
        "apt-get install python3 python3-venv), or set its path:" \
        "PYTHON=/path/to/python3.12 bash tools/setup_env.sh"
}

# Measured: 6 GB when complete, up to 8 GB while pip unpacks its downloads.
check_disk() {
    local folder=$SOCO_VENV need=9 free
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    free=$(($(df -Pk "$folder" | awk 'END {print $4}') / 1048576))
    [ "$free" -ge "$need" ] || soco_fail "Set-up needs about $need GB in $folder (PyTorch and its" \
        "CUDA libraries are most of it), but only $free GB are free there. Free some space, or" \
        "choose another folder: SOCO_VENV=/path bash tools/setup_env.sh"
}

# The wheel of opencv-python contains all libraries but these.
check_libraries() {
    local missing
    missing=$("$BASE_PYTHON" - <<'PY'
import ctypes
for name in ('libGL.so.1', 'libgthread-2.0.so.0', 'libxcb.so.1'):
    try:
        ctypes.CDLL(name)
    except OSError:
        print(name, end=' ')
PY
    )
    [ -z "$missing" ] || soco_fail "OpenCV needs shared libraries that this system lacks:" \
        "${missing% }. On Debian and Ubuntu: apt-get install -y libgl1 libglib2.0-0 libxcb1"
}

# For --mmcv source. Sets WITH_CUDA to 1 if nvcc and a GPU are found.
check_compiler() {
    local header
    command -v "${CXX:-g++}" >/dev/null || soco_fail "--mmcv source compiles MMCV, but there is no" \
        "C++ compiler: '${CXX:-g++}' was not found. Install one (on Debian and Ubuntu: apt-get" \
        "install g++), or use --mmcv lite, which needs none."
    header=$("$BASE_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
    [ -f "$header" ] || soco_fail "--mmcv source compiles MMCV, but the headers of $BASE_PYTHON" \
        "are missing ($header). Install them (on Debian and Ubuntu: apt-get install" \
        "python3-dev), or use --mmcv lite, which needs none."
    printf '#include <Python.h>\n#include <optional>\nint main() { return 0; }\n' |
        "${CXX:-g++}" -std=c++17 -I"$(dirname "$header")" -x c++ -c -o /dev/null - 2>/dev/null ||
        soco_fail "--mmcv source needs a compiler for C++17, but '${CXX:-g++}' is not one." \
            "Install a newer one (g++ 9 or later), set CXX to another one, or use --mmcv lite," \
            "which needs none."
    WITH_CUDA=0
    if command -v nvcc >/dev/null && [[ $(nvidia-smi -L 2>/dev/null) == *GPU* ]]; then
        WITH_CUDA=1
    fi
}

# Checks all requirements on the machine before anything is written.
check_machine() {
    find_base_python
    check_libraries
    [ "$MODE" = lite ] || check_compiler
    check_disk
    say "GPU: $("$BASE_PYTHON" "$SOCO_ROOT/projects/soco/launch/driver.py" "$TORCH_INDEX")" | fold -s -w 96
}

is_linked() { [ "$(cat "$LINK" 2>/dev/null)" = "$SOCO_ROOT" ]; }

# Runs a step quietly; on failure, prints the end of the log and its path.
step() {
    local what=$1 started=$SECONDS
    shift
    say "  $what"
    if ! "$@" >>"$LOG" 2>&1; then
        tail -n 8 "$LOG" | sed 's/^/    | /' >&2
        soco_fail "Set-up failed at this step: $what. The lines above are the end of" \
            "$LOG. Fix the cause, then run the same command again: it starts from the beginning."
    fi
    say "    done in $((SECONDS - started)) s"
}

# MMCV requests C++14, which the headers of current PyTorch reject; the last -std applies.
build_mmcv() {
    local bin=$SOCO_VENV/bin
    printf '#!/bin/sh\nexec %s "$@" -std=c++17\n' "${CXX:-g++}" >"$bin/soco-cxx"
    chmod +x "$bin/soco-cxx"
    export CXX=$bin/soco-cxx MMCV_WITH_OPS=1 FORCE_CUDA=$WITH_CUDA PATH=$bin:$PATH
    export MAX_JOBS=${MAX_JOBS:-$(nproc)}
    if [ "$WITH_CUDA" = 1 ]; then
        printf '#!/bin/sh\nexec %s "$@" -std=c++17\n' "$(command -v nvcc)" >"$bin/soco-nvcc"
        chmod +x "$bin/soco-nvcc"
        export PYTORCH_NVCC=$bin/soco-nvcc
    fi
    # No cache, in either direction: the build is only valid for this torch and this device.
    "$bin/python" -m pip install --no-cache-dir --no-build-isolation --use-pep517 --no-deps \
        --no-binary mmcv -r "$SOCO_ROOT/requirements/mmcv_source.txt"
}

make_environment() {
    local bin=$SOCO_VENV/bin list files=()
    find "$SOCO_VENV" -mindepth 1 -maxdepth 1 ! -name .soco-lock -exec rm -rf {} +
    # Inside the folder, so that the next set-up removes what an interrupted one leaves behind.
    export TMPDIR=$SOCO_VENV/tmp
    mkdir "$TMPDIR"
    step "virtual environment with $BASE_PYTHON" "$BASE_PYTHON" -m venv "$SOCO_VENV"
    for list in runtime quickstart tests docs cluster datasets own_photos; do
        files+=(-r "$SOCO_ROOT/requirements/$list.txt")
    done
    [ "$MODE" = source ] || files+=(-r "$SOCO_ROOT/requirements/mmcv_lite.txt")
    # A version such as 2.11.0+cu126 fulfils the pin 2.11.0, and comes before it.
    [ -z "$TORCH_INDEX" ] || export PIP_EXTRA_INDEX_URL="$TORCH_INDEX ${PIP_EXTRA_INDEX_URL:-}"
    step 'pinned packages (about 2 minutes: 3 GB to download)' \
        "$bin/python" -m pip install "${files[@]}"
    if [ "$MODE" = source ]; then
        step 'MMCV from source (about 10 minutes on 2 cores; several times that with CUDA)' \
            build_mmcv
    fi
    install_package
    step 'check that all versions are compatible' "$bin/python" -m pip check
    step 'check that mmdet and mmselfsup import' "$bin/python" -W ignore -c \
        'import projects.soco.compat, mmdet.models, mmselfsup.models'
    rm -rf "$TMPDIR"
    unset TMPDIR
    stamp_text "$bin/python" >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
}

install_package() {
    rm -f "$LINK"
    step 'this package' "$SOCO_VENV/bin/python" -m pip install --no-build-isolation --no-deps \
        -e "$SOCO_ROOT"
    say "$SOCO_ROOT" >"$LINK"
}

show_table() {
    "$SOCO_VENV/bin/python" -W ignore - "$SOCO_VENV" <<'PY'
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, version

import torch
from projects.soco.compat.ops import ops_backend
from projects.soco.launch.driver import describe, read_driver, why_no_device

rows = [('environment', sys.argv[1]), ('python', sys.version.split()[0])]
for name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmselfsup',
             'mmsoco'):
    try:
        rows.append((name, version(name)))
    except PackageNotFoundError:
        pass
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
device = f'{count} x {torch.cuda.get_device_name(0)}' if count else \
    f'CPU, {torch.get_num_threads()} threads'
rows.append(('device', device))
rows.append(('ops backend', {'mmcv': 'mmcv (compiled, all ops)', 'torchvision':
             'torchvision (nms, RoIAlign, sigmoid focal loss)'}[ops_backend()]))
width = max(len(value) for _, value in rows)
print('-' * (15 + width))
for name, value in rows:
    print(f'{name:<14} {value}')
print('-' * (15 + width))
cuda = torch.version.cuda
print(textwrap.fill(f'GPU: {describe(read_driver(), cuda)[1] if count else why_no_device(cuda)}', 96))
PY
}

# Creates or completes the environment, one process at a time.
make_once() {
    if [ -e "$SOCO_VENV" ] && [ ! -e "$LOCK" ] && [ -n "$(ls -A "$SOCO_VENV" 2>&1)" ]; then
        soco_fail "$SOCO_VENV already exists and was not created by this script, which would have" \
            "to empty it. Move it away, or choose another folder: SOCO_VENV=/path bash" \
            "tools/setup_env.sh"
    fi
    is_complete || check_machine
    mkdir -p "$SOCO_VENV" 2>/dev/null && touch "$LOCK" 2>/dev/null ||
        soco_fail "Cannot write to $SOCO_VENV. Choose another folder for the environment:" \
            "SOCO_VENV=/path bash tools/setup_env.sh"
    exec 9>"$LOCK"
    if command -v flock >/dev/null && ! flock -n 9; then
        say "Another set-up of $SOCO_VENV is running; waiting for it to end."
        flock 9
        choose_mode
    fi
    if ! is_complete; then
        [ ! -e "$SOCO_VENV/pyvenv.cfg" ] ||
            say "The environment in $SOCO_VENV is incomplete or out of date; it is created again."
        say "Setting up $SOCO_VENV, MMCV: $MODE. This takes a few minutes, once."
        make_environment
    elif ! is_linked; then
        install_package
    fi
    exec 9>&-
}

main() {
    choose_mode
    is_complete && is_linked || make_once
    show_table || soco_fail "The environment in $SOCO_VENV was complete before, but does not" \
        "work now. Delete that folder and run this command again."
}

# On one line, so that editing this file while it runs is harmless.
main; exit
