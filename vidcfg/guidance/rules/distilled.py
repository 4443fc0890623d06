"""Guidance that the model was taught, with the strength of every frame as its input."""

from pydantic import Field

from vidcfg.guidance.rule import Rows, WithChange, rule


@rule("distilled")
class Distilled(WithChange):
    """One pass of the model with an adapter that imitates `cfg` at any strength of any frame.

        guided = student(x_t, strength_1, ..., strength_F)

    `adapter` is a file of `scripts/distill.py`; `mini` is the embedded model's. The unconditional
    side is that of its training: a negative prompt is not read. Frames of strength 1 are the plain
    model's, bit for bit, which takes a second pass on steps that have other frames too.

    Formula: d(s), d: the model with its adapter, at the strengths s
    Passes: 1, and 2 where some frames are off
    Use: half the cost of `cfg`, with weights of your own
    Source: Meng et al. 2022, arXiv:2210.03142, by adapters as in Jensen & Sadat 2025,
        arXiv:2503.07274.
    """

    adapter: str = Field(
        min_length=1, description="a file that scripts/distill.py wrote, or mini, the embedded one"
    )

    @property
    def branch(self) -> str:
        return f"distilled:{self.adapter}"

    base = branch

    def tag(self, branch: str, strength_F: Rows, weight_F: Rows) -> object:
        return tuple(strength_F.tolist()) if branch == self.base else None

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Rows]:
        return {"cond": 0 * strength + (strength == 1)}
