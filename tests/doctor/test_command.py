"""What the doctor says is true of this machine, and each gap comes with a command."""

import json
import subprocess
import sys
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
    for name in ("torch", "numpy", "opencv-python-headless"):
        assert lines[name]["detail"] == version(name)
    assert {line["state"] for line in found["versions"]} <= {"ok", "note"}
    assert [line["what"] for line in found["devices"]][0] == "cpu"


def test_text_has_one_line_per_finding_and_a_verdict(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "sdpa math" in text
    assert text.rstrip().endswith("all that vidcfg needs is here")


NEEDS = [
    "numpy>=2",
    "av>=99.5",
    "no-such-library>=3",
    "torch>=2.9; extra == 'render'",
    "ray; extra == 'sweep' and python_version < '3'",
    "no-such-engine; extra == 'render'",
    "no-such-kernel; extra == 'cuda'",
    "vidcfg[render]; extra == 'all'",
]


def test_what_is_missing_or_old_is_named_with_what_to_type(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "requires", lambda name: NEEDS)
    assert main([]) == 1
    text = capsys.readouterr().out
    found = {line.what: line for line in doctor.versions()}
    assert found["numpy"] == ("ok", "numpy", version("numpy"))
    assert found["torch"].state == "ok"
    old = f"{version('av')}, vidcfg needs >=99.5. Type: pip install 'av>=99.5'"
    assert found["av"] == ("missing", "av", old)
    assert found["no-such-library"].state == "missing"
    assert "not installed. Type: pip install 'no-such-library>=3'" in text
    # What an extra would bring is a note, one a group.
    assert found["[render]"].state == "note"
    assert "without no-such-engine; for rendering and vidcfg.guide. Type: pip" in text
    assert found["[cuda]"].detail.endswith("pip install 'vidcfg[cuda]'")
    assert "ray" not in found
    assert text.rstrip().endswith("missing: av, no-such-library")


@pytest.mark.parametrize("state", ["note", "missing"])
def test_xformers_for_another_torch_is_one_line(state, monkeypatch, tmp_path, caplog, capsys):
    ops = (
        "import logging\n"
        "logging.getLogger('xformers').warning('WARNING[XFORMERS]: built for:\\n'\n"
        "    '  PyTorch 2.1.0+cu118 with CUDA 1108\\n  Python 3.11\\n  more\\n  and more')\n"
    )
    # Some builds load nevertheless; with others diffusers does not load.
    ops += "memory_efficient_attention = None\n" if state == "note" else "raise ImportError('x')\n"
    (tmp_path / "xformers").mkdir()
    (tmp_path / "xformers" / "__init__.py").touch()
    (tmp_path / "xformers" / "ops.py").write_text(ops)
    for name in [name for name in sys.modules if name.split(".")[0] == "xformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    line = next(line for line in doctor.attention() if line.what == "xformers")
    for name in ("xformers", "xformers.ops"):
        sys.modules.pop(name, None)
    assert line.state == state
    assert ("diffusers does not load" in line.detail) == (state == "missing")
    assert line.detail.startswith(f"built for PyTorch 2.1.0+cu118, this is {torch.__version__};")
    assert "Type: pip uninstall xformers" in line.detail
    assert "\n" not in line.detail
    assert not caplog.messages
    assert capsys.readouterr().err == ""


def test_torch_that_does_not_load_and_torchvision_of_another_torch(monkeypatch, tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator nms is not there')")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    lines = {line.what: line for line in doctor.devices()}
    assert lines["torchvision"].state == "missing"
    assert f"pip install torchvision torch=={torch.__version__}" in lines["torchvision"].detail
    monkeypatch.setattr(doctor, "_torch", lambda: None)
    (line,) = doctor.devices()
    assert line.state == "missing"
    assert "pip install --force-reinstall torch" in line.detail
    assert list(doctor.attention()) == []


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
    monkeypatch.setattr(doctor, "requires", lambda name: NEEDS)
    assert main(["--quiet"]) == 1
    assert capsys.readouterr().out == "missing: av, no-such-library\n"


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"vidcfg {vidcfg.__version__}\n"


def test_module_runs_as_a_command_of_its_own_and_of_vidcfg():
    for command in (["vidcfg.doctor"], ["vidcfg", "doctor"]):
        run = [sys.executable, "-m", *command, "--help"]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("usage: vidcfg doctor")
        assert "130  interrupted" in done.stdout
