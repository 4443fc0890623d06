"""How one kind of pipeline names its inputs and lays out its latents."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vidcfg.guidance.frame_map import FrameMap
from vidcfg.guidance.layout import FrameLayout


@dataclass(frozen=True)
class Family:
    """A declaration: all that guidance must know of a pipeline class.

    Args:
        name: short name, as printed by `vidcfg families`.
        pipelines: names of the pipeline classes it covers.
        layout: axes of the latents that the denoiser sees (vidcfg.guidance.layout).
        frame_map: pipeline -> FrameMap of its VAE.
        denoisers: attribute of each denoiser -> expert name (None where there is one model).
        texts: denoiser argument -> text input it takes, in the pipeline's own words; what the
            negative side replaces. The user passes them to `guide` as `negative_<text input>`.
        encoded: the text inputs that `encode_prompt` returns, in its order (None: not for us).
        own_guidance: arguments of the pipeline call that switch its own guidance -> off value.
        per_sample: further denoiser arguments with one row per sample.
        stock_passes: "sequential" (one call per branch, cond first) or "batched" (one call,
            [uncond, cond]), as the stock pipeline does.
        combines_in_float32: whether the stock pipeline combines in float32 or in its model dtype.
        prediction: kind of the prediction, or None to read it from the scheduler.
        latent_frames: denoiser arguments -> latent frames, where the tensor does not tell.
        expert_of: (pipeline, timestep) -> expert name, for pipelines with several denoisers.
        fps_argument: pipeline argument that holds the frame rate, where there is one.
        default_scale, usual_range: what people use; a scale outside is a note, not an error.
    """

    name: str
    pipelines: tuple[str, ...]
    layout: str
    frame_map: Callable[[Any], FrameMap]
    texts: Mapping[str, str]
    encoded: tuple[str | None, ...]
    own_guidance: Mapping[str, Any]
    denoisers: Mapping[str, str | None] = field(default_factory=lambda: {"transformer": None})
    per_sample: tuple[str, ...] = ("timestep",)
    hidden: str = "hidden_states"
    stock_passes: str = "sequential"
    combines_in_float32: bool = False
    prediction: str | None = "flow"
    latent_frames: Callable[[Mapping[str, Any]], int] | None = None
    expert_of: Callable[[Any, float], str | None] | None = None
    fps_argument: str | None = None
    default_scale: float = 5.0
    usual_range: tuple[float, float] = (3.0, 7.0)

    @property
    def frame_layout(self) -> FrameLayout:
        return FrameLayout(self.layout)
