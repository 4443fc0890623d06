"""Rules of `guidance.method` that change the model, or what it sees."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StrictInt, StrictStr

from vidcfg.guidance.setting_terms import TermModel
from vidcfg.settings.base import AsTuple, Finding, Fraction, Positive, Range

NotNegative = Annotated[int, AfterValidator(Range(0))]
Layers = Annotated[tuple[StrictInt | StrictStr, ...], Field(strict=False), AsTuple]
"""Numbers or names of transformer blocks; empty for the family's own."""
Convention = Literal["scale", "w"]


class Pag(TermModel):
    """cond + (s - 1) (cond - perturbed), perturbed: identity attention over the video tokens."""

    kind: Literal["pag"] = "pag"
    layers: Layers = ()
    convention: Convention = "scale"


class Slg(TermModel):
    """cond + (s - 1) (cond - perturbed), perturbed: blocks left out."""

    kind: Literal["slg"] = "slg"
    layers: Layers = ()
    convention: Convention = "scale"


class Stg(TermModel):
    """cond + (s - 1) (cond - perturbed), perturbed: spatio-temporal attention left out."""

    kind: Literal["stg"] = "stg"
    mode: Literal["attention", "residual", "block"] = "attention"
    layers: Layers = ()
    convention: Convention = "scale"


class Seg(TermModel):
    """cond + (s - 1) (cond - perturbed), perturbed: queries blurred by `sigma` tokens."""

    kind: Literal["seg"] = "seg"
    sigma: Positive | Literal["inf"] = "inf"
    layers: Layers = ()
    convention: Convention = "scale"


class Sag(TermModel):
    """cond + (s - 1) (cond - perturbed), perturbed: from latents blurred where attention is."""

    kind: Literal["sag"] = "sag"
    blur: Positive = 1.0
    threshold: Positive = 1.0
    layers: Layers = ()
    convention: Convention = "scale"

    def findings(self):
        if len(self.layers) > 1:
            yield Finding(("layers",), f"names {len(self.layers)} layers. Name the one to read.")


class Autoguidance(TermModel):
    """cond + (s - 1) (cond - weak), weak: another checkpoint, or the model itself degraded.

    Without any of its values the weak checkpoint that comes with the mini model.
    """

    kind: Literal["autoguidance"] = "autoguidance"
    checkpoint: Annotated[str, Field(min_length=1)] | None = None
    subfolder: Annotated[str, Field(min_length=1)] | None = None
    skip: Layers = ()
    noise: Annotated[float, AfterValidator(Range(0, 10))] = 0.0
    bits: Annotated[int, AfterValidator(Range(1, 16))] | None = None
    seed: NotNegative = 0

    def findings(self):
        if self.subfolder is not None and self.checkpoint is None:
            what = "has no effect without checkpoint. Name the checkpoint that holds the folder."
            yield Finding(("subfolder",), what)
        if self.seed and not self.noise:
            yield Finding(("seed",), "has no effect without noise.", is_error=False)


class Cads(TermModel):
    """uncond + s (cond - uncond), cond from a text mixed with noise on the noisy steps."""

    can_be_off: ClassVar[bool] = False
    kind: Literal["cads"] = "cads"
    tau1: Fraction = 0.6
    tau2: Fraction = 0.9
    noise_scale: Annotated[float, AfterValidator(Range(0, 10))] = 0.25
    mix: Fraction = 1.0
    seed: NotNegative = 0

    def findings(self):
        if self.tau1 > self.tau2:
            yield Finding(("tau1",), f"is {self.tau1:g}, but must not exceed tau2 {self.tau2:g}.")


class Embedded(TermModel):
    """The scale that a guidance-distilled model takes as an input; frames mix two passes."""

    can_be_off: ClassVar[bool] = False
    kind: Literal["embedded"] = "embedded"


class Classifier(TermModel):
    """score + (s - 1) grad log p(y | x_t), for a function passed to vidcfg.guide(classifier=)."""

    kind: Literal["classifier"] = "classifier"
    convention: Convention = "scale"
