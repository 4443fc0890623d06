"""A guidance setting as the engine reads it: method, surface and limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from vidcfg.guidance.frame_weights import Uniform
from vidcfg.guidance.limits import Clamp, Rescale, Threshold
from vidcfg.guidance.rules import ClassifierFree, Method
from vidcfg.guidance.surface import Surface, build_surface


@dataclass(frozen=True)
class Term:
    """The strengths of one term of a rule: its schedule, frame weights, windows and reducer."""

    scale: Any
    frames: Any = field(default_factory=Uniform)
    windows: tuple = ()
    reducer: str | None = None

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


@dataclass(frozen=True)
class Rule:
    """Everything that decides the guided prediction of one sample.

    `scale` is a schedule, or a mapping from expert name to schedule for pipelines that change
    the model on the way. `reducer` None takes the default of the frame weights. `statistics` is
    "frame" or "clip"; `precision` "float32", or "pipeline" for the stock pipeline's own dtype.
    For a `Composite` method, `scale` to `reducer` are the strengths of its first term and `more`
    those of the others.
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
    more: tuple[Term, ...] = ()

    def __post_init__(self):
        assert len(self.more) == len(self.term_names()) - 1, "one surface per term"

    def surface(self, **run: Any) -> Surface:
        """The surface of the rule, or of its first term: the arguments are those of `Term`."""
        return Term(self.scale, self.frames, self.windows, self.reducer).surface(**run)

    def surfaces(self, **run: Any) -> tuple[Surface, ...]:
        """One surface per term, all of one run."""
        return (self.surface(**run), *(term.surface(**run) for term in self.more))

    def term_names(self) -> tuple[str, ...]:
        """The name of every term; one that is used twice is numbered."""
        kinds = [term.name for term in getattr(self.method, "terms", (self.method,))]
        return tuple(
            kind if kind not in kinds[:i] else f"{kind}#{kinds[:i].count(kind) + 1}"
            for i, kind in enumerate(kinds)
        )

    def group_key(self) -> tuple:
        """What two samples must share to be combined together: everything but the surface."""
        limits = (self.rescale, self.threshold, self.clamp)
        return (self.method, *limits, self.statistics, self.precision)

    def order(self) -> tuple[str, ...]:
        """The operations in the order in which they are applied.

        For several terms the first entry is their formula: cond + (cfg - cond) + (stg - cond).
        """
        names = self.term_names()
        method = names[0] if not self.more else f"cond{''.join(f' + ({n} - cond)' for n in names)}"
        limits = {"rescale": self.rescale, "threshold": self.threshold, "clamp": self.clamp}
        used = tuple(name for name, limit in limits.items() if limit is not None)
        return (f"method:{method}", *used)


def _rows_by_step(surfaces: list[Surface]) -> Surface:
    """The surface whose row k is row k of `surfaces[k]`."""
    assert len(surfaces) == len(surfaces[0].progress_K), "one expert per step"
    arrays = {
        item.name: np.stack([getattr(s, item.name)[k] for k, s in enumerate(surfaces)])
        for item in fields(Surface)
        if item.name.split("_")[-1].startswith("K")
    }
    return replace(surfaces[0], **arrays)
