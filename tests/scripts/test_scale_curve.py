import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    path = ROOT / "scripts" / "scale_curve.py"
    module = importlib.util.module_from_spec(
        spec := importlib.util.spec_from_file_location("s", path)
    )
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "identity", lambda options: {"steps": options.steps})
    return module


@pytest.fixture
def made(script, monkeypatch):
    """Batches are written empty-handed, and their names kept."""
    names = []

    def make(options, todo):
        for scale, index in todo:
            path = script.batch_path(options.out, scale, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, table=np.zeros((options.batch, 1)))
            names.append(path.name)

    monkeypatch.setattr(script, "make_batches", make)
    curves = {"points": []}
    monkeypatch.setattr(script, "summarise", lambda options, batches: curves)
    monkeypatch.setattr(script, "draw", lambda curves, path: None)
    monkeypatch.setattr(script, "print_findings", lambda curves: None)
    return names


def test_cost_is_printed_before_anything_is_made(script, made, tmp_path, capsys):
    arguments = ["--clips", "10", "--batch", "4", "--steps", "5", "--scales", "1", "3"]
    assert script.main(["--dry-run", "--out", str(tmp_path), *arguments]) == 0
    # 3 batches of 4 clips, 5 steps, one pass at scale 1 and two at scale 3.
    assert "6 batches to make, 0 done; 180 model evaluations" in capsys.readouterr().out
    assert made == []


def test_second_run_makes_only_what_is_missing(script, made, tmp_path):
    arguments = ["--out", str(tmp_path), "--batch", "4", "--scales", "1", "3"]
    script.main([*arguments, "--clips", "4"])
    script.main([*arguments, "--clips", "8"])
    assert made == [f"scale_{s}_batch_{b}.npz" for b in (0, 1) for s in (1, 3)]
    assert json.loads((tmp_path / "curves.json").read_text()) == {"points": []}


def test_folder_of_another_setting_is_refused(script, made, tmp_path):
    arguments = ["--out", str(tmp_path), "--clips", "4", "--batch", "4", "--scales", "1"]
    script.main(arguments)
    with pytest.raises(SystemExit, match="another model or setting"):
        script.main([*arguments, "--steps", "7"])
