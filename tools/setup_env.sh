#!/usr/bin/env bash
# Creates the Python environment of this project. See --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

usage() {
    cat <<'HELP'
usage: bash tools/setup_env.sh [--host openmmlab|onedl] [--mmcv lite|source]

Creates a virtual environment with the packages of requirements/, in the versions of
requirements/constraints.txt, and this package. It asks nothing. If the environment is already
complete, this takes seconds. uv installs the packages if it is on the PATH, with its own settings
(UV_DEFAULT_INDEX and others), else pip.

  --host openmmlab  OpenMMLab's own last releases (default)
  --host onedl      the maintained forks, onedl-mmengine and others
  --mmcv lite       mmcv-lite; torchvision provides nms, RoIAlign and sigmoid focal loss (default)
  --mmcv source     builds MMCV with all its ops: with CUDA if nvcc and a GPU are found, else for the
                    CPU; for --host openmmlab

Without --host and --mmcv, an existing environment keeps its own.

environment variables:
  SOCO_VENV      folder of the environment (default: .venv in the project)
  SOCO_TORCH_INDEX  address of another index to take torch from, for an older driver or card
                 (docs/install.md, One GPU); an existing environment keeps its torch
  PYTHON         Python 3.11, 3.12 or 3.13 to create it with (default: searched on the PATH)
HELP
}

say() { printf '%s\n' "$*"; }

MODE='' HOST=''
while [ $# -gt 0 ]; do
    case "$1" in
        --mmcv) MODE=${2:-none}; shift; [ $# -eq 0 ] || shift ;;
        --mmcv=*) MODE=${1#*=}; MODE=${MODE:-none}; shift ;;
        --host) HOST=${2:-none}; shift; [ $# -eq 0 ] || shift ;;
        --host=*) HOST=${1#*=}; HOST=${HOST:-none}; shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; soco_fail "Unknown argument: $1" ;;
    esac
done

case "$MODE" in
    '' | lite | source) ;;
    *) soco_fail "--mmcv takes 'lite' or 'source', not '${MODE/#none/}'." ;;
esac
case "$HOST" in
    '' | openmmlab | onedl) ;;
    *) soco_fail "--host takes 'openmmlab' or 'onedl', not '${HOST/#none/}'." ;;
esac
[ "$HOST $MODE" != 'onedl source' ] || soco_fail "--mmcv source is for --host openmmlab: the MMCV of" \
    "the forks is installed without its ops, and torchvision provides those that SoCo needs."

LOCK=$SOCO_VENV/.soco-lock     # also marks a folder that this script may empty
STAMP=$SOCO_VENV/.soco-stamp   # what the finished environment was made from
LINK=$SOCO_VENV/.soco-project  # which checkout the installed package points to
LOG=$SOCO_VENV/setup.log
ASKED=$MODE
ASKED_HOST=$HOST

# Sets HOST and MODE to the requested ones, or else to those of the environment.
choose_mode() {
    HOST=${ASKED_HOST:-openmmlab}
    MODE=${ASKED:-lite}
    # Asking for an MMCV means asking for the host that has two of them.
    if [ -z "$ASKED_HOST$ASKED" ] && grep -qs '^host onedl$' "$STAMP"; then HOST=onedl; fi
    if [ -z "$ASKED" ] && [ "$HOST" = openmmlab ] && grep -qs '^mmcv source$' "$STAMP"; then
        MODE=source
    fi
}

# Prints the requirement files of the environment, one a line.
lists() {
    printf '%s\n' runtime quickstart tests docs cluster datasets own_photos
    case "$HOST $MODE" in
        onedl*) echo onedl ;;
        'openmmlab lite') printf '%s\n' openmmlab mmcv_lite ;;
        *) echo openmmlab ;;
    esac
}

# Where pip also looks for torch: what the environment was made with, unless told otherwise.
TORCH_INDEX=${SOCO_TORCH_INDEX:-$(sed -n 's/^torch from //p' "$STAMP" 2>/dev/null || true)}

# Prints the stamp for a given Python: everything that the environment depends on.
stamp_text() {
    say "host $HOST"
    say "mmcv $MODE"
    [ -z "$TORCH_INDEX" ] || say "torch from $TORCH_INDEX"
    "$1" -c 'import sys; print("python", sys.version.split()[0])' 2>/dev/null || say 'python none'
    (cd "$SOCO_ROOT/requirements" &&
        cat constraints.txt mmcv_source.txt onedl_no_deps.txt $(lists | sed 's/$/.txt/')) | sha256sum
}

is_complete() {
    [ -f "$STAMP" ] && [ "$(stamp_text "$SOCO_VENV/bin/python")" = "$(cat "$STAMP")" ]
}

# Sets BASE_PYTHON to the first Python 3.11, 3.12 or 3.13 that runs and can create environments.
find_base_python() {
    local candidate answer seen=''
    local names=(python3.12 python3.11 python3.13 python3 python)
    [ -z "${PYTHON:-}" ] || names=("$PYTHON")
    while read -r candidate; do
        # An activated environment is on the PATH, and is about to be emptied.
        [[ $candidate != "$SOCO_VENV"/* ]] || continue
        answer=$("$candidate" -c 'import sys
print("{}.{}".format(*sys.version_info))
import ensurepip, venv' 2>/dev/null) && [[ $answer == 3.1[123] ]] &&
            BASE_PYTHON=$candidate && return
        case "$answer" in
            3.1[123]) seen+=" $candidate ($answer, without the modules venv and ensurepip);" ;;
            '') ;;
            *) seen+=" $candidate ($answer);" ;;
        esac
    done < <(type -aP "${names[@]}")
    soco_fail "Python 3.11, 3.12 or 3.13 is needed, with its modules venv and ensurepip." \
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

STEP=0 STEPS=1

# Runs a step quietly; on failure, prints the end of the log and its path.
step() {
    local what=$1 started=$SECONDS
    shift
    STEP=$((STEP + 1))
    say "  $STEP/$STEPS  $what"
    if ! "$@" >>"$LOG" 2>&1; then
        # Without an index, pip ends with a conflict of versions; what it could not reach is further up.
        { grep -m 1 -E 'Could not fetch URL|Retrying \(' "$LOG" || true; tail -n 8 "$LOG"; } |
            cut -c 1-400 | sed 's/^/    | /' >&2
        soco_fail "Set-up failed at this step: $what. The lines above are from" \
            "$LOG. Fix the cause, then run the same command again: it starts from the beginning."
    fi
    say "       done in $((SECONDS - started)) s"
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

# Installs packages with uv or pip; modules are compiled when they are first imported, which most never
# are.
install() {
    if command -v uv >/dev/null; then
        uv pip install --python "$SOCO_VENV/bin/python" "$@"
    else
        "$SOCO_VENV/bin/python" -m pip install --no-compile "$@"
    fi
}

# `pip check`, but for the one dependency that onedl_no_deps.txt leaves out.
check_versions() {
    local found
    found=$("$SOCO_VENV/bin/python" -m pip check 2>&1) && return
    if [ "$HOST" = onedl ]; then
        found=$(grep -v 'requires imaug, which is not installed' <<<"$found") || return 0
    fi
    say "$found"
    return 1
}

make_environment() {
    local bin=$SOCO_VENV/bin list files=()
    find "$SOCO_VENV" -mindepth 1 -maxdepth 1 ! -name .soco-lock -exec rm -rf {} +
    # Inside the folder, so that the next set-up removes what an interrupted one leaves behind.
    export TMPDIR=$SOCO_VENV/tmp
    mkdir "$TMPDIR"
    STEPS=5
    [ "$HOST $MODE" = 'openmmlab lite' ] || STEPS=6
    step "virtual environment with $BASE_PYTHON" "$BASE_PYTHON" -m venv "$SOCO_VENV"
    for list in $(lists); do
        files+=(-r "$SOCO_ROOT/requirements/$list.txt")
    done
    # A version such as 2.14.1+cu126 fulfils the pin 2.14.1, and comes before it.
    [ -z "$TORCH_INDEX" ] || export PIP_EXTRA_INDEX_URL="$TORCH_INDEX ${PIP_EXTRA_INDEX_URL:-}" \
        UV_INDEX="$TORCH_INDEX ${UV_INDEX:-}" UV_INDEX_STRATEGY=unsafe-best-match
    step 'pinned packages (3 GB to download; most of the time, some minutes)' \
        install "${files[@]}" -c "$SOCO_ROOT/requirements/constraints.txt"
    if [ "$HOST" = onedl ]; then
        step 'MMDetection of the forks, without OpenCV of its own' \
            install --no-deps -r "$SOCO_ROOT/requirements/onedl_no_deps.txt"
    elif [ "$MODE" = source ]; then
        step 'MMCV from source (about 10 minutes on 2 cores; several times that with CUDA)' \
            build_mmcv
    fi
    install_package
    step 'check that all versions are compatible' check_versions
    step 'check that the packages import' "$bin/python" -W ignore -c \
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
    say "$(printf -- '-%.0s' {1..72})"
    "$SOCO_VENV/bin/python" -W ignore "$SOCO_ROOT/tools/check_install.py" || return
    say "$(printf -- '-%.0s' {1..72})"
    "$SOCO_VENV/bin/python" -W ignore - <<'PY'
import textwrap

import torch
from projects.soco.launch.driver import describe, read_driver, why_no_device

cuda = torch.version.cuda
told = describe(read_driver(), cuda)[1] if torch.cuda.is_available() else why_no_device(cuda)
print(textwrap.fill(f'GPU: {told}', 96))
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
        say "Setting up $SOCO_VENV, host: $HOST, MMCV: $MODE. This takes a few minutes, once."
        make_environment
    elif ! is_linked; then
        STEP=0 STEPS=1
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
