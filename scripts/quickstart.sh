#!/usr/bin/env bash
# Installs ftk into .venv and runs the main job on what ships with it: the small base model is evaluated on held-out
# orders, also with examples in the prompt, then trained, evaluated again, and both are shown side by side.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
install_ftk ""
exec .venv/bin/ftk train recipes/quickstart.yaml "$@"
