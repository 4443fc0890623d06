import numpy as np
import pytest
from clip_metrics import frame_diff, motion_trace, one_record, value_of

from vidcfg.metrics.motion import frozen, jumps, motion_of


def motion_smoothness(frames):
    return value_of("motion_smoothness", frames)


def test_motion_is_the_mean_of_the_fastest_twentieth():
    flow = np.zeros((20, 30, 2), dtype=np.float32)
    flow.reshape(-1, 2)[:30] = (3, 4)
    assert motion_of(flow, fps=8) == pytest.approx(5 * 256 / 20)
    flow.reshape(-1, 2)[:15] = 0
    assert motion_of(flow, fps=8) == pytest.approx(2.5 * 256 / 20)


def test_motion_is_per_eighth_of_a_second_on_256_pixels():
    flow = np.full((64, 80, 2), (0.6, 0.8), dtype=np.float32)
    assert motion_of(flow, fps=8) == pytest.approx(4)
    assert motion_of(flow, fps=24) == pytest.approx(12)


def test_dynamic_degree_of_a_pan_is_its_speed(panning):
    trace = motion_trace(panning(3, num_frames=4), fps=8)
    # 3 px on 128 pixels are 6 px on 256; the fastest twentieth lies at the border, within 10 %.
    np.testing.assert_allclose(trace, 6, rtol=0.1)


def test_even_motion_is_smoother_than_the_same_motion_with_a_lost_frame(panning):
    frames = panning(2, num_frames=10)
    even = motion_smoothness(frames[:9])
    uneven = motion_smoothness(np.delete(frames, 4, axis=0))
    assert even > 0.995
    assert 1 - uneven > 2 * (1 - even)


def test_flicker_costs_smoothness_its_own_amplitude(panning):
    frames = panning(0, alternation=0.03, num_frames=9)
    # Odd frames lie 2 a away from the mean of their neighbours.
    assert motion_smoothness(frames) == pytest.approx(1 - 0.06, abs=1e-3)


def test_repeated_frames_are_frozen_pairs(panning):
    frames = panning(2, num_frames=10)
    repeated = np.concatenate([frames[:4], frames[3:4], frames[4:]])
    assert np.flatnonzero(frozen(frame_diff(repeated))).tolist() == [3]
    assert not frozen(frame_diff(frames)).any()


def test_clip_that_stops_halfway_is_frozen_from_there(panning):
    frames = panning(2, num_frames=12)
    frames[5:] = frames[5]
    assert np.flatnonzero(frozen(frame_diff(frames))).tolist() == [5, 6, 7, 8, 9, 10]


def test_still_clip_is_all_frozen_and_has_no_jump():
    assert frozen(np.zeros(5)).all()
    assert not jumps(np.zeros(5), np.zeros(5)).any()


def test_dropped_frames_are_jumps_and_cuts_are_not(panning, texture):
    frames = panning(2, num_frames=12)
    clean = jumps(frame_diff(frames), motion_trace(frames, fps=8))
    assert not clean.any()
    dropped = np.delete(frames, 6, axis=0)
    found = jumps(frame_diff(dropped), motion_trace(dropped, fps=8))
    assert np.flatnonzero(found).tolist() == [5]
    cut = frames.copy()
    cut[7:] = texture(128, 128, seed=9)
    found = one_record("jump_share", cut)
    assert found.trace == (*[0.0] * 6, None, *[0.0] * 4)
    assert found.extra["cuts"] == [7]


def test_pair_that_alone_loses_its_flow_is_a_jump():
    found = jumps(np.full(6, 0.05), [2.0, 2.0, None, 2.0, 2.1, 2.0])
    assert np.flatnonzero(found).tolist() == [2]
    assert not jumps(np.full(6, 0.05), [2.0, None, None, None, 2.0, 2.0]).any()


def test_alternation_is_flicker_and_no_jump(panning):
    frames = panning(0, alternation=0.05, num_frames=10)
    assert not jumps(frame_diff(frames), motion_trace(frames, fps=8)).any()


def test_single_pop_in_a_still_clip_is_a_jump():
    change = np.array([0, 0, 0.1, 0.1, 0, 0])
    assert jumps(change, np.zeros(6))[2:4].all()
    assert jumps(change, np.zeros(6)).sum() == 2
