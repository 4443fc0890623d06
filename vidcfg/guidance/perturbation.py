"""What is changed to make a worse prediction from the same inputs. Data, no model."""

from dataclasses import dataclass
from typing import ClassVar

KINDS = ("identity", "drop", "skip", "blur", "isolate")


@dataclass(frozen=True)
class Perturbation:
    """One change of a transformer's forward, for a branch of its own.

    | kind       | what the layers do in the perturbed pass                                      |
    |------------|-------------------------------------------------------------------------------|
    | `identity` | the attention map of the video tokens is the identity: out_i = v_i            |
    | `drop`     | the attention adds nothing to the video tokens; the rest of the block runs on |
    | `skip`     | the whole block hands on what it gets                                         |
    | `blur`     | video queries are blurred over the token grid by a Gaussian of `sigma` tokens |
    | `isolate`  | video and sound do not see each other, in all layers                          |

    Args:
        kind: one of `KINDS`.
        layers: indices or names of blocks; empty for the family's own choice.
        rule: kind of the rule that asks, for messages and the family's own choice of layers.
        sigma: width of the blur in tokens; infinity gives all queries their mean.
        mode: what tells this way from others of the same rule.
    """

    kind: str
    layers: tuple[int | str, ...] = ()
    rule: str = ""
    sigma: float = float("inf")
    mode: str = ""
    follows_cond: ClassVar[bool] = False

    def __post_init__(self):
        assert self.kind in KINDS, self.kind

    @property
    def branch(self) -> str:
        """`perturbed:<rule>`, with whatever tells two perturbations of one rule apart.

        Equal names mean equal perturbations, so that samples of a batch, and terms of a
        composition, share an evaluation exactly where they may.
        """
        sigma = "" if self.sigma == float("inf") else f"sigma={self.sigma:g}"
        layers = ",".join(map(str, self.layers))
        return "/".join(filter(None, (f"perturbed:{self.rule}", self.mode, layers, sigma)))


@dataclass(frozen=True)
class Degradation:
    """What self-attention guidance does to the estimate of the clean latents.

    Args:
        blur: width of the Gaussian in latent pixels.
        threshold: blur where the received attention exceeds this many times its mean.
        layers: the block whose attention is read, empty for the family's own.
        rule: kind of the rule that asks.
    """

    blur: float = 1.0
    threshold: float = 1.0
    layers: tuple[int | str, ...] = ()
    rule: str = "sag"
    follows_cond: ClassVar[bool] = True

    @property
    def branch(self) -> str:
        """`perturbed:sag`, with the settings that are not the usual ones."""
        parts = [f"perturbed:{self.rule}"]
        parts += [f"blur={self.blur:g}"] if self.blur != 1 else []
        parts += [f"threshold={self.threshold:g}"] if self.threshold != 1 else []
        return "/".join([*parts, *map(str, self.layers)])


@dataclass(frozen=True)
class WeakModel:
    """Where a weaker model comes from: a checkpoint, or the same model degraded.

    Args:
        checkpoint: folder or repository of another model of the same class; "mini" is the early
            training step that comes with the mini model. None degrades the model itself.
        subfolder: folder inside the checkpoint; None takes the denoiser's own name.
        skip: blocks that are left out.
        noise: standard deviation of noise added to every weight, relative to that tensor's own.
        bits: weights are rounded to 2^bits levels between their extremes; None keeps them.
        seed: of the noise.
        rule: kind of the rule that asks.
    """

    checkpoint: str | None = None
    subfolder: str | None = None
    skip: tuple[int | str, ...] = ()
    noise: float = 0.0
    bits: int | None = None
    seed: int = 0
    rule: str = "autoguidance"
    follows_cond: ClassVar[bool] = False

    @property
    def branch(self) -> str:
        """`weak`, with the settings that are not the usual ones."""
        parts = ["weak"]
        parts += [] if self.checkpoint in ("mini", None) else [self.checkpoint]
        parts += [self.subfolder] if self.subfolder else []
        parts += ["skip=" + ",".join(map(str, self.skip))] if self.skip else []
        parts += [f"noise={self.noise:g}", f"seed={self.seed}"] if self.noise else []
        return "/".join(parts + ([] if self.bits is None else [f"bits={self.bits}"]))

    @property
    def has_own_weights(self) -> bool:
        """Whether the weak model needs weights beside those of the model itself."""
        return self.checkpoint is not None or bool(self.noise) or self.bits is not None


@dataclass(frozen=True)
class Student:
    """The model with an adapter that was taught guidance, and reads the strength of every frame.

    Args:
        adapter: file that `scripts/distill.py` wrote.
    """

    adapter: str
    follows_cond: ClassVar[bool] = False

    @property
    def branch(self) -> str:
        return f"distilled:{self.adapter}"


Change = Perturbation | Degradation | WeakModel | Student
"""What a branch changes: a transformer's forward, the noisy latents, the model."""
