#!/usr/bin/env bash
# Checks everything that needs an NVIDIA GPU, in one call of at most ten minutes:
#   tests/gpu.sh FOLDER                 logs, table.md and runs go to FOLDER, which must be new or empty
#   tests/gpu.sh FOLDER --device cpu    the same steps with tiny budgets on a machine without a GPU
# Needs a checkout with `pip install -e '.[dev,gpu]'`. The texts are in the folder that LOTR_TUI_SHARED names, by
# default ../shared. Exit code: 0 all steps passed, 1 a step failed, 2 no GPU or wrong use.
set -euo pipefail
folder=${1:?give the folder for the results}
folder=$(mkdir -p "$folder" && cd "$folder" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" -m tests.support.gpu "$folder" "${@:2}"
