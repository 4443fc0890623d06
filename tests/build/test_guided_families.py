"""Real pipeline code, tiny random weights: uniform guidance is the stock pipeline's, bit for bit.

A random surface is compared with a float64 loop over frames written here.
"""

import numpy as np
import pytest
import torch
from tiny_pipelines import BUILDERS, generators

import vidcfg

FRAMES = {"wan": "BCFHW", "ltx": "tokens", "cogvideox": "BFCHW"}
FRAMES |= {"mochi": "BCFHW", "hunyuan_video": "BCFHW"}
families = pytest.mark.parametrize("name", list(BUILDERS))


def frame_of(tensor: torch.Tensor, layout: str, frame: int, num_frames: int) -> torch.Tensor:
    """One frame of a latent, written by hand per layout."""
    if layout == "BCFHW":
        return tensor[:, :, frame]
    if layout == "BFCHW":
        return tensor[:, frame]
    tokens = tensor.shape[1] // num_frames
    return tensor[:, frame * tokens : (frame + 1) * tokens]


def record(tiny, run):
    """All denoiser outputs and all predictions that reach the scheduler during `run`."""
    outputs, used = [], []
    forward, step = tiny.pipe.transformer.forward, tiny.pipe.scheduler.step

    def recorded_forward(*args, **kwargs):
        result = forward(*args, **kwargs)
        outputs.append(result[0].clone())
        return result

    def recorded_step(prediction, *args, **kwargs):
        used.append(prediction.clone())
        return step(prediction, *args, **kwargs)

    tiny.pipe.transformer.forward, tiny.pipe.scheduler.step = recorded_forward, recorded_step
    try:
        latents = run()
    finally:
        del tiny.pipe.transformer.forward, tiny.pipe.scheduler.step
    return latents, outputs, used


@families
def test_uniform_scale_equals_the_stock_pipeline_bit_for_bit(name):
    tiny = BUILDERS[name]()
    stock = tiny.stock(4.3, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=4.3), **tiny.negative) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, stock)
    assert trace.evaluations == {"cond": 6, "uncond": 6} == trace.planned.evaluations


@families
def test_scale_one_runs_one_pass_and_equals_the_unguided_pipeline(name):
    tiny = BUILDERS[name]()
    plain = tiny.unguided(generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=1.0), **tiny.negative) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, plain)
    assert trace.evaluations == {"cond": 6} == trace.planned.evaluations


@families
def test_random_surface_equals_a_float64_loop_over_frames(name):
    tiny = BUILDERS[name]()
    scales = [5.5, 0.4, 2.5]
    guidance = vidcfg.Guidance(
        scale=scales,
        frames={"kind": "knots", "points": [[0.0, 0.3], [0.4, 1.0], [1.0, 0.0]]},
        passes="sequential",
        reduce="mean",
    )
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        _, outputs, used = record_inside(tiny, generators(0, 1))
    surface = trace.surfaces[0]
    assert len(used) == 3
    assert surface.strength_KF.shape[1] > 1
    for k, prediction in enumerate(used):
        cond, uncond = (p.double() for p in outputs[2 * k : 2 * k + 2])
        for f, strength in enumerate(surface.strength_KF[k]):
            want = frame_of(uncond, FRAMES[name], f, surface.strength_KF.shape[1])
            cond_f = frame_of(cond, FRAMES[name], f, surface.strength_KF.shape[1])
            want = want + float(strength) * (cond_f - want)
            got = frame_of(prediction, FRAMES[name], f, surface.strength_KF.shape[1])
            # float32 rounding of one product and one sum at strengths up to 5.5
            torch.testing.assert_close(got.double(), want, rtol=3e-6, atol=3e-6)


def record_inside(tiny, generator):
    """`record` for a guided pipeline: the denoiser outputs are those of single branches."""
    session = type(tiny.pipe)._vidcfg_session
    outputs, used = [], []
    forward, step = session.forward, tiny.pipe.scheduler.step

    def spy(module, original, expert, arguments):
        def recorded(**kwargs):
            result = original(**kwargs)
            outputs.append(result[0].clone())
            return result

        return forward(module, recorded, expert, arguments)

    def recorded_step(prediction, *args, **kwargs):
        used.append(prediction.clone())
        return step(prediction, *args, **kwargs)

    session.forward, tiny.pipe.scheduler.step = spy, recorded_step
    try:
        latents = tiny.unguided(generator=generator)
    finally:
        del session.forward, tiny.pipe.scheduler.step
    return latents, outputs, used


@families
def test_frame_of_zero_weight_gets_the_conditional_prediction_bit_for_bit(name):
    tiny = BUILDERS[name]()
    guidance = vidcfg.Guidance(
        scale=6.0, frames={"kind": "ramp", "first": 0.0, "last": 1.0}, passes="sequential"
    )
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        _, outputs, used = record_inside(tiny, generators(0, 1))
    num_frames = trace.surfaces[0].strength_KF.shape[1]
    for k, prediction in enumerate(used):
        off = np.flatnonzero(trace.surfaces[0].strength_KF[k] == 1.0)
        guided = set(range(num_frames)) - set(off.tolist())
        assert len(guided) > 0
        for f in off:
            got = frame_of(prediction, FRAMES[name], f, num_frames)
            assert torch.equal(got, frame_of(outputs[2 * k], FRAMES[name], f, num_frames))


@families
def test_per_sample_surfaces_in_one_batch_equal_separate_runs_bit_for_bit(name):
    settings = [
        vidcfg.Guidance(scale=5.0, micro_batch=1),
        vidcfg.Guidance(
            scale={"kind": "cosine", "start": 6.0, "end": 1.0},
            frames={"kind": "decay", "end": 0.2},
            rescale=0.5,
            micro_batch=1,
        ),
    ]
    tiny = BUILDERS[name]()
    with vidcfg.guide(tiny.pipe, settings, **tiny.negative):
        together = tiny.unguided(generator=generators(0, 1))
    for b, setting in enumerate(settings):
        one = {key: value[b : b + 1] for key, value in tiny.positive.items()}
        negative = {key: value[b : b + 1] for key, value in tiny.negative.items()}
        with vidcfg.guide(tiny.pipe, setting, **negative):
            alone = tiny.unguided(**one, generator=generators(b))
        assert torch.equal(together[b : b + 1], alone)
