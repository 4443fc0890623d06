"""Models that split their tokens over processes (`enable_parallelism` of diffusers)."""

from types import SimpleNamespace

import pytest
import torch
from diffusers.hooks import HookRegistry, ModelHook
from tiny_pipelines import BUILDERS, generators
from token_split import RULES, latents_by_rule, latents_of_two_processes

import vidcfg


@pytest.mark.slow
def test_tokens_that_two_processes_share_are_guided_as_those_of_one(tmp_path):
    alone, (first, second) = latents_by_rule(), latents_of_two_processes(tmp_path)
    for name, latents in alone.items():
        torch.testing.assert_close(first[name], latents, rtol=1e-5, atol=1e-5)
        assert torch.equal(first[name], second[name])
    assert torch.equal(first["cfg"], first["stock"])
    assert len({float(latents.sum()) for latents in alone.values()}) == len(RULES)


@pytest.mark.parametrize(
    ("degrees", "setting", "message"),
    [
        (
            (1, 2),
            {"method": {"kind": "sag", "layers": [0]}},
            "sag reads the attention of all",
        ),
        ((2, 1), {"method": RULES["seg"]}, "seg changes the attention.*ulysses_degree"),
        ((1, 2), {"passes": "auto"}, "passes: auto measures in each process.*sequential"),
    ],
)
def test_what_needs_all_tokens_or_times_of_its_own_is_refused(degrees, setting, message):
    tiny = BUILDERS["wan"](num_steps=2)
    split = SimpleNamespace(ring_degree=degrees[0], ulysses_degree=degrees[1])
    tiny.pipe.transformer._parallel_config = SimpleNamespace(context_parallel_config=split)
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(3.0, **setting), **tiny.negative),
        pytest.raises(ValueError, match=message),
    ):
        tiny.unguided(generator=generators(0, 1))


def test_a_block_that_splits_tokens_is_not_left_out():
    tiny = BUILDERS["wan"](num_steps=2)
    registry = HookRegistry.check_if_exists_or_initialize(tiny.pipe.transformer.blocks[0])
    registry.register_hook(ModelHook(), "cp_input---blocks.0")
    for layer, is_refused in ((0, True), (1, False)):
        guidance = vidcfg.Guidance(3.0, method={"kind": "slg", "layers": [layer]})
        with vidcfg.guide(tiny.pipe, guidance):
            if not is_refused:
                tiny.unguided(generator=generators(0, 1))
                continue
            with pytest.raises(ValueError, match=r"leaves out blocks.0, in which.*later layers"):
                tiny.unguided(generator=generators(0, 1))
