#!/usr/bin/env bash
# Sets up the environment and runs all steps on a CPU: photos, proposals, SoCo pretraining, and a Mask
# R-CNN that starts from it:
#   bash tools/quickstart.sh [FOLDER]
# FOLDER contains your own photos. Without it, the script uses photos from scikit-image and
# scikit-learn, for which the project has annotations. With annotations of your own:
#   bash tools/quickstart.sh FOLDER --train train.json --val val.json [--weights FILE]
# trains a detector from random weights, from FILE and from the pretraining, and writes a page that
# compares them. The same command continues where it was stopped. Other options: tools/quickstart.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

before= words=()  # with whole paths, because the tool runs in the project
[[ $# -eq 0 || "$1" != -* ]] || soco_fail "usage: bash tools/quickstart.sh [FOLDER [--train FILE --val FILE [--weights FILE]]]"
[[ $# -eq 0 || -d "$1" ]] || soco_fail "There is no folder $1. Use a folder of photos, or no argument."
[[ $# -lt 2 || "$2" == -* ]] || soco_fail "One folder of photos, not also $2; annotations are given with --train and --val."
for word in "$@"; do
    case "$before" in
        --train | --val | --weights) [[ -e "$word" ]] || soco_fail "There is no $word ($before)." ;;&
        '' | --train | --val | --weights | --work-dir) word=$(realpath -m "$word") ;;
    esac
    words+=("$word") before=$word
done
bash "$SOCO_ROOT/tools/setup_env.sh"
soco_find_python
cd "$SOCO_ROOT"
exec "$SOCO_PYTHON" tools/quickstart.py "${words[@]}"
