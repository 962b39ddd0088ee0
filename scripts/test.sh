#!/usr/bin/env bash
# The whole gate: style, types, layers, tests. Makes or reuses .venv. Arguments go to pytest.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
install_ftk "[dev]"
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports
# Two workers on two cores: one thread each, or they get in each other's way.
OMP_NUM_THREADS=1 .venv/bin/pytest -n 2 "$@"
