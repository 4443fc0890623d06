"""What guidance did: the strength used, the evaluations run, the spread before and after."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vidcfg.guidance.plan import RunPlan, added_up
from vidcfg.guidance.shapes import Float64

ADVICE = (
    "In half precision a lower scale, guidance.rescale, guidance.clamp or model.dtype: float32 "
    "helps."
)


class NonFiniteError(RuntimeError):
    """A prediction holds NaN or Inf."""


@dataclass(frozen=True, eq=False)
class StepTrace:
    """One guided prediction.

    Args:
        step: index of the denoising step; second-order schedulers have two entries per step.
        sigma: noise level of the scheduler, None where it has none.
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


@dataclass
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
        return sum(self.evaluations.values())

    def start_run(self, *, surfaces: list, planned, order: tuple[str, ...]) -> None:
        """Forget the steps of the previous run."""
        self.steps = []
        self.surfaces, self.planned, self.order = surfaces, planned, order
        self.num_runs += 1

    def check_finite(self) -> None:
        """Look at the spread of steps that did not wait for it, at the end of a run.

        Raises:
            NonFiniteError: naming the first step, sample and frame with NaN or Inf.
        """
        for step in self.steps:
            spread = step.std_cond_BF + step.std_guided_BF
            if isinstance(spread, np.ndarray):
                continue
            for sample, frame in (~spread.isfinite()).nonzero().tolist():
                raise NonFiniteError(
                    f"step {step.step}: a prediction of sample {sample} holds NaN or Inf, first "
                    f"in latent frame {frame}. {ADVICE}"
                )

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
