"""All scenes of the moving shapes, as far as the words of a plain caption tell them apart."""

from itertools import product

from vidcfg.mini.shapes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Scene


def all_scenes(*, held_out: bool | None = None) -> list[Scene]:
    """Every combination of shape, colour, motion and background; `held_out` keeps those in or
    out of training alone.
    """
    scenes = [Scene(*values) for values in product(SHAPES, COLOURS, MOTIONS, BACKGROUNDS)]
    return [s for s in scenes if held_out is None or s.is_held_out == held_out]
