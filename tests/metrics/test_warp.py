"""Warping: closed forms with the true flow, and the recovery of injected flicker under motion."""

import cv2
import numpy as np
import pytest
from clip_metrics import frame_diff, motion_trace, warp_residual

from vidcfg.metrics.flow import Pair, dis_flow, sample, visible, warp
from vidcfg.metrics.meters import Meter, measure
from vidcfg.metrics.warp import RESIDUALS, Residual, clip_residual, masked_residual


def constant_flow(x, y, *, height=128, width=128):
    return np.broadcast_to(np.float32([x, y]), (height, width, 2)).copy()


def warped(frame, flow):
    """The frame moved by the flow, and where it came from inside."""
    return warp(frame, flow), sample(np.ascontiguousarray(frame.transpose(1, 2, 0)), flow)[1]


def test_integer_pan_with_the_true_flow_leaves_nothing(texture):
    wide = texture(128, 131)
    first, second = wide[None, :, :128], wide[None, :, 3:]
    # Content moves left by 3: what is at x in the first frame is at x - 3 in the second.
    moved, inside = warped(second, constant_flow(-3, 0))
    found = masked_residual(first, moved, inside)
    assert found.squared <= 1e-12
    assert found.coverage == 125 / 128
    assert np.mean((second - first) ** 2) > 1e-4


def test_half_pixel_warp_costs_the_interpolation_error_only():
    y, x = np.mgrid[0:128, 0:128].astype(np.float32)
    pattern = lambda dx, dy: 0.5 + 0.25 * (np.sin((x + dx) / 2) + np.cos((y + dy) / 2.5))  # noqa: E731
    moved, inside = warped(pattern(-2.5, -1.5)[None], constant_flow(2.5, 1.5))
    error = masked_residual(pattern(0, 0)[None], moved, inside)
    # Linear interpolation midway damps sin(w x) by 1 - cos(w / 2).
    damp_x, damp_y = 1 - np.cos(1 / 4), 1 - np.cos(1 / 5)
    expected = 0.25**2 / 2 * (damp_x**2 + damp_y**2)
    assert error.squared == pytest.approx(expected, rel=0.05)
    assert error.squared < 1.4e-4


def test_sampling_interpolates_linearly_and_repeats_the_border():
    image = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    flow = np.zeros((3, 4, 2), dtype=np.float32)
    flow[0, 0] = (0.25, 0.5)
    flow[1, 3] = (5, 0)
    values, inside = sample(image, flow)
    assert values[0, 0, 0] == 0.25 + 0.5 * 4
    assert values[1, 3, 0] == 7
    assert not inside[1, 3]
    assert inside.sum() == 11


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


@pytest.mark.parametrize(
    ("step", "amplitude", "least_coverage"),
    [
        (0, 0.0, 1.0),
        (0, 0.04, 0.95),
        (2, 0.0, 0.95),
        (2, 0.04, 0.95),
        (6, 0.0, 0.92),
        (6, 0.04, 0.92),
        (2, 0.01, 0.95),
    ],
)
def test_injected_flicker_is_recovered_at_every_speed(panning, step, amplitude, least_coverage):
    frames = panning(step, alternation=amplitude, num_frames=6)
    found = clip_residual(warp_residual(frames))
    # DIS finds a pan to about 0.01 px; 2 % of the flicker, or a few 1e-4 without any.
    assert found.absolute == pytest.approx(2 * amplitude, rel=0.02, abs=3e-4)
    assert found.coverage >= least_coverage
    speed = np.median(np.hypot(*np.moveaxis(Pair(frames[0], frames[1]).forward, -1, 0)))
    assert speed == pytest.approx(step, abs=0.05)


def test_clean_pan_looks_worse_than_flicker_raw_and_better_compensated(panning):
    pan, flicker = panning(6, num_frames=5), panning(0, alternation=0.02, num_frames=5)
    assert frame_diff(pan).mean() > frame_diff(flicker).mean()
    residuals = [clip_residual(warp_residual(clip)).absolute for clip in (pan, flicker)]
    assert residuals[0] < 0.02 * residuals[1]


def test_random_noise_is_invalid_and_not_a_number():
    frames = np.random.default_rng(0).random((5, 3, 64, 80), dtype=np.float32)
    found = clip_residual(warp_residual(frames))
    assert found.absolute is None
    assert found.coverage < 0.5
    assert "50% are needed" in found.reason


def test_still_clip_is_exactly_zero_and_has_no_motion(texture):
    frames = np.repeat(texture(48, 64)[None, None], 4, axis=0)
    found = clip_residual(warp_residual(frames))
    assert (found.absolute, found.squared, found.coverage) == (0, 0, 1)
    assert motion_trace(frames, fps=8).max() == 0


def test_residual_counts_each_channel_once():
    first = np.zeros((3, 4, 6), dtype=np.float32)
    warped = first.copy()
    warped[0] = 0.3
    mask = np.ones((4, 6), dtype=bool)
    found = masked_residual(first, warped, mask)
    assert found.absolute == pytest.approx(0.1)
    assert found.squared == pytest.approx(0.03)
    mask[:3] = False
    assert masked_residual(first, warped, mask) == Residual(None, None, 0.25)


@pytest.mark.parametrize(
    ("num_frames", "lag", "starts"),
    [(17, 8, [0, 8]), (16, 8, [0]), (5, 1, [0, 1, 2, 3]), (1, 1, [])],
)
def test_long_pairs_do_not_overlap(num_frames, lag, starts):
    quantity, found = RESIDUALS[lag], []

    class Starts(Meter):
        lags = (lag,)

        def add_frame(self, frame):
            pass

        def add_pair(self, pair):
            found.extend([pair.start] if pair.start % quantity.step == 0 else [])

        def finish(self, clip):
            return []

    measure(np.zeros((num_frames, 3, 4, 5), dtype=np.uint8), [Starts()])
    assert found == starts


def test_clip_with_half_of_its_pairs_lost_is_invalid():
    good, lost = Residual(0.1, 0.02, 0.9), Residual(None, None, 0.2)
    assert clip_residual([good, good, lost]).absolute == pytest.approx(0.1)
    assert clip_residual([good, lost]).absolute is None


@pytest.mark.parametrize("size", [32, 64, 128])
def test_flow_of_a_small_frame_is_in_its_own_pixels(panning, size):
    frames = panning(2, num_frames=2, size=size)
    flow = Pair(frames[0], frames[1]).forward
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
        _ = Pair(frames[0], frames[1]).forward
