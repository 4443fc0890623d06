"""A pipeline with tiny random weights and what a call of it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TinyPipeline:
    """A pipeline and what a call needs.

    `shape`, `positive` and `negative` are arguments of the pipeline's own call; `own` gives the
    ones that set its own guidance to a scale (by default the argument named `scale_argument`).
    `extra_calls` are those of the denoiser beyond one per step, in the first step.
    """

    pipe: Any
    shape: dict[str, Any]
    positive: dict[str, Tensor]
    negative: dict[str, Tensor]
    scale_argument: str = "guidance_scale"
    own: Callable[[Any, float], dict[str, Any]] | None = None
    extra_calls: int = 0

    @property
    def num_calls(self) -> int:
        """How often the denoiser is called."""
        return self.shape["num_inference_steps"] + self.extra_calls

    def step_of(self, call: int) -> int:
        """The step that a call of the denoiser belongs to."""
        return max(0, call - self.extra_calls)

    def _scale(self, scale: float) -> dict[str, Any]:
        return self.own(self.pipe, scale) if self.own else {self.scale_argument: scale}

    def stock(self, scale: float, **extra: Any) -> Tensor:
        """Latents of the pipeline with its own guidance."""
        call = self.shape | self.positive | self.negative | self._scale(scale) | extra
        return self.pipe(**call)[0]

    def unguided(self, **extra: Any) -> Tensor:
        """Latents of a call whose own guidance is off."""
        return self.pipe(**self.shape | self.positive | self._scale(1.0) | extra)[0]

    @property
    def denoiser(self) -> Any:
        """The model that is guided."""
        return self.pipe.unet if hasattr(self.pipe, "unet") else self.pipe.transformer


def generators(*seeds: int) -> list[torch.Generator]:
    """One generator per sample."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def seeded(build: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return build()


def rebuilt(module: Any, **changes: Any) -> Any:
    """A model of the same class with some arguments changed, with new weights.

    Not by `from_config`, which drops a changed argument whose old value was the default.
    """
    config = {name: value for name, value in module.config.items() if not name.startswith("_")}
    return seeded(lambda: type(module)(**config | changes))


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def vision_encoder(width: int, *, projected: bool = False, size: int = 16) -> Any:
    """A CLIP image encoder for square images of that size."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=size,
        intermediate_size=12,
        patch_size=size // 2,
    )
    cls = CLIPVisionModelWithProjection if projected else CLIPVisionModel
    return seeded(lambda: cls(config).eval())


def image_processor() -> Any:
    """Crops to the 16 x 16 of `vision_encoder`."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(crop_size=16, size=16)
