"""The table of families tells what the code and the tests say."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kite_family
import kites
import pytest
from tiny_classes import CLASSES
from tiny_pipelines import BUILDERS

import vidcfg
from vidcfg.families import main, table
from vidcfg.pipelines.families import FAMILIES, REFUSED, family_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "families.md"
KITE_RUN = """\
schema: 1
name: kite
model: {kind: diffusers, checkpoint: kite, device: cpu}
prompts: [a red circle moving left]
video: {num_frames: 7, height: 16, width: 32, fps: 8}
sampling: {num_steps: 3, scheduler: pipeline}
guidance: {scale: 4.0}
output: {dir: out, video: ffv1}
"""
COMMANDS = """\
from vidcfg.families import main as families
from vidcfg.render.__main__ import main as render

print(families([]), render(["kite.yaml", "--dry-run"]), render(["kite.yaml"]))
"""


def test_every_family_has_one_row_with_all_its_facts(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    for family in FAMILIES.values():
        row = next(line for line in text.splitlines() if line.startswith(f"{family.name} "))
        assert f"  {family.layout} " in row
        assert f"  {family.stock_passes} " in row
        assert all(name in text for name in family.pipelines)
        low, high = family.usual_range
        assert low <= family.default_scale <= high
        assert f"{low:g} - {high:g}" in row


def test_exact_families_are_those_that_a_test_compares_bit_for_bit():
    further = {name.split(",")[0] for name in CLASSES}
    compared = {family_of(build().pipe).name for build in BUILDERS.values()}
    compared |= {f.name for f in FAMILIES.values() if further & set(f.pipelines)}
    close = {"ltx2", "ltx2_condition", "cosmos", "cosmos2", "cosmos2_5"}
    assert {f.name for f in FAMILIES.values() if f.tested == "close"} == close
    exact = {f.name for f in FAMILIES.values() if f.tested == "exact"}
    assert exact == compared - close | {"mini"}


def test_every_pipeline_class_of_the_table_is_built_by_a_test():
    built = {type(build().pipe).__name__ for build in BUILDERS.values()}
    built |= {name.split(",")[0] for name in CLASSES}
    declared = {name for family in FAMILIES.values() for name in family.pipelines}
    assert declared - built == {"MiniVideoPipeline", "LTX2Pipeline"}


def video_classes() -> set[str]:
    """Public pipeline classes of the installed diffusers whose source speaks of a video.

    Read from the files: importing all of them takes a minute.
    """
    import diffusers

    root, found = Path(diffusers.__file__).parent, set()
    for path in [*root.glob("pipelines/**/*.py"), *root.glob("modular_pipelines/*/*.py")]:
        source = path.read_text("utf-8")
        modular = path.relative_to(root).parts[0] == "modular_pipelines"
        folder = re.match("wan|ltx|helios|cosmos|hunyuan_v|minimax_h", path.parent.name)
        words = re.search("VideoProcessor|num_frames|video_length", source)
        if folder if modular else words:
            found |= set(re.findall(r"^class (\w+Pipeline)\(", source, re.M))
    return found & set(dir(diffusers))


def test_every_video_class_of_diffusers_is_a_family_or_refused_with_a_reason():
    """A new version of diffusers with new classes fails here and lists them."""
    import diffusers

    declared = {n for f in FAMILIES.values() if f.module == "diffusers" for n in f.pipelines}
    assert not declared & set(REFUSED)
    assert sorted(video_classes() - declared - set(REFUSED)) == []
    named = declared | set(REFUSED)
    assert sorted(named - set(dir(diffusers))) == []


def test_a_refused_class_says_why_in_the_command_and_when_it_is_guided(capsys):
    assert main([]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for name, reason in REFUSED.items():
        assert name in printed
        assert f"{reason}." in printed
    pipe = type("CosmosVideoToWorldPipeline", (), {})()
    with pytest.raises(ValueError, match="draws another noise for the condition frames"):
        family_of(pipe)


def test_the_table_in_the_docs_is_the_one_that_the_command_prints(capsys):
    assert main(["--markdown"]) == 0
    printed = capsys.readouterr().out.strip()
    found = re.search(r"<!-- families -->\n(.*?)\n<!-- /families -->", DOCS.read_text(), re.S)
    assert found[1].strip() == printed
    assert len(printed.splitlines()) == len(table()) + 1


def test_help_names_how_another_pipeline_is_declared(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    assert "vidcfg.register_family" in capsys.readouterr().out


def test_version_and_wrong_options(capsys):
    for option, code in (("--version", 0), ("--no-such-option", 2)):
        with pytest.raises(SystemExit) as left:
            main([option])
        assert left.value.code == code
    shown = capsys.readouterr()
    assert shown.out == f"vidcfg {vidcfg.__version__}\n"
    assert "vidcfg families: error: unrecognized arguments" in shown.err


def test_one_more_file_is_a_family_for_all_commands(tmp_path):
    """The package as it is, and one more file in its folder of families."""
    shutil.copytree(ROOT / "vidcfg", tmp_path / "vidcfg", copy_function=os.symlink)
    shutil.copy(kite_family.__file__, tmp_path / "vidcfg" / "pipelines" / "families" / "kite.py")
    kites.kite().save_pretrained(tmp_path / "kite")
    (tmp_path / "kite.yaml").write_text(KITE_RUN)
    paths = os.pathsep.join([str(tmp_path), str(ROOT / "tests" / "helpers")])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "0 0 0", done.stderr
    assert re.search(r"^kite +KitePipeline +BCFHW +3k \+ 1 ", done.stdout, re.M)
    assert "model evaluations: 6 (3 cond, 3 uncond) for 1 videos" in done.stdout
    assert (tmp_path / "out" / "a-red-circle-moving-left-s0.mkv").is_file()
