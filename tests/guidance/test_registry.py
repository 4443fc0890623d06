"""A rule and a frame weighting from outside: one class each, and no other line."""

import itertools

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, SURFACE_BF, B, F, bits
from rule_runs import branch_videos, every_rule, one_step, plan_of, rule_of, whole_run

from vidcfg.guidance.composite import Composite
from vidcfg.guidance.frame_map import CausalMap
from vidcfg.guidance.frames import FrameWeights, frames
from vidcfg.guidance.rule import AgainstUncond, Rule, rule
from vidcfg.guidance.schedule import Schedule, schedule
from vidcfg.guidance.setting import Guidance
from vidcfg.settings.document import read_document, validate
from vidcfg.settings.errors import ConfigError

SCALES = {
    "constant": 3.0,
    "linear": {"kind": "linear", "start": 3.0, "end": 1.5},
    "cosine": {"kind": "cosine", "start": 3.0, "end": 1.5},
    "step": {"kind": "step", "start": 3.0, "end": 1.5, "switch": 0.5},
    "interval": {"kind": "interval", "value": 3.0, "from": 0.2, "to": 0.8},
    "knots": {"kind": "knots", "points": [[0.0, 3.0], [0.5, 1.0]]},
    "list": [3.0, 2.0, 1.0, 0.0, 1.5],
    "matrix": [[3.0, 1.0, 2.0, 0.0, 5.0]] * 3 + [[1.0] * 5, [0.5, 2.0, 1.5, 4.0, 1.0]],
}
FRAMES = {
    "uniform": "uniform",
    "keyframes": {"kind": "keyframes", "at": ["first"], "floor": 0.2, "reach": 3},
    "decay": {"kind": "decay", "end": 0.1},
    "ramp": {"kind": "ramp", "first": 0.0, "last": 1.0},
    "triangle": "triangle",
    "trapezoid": {"kind": "trapezoid", "edge": 0.3},
    "list": [0.0, 1.0, 0.5, 0.25] * 4 + [1.0],
    "knots": {"kind": "knots", "points": [[0.0, 1.0], [1.0, 0.5]]},
}
OURS = [{*SCALES}, {*FRAMES}]


@pytest.fixture
def half():
    """The rule of design.md, in its own words."""

    @rule("half")
    class Half(AgainstUncond):
        """cond_f + (strength_f - 1) / 2 (cond_f - uncond_f). Strength 1 is off. Source: a test."""

        def deltas(self, strength, weight):
            return {"cond": 1 + (strength - 1) / 2}

    yield Half
    del Rule.kinds["half"]


@pytest.fixture
def odd():
    """Full weight on every other frame."""

    @frames("odd")
    class Odd(FrameWeights):
        """0 on even frames."""

        def weights(self, num_frames, *, fps=None):
            return np.arange(num_frames) % 2 * 1.0

    yield Odd
    del FrameWeights.kinds["odd"]


@pytest.fixture
def given():
    """A frame weighting and a schedule that return what a test hands them."""
    made = {}

    @frames("given")
    class GivenWeights(FrameWeights):
        def weights(self, num_frames, *, fps=None):
            return made["frames"](num_frames)

    @schedule("given")
    class GivenScales(Schedule):
        scales = ()

        def numbers(self):
            return (3.0,)

        def values(self, position_K):
            return made["scale"](len(position_K))

    yield made
    del FrameWeights.kinds["given"], Schedule.kinds["given"]


def half_of(c, u, s):
    return c + (s - 1) / 2 * (c - u)


@pytest.mark.parametrize("axes", LAYOUTS)
def test_rule_from_outside_follows_its_formula_in_every_layout(half, axes):
    videos = branch_videos(half())
    guided, trace, _ = one_step(half(), videos, SURFACE_BF, axes=axes)
    for b, f in itertools.product(range(B), range(F)):
        c, u = (videos[n][b, f].double() for n in ("cond", "uncond"))
        want = half_of(c, u, SURFACE_BF[b, f])
        # float32 roundings of values up to 60
        torch.testing.assert_close(guided[b, f].double(), want, rtol=1e-5, atol=1e-5)
        same = torch.equal(bits(guided[b, f]), bits(videos["cond"][b, f]))
        assert same == (SURFACE_BF[b, f] == 1)
    assert trace.evaluations == {"cond": B, "uncond": B}


@pytest.mark.parametrize(("scale", "weights"), itertools.product(SCALES, FRAMES))
def test_rule_from_outside_takes_every_schedule_and_frame_weighting(half, scale, weights):
    run = {"num_steps": 5, "num_frames": 17, "frame_map": CausalMap(4)}
    guidance = Guidance(scale=SCALES[scale], frames=FRAMES[weights], method="half")
    surface = guidance.surface(**run)
    plain = Guidance(scale=SCALES[scale], frames=FRAMES[weights]).surface(**run)
    assert np.array_equal(surface.strength_KF, plain.strength_KF)
    x = torch.randn(B, F, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    rows = [surface.strength_KF] * B, [surface.weights_KF] * B
    _, traces, _ = whole_run([guidance] * B, *rows, x)
    plan = plan_of(guidance.method, *rows, starts=range(B))
    assert [t.evaluations for t in traces] == list(plan.per_step)


def test_rule_from_outside_is_added_to_others(half):
    pag = every_rule()["pag"]
    both = Composite((half(), pag))
    videos = branch_videos(both)
    strengths = np.stack([SURFACE_BF, SURFACE_BF[:, ::-1]], axis=1)
    guided, trace, _ = one_step(both, videos, strengths)
    c, u, p = (videos[n].double() for n in both.branches)
    s = torch.from_numpy(strengths)[..., None, None, None]
    want = half_of(c, u, s[:, 0]) + (s[:, 1] - 1) * (c - p)
    # float32 roundings of terms up to 80
    torch.testing.assert_close(guided.double(), want, rtol=1e-5, atol=1e-4)
    assert rule_of(both).order() == ("method:cond + (half - cond) + (pag - cond)",)


def test_kinds_from_outside_are_words_of_the_yaml_with_the_same_errors(half, odd):
    def read(text):
        return validate(read_document(text, source="a.yaml"), Guidance)

    guidance = read("scale: 3\nframes: odd\nmethod: {kind: half, convention: w}")
    assert guidance.method == half(convention="w")
    assert Guidance(**guidance.to_dict()) == guidance
    with pytest.raises(ConfigError) as caught:
        read("scale: 3\nmethod: halv\nframes: {kind: od}")
    first, second = str(caught.value).split("\n")
    assert first.startswith("a.yaml:2: method is 'halv', but must be one of ")
    assert first.endswith("half. Did you mean 'half'?")
    assert second.startswith("a.yaml:3: frames.kind is 'od', but must be one of uniform, ")
    assert second.endswith("odd. Did you mean 'odd'?")
    with pytest.raises(ConfigError) as caught:
        read("scale: 3\nmethod: {kind: half, converntion: w}")
    assert str(caught.value) == (
        "a.yaml:2: unknown key 'method.converntion'. Did you mean 'method.convention'?"
    )


@pytest.mark.parametrize(
    ("deltas", "message"),
    [
        (lambda s, w: {"uncond": 1 - s}, "gives a delta of uncond, but it moves uncond to"),
        (
            lambda s, w: {"cond": s, "negative": s - 1},
            "gives a delta of negative, but it moves un",
        ),
        (lambda s, w: {"cond": 2.0}, r"gives a delta of shape \(\). Give one for each strength"),
        (lambda s, w: {"cond": 0.9 * s}, "changes a frame of strength 1 and weight 0"),
        (lambda s, w: {"cond": s * np.nan}, "changes a frame of strength 1 and weight 0"),
        (lambda s, w: {"cond": s + 0.5 * w}, "acts at a scale of 1, .* can_be_off = False"),
        (lambda s, w: None, "gives deltas that are None. Return a dictionary"),
    ],
)
def test_a_class_that_is_no_rule_is_refused_before_anything_runs(half, deltas, message):
    half.deltas = lambda self, strength, weight: deltas(strength, weight)
    with pytest.raises(ConfigError, match=f"^Guidance: method half {message}"):
        Guidance(3.0, method="half")
    with pytest.raises(ConfigError, match=f"^Guidance: method.1 half {message}"):
        Guidance(3.0, method=["cfg", "half"])


def test_weights_from_outside_are_asked_of_the_clip_at_hand_and_of_no_other(given):
    # In a clip of 30 frames it would be uniform, and frame 40 is in none of them.
    given["frames"] = lambda count: [1.0] * 40 + [0.25] + [0.0] * (count - 41)
    run = {"num_steps": 2, "num_frames": 53, "frame_map": CausalMap(4)}
    surface = Guidance(5.0, frames="given").surface(**run)
    np.testing.assert_array_equal(surface.strength_KT, [[5.0] * 40 + [2.0] + [1.0] * 12] * 2)


@pytest.mark.parametrize(
    ("what", "gives", "message"),
    [
        ("frames", lambda count: np.ones(1), r"frames gives an array of shape \(1,\). Return 9"),
        ("frames", lambda count: np.ones((9, 9)), r"shape \(9, 9\). Return 9, one per frame"),
        ("frames", lambda count: [0.5] * 4 + [np.nan] * 5, "frame 4 the weight nan. Return a num"),
        ("frames", lambda count: np.arange(9) / 8 - 1 / 8, "frame 0 the weight -0.125. Return"),
        ("scale", lambda count: 3.0, r"scale gives an array of shape \(\). Return 2, one per st"),
        ("scale", lambda count: np.ones((3, count)), r"shape \(3, 2\). Return 2, one per step"),
        ("scale", lambda count: np.array([3, np.inf]), "step 1 the scale inf. Return a finite"),
    ],
)
def test_numbers_from_outside_that_are_none_of_a_clip_or_run_are_refused(
    given, what, gives, message
):
    given[what] = gives
    guidance = Guidance(**({"scale": 3.0} | {what: "given"}))
    with pytest.raises(ValueError, match=message):
        guidance.surface(num_steps=2, num_frames=9, frame_map=CausalMap(4))


def test_a_name_that_is_taken_is_refused(half):
    with pytest.raises(ValueError, match="'half' is taken by .*Half. Use another name"):

        @rule("half")
        class Other(AgainstUncond):
            pass
