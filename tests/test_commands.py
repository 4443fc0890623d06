import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from vidcfg import __version__
from vidcfg.__main__ import COMMANDS, main, module_of
from vidcfg.render.config import load_render_config

ROOT = Path(__file__).parents[1]


def test_no_arguments_list_every_command_with_what_it_does(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    for name, about in COMMANDS.items():
        assert name in text
        assert about in text


def test_commands_are_listed_without_docstrings():
    command = [sys.executable, "-OO", "-m", "vidcfg"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in COMMANDS)


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


def test_presets_are_listed_with_what_they_are_for_and_their_evidence(capsys):
    assert main(["presets"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    by_name = {row[0]: row for row in rows}
    assert rows[0] == ["name", "family", "for", "evidence"]
    assert [by_name["wan2.2-5b"][1], by_name["wan2.2-5b"][-1]] == ["wan", "untested"]
    assert by_name["wan2.2-5b-less-flicker"][2:4] == ["less", "flicker:"]
    assert by_name["dual"][-1] == "docs/guidance_rules.md"
    assert "quick" not in by_name  # a sweep


def test_preset_is_written_out_and_loads_as_it_was(capsys, tmp_path):
    assert main(["init", "keyframes"]) == 0
    (tmp_path / "my.yaml").write_text(capsys.readouterr().out)
    assert load_render_config(tmp_path / "my.yaml") == load_render_config("keyframes")


@pytest.mark.parametrize("command", [["init"], ["render"], ["sweep"]])
def test_unknown_preset_leads_to_the_nearest(command, capsys):
    assert main([*command, "wan2.2-5"]) == 2
    near = "Did you mean 'wan2.2-5b' or 'wan2.2-5b-less-flicker'? `vidcfg presets` lists them."
    assert near in capsys.readouterr().err


def test_a_file_or_folder_of_the_name_of_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "decay").mkdir()
    assert load_render_config("decay").name == "decay"
    (tmp_path / "uniform").write_text(load_render_config("decay").to_yaml())
    assert load_render_config("uniform").name == "decay"


def test_prompt_and_image_of_the_command_line_replace_those_of_a_preset():
    config = load_render_config("cogvideox-5b-i2v", prompt="a cat: asleep", image="cat.png")
    (prompt,) = config.prompts
    negative = "blurry, static, watermark"
    assert prompt.model_dump() == {
        "text": "a cat: asleep",
        "negative": negative,
        "image": "cat.png",
    }
    two = load_render_config("uniform").prompts
    (one,) = load_render_config("uniform", prompt="a cross").prompts
    assert (len(two), one.text, one.negative) == (2, "a cross", "")
    plain = load_render_config("uniform", ["prompts=[a cross, a kite]"], prompt="no")
    assert [prompt.text for prompt in plain.prompts] == ["a cross", "a kite"]


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


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vidcfg re", {"render", "report", "regress"}),
        ("vidcfg render wan2.2-5b-l", {"wan2.2-5b-less-flicker"}),
        ("vidcfg evaluate out --lpips ", {"alex", "squeeze", "vgg"}),
        ("vidcfg regress check out --allow", {"--allow-inconclusive"}),
    ],
)
def test_a_shell_completes_commands_presets_options_and_their_values(line, expected, tmp_path):
    pytest.importorskip("argcomplete")
    told = tmp_path / "told"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(told), "IFS": "\v"}
    command = [sys.executable, "-c", "from vidcfg.__main__ import main; main()"]
    subprocess.run(command, check=True, env=os.environ | asked, capture_output=True)
    assert {word.strip() for word in told.read_text().split("\v")} == expected


def test_completion_prints_the_code_of_a_shell_or_what_it_needs(capsys, monkeypatch):
    stand_in = SimpleNamespace(shellcode=lambda names, shell: f"{names[0]} in {shell}")
    monkeypatch.setitem(sys.modules, "argcomplete", stand_in)
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out == "vidcfg in zsh"
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main(["completion", "bash"]) == 2
    needs = "completion needs argcomplete, which is not installed. Type: pip install argcomplete"
    assert needs in capsys.readouterr().err
