#!/usr/bin/env bash
# Runs parity and the first iterations of a pretraining on every Python and host that is there:
#   bash tools/test_matrix.sh FOLDER [PYTHON ...]
# FOLDER gets one environment for each pair, about 6 GB each, and keeps them; PYTHON are interpreters
# (default: python3.11, python3.12 and python3.13, as far as they are on the PATH). HOSTS='openmmlab' or
# HOSTS='onedl' in the environment leaves out the other host. The exit code is 1 if any pair fails.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

[[ $# -ge 1 && "$1" != -* ]] || soco_fail "usage: bash tools/test_matrix.sh FOLDER [PYTHON ...]"
folder=$(realpath -m "$1")
shift
[[ $# -gt 0 ]] || set -- python3.11 python3.12 python3.13
export OMP_NUM_THREADS=1
mkdir -p "$folder"

# Prints a row's result for the environment SOCO_VENV: the largest difference of the losses to the
# official code's, and the losses of two iterations.
try_environment() {
    local python=$SOCO_VENV/bin/python work=$SOCO_VENV/matrix
    rm -rf "$work" && mkdir "$work"
    "$python" -W ignore "$SOCO_ROOT/tests/parity.py" "$SOCO_ROOT"/tests/data/parity/*_r18.json \
        >"$work/parity.txt" || return
    cd "$work"
    "$python" - <<'PY' || return
from pathlib import Path

import cv2
from skimage import data
Path('photos').mkdir()
for name in ('astronaut', 'chelsea', 'coffee', 'rocket'):
    cv2.imwrite(f'photos/{name}.png', getattr(data, name)()[..., ::-1])
PY
    "$python" "$SOCO_ROOT/tools/generate_proposals.py" photos photos.arrow >proposals.txt || return
    "$python" -W ignore "$SOCO_ROOT/tools/train.py" \
        "$SOCO_ROOT/configs/soco_r18_fpn_quickstart.py" --work-dir run --epochs 1 --cfg-options \
        train_dataloader.dataset.data_root=photos train_dataloader.dataset.proposals=photos.arrow \
        train_dataloader.dataset.repeat=1 train_dataloader.batch_size=2 \
        train_dataloader.num_workers=0 train_dataloader.persistent_workers=False \
        default_hooks.logger.interval=1 >train.txt || return
    printf 'parity %s, losses %s\n' \
        "$(awk '/largest/ && $NF > most {most = $NF} END {print most}' parity.txt)" \
        "$(grep -o ' loss: [0-9.-]*' train.txt | awk '{printf "%s ", $2}')"
}

failed=0
for interpreter in "$@"; do
    version=$("$interpreter" -c 'import sys; print("{}.{}".format(*sys.version_info))' 2>/dev/null) || {
        echo "$interpreter: not there"
        continue
    }
    for host in ${HOSTS:-openmmlab onedl}; do
        export SOCO_VENV=$folder/$version-$host
        log=$folder/$version-$host.txt
        if PYTHON=$interpreter bash "$SOCO_ROOT/tools/setup_env.sh" --host "$host" >"$log" 2>&1 &&
            result=$(try_environment 2>>"$log"); then
            echo "Python $version, $host: $result"
        else
            echo "Python $version, $host: FAILED, see $log"
            failed=1
        fi
    done
done
exit $failed
