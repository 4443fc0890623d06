"""A rule and a frame weighting of user code in a render, its dry run and a sweep."""

import json

import numpy as np
import pytest

from vidcfg.guidance.frames import FrameWeights, frames
from vidcfg.guidance.rule import AgainstUncond, Rule, rule
from vidcfg.render.__main__ import main as render
from vidcfg.sweep.__main__ import main as sweep
from vidcfg.sweep.store import Store


@pytest.fixture(autouse=True)
def outside():
    @rule("half")
    class Half(AgainstUncond):
        """cond_f + (strength_f - 1) / 2 (cond_f - uncond_f). Strength 1 is off. Source: a test."""

        def deltas(self, strength, weight):
            return {"cond": 1 + (strength - 1) / 2}

    @frames("late")
    class Late(FrameWeights):
        """0 on the first frame, 1 on the others."""

        def weights(self, num_frames, *, fps=None):
            return np.minimum(np.arange(num_frames), 1) * 1.0

    yield
    del Rule.kinds["half"], FrameWeights.kinds["late"]


def test_dry_run_and_render_take_both_by_name(sweep_file, tmp_path, capsys):
    base = str(sweep_file.parent / "base.yaml")
    words = ["--set", "guidance={scale: 5.0, frames: late, method: half}", "--seed", "3"]
    words += ["--set", f"output.dir={tmp_path / 'outside'}"]
    assert render([base, *words, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "guidance: half · scale 5 · frames late" in told
    assert "strength ▁ 1 to █ 5 (1 = off)" in told
    assert "12 (6 cond, 6 uncond)" in told
    assert render([base, *words, "--quiet"]) == 0
    (path, *_) = sorted((tmp_path / "outside").glob("*-s3.json"))
    record = json.loads(path.read_text())
    assert record["surface"]["strength"][0] == [1.0, *[5.0] * 8]
    assert record["trace"]["order"] == ["method:half"]
    assert record["trace"]["evaluations"] == record["trace"]["planned"]


def test_a_rule_of_half_strength_makes_the_video_of_the_halved_scale(sweep_file, tmp_path):
    base, shas = str(sweep_file.parent / "base.yaml"), []
    for name, words in (("half", "scale: 5.0, method: half"), ("plain", "scale: 3.0")):
        out = tmp_path / name
        given = ["--set", f"guidance={{{words}}}", "--set", f"output.dir={out}", "--seed", "3"]
        assert render([base, *given, "--quiet"]) == 0
        records = [json.loads(path.read_text()) for path in sorted(out.glob("*-s3.json"))]
        shas.append([record["video"]["frames_sha256"] for record in records])
    assert shas[0] == shas[1]


def test_a_sweep_in_this_process_takes_both_by_name(sweep_file, tmp_path):
    grid = "grid={guidance.method: [cfg, half], guidance.frames: [uniform, late]}"
    assert sweep([str(sweep_file), "--no-report", "--set", grid, "--set", "seeds=3"]) == 0
    store = Store(str(tmp_path / "store"))
    units = store.read_json("plan.json")["units"]
    assert len(units) == 8
    assert store.done_keys([unit["key"] for unit in units]) == {unit["key"] for unit in units}
    summary = store.read_json("summary.json")
    assert summary["executed"] == summary["planned"]
