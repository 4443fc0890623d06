"""Verdicts where the truth is known, and the whole way from prompts to the page."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from evidence import __main__ as script
from evidence import drawn
from evidence.cells import (
    ALIGNMENT,
    CONFIGS,
    METRICS,
    Made,
    load_sweeps,
    missing,
    read,
    write_block,
)
from evidence.drawn import meant
from evidence.make import draw_prompts, measure_clips, sample
from evidence.sets import SetValues, by_prompt, even
from evidence.verdicts import bayes_share, crossing, found_of, judge

from vidcfg.metrics.distances import prdc
from vidcfg.mini.shapes import ATTRIBUTES
from vidcfg.pipelines.load import load_pipeline
from vidcfg.settings.document import load_document

NUM = 200


def made(features=None, num=NUM, **values):
    """Videos of which only the given metrics matter."""
    whole = {name: np.zeros(num) for name in METRICS} | values
    right = {name: np.ones(num) for name in ATTRIBUTES}
    features = np.zeros((num, 3)) if features is None else features
    return Made(whole, right, features, 24.0)


def claim(side="above", bound=0.0, metric="mc_flicker", **rest):
    return {"sweep": "s", "metric": metric, "side": side, "bound": bound} | rest


def words(claims, cells, real=None):
    real = np.zeros((20, 3)) if real is None else real
    return [verdict.word for verdict in judge(claims, {"s": cells}, SetValues(real))]


def test_verdicts_follow_the_truth_of_paired_differences():
    random = np.random.default_rng(1)
    hard = random.uniform(1, 9, NUM)  # prompts differ far more than cells do
    cells = {
        "a": made(mc_flicker=hard),
        "up": made(mc_flicker=hard + 0.2 + random.normal(0, 0.5, NUM)),
        "same": made(mc_flicker=hard + random.permutation(np.tile([-0.5, 0.5], NUM // 2))),
    }
    to = {name: {"a": -1, name: 1} for name in ("up", "same")}
    claims = [claim(of=to["up"]), claim("below", of=to["up"]), claim(of=to["same"])]
    claims += [claim("below", 0.4, of=to["up"]), claim("above", 0.4, of=to["up"])]
    expected = ["holds", "does not hold", "cannot tell", "holds", "does not hold"]
    assert words(claims, cells) == expected


def test_all_conditions_must_hold_and_one_that_fails_decides():
    step = np.random.default_rng(2).normal(1, 0.5, NUM)
    flat = np.random.default_rng(3).permutation(np.tile([-1.0, 1.0], NUM // 2))
    cells = {
        "a": made(mc_flicker=10 + 0 * step),
        "b": made(mc_flicker=10 + step),
        "c": made(mc_flicker=10 + 2 * step),
        "flat": made(mc_flicker=10 + step + flat),
    }

    def rising(*names):
        return claim(each=[{one: -1, two: 1} for one, two in zip(names, names[1:])])

    claims = [rising("a", "b", "c"), rising("a", "b", "flat"), rising("a", "c", "b")]
    assert words(claims, cells) == ["holds", "cannot tell", "does not hold"]


@pytest.mark.parametrize("side", ["above", "below"])
def test_of_conditions_that_no_resample_doubts_the_one_nearest_to_the_bound_is_shown(side):
    noise = np.random.default_rng(6).normal(0, 0.1, (3, NUM))
    sign = 1 if side == "above" else -1
    ways = {
        name: made(mc_flicker=10 + sign * shift + row)
        for name, shift, row in zip("bcd", (3.0, 1.0, 2.0), noise)
    }
    each = [{"a": -1, name: 1} for name in ways]
    cells = {"a": made(mc_flicker=np.full(NUM, 10.0))} | ways
    for order in (each, each[::-1]):
        found = found_of(claim(side, sign * 0.5, each=order), cells, None)
        assert found.figure == pytest.approx(sign * 1.0, abs=0.05)


def test_many_claims_without_an_effect_are_not_called():
    random = np.random.default_rng(4)
    cells = {"a": made()} | {f"b{i}": made(mc_flicker=random.normal(0, 1, NUM)) for i in range(60)}
    claims = [claim(of={"a": -1, name: 1}) for name in list(cells)[1:]]
    assert words(claims, cells).count("cannot tell") >= 59


def test_lost_videos_forbid_a_verdict():
    values = np.ones(NUM)
    values[:3] = np.nan
    assert words([claim(of={"a": 1})], {"a": made(mc_flicker=values)}) == ["cannot tell"]


def test_best_cell_is_chosen_on_one_half_and_judged_on_the_other():
    even = np.arange(NUM) % 2 == 0
    cells = {
        "a": made(mc_flicker=np.where(even, 1.0, 7.0)),
        "b": made(mc_flicker=np.where(even, 2.0, 5.0)),
        "c": made(mc_flicker=np.where(even, 0.0, 3.0)),
    }
    best = {"metric": "mc_flicker", "side": "highest"}
    found = found_of(claim(best=best, of={"best": 1, "before best": 1}), cells, None)
    assert found.figure == 5.0 + 7.0
    assert found.n == NUM // 2
    assert "b" in found.about


@pytest.mark.parametrize(
    ("shifts", "word"),
    [((0.6, 0.0, 0.6), "holds"), ((0.0, 0.6, 1.0), "does not hold"), ((0, 0, 0), "cannot tell")],
)
def test_minimum_of_a_distance_between_sets(shifts, word):
    random = np.random.default_rng(5)
    real = random.normal(0, 1, (600, 3))
    # Prompts share their noise, as cells of a sweep do; equal cells differ by noise of their own.
    noise = random.normal(0, 1, (NUM, 3))
    cells = {
        f"c{i}": made(noise + shift + random.normal(0, 0.05, (NUM, 3)))
        for i, shift in enumerate(shifts)
    }
    best = {"metric": "fd", "side": "lowest"}
    each = [{"best": -1, "before best": 1}, {"best": -1, "after best": 1}]
    assert words([claim(metric="fd", best=best, each=each)], cells, real) == [word]


def test_spread_by_halves_is_the_standard_error():
    """The distance to a far set is about d^2, whose error is 2 d s / sqrt(n)."""
    random = np.random.default_rng(6)
    real = random.normal(0, 1, (2000, 1)) + 50
    ratios = []
    for _ in range(20):
        cell = made(random.normal(0, 1, (NUM, 1)))
        values = SetValues(real).values("fd", cell)
        ratios.append(values[1:].std() / (2 * 50 / math.sqrt(NUM)))
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)


def test_precision_and_recall_of_halves_are_those_of_the_metric():
    random = np.random.default_rng(9)
    real, features = random.normal(0, 1, (90, 4)), random.normal(0.5, 0.8, (60, 4))
    found = [SetValues(real).values(name, made(features)) for name in ("precision", "recall")]
    draw = np.random.default_rng(0)  # the first halves, by prdc itself
    for i in range(3):
        rows = draw.choice(60, 30, replace=False) if i else slice(None)
        known = prdc(real, features[rows])
        assert [found[0][i], found[1][i]] == pytest.approx([known.precision, known.recall])


def test_recall_by_prompt_falls_where_clips_of_a_prompt_narrow():
    """Each prompt keeps a part of its clips; all prompts together still cover all there is."""
    random = np.random.default_rng(10)
    prompts = [name for name in ("a", "b", "c") for _ in range(NUM // 2)]
    honest = {name: random.uniform(0, 1, (300, 1)) for name in ("a", "b", "c")}
    cells = {}
    for name, share in (("wide", 1.0), ("narrow", 1 / 3)):
        place = np.repeat([0.0, 1.0, 2.0], NUM // 2) * share * (share < 1)
        values = {"mc_flicker": np.repeat([1.0, 2.0, 4.0], NUM // 2)}
        found = random.uniform(0, share, len(prompts)) + place
        cells[name] = by_prompt(made(found[:, None], len(prompts), **values), prompts, honest)
    assert cells["wide"].values["recall by prompt"] == pytest.approx(np.ones(3), abs=0.02)
    assert cells["narrow"].values["recall by prompt"] == pytest.approx(np.full(3, 1 / 3), abs=0.06)
    assert cells["narrow"].values["precision by prompt"] == pytest.approx(np.ones(3), abs=0.05)
    assert cells["wide"].values["mc_flicker"].tolist() == [1.0, 2.0, 4.0]
    falls = claim("below", metric="recall by prompt", of={"wide": -1, "narrow": 1})
    assert found_of(falls, cells, None).figure == pytest.approx(-2 / 3, abs=0.06)


def test_parts_of_features_weigh_the_same():
    random = np.random.default_rng(11)
    real = random.normal(0, [1, 1, 50, 50, 50], (400, 5))
    scaled = real * even(real, (2, 3))
    assert scaled[:, :2].var(axis=0).sum() == pytest.approx(1)
    assert scaled[:, 2:].var(axis=0).sum() == pytest.approx(1)


def test_the_look_alone_is_compared():
    random = np.random.default_rng(13)
    real = random.normal(0, 1, (600, 4))
    sets = SetValues(real, first_of_look=2)
    shown, look = (made(real[:NUM] + np.array(by)) for by in ([3, 3, 0, 0], [0, 0, 3, 3]))
    near, far = (sets.values("fd of look", cell)[0] for cell in (shown, look))
    assert near < 0.1
    assert far == pytest.approx(near + 18, abs=1)
    assert sets.values("fd", shown)[0] == pytest.approx(sets.values("fd", look)[0], abs=1)


def test_a_sweep_begins_at_the_seed_it_names():
    short = {"overrides": ["set={sampling.num_steps: 1, model.device: cpu}"]}
    (scale, *_), (distance, *_) = (load_sweeps([n], 2, **short) for n in ("scale", "distance"))
    assert (scale.first_seed, distance.first_seed) == (0, 512)
    pipe = load_pipeline(scale.config.model)
    first, _ = sample(pipe, scale, 0, 2, bfloat16=False)
    later = replace(scale, first_seed=1, prompts=scale.prompts[1:])
    (again,), _ = sample(pipe, later, 0, 1, bfloat16=False)
    # Of a batch of another size: a level apart at most.
    assert abs(again.astype(int) - first[1]).max() <= 1
    assert abs(again.astype(int) - first[0]).max() > 50


def test_a_caption_stands_for_the_scenes_it_is_written_for():
    """Of training clips with a certain caption's colour, so many have that colour: the same share
    as among the scenes that are drawn for it."""
    prompt = "a red circle moving left then up over a striped navy background in fading light"
    prompt += " with no dot"
    random = np.random.default_rng(12)
    scenes = [meant(prompt, random) for _ in range(3000)]
    said = {"shape": "circle", "colour": "red", "motion": "left", "texture": "striped"}
    said |= {"background": "navy", "light": "fading", "dot": "no", "then_motion": "up"}
    for name, value in said.items():
        share = np.mean([getattr(scene, name) == value for scene in scenes])
        assert share == pytest.approx(0.7, abs=0.035), name
    assert not any(scene.is_held_out or scene.then_colour or scene.faults for scene in scenes)
    assert len({scene.noise for scene in scenes}) == len(scenes)


def test_crossing_is_linear_between_points_and_stops_at_the_highest_level():
    levels, values = np.array([0.5, 0.7, 0.9, 0.6]), np.array([1.0, 3.0, 4.0, 99.0])
    assert crossing(levels, values, 0.6) == pytest.approx(2.0)
    assert crossing(levels, values, 0.85) == pytest.approx(3.75)
    assert crossing(levels, values, 0.9) == pytest.approx(4.0)
    assert math.isnan(crossing(levels, values, 0.95))
    assert math.isnan(crossing(levels, values, 0.4))


def test_equal_alignment_finds_the_change_that_was_put_in():
    """Alignment of a weighted line is a concave function of its mean strength; at equal alignment
    its flicker is 10 % below that of uniform guidance."""
    random = np.random.default_rng(7)
    easy, rough = random.normal(0, 0.05, NUM), random.lognormal(0, 0.3, NUM)

    def line(name, share, factor):
        for scale in (2.0, 3.0, 4.0, 6.0, 9.0):
            strength = 1 + share * (scale - 1)
            values = {ALIGNMENT: 0.6 + 0.04 * strength + easy}
            values["mc_flicker"] = factor * rough * strength + random.normal(0, 0.02, NUM)
            yield f"{name}-{scale:g}", made(**values)

    cells = dict([*line("uniform", 1.0, 1.0), *line("keys", 0.6, 0.9), *line("same", 0.6, 1.0)])
    cells |= {"low-1": cells["uniform-2"]}
    equal = {"at": "uniform-3", "line": "keys"}
    found = found_of(claim("below", -0.02, equal=equal), cells, None)
    # Noise of .02 on a mean of 3 over 200 prompts is far below a tenth of a percent.
    assert found.figure == pytest.approx(-0.10, abs=0.002)
    assert found.low < found.figure < found.high
    claims = [claim("below", -0.02, equal=equal | {"line": n}) for n in ("keys", "same", "low")]
    assert words(claims, cells) == ["holds", "does not hold", "cannot tell"]


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_bayes_share_is_the_sharpened_posterior(scale):
    """p(x) p(c | x)^s over the values x of an attribute, summed by hand."""
    num, wrong = 6, 0.25
    says = [1 - wrong] + [wrong / (num - 1)] * (num - 1)
    mass = [share**scale / num for share in says]
    assert bayes_share(num, scale, wrong) == pytest.approx(mass[0] / sum(mass))


def test_pieces_are_read_as_the_whole(tmp_path):
    (work, *_) = load_sweeps(["rules"], 5)
    random = np.random.default_rng(8)
    whole = made(random.normal(0, 1, (5, 3)), 5, mc_flicker=random.normal(0, 1, 5))

    def part(start, stop):
        values = {name: column[start:stop] for name, column in whole.values.items()}
        right = {name: column[start:stop] for name, column in whole.right.items()}
        write_block(tmp_path, work, start, Made(values, right, whole.features[start:stop], 24.0))

    part(3, 5)
    part(0, 2)
    assert missing(tmp_path, work) == [2]
    with pytest.raises(ValueError, match="lacks 1 of 5 .* --only rules"):
        read(tmp_path, work)
    part(1, 4)
    found = read(tmp_path, work)
    np.testing.assert_array_equal(found.values["mc_flicker"], whole.values["mc_flicker"])
    np.testing.assert_array_equal(found.features, whole.features)
    # Fewer prompts are a part of it; files with a prompt that has changed are not read.
    assert len(read(tmp_path, load_sweeps(["rules"], 3)[0]).features) == 3
    other = replace(work, prompts=(*work.prompts[:3], "a kite", work.prompts[4]))
    assert missing(tmp_path, other) == [2, 3, 4]


def test_claims_are_about_cells_that_there_are():
    claims = load_document(CONFIGS / "claims.yaml").data["claims"]
    cells = {}
    for work in load_sweeps(num=1):
        cells.setdefault(work.sweep, []).append(work.id)
    for one in claims:
        of = [one["equal"]["at"]] if "equal" in one else []
        of += [name for row in one.get("each", [one.get("of", {})]) for name in row]
        named = {name for name in of if not name.endswith("best")}
        assert named <= set(cells[one["sweep"]]), one["name"]
        assert {"name", "source", "metric", "side", "bound"} <= set(one)
    assert len({one["name"] for one in claims}) == len(claims)


def test_prompts_are_different_and_always_the_same():
    assert draw_prompts(20, held_out=True) == draw_prompts(20, held_out=True)
    assert len(set(draw_prompts(60, held_out=False))) == 60


def test_from_sampling_to_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(drawn, "REAL_CLIPS", 24)
    monkeypatch.setattr(drawn, "CLIPS_OF_PROMPT", 24)
    common = ["--only", "rules", "--prompts", "3", "--out", str(tmp_path / "runs")]
    common += ["--set", "set={sampling.num_steps: 2, model.device: cpu}"]
    assert script.main(["run", *common, "--batch", "2", "--part", "0/2"]) == 0
    assert script.main(["run", *common, "--batch", "1"]) == 0
    assert script.main(["run", *common, "--dry-run"]) == 0
    assert "to make: 0 batches, 0 videos" in capsys.readouterr().out
    assert script.main(["page", *common, "--docs", str(tmp_path)]) == 0
    text = (tmp_path / "evidence.md").read_text()
    assert text.count("**cannot tell**") == 8  # three prompts cannot tell anything
    assert "| unipc · guidance (scale 12, rescale 0.7) | 4 |" in text
    assert (tmp_path / "pictures" / "evidence.png").stat().st_size > 10_000
    assert not json.loads((tmp_path / "runs" / "settings.json").read_text())["bfloat16"]


@pytest.mark.parametrize("what", ["page", "unseen"])
def test_a_folder_without_results_is_told(what, tmp_path, capsys):
    assert script.main([what, "--out", str(tmp_path / "none")]) == 2
    assert "Type: python scripts/evidence run --out" in capsys.readouterr().err


def test_many_videos_of_a_prompt_are_one_row(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn, "REAL_CLIPS", 24)
    monkeypatch.setattr(drawn, "CLIPS_OF_PROMPT", 24)
    common = ["--only", "variety", "--prompts", "2", "--out", str(tmp_path / "runs")]
    common += ["--set", "seeds=0-6", "--set", "set={sampling.num_steps: 1, model.device: cpu}"]
    assert script.main(["run", *common]) == 0
    assert script.main(["page", *common, "--docs", str(tmp_path)]) == 0
    text = (tmp_path / "evidence.md").read_text()
    assert "2 prompts, 7 videos each" in text
    assert "| setting | passes | alignment |" in text
    assert "| precision by prompt | recall by prompt |" in text
    assert "| 2 |" in text  # a claim is of two prompts


def test_each_cell_is_made_with_its_own_model(monkeypatch, tmp_path):
    from evidence import make

    seen = []
    monkeypatch.setattr("vidcfg.pipelines.load.load_pipeline", lambda model: model.checkpoint)
    monkeypatch.setattr(make, "_measured", lambda *given: [])
    monkeypatch.setattr(make, "_keep", lambda *given: None)

    def sample(pipe, work, start, stop, *, bfloat16):
        seen.append((pipe, work.config.model.checkpoint))
        return np.zeros((stop - start, 1, 1, 1, 3), np.uint8), 1.0

    monkeypatch.setattr(make, "sample", sample)
    works = load_sweeps(["few_steps"], 3)
    tasks = make.tasks_of(works, tmp_path, batch=2)
    make.make([*tasks, *tasks[:1]], tmp_path, workers=0, bfloat16=False, say=lambda text: None)
    assert {own for _, own in seen} == {None, "few_steps"}
    assert all(pipe == own for pipe, own in seen)


def test_one_sweep_leaves_out_what_takes_a_search_for_motion():
    """Its videos are compared as sets: it keeps what the scorer says, to the last bit."""
    works = load_sweeps(["scale", "minimum"], 2)
    assert {work.sweep for work in works if work.scorer_alone} == {"minimum"}
    clips = np.random.default_rng(0).integers(0, 256, (2, 17, 32, 32, 3)).astype(np.uint8)
    prompts = list(works[0].prompts)
    whole = measure_clips(clips, prompts, 8.0)
    quick = measure_clips(clips, prompts, 8.0, scorer_alone=True)
    assert np.array_equal(quick.features, whole.features)
    for name in METRICS:
        by_scorer = name in (ALIGNMENT, "align[mini]")
        assert np.isnan(quick.values[name]).all() != by_scorer
        if by_scorer:
            assert np.array_equal(quick.values[name], whole.values[name])
