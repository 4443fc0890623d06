"""Caches of diffusers beside guidance: a state for each branch, or refused by name."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    SeaCacheConfig,
    TaylorSeerCacheConfig,
)
from tiny_from_video import cogvideox_v2v
from tiny_modular import modular
from tiny_pipelines import BUILDERS, generators
from tiny_video import wan

import vidcfg

ON = {kind: {"kind": kind, "layers": [1]} for kind in ("pag", "sag", "stg")}
CACHES = {
    "FirstBlockCache": lambda pipe: FirstBlockCacheConfig(threshold=5.0),
    "PyramidAttentionBroadcast": lambda pipe: PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 1001),
        cross_attention_block_skip_range=2,
        cross_attention_timestep_skip_range=(-1, 1001),
        current_timestep_callback=lambda: pipe.current_timestep,
    ),
    "MagCache": lambda pipe: MagCacheConfig(
        mag_ratios=[1.0] * 6, num_inference_steps=6, threshold=0.5, retention_ratio=0.2
    ),
    "TaylorSeerCache": lambda pipe: TaylorSeerCacheConfig(
        cache_interval=3, disable_cache_before_step=1, cache_identifiers=[r"blocks\.\d+\.attn\d"]
    ),
    "SeaCache": lambda pipe: SeaCacheConfig(threshold=5.0),
    "FasterCache": lambda pipe: FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 681),
        current_timestep_callback=lambda: pipe.current_timestep,
        tensor_format="BCFHW",
    ),
}


@pytest.mark.parametrize(
    ("name", "cache"),
    [
        ("wan", "FirstBlockCache"),
        ("wan", "MagCache"),
        ("wan", "TaylorSeerCache"),
        ("wan", "SeaCache"),
        ("ltx", "PyramidAttentionBroadcast"),
        ("cogvideox", "PyramidAttentionBroadcast"),
    ],
)
def test_caches_keep_one_state_per_branch_and_equal_the_stock_pipeline(name, cache):
    tiny = BUILDERS[name](num_steps=6)
    plain = tiny.stock(3.0, generator=generators(0, 1))
    tiny.pipe.transformer.enable_cache(CACHES[cache](tiny.pipe))
    stock = tiny.stock(3.0, generator=generators(0, 1))
    assert not torch.equal(stock, plain)
    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative):
        for _ in range(2):
            assert torch.equal(tiny.unguided(generator=generators(0, 1)), stock)


@pytest.mark.parametrize(
    ("name", "cache"), [("wan", "FirstBlockCache"), ("cogvideox", "PyramidAttentionBroadcast")]
)
def test_a_cache_survives_steps_without_the_unconditional_branch(name, cache):
    tiny = BUILDERS[name](num_steps=6)
    tiny.pipe.transformer.enable_cache(CACHES[cache](tiny.pipe))
    scale = [1.0, 4.0, 4.0, 1.0, 1.0, 1.0]
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=scale), **tiny.negative) as trace:
        latents = tiny.unguided(generator=generators(0, 1))
    assert torch.isfinite(latents).all()
    assert trace.evaluations == {"cond": 12, "uncond": 4} == trace.planned.evaluations


@pytest.mark.parametrize(
    ("cache", "settings", "match"),
    [
        ("FasterCache", [{"scale": 3.0}], "FasterCache.*cannot be combined.*FirstBlockCache"),
        ("FirstBlockCache", [{"scale": 3.0, "micro_batch": 1}], "FirstBlockCache.*micro_batch"),
        (
            "FirstBlockCache",
            [{"scale": 3.0}, {"scale": [3.0, 1.0, 1.0, 3.0, 3.0, 3.0]}],
            "the samples that need the uncond branch change",
        ),
        (
            "MagCache",
            [{"scale": [3.0, 3.0, 1.0, 1.0, 3.0, 3.0]}],
            "MagCache counts steps.*uncond branch runs on 4 of 6",
        ),
        ("PyramidAttentionBroadcast", [{"scale": 3.0, "passes": "auto"}], "auto tries two ways"),
        ("MagCache", [{"scale": 3.0, "method": "adaptive_stop"}], "adaptive_stop stops a branch"),
        (
            "FirstBlockCache",
            [{"scale": 3.0, "method": "adaptive_stop"}],
            "adaptive_stop stops each sample on a step of its own",
        ),
        ("FirstBlockCache", [{"scale": 3.0, "method": ON["sag"]}], "sag reads attention"),
        ("PyramidAttentionBroadcast", [{"scale": 3.0, "method": ON["pag"]}], "pag changes att"),
    ],
)
def test_caches_that_would_mix_calls_are_refused_by_name(cache, settings, match):
    tiny = BUILDERS["wan"](num_steps=6)
    tiny.pipe.transformer.enable_cache(CACHES[cache](tiny.pipe))
    guidance = [vidcfg.Guidance(**setting) for setting in settings]
    with (
        vidcfg.guide(tiny.pipe, guidance, **tiny.negative),
        pytest.raises(ValueError, match=match),
    ):
        tiny.unguided(generator=generators(0, 1))


@pytest.mark.parametrize("scale", [4.0, [4.0, 1.0, 4.0, 4.0, 1.0, 4.0]])
def test_broadcast_attention_is_that_of_the_branch_in_separate_calls_too(scale):
    """The oracle is the stock cache on one call for both branches, whose rows are apart."""
    latents = {}
    for passes in ("sequential", "batched"):
        tiny = BUILDERS["wan"](num_steps=6)
        tiny.pipe.transformer.enable_cache(CACHES["PyramidAttentionBroadcast"](tiny.pipe))
        always = ["cfg", {"kind": "cfg", "scale": 1.0 + 1e-9}]  # the same rows on every step
        guidance = vidcfg.Guidance(scale=scale, passes=passes, method=always)
        with vidcfg.guide(tiny.pipe, guidance, **tiny.negative):
            latents[passes] = tiny.unguided(generator=generators(0, 1))
    # The two ways to call differ by float32 rounding.
    torch.testing.assert_close(latents["sequential"], latents["batched"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cache", ["MagCache", "PyramidAttentionBroadcast", "FasterCache"])
def test_blocks_of_a_modular_pipeline_take_no_cache_that_mixes_their_passes(cache):
    """Those of Wan name no pass; at a scale of 4 the video was all but the unguided one."""
    tiny = modular(wan(num_steps=6), "WanModularPipeline")
    tiny.pipe.transformer.enable_cache(CACHES[cache](SimpleNamespace(current_timestep=500)))
    with (
        vidcfg.guide(tiny.pipe, 4.0, **tiny.negative),
        pytest.raises(ValueError, match=f"{cache} mixes or miscounts the passes"),
    ):
        tiny.unguided(generator=generators(0, 1))


def test_each_expert_is_checked_on_its_own_steps():
    counting = CACHES["MagCache"]
    high = BUILDERS["wan22"](num_steps=6)
    high.pipe.transformer.enable_cache(counting(high.pipe))
    guidance = vidcfg.Guidance(scale={"high": 3.0, "low": 1.0})
    with vidcfg.guide(high.pipe, guidance, **high.negative) as trace:
        high.unguided(generator=generators(0, 1))
    steps = [step.expert for step in trace.steps]
    assert trace.evaluations == {"cond": 12, "uncond": 2 * steps.count("high")}
    low = BUILDERS["wan22"](num_steps=6)
    low.pipe.transformer_2.enable_cache(counting(low.pipe))
    guidance = vidcfg.Guidance(scale={"high": 3.0, "low": [3.0, 3.0, 3.0, 3.0, 1.0, 3.0]})
    with (
        vidcfg.guide(low.pipe, guidance, **low.negative),
        pytest.raises(ValueError, match=f"uncond branch runs on 3 of {steps.count('low')} steps"),
    ):
        low.unguided(generator=generators(0, 1))


def test_steps_before_the_start_of_a_video_do_not_count():
    tiny = cogvideox_v2v().tiny
    tiny.pipe.transformer.enable_cache(CACHES["MagCache"](tiny.pipe))
    stock = tiny.stock(4.0, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, 4.0, **tiny.negative):
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, stock)


@pytest.mark.parametrize("cache", ["FirstBlockCache", "MagCache", "TaylorSeerCache"])
def test_an_interrupted_run_leaves_nothing_in_a_cache(cache):
    tiny = BUILDERS["wan"](num_steps=6)
    tiny.pipe.transformer.enable_cache(CACHES[cache](tiny.pipe))
    stock = tiny.stock(3.0, generator=generators(0, 1))

    def interrupt(pipe, step, timestep, kept):
        if step == 2:
            raise KeyboardInterrupt
        return kept

    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative), pytest.raises(KeyboardInterrupt):
        tiny.unguided(generator=generators(2, 3), callback_on_step_end=interrupt)
    assert torch.equal(tiny.stock(3.0, generator=generators(0, 1)), stock)
