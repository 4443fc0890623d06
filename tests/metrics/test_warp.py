"""Flow, motion-compensated flicker and judder: closed forms and known faults under motion."""

import cv2
import numpy as np
import pytest
from clip_metrics import motion_trace, pair_of, records_of
from scipy.stats import chi2

from vidcfg.metrics.flow import dis_flow, follow, linear, places, textured, visible
from vidcfg.metrics.warp import block_means
from vidcfg.regress.policy import Policy


def constant_flow(x, y, *, height=128, width=128):
    return np.broadcast_to(np.float32([x, y]), (height, width, 2)).copy()


def warp_records(frames):
    return records_of(frames, "warp")


def colour(frames):
    """Three unlike channels of one."""
    gains = np.float32([1.0, 0.7, 0.4])[:, None, None]
    return (frames * gains + (1 - gains) * 0.3).astype(np.float32)


def blinking(frames, levels, *, area=slice(40, 72)):
    """A part of the picture goes up and down by so many 8-bit levels."""
    faulty = frames.copy()
    faulty[::2, :, area, area] += levels / 255
    faulty[1::2, :, area, area] -= levels / 255
    return np.clip(faulty, 0, 1)


@pytest.mark.parametrize("step", [0, 2, 5])
@pytest.mark.parametrize("amplitude", [0.0, 0.002, 0.04])
def test_alternation_is_recovered_at_every_speed(panning, step, amplitude):
    frames = panning(step, alternation=amplitude, num_frames=6)
    records = warp_records(frames)
    # The second difference of alternation by a is 2 a; gray has no colour difference.
    found = records["mc_flicker"]
    assert found.value == pytest.approx(2 * amplitude, rel=0.02, abs=4e-4)
    # Blocks at the border, into which the pan moves, are the least certain.
    assert records["mc_flicker_p95"].value == pytest.approx(2 * amplitude, rel=0.01, abs=4e-3)
    assert records["mc_coverage"].value == found.extra["coverage"] > 0.9
    assert len(found.trace) == 4


def test_colour_that_alternates_at_equal_luma_counts(texture):
    still = np.repeat(colour(texture(48, 64)[None, None].repeat(3, axis=1)), 5, axis=0)
    # Red and green against each other by BT.601 weights: luma stays.
    change = np.float32([0.0587, -0.0299, 0])[:, None, None]
    faulty = still * 0.8 + 0.1
    faulty[::2] += change
    found = warp_records(faulty.astype(np.float32))["mc_flicker"].value
    red, green = 0.0587, -0.0299
    blue_difference = -0.168736 * red - 0.331264 * green
    red_difference = 0.5 * red - 0.418688 * green
    assert found == pytest.approx(np.hypot(blue_difference, red_difference), rel=0.01)


@pytest.mark.parametrize("name", ["fade", "pan with a fade", "exposure"])
def test_steady_change_is_no_flicker(panning, name):
    frames = panning(0 if name == "fade" else 2, num_frames=9)
    gain = np.linspace(1, 0.4, 9) if "fade" in name else np.linspace(0.7, 1.2, 9)
    changing = np.clip(frames * gain[:, None, None, None], 0, 1).astype(np.float32)
    assert warp_records(changing)["mc_flicker"].value < 0.4 / 255


@pytest.mark.parametrize("step", [0, 1, 3])
def test_local_blinking_rises_with_its_amplitude_and_is_never_lost(panning, step):
    frames = 0.25 + 0.5 * panning(step, num_frames=5)
    values = []
    # Amplitudes lie a factor of four apart.
    for levels in (0, 4, 16, 60):
        records = records_of(blinking(frames, levels), "warp", "motion")
        values.append((records["mc_flicker"].value, records["mc_flicker_p95"].value))
        motion = records["dynamic_degree"].value
        # The edge of the area has texture of its own, which flow follows; the area has not.
        assert motion < step * 256 / 128 + 15, levels
    means, local = np.transpose(values)
    assert (np.diff(means) > 0).all()
    assert (np.diff(local) > 0).all()


def test_the_worst_frame_and_block_are_named(panning):
    frames = panning(0, num_frames=9, size=64)[..., :48]
    frames[5, :, 16:24, 32:40] += 0.2
    records = warp_records(np.clip(frames, 0, 1))
    worst = records["mc_flicker"].extra["worst"]
    assert (worst["frame"], worst["block"]) == (5, [16, 32, 24, 40])
    assert int(np.argmax(records["mc_flicker"].trace)) == 4


def test_a_pop_stands_out_in_its_frame(panning):
    frames = panning(2, num_frames=9)
    frames[4] = np.clip(frames[4] + 0.06, 0, 1)
    clean, faulty = warp_records(panning(2, num_frames=9)), warp_records(frames)
    # Residuals around a pop of d are d / 2, d, d / 2; the median frame has none.
    assert faulty["mc_flicker_peak"].value == pytest.approx(0.06, rel=0.1)
    assert clean["mc_flicker_peak"].value < 0.001


@pytest.mark.parametrize("fault", ["repeated", "swapped", "dropped", "frozen tail"])
def test_uneven_motion_is_judder_and_not_flicker(panning, fault):
    order = {
        "repeated": [0, 1, 2, 3, 4, 4, 5, 6, 7, 8],
        "swapped": [0, 1, 2, 3, 5, 4, 6, 7, 8, 9],
        "dropped": [0, 1, 2, 3, 4, 6, 7, 8, 9, 10],
        "frozen tail": [0, 1, 2, 3, 4, 5, 5, 5, 5, 5],
    }[fault]
    frames = panning(3, num_frames=11)
    clean, faulty = warp_records(frames[:10]), warp_records(frames[order])
    assert faulty["judder_peak"].value > clean["judder_peak"].value + 3 / 255
    assert faulty["mc_flicker"].value < clean["mc_flicker"].value + 0.4 / 255


def test_an_echo_of_the_frame_before_is_ghosting(panning):
    # Texture of one scale, so that a step and a step turned by 90 degrees change it alike.
    frames = panning(2, num_frames=9)
    echo = frames.copy()
    echo[1:] = 0.65 * frames[1:] + 0.35 * frames[:-1]
    clean, faulty = (warp_records(f)["ghosting"].value for f in (frames, echo))
    assert abs(clean) < 0.3
    assert faulty > clean + 0.05
    assert warp_records(frames[:1].repeat(5, axis=0))["ghosting"].status == "skipped"


def test_an_echo_of_the_frame_before_is_told_from_one_of_the_frame_after(texture):
    # A textured square over a standing background: what it leaves stands where it was.
    behind, square = 0.3 + 0.4 * texture(96, 120), 0.3 + 0.4 * texture(40, 40, seed=7)
    frames = np.repeat(behind[None, None], 9, axis=0)
    for t in range(9):
        frames[t, 0, 28:68, 10 + 4 * t : 50 + 4 * t] = square
    echo, ahead = frames.copy(), frames.copy()
    echo[1:] = 0.65 * frames[1:] + 0.35 * frames[:-1]
    ahead[:-1] = 0.65 * frames[:-1] + 0.35 * frames[1:]
    found = {
        name: warp_records(clip.astype(np.float32))["echo_share"].value
        for name, clip in (("clean", frames), ("echo", echo), ("ahead", ahead))
    }
    assert abs(found["clean"]) < 0.01
    assert found["echo"] > found["clean"] + 0.02
    # Backwards in time the same is the frame after.
    assert found["ahead"] < found["clean"] - 0.02
    assert warp_records(frames[:1].repeat(5, axis=0))["echo_share"].status == "skipped"


def test_content_that_turns_into_another_drifts(panning, texture):
    frames = panning(1, num_frames=17)
    other = texture(128, 128, seed=5)
    share = np.linspace(0, 0.6, 17, dtype=np.float32)[:, None, None, None]
    clean, faulty = (
        warp_records(f)["content_drift"] for f in (frames, frames * (1 - share) + share * other)
    )
    assert clean.n == faulty.n == 2
    assert clean.value < 0.02
    assert faulty.value > clean.value + 0.05


def coloured_pan(texture):
    """A pan by two pixels a frame, from red to blue: float32 [T, 3, H, W], and time of 0..1."""
    planes = 0.3 + 0.4 * np.stack([texture(48, 80, seed=i, sigma=2.0) for i in range(3)])
    planes += np.linspace(-0.2, 0.2, 80) * np.array([-1, 0, 1])[:, None, None]
    frames = np.stack([planes[:, :, 2 * t : 2 * t + 64] for t in range(9)])
    return frames.astype(np.float32), np.linspace(0, 1, 9, dtype=np.float32)[:, None, None, None]


@pytest.mark.parametrize("name", ["nothing", "exposure", "moving shade", "alternation"])
def test_neither_a_pan_nor_light_is_a_drift_of_colour(texture, name):
    frames, time = coloured_pan(texture)
    shade = 0.8 + 0.2 * np.cos(np.arange(48)[:, None] / 15 + 2 * time)
    other = {
        "nothing": frames,
        "exposure": frames * (0.6 + 0.7 * time),
        "moving shade": frames * shade,
        "alternation": frames + 0.03 * (-1) ** np.arange(9)[:, None, None, None],
    }[name]
    mean = frames.mean(axis=(2, 3))
    assert np.linalg.norm(mean[-1] - mean[0]) > 0.1
    assert warp_records(np.clip(other, 0, 1).astype(np.float32))["colour_drift"].value < 0.01


def test_a_drift_of_colour_has_its_length_under_a_pan(texture):
    frames, time = coloured_pan(texture)
    found = []
    for amount in (0.03, 0.06, 0.12):
        # At right angles to gray, from which light cannot tell it.
        cast = amount * np.array([1, 0, -1])[:, None, None]
        found.append(warp_records((frames + time * cast).astype(np.float32))["colour_drift"])
        assert found[-1].value == pytest.approx(np.sqrt(2) * amount, rel=0.15)
    assert np.diff([0, *found[-1].trace[1:]]).min() > 0
    assert (len(found[0].trace), found[0].n) == (9, 9)


@pytest.mark.parametrize("pixels", [0, 1])
def test_noise_reads_as_its_standard_deviation_on_luma(texture, pixels):
    # A quarter of the variances of 64 pixels lie below this share; whole pixels are not sampled.
    calm = np.sqrt(chi2.ppf(0.25, 63) / 64)
    wide = 0.2 + 0.6 * texture(96, 140, sigma=4.0)
    frames = np.stack([wide[:, pixels * t : pixels * t + 120] for t in range(8)])[:, None]
    frames = np.repeat(frames, 3, axis=1)
    found = [warp_records(frames.astype(np.float32))["mc_noise"].value]
    for sd in (0.004, 0.012):
        noise = sd * np.random.default_rng(3).standard_normal(frames.shape)
        on_luma = calm * sd * np.linalg.norm([0.299, 0.587, 0.114])
        found.append(warp_records((frames + noise).astype(np.float32))["mc_noise"].value)
        # Flow follows some of the noise.
        assert found[-1] == pytest.approx(on_luma, rel=0.08)
    assert found[0] < 0.1 * found[1]


def test_flicker_of_colour_is_told_from_that_of_light(texture):
    still = np.repeat(0.2 + 0.6 * texture(96, 120, sigma=4.0)[None, None], 6, axis=0)
    still = np.repeat(still, 3, axis=1)
    sign = 0.01 * (-1) ** np.arange(6)[:, None, None, None]
    light = warp_records((still + sign).astype(np.float32))
    assert light["mc_flicker"].value == pytest.approx(0.02, rel=0.01)
    assert light["mc_flicker_colour"].value < 1e-4
    # Red against green at equal luma: no luma flickers, and all that does is colour.
    shift = np.array([0.587, -0.299, 0])[:, None, None]
    colour = warp_records((still + sign * shift).astype(np.float32))
    chroma = 0.02 * np.linalg.norm(
        [-0.168736 * 0.587 + 0.331264 * 0.299, 0.5 * 0.587 + 0.418688 * 0.299]
    )
    assert colour["mc_flicker_colour"].value == pytest.approx(chroma, rel=0.01)
    assert colour["mc_flicker"].value == pytest.approx(chroma, rel=0.01)


def test_flicker_of_whole_blocks_is_no_noise(texture):
    still = np.repeat(0.2 + 0.6 * texture(96, 120, sigma=4.0)[None, None], 6, axis=0)
    blinking = still + 0.02 * (-1) ** np.arange(6)[:, None, None, None]
    records = warp_records(blinking.astype(np.float32))
    assert records["mc_flicker"].value == pytest.approx(0.04, rel=0.01)
    assert records["mc_noise"].value < 1e-4


def test_noise_has_a_value():
    frames = np.random.default_rng(0).random((5, 3, 64, 80), dtype=np.float32)
    found = warp_records(frames)["mc_flicker"]
    assert found.value > 0.04
    assert found.status == "ok"


@pytest.mark.parametrize("change", ["contrast", "gain", "unsharp", "blur"])
@pytest.mark.parametrize("alternation", [0.0, 0.01])
def test_a_stronger_or_softer_picture_is_no_flicker_to_the_gate(texture, change, alternation):
    # A pan by a third of a pixel a frame, so that frames have to be sampled in between.
    wide = 0.2 + 0.6 * texture(288, 294, sigma=4.0)
    windows = [np.ascontiguousarray(wide[:, t : t + 288]) for t in range(6)]
    frames = np.stack(
        [cv2.resize(w, (96, 96), interpolation=cv2.INTER_AREA)[None] for w in windows]
    )
    frames += alternation * (-1) ** np.arange(6)[:, None, None, None]
    blurred = np.stack([cv2.GaussianBlur(f[0], (0, 0), 1.0)[None] for f in frames])
    other = {
        "contrast": (frames - 0.5) * 1.04 + 0.5,
        "gain": frames * 1.03,
        "unsharp": frames + 0.1 * (frames - blurred),
        "blur": blurred,
    }[change]
    base, new = (warp_records(f.astype(np.float32))["mc_flicker"].value for f in (frames, other))
    rule = Policy().metrics["mc_flicker"]
    # What does flicker gets stronger with the picture, by as much.
    gain = {"contrast": 1.04, "gain": 1.03}.get(change, 1.0) if alternation else 1.0
    (ratio,), (difference,) = rule.changes(np.array([new]), np.array([base * gain]))
    assert abs(ratio) < rule.margin or abs(difference) < rule.at_least


def test_still_clip_is_exactly_zero_and_has_no_motion(texture):
    frames = np.repeat(texture(48, 64)[None, None], 4, axis=0)
    records = warp_records(frames)
    assert records["mc_flicker"].value == records["judder"].value == 0
    assert records["mc_coverage"].value == 1
    assert records["mc_flicker"].status == "static"
    assert motion_trace(frames, fps=8).max() == 0


def test_block_means_are_those_of_the_known_pixels():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((21, 35, 2)).astype(np.float32)
    is_known = rng.random((21, 35)) < 0.6
    is_known[:8, 8:16] = False
    found = block_means(values, is_known)
    assert found.shape == (2, 4, 2)
    for row in range(2):
        for column in range(4):
            part = np.s_[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            if is_known[part].sum() < 32:
                assert np.isnan(found[row, column]).all()
            else:
                mean = values[part][is_known[part]].astype(np.float64).mean(axis=0)
                np.testing.assert_allclose(found[row, column], mean, rtol=1e-4, atol=1e-6)


def test_following_a_whole_flow_gives_the_pixels_themselves(texture):
    image = np.stack([texture(20, 30), texture(20, 30, sigma=2.0)], axis=-1)
    moved, is_inside = follow(image, constant_flow(3, -2, height=20, width=30))
    np.testing.assert_array_equal(moved[2:, :27], image[:-2, 3:])
    assert is_inside[2:, :27].all()
    assert is_inside.sum() == 18 * 27


def test_texture_ignores_brightness_and_contrast(texture):
    levels = 100 + 80 * (texture(60, 90) - 0.5)
    plain, other = textured(levels), textured(1.3 * levels + 20)
    assert np.abs(plain.astype(int) - other.astype(int)).mean() < 3
    assert plain.std() > 20


def test_sampling_interpolates_linearly_and_repeats_the_border():
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    flow = np.zeros((3, 4, 2), dtype=np.float32)
    flow[0, 0] = (0.25, 0.5)
    flow[1, 3] = (5, 0)
    values = linear(image, *places(flow))
    assert values[0, 0] == 0.25 + 0.5 * 4
    assert values[1, 3] == 7
    values[0, 0] = 0
    np.testing.assert_array_equal(values, image)
    # What leaves the picture is not seen in it.
    seen = visible(flow, np.zeros_like(flow))
    assert not seen[1, 3]


def test_consistent_constant_flows_occlude_nothing_but_the_border():
    mask = visible(
        constant_flow(4, 0, height=20, width=30), constant_flow(-4, 0, height=20, width=30)
    )
    assert mask[:, :26].all()
    assert not mask[:, 26:].any()


def test_disagreeing_flows_and_motion_edges_are_masked():
    forward, backward = constant_flow(4, 0, width=40), constant_flow(-4, 0, width=40)
    backward[:, 20:25] = 0
    assert not visible(forward, backward)[:, 16:21].any()
    forward = constant_flow(0, 0, width=40)
    forward[:, 20:] = (1, 0)
    mask = visible(forward, -forward)
    assert not mask[:, 19].any()
    assert mask[:, :19].all()


@pytest.mark.parametrize("size", [32, 64, 128])
def test_flow_of_a_small_frame_is_in_its_own_pixels(panning, size):
    frames = panning(2, num_frames=2, size=size)
    flow = pair_of(frames[0], frames[1]).forward
    assert flow.shape == (size, size, 2)
    middle = flow[size // 4 : -size // 4, size // 4 : -size // 4]
    np.testing.assert_allclose(middle.mean(axis=(0, 1)), (-2, 0), atol=0.1)


def test_flow_does_not_depend_on_the_number_of_threads():
    first, second = np.random.default_rng(0).integers(0, 256, (2, 160, 200)).astype(np.uint8)
    before = cv2.getNumThreads()
    flows = []
    for threads in (1, 2, 5):
        cv2.setNumThreads(threads)
        flows.append(dis_flow(first, second))
    cv2.setNumThreads(before)
    assert all(np.array_equal(flow, flows[0]) for flow in flows)


def test_frames_too_small_for_flow_are_an_error_with_the_limit():
    frames = np.zeros((2, 3, 8, 40), dtype=np.uint8)
    with pytest.raises(ValueError, match="8 x 40, optical flow needs 12"):
        _ = pair_of(frames[0], frames[1]).forward
