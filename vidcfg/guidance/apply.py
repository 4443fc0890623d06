"""One group of samples that share rule and branches: from predictions to the guided prediction."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.combination import Combination, combine, keep_off_frames
from vidcfg.guidance.gram import NOISY, Gram, differences_from, gram_of, spread_of
from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.limits import frame_std
from vidcfg.guidance.prediction import convert, x0_coefficients
from vidcfg.guidance.rules.base import Vectors
from vidcfg.guidance.samples import SampleStep


@dataclass(frozen=True, eq=False)
class Group:
    """Samples of one rule that need the same branches on a step, and what the step brings.

    `noisy` holds their noisy samples in the model's layout; `level`, `prediction` and `grid` are
    those of `StepInputs`.
    """

    members: list[SampleStep]
    layout: FrameLayout
    num_frames: int
    noisy: Tensor
    level: tuple[float, float] | None
    prediction: str
    grid: tuple[int, int] | None = None
    num_channels: int | None = None

    @property
    def first(self) -> SampleStep:
        return self.members[0]

    def rows(self) -> dict[str, np.ndarray]:
        """Strengths and weights of the samples."""
        return {
            "strength_BF": np.stack([member.strength_F for member in self.members]),
            "weight_BF": np.stack([member.weight_F for member in self.members]),
        }

    def noisy_frames(self, like: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The noisy samples as frames, without the condition channels that stand behind them."""
        frames = self.layout.frames(self.noisy, self.num_frames).to(dtype)
        axis = frames.ndim - 1 if self.layout.axes == "tokens" else 2
        channels = self.num_channels if like is None else like.shape[axis]
        return frames if channels is None else frames.narrow(axis, 0, channels)

    def noise_level(self, what: str, instead: str) -> tuple[float, float]:
        """(alpha, sigma) of this step.

        Raises:
            ValueError: if the scheduler does not tell it.
        """
        if self.level is None:
            raise ValueError(
                f"{what} needs the noise level of the scheduler, which this scheduler does not "
                f"give. Use {instead}."
            )
        return self.level


@dataclass(frozen=True, eq=False)
class Outcome:
    """The guided prediction of a group, the spread of its frames, and what is remembered.

    `std_cond_BF`, `std_guided_BF` are standard deviations before and after guidance; `vectors` has
    a row per sample, and `stop_BF` marks the frames where the rule ends.
    """

    guided: Tensor
    std_cond_BF: np.ndarray
    std_guided_BF: np.ndarray
    vectors: dict[str, Tensor]
    stop_BF: np.ndarray | None = None


def guide_group(
    group: Group, predictions: dict[str, Tensor], combine_dtype: torch.dtype | None
) -> Outcome:
    """method -> rescale -> threshold -> clamp; the prediction is in the model's layout."""
    _check_kind(group)
    if not predictions:
        return _zeros(group, combine_dtype)
    rule = group.first.rule
    model_dtype = next(iter(predictions.values())).dtype
    out_dtype = combine_dtype or model_dtype
    dtype = torch.promote_types(torch.float32, model_dtype)
    if rule.precision == "pipeline":
        dtype = out_dtype
    frames = {
        branch: group.layout.frames(p, group.num_frames).to(dtype)
        for branch, p in predictions.items()
    }
    if group.first.is_cond:
        std = spread_of(frames["cond"])
        return Outcome(predictions["cond"].to(out_dtype), std, std, {})
    # A branch that was left out has coefficient 0: any prediction serves in its place.
    only = next(iter(frames.values()))
    method = group.first.method
    names = dict.fromkeys((*method.branches, method.base))
    frames = {branch: frames.get(branch, only) for branch in names}
    guided, before, after, vectors, stop = _guided(group, frames)
    return Outcome(group.layout.restore(guided).to(out_dtype), before, after, vectors, stop)


def _check_kind(group: Group) -> None:
    """Raise a ValueError for a rule that has no meaning for what the model predicts."""
    method = group.first.method
    if method.flow_only and not group.prediction.startswith("flow"):
        raise ValueError(
            f"guidance.method {method.name} starts with steps on which nothing moves, which is a "
            f"velocity of zero, but this model predicts {group.prediction} and not a flow. "
            f"Use zero_init_steps: 0."
        )


def _zeros(group: Group, combine_dtype: torch.dtype | None) -> Outcome:
    """The prediction that nothing moves, for a step that no branch is evaluated for."""
    like = group.noisy_frames(None, combine_dtype or group.noisy.dtype)
    none = np.zeros(like.shape[:2])
    return Outcome(group.layout.restore(torch.zeros_like(like)), none, none, {})


def _guided(group: Group, frames: dict[str, Tensor]) -> tuple:
    """The guided frames, the spread before and after, what to remember, where to stop."""
    method, rule = group.first.method, group.first.rule
    differences = differences_from(method.base, frames)
    x0 = None
    if method.space == "x0":
        level = group.noise_level(f"guidance.method {method.name} in x0", "space: prediction")
        x0 = x0_coefficients(group.prediction, *level)
    vectors = _extra(group, differences, 1.0 if x0 is None else x0[1])
    raw = dict(vectors)
    if x0 is not None:
        only = next(iter(frames.values()))
        raw[NOISY] = group.noisy_frames(only, only.dtype)
    has_rescale = method.is_limited and rule.rescale is not None and rule.rescale.amount > 0
    gram = None
    if method.needs_gram or has_rescale:
        gram = gram_of(frames, base=method.base, differences=differences, raw=raw)
    own = gram.clip() if method.needs_gram and rule.statistics == "clip" else gram
    combination = method.coefficients(own, **group.rows(), x0=x0)
    if has_rescale:
        combination = rule.rescale.apply(combination, gram, statistics=rule.statistics)
    guided = combine(frames, combination, differences=differences, vectors=raw)
    is_tamed = method.is_limited and not (rule.threshold is None and rule.clamp is None)
    if is_tamed:
        guided = _tamed(group, guided, frames, combination)
    cond = frames["cond"]
    before = spread_of(cond) if gram is None else _spread(gram, gram.vector("cond"))
    after = spread_of(guided) if gram is None or is_tamed else frame_std(combination, gram)
    kept = {name: vectors[name] for name in method.remembers if name in vectors}
    return guided, before, after, kept, combination.stop_BF


def _spread(gram: Gram, vector: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(gram.covariance(vector, vector), 0.0))


def _extra(group: Group, differences: dict[str, Tensor], x0_scale: float) -> dict[str, Tensor]:
    """The vectors that the rule makes of this step's differences and of what it remembers."""
    method = group.first.method
    if not method.extras:
        return {}
    remembered = {
        name: torch.cat([member.remembered[name] for member in group.members])
        for name in group.first.remembered
    }
    given = Vectors(method.base, differences, remembered, x0_scale, group.grid, **group.rows())
    return method.extra(given)


def _tamed(
    group: Group, guided: Tensor, frames: dict[str, Tensor], combination: Combination
) -> Tensor:
    """The guided frames after threshold and clamp, which leave frames that are off alone."""
    rule = group.first.rule
    if rule.threshold is not None:
        guided = _threshold(group, guided)
    if rule.clamp is not None:
        guided = rule.clamp.apply(guided, statistics=rule.statistics)
    return keep_off_frames(guided, frames, combination)


def _threshold(group: Group, guided: Tensor) -> Tensor:
    """Threshold x0, in float32 or better; elements that it leaves alone keep their bits."""
    rule = group.first.rule
    alpha, sigma = group.noise_level("guidance.threshold", "guidance.rescale or guidance.clamp")
    wide = torch.promote_types(torch.float32, guided.dtype)
    noisy = group.noisy_frames(guided, wide)
    level = {"alpha": alpha, "sigma": sigma}
    x0 = convert(guided.to(wide), noisy, group.prediction, "sample", **level)
    tamed = rule.threshold.apply(x0, statistics=rule.statistics)
    changed = convert(tamed, noisy, "sample", group.prediction, **level).to(guided.dtype)
    return torch.where(tamed == x0, guided, changed)
