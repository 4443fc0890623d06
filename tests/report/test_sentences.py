import re
from dataclasses import replace

import numpy as np
import pytest
from fake_store import PROMPTS, remeasure, write_store

from vidcfg.media.video import Video
from vidcfg.metrics.meters import measure_video
from vidcfg.metrics.record import Record
from vidcfg.report.analyse import analyse
from vidcfg.report.compare import find
from vidcfg.report.sentences import MOTION_LOSS, summary
from vidcfg.report.table import MetricValues, Table
from vidcfg.results import CellResult, Results, UnitResult, read_results
from vidcfg.stored.read import ResultsError


def rewrite(results, name, value_of):
    """Replace a metric: `value_of(unit, prompt number)` for every unit."""
    for unit in results.units:
        remeasure(unit, name, value=value_of(unit, results.prompts.index(unit.prompt)))
    return results


@pytest.fixture(scope="module")
def many_store(tmp_path_factory):
    return write_store(
        tmp_path_factory.mktemp("many"),
        modes=("uniform",),
        scales=(1.0, 3.0, 6.0),
        prompts=PROMPTS,
        families=("flicker", "warp"),
    )


@pytest.fixture
def many(many_store):
    """3 cells, 8 prompts, 2 seeds, with flicker and alignment that a test sets."""
    return read_results(many_store)


def noise(unit, sd):
    return float(np.random.default_rng(int(unit.key[:8], 16)).normal(0, sd))


def said(results, title, **options):
    entries = {e["title"]: e for e in analyse(results, **options)["summary"]}
    return entries[title]


def test_clear_best_is_named_as_clear(many):
    best = {"uniform-1": 0.3, "uniform-3": 0.36, "uniform-6": 0.33}
    rewrite(many, "align[mini]", lambda u, p: best[u.cell] + 0.02 * p + noise(u, 0.001))
    entry = said(many, "Follows the prompt best")
    assert entry["kind"] == "clear"
    assert entry["text"].startswith("“uniform, scale 3”: align[mini]")
    assert "clearly ahead of the other 2" in entry["text"]


def test_undecided_says_how_many_more_clips_would_tell(many):
    best = {"uniform-1": 0.3, "uniform-3": 0.3508, "uniform-6": 0.35}
    rewrite(many, "align[mini]", lambda u, p: best[u.cell] + 0.02 * p + noise(u, 0.0015))
    entry = said(many, "Follows the prompt best")
    assert entry["kind"] == "unclear"
    assert "cannot be told apart" in entry["text"]
    assert "at n = 16" in entry["text"]
    assert re.search(r"about \d+ more clips would show it", entry["text"])


def test_difference_too_small_to_chase_is_said_to_be_so(many):
    best = {"uniform-1": 0.3, "uniform-3": 0.35, "uniform-6": 0.35}
    rewrite(many, "align[mini]", lambda u, p: best[u.cell] + 0.02 * p + noise(u, 0.02))
    for unit in many.units:
        if unit.cell == "uniform-3":
            twin = next(
                u
                for u in many.units
                if (u.cell, u.prompt, u.seed) == ("uniform-6", unit.prompt, unit.seed)
            )
            shift = 1e-6 * (-1) ** unit.seed
            remeasure(unit, "align[mini]", value=twin.records["align[mini]"].value + shift)
    assert "take either" in said(many, "Follows the prompt best")["text"]


def test_videos_with_cuts_are_named(many):
    unit = many.units[3]
    assert not any("Scene cuts" in line for line in analyse(many)["notices"])
    remeasure(unit, "mc_flicker", extra={"cuts": [3, 9]})
    (line,) = (line for line in analyse(many)["notices"] if "Scene cuts" in line)
    label = next(cell.label for cell in many.cells if cell.id == unit.cell)
    assert line.endswith(f"{label}: '{unit.prompt}', seed {unit.seed} at frame 3, 9.")


def front_of_twelve(random, flicker, alignment, *, still=()):
    """What is said of 12 settings with these means, on 10 prompts; nothing moves in `still`."""
    cells, own = tuple(f"c{index:02d}" for index in range(12)), random.normal(-4, 0.5, 10)
    drawn = {
        "mc_flicker": np.exp(own + flicker[:, None] + random.normal(0, 0.05, (12, 10))),
        "align[mini]": 0.3 + alignment[:, None] + random.normal(0, 0.01, (12, 10)),
        "dynamic_degree": np.ones((12, 10)),
    }
    facts = ("intensity", "lower"), ("cos", "higher"), ("px", "none")
    is_still = np.isin(cells, still)[:, None].repeat(10, axis=1)
    values = {
        name: MetricValues(Record(name, 0.0, 1, "", *fact), drawn[name], is_still)
        for name, fact in zip(drawn, facts)
    }
    pairs = tuple((f"p{index}", 0) for index in range(10))
    table = Table(cells, pairs, values, {}, {}, 10)
    found = find(table, "c00", dict(zip(cells, cells)))
    return {entry["title"]: entry for entry in summary(found)}["On the Pareto front"]


@pytest.mark.parametrize("seed", range(4))
def test_of_equal_settings_none_is_surely_beaten_or_on_the_front(seed):
    entry = front_of_twelve(np.random.default_rng(seed), np.zeros(12), np.zeros(12))
    assert entry["kind"] == "unclear"
    assert entry["text"].startswith("None is surely on it; 0 of 12 settings are surely beaten by")


def test_settings_that_another_beats_in_both_are_surely_beaten():
    # Six follow the prompt the better the more they flicker, six are worse than these in both.
    flicker = np.r_[np.arange(6) * 0.2, np.arange(6) * 0.2 + 0.1]
    alignment = np.r_[np.arange(6) * 0.03, np.arange(6) * 0.03 - 0.03]
    entry = front_of_twelve(np.random.default_rng(7), flicker, alignment)
    assert entry["kind"] == "clear"
    assert "“c00”, “c01”, “c02”, “c03” and 2 more; 6 of 12 settings are surely" in entry["text"]
    # A still video beats nothing, and is no part of it.
    entry = front_of_twelve(np.random.default_rng(7), flicker, alignment, still=["c00"])
    assert "than “c01”, “c02”" in entry["text"]
    assert "5 of 11 settings are surely" in entry["text"]


def test_no_verdict_from_few_prompts(store):
    entry = analyse(read_results(store))["summary"][0]
    assert entry["kind"] == "unclear"
    assert "4 prompts cannot reach" in entry["text"]
    assert not any(
        e["kind"] == "clear" and "best" in e["title"]
        for e in analyse(read_results(store))["summary"]
    )


def test_balance_is_the_least_flicker_among_those_not_surely_below_the_best(many):
    align = {"uniform-1": 0.3, "uniform-3": 0.35, "uniform-6": 0.35}
    flicker = {"uniform-1": 0.01, "uniform-3": 0.012, "uniform-6": 0.02}
    rewrite(many, "align[mini]", lambda u, p: align[u.cell] + 0.02 * p + noise(u, 0.003))
    rewrite(many, "mc_flicker", lambda u, p: flicker[u.cell] * (1 + 0.2 * p))
    text = said(many, "Both together")["text"]
    assert text.startswith("“uniform, scale 3”")


def test_still_videos_do_not_win_in_flicker(store):
    results = read_results(store)
    for unit in results.units:
        if unit.cell == "uniform-6":
            for name in ("mc_flicker", "dynamic_degree"):
                remeasure(unit, name, value=0.0, status="static")
    analysis = analyse(results)
    entries = {e["title"]: e["text"] for e in analysis["summary"]}
    assert "“uniform, scale 6”" in entries["Moves too little"]
    assert not entries["Flickers least of those that move"].startswith("“uniform, scale 6”")


@pytest.fixture
def measured_at(tmp_path):
    """`measured_at(speed)`: drawn clips at scale 1, calmer than the baseline's at scale 3, in
    which a disc moves at `speed` times the baseline's pace. Flicker and motion are measured."""

    def measured(speed):
        root = write_store(
            tmp_path,
            modes=("uniform",),
            scales=(1.0, 3.0),
            prompts=PROMPTS,
            seeds=(0,),
            families=("warp", "motion"),
            speeds={"uniform-1": speed},
        )
        return analyse(read_results(root))

    return measured


def motion_of(analysis):
    (change,) = (c for c in analysis["changes"] if c["what"] == "motion")
    return change


def test_setting_that_loses_much_of_its_motion_does_not_win_in_flicker(measured_at):
    analysis = measured_at(0.4)
    calm, base = (cell["values"] for cell in analysis["cells"])
    assert calm["mc_flicker"]["mean"] < base["mc_flicker"]["mean"]
    # The disc still moves in every clip: it is the loss that counts, not a still video.
    assert calm["dynamic_degree"]["static"] == 0
    assert motion_of(analysis)["high"] < -MOTION_LOSS
    entries = {e["title"]: (e["kind"], e["text"][:18]) for e in analysis["summary"]}
    assert entries["Flickers least of those that move"] == ("note", "“uniform, scale 3”")
    assert entries["Moves too little"] == ("note", "“uniform, scale 1”")


@pytest.mark.parametrize(("speed", "least"), [(1.0, -MOTION_LOSS), (1.5, 0.0)])
def test_calm_setting_that_keeps_its_motion_wins_in_flicker(measured_at, speed, least):
    analysis = measured_at(speed)
    # The baseline's noise reads as motion too, so that an equal pace reads as a fifth less.
    assert motion_of(analysis)["change"] > least
    entries = {e["title"]: e for e in analysis["summary"]}
    assert entries["Flickers least"]["kind"] == "clear"
    assert entries["Flickers least"]["text"].startswith("“uniform, scale 1”")
    assert "Moves too little" not in entries


def test_incomplete_sweep_says_so_first(tmp_path):
    root = write_store(
        tmp_path,
        scales=(1.0, 3.0),
        families=(),
        missing=[("uniform-1", 0, 1)],
        failing=[("keyframes-3", 2, 0)],
    )
    (notice,) = analyse(read_results(root))["notices"]
    assert notice == (
        "Incomplete: 30 of 32 videos are there, 1 failed, 1 not rendered yet. Cells are compared "
        "on the 6 of 8 pairs of prompt and seed that all of them have."
    )


def test_videos_of_several_versions_are_named_with_their_numbers(store):
    results = read_results(store)
    assert analyse(results)["notices"] == []
    for unit in results.units[:5]:
        unit.render["versions"] = unit.render["versions"] | {"vidcfg": "1.1"}
    for unit in results.units[:3]:
        unit.render["sources"] = {"numerics": 2}
    (notice,) = analyse(results)["notices"]
    assert notice == (
        "Videos of several versions are compared: vidcfg 0.9 (43 videos) and 1.1 (5 videos); "
        "numerics 2 (3 videos) and unknown (45 videos); differences between cells may come from "
        "that."
    )


def test_failed_self_check_is_said_before_anything_else(store):
    results = read_results(store)
    cells = ["uniform-1", "keyframes-1"]
    results.summary["self_check"] = {"cells": cells, "pairs": 8, "equal": False}
    assert (
        "self-check failed: uniform, scale 1 and keyframes, scale 1"
        in (analyse(results)["notices"][0])
    )


def test_baseline_goes_by_id_or_label(store):
    results = read_results(store)
    assert analyse(results)["baseline"] == "uniform-3"
    assert analyse(results, baseline="keyframes-1")["baseline"] == "keyframes-1"
    assert analyse(results, baseline="keyframes, scale 6")["baseline"] == "keyframes-6"
    with pytest.raises(ResultsError, match=r"no cell 'nothing'.*uniform-1"):
        analyse(results, baseline="nothing")


def test_store_without_a_finished_video_says_so(tmp_path):
    places = [("uniform-1", prompt, seed) for prompt in range(4) for seed in range(2)]
    root = write_store(tmp_path, modes=("uniform",), scales=(1.0,), missing=places)
    analysis = analyse(read_results(root))
    assert analysis["summary"][0]["text"] == "No video is finished yet."
    assert "0 of 8 videos" in analysis["notices"][0]


def test_cost_is_that_of_the_jobs(store):
    results = read_results(store)
    cost = analyse(results)["cost"]
    # 6 steps; 16 clips at scale 1 need one evaluation a step, 32 need two.
    assert cost["executed"] == 16 * 6 + 32 * 12
    assert cost["cells"]["uniform-1"] == {"executed": 48.0, "seconds": pytest.approx(6.4)}
    # What only an earlier plan had is no part of it.
    kept = [unit for unit in results.plan["units"] if unit["cell"] != "uniform-1"]
    less = analyse(replace(results, plan=results.plan | {"units": kept}))["cost"]
    assert less["executed"] == cost["executed"] - 48
    assert less["cells"]["uniform-3"] == cost["cells"]["uniform-3"]


def test_baseline_and_pairs_call_the_same_changes_clear(many):
    best = {"uniform-1": 0.3, "uniform-3": 0.36, "uniform-6": 0.33}
    rewrite(many, "align[mini]", lambda u, p: best[u.cell] + 0.02 * p + noise(u, 0.001))
    analysis = analyse(many, baseline="uniform-6")
    rows = {c["cell"]: c for c in analysis["changes"] if c["what"] == "alignment"}
    assert rows["uniform-3"]["is_clear"]
    assert rows["uniform-1"]["is_clear"]
    assert rows["uniform-3"]["change"] > 0 > rows["uniform-1"]["change"]
    # 8 prompts, all of one sign in all three pairs: 2 / 2^8, no larger after Benjamini-Hochberg.
    assert rows["uniform-3"]["p_fdr"] == pytest.approx(2**-7)
    assert rows["uniform-3"]["p_holm"] >= 2 * 2**-7


def lose(results, is_lost, name="mc_flicker"):
    """Take the value from the units that `is_lost` names."""
    for unit in results.units:
        if is_lost(unit, results.prompts.index(unit.prompt)):
            remeasure(unit, name, value=None, skipped_reason="too little of the flow is valid")


def test_setting_that_lost_the_clips_it_fails_in_is_not_clearly_best(many):
    # The worst of the three: 40 % of its clips flicker so much that they have no value, and the
    # rest is 3 % better.
    level = {"uniform-1": 0.01, "uniform-3": 0.0101, "uniform-6": 0.0097}
    rewrite(many, "mc_flicker", lambda u, p: level[u.cell] * (1 + 0.2 * p) + noise(u, 1e-5))
    assert said(many, "Flickers least")["kind"] == "clear"
    assert said(many, "Flickers least")["text"].startswith("“uniform, scale 6”")
    lose(many, lambda u, p: u.cell == "uniform-6" and (2 * p + u.seed) % 5 < 2)
    analysis = analyse(many)
    entries = {entry["title"]: entry for entry in analysis["summary"]}
    text = entries["Flickers least"]["text"]
    assert entries["Flickers least"]["kind"] == "unclear"
    assert text.startswith("“uniform, scale 1”")
    assert "of 16 clips “uniform, scale 1” lost 0; “uniform, scale 3” lost 0; “uniform, " in text
    assert "“uniform, scale 6” lost 7" in text
    assert "no setting is called clearly best" in text
    assert not any(
        e["kind"] == "clear" for t, e in entries.items() if t != "Follows the prompt best"
    )
    (change,) = (
        c for c in analysis["changes"] if (c["cell"], c["what"]) == ("uniform-6", "flicker")
    )
    assert not change["is_clear"]
    assert "“uniform, scale 6” lost 7" in analysis["notices"][0]


def test_clips_that_all_settings_lost_leave_the_verdict(many):
    level = {"uniform-1": 0.01, "uniform-3": 0.012, "uniform-6": 0.011}
    rewrite(many, "mc_flicker", lambda u, p: level[u.cell] * (1 + 0.2 * p) + noise(u, 1e-5))
    lose(many, lambda u, p: (p, u.seed) == (3, 1))
    assert said(many, "Flickers least")["kind"] == "clear"


def test_frame_difference_alone_names_no_winner_of_flicker(tmp_path):
    # One setting moves faster and is clean, the other is slower and alternates by 2 levels.
    y, x = np.mgrid[0:32, 0:48]
    clips = {}
    for prompt in range(8):
        for cell, speed, level in (("clean", 3.0, 0), ("blinking", 1.5, 2)):
            moved = [
                120 + 60 * np.sin((x + speed * t) * np.pi / 8 + prompt) * np.cos(y / 6)
                + level * (-1) ** t
                for t in range(9)
            ]  # fmt: skip
            frames = np.rint(moved).astype(np.uint8)[:, None].repeat(3, axis=1)
            video = Video(frames, 8.0, lossless=True)
            found = measure_video(video, families=("flicker",))
            clips[cell, prompt] = {record.name: record for record in found}
    values = {
        (cell, name): np.mean([clips[cell, p][name].value for p in range(8)])
        for cell in ("clean", "blinking")
        for name in ("frame_diff", "luminance_flicker")
    }
    assert values["blinking", "frame_diff"] < values["clean", "frame_diff"]
    assert values["blinking", "luminance_flicker"] > 5 * values["clean", "luminance_flicker"]

    results = Results(
        "evaluation",
        "two folders",
        tuple(CellResult(cell, cell) for cell in ("clean", "blinking")),
        tuple(f"p{prompt}" for prompt in range(8)),
        tuple(UnitResult(f"{c}{p}", c, f"p{p}", 0, records) for (c, p), records in clips.items()),
        (),
        root=tmp_path,
    )
    analysis = analyse(results)
    assert not any("flicker" in e["title"].lower() for e in analysis["summary"])
    assert not any(e["kind"] == "clear" for e in analysis["summary"])
    (notice,) = analysis["notices"]
    assert "frame_diff mixes motion with flicker" in notice
    assert "compute mc_flicker" in notice
    assert "vidcfg evaluate with --metrics warp" in notice


def notice_of(results, is_lost):
    lose(results, is_lost)
    return next(n for n in analyse(results)["notices"] if n.startswith("mc_flicker"))


def test_flicker_measured_on_too_few_clips_is_not_judged_by_the_frame_difference(many):
    notice = notice_of(many, lambda unit, p: p >= 3)
    # No clip of these five prompts has a value anywhere: nobody lost it to another.
    assert notice.startswith("mc_flicker has a value in every cell for 6 of 16 clips, too few")
    assert "no setting is named as flickering least" in notice
    assert "lost" not in notice
    assert "flicker" not in {c["what"] for c in analyse(many)["changes"]}


def test_flicker_without_one_shared_value_says_so(many):
    notice = notice_of(many, lambda unit, p: unit.cell != many.units[0].cell)
    assert notice.startswith("mc_flicker cannot decide (no pair of prompt and seed")


def test_clips_without_flicker_are_counted_and_named_by_setting(many):
    notice = notice_of(many, lambda u, p: (u.cell, p, u.seed) == ("uniform-3", 2, 0))
    assert notice.startswith("mc_flicker has a value in every cell for 15 of 16 clips")
    assert "“uniform, scale 3” lost 1." in notice
