"""`model` and `sampling`: which pipeline is loaded, and how it is stepped."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from vidcfg.settings.base import ConfigModel, Finding, Positive, Range, refuse
from vidcfg.settings.validation import choose


def _known_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
        raise refuse(choose(value, ("auto", "cpu", "cuda", "cuda:0")))
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise refuse("but must be text of at least one character.")
    return value


Text = Annotated[str, AfterValidator(_not_blank)]
Device = Annotated[str, AfterValidator(_known_device)]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class MiniModel(ConfigModel):
    """The model that ships with vidcfg; `checkpoint` is a folder with another training of it."""

    kind: Literal["mini"] = "mini"
    checkpoint: Text | None = None
    device: Device = "auto"
    dtype: Dtype = "auto"
    attention: Literal["sdpa", "xformers"] = "sdpa"

    def findings(self):
        if self.attention == "xformers" and self.device == "cpu":
            message = (
                "is 'xformers', which needs CUDA, but device is cpu. Write sdpa, or device: cuda."
            )
            yield Finding(("attention",), message)


class DiffusersModel(ConfigModel):
    """A checkpoint of a supported diffusers pipeline: a folder or a repository name."""

    kind: Literal["diffusers"] = "diffusers"
    checkpoint: Text = Field(
        description="a folder or a repository such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    )
    revision: Text | None = None
    motion_adapter: Text | None = Field(
        None, description="AnimateDiff's motion modules: a folder or a repository"
    )
    dtype: Dtype = "auto"
    device: Device = "auto"
    offload: Literal["none", "model", "sequential"] = "none"
    vae_tiling: bool = False
    attention: Text | None = None
    compile: bool = False

    def findings(self):
        if self.offload != "none" and self.device == "cpu":
            message = f"is '{self.offload}', but device is cpu. Write none, or device: cuda."
            yield Finding(("offload",), message)


def model_from(value: Any) -> Any:
    if value == "mini":
        return {"kind": "mini"}
    if not isinstance(value, dict | ConfigModel):
        raise refuse(
            "but must be mini or a mapping such as {kind: diffusers, checkpoint: folder}."
        )
    return value


class Sampling(ConfigModel):
    """The solver. `pipeline` is the scheduler that the checkpoint itself names."""

    num_steps: Annotated[int, AfterValidator(Range(1, 10_000))] = Field(
        description="a whole number"
    )
    scheduler: Literal["pipeline", "flow_euler", "unipc", "dpm++", "heun", "ddim"] = "pipeline"
    shift: Positive | None = None
