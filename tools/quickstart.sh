#!/usr/bin/env bash
# Sets up the environment and shows the whole way on a CPU: photos, proposals, SoCo pretraining, a
# Mask R-CNN that starts from it:
#   bash tools/quickstart.sh [FOLDER]
# FOLDER holds photos of your own; without it, photos that ship inside scikit-image and scikit-learn
# are used, for which the project has annotations.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

[[ $# -le 1 && "${1:-}" != -* ]] || soco_fail "usage: bash tools/quickstart.sh [FOLDER]"
[[ $# -eq 0 || -d "$1" ]] || soco_fail "There is no folder $1. Give a folder of photos, or nothing."
folder=${1:+$(realpath "$1")}
bash "$SOCO_ROOT/tools/setup_env.sh"
soco_find_python
cd "$SOCO_ROOT"
exec "$SOCO_PYTHON" tools/quickstart.py ${folder:+"$folder"}
