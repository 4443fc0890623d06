"""Streaming meters against the plain functions on the whole clip."""

from collections import Counter

import numpy as np
import pytest
from clip_metrics import meter_of, pair_of, plain_values
from clip_metrics import records_of as records_of_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from vidcfg.media.video import Video
from vidcfg.metrics import appearance, flicker, motion, warp
from vidcfg.metrics import flow as flow_module
from vidcfg.metrics.flow import View, search_size
from vidcfg.metrics.frames import light
from vidcfg.metrics.meters import measure, measure_video
from vidcfg.metrics.metric import WEIGHT_FREE, metrics_of
from vidcfg.metrics.record import ClipInfo

CLIP = ClipInfo(num_frames=10, height=32, width=40, fps=16.0)


METRICS = {metric.name: metric for family in WEIGHT_FREE for metric in metrics_of(family)}


def records_of(frames, clip=CLIP):
    return records_of_clip(frames, clip=clip)


def small_clip(panning, **options):
    return panning(1, num_frames=10, size=40, **options)[:, :, :32]


def test_every_catalogued_metric_is_measured(panning):
    records = records_of(small_clip(panning, alternation=0.02))
    assert set(records) == set(METRICS)
    # Of 10 frames none can be told to be held.
    assert records["held_share"].status == "skipped"
    assert {r.status for name, r in records.items() if name != "held_share"} == {"ok"}
    assert all(METRICS[n].protocol in r.protocol for n, r in records.items())


def test_clip_in_memory_scores_as_its_frames(panning):
    frames = small_clip(panning, alternation=0.02)
    made = measure_video(Video(frames, 16.0, source="tensor"), stride=2, families=("flicker",))
    expected = records_of(frames)
    for record in made:
        assert record.subject == "tensor"
        assert (record.clip.num_frames, record.clip.width, record.clip.fps) == (10, 40, 16.0)
        if "pulse" not in record.name:
            assert record.value == expected[record.name].value
    assert "stride=2" in made[-1].protocol
    assert len(measure_video(Video(frames, 16.0))) == len(METRICS)


def test_streamed_values_are_those_of_the_whole_clip(panning):
    frames = small_clip(panning, alternation=0.02)
    found = {name: record.value for name, record in records_of(frames).items()}
    difference = np.diff(frames.astype(np.float64), axis=0)
    change, energy = np.abs(difference).mean((1, 2, 3)), (difference**2).mean((1, 2, 3))
    flows = [pair_of(a, b).forward for a, b in zip(frames, frames[1:])]
    moved = np.array([motion.motion_of(flow, fps=8) for flow in flows])
    triples = zip(frames[:-2:2], frames[2::2], frames[1:-1:2])
    paths = [warp.path_residual(pair_of(*t)) for t in zip(frames, frames[2:], frames[1:])]
    sharp = [light(f).sharpness for f in frames]
    distances = flicker.distances_of(frames)
    frequency, power = flicker.temporal_spectrum(distances, flicker.periodic_hann(10))
    steps = [warp.colour_step(pair_of(a, b)) for a, b in zip(frames, frames[1:])]
    colours = np.cumsum([np.zeros(3), *steps], axis=0)
    contrasts = [light(f).contrast for f in frames]
    expected = plain_values(frames) | {
        "luminance_flicker": flicker.luminance_flicker(frames.mean(axis=(1, 2, 3))),
        "hf_share": power[frequency >= 0.25].sum() / power[1:].sum(),
        "stride_pulse": flicker.stride_pulse(energy, stride=4),
        "mc_flicker": mean_of_blocks(paths, "flicker"),
        "mc_flicker_p95": np.percentile(np.nanmean([p.flicker for p in paths], axis=0), 95),
        "mc_flicker_peak": peak_of_blocks(paths, "flicker"),
        "mc_flicker_colour": 0.0,
        "mc_noise": np.mean([p.noise for p in paths]),
        "mc_coverage": np.mean([p.covered for p in paths]),
        "judder": mean_of_blocks(paths, "judder"),
        "ghosting": np.log(np.divide(*np.sum([p.steps for p in paths], axis=0)[::-1])),
        "echo_share": echo_share_of(paths),
        "content_drift": drift_along(flows, frames),
        "judder_peak": peak_of_blocks(paths, "judder"),
        "dynamic_degree": 2 * moved.mean(),
        "motion_smoothness": np.mean([motion.smoothness(pair_of(*t)) for t in triples]),
        "freeze_share": motion.frozen(change).mean(),
        "jump_share": motion.jumps(change, moved).mean(),
        "cuts": 0,
        "saturation": 0.0,
        "clipped_share": 0.0,
        "contrast": np.mean(contrasts),
        "sharpness": np.mean(sharp),
        "sharpness_pulse": np.mean(appearance.sharpness_pulse(sharp)),
        "contrast_drift": appearance.contrast_drift(contrasts),
        "brightness_drift": np.polyfit(range(10), frames.mean(axis=(1, 2, 3)), 1)[0] * 9,
        "colour_drift": np.linalg.norm(np.polyfit(range(10), colours, 1)[0]) * 9,
    }
    assert found.pop("held_share") is None  # of 10 frames
    assert set(expected) == set(found)
    # Chained flow is sampled linearly here, cubically there.
    drift = expected.pop("content_drift")
    assert found.pop("content_drift") == pytest.approx(drift, rel=0.1)
    for name, value in expected.items():
        # Luma weights of gray frames sum to one within float32.
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name


def drift_along(flows, frames):
    """Texture lost over the first 8 frames, at their own size (which is that of the search)."""
    textures = [View(f).search.astype(float) - 128 for f in (frames[0], frames[8])]
    searched = [pair_of(a, b).there for a, b in zip(frames[:8], frames[1:9])]
    height, width = textures[0].shape
    points = np.stack(np.mgrid[:height, :width], axis=-1).reshape(-1, 2)[:, ::-1].astype(float)
    start, is_inside = points.copy(), np.ones(len(points), dtype=bool)
    for flow in searched:
        at = [np.clip(points[:, i], 0, limit - 1) for i, limit in ((1, height), (0, width))]
        points = points + np.stack(
            [map_coordinates(flow[..., i], at, order=1) for i in (0, 1)], axis=-1
        )
        is_inside &= (
            abs(points - (np.array([width, height]) - 1) / 2) <= (width / 2, height / 2)
        ).all(1)
    there = map_coordinates(textures[1], points.T[::-1], order=3, mode="nearest")
    here = textures[0][start[:, 1].astype(int), start[:, 0].astype(int)]
    a, b = here[is_inside], there[is_inside]
    return 1 - a @ b / np.sqrt((a @ a) * (b @ b))


def echo_share_of(paths):
    (a, b), (c, d) = np.sum([p.echoes for p in paths], axis=0)
    return a / b - c / d


def mean_of_blocks(paths, which):
    return np.mean([np.nanmean(getattr(p, which)) for p in paths])


def peak_of_blocks(paths, which):
    means = [np.nanmean(getattr(p, which)) for p in paths]
    return np.max(means) - np.median(means)


def test_traces_say_which_frame_flickers(panning):
    frames = small_clip(panning)
    frames[6] += 0.1
    records = records_of(frames)
    # Entry t of a trace of inner frames is frame t + 1.
    assert np.argmax(records["mc_flicker"].trace) == 5
    assert records["mc_flicker"].extra["worst"]["frame"] == 6
    for name in ("frame_diff", "stride_pulse"):
        assert set(np.argsort(records[name].trace)[-2:]) == {5, 6}, name
    assert np.argmax(np.diff(records["luminance_flicker"].trace)) == 5


def test_still_clip_is_static_and_not_perfect(texture):
    frames = np.repeat(texture(32, 40)[None, None], 10, axis=0).repeat(3, axis=1)
    records = records_of(frames)
    for name in ("frame_diff", "second_diff", "dynamic_degree", "freeze_share"):
        assert records[name].status == "static", name
    assert records["frame_diff"].value == 0
    assert records["dynamic_degree"].value == 0
    assert records["freeze_share"].value == 1
    assert records["hf_share"].value is None


@pytest.mark.parametrize(("num_frames", "missing"), [(1, "frame_diff"), (2, "second_diff")])
def test_short_clips_skip_what_they_are_too_short_for(panning, num_frames, missing):
    records = records_of(small_clip(panning)[:num_frames])
    assert set(records) == set(METRICS)
    assert records[missing].status == "skipped"
    assert records["contrast"].value is not None
    assert all(r.skipped_reason for r in records.values() if r.value is None)


def test_frames_too_small_for_flow_keep_their_other_metrics():
    frames = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 10)).astype(np.uint8)
    records = records_of(frames)
    assert "12 pixels" in records["mc_flicker"].skipped_reason
    assert "12 pixels" in records["dynamic_degree"].skipped_reason
    assert records["second_diff"].status == "ok"


def test_frames_out_of_range_are_refused_before_they_are_measured():
    frames = np.full((3, 3, 16, 16), 2.0, dtype=np.float32)
    with pytest.raises(ValueError, match=r"have to be in \[0, 1\]"):
        measure(frames, [meter_of("appearance")])


@given(st.integers(2, 12), st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_reversed_clips_have_the_same_differences(num_frames, seed):
    frames = np.random.default_rng(seed).random((num_frames, 3, 6, 7), dtype=np.float32)
    forth, back = (meter_of("flicker"), meter_of("flicker"))
    measure(frames, [forth])
    measure(frames[::-1], [back])
    for one, other in zip(forth.finish()[:4], back.finish()[:4]):
        assert (one.value is None) == (other.value is None)
        assert one.value is None or one.value == pytest.approx(other.value, rel=1e-9)


def test_meters_hold_a_bounded_number_of_frames():
    import weakref

    rng, given, alive = np.random.default_rng(0), [], []

    def frames():
        for _ in range(60):
            frame = rng.integers(0, 256, (3, 16, 20)).astype(np.uint8)
            given.append(weakref.ref(frame))
            yield frame
            alive.append(sum(ref() is not None for ref in given))

    measure(frames(), [meter_of()])
    # One segment of the spectrum is 32 frames, the longest pair 9.
    assert max(alive) <= 38


def test_a_frame_is_converted_once_and_each_flow_is_searched_once(monkeypatch):
    frames, counts = np.random.default_rng(0).integers(0, 256, (7, 3, 16, 20), np.uint8), Counter()
    for name in ("to_unit", "dis_flow"):
        plain = getattr(flow_module, name)

        def counted(*given, name=name, plain=plain):
            counts[name] += 1
            return plain(*given)

        monkeypatch.setattr(flow_module, name, counted)
    measure(frames, [meter_of(), meter_of()])
    # Six pairs of neighbours are searched both ways, and one way what smoothness interpolates.
    assert counts == {"to_unit": 7, "dis_flow": 2 * 6 + 3}


@pytest.mark.parametrize(
    ("size", "searched"),
    [((32, 48), (96, 144)), ((128, 300), (128, 300)), ((720, 1280), (360, 640))]
    + [((1080, 1920), (360, 640)), ((2160, 3840), (432, 768)), ((50, 40), (150, 120))],
)
def test_flow_is_searched_at_a_middling_size(size, searched):
    assert search_size(*size) == searched


def test_flow_of_a_large_frame_is_in_its_own_pixels(texture):
    wide = texture(800, 816, sigma=6.0)
    pair = pair_of(wide[None, :, :800], wide[None, :, 8:808])
    middle = pair.forward[200:-200, 200:-200]
    np.testing.assert_allclose(middle.mean(axis=(0, 1)), (-8, 0), atol=0.1)
    assert pair.coverage > 0.95
    # Motion is taken where flow was found, in the same units.
    there, full = (motion.motion_of(flow, fps=8) for flow in (pair.step, pair.forward))
    assert pair.step.shape[:2] == (400, 400)
    assert there == pytest.approx(full, rel=0.01)


def test_clips_of_one_and_two_frames_lack_frames_and_not_motion(panning):
    for num_frames in (1, 2):
        records = records_of(small_clip(panning)[:num_frames])
        for name in ("ghosting", "echo_share", "mc_flicker"):
            assert records[name].skipped_reason == "the clip has too few frames", name
    still = records_of(small_clip(panning)[:1].repeat(3, axis=0))
    assert "nothing moves" in still["ghosting"].skipped_reason
