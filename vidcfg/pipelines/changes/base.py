"""What a rule may do to the model beside asking for other texts: one class for each kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vidcfg.guidance.passes import StepInputs
from vidcfg.guidance.plan import SampleRows
from vidcfg.pipelines.family import Family

LogProb = Callable[[Tensor, float, int], Tensor]
"""(noisy latents [B, ...] in the model's layout, sigma, step) -> log p(y | x_t) [B]."""


@dataclass(frozen=True, eq=False)
class RunStart:
    """What a run begins with: the rules of all samples, a denoiser and its first arguments."""

    family: Family
    samples: SampleRows
    module: Any
    arguments: Mapping[str, Any]
    classifier: LogProb | None = None

    @property
    def hidden(self) -> Tensor:
        """The noisy latents."""
        return self.arguments[self.family.hidden]


@dataclass(frozen=True, eq=False)
class StepCall:
    """One call of a denoiser: `arguments` hold the rows of one branch, or of several unchanged.

    `samples` tells the sample of each row, where that is asked for; `original` is the denoiser's
    own forward, `attribute` its name in the pipeline, `inputs` what the step brings. `beside` are
    rows of inputs that a change gave its branch and the denoiser does not take.
    """

    family: Family
    module: Any
    attribute: str
    original: Callable
    arguments: Mapping[str, Any]
    branches: tuple[str, ...]
    samples: tuple[int, ...]
    inputs: StepInputs
    beside: Mapping[str, Tensor]

    def plain(self, **changed: Any) -> Any:
        """The model's outputs, with some arguments changed."""
        return self.original(**{**self.arguments, **changed})

    def noisy(self) -> tuple[Tensor, Tensor]:
        """The noisy latents, and the further channels that some models have behind them."""
        hidden, axis = self.arguments[self.family.hidden], self.family.channel_axis
        count = self.inputs.num_channels or hidden.shape[axis]
        rest = hidden.shape[axis] - count
        return hidden.narrow(axis, 0, count), hidden.narrow(axis, count, rest)


@dataclass(frozen=True, eq=False)
class Asked:
    """A setting that asks for a change: its sample, and the place of its term in that rule."""

    sample: int
    place: int
    setting: Any


KINDS: dict[type, type["ModelChange"]] = {}
"""Class of a setting -> what it does to a model."""


class ModelChange:
    """What the settings of one kind do to the model over a run; made when the run begins.

    A setting is what a rule names as its `change`. Each kind says here what it does; the
    defaults are a change that does nothing.
    """

    def __init_subclass__(cls, setting: type) -> None:
        KINDS[setting] = cls

    def __init__(self, start: RunStart, asked: tuple[Asked, ...]):
        self.start, self.asked = start, asked
        self.of: dict[str, Any] = {}
        """Branch -> the setting by which `run` makes it, in calls of its own."""
        for setting in (each.setting for each in asked):
            made = (setting.branch,) if hasattr(setting, "branch") else setting.isolated
            self.of |= dict.fromkeys(made, setting)
        self.begin()

    def begin(self) -> None:
        """Called once a run; raises ValueError if the model cannot do what a setting asks."""

    @property
    def needs_samples(self) -> bool:
        """Whether a branch is made from another's result, sample by sample, so none is shared."""
        return any(getattr(setting, "follows_cond", False) for setting in self.of.values())

    @property
    def touches(self) -> dict[str, str]:
        """Rule -> what it does to a part of the model where a cache may keep its state."""
        return {}

    def tag(self, sample: int) -> object:
        """What the condition of a sample depends on beside its text."""
        return None

    def condition(self, cond: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """What `cond`, and every branch that sees the same, gets on a step."""
        return cond

    def inputs(self, branch: str, step: int) -> dict[str, Tensor]:
        """Further inputs of a branch on a step."""
        return {}

    def run(self, call: StepCall) -> Any:
        """The outputs of a branch in `of`, in the form of the model's own."""
        raise NotImplementedError

    def watch(self, call: StepCall, run: Callable[[], Any]) -> Any:
        """The outputs `run()` of unchanged branches, which may be looked at on the way."""
        return run()


def first(outputs: Any) -> Tensor:
    """The prediction among a model's outputs."""
    if isinstance(outputs, Tensor):
        return outputs
    try:
        return outputs[0]
    except (KeyError, TypeError):
        raise ValueError(
            f"the denoiser returns a {type(outputs).__name__}, in which its prediction cannot be "
            f"told. Return the prediction, or a tuple that begins with it."
        ) from None
