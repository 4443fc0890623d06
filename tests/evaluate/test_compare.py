"""Sets compared from the records of their videos: pairs, prompts, or no pairs at all."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from vidcfg.evaluate.__main__ import main
from vidcfg.evaluate.compare import comparison, find_sets, joined
from vidcfg.evaluate.inputs import Item
from vidcfg.evaluate.run import Evaluation, row
from vidcfg.metrics.record import ClipInfo, Record

FLOOR = 1 / 1020
"""A quarter of an 8-bit level: below it a change of intensity is rounding."""


@pytest.fixture
def compared(tmp_path):
    """`compared({set: {(prompt, seed): mc_flicker}})`: the lines that are said of the sets."""

    def compare(values, **facts):
        sets, rows = {}, []
        for name, by_place in values.items():
            clip = ClipInfo(facts.get(name, 9), 24, 32, 8.0, True, "ffv1")
            items = [
                Item(
                    tmp_path / f"{prompt}-{seed}.mkv", f"{name}/{prompt}-{seed}.mkv", prompt, seed
                )
                for prompt, seed in by_place
            ]
            for item, value in zip(items, by_place.values()):
                record = Record("mc_flicker", value, 7, "p", "intensity", "lower", clip=clip)
                moving = Record("dynamic_degree", 3.0 + value, 8, "q", "px", "none", clip=clip)
                rows += [row(r, item) | {"subject": item.name} for r in (record, moving)]
            sets[name] = items
        (tmp_path / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        return comparison(tmp_path, sets)

    return compare


def drawn(prompts, seeds, *, times=1.0, salt=0):
    random = np.random.default_rng(salt)
    return {(p, s): float(times * random.uniform(0.02, 0.03)) for p in prompts for s in seeds}


PROMPTS = [f"prompt {i}" for i in range(7)]


def test_equal_names_are_paired_and_the_answer_stands_first(compared):
    values = {"A": drawn(PROMPTS, (0, 1)), "B": drawn(PROMPTS, (0, 1), times=0.6, salt=1)}
    head, first, *rest = compared(values)
    assert head == "14 pairs of videos with equal names, 7 prompts; changes are from “A”"
    a, b = (np.log(np.array(list(values[name].values())) + FLOOR) for name in "AB")
    change = f"{math.expm1((b - a).mean()):+.1%}".replace("-", "−")
    assert first.startswith(f"“B” flickers less than “A”: mc_flicker {change} (−")
    # All of seven prompts agree: two of 2^7 sign patterns.
    assert first.endswith(f"p = {2 / 2**7:.2g}")
    assert any(line.startswith("Flickers least: “B”: mc_flicker") for line in rest)


def test_prompts_are_paired_where_seeds_are_others(compared):
    values = {"A": drawn(PROMPTS, (0, 1)), "B": drawn(PROMPTS, (5, 9), salt=1)}
    head, first, *_ = compared(values)
    assert head.startswith("14 pairs of videos with equal prompts, 7 prompts")
    assert first.startswith("“B” and “A” cannot be told apart in flicker: mc_flicker")


def test_sets_without_a_common_prompt_are_compared_by_welch_on_logs_of_prompts(compared):
    others = [f"other {i}" for i in range(5)]
    values = {"A": drawn(PROMPTS, (0, 1)), "B": drawn(others, (0,), times=2.0, salt=1)}
    head, first, *_ = compared(values)
    assert "too few names and prompts match" in head
    assert "14 of A, 5 of B" in head
    logs = {k: {p: [] for p, _ in found} for k, found in values.items()}
    for name, found in values.items():
        for (prompt, _), value in found.items():
            logs[name][prompt].append(math.log(value + FLOOR))
    a, b = (np.array([np.mean(x) for x in logs[name].values()]) for name in "AB")
    error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    assert first.startswith("“B” flickers more than “A”: mc_flicker ")
    assert f"{math.expm1(b.mean() - a.mean()):+.1%}" in first
    # Welch's degrees of freedom are between 4 and 10: t is between 2.228 and 2.776.
    low = float(first.partition("(+")[2].partition("%")[0]) / 100
    reach = (b.mean() - a.mean() - math.log1p(low)) / error
    assert 2.22 < reach < 2.78


@pytest.mark.parametrize("seeds", [(2,), (9,)])
def test_videos_that_have_a_partner_are_paired_though_most_have_none(compared, seeds):
    # Prompts differ by far more than the sets do: no test of unpaired sets could tell.
    random, own = np.random.default_rng(3), {p: 2.0**i / 500 for i, p in enumerate(PROMPTS)}
    values = {
        name: {(p, s): own[p] * times * random.uniform(0.99, 1.01) for p in PROMPTS for s in each}
        for name, times, each in (("A", 1.0, range(4)), ("B", 0.8, seeds))
    }
    values["B"]["another", 0] = 0.9
    head, first, *_ = compared(values)
    how = "names" if seeds == (2,) else "prompts"
    assert head.startswith(
        f"7 pairs of videos with equal {how}, 7 prompts (22 videos are in none)"
    )
    assert first.startswith("“B” flickers less than “A”: mc_flicker −")
    partner = 2 if seeds == (2,) else 0
    logs = [
        math.log((values["B"][p, seeds[0]] + FLOOR) / (values["A"][p, partner] + FLOOR))
        for p in PROMPTS
    ]
    assert f"{math.expm1(np.mean(logs)):+.1%}".replace("-", "−") in first


def test_three_sets_get_a_line_each_and_a_best(compared):
    values = {k: drawn(PROMPTS, (0,), times=i + 1, salt=i) for i, k in enumerate("ABC")}
    lines = compared(values)
    assert [line[:23] for line in lines[1:3]] == [f"“{k}” flickers more than " for k in "BC"]
    assert any("Flickers least: “A”" in line and "the other 2" in line for line in lines)


def test_few_prompts_and_unlike_clips_are_said_not_judged(compared):
    few = {"A": drawn(PROMPTS[:2], (0,)), "B": drawn(PROMPTS[:2], (0,), times=9)}
    lines = compared(few)
    assert "cannot be told apart in flicker" in lines[1]
    assert any(line.startswith("Too few prompts for a verdict") for line in lines)
    # In pairs, and as sets without any.
    for prompts in (PROMPTS, [f"other {prompt}" for prompt in PROMPTS]):
        unlike = compared({"A": drawn(PROMPTS, (0,)), "B": drawn(prompts, (0,), times=9)}, B=13)
        assert not any(word in "".join(unlike) for word in ("flickers more", "flickers less"))
        assert any("num_frames is 13 or 9" in line for line in unlike)


def test_folders_are_sets_and_anything_else_is_one(tmp_path):
    for name in ("x/a", "y/a", "b", "shots"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / ("0.png" if name == "shots" else "0.mp4")).write_bytes(b"")
    a, b, shots = tmp_path / "x/a", tmp_path / "b", tmp_path / "shots"
    found = find_sets([a, b])
    assert {k: [i.name for i in v] for k, v in found.items()} == {
        "a": ["a/0.mp4"],
        "b": ["b/0.mp4"],
    }
    assert list(find_sets([a, tmp_path / "y/a"])) == [str(a), str(tmp_path / "y/a")]
    for one in ([a], [a, a], [a, shots], [a, b / "0.mp4"]):
        assert list(find_sets(one)) == [""]
    (b / "0.mp4").unlink()
    with pytest.raises(ValueError, match="no videos in b"):
        find_sets([a, b])


def test_rows_of_sets_are_named_after_them():
    record, video = Record("x", 1.0, 1, "p"), Item(Path("v.mp4"), "v")
    one, two = (
        Evaluation([row(record, video), row(record)], {"net": {name: np.ones(2)}}, ["w"])
        for name in "AB"
    )
    both = joined({"A": one, "B": two})
    assert [r.subject for name in "AB" for r in both.records(name)] == ["A", "B"]
    assert [r["path"] for r in both.rows] == ["v.mp4", "v.mp4", None, None]
    assert (list(both.features["net"]), both.warnings) == (["A", "B"], ["w"])
    assert joined({"": one}) is one


def test_a_narrow_terminal_shows_all_numbers_of_sets_and_videos(noise_video, capsys, monkeypatch):
    for name in ("a/1.mkv", "a/2.mkv", "b/1.mkv", "b/2.mkv"):
        Path(name).parent.mkdir(exist_ok=True)
        noise_video(name)

    def shown(columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        assert main(["a", "b", "--metrics", "flicker,appearance", "--per-video"]) == 0
        text = capsys.readouterr().out
        return text[text.index("video  ") : text.index("No clip stands out")]

    wide, narrow = shown(160), shown(80)
    assert max(map(len, wide.splitlines())) > 80 >= max(map(len, narrow.splitlines()))
    assert narrow.split() == wide.split()
