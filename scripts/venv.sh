# Sourced by the other scripts: makes or reuses .venv with Python 3.11 or newer, and installs ftk into it.
# Usage: . scripts/venv.sh; install_ftk "" | install_ftk "[dev]"

cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "ftk needs Python 3.11 or newer, and none was found" >&2
  exit 3
}

# pip is slow even when there is nothing to do, so an installation of the same pyproject.toml is reused.
install_ftk() {
  local extra=$1 stamp wanted python
  python=$(find_python)
  if ! .venv/bin/python -c '' 2>/dev/null; then
    "$python" -m venv --clear .venv
  fi
  stamp=".venv/ftk-installed${extra}"
  wanted=$(cksum <pyproject.toml)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv/bin/ftk --help >/dev/null 2>&1; then
    return
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${extra}"
  echo "$wanted" >"$stamp"
}
