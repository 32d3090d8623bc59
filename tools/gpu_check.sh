#!/usr/bin/env bash
# Checks what this machine's GPU does with the project, and measures it:
#   bash tools/gpu_check.sh [--minutes 10] [--out FILE]
# Photos are made up, so that nothing has to be downloaded. To try the check without a GPU:
#   bash tools/gpu_check.sh --device cpu --tiny
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

soco_find_python
exec "$SOCO_PYTHON" "$SOCO_ROOT/tools/gpu_check.py" "$@"
