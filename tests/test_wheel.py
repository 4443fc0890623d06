"""The wheel, outside of the checkout: a video, a gate and a score, and what they take."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_newcomer_renders_gates_and_scores_from_the_wheel(tmp_path):
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    told = {"UV": uv, "JOURNEYS": "render gate score", "PYTHON": sys.executable}
    told |= {"UV_COMPILE_BYTECODE": "1", "UV_CONSTRAINT": str(ROOT / "constraints.txt")}
    command = [ROOT / "tools/newcomer.sh", tmp_path]
    done = subprocess.run(command, env={**os.environ, **told}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()]
    found = {row[0]: row for row in rows[2:]}
    assert list(found) == ["render", "gate", "score"]
    assert float(found["render"][4]) < 3
    for journey in ("gate", "score"):
        *_, minutes, megabytes, torch = found[journey]
        assert torch == "none"
        assert float(minutes) < 1
        assert int(megabytes) < 600
