"""What a type checker says to code that uses the package."""

import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent / "helpers" / "typed_sample.py"
# Only our types are asked for; following torch and diffusers takes minutes.
SETTINGS = """\
[mypy]
strict = True
follow_imports = silent
[mypy-torch.*,diffusers.*,transformers.*,accelerate.*]
follow_imports = skip
"""


@pytest.mark.slow
def test_strict_mypy_takes_what_users_write_and_refuses_a_misspelt_word(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import vidcfg\n\nvidcfg.Guidance(scale=6)\nvidcfg.Guidance(scal=6)\n")
    options = ["--config-file", str(tmp_path / "mypy.ini"), "--cache-dir", str(tmp_path / "cache")]
    call = [sys.executable, "-m", "mypy", *options, str(SAMPLE), str(wrong)]
    told = subprocess.run(call, capture_output=True, text=True, cwd=SAMPLE.parents[2])
    errors = [line for line in told.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, told.stdout + told.stderr
    assert errors[0].startswith(f'{wrong}:4: error: Unexpected keyword argument "scal"')
    assert 'did you mean "scale"?' in errors[0]
