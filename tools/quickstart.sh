#!/usr/bin/env bash
# Sets up the environment and runs all steps on a CPU: photos, proposals, SoCo pretraining, and a Mask
# R-CNN that starts from it:
#   bash tools/quickstart.sh [FOLDER]
# FOLDER contains your own photos. Without it, the script uses photos from scikit-image and
# scikit-learn, for which the project has annotations.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

[[ $# -le 1 && "${1:-}" != -* ]] || soco_fail "usage: bash tools/quickstart.sh [FOLDER]"
[[ $# -eq 0 || -d "$1" ]] || soco_fail "There is no folder $1. Use a folder of photos, or no argument."
folder=${1:+$(realpath "$1")}
bash "$SOCO_ROOT/tools/setup_env.sh"
soco_find_python
cd "$SOCO_ROOT"
exec "$SOCO_PYTHON" tools/quickstart.py ${folder:+"$folder"}
