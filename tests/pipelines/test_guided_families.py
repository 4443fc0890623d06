"""Real pipeline code, tiny random weights: uniform guidance is the stock pipeline's, bit for bit.

A random surface is compared with a float64 loop over frames written here.
"""

import numpy as np
import pytest
import torch
from guided_runs import LAYOUTS, frame_of, in_bfloat16, record_inside, rows
from tiny_pipelines import BUILDERS, generators

import vidcfg

IMAGES = LAYOUTS["image"].split()
families = pytest.mark.parametrize("name", list(BUILDERS))
videos = pytest.mark.parametrize("name", [name for name in BUILDERS if name not in IMAGES])


def scales(tiny) -> list[float]:
    """One per step: two to four."""
    return [5.5, 0.4, 2.5, 3.5][: tiny.shape["num_inference_steps"]]


@families
def test_uniform_scale_equals_the_stock_pipeline_bit_for_bit(name):
    tiny = BUILDERS[name]()
    stock = tiny.stock(4.3, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=4.3), **tiny.negative) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, stock)
    evaluations = 2 * tiny.num_calls
    assert trace.evaluations == {"cond": evaluations, "uncond": evaluations}
    assert trace.evaluations == trace.planned.evaluations


@families
def test_scale_one_runs_one_pass_and_equals_the_unguided_pipeline(name):
    tiny = BUILDERS[name]()
    plain = tiny.unguided(generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=1.0), **tiny.negative) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, plain)
    assert trace.evaluations == {"cond": 2 * tiny.num_calls} == trace.planned.evaluations


@families
def test_random_surface_equals_a_float64_loop_over_frames(name):
    tiny = BUILDERS[name]()
    frames = {"kind": "knots", "points": [[0.0, 0.3], [0.4, 1.0], [1.0, 0.0]]}
    guidance = vidcfg.Guidance(
        scale=scales(tiny),
        frames="uniform" if name in IMAGES else frames,
        passes="sequential",
        reduce="mean",
    )
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        _, outputs, used = record_inside(tiny, generators(0, 1))
    surface = trace.surfaces[0]
    num_frames = surface.strength_KF.shape[1]
    assert len(used) == tiny.num_calls
    assert (num_frames > 1) == (name not in IMAGES)
    for k, prediction in enumerate(used):
        cond, uncond = (p.double() for p in outputs[2 * k : 2 * k + 2])
        for f, strength in enumerate(surface.strength_KF[tiny.step_of(k)]):
            want = frame_of(uncond, name, f, num_frames)
            want = want + float(strength) * (frame_of(cond, name, f, num_frames) - want)
            got = frame_of(prediction, name, f, num_frames)
            # float32 rounding of one product and one sum at strengths up to 5.5
            torch.testing.assert_close(got.double(), want, rtol=3e-6, atol=3e-6)


@videos
def test_frame_of_zero_weight_gets_the_conditional_prediction_bit_for_bit(name):
    tiny = BUILDERS[name]()
    guidance = vidcfg.Guidance(
        scale=6.0, frames={"kind": "ramp", "first": 0.0, "last": 1.0}, passes="sequential"
    )
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        _, outputs, used = record_inside(tiny, generators(0, 1))
    strength_KF = trace.surfaces[0].strength_KF
    num_frames = strength_KF.shape[1]
    for k, prediction in enumerate(used):
        off = np.flatnonzero(strength_KF[tiny.step_of(k)] == 1.0)
        assert num_frames - len(off) > 0
        for f in off:
            got = frame_of(prediction, name, f, num_frames)
            assert torch.equal(got, frame_of(outputs[2 * k], name, f, num_frames))


@families
def test_per_sample_surfaces_in_one_batch_equal_separate_runs_bit_for_bit(name):
    frames = {} if name in IMAGES else {"frames": {"kind": "decay", "end": 0.2}}
    settings = [
        vidcfg.Guidance(scale=5.0, micro_batch=1),
        vidcfg.Guidance(
            scale={"kind": "cosine", "start": 6.0, "end": 1.0},
            rescale=0.5,
            micro_batch=1,
            **frames,
        ),
    ]
    tiny = BUILDERS[name]()
    with vidcfg.guide(tiny.pipe, settings, **tiny.negative) as trace:
        together = tiny.unguided(generator=generators(0, 1))
    assert trace.evaluations == trace.planned.evaluations
    for b, setting in enumerate(settings):
        with vidcfg.guide(tiny.pipe, setting, **rows(tiny.negative, b, b + 1)):
            alone = tiny.unguided(**rows(tiny.positive, b, b + 1), generator=generators(b))
        if name == "svd":  # its images are encoded in one batch: a few float32 ulps
            torch.testing.assert_close(together[b : b + 1], alone, rtol=2e-5, atol=2e-5)
        else:
            assert torch.equal(together[b : b + 1], alone)


@families
def test_bfloat16_equals_the_stock_pipeline_bit_for_bit(name):
    # Two steps: bfloat16 is slow on a CPU, and a third rounds as the second does.
    tiny = in_bfloat16(BUILDERS[name](num_steps=2))
    # Stable Video Diffusion rounds the scale itself to bfloat16: take one that it can hold.
    scale = 4.5 if name == "svd" else 4.3
    stock = tiny.stock(scale, generator=generators(0, 1))
    guidance = vidcfg.Guidance(scale=scale)
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative):
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, stock)
    assert ours.dtype == stock.dtype
