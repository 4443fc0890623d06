"""What is changed in a transformer to make a worse prediction from the same inputs. No model."""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

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

    def __post_init__(self):
        assert self.kind in KINDS, self.kind

    @property
    def branch(self) -> str:
        """`perturbed:<rule>`, with whatever tells two perturbations of one rule apart."""
        sigma = "" if self.sigma == float("inf") else f"sigma={self.sigma:g}"
        layers = ",".join(map(str, self.layers))
        return "/".join(filter(None, (f"perturbed:{self.rule}", self.mode, layers, sigma)))


def check_isolation(changes: Iterable[Any], own: Container[str], family: str) -> None:
    """Raise ValueError where video and sound are to be kept apart in a model without sound.

    `own` are the kinds of perturbation that the model makes by itself.
    """
    kinds = {change.kind for change in changes if isinstance(change, Perturbation)}
    if "isolate" in kinds and "isolate" not in own:
        raise ValueError(
            f"guidance.method: modality is for models that make video and sound, which {family} "
            f"does not. Leave it out of guidance.method."
        )
