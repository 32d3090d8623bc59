#!/usr/bin/env bash
# Sets up the environment and runs the tests: bash tools/run_tests.sh [--fast] [pytest arguments]
#   --fast   skips the tests that are marked slow
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

arguments=()
for argument in "$@"; do
    case "$argument" in
        --fast) arguments+=(-m 'not slow') ;;
        *) arguments+=("$argument") ;;
    esac
done

bash "$SOCO_ROOT/tools/setup_env.sh"
soco_find_python
cd "$SOCO_ROOT"
# One thread per process: the same numbers on any machine, and processes do not slow each other down.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 PYTHONHASHSEED=0
# Tests go to the processes one at a time, the longest first (tests/conftest.py).
exec "$SOCO_PYTHON" -m pytest -n 2 --dist load --maxschedchunk 1 --durations 20 "${arguments[@]}"
