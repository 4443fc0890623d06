"""Schedules against closed forms and plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcfg.guidance.schedule import (
    Constant,
    Cosine,
    IntervalSchedule,
    Knots,
    Linear,
    Listed,
    Schedule,
    StepSchedule,
    positions,
    progress,
    sigma_progress,
)

SCALES = st.floats(-20, 20)


def scale_per_step(schedule, *, num_steps, sigmas=None):
    """The scale of each step, or the first thing that cannot work."""
    position_K = positions(schedule.over, num_steps, sigmas)
    for finding in schedule.check_run(position_K):
        raise ValueError(str(finding))
    return schedule.values(position_K)


@pytest.mark.parametrize("num_steps", [1, 2, 11, 50])
def test_progress_runs_from_zero_to_one_in_equal_steps(num_steps):
    expected = [0.0] if num_steps == 1 else [k / (num_steps - 1) for k in range(num_steps)]
    assert progress(num_steps).tolist() == expected


def test_progress_of_eleven_steps_is_the_decimals_that_a_user_types():
    assert progress(11).tolist() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


@pytest.mark.parametrize("bad", [0, -3, True])
def test_progress_needs_a_step(bad):
    with pytest.raises(ValueError, match="num_steps is"):
        progress(bad)


def test_every_kind_of_the_design_has_one_class():
    names = ["constant", "linear", "cosine", "step", "interval", "knots", "list", "matrix"]
    assert list(Schedule.kinds) == names


def test_constant_is_its_value_on_every_step():
    assert scale_per_step(Constant(6), num_steps=3).tolist() == [6.0, 6.0, 6.0]


def test_linear_is_a_straight_line_between_its_ends():
    assert scale_per_step(Linear(10, 2), num_steps=5).tolist() == [10.0, 8.0, 6.0, 4.0, 2.0]


def test_cosine_is_half_a_cosine_period():
    loop = [2 + (10 - 2) * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(7)]
    values = scale_per_step(Cosine(10.0, 2.0), num_steps=7)
    # One rounding of the cosine and one of the sum.
    np.testing.assert_allclose(values, loop, rtol=1e-15, atol=0)
    assert values[0] == 10.0
    assert values[3] == pytest.approx(6.0, rel=1e-15)
    assert values[-1] == 2.0


@settings(deadline=None)
@given(start=SCALES, end=SCALES, num_steps=st.integers(2, 40))
def test_linear_and_cosine_meet_their_ends_to_the_bit_and_stay_between(start, end, num_steps):
    for kind in (Linear, Cosine):
        values = scale_per_step(kind(start, end), num_steps=num_steps)
        assert values[0] == start
        assert values[-1] == end
        assert values.min() >= min(start, end)
        assert values.max() <= max(start, end)


def test_step_keeps_start_while_progress_is_below_the_switch():
    values = scale_per_step(StepSchedule(7, 3, 0.3), num_steps=11)
    assert values.tolist() == [7.0] * 3 + [3.0] * 8


def test_interval_includes_both_ends_and_is_off_outside():
    values = scale_per_step(IntervalSchedule(5, 0.3, 0.6), num_steps=11)
    assert values.tolist() == [1.0] * 3 + [5.0] * 4 + [1.0] * 4


def test_interval_that_holds_no_step_names_the_nearest_one():
    with pytest.raises(ValueError, match=r"none of the 4 steps.* are at 0\.3333 and 0\.6667"):
        scale_per_step(IntervalSchedule(5.0, 0.4, 0.45), num_steps=4)


def test_interval_the_wrong_way_round_is_refused():
    with pytest.raises(ValueError, match="to is 0.2, but must not be below 'from', 0.8. Swap"):
        IntervalSchedule(5.0, 0.8, 0.2)


def test_knots_are_linear_between_points_and_hold_beyond_them():
    values = scale_per_step(Knots([[0.2, 1.0], [0.6, 9.0]]), num_steps=6)
    np.testing.assert_allclose(values, [1, 1, 5, 9, 9, 9], rtol=1e-15)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "a list of at least one item"),
        ([[0.0, 1.0], [0.0, 2.0]], "must increase, and 0 follows 0"),
        ([[0.5, 1.0], [0.2, 2.0]], "must increase, and 0.2 follows 0.5"),
        ([[0.0, 1.0, 2.0]], r"points.0 is \[0.0, 1.0, 2.0\]"),
        ([[1.5, 1.0]], "points.0.0 is 1.5.*from 0 to 1"),
        ([[0.5, math.nan]], "points.0.1 is nan"),
    ],
)
def test_bad_knots_say_what_is_wrong(points, message):
    with pytest.raises(ValueError, match=message):
        Knots(points)


def test_list_gives_its_numbers_and_refuses_another_length():
    assert scale_per_step(Listed([3, 1.5, 1]), num_steps=3).tolist() == [3.0, 1.5, 1.0]
    with pytest.raises(ValueError, match="3 numbers, but sampling.num_steps is 4.*kind: knots"):
        scale_per_step(Listed([3.0, 1.5, 1.0]), num_steps=4)


def test_list_cannot_follow_sigma():
    with pytest.raises(ValueError, match="Write 'progress', or use kind: knots"):
        Listed([3.0, 1.0], over="sigma")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, True])
def test_scales_that_are_no_finite_number_are_refused(bad):
    with pytest.raises(ValueError, match="Constant: value is"):
        Constant(bad)


def test_unknown_axis_lists_the_allowed_ones():
    with pytest.raises(ValueError, match="over is 'time', but must be one of progress, sigma"):
        Linear(1.0, 2.0, over="time")


def test_sigma_progress_is_the_share_of_noise_that_is_gone():
    assert sigma_progress([8.0, 6.0, 2.0, 0.0]).tolist() == [0.0, 0.25, 0.75, 1.0]


def test_a_schedule_over_sigma_follows_the_noise_and_not_the_step_count():
    sigmas = [1.0, 0.9, 0.7, 0.2]
    values = scale_per_step(Linear(9.0, 1.0, over="sigma"), num_steps=4, sigmas=sigmas)
    loop = [9.0 + (1.0 - 9.0) * (1.0 - sigma / sigmas[0]) for sigma in sigmas]
    np.testing.assert_allclose(values, loop, rtol=1e-15)
    by_progress = scale_per_step(Linear(9.0, 1.0), num_steps=4, sigmas=sigmas)
    assert not np.allclose(values, by_progress)


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        (None, "Pass sigmas=scheduler.sigmas"),
        ([1.0, 0.5, 0.0], "3 levels, but there are 2 steps.*leave out the final 0"),
        ([0.2, 1.0], "must start at its highest level"),
        ([1.0, -0.5], "must start at its highest level"),
        ([1.0, math.nan], "must start at its highest level"),
        ([0.0, 0.0], "must start at its highest level"),
    ],
)
def test_sigmas_that_cannot_be_followed_say_why(sigmas, message):
    with pytest.raises(ValueError, match=message):
        scale_per_step(Linear(9.0, 1.0, over="sigma"), num_steps=2, sigmas=sigmas)


def test_the_w_convention_raises_every_scale_by_one_and_no_position():
    assert Constant(5.0).raised() == Constant(6.0)
    assert Linear(4.0, 0.0, over="sigma").raised() == Linear(5.0, 1.0, over="sigma")
    assert Cosine(4.0, 0.0).raised() == Cosine(5.0, 1.0)
    assert StepSchedule(4.0, 0.0, 0.5).raised() == StepSchedule(5.0, 1.0, 0.5)
    assert Knots([[0.0, 4.0], [1.0, 0.0]]).raised() == Knots([[0.0, 5.0], [1.0, 1.0]])
    assert Listed([4.0, 0.0]).raised() == Listed([5.0, 1.0])


def test_an_interval_in_the_w_convention_is_off_outside():
    values = scale_per_step(IntervalSchedule(4.0, 0.5, 1.0).raised(), num_steps=3)
    assert values.tolist() == [1.0, 5.0, 5.0]


@settings(deadline=None)
@given(value=SCALES, switch=st.floats(0, 1), num_steps=st.integers(1, 30))
def test_step_equals_a_loop_over_the_steps(value, switch, num_steps):
    expected = []
    for k in range(num_steps):
        p = k / (num_steps - 1) if num_steps > 1 else 0.0
        expected.append(value if p < switch else 1.0)
    assert (
        scale_per_step(StepSchedule(value, 1.0, switch), num_steps=num_steps).tolist() == expected
    )
