"""A pipeline that vidcfg has never seen is guided after one declaration from user code."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from torch import nn

import vidcfg
from vidcfg.guidance.frame_map import CausalMap
from vidcfg.pipelines.families import FAMILIES, Family

DOCS = Path(__file__).parents[2] / "docs" / "families.md"


class KiteDenoiser(nn.Module):
    """Predicts a flow from the latents, the time and the mean of its context."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(5, 5)

    def forward(self, x, t, context, scale_of_time=1.0):
        context_B = context.mean(dim=(1, 2)) + t / 1000 * scale_of_time
        return (self.mix(x.movedim(1, -1)).movedim(-1, 1) + context_B[:, None, None, None, None],)


class KitePipeline(DiffusionPipeline):
    """A pipeline of somebody else, with names of its own."""

    def __init__(self, denoiser, scheduler):
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler)
        self.text_encoder = None
        self.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def __call__(
        self, prompt_embeds, negative_prompt_embeds=None, guidance_scale=4.0, generator=None
    ):
        x = torch.randn(len(prompt_embeds), 5, 3, 2, 4, generator=generator)
        self.scheduler.set_timesteps(4)
        for t in self.scheduler.timesteps:
            times = t.expand(len(x))
            flow = self.denoiser(x, times, context=prompt_embeds)[0]
            if guidance_scale > 1:
                other = self.denoiser(x, times, context=negative_prompt_embeds)[0]
                flow = other + guidance_scale * (flow - other)
            x = self.scheduler.step(flow, t, x, return_dict=False)[0]
        return x


KITE = Family(
    name="kite",
    pipelines=("KitePipeline",),
    layout="BCFHW",
    frame_map=lambda pipe: CausalMap(4),
    denoisers={"denoiser": None},
    hidden="x",
    per_sample=("t",),
    texts={"context": "prompt_embeds"},
    encoded=("prompt_embeds",),
    own_guidance={"guidance_scale": 1.0},
)


@pytest.fixture
def kite():
    torch.manual_seed(0)
    pipe = KitePipeline(KiteDenoiser(), FlowMatchEulerDiscreteScheduler())
    yield pipe, torch.randn(2, 6, 7), torch.randn(2, 6, 7)
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


def test_unknown_pipeline_is_told_how_to_be_declared(kite):
    with (
        pytest.raises(ValueError, match="cannot guide a KitePipeline.*register_family.*docs/fam"),
        vidcfg.guide(kite[0], 2.0),
    ):
        raise AssertionError("must not be entered")


def test_names_that_are_taken_are_refused(kite):
    with pytest.raises(ValueError, match="a family named 'wan' exists"):
        vidcfg.register_family(replace(KITE, name="wan"))
    with pytest.raises(ValueError, match="WanPipeline belongs to the family 'wan'"):
        vidcfg.register_family(replace(KITE, pipelines=("WanPipeline",)))


def test_the_declaration_in_the_docs_is_one_that_works(kite):
    pipe, positive, negative = kite
    code = re.search(r"```python\n(.*?)\nwith ", DOCS.read_text(), re.S)[1]
    exec(compile(code, "docs/families.md", "exec"), {})
    with vidcfg.guide(pipe, 2.0, negative_prompt_embeds=negative) as trace:
        pipe(positive, guidance_scale=1.0)
    assert trace.total == 16
