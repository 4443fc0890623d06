"""EasyAnimate, with its control and inpainting pipelines: one batched call."""

from vidcfg.pipelines.family import Family

FAMILY = Family(
    name="easyanimate",
    pipelines=("EasyAnimatePipeline", "EasyAnimateInpaintPipeline"),
    frame_rule="4k + 1",
    tested="exact",
    own_guidance={"guidance_scale": 1.0, "guidance_rescale": 0.0},
    encoded=("prompt_embeds", None, None, None),
    per_sample=("timestep", "inpaint_latents"),
    stock_passes="batched",
    prediction=None,
    size_multiple=16,
)
