#!/usr/bin/env bash
# Sets up the environment and runs all steps on a CPU. See --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

usage() {
    cat <<'HELP'
usage: bash tools/quickstart.sh [FOLDER [--train FILE --val FILE [OPTION ...]]]

Sets up the environment and runs all steps on a CPU: photos, proposals, SoCo pretraining, and a Mask
R-CNN that starts from it. FOLDER contains your own photos. Without it, the script uses photos from
scikit-image and scikit-learn, for which the project has annotations.

With annotations of your own, --train and --val, it trains a detector from random weights, from those
of --weights and from the pretraining, and writes a page that compares them. The same command
continues where it was stopped.

  --train FILE    annotations to train on: COCO json, or a folder of VOC XML or YOLO text files
  --val FILE      annotations to evaluate on, of other photos
  --weights FILE  weights of a backbone or a detector: pretraining starts from them
  --epochs N      epochs of pretraining
  --iters N       iterations of each detector
  --work-dir DIR  folder for everything that is written
                  (default: work_dirs/quickstart_<name of the folder> in the project)
HELP
}

folder= train= val= first= words=()  # with whole paths, because the tool runs in the project
while [[ $# -gt 0 ]]; do
    case "$1" in
        -h | --help) usage; exit 0 ;;
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --train | --val | --weights | --epochs | --iters | --work-dir)
            [[ -n "${2:-}" ]] || soco_fail "$1 needs a value. Usage: bash tools/quickstart.sh --help"
            value=$2 first=${first:-$1}
            case "$1" in
                --epochs | --iters) [[ "$value" =~ ^[0-9]+$ ]] || soco_fail "$1 is a number, not $value." ;;
                --work-dir) value=$(realpath -m "$value") ;;
                *)
                    [[ -e "$value" ]] || soco_fail "There is no $value ($1)."
                    value=$(realpath "$value")
                    ;;
            esac
            case "$1" in --train) train=1 ;; --val) val=1 ;; esac
            words+=("$1" "$value")
            shift 2
            ;;
        -*) usage >&2; soco_fail "Unknown argument: $1" ;;
        *)
            [[ -z "$folder" ]] || soco_fail "One folder of photos, not also $1; annotations are given with --train and --val."
            [[ -d "$1" ]] || soco_fail "There is no folder $1. Use a folder of photos, or no argument."
            folder=$(realpath "$1")
            shift
            ;;
    esac
done
[[ -z "$first" || -n "$folder" && -n "$train" && -n "$val" ]] ||
    soco_fail "$first needs a folder of photos, --train and --val."
bash "$SOCO_ROOT/tools/setup_env.sh"
soco_find_python
cd "$SOCO_ROOT"
exec "$SOCO_PYTHON" tools/quickstart.py ${folder:+"$folder"} "${words[@]}"
