"""FFmpeg's own test sources with known faults: each metric reacts to its fault, not to motion."""

from functools import cache, lru_cache

import av
import numpy as np
import pytest
from clip_metrics import records_of

SOURCES = {
    "testsrc2": "size=128x96:rate=8",
    "mandelbrot": "size=128x96:rate=8:start_scale=0.5:end_scale=0.05",
    "life": "size=128x96:rate=8:mold=10:ratio=0.2:seed=1:death_color=#101040:life_color=#ffff80",
}
NUM_FRAMES = 17
LEVEL = 8 / 255


@lru_cache(maxsize=8)
def clip(name, *, num_frames=NUM_FRAMES, options=None):
    """Frames [T, H, W, 3] in 40..215, so that faults do not clip."""
    graph = av.filter.Graph()
    chain = [graph.add(name, options or SOURCES[name]), graph.add("format", "pix_fmts=rgb24")]
    chain.append(graph.add("buffersink"))
    for one, following in zip(chain, chain[1:]):
        one.link_to(following)
    graph.configure()
    frames = np.stack([graph.vpull().to_ndarray(format="rgb24") for _ in range(num_frames)])
    return (40 + frames * (175 / 255)).astype(np.uint8)


def pan(step):
    """A window that moves over one wide picture of the Mandelbrot set."""
    wide = clip("mandelbrot", num_frames=1, options="size=320x96:start_scale=0.8")[0]
    return np.stack([wide[:, 20 + t * step : 148 + t * step] for t in range(NUM_FRAMES)])


def shifted(frames, levels):
    return np.clip(frames.astype(int) + np.asarray(levels), 0, 255).astype(np.uint8)


def alternating(frames):
    return shifted(frames, 8 * (-1) ** np.arange(len(frames))[:, None, None, None])


def noisy(frames):
    noise = np.random.default_rng(0).normal(0, 8, frames.shape)
    return shifted(frames, noise.round().astype(int))


def drifting(frames):
    ramp = np.linspace(0, 40, len(frames))[:, None, None, None] * np.array([1, 0, -1])
    return shifted(frames, ramp.round().astype(int))


def pulsing(frames):
    """Brightness jumps up or down where a latent frame of stride 4 begins."""
    steps = [12 * (-1) ** (t // 4) if t % 4 == 0 else 0 for t in range(len(frames) - 1)]
    return shifted(frames, np.cumsum([0, *steps])[:, None, None, None])


def score(frames, *families):
    return records_of(frames.transpose(0, 3, 1, 2), *families)


@cache
def clean_score(source, *families):
    return score(clip(source), *families)


def value(frames, name, family):
    return score(frames, family)[name].value


@pytest.mark.parametrize("source", SOURCES)
def test_alternating_brightness_shows_in_every_flicker_metric(source):
    clean = clean_score(source, "flicker", "warp")
    faulty = score(alternating(clip(source)), "flicker", "warp")
    # In `life` every cell changes by itself, and adds to the alternation as a random term does.
    for name, share in (("mc_flicker", 0.6), ("second_diff", 1.2), ("luminance_flicker", 0.85)):
        rise = faulty[name].value - clean[name].value
        amplitude = LEVEL if name == "luminance_flicker" else 2 * LEVEL
        assert rise > share * amplitude, name
    assert faulty["hf_share"].value > clean["hf_share"].value
    assert faulty["vbench_temporal_flickering"].value < clean["vbench_temporal_flickering"].value


@pytest.fixture(scope="module")
def still_flicker():
    return score(alternating(pan(0)), "flicker", "warp")


@pytest.mark.parametrize("step", [1, 3])
def test_clean_pan_does_not_look_worse_than_flicker(step, still_flicker):
    moving, flicker = score(pan(step), "flicker", "warp"), still_flicker
    assert moving["mc_flicker"].value < 0.2 * flicker["mc_flicker"].value
    assert moving["luminance_flicker"].value < 0.2 * flicker["luminance_flicker"].value
    both = score(alternating(pan(step)), "warp")["mc_flicker"].value
    assert both == pytest.approx(flicker["mc_flicker"].value, rel=0.2)


def test_motion_is_seen_as_motion():
    still, slow, fast = (score(pan(step), "motion")["dynamic_degree"] for step in (0, 1, 3))
    assert (still.value, still.status) == (0, "static")
    # 1 px on 96 pixels is 2.67 px on 256.
    assert slow.value == pytest.approx(256 / 96, rel=0.3)
    assert fast.value == pytest.approx(3 * 256 / 96, rel=0.3)


@pytest.mark.parametrize("source", SOURCES)
def test_noise_raises_differences_and_their_fast_share(source):
    clean = clean_score(source, "flicker", "warp")
    faulty = score(noisy(clip(source)), "flicker", "warp")
    for name in ("frame_diff", "second_diff", "hf_share", "mc_flicker"):
        assert faulty[name].value > clean[name].value, name


@pytest.mark.parametrize("source", SOURCES)
def test_repeated_frames_are_counted(source):
    frames = clip(source).copy()
    clean = clean_score(source, "motion")["freeze_share"]
    frames[[5, 11]] = frames[[4, 10]]
    faulty = score(frames, "motion")["freeze_share"]
    assert faulty.value - clean.value >= 2 / 16 - 1e-9
    assert faulty.trace[4] == faulty.trace[10] == 1


@pytest.mark.parametrize("source", SOURCES)
def test_freeze_is_caught_and_costs_dynamic_degree(source):
    frames = clip(source).copy()
    clean = clean_score(source, "motion") | clean_score(source, "flicker", "warp")
    frames[9:] = frames[9]
    faulty = score(frames, "motion", "flicker")
    assert faulty["freeze_share"].value >= 7 / 16
    assert faulty["dynamic_degree"].value < 0.75 * clean["dynamic_degree"].value
    # A frozen video wins on raw flicker: that is why it never travels without its motion.
    assert faulty["frame_diff"].value < clean["frame_diff"].value


@pytest.mark.parametrize("step", [2, 4])
def test_dropped_frames_are_jumps_in_even_motion(step):
    frames = pan(step)
    clean = score(frames, "motion")
    faulty = score(np.delete(frames, [7, 8], axis=0), "motion")
    assert clean["jump_share"].value == 0
    assert np.flatnonzero(faulty["jump_share"].trace).tolist() == [6]
    assert faulty["motion_smoothness"].value < clean["motion_smoothness"].value


@pytest.mark.parametrize("source", SOURCES)
def test_colour_drift_has_the_length_of_the_injected_way(source):
    way = np.sqrt(2) * 40 / 255
    assert value(drifting(clip(source)), "colour_drift", "warp") == pytest.approx(way, abs=0.06)
    assert value(clip(source), "colour_drift", "warp") < 0.4 * way
    clean, faulty = (score(f, "flicker") for f in (clip(source), drifting(clip(source))))
    assert faulty["luminance_flicker"].value < clean["luminance_flicker"].value + 0.003


@pytest.mark.parametrize("source", ["testsrc2", "mandelbrot"])
def test_steps_at_latent_boundaries_raise_the_pulse_and_alternation_does_not(source):
    frames = clip(source)
    clean, pulse, flicker = (
        score(f, "flicker") for f in (frames, pulsing(frames), alternating(frames))
    )
    assert pulse["stride_pulse"].value > clean["stride_pulse"].value + 0.04
    assert abs(flicker["stride_pulse"].value) < abs(clean["stride_pulse"].value) + 0.05


def test_contrast_ramp_is_found_under_motion():
    frames = pan(2)
    gain = np.geomspace(1, 1.5, len(frames))[:, None, None, None]
    stronger = np.clip(90 + 0.6 * (frames - 90.0) * gain, 0, 255).round().astype(np.uint8)
    weaker = np.clip(90 + 0.6 * (frames - 90.0), 0, 255).round().astype(np.uint8)
    rise = value(stronger, "contrast_drift", "appearance") - value(
        weaker, "contrast_drift", "appearance"
    )
    assert rise == pytest.approx(np.log(1.5), abs=0.03)
