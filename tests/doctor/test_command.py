"""What the doctor says is true of this machine, and each gap comes with a command."""

import json
from importlib.metadata import version

import pytest
import torch

import vidcfg
from vidcfg import doctor
from vidcfg.doctor import main


def test_all_is_well_here_and_versions_are_the_installed_ones(capsys):
    assert main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    lines = {line["what"]: line for line in found["versions"]}
    assert lines["torch"]["detail"] == version("torch")
    assert {line["state"] for line in found["versions"]} <= {"ok", "note"}
    assert [line["what"] for line in found["devices"]][0] == "cpu"


def test_text_has_one_line_per_finding_and_a_verdict(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "sdpa math" in text
    assert text.rstrip().endswith("all that vidcfg needs is here")


def test_a_library_that_is_missing_is_named_with_its_command(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "REQUIRED", ["torch", "no-such-library-of-vidcfg"])
    assert main([]) == 1
    text = capsys.readouterr().out
    assert "pip install no-such-library-of-vidcfg" in text
    assert "missing: no-such-library-of-vidcfg" in text


def test_math_attention_works_everywhere():
    lines = {line.what: line for line in doctor.attention()}
    assert lines["sdpa math"].state == "ok"
    assert lines["xformers"].state == ("ok" if torch.cuda.is_available() else "note")


def test_weights_that_are_not_here_come_with_the_command_that_gets_them(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDCFG_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    lines = [line for line in doctor.weights() if line.what != "mini"]
    assert len(lines) > 3
    for line in lines:
        assert line.state == "note"
        ways = (f"vidcfg weights fetch {line.what}", f"--weights {line.what}=FILE")
        assert any(way in line.detail for way in ways)


def test_a_damaged_weight_file_is_missing_and_not_fine(tmp_path, monkeypatch):
    from vidcfg.metrics.weight_files import WEIGHTS

    monkeypatch.setenv("VIDCFG_WEIGHTS_DIR", str(tmp_path))
    (tmp_path / WEIGHTS["lpips-alex"].filename).write_bytes(b"not a net")
    line = next(line for line in doctor.weights() if line.what == "lpips-alex")
    assert line.state == "missing"


def test_an_old_python_is_told(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 0))
    line = next(line for line in doctor.versions() if line.what == "python")
    assert line.state == "missing"
    assert "needs 3.11" in line.detail


def test_help_loads_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys; from vidcfg.doctor import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("check", list(doctor.CHECKS))
def test_every_check_gives_known_states(check):
    assert {line.state for line in doctor.CHECKS[check]()} <= {"ok", "note", "missing"}


def test_quiet_prints_only_what_is_missing(monkeypatch, capsys):
    assert main(["--quiet"]) == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(doctor, "REQUIRED", ["no-such-library-of-vidcfg"])
    assert main(["--quiet"]) == 1
    assert capsys.readouterr().out == "missing: no-such-library-of-vidcfg\n"


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"vidcfg {vidcfg.__version__}\n"


def test_module_runs_as_a_command_of_its_own_and_of_vidcfg():
    import subprocess
    import sys

    for command in (["vidcfg.doctor"], ["vidcfg", "doctor"]):
        run = [sys.executable, "-m", *command, "--help"]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("usage: vidcfg doctor")
        assert "130  interrupted" in done.stdout
