"""Conversions between kinds of prediction, from the definitions of the kinds themselves."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcfg.guidance.prediction import (
    KINDS,
    coefficients,
    convert,
)

LEVELS = {
    "flow": (0.7, 0.3),
    "variance_preserving": (0.8, 0.6),
    "variance_exploding": (1.0, 14.6),
}
PAIRS = list(product(KINDS, KINDS))


def definitions(x0, eps, alpha, sigma):
    """Each kind from its definition, independent of any conversion."""
    return {
        "epsilon": eps,
        "v_prediction": alpha * eps - sigma * x0,
        "flow": eps - x0,
        "flow_reversed": x0 - eps,
        "sample": x0,
    }


@pytest.fixture
def pair():
    rng = np.random.default_rng(5)
    return rng.standard_normal((2, 3, 5)), rng.standard_normal((2, 3, 5))


@pytest.mark.parametrize(("from_kind", "to_kind"), PAIRS)
@pytest.mark.parametrize("level", LEVELS)
def test_every_kind_becomes_every_other(pair, from_kind, to_kind, level):
    x0, eps = pair
    alpha, sigma = LEVELS[level]
    kinds = definitions(x0, eps, alpha, sigma)
    x_t = alpha * x0 + sigma * eps
    converted = convert(kinds[from_kind], x_t, from_kind, to_kind, alpha=alpha, sigma=sigma)
    # float64 with coefficients up to about sigma^2 = 213: rounding stays below 1e-12.
    np.testing.assert_allclose(converted, kinds[to_kind], atol=1e-12)


@pytest.mark.parametrize(("from_kind", "to_kind"), PAIRS)
def test_there_and_back_is_the_same_prediction(pair, from_kind, to_kind):
    p, x_t = pair
    level = {"alpha": 0.35, "sigma": 0.65}
    there = convert(p, x_t, from_kind, to_kind, **level)
    back = convert(there, x_t, to_kind, from_kind, **level)
    # A pass each way with coefficients below 4 in float64.
    np.testing.assert_allclose(back, p, atol=1e-14)


def test_closed_forms_of_the_coefficients():
    alpha, sigma = 0.8, 0.6
    expected = {
        "epsilon": (1 / alpha, -sigma / alpha),
        "v_prediction": (alpha, -sigma),
        "flow": (1 / (alpha + sigma), -sigma / (alpha + sigma)),
        "sample": (0.0, 1.0),
    }
    inverse = {
        "epsilon": (1 / sigma, -alpha / sigma),
        "v_prediction": (alpha / sigma, -1 / sigma),
        "flow": (1 / sigma, -(alpha + sigma) / sigma),
        "sample": (0.0, 1.0),
    }
    for kind in expected:
        assert coefficients(kind, "sample", alpha, sigma) == pytest.approx(
            expected[kind], rel=1e-15
        )
        assert coefficients("sample", kind, alpha, sigma) == pytest.approx(
            inverse[kind], rel=1e-15
        )


def test_flow_matching_gives_x0_as_x_minus_sigma_v():
    assert coefficients("flow", "sample", 0.75, 0.25) == (1.0, -0.25)
    assert coefficients("flow_reversed", "sample", 0.75, 0.25) == (1.0, 0.25)


def test_scaled_model_input_of_an_edm_scheduler_is_variance_preserving():
    # Published form: x0 = x / (s^2 + 1) - v s / sqrt(s^2 + 1) for the unscaled x = x0 + s eps.
    s, x, v = 3.0, 1.7, -0.4
    norm = math.sqrt(s * s + 1)
    a, b = coefficients("v_prediction", "sample", 1 / norm, s / norm)
    assert a * (x / norm) + b * v == pytest.approx(x / (s * s + 1) - v * s / norm, rel=1e-14)


@settings(deadline=None)
@given(sigma=st.floats(0.001, 0.999), scale=st.floats(-5, 15), kinds=st.sampled_from(PAIRS))
def test_classifier_free_guidance_is_the_same_in_every_kind(sigma, scale, kinds):
    from_kind, to_kind = kinds
    x_t, cond, uncond = 0.7, -1.3, 0.4
    level = {"alpha": 1 - sigma, "sigma": sigma}
    guided = convert(uncond + scale * (cond - uncond), x_t, from_kind, to_kind, **level)
    c, u = (convert(p, x_t, from_kind, to_kind, **level) for p in (cond, uncond))
    # Coefficients reach 1 / 0.001, and the guided value 30 times that.
    assert guided == pytest.approx(u + scale * (c - u), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("from_kind", "to_kind"), PAIRS)
@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.0), (0.0, 1.0)])
def test_at_the_ends_a_conversion_is_exact_or_says_why_not(from_kind, to_kind, alpha, sigma):
    x0, eps = 0.3, -1.1
    kinds = definitions(x0, eps, alpha, sigma)
    unknown = "epsilon" if alpha == 0 else "sample"
    arguments = (kinds[from_kind], alpha * x0 + sigma * eps, from_kind, to_kind)
    # v is -x0 in pure noise and eps without noise: all that a kind lacks there is the other part.
    if from_kind == unknown and to_kind != unknown:
        with pytest.raises(ValueError, match=f"cannot turn {from_kind} into {to_kind}.*is 0"):
            convert(*arguments, alpha=alpha, sigma=sigma)
    else:
        value = convert(*arguments, alpha=alpha, sigma=sigma)
        assert value == pytest.approx(kinds[to_kind], rel=1e-15)


def test_the_same_kind_returns_the_prediction_itself():
    p = torch.randn(2, 3)
    assert convert(p, torch.randn(2, 3), "epsilon", "epsilon", alpha=0.0, sigma=1.0) is p


def test_tensors_keep_their_dtype_and_take_a_level_per_sample():
    x0, eps = torch.randn(2, 2, 3, 5).unbind(0)
    alpha, sigma = torch.tensor([0.9, 0.2])[:, None, None], torch.tensor([0.1, 0.8])[:, None, None]
    kinds = definitions(x0, eps, alpha, sigma)
    x_t = alpha * x0 + sigma * eps
    for from_kind, to_kind in PAIRS:
        value = convert(kinds[from_kind], x_t, from_kind, to_kind, alpha=alpha, sigma=sigma)
        assert value.dtype == torch.float32
        # float32 with coefficients up to 10.
        torch.testing.assert_close(value, kinds[to_kind], atol=2e-5, rtol=1e-5)


def test_one_sample_without_noise_is_refused_for_the_whole_batch():
    with pytest.raises(ValueError, match="sigma is 0"):
        coefficients("sample", "flow", torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.5]))


def test_an_unknown_kind_lists_the_known_ones():
    with pytest.raises(ValueError, match="kind is 'eps'. Use one of: epsilon, v_prediction, flow"):
        coefficients("eps", "sample", 0.5, 0.5)
