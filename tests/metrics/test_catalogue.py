from pathlib import Path

import numpy as np
import pytest
from video_files import write_video

import vidcfg
from vidcfg.metrics.catalogue import FAMILIES, METRICS, measured
from vidcfg.metrics.frames import to_unit

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
ARROWS = {"lower": "↓", "higher": "↑", "none": "–"}


def rows():
    """Metric name as documented -> cells of its row."""
    found = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            found |= {name.strip(" `").partition("[")[0]: cells for name in cells[0].split(",")}
    return found


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_documented_with_its_unit_and_direction(name):
    metric = METRICS[name]
    cells = rows()[name]
    assert metric.unit.replace("^2", "²").replace("*", "·") in cells[3]
    assert cells[4] == ARROWS[metric.better]


def test_nothing_else_is_documented():
    assert set(rows()) == set(METRICS)


def test_families_of_metrics_can_be_chosen():
    families = {metric.family for metric in METRICS.values()}
    # Distances belong to the families of the feature nets.
    assert families - {"distribution"} <= set(FAMILIES)


def test_record_takes_unit_direction_and_protocol_from_the_catalogue():
    record = measured("fd[mini]", 2.0, n=9, protocol="clip=first")
    assert (record.unit, record.better) == ("feature^2", "lower")
    assert record.protocol == "frechet;clip=first"
    null = measured("frame_diff", None, n=0, reason="one frame")
    assert (null.status, null.skipped_reason) == ("invalid", "one frame")


@pytest.fixture
def outside(monkeypatch):
    """What a file of somebody else's would hold: one function, or one row for a new family."""
    from vidcfg.metrics.metric import MetricFamily, mean_metric

    monkeypatch.setitem(FAMILIES, "borders", MetricFamily(__name__, "what the border shows"))
    before = dict(METRICS)

    @mean_metric("red_share", "appearance", "0..1", "none", "red/(red+green+blue)")
    def red_share(frame_CHW):
        return float(frame_CHW[0].sum() / frame_CHW.sum())

    @mean_metric("border_mean", "borders", "intensity", "none", "first-row")
    def border_mean(frame_CHW):
        return float(to_unit(frame_CHW)[:, 0].mean())

    yield
    for name in set(METRICS) - set(before):
        del METRICS[name]


def test_functions_of_users_get_frames_in_0_to_1_and_fail_for_one_clip_and_metric(tmp_path):
    from vidcfg.evaluate.inputs import find_items
    from vidcfg.evaluate.run import evaluate
    from vidcfg.evaluate.settings import Settings

    before = dict(METRICS)
    facts = "appearance", "0..1", "none", "a test"
    for _ in range(2):  # as a cell of a notebook is run again
        vidcfg.register_metric("peak", *facts)(lambda frame_CHW: frame_CHW.max())
    with pytest.raises(ValueError, match="a metric is named peak already"):
        vidcfg.register_metric("peak", *facts)(rows)
    vidcfg.register_metric("step", *facts, lag=1)(lambda p: abs(p.second - p.first).mean())
    share = vidcfg.register_metric("share", *facts)(lambda f: f[0].sum() / f.sum())
    assert share(np.ones((3, 2, 4))) == pytest.approx(1 / 3)
    vidcfg.register_metric("typo", *facts)(lambda frame_CHW: {}["red"])

    # 8 bits, of which the second clip has black frames.
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 200, (5, 16, 20, 3)).astype(np.uint8) for _ in range(2)]
    clips[1][2:] = 0
    for index, frames_THWC in enumerate(clips):
        write_video(tmp_path / f"{index}.mkv", frames_THWC, fps=8, codec="ffv1")
    try:
        found = evaluate(find_items([tmp_path]), Settings(families=("appearance",)))
    finally:
        for name in set(METRICS) - set(before):
            del METRICS[name]
    for index, frames_THWC in enumerate(clips):
        records = {r.name: r for r in found.records(f"{index}.mkv")}
        unit = frames_THWC / 255.0
        peak, step = unit.max(axis=(1, 2, 3)).mean(), abs(np.diff(unit, axis=0)).mean()
        # float32 frames
        assert records["peak"].value == pytest.approx(peak, rel=1e-6)
        assert records["step"].value == pytest.approx(step, rel=1e-6)
        assert "KeyError: 'red'" in records["typo"].skipped_reason
        assert records["saturation"].value > 0
        assert (records["share"].value is None) == (index == 1)
    assert "the number is nan" in records["share"].skipped_reason


def test_a_metric_from_outside_is_measured_by_the_evaluator(outside, tmp_path):
    from vidcfg.evaluate.inputs import find_items
    from vidcfg.evaluate.run import evaluate
    from vidcfg.evaluate.settings import Settings

    rng = np.random.default_rng(0)
    clips = [rng.integers(1, 256, (5, 16, 20, 3)).astype(np.uint8) for _ in range(2)]
    for index, frames_THWC in enumerate(clips):
        write_video(tmp_path / f"clip_{index}.mkv", frames_THWC, fps=8, codec="ffv1")
    chosen = Settings(families=("appearance", "borders"))
    evaluation = evaluate(find_items([tmp_path]), chosen)
    expected = []
    for index, frames_THWC in enumerate(clips):
        found = {r.name: r for r in evaluation.records(f"clip_{index}.mkv")}
        red = np.mean([f[..., 0].sum() / f.sum() for f in frames_THWC])
        assert found["red_share"].value == pytest.approx(red)
        assert found["red_share"].protocol == "red/(red+green+blue)"
        assert found["border_mean"].value == pytest.approx(frames_THWC[:, 0].mean() / 255)
        assert len(found["border_mean"].trace) == 5
        expected.append(red)
    of_set = {r.name: r for r in evaluation.records()}
    assert of_set["red_share"].value == pytest.approx(np.mean(expected))
    assert (of_set["border_mean"].n, of_set["border_mean"].unit) == (2, "intensity")
    assert {"red_share", "border_mean"} <= set(METRICS)


def test_a_name_stands_for_one_metric(outside):
    from vidcfg.metrics.metric import declare

    with pytest.raises(ValueError, match="contrast already"):
        declare("contrast", "appearance", "intensity", "none", "mine")
