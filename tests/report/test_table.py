import json
from dataclasses import replace

import numpy as np
import pytest
from fake_store import remeasure, unit_key, write_store, write_unit_files

from vidcfg.report.formats import change_text
from vidcfg.report.table import make_table
from vidcfg.results import read_results
from vidcfg.stored.read import ResultsError

CELLS = ("uniform-1", "uniform-3", "keyframes-1", "keyframes-3")


@pytest.fixture
def sparse(tmp_path):
    """4 cells, 3 prompts, 2 seeds; nothing but alignment is measured unless a test says so."""

    def write(**options):
        options = {"scales": (1.0, 3.0), "families": (), **options}
        prompts = options.pop("prompts", ("one", "two", "three"))
        return read_results(write_store(tmp_path / "s", prompts=prompts, **options))

    return write


def test_values_stand_at_their_cell_and_pair(store):
    results = read_results(store)
    table = make_table(results)
    assert table.cells[1] == "uniform-3"
    assert len(table.pairs) == 8
    for unit in results.units:
        row, column = table.cells.index(unit.cell), table.pairs.index((unit.prompt, unit.seed))
        expected = unit.records["frame_diff"].value
        assert table.metrics["frame_diff"].values_CN[row, column] == expected


def test_cells_are_compared_on_the_pairs_that_all_have(sparse):
    results = sparse(missing=[("uniform-1", 0, 1)], failing=[("keyframes-3", 2, 0)])
    table = make_table(results)
    assert table.cells == CELLS
    assert set(table.pairs) == {("one", 0), ("two", 0), ("two", 1), ("three", 1)}
    assert table.num_pairs == 6


def test_cell_that_would_empty_the_comparison_is_left_out(sparse):
    missing = [("keyframes-3", prompt, seed) for prompt in range(3) for seed in range(2)]
    table = make_table(sparse(missing=missing[:4]))
    assert table.cells == CELLS[:3]
    assert table.left_out == {
        "keyframes-3": "it has 2 of 6 videos, 4 are not there: 'one' seed 0, 'one' seed 1, "
        "'two' seed 0, 'two' seed 1"
    }
    assert len(table.pairs) == 6


def test_cell_without_videos_is_left_out(sparse):
    missing = [("uniform-1", prompt, seed) for prompt in range(3) for seed in range(2)]
    table = make_table(sparse(missing=missing))
    reason = table.left_out["uniform-1"]
    assert reason.startswith("it has no video, 6 are not there: 'one' seed 0")
    assert reason.endswith("2 more")


def test_cell_of_other_seeds_says_which(sparse):
    results = sparse(modes=("uniform",), seeds=(0, 1, 2, 3))
    own = {"uniform-1": (0, 1), "uniform-3": (2, 3)}
    units = tuple(unit for unit in results.units if unit.seed in own[unit.cell])
    table = make_table(replace(results, units=units))
    assert table.left_out == {"uniform-1": "it has other seeds: 0, 1 here, 2, 3 elsewhere"}


def test_videos_that_failed_are_told_from_those_that_are_not_there(sparse):
    places = [("keyframes-3", prompt, seed) for prompt in range(3) for seed in range(2)]
    table = make_table(sparse(missing=places[:3], failing=places[3:5]))
    reason = table.left_out["keyframes-3"]
    assert reason.startswith("it has 1 of 6 videos, 2 failed (oom), 3 are not there: ")


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("protocol", "other", "protocol"),
        ("backend", {"name": "mini-scorer", "sha256": "cd" * 32, "source": None}, "backend"),
        ("clip", {"num_frames": 9, "fps": 8.0}, "num_frames"),
    ],
)
def test_metric_measured_in_unlike_ways_is_refused(sparse, field, value, named):
    root = sparse().root
    key = unit_key("uniform-3", 1, 1)
    folder = root / "units" / key[:2] / key
    row = json.loads((folder / "records.jsonl").read_text())
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "DONE"}
    files |= {"records.jsonl": json.dumps(row | {field: value}).encode()}
    write_unit_files(root, key, files)
    table = make_table(read_results(root))
    assert "align[mini]" not in table.metrics
    assert named in table.refused["align[mini]"]


def test_metric_without_a_value_gives_its_reason(store):
    results = read_results(store)
    for unit in results.units:
        reason = "the clip has too few frames"
        remeasure(unit, "frame_diff", value=None, skipped_reason=reason)
    table = make_table(results)
    assert table.refused["frame_diff"] == "the clip has too few frames"
    assert table.key_metrics["flicker"] == "mc_flicker"


def test_flicker_is_left_open_where_it_has_no_value_on_most_clips(store):
    results = read_results(store)
    for unit in results.units:
        if unit.cell == "uniform-6" and unit.prompt != results.prompts[0]:
            remeasure(unit, "mc_flicker", value=None)
    table = make_table(results)
    assert np.isfinite(table.metrics["mc_flicker"].values_CN).all(axis=0).sum() == 2
    assert "flicker" not in table.key_metrics


def test_flicker_is_left_open_where_it_has_no_value_on_whole_prompts(store):
    results = read_results(store)
    for unit in results.units:
        if unit.cell == "uniform-6" and unit.prompt == results.prompts[2]:
            remeasure(unit, "mc_flicker", value=None)
    table = make_table(results)
    assert np.isfinite(table.metrics["mc_flicker"].values_CN).all(axis=0).sum() == 6
    assert "flicker" not in table.key_metrics


def test_unknown_metric_is_named_with_those_there_are(store):
    with pytest.raises(ResultsError, match=r"not measured: flikker.*frame_diff"):
        make_table(read_results(store), metrics=["align", "flikker"])
    assert list(make_table(read_results(store), metrics=["align"]).metrics) == ["align[mini]"]


def test_percentages_of_many_digits_are_cut_short():
    change = {"is_ratio": True, "change": 0.5, "low": -0.99, "high": 1e200}
    assert change_text(change) == "+50.0% (−99.0% to >100000%)"
    assert change_text({**change, "high": 15.0}) == "+50.0% (−99.0% to +1500.0%)"
    assert change_text({**change, "is_ratio": False}) == "+0.5 (−0.99 to +1e+200)"
