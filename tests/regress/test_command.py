"""The command: exit codes, files, words."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from vidcfg.regress.__main__ import main
from vidcfg.regress.clips import write_baseline


@pytest.fixture
def sets(drawn, change, times, tmp_path):
    """Good, worse (flicker + 10 %), unproven (seven of twelve flicker), unsure (up and down)."""
    up = change(drawn, only=range(6), mc_flicker=times(1.25))
    made = {
        "good": drawn,
        "worse": change(drawn, mc_flicker=times(1.1)),
        "unproven": change(drawn, only=range(7), mc_flicker=times(1.12)),
        "unsure": change(up, only=range(6, 12), mc_flicker=times(0.8)),
    }
    return {name: str(write_baseline(tmp_path / name, clips)) for name, clips in made.items()}


def test_a_narrow_terminal_shows_all_numbers_of_the_table(sets, capsys, monkeypatch):
    def shown(columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        main(["check", sets["worse"], "--baseline", sets["good"]])
        return capsys.readouterr().out.split("\n\n")[1]

    wide, narrow = shown(160), shown(80)
    assert max(map(len, wide.splitlines())) > 100
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.split() == wide.split()
    assert len(narrow.splitlines()) == 2 * len(wide.splitlines())


@pytest.mark.parametrize(
    ("name", "code"), [("good", 0), ("worse", 1), ("unproven", 4), ("unsure", 5)]
)
def test_exit_code_is_the_verdict(sets, name, code, capsys, tmp_path):
    out = tmp_path / "out"
    assert main(["check", sets[name], "--baseline", sets["good"], "-o", str(out)]) == code
    verdict = {0: "PASS", 1: "FAIL"}.get(code, "INCONCLUSIVE")
    assert capsys.readouterr().out.startswith(verdict)
    facts = json.loads((out / "result.json").read_text())
    assert (facts["verdict"], facts["exit_code"], facts["clips"]) == (verdict, code, 12)
    suite = ElementTree.parse(out / "junit.xml").getroot()
    assert int(suite.get("tests")) == len(facts["metrics"]) == 22
    kinds = [failure.get("type") for failure in suite.iter("failure")]
    assert kinds == {0: [], 1: ["fail"]}.get(code, ["inconclusive"])
    assert verdict in (out / "index.html").read_text()


@pytest.mark.parametrize(("name", "code"), [("unsure", 0), ("unproven", 4)])
def test_inconclusive_can_be_allowed_unless_it_is_worse(sets, name, code, tmp_path):
    arguments = ["check", sets[name], "--baseline", sets["good"], "-o", str(tmp_path / "o")]
    assert main([*arguments, "--allow-inconclusive"]) == code
    assert ("<failure" in (tmp_path / "o" / "junit.xml").read_text()) == bool(code)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("worse", "FAIL: it got worse. Look at the worst clips"),
        ("unsure", "no proof that there is none. Render more prompts .* --allow-inconclusive"),
        ("unproven", "looks worse, but that is not proven. Render more prompts .*calibrate A B"),
        ("good", None),
    ],
)
def test_the_last_line_says_what_to_do(sets, name, words, capsys):
    main(["check", sets[name], "--baseline", sets["good"], "--set", "power=0.8"])
    last = capsys.readouterr().out.strip().splitlines()[-1]
    command = f"vidcfg regress record {sets[name]} -o {sets['good']} --overwrite --set power=0.8"
    assert (command in last) == bool(words)
    assert re.search(words or "detectable", last)


def test_table_has_the_change_the_worst_clip_and_its_frames(sets, capsys):
    main(["check", sets["worse"], "--baseline", sets["good"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith("FAIL         mc_flicker")
    # 10 % of a value of a few levels, softened by the floor of a quarter of a level.
    assert re.search(r" \+[6-9]\.\d%", lines[3])
    assert any(line.startswith("  worst in '") for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "GOOD"],
        ["check", "none", "--baseline", "GOOD"],
        ["check", "GOOD", "--baseline", "none"],
        ["check", "GOOD", "--baseline", "GOOD", "--set", "alpha=2"],
        ["check", "GOOD", "--baseline", "GOOD", "--policy", "none.yaml"],
        ["record", "GOOD", "-o", "GOOD"],
        ["power"],
        ["power", "--sd", "-1"],
        ["calibrate", "GOOD"],
        ["nonsense"],
    ],
)
def test_every_wrong_input_is_exit_code_two(arguments, sets, capsys):
    given = [sets["good"] if word == "GOOD" else word for word in arguments]
    try:
        code = main(given)
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert "vidcfg regress" in capsys.readouterr().err


def test_a_crash_is_an_error_and_no_verdict(sets, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("vidcfg.regress.commands.check_clips", lambda *a: 1 / 0)
    out = tmp_path / "out"
    assert main(["check", sets["good"], "--baseline", sets["good"], "-o", str(out)]) == 3
    facts = json.loads((out / "result.json").read_text())
    assert (facts["verdict"], facts["exit_code"]) == ("ERROR", 3)
    assert "ZeroDivisionError" in (out / "junit.xml").read_text()


def test_error_leaves_no_page_of_an_earlier_run(sets, tmp_path):
    out = tmp_path / "out"
    main(["check", sets["good"], "--baseline", sets["good"], "-o", str(out)])
    assert (out / "index.html").exists()
    assert main(["check", "none", "--baseline", sets["good"], "-o", str(out)]) == 2
    assert json.loads((out / "result.json").read_text())["exit_code"] == 2
    assert not (out / "index.html").exists()
    assert 'errors="1"' in (out / "junit.xml").read_text()


def test_record_keeps_pictures_and_how_the_renders_were_made(tmp_path, panning, capsys):
    from video_files import write_video

    folder = tmp_path / "renders"
    folder.mkdir()
    for index in range(5):
        path = folder / f"{index}.mkv"
        write_video(path, panning(index), fps=8, codec="ffv1", enlarge=2)
        config = {"prompts": [], "seeds": [], "output": {"dir": "x", "video": "ffv1"}}
        facts = {"prompt": {"text": f"p{index}"}, "seed": 1, "config": config, "commit": "abc123"}
        path.with_suffix(".json").write_text(json.dumps({**facts, "video": {"enlarge": 2}}))
    base = tmp_path / "base"
    assert main(["record", str(folder), "-o", str(base), "--with-videos"]) == 0
    assert "5 clips of 5 prompts" in capsys.readouterr().out
    assert len(list((base / "videos").iterdir())) == 5
    assert json.loads((base / "baseline.json").read_text())["made_by"] == {"commit": "abc123"}
    out = tmp_path / "out"
    assert main(["check", str(folder), "--baseline", str(base), "-o", str(out)]) == 0
    # One clip is destroyed: it fails alone, and the page has both sides and a command.
    clip = panning(2)
    clip[1::2] = clip[1::2] // 2
    write_video(folder / "2.mkv", clip, fps=8, codec="ffv1", enlarge=2, overwrite=True)
    assert main(["check", str(folder), "--baseline", str(base), "-o", str(out)]) == 1
    result = json.loads((out / "result.json").read_text())
    flicker = next(m for m in result["metrics"] if m["name"] == "luminance_flicker")
    assert flicker["worst"]["prompt"] == "p2"
    assert flicker["worst"]["command"].startswith("python -m vidcfg.render ")
    text = (out / "worst" / "luminance_flicker.yaml").read_text()
    assert "p2" in text
    assert (out / "index.html").read_text().count("data:image/webp") >= 2


def test_evaluated_folder_is_read_and_a_younger_video_refused(tmp_path, panning):
    import os

    from video_files import write_video

    from vidcfg.evaluate.__main__ import main as evaluate

    for index in range(2):
        write_video(tmp_path / f"{index}.mkv", panning(index), fps=8, codec="ffv1")
    base = str(tmp_path / "base")
    assert main(["record", str(tmp_path), "-o", base]) == 0
    assert evaluate([str(tmp_path), "--out", str(tmp_path)]) == 0
    assert main(["check", str(tmp_path), "--baseline", base]) == 0
    os.utime(tmp_path / "1.mkv", (2e9, 2e9))
    assert main(["check", str(tmp_path), "--baseline", base]) == 2


def test_store_of_a_sweep_is_compared_cell_by_cell(tmp_path, capsys):
    from fake_store import write_store

    store, later = tmp_path / "store", tmp_path / "later"
    settings = {"modes": ("uniform", "decay"), "scales": (1.0,), "seeds": (0,)}
    settings["families"] = ("warp", "motion")
    write_store(store, **settings)
    write_store(later, **settings)
    base = str(tmp_path / "base")
    assert main(["record", str(store), "-o", base]) == 0
    code = main(["check", str(later), "--baseline", base])
    text = capsys.readouterr().out
    assert code in (0, 4)
    assert "FAIL" not in text
    assert "mc_flicker" in text


def test_power_needs_more_clips_for_smaller_changes(sets, capsys):
    assert main(["power", "--sd", "0.07", "-n", "8", "16", "64"]) == 0
    row = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("mc_flicker"))
    eight, sixteen, many = (float(cell.rstrip("%")) for cell in row.split()[2:5])
    assert eight > sixteen > many
    # Of 300 simulated gates 86 % find 6.8 % with 16 clips, 78 % find 3.6 % with 64.
    assert sixteen == pytest.approx(6.8, abs=0.3)
    assert many == pytest.approx(3.6, abs=0.2)


def test_calibrate_finds_the_noise_of_repeats_and_saves_it(drawn, change, tmp_path, capsys):
    import numpy as np

    rng = np.random.default_rng(0)
    paths = []
    for name in "abcd":
        noisy = change(
            drawn,
            mc_flicker=lambda r: replace(r, value=r.value * float(np.exp(rng.normal(0, 0.1)))),
        )
        paths.append(str(write_baseline(tmp_path / name, noisy)))
    policy = tmp_path / "policy.yaml"
    assert main(["calibrate", *paths, "--save", paths[0], "-o", str(policy)]) == 0
    row = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("mc_flicker"))
    # Two renders of sd 0.1 each; 72 pairs of which 36 are independent, and a floor.
    assert float(row.split()[1]) == pytest.approx(0.1 * 2**0.5, rel=0.35)
    assert float(row.split()[4]) > 0.03
    saved = json.loads((tmp_path / "a" / "baseline.json").read_text())["noise"]["mc_flicker"]
    assert saved["n"] == 36
    assert main(["check", paths[0], "--baseline", paths[0], "--policy", str(policy)]) == 0
    capsys.readouterr()
    assert main(["power", "--baseline", paths[0], "-n", "32"]) == 0
    assert "repeats" in capsys.readouterr().out


def test_policy_is_printed_in_full(capsys):
    assert main(["policy", "--set", "alpha=0.01"]) == 0
    assert "alpha: 0.01" in capsys.readouterr().out


def test_help_and_files_load_no_torch(sets):
    code = (
        "import sys; from vidcfg.regress.__main__ import main;"
        f"assert main(['check', {sets['good']!r}, '--baseline', {sets['good']!r}]) == 0;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    code = (
        "import sys; from vidcfg.regress.__main__ import parser; parser();"
        "assert not {'torch', 'numpy', 'pydantic', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
