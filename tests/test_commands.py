import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from vidcfg import __version__
from vidcfg.__main__ import COMMANDS, main, module_of

ROOT = Path(__file__).parents[1]


def test_no_arguments_list_every_command_with_what_it_does(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    for name, about in COMMANDS.items():
        assert name in text
        assert about in text


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_listed_command_can_be_called_and_has_a_version(name, capsys):
    assert callable(import_module(module_of(name)).main)
    with pytest.raises(SystemExit, match="0"):
        main([name, "--version"])
    assert capsys.readouterr().out == f"vidcfg {__version__}\n"


def test_a_command_may_be_a_package_or_one_module(monkeypatch):
    assert module_of("render") == "vidcfg.render.__main__"
    assert module_of("cli") == "vidcfg.cli"


def test_unknown_command_leads_to_the_nearest(capsys):
    assert main(["rendr", "x.yaml"]) == 2
    assert "no command 'rendr'. Did you mean 'render'?" in capsys.readouterr().err
    assert main(["zzz"]) == 2
    assert "There are: render" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vidcfg {__version__}\n"


def test_vidcfg_render_is_the_render_command(tmp_path, capsys):
    assert main(["render", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: no such file" in capsys.readouterr().err


def test_listing_loads_nothing_heavy():
    code = (
        "import sys; from vidcfg.__main__ import main; main([]);"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


WATCHED = """
import sys
from vidcfg.__main__ import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
heavy = {"torch", "diffusers", "transformers", "cv2", "ray", "scipy"} & set(sys.modules)
print(f"code {code}, loaded {sorted(heavy)}")
"""


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_loads_nothing_heavy(name):
    command = [sys.executable, "-c", WATCHED, name, "--help"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "code 0, loaded []"


@pytest.mark.parametrize("name", ["render", "sweep"])
def test_a_wrong_file_is_told_before_anything_heavy_is_loaded(name):
    command = [sys.executable, "-c", WATCHED, name, "none.yaml"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "code 2, loaded []"
    assert "none.yaml" in done.stderr


@pytest.mark.parametrize("name", ["render", "sweep"])
def test_a_wrong_setting_is_told_before_anything_heavy_is_loaded(name):
    config = {"render": "configs/quickstart.yaml", "sweep": "configs/sweep/quick.yaml"}[name]
    command = [sys.executable, "-c", WATCHED, name, str(ROOT / config), "--set", "namee=x"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "code 2, loaded []"
    assert "unknown key 'namee'" in done.stderr
