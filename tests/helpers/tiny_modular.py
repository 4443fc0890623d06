"""Modular pipelines, built of their own blocks without those for texts and pixels."""

from dataclasses import replace
from functools import partial
from typing import Any

from class_checks import TinyClass
from tiny_base import TinyPipeline, rebuilt
from tiny_more import helios
from tiny_streams import hunyuan_video15
from tiny_twins import hunyuan_video15_i2v, picture, wan_vace
from tiny_video import ltx, wan, wan_transformer
from tiny_wan import wan22, wan_i2v

from vidcfg.pipelines.families import family_of


class TinyModular(TinyPipeline):
    """A modular pipeline, which is called for its latents and guided by its own guiders."""

    def stock(self, scale: float, **extra: Any):
        from diffusers.guiders import ClassifierFreeGuidance

        guiders = family_of(self.pipe).guiders
        before = {name: getattr(self.pipe, name) for name in guiders if hasattr(self.pipe, name)}
        for name in before:
            setattr(self.pipe, name, ClassifierFreeGuidance(guidance_scale=scale))
        made = self.unguided(**self.negative, **extra)
        for name, guider in before.items():
            setattr(self.pipe, name, guider)
        return made

    def unguided(self, **extra: Any):
        return self.pipe(**self.shape | self.positive | extra, output="latents")


def modular(
    base: TinyPipeline, name: str, *, without=("text_encoder", "decode"), **changes: Any
) -> TinyModular:
    """`base` as the modular pipeline class `name`, with the parts that its blocks ask for."""
    import diffusers

    cls = getattr(diffusers, name)
    blocks = getattr(diffusers, cls.default_blocks_name)()
    for block in without:
        blocks.sub_blocks.pop(block)
    _silence(blocks)
    pipe = cls(blocks=blocks)
    parts = dict(base.pipe.components) | changes
    wanted = pipe.components.keys() - {"guider", "guider_2"}
    pipe.update_components(**{n: parts[n] for n in wanted if parts.get(n) is not None})
    shape = {n: v for n, v in base.shape.items() if n != "output_type"}
    return TinyModular(pipe, shape, base.positive, base.negative)


def _silence(block: Any) -> None:
    if hasattr(block, "set_progress_bar_config"):
        block.set_progress_bar_config(disable=True)
    for inner in block.sub_blocks.values():
        _silence(inner)


def _class(build, name: str, layout: str, pixels: tuple[int, ...], **more) -> TinyClass:
    """With an image in `more`, the blocks take one generator."""
    image, base = more.pop("image", None), build(num_steps=2)
    if image is not None:
        base.shape["image"] = image
    return TinyClass(modular(base, name, **more), layout, pixels, one_generator=image is not None)


def _wan22_i2v() -> TinyClass:
    models = {f"transformer{n}": rebuilt(wan_transformer(), in_channels=36) for n in ("", "_2")}
    given = "Wan22Image2VideoModularPipeline", "BCFHW", (1, 4, 4)
    return _class(wan22, *given, image=picture(), **models)


def _wan_vace() -> TinyClass:
    """One video at a time, behind the latents of two reference images."""
    case, parts = wan_vace(), wan22().pipe.components
    parts["transformer_2"] = rebuilt(case.tiny.pipe.transformer)
    parts = {name: parts[name] for name in ("scheduler", "transformer_2")}
    return replace(case, tiny=modular(case.tiny, "Wan22VaceModularPipeline", **parts))


def _hunyuan_i2v() -> TinyClass:
    case = hunyuan_video15_i2v()
    return replace(case, tiny=modular(case.tiny, "HunyuanVideo15ModularPipeline"))


def _helios() -> TinyClass:
    case = helios()
    return replace(case, tiny=modular(case.tiny, "HeliosModularPipeline"))


_wan_i2v = partial(wan_i2v, batch=1)
"""Its blocks leave one row of image embeddings, whatever the batch (diffusers 0.42.1)."""

MODULAR = {
    name: partial(_class, build, name.split(",")[0], layout, pixels, **more)
    for name, build, layout, pixels, more in (
        ("WanModularPipeline", wan, "BCFHW", (1, 4, 4), {}),
        ("WanImage2VideoModularPipeline", _wan_i2v, "BCFHW", (1, 4, 4), {"image": picture()}),
        ("Wan22ModularPipeline", wan22, "BCFHW", (1, 4, 4), {}),
        ("LTXModularPipeline", ltx, "tokens", (1, 4, 4), {}),
        ("LTXModularPipeline, image", ltx, "tokens", (1, 4, 4), {"image": picture(32, 64)}),
        ("HunyuanVideo15ModularPipeline", hunyuan_video15, "BCFHW", (1, 2, 2), {}),
    )
} | {
    "Wan22Image2VideoModularPipeline": _wan22_i2v,
    "Wan22VaceModularPipeline": _wan_vace,
    "HunyuanVideo15ModularPipeline, image": _hunyuan_i2v,
    "HeliosModularPipeline": _helios,
}
