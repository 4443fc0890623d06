"""A guidance setting as the engine reads it: method, surface and limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from vidcfg.guidance.frame_weights import Uniform
from vidcfg.guidance.limits import Clamp, Rescale, Threshold
from vidcfg.guidance.methods import ClassifierFree, Method
from vidcfg.guidance.surface import Surface, build_surface


@dataclass(frozen=True)
class Rule:
    """Everything that decides the guided prediction of one sample.

    `scale` is a schedule, or a mapping from expert name to schedule for pipelines that change
    the model on the way. `reducer` None takes the default of the frame weights. `statistics` is
    "frame" or "clip"; `precision` "float32", or "pipeline" for the stock pipeline's own dtype.
    """

    scale: Any
    method: Method = field(default_factory=ClassifierFree)
    frames: Any = field(default_factory=Uniform)
    windows: tuple = ()
    reducer: str | None = None
    rescale: Rescale | None = None
    threshold: Threshold | None = None
    clamp: Clamp | None = None
    statistics: str = "frame"
    precision: str = "float32"

    def surface(
        self,
        *,
        num_steps: int,
        num_frames: int,
        frame_map,
        fps: float | None = None,
        sigmas: np.ndarray | None = None,
        experts: tuple[str, ...] | None = None,
    ) -> Surface:
        """The surface of one run; `experts` names the model of each step (None: one model).

        Raises:
            ValueError: if the scale names experts for a pipeline that has none, or misses one.
        """
        shared = {
            "num_steps": num_steps,
            "num_frames": num_frames,
            "frame_map": frame_map,
            "fps": fps,
            "sigmas": sigmas,
            "windows": self.windows,
            "reducer": self.reducer,
        }
        if not isinstance(self.scale, Mapping):
            return build_surface(self.scale, self.frames, **shared)
        present = tuple(dict.fromkeys(experts or ()))
        if not present or set(present) - set(self.scale):
            known = ", ".join(present) or "one model, without experts"
            raise ValueError(
                f"guidance.scale names the experts {', '.join(self.scale)}, "
                f"but this pipeline has {known}. Use one scale per expert, or a single scale."
            )
        surfaces = {
            name: build_surface(self.scale[name], self.frames, **shared) for name in present
        }
        return _rows_by_step([surfaces[name] for name in experts])

    def group_key(self) -> tuple:
        """What two samples must share to be combined together: everything but the surface."""
        limits = (self.rescale, self.threshold, self.clamp)
        return (self.method, *limits, self.statistics, self.precision)

    def order(self) -> tuple[str, ...]:
        """The operations in the order in which they are applied."""
        limits = {"rescale": self.rescale, "threshold": self.threshold, "clamp": self.clamp}
        used = tuple(name for name, limit in limits.items() if limit is not None)
        return (f"method:{self.method.name}", *used)


def _rows_by_step(surfaces: list[Surface]) -> Surface:
    """The surface whose row k is row k of `surfaces[k]`."""
    assert len(surfaces) == len(surfaces[0].progress_K), "one expert per step"
    arrays = {
        item.name: np.stack([getattr(s, item.name)[k] for k, s in enumerate(surfaces)])
        for item in fields(Surface)
        if item.name.split("_")[-1].startswith("K")
    }
    return replace(surfaces[0], **arrays)
