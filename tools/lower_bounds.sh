#!/usr/bin/env bash
# Whether the lower bounds in pyproject.toml are true: installs the lowest version that each allows
# and runs the fast tests on them, or those that are named.
#
#   tools/lower_bounds.sh [TESTS ...]
#   UV="python -m uv" PYTHON=3.12 FOLDER=/tmp/bounds tools/lower_bounds.sh tests/media tests/metrics
set -euo pipefail
UV=${UV:-uv}
FOLDER=${FOLDER:-/tmp/lower_bounds}
cd "$(dirname "$0")/.."
$UV venv --quiet --clear --python "${PYTHON:-3.11}" "$FOLDER"
$UV pip install --quiet --python "$FOLDER/bin/python" --resolution lowest-direct -e '.[test]'
$UV pip list --quiet --python "$FOLDER/bin/python" --format freeze > "$FOLDER/versions.txt"
exec "$FOLDER/bin/python" -m pytest -q "${@:-tests}"
