import subprocess
import sys
from importlib import import_module

import pytest

from vidcfg.__main__ import COMMANDS, commands, main


def test_no_arguments_list_every_command_with_what_it_does(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    for name, about in commands().items():
        assert name in text
        assert about in text


@pytest.mark.parametrize("name", list(commands()))
def test_every_listed_command_can_be_called(name):
    assert callable(import_module(f"vidcfg.{name}.__main__").main)


def test_render_and_sweep_are_there():
    assert {"render", "sweep"} <= set(commands()) <= set(COMMANDS)


def test_unknown_command_leads_to_the_nearest(capsys):
    assert main(["rendr", "x.yaml"]) == 2
    assert "no command 'rendr'. Did you mean 'render'?" in capsys.readouterr().err
    assert main(["zzz"]) == 2
    assert "There are: render" in capsys.readouterr().err


def test_version(capsys):
    from vidcfg import __version__

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
