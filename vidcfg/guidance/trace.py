"""What guidance did: the strength used, the evaluations run, the spread before and after."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from vidcfg.extras import explained
from vidcfg.guidance.plan import RunPlan, added_up
from vidcfg.guidance.shapes import Float64


@dataclass(frozen=True, eq=False)
class StepTrace:
    """One guided prediction.

    Args:
        step: index of the denoising step; second-order schedulers have two entries per step.
        sigma: noise level of what the denoiser sees, None where the scheduler tells none.
        expert: name of the model that ran, None for pipelines with one model.
        strength_BF: strength used per sample and latent frame; that of the first of several terms.
        evaluations: rows evaluated, by branch.
        calls: model calls that these rows took.
        std_cond_BF, std_guided_BF: standard deviation (biased) of every frame before and after
            guidance; before is that of `cond`, or of `uncond` where `cond` was left out. Both are
            0 on a step whose result is zero without an evaluation (`ZeroStar`). Tensors on CUDA,
            where a step waits for no number.
        terms: for each sample the strength of every term by its name; None for one term.
    """

    step: int
    sigma: float | None
    expert: str | None
    strength_BF: Float64[np.ndarray, "B F"]
    evaluations: dict[str, int]
    calls: int
    std_cond_BF: Float64[Any, "B F"]
    std_guided_BF: Float64[Any, "B F"]
    terms: tuple[dict[str, np.ndarray] | None, ...] = ()

    def to_dict(self) -> dict:
        """Plain data; standard deviations are rounded to six significant digits."""

        def rounded(values: np.ndarray) -> list:
            return [[float(f"{v:.6g}") for v in row] for row in values.tolist()]

        plain = {
            "step": self.step,
            "sigma": self.sigma,
            "expert": self.expert,
            "evaluations": self.evaluations,
            "calls": self.calls,
            "strength": self.strength_BF.tolist(),
            "std_cond": rounded(self.std_cond_BF),
            "std_guided": rounded(self.std_guided_BF),
        }
        if any(self.terms):
            plain["terms"] = [
                {name: row_F.tolist() for name, row_F in (terms or {}).items()}
                for terms in self.terms
            ]
        return plain


@dataclass(repr=False)
class Trace:
    """What happened in the pipeline calls inside one `vidcfg.guide`, the last run in `steps`.

    `planned` is the plan that was made before the run's first step, `surfaces` one surface per
    sample, `order` the operations in the order in which they are applied.
    """

    steps: list[StepTrace] = field(default_factory=list)
    surfaces: list = field(default_factory=list)
    planned: RunPlan | None = None
    order: tuple[str, ...] = ()
    num_runs: int = 0

    @property
    def evaluations(self) -> dict[str, int]:
        """Rows evaluated in the last run, by branch."""
        return added_up([step.evaluations for step in self.steps])

    @property
    def total(self) -> int:
        """All rows evaluated in the last run."""
        return sum(sum(step.evaluations.values()) for step in self.steps)

    def __repr__(self) -> str:
        if not self.steps:
            return "Trace(no run yet)"
        first, by_branch = self.steps[0].strength_BF, self.evaluations.items()
        strengths = np.concatenate([step.strength_BF.ravel() for step in self.steps])
        told = ", ".join(f"{count} {branch}" for branch, count in by_branch)
        return (
            f"Trace({len(self.steps)} steps, {first.shape[0]} samples, {first.shape[1]} latent "
            f"frames, strength {_span(strengths)}, {self.total} evaluations: {told})"
        )

    def rows(self) -> list[dict[str, Any]]:
        """One for each step, sample and latent frame: strength, and spread before and after."""
        return [
            {
                "step": step.step,
                "sigma": step.sigma,
                "expert": step.expert,
                "sample": sample,
                "frame": frame,
                "strength": float(step.strength_BF[sample, frame]),
                "std_cond": float(step.std_cond_BF[sample, frame]),
                "std_guided": float(step.std_guided_BF[sample, frame]),
            }
            for step in self.steps
            for sample, frame in np.ndindex(step.strength_BF.shape)
        ]

    def to_pandas(self) -> Any:
        """`rows` as a DataFrame.

        Raises:
            ModuleNotFoundError: without pandas.
        """
        with explained("trace.to_pandas(), unlike trace.rows(),", error=ModuleNotFoundError):
            import pandas
        return pandas.DataFrame(self.rows())

    def plot(self, sample: int = 0) -> Any:
        """A matplotlib figure: strength and spread of a sample, passes of all of them.

        A notebook shows it; `trace.plot().savefig("trace.png")` writes it.

        Raises:
            ModuleNotFoundError: without matplotlib.
            ValueError: before the first run, or for a sample that the run has not.
        """
        with explained("trace.plot()", error=ModuleNotFoundError):
            from vidcfg.guidance.trace_plot import plot_steps

        return plot_steps(self.steps, sample=sample, title=repr(self))

    def _repr_html_(self) -> str:
        """What a notebook shows: each step with the lowest and highest of its frames."""
        heads = ("step", "sigma", "expert", "strength", "std before", "std after", "evaluations")
        rows = "".join(f"<tr>{_cells('td', _of_step(step))}</tr>" for step in self.steps)
        table = f"<table><tr>{_cells('th', heads)}</tr>{rows}</table>"
        return f"<p>{escape(repr(self))}</p>{table if rows else ''}"

    def start_run(self, order: tuple[str, ...]) -> None:
        """Forget the previous run; the new one applies these operations."""
        self.steps, self.surfaces, self.planned, self.order = [], [], None, order
        self.num_runs += 1

    def to_dict(self) -> dict:
        """Plain data for the JSON beside a video."""
        plain = {
            "order": list(self.order),
            "evaluations": self.evaluations,
            "planned": None if self.planned is None else self.planned.evaluations,
            "naive": None if self.planned is None else self.planned.naive,
            "steps": [step.to_dict() for step in self.steps],
        }
        if self.planned is not None and self.planned.is_upper_bound:
            plain["planned_is_upper_bound"] = True
        return plain


def _of_step(step: StepTrace) -> list[str]:
    spans = (step.strength_BF, step.std_cond_BF, step.std_guided_BF)
    shown = [_span(span) for span in spans]
    sigma = "" if step.sigma is None else f"{step.sigma:.4g}"
    told = ", ".join(f"{count} {branch}" for branch, count in step.evaluations.items())
    return [str(step.step), sigma, step.expert or "", *shown, told]


def _span(values: Any) -> str:
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} to {high}"


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
