"""Rules whose branch changes the model, in whole pipelines: formula, passes, neighbours, state."""

import contextlib
import functools
import itertools

import numpy as np
import pytest
import torch
from guided_runs import HOW, compile_whole, frame_of, record_inside, rows
from tiny_pipelines import BUILDERS, generators

import vidcfg

RAMP = {"kind": "ramp", "first": 1.0, "last": 0.0}
VIDEO = ("wan", "ltx", "cogvideox", "hunyuan_video", "mochi")
PERTURBED = {
    "pag": {"kind": "pag", "layers": [0]},
    "slg": {"kind": "slg", "layers": [0]},
    "stg": {"kind": "stg", "layers": [0], "mode": "residual"},
    "seg": {"kind": "seg", "layers": [0], "sigma": 0.7},
    "sag": {"kind": "sag", "layers": [0], "threshold": 0.5},
    "autoguidance": {"kind": "autoguidance", "noise": 0.3, "seed": 5},
}


def formula(cond, others: list, name: str):
    """cond + sum of (s_f - 1) (cond - p) in float64, frame by frame by hand.

    `others` holds (prediction, strength per sample and frame).
    """
    guided = cond.double().clone()
    num_frames = others[0][1].shape[-1]
    for prediction, strength_BF in others:
        for b in range(len(cond)):
            for f in range(num_frames):
                c, p = (frame_of(t, name, f, num_frames)[b].double() for t in (cond, prediction))
                place = frame_of(guided, name, f, num_frames)
                place[b] += (strength_BF[b, f] - 1) * (c - p)
    return guided


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("kind", list(PERTURBED))
def test_every_frame_is_moved_away_from_the_perturbed_prediction(name, kind):
    tiny = BUILDERS[name]()
    method = {"kind": kind, "skip": [0]} if kind == "autoguidance" else PERTURBED[kind]
    settings = [
        vidcfg.Guidance(scale=s, method=method, frames=RAMP, passes="sequential")
        for s in (3.0, -0.5)
    ]
    with vidcfg.guide(tiny.pipe, settings) as trace:
        _, outputs, used = record_inside(tiny, generators(0, 1))
    branch = next(b for b in trace.evaluations if b != "cond")
    assert trace.evaluations == {"cond": 6, branch: 6} == trace.planned.evaluations
    strength_BKF = np.stack([surface.strength_KF for surface in trace.surfaces])
    for k, prediction in enumerate(used[1:], start=1):
        cond, perturbed = outputs[2 * k : 2 * k + 2]
        if kind == "sag":  # its prediction is seen from other latents: test_self_attention
            assert not torch.equal(prediction, cond)
            continue
        want = formula(cond, [(perturbed, strength_BKF[:, k])], name)
        torch.testing.assert_close(prediction.double(), want, rtol=0, atol=1e-5)


@functools.cache
def without_a_rule(name: str):
    """Latents of two steps of a family: unguided, and under plain guidance of 4."""
    tiny = BUILDERS[name](num_steps=2)
    plain = tiny.unguided(generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=4.0), **tiny.negative) as trace:
        guided = tiny.unguided(generator=generators(0, 1))
    assert trace.evaluations == {"cond": 4, "uncond": 4} == trace.planned.evaluations
    return plain, guided


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("kind", list(PERTURBED))
def test_strength_one_is_the_plain_prediction_bit_for_bit_without_a_perturbed_pass(name, kind):
    plain, guided = without_a_rule(name)
    tiny = BUILDERS[name](num_steps=2)
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=1.0, method=PERTURBED[kind])) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, plain)
    assert trace.evaluations == {"cond": 4} == trace.planned.evaluations
    both = vidcfg.Guidance(scale=4.0, method=["cfg", PERTURBED[kind] | {"scale": 1.0}])
    with vidcfg.guide(tiny.pipe, both, **tiny.negative) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert trace.evaluations == {"cond": 4, "uncond": 4} == trace.planned.evaluations
    # as a term the rule is written from cond, so that its float32 rounding differs
    torch.testing.assert_close(ours, guided, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", VIDEO)
def test_beside_cfg_the_perturbed_branch_still_sees_the_positive_prompt(name):
    tiny = BUILDERS[name]()
    pag = PERTURBED["pag"]
    composed = [{"kind": "cfg"}, pag | {"scale": 2.5, "frames": RAMP}]
    guidance = vidcfg.Guidance(scale=4.0, method=composed, passes="sequential")
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        _, outputs, used = record_inside(tiny, generators(0, 1))
    assert trace.evaluations == {"cond": 6, "uncond": 6, "perturbed:pag/0": 6}
    assert trace.evaluations == trace.planned.evaluations
    alone = vidcfg.Guidance(scale=2.5, method=pag, passes="sequential")
    with vidcfg.guide(tiny.pipe, alone):
        _, without_cfg, _ = record_inside(tiny, generators(0, 1))
    torch.testing.assert_close(outputs[2], without_cfg[1], rtol=0, atol=2e-6)
    num_frames = trace.surfaces[0].strength_KF.shape[1]
    weights = 1 - trace_positions(tiny, num_frames)
    for k, prediction in enumerate(used):
        cond, uncond, perturbed = outputs[3 * k : 3 * k + 3]
        terms = [(uncond, np.full((2, num_frames), 4.0)), (perturbed, 1 + 1.5 * weights)]
        want = formula(cond, terms, name)
        torch.testing.assert_close(prediction.double(), want, rtol=0, atol=1e-5)


def trace_positions(tiny, num_frames: int) -> np.ndarray:
    """Where each latent frame lies in a ramp, from the weights that a plain rule is given."""
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0, frames=RAMP), **tiny.negative) as t:
        tiny.unguided(generator=generators(0, 1))
    return np.stack([1 - surface.weights_KF[0] for surface in t.surfaces] * 2)[:2]


def test_the_perturbed_pass_runs_only_inside_its_interval():
    tiny = BUILDERS["ltx"](num_steps=5)
    own = {"kind": "interval", "value": 3.0, "from": 0.25, "to": 0.5}
    method = ["cfg", PERTURBED["slg"] | {"scale": own}]
    with vidcfg.guide(
        tiny.pipe, vidcfg.Guidance(scale=4.0, method=method), **tiny.negative
    ) as trace:
        tiny.unguided(generator=generators(0, 1))
    counts = [step.evaluations.get("perturbed:slg/0", 0) for step in trace.steps]
    assert counts == [0, 2, 2, 0, 0]
    assert trace.evaluations == trace.planned.evaluations


def test_samples_share_an_evaluation_exactly_where_their_perturbations_are_equal():
    tiny = BUILDERS["wan"](batch=4)
    for tensors in (tiny.positive, tiny.negative):
        tensors.update({n: t[:1].repeat(4, 1, 1) for n, t in tensors.items()})
    layers = ([0], [0], [1], [0, 1])
    settings = [
        vidcfg.Guidance(scale=2.0 + i, method={"kind": "pag", "layers": chosen}, micro_batch=1)
        for i, chosen in enumerate(layers)
    ]
    with vidcfg.guide(tiny.pipe, settings) as trace:
        together = tiny.unguided(generator=generators(3, 3, 3, 3))
    names = {"perturbed:pag/0": 1, "perturbed:pag/1": 1, "perturbed:pag/0,1": 1}
    assert trace.steps[0].evaluations == {"cond": 1} | names
    assert trace.evaluations == trace.planned.evaluations
    for b, setting in enumerate(settings):
        with vidcfg.guide(tiny.pipe, setting):
            alone = tiny.unguided(**rows(tiny.positive, b, b + 1), generator=generators(3))
        assert torch.equal(together[b : b + 1], alone)


@pytest.mark.parametrize("kind", [*PERTURBED, "cads"])
def test_a_sample_depends_neither_on_its_neighbours_nor_on_global_random_state(kind):
    tiny = BUILDERS["wan"](batch=3)
    method = PERTURBED.get(kind, {"kind": "cads", "tau1": 0.2})
    guidance = vidcfg.Guidance(scale=3.0, method=method, frames=RAMP, micro_batch=1)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    with vidcfg.guide(tiny.pipe, guidance, **rows(tiny.negative, 0, 1)):
        together = tiny.unguided(generator=generators(0, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(321)
    for b in (2, 0):
        with vidcfg.guide(tiny.pipe, guidance, **rows(tiny.negative, 0, 1)):
            alone = tiny.unguided(**rows(tiny.positive, b, b + 1), generator=generators(b))
        assert torch.equal(together[b : b + 1], alone)


def test_caches_keep_one_state_for_each_perturbed_branch():
    tiny = BUILDERS["wan"]()
    names = []

    @contextlib.contextmanager
    def recorded(name, **kwargs):
        names.append(name)
        yield

    tiny.pipe.transformer.cache_context = recorded
    method = ["cfg", PERTURBED["pag"], PERTURBED["slg"]]
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, method=method), **tiny.negative):
        names.clear()
        tiny.unguided(generator=generators(0, 1))
    inside = [name for name in names if name]
    assert inside[-4:] == ["cond", "uncond", "perturbed:pag/0", "perturbed:slg/0"]


@pytest.mark.parametrize("threshold", [0.0, 1e9])
def test_first_block_cache_works_beside_perturbed_attention(threshold):
    from diffusers import FirstBlockCacheConfig

    method = ["cfg", PERTURBED["pag"]]
    plain = BUILDERS["wan"]()
    with vidcfg.guide(plain.pipe, vidcfg.Guidance(scale=3.0, method=method), **plain.negative):
        want = plain.unguided(generator=generators(0, 1))
    tiny = BUILDERS["wan"]()
    tiny.pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, method=method), **tiny.negative):
        ours = tiny.unguided(generator=generators(0, 1))
    # with threshold 0 nothing is reused; above every difference all later steps reuse
    assert torch.equal(ours, want) == (threshold == 0)


def test_blocks_that_hold_a_cache_are_not_left_out():
    from diffusers import FirstBlockCacheConfig

    tiny = BUILDERS["wan"]()
    tiny.pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, method=PERTURBED["slg"])),
        pytest.raises(ValueError, match="slg leaves out blocks, and FirstBlockCache keeps"),
    ):
        tiny.unguided(generator=generators(0, 1))


@pytest.mark.parametrize("kind", ["pag", "slg", "seg"])
def test_blocks_that_are_compiled_are_perturbed_too(kind):
    tiny = BUILDERS["wan"](num_steps=2)
    results = []
    for compiled in (False, True):
        if compiled:
            tiny.pipe.transformer.compile_repeated_blocks(backend="eager")
        with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, method=PERTURBED[kind])):
            results.append(tiny.unguided(generator=generators(0, 1)))
    assert torch.equal(*results)


FAST = [("pag", "forward"), ("slg", "forward"), ("stg", "forward"), ("pag", "wrapped")]
FAST += [("seg", "in place")]
SLOW = [pair for pair in itertools.product(PERTURBED, HOW) if pair not in FAST]


@pytest.mark.parametrize(
    ("kind", "how"), [*FAST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)]
)
def test_a_model_that_is_compiled_as_a_whole_is_perturbed_too(kind, how):
    tiny, results = BUILDERS["wan"](num_steps=2), []
    torch._dynamo.reset()
    for is_compiled in (False, True):
        if is_compiled:
            compile_whole(tiny.pipe, "transformer", how)
        with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, method=PERTURBED[kind])):
            results.append(tiny.unguided(generator=generators(0, 1)))
    assert torch.equal(*results)
    plain = tiny.unguided(generator=generators(0, 1))
    assert not torch.equal(plain, results[0])


def test_a_failing_perturbed_pass_leaves_the_model_and_the_next_call_as_they_were():
    tiny = BUILDERS["wan"]()
    plain = tiny.unguided(generator=generators(0, 1))
    block = tiny.pipe.transformer.blocks[1]

    def fail(module, args):
        raise RuntimeError("out of luck")

    guidance = vidcfg.Guidance(scale=3.0, method=PERTURBED["pag"])
    with vidcfg.guide(tiny.pipe, guidance):
        handle = block.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="out of luck"):
            tiny.unguided(generator=generators(0, 1))
        handle.remove()
    assert not any("forward" in vars(m) for m in tiny.pipe.transformer.modules())
    assert torch.equal(tiny.unguided(generator=generators(0, 1)), plain)


def test_bfloat16_models_are_perturbed_too():
    tiny = BUILDERS["hunyuan_video"]()
    tiny.pipe.to(torch.bfloat16)
    for name, tensor in tiny.positive.items():
        if tensor.is_floating_point() and "mask" not in name:
            tiny.positive[name] = tensor.bfloat16()
    plain = tiny.unguided(generator=generators(0, 1))
    for method in PERTURBED.values():
        with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, method=method)):
            ours = tiny.unguided(generator=generators(0, 1))
        assert ours.dtype == plain.dtype
        assert torch.isfinite(ours).all()
        assert not torch.equal(ours, plain)


@pytest.mark.parametrize("name", ["svd", "animatediff", "sd15", "sdxl", "sd3", "flux"])
def test_unets_and_image_models_are_perturbed_in_their_own_layers(name):
    tiny = BUILDERS[name]()
    method = (
        {"kind": "pag"} if name in ("svd", "animatediff", "sd15", "sdxl") else PERTURBED["pag"]
    )
    plain = tiny.unguided(generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, method=method)) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert not torch.equal(ours, plain)
    assert trace.evaluations == trace.planned.evaluations


def test_sag_on_a_unet_is_refused_by_name():
    tiny = BUILDERS["svd"]()
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, method="sag")),
        pytest.raises(ValueError, match="family 'svd' does not have. Use guidance.method: pag"),
    ):
        tiny.unguided(generator=generators(0, 1))
