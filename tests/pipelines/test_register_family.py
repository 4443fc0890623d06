"""A pipeline that vidcfg has never seen is guided after one declaration from user code."""

import re
from dataclasses import replace
from pathlib import Path

import kites
import pytest
import torch
from kite_family import FAMILY as KITE
from kites import KitePipeline

import vidcfg
from vidcfg.pipelines.families import FAMILIES

DOCS = Path(__file__).parents[2] / "docs" / "families.md"


@pytest.fixture
def kite():
    yield kites.kite(), torch.randn(2, 6, 7), torch.randn(2, 6, 7)
    FAMILIES.pop("kite", None)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_declared_pipeline_equals_its_own_guidance_bit_for_bit(kite):
    pipe, positive, negative = kite
    vidcfg.register_family(KITE)
    own = pipe(positive, negative, guidance_scale=3.5, generator=seeded())
    with vidcfg.guide(pipe, 3.5, negative_prompt_embeds=negative) as trace:
        ours = pipe(positive, guidance_scale=1.0, generator=seeded())
    assert torch.equal(ours, own)
    assert trace.evaluations == {"cond": 8, "uncond": 8} == trace.planned.evaluations


def test_frame_of_weight_zero_keeps_its_prompt_in_a_declared_pipeline(kite):
    pipe, positive, negative = kite
    vidcfg.register_family(KITE)
    off = pipe(positive, guidance_scale=1.0, generator=seeded())
    guidance = vidcfg.Guidance(scale=3.5, frames={"kind": "ramp", "first": 0.0, "last": 1.0})
    with vidcfg.guide(pipe, guidance, negative_prompt_embeds=negative):
        ours = pipe(positive, guidance_scale=1.0, generator=seeded())
    # frames do not see each other in this denoiser
    assert torch.equal(ours[:, :, 0], off[:, :, 0])
    assert not torch.equal(ours[:, :, 1], off[:, :, 1])


def test_a_class_derived_from_a_declared_one_is_covered(kite):
    pipe, positive, negative = kite
    vidcfg.register_family(KITE)
    pipe.__class__ = type("LongKitePipeline", (KitePipeline,), {})
    with vidcfg.guide(pipe, 3.5, negative_prompt_embeds=negative) as trace:
        pipe(positive, guidance_scale=1.0)
    assert trace.total == 16


class OwnLoop:
    """A sampling loop that is nothing of diffusers but its scheduler."""

    def __init__(pipe):
        whole = kites.kite()
        pipe.denoiser, pipe.scheduler, pipe.encode_prompt = (
            whole.denoiser,
            whole.scheduler,
            whole.encode_prompt,
        )

    def __call__(pipe, prompt_embeds, **more):
        return KitePipeline.__call__.__wrapped__(pipe, prompt_embeds, **more)


def test_a_loop_of_somebodys_own_is_guided_and_its_negative_prompt_encoded(kite):
    _, positive, _ = kite
    vidcfg.register_family(replace(KITE, pipelines=("OwnLoop",)))
    pipe = OwnLoop()
    with torch.no_grad():
        negative = torch.cat([*pipe.encode_prompt(["blurry"])] * 2)
        stock = pipe(
            positive, negative_prompt_embeds=negative, guidance_scale=3.0, generator=seeded()
        )
        with vidcfg.guide(pipe, 3.0, negative_prompt="blurry"):
            ours = pipe(positive, guidance_scale=1.0, generator=seeded())
    assert torch.equal(ours, stock)
    forward = pipe.denoiser.forward
    pipe.denoiser.forward = lambda x, t, context: {"flow": forward(x, t, context)[0]}
    with (
        vidcfg.guide(pipe, 3.0, negative_prompt="blurry"),
        pytest.raises(ValueError, match="returns a dict, in which its prediction cannot be told"),
    ):
        pipe(positive, guidance_scale=1.0)


def test_unknown_pipeline_is_told_how_to_be_declared(kite):
    with (
        pytest.raises(ValueError, match="cannot guide a KitePipeline.*register_family.*docs/fam"),
        vidcfg.guide(kite[0], 2.0),
    ):
        raise AssertionError("must not be entered")


def test_a_declaration_that_is_run_again_takes_the_place_of_the_one_before(kite):
    vidcfg.register_family(replace(KITE, layout="BFCHW"))
    vidcfg.register_family(KITE)
    assert FAMILIES["kite"] is KITE
    with pytest.raises(ValueError, match="a family named 'kite' exists"):
        vidcfg.register_family(replace(KITE, pipelines=("OtherPipeline",)))
    assert FAMILIES["kite"] is KITE


def test_names_that_are_taken_are_refused(kite):
    with pytest.raises(ValueError, match="a family named 'wan' exists"):
        vidcfg.register_family(replace(KITE, name="wan"))
    with pytest.raises(ValueError, match="WanPipeline belongs to the family 'wan'"):
        vidcfg.register_family(replace(KITE, pipelines=("WanPipeline",)))


def test_the_declaration_in_the_docs_is_one_that_works(kite):
    pipe, positive, negative = kite
    code = re.search(r"```python\n(import vidcfg\n.*?)\nwith ", DOCS.read_text(), re.S)[1]
    exec(compile(code, "docs/families.md", "exec"), {"KitePipeline": lambda given: pipe})
    with vidcfg.guide(pipe, 2.0, negative_prompt_embeds=negative) as trace:
        pipe(positive, guidance_scale=1.0)
    assert trace.total == 16
