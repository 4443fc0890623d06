"""What holds for all rules, alone and together: bits, counts, independence, sums."""

import itertools

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, SURFACE_BF, B, F, bits, video
from rule_runs import (
    LEVEL,
    branch_text,
    branch_videos,
    every_rule,
    in_groups,
    one_step,
    rule_of,
    whole_run,
)

from vidcfg.guidance.composite import Composite
from vidcfg.guidance.frame_map import CausalMap
from vidcfg.guidance.frames import FrameWeights
from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.limits import Rescale
from vidcfg.guidance.passes import StepInputs
from vidcfg.guidance.plan import Memory, SampleRows, plan_run
from vidcfg.guidance.prediction import convert
from vidcfg.guidance.rules.apg import Apg
from vidcfg.guidance.rules.delta_reuse import DeltaReuse
from vidcfg.guidance.rules.zero_star import ZeroStar
from vidcfg.guidance.schedule import Schedule
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.step import GuidedDenoiser

RULES = every_rule()
NAMES = sorted(RULES)
NO_ZERO_INIT = RULES | {"zero_star": ZeroStar(zero_init_steps=0)}
K = 5


def videos_for(*methods):
    return {n: v for method in methods for n, v in branch_videos(method).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_frame_that_is_off_is_cond_to_the_bit(name, dtype):
    method = NO_ZERO_INIT[name]
    videos = videos_for(method)
    videos["cond"][:, :, 0, 0] = -0.0
    weight = np.where(SURFACE_BF == 1, 0.0, 0.7)
    for statistics in ("frame", "clip"):
        guided, _, _ = one_step(
            method, videos, SURFACE_BF, weight, dtype=dtype, statistics=statistics
        )
        cond = videos["cond"].to(dtype)
        for b, f in itertools.product(range(B), range(F)):
            same = torch.equal(bits(guided[b, f]), bits(cond[b, f]))
            assert same == (SURFACE_BF[b, f] == 1), (b, f)


@pytest.mark.parametrize("name", NAMES)
def test_clip_that_is_off_runs_cond_alone(name):
    method = NO_ZERO_INIT[name]
    videos = videos_for(method)
    guided, trace, calls = one_step(method, videos, np.ones((B, F)), np.zeros((B, F)))
    assert calls == [("cond",) * B]
    assert trace.evaluations == {"cond": B}
    assert torch.equal(guided, videos["cond"])


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_that_a_scale_of_one_turns_off_runs_cond_alone_at_full_weight(name):
    method, one = NO_ZERO_INIT[name], np.ones((B, F))
    if getattr(method, "can_be_off", False):
        guided, trace, _ = one_step(method, videos_for(method), one, one)
        assert trace.evaluations == {"cond": B}
        assert torch.equal(guided, videos_for(method)["cond"])


def awkward(kind, method):
    videos = videos_for(method)
    for name in videos:
        if kind == "all zero":
            videos[name] = torch.zeros_like(videos[name])
        elif kind == "all constant":
            videos[name] = torch.full_like(videos[name], 3.0)
        elif kind == "all equal":
            videos[name] = videos["cond"].clone()
        elif kind == ("cond zero" if name == "cond" else "others zero"):
            videos[name] = torch.zeros_like(videos[name])
    return videos


@pytest.mark.parametrize("statistics", ["frame", "clip"])
@pytest.mark.parametrize("name", NAMES)
def test_no_prediction_gives_nan(name, statistics):
    method = NO_ZERO_INIT[name]
    for kind in ("all zero", "all constant", "all equal", "others zero", "cond zero"):
        videos = awkward(kind, method)
        for noisy in (video(3), torch.zeros_like(video(3))):
            # The second has a sample all at 0 and one all at 1.
            for strength in (SURFACE_BF, np.arange(B)[:, None] % 2 + 0 * SURFACE_BF):
                guided, trace, _ = one_step(
                    method, videos, strength, noisy=noisy, statistics=statistics
                )
                assert torch.isfinite(guided).all(), kind
                assert np.isfinite(trace.std_guided_BF).all(), kind


@pytest.mark.parametrize("name", NAMES)
def test_another_sample_does_not_enter_a_result(name):
    method = NO_ZERO_INIT[name]
    videos = videos_for(method)
    strength = np.stack([SURFACE_BF[0]] * 2)
    guided, _, _ = one_step(method, videos, strength, 0.5 * np.ones((B, F)))
    loud = {n: torch.stack([v[0], 100 * v[1]]) for n, v in videos.items()}
    other, _, _ = one_step(method, loud, strength, 0.5 * np.ones((B, F)))
    assert torch.equal(bits(other[0]), bits(guided[0]))


@pytest.mark.parametrize("axes", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_every_layout_gives_the_same_video(name, axes):
    method = NO_ZERO_INIT[name]
    videos = videos_for(method)
    weight = np.where(SURFACE_BF == 1, 0.0, 0.7)
    plain, _, _ = one_step(method, videos, SURFACE_BF, weight, axes="BFCHW")
    guided, _, _ = one_step(method, videos, SURFACE_BF, weight, axes=axes)
    # sums over a frame are taken in another order: float32 roundings of values up to 80
    torch.testing.assert_close(guided, plain, rtol=1e-5, atol=1e-4)


def two_terms(name):
    first = NO_ZERO_INIT["cfg"]
    second = NO_ZERO_INIT[name]
    if second.sources().get("uncond", "negative") != "negative":
        first = NO_ZERO_INIT["pag"]
    return first, second


@pytest.mark.parametrize("statistics", ["frame", "clip"])
@pytest.mark.parametrize("name", NAMES)
def test_terms_add_what_each_does_to_cond(name, statistics):
    first, second = two_terms(name)
    videos = videos_for(first, second)
    strengths = np.stack([SURFACE_BF, SURFACE_BF[:, ::-1]], axis=1)
    weights = np.where(strengths == 1, 0.0, 0.6)
    together, trace, calls = one_step(
        Composite((first, second)), videos, strengths, weights, statistics=statistics
    )
    cond = videos["cond"].double()
    want = cond.clone()
    for i, method in enumerate((first, second)):
        rows = (strengths[:, i], weights[:, i])
        alone, _, _ = one_step(method, videos, *rows, statistics=statistics)
        want += alone.double() - cond
    # float32 roundings of terms up to 80
    torch.testing.assert_close(together.double(), want, rtol=1e-5, atol=1e-4)
    assert np.array_equal(trace.strength_BF, strengths[:, 0])
    assert [list(t) for t in trace.terms] == [
        list(rule_of(Composite((first, second))).term_names())
    ] * B
    assert np.array_equal(list(trace.terms[1].values())[1], strengths[1, 1])
    off = (strengths == 1).all(axis=1)
    for b, f in zip(*np.nonzero(off)):
        assert torch.equal(bits(together[b, f]), bits(videos["cond"][b, f]))


@pytest.mark.parametrize("name", NAMES)
def test_term_that_is_off_leaves_the_other_and_its_evaluations(name):
    first, second = two_terms(name)
    videos = videos_for(first, second)
    strengths = np.stack([np.ones_like(SURFACE_BF), SURFACE_BF], axis=1)
    weights = np.stack([np.zeros_like(SURFACE_BF), np.where(SURFACE_BF == 1, 0, 0.6)], axis=1)
    together, trace, _ = one_step(Composite((first, second)), videos, strengths, weights)
    alone, single, _ = one_step(second, videos, strengths[:, 1], weights[:, 1])
    # written from another branch: float32 roundings of values up to 80
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)
    assert trace.evaluations == single.evaluations


def random_run(seed, rules):
    """Strengths with exact zeros and ones among them; the first two samples are equal."""
    random = np.random.default_rng(seed)
    rows, weights = [], []
    for rule in rules:
        terms = len(getattr(rule.method, "terms", (None,)))
        shape = (K, terms, F) if terms > 1 else (K, F)
        weight = random.choice([0.0, 1.0, 0.5], size=shape)
        weight[random.integers(K)] = 0.0
        rows.append(np.where(weight == 0, 1.0, random.choice([0.0, 3.0, 1.7], size=shape)))
        weights.append(weight)
    rows[1], weights[1] = rows[0], weights[0]
    x = video(seed, batch=len(rules))
    x[1] = x[0]
    return rows, weights, x


def planned(rules, rows, weights, **how):
    texts = {name: branch_text(name) for rule in rules for name in rule.method.branches}
    starts = [0, 0, *range(2, len(rules))]
    samples = SampleRows(tuple(rules), rows, weights)
    return plan_run(samples, starts=starts, texts=[texts] * len(rules), **how)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_evaluations_of_rule_and_composition_are_those_planned(name, share):
    method = RULES[name]
    pair = Composite(two_terms(name))
    rules = [rule_of(method), rule_of(method), rule_of(method), rule_of(pair)]
    rules += [rule_of(Composite((RULES["cfg"], RULES["stg"], RULES["slg"])))]
    rows, weights, x = random_run(5, rules)
    _, traces, calls = whole_run(rules, rows, weights, x, share=share)
    plan = planned(rules, rows, weights, share=share)
    assert plan.is_upper_bound == (name == "adaptive_stop")
    assert [t.evaluations for t in traces] == list(plan.per_step)
    assert sum(t.calls for t in traces) == len(calls)


@pytest.mark.parametrize("name", NAMES)
def test_run_of_a_sample_does_not_depend_on_the_batch_it_is_in(name):
    method = RULES[name]
    rules = [rule_of(method)] * 3 + [rule_of(Composite(two_terms(name)))]
    rows, weights, x = random_run(8, rules)
    together, _, _ = whole_run(rules, rows, weights, x)
    apart, _, _ = whole_run(rules, rows, weights, x, share=False, mode="batched")
    assert torch.equal(bits(apart), bits(together))
    for b in range(len(rules)):
        one = slice(b, b + 1)
        alone, _, _ = whole_run(rules[one], rows[one], weights[one], x[one])
        assert torch.equal(bits(alone), bits(together[one]))


def test_isolated_branches_come_last_each_in_calls_of_its_own():
    method = Composite((RULES["cfg"], RULES["stg"], RULES["slg"]))
    stg, slg = (next(iter(RULES[n].isolated)) for n in ("stg", "slg"))
    videos = videos_for(*method.terms)
    strength = np.full((B, 3, F), 2.0)
    for mode, plain in (
        ("sequential", [("cond",) * B, ("uncond",) * B]),
        ("batched", [("uncond",) * B + ("cond",) * B]),
    ):
        rules = [rule_of(method)] * B
        _, _, calls = whole_run(
            rules,
            strength[:, None],
            np.ones_like(strength)[:, None],
            video(3),
            mode=mode,
            share=False,
        )
        assert calls == [*plain, (stg,) * B, (slg,) * B]
    assert method.isolated == {stg, slg}
    assert set(videos) == {"cond", "uncond", stg, slg}


def test_terms_that_read_a_branch_from_different_texts_are_refused():
    with pytest.raises(ValueError, match=r"cfg and dual, whose uncond branch sees different"):
        Composite((RULES["cfg"], RULES["dual"]))


def test_branches_whose_coefficients_cancel_are_left_out():
    method = Composite((RULES["cfg"], RULES["pag"]))
    pag = next(iter(RULES["pag"].isolated))
    half = np.full((2, F), 0.5)
    assert method.required(half, np.ones((2, F))) == {"uncond", pag}
    assert method.required(np.ones((2, F)), np.zeros((2, F))) == {"cond"}
    ends = np.stack([np.zeros(F), np.ones(F)])
    assert method.required(ends, np.ones((2, F))) == {"uncond"}


def test_limits_follow_the_sum_of_the_terms():
    method = Composite((RULES["cfg"], RULES["pag"]))
    videos = videos_for(*method.terms)
    strengths = np.full((B, 2, F), 3.0)
    plain, _, _ = one_step(method, videos, strengths)
    limited, trace, _ = one_step(method, videos, strengths, rescale=Rescale(1.0))
    for b, f in itertools.product(range(B), range(F)):
        ratio = videos["cond"][b, f].double().std() / plain[b, f].double().std()
        torch.testing.assert_close(
            limited[b, f].double(), plain[b, f].double() * ratio, rtol=1e-5, atol=1e-5
        )
    np.testing.assert_allclose(trace.std_guided_BF, trace.std_cond_BF, rtol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow_reversed", "flow"])
@pytest.mark.parametrize("name", ["apg", "zero_star", "tcfg", "mambo", "renorm"])
def test_x0_space_gives_the_same_video_whatever_the_model_predicts(name, prediction):
    options = {"momentum": 0.0} if name == "apg" else {}
    method = NO_ZERO_INIT[name].replace(space="x0", **options)
    noisy, level = video(99), {"alpha": LEVEL[0], "sigma": LEVEL[1]}
    x0 = {n: v.double() for n, v in videos_for(method).items()}
    results = []
    for kind in ("sample", prediction):
        videos = {
            n: convert(v, noisy.double(), "sample", kind, **level).float() for n, v in x0.items()
        }
        guided, _, _ = one_step(method, videos, SURFACE_BF, noisy=noisy, prediction=kind)
        results.append(convert(guided.double(), noisy.double(), kind, "sample", **level))
    # float32 predictions of size 10, turned into x0 and back at sigma / alpha near 2
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=5e-4)


def test_x0_space_without_a_noise_level_says_what_to_use():
    with pytest.raises(ValueError, match=r"apg in x0 needs the noise level .*space: prediction"):
        one_step(RULES["apg"], videos_for(RULES["apg"]), SURFACE_BF, level=None)


def test_memory_is_needed_by_rules_that_remember():
    samples = SampleRows((rule_of(DeltaReuse()),), np.full((1, K, F), 2.0), np.ones((1, K, F)))
    inputs = StepInputs({"x": video(0, batch=1)}, {}, num_frames=F, step=0)
    guided_by = GuidedDenoiser(FrameLayout("BFCHW"), samples)
    with pytest.raises(AssertionError, match="needs memory"):
        guided_by.predict(inputs, lambda rows, names: None)


def test_reference_helper_turns_x0_back():
    videos = videos_for(RULES["cfg"])
    noisy = video(99)
    want = in_groups(lambda c, u, s, w: u + s * (c - u), videos, SURFACE_BF, False)
    got = in_groups(
        lambda c, u, s, w: u + s * (c - u), videos, SURFACE_BF, True, level=(*LEVEL, noisy)
    )
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_term_that_is_off_on_a_step_remembers_nothing_of_it():
    apg = Apg(1.0, None, 0.5, "prediction")
    method = Composite((apg, RULES["pag"]))
    steps = [videos_for(method), {n: 2 * v for n, v in videos_for(method).items()}]
    rows = [np.full((B, 2, F), 3.0) for _ in range(3)]
    rows[1][:, 0] = 1.0
    memory, found = Memory(), []
    for k, videos in enumerate((steps[0], steps[1], steps[0])):
        guided, trace, _ = one_step(method, videos, rows[k], memory=memory)
        found.append(guided)
    c, u = (steps[0][n].double() for n in ("cond", "uncond"))
    p = steps[0][next(iter(RULES["pag"].isolated))].double()
    want = c + 2 * (1.5 * (c - u)) + 2 * (c - p)
    # float32 roundings of values up to 30
    torch.testing.assert_close(found[2].double(), want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_samples_with_other_terms_on_do_not_change_each_other(name):
    method = Composite(two_terms(name))
    videos = videos_for(*method.terms)
    strength = np.full((B, 2, F), 3.0)
    strength[1, 1] = 1.0
    weight = np.where(strength == 1, 0.0, 0.5)
    together, _, _ = one_step(method, videos, strength, weight)
    for b in range(B):
        both = np.stack([strength[b]] * B), np.stack([weight[b]] * B)
        alone, _, _ = one_step(method, videos, *both)
        assert torch.equal(bits(together[b]), bits(alone[b]))


SCHEDULE_VALUES = {
    "constant": (3.0,),
    "linear": (3.0, 1.5),
    "cosine": (3.0, 1.5),
    "step": (3.0, 1.5, 0.5),
    "interval": (3.0, 0.2, 0.8),
    "knots": ([[0.0, 3.0], [0.5, 1.0]],),
    "list": ([3.0, 2.0, 1.0, 0.0, 1.5],),
    "matrix": (
        [[3.0, 1.0, 2.0], [0.5, 2.5, 1.0], [1.0, 1.0, 1.0], [4.0, 0.0, 1.5], [2.0, 2.0, 3.0]],
    ),
}
FRAME_VALUES = {
    "uniform": (),
    "keyframes": (["first"], 0.2, 3),
    "decay": (0.1,),
    "ramp": (0.0, 1.0),
    "triangle": (),
    "trapezoid": (0.3,),
    "list": ([1.0, 0.5, 0.0, 0.25, 0.5, 1.0, 0.0, 0.75, 0.5],),
    "knots": ([[0.0, 1.0], [1.0, 0.5]],),
}


@pytest.mark.parametrize("frames", list(FrameWeights.kinds))
@pytest.mark.parametrize("schedule", list(Schedule.kinds))
def test_every_schedule_and_frame_mode_reaches_every_term(schedule, frames):
    run = {"num_steps": 5, "num_frames": 9, "frame_map": CausalMap(4)}
    scale = Schedule.kinds[schedule](*SCHEDULE_VALUES[schedule])
    weights = FrameWeights.kinds[frames](*FRAME_VALUES[frames])
    own = RULES["stg"].replace(scale=scale, frames=weights)
    rule = Guidance(scale=2.0, method=[RULES["cfg"], own])
    plain, own = (term.surface(**run) for term in rule.terms)
    want = Guidance(scale=scale, frames=weights).surface(**run)
    assert (plain.strength_KF == 2).all()
    assert np.array_equal(own.strength_KF, want.strength_KF)
    samples = SampleRows.of([rule], [(plain, own)])
    assert np.array_equal(samples.strength_BKF[0][:, 1], want.strength_KF)
    assert np.array_equal(samples.weights_BKF[0][:, 1], want.weights_KF)
    assert samples.num_steps == 5
