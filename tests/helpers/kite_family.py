"""The declaration that makes somebody else's pipeline known, as one file of families/."""

from vidcfg.guidance.frame_map import CausalMap
from vidcfg.pipelines.family import Family

FAMILY = Family(
    name="kite",
    pipelines=("KitePipeline",),
    module="kites",
    layout="BCFHW",
    frame_map=lambda pipe: CausalMap(3),
    denoisers={"denoiser": None},
    hidden="x",
    per_sample=("t",),
    timestep="t",
    texts={"context": "prompt_embeds"},
    encoded=("prompt_embeds",),
    frame_rule="3k + 1",
    own_guidance={"guidance_scale": 1.0},
)
