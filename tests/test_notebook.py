"""The notebook runs from its first cell to its last."""

import json
from pathlib import Path

import matplotlib
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    known = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), known)
    assert len(known["units"]) == 4
    assert known["units"]["mc_flicker"].notna().all()
    assert set(known["records"]["key"].dropna()) == set(known["units"]["key"])
    assert (known["trace"].steps[-1].strength_BF == 1).all()
    assert "mc_flicker" in capsys.readouterr().out
