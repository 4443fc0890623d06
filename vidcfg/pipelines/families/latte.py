"""Latte: an image VAE, one batched call, a learned variance behind the prediction."""

from vidcfg.pipelines.family import Family, one_to_one


def _refusal(pipe, call) -> str | None:
    kind = pipe.scheduler.config.get("variance_type", "")
    if kind.startswith("learned"):
        return (
            f"the scheduler uses the variance that the model learned (variance_type={kind}), "
            f"which is not guided. Use a scheduler without it, such as DDIMScheduler."
        )
    return None


FAMILY = Family(
    name="latte",
    pipelines=("LattePipeline",),
    frame_rule="one to one",
    tested="exact",
    frame_map=one_to_one,
    encoded=(None, "prompt_embeds"),
    encodes_beside_prompt=True,
    stock_passes="batched",
    prediction=None,
    learns_variance=True,
    refusal=_refusal,
    size_multiple=16,
    default_scale=7.5,
    usual_range=(5.0, 9.0),
)
