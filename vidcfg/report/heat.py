"""Strength heat maps of cells: steps downwards, pixel frames to the right."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from vidcfg.media.drawing import strength_colours, strength_range, strength_text
from vidcfg.report.results import Cell


def heat_maps(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """By cell id: `src` (a picture of one pixel per step and frame), sizes, and `rows`.

    `rows` are the strengths [K, T], or one row where all steps are equal. Colours have one scale
    for all cells. Cells without a surface are left out.
    """
    strengths = {cell.id: _strength(cell) for cell in cells}
    strengths = {key: value for key, value in strengths.items() if value is not None}
    low, high = strength_range(*strengths.values())
    made = {}
    for key, strength_KT in strengths.items():
        is_constant = bool((strength_KT == strength_KT[:1]).all())
        rows = strength_KT[:1] if is_constant else strength_KT
        made[key] = {
            "src": _png(strength_colours(strength_KT, low=low, high=high)),
            "steps": strength_KT.shape[0],
            "frames": strength_KT.shape[1],
            "rows": [[float(f"{x:.5g}") for x in row] for row in rows],
            "text": _in_words(strength_KT),
        }
    return made


def colour_bar(cells: Sequence[Cell]) -> dict[str, str]:
    """The colours of `heat_maps` from the lowest to the highest strength."""
    strengths = [_strength(cell) for cell in cells]
    low, high = strength_range(*strengths)
    ramp = strength_colours(np.linspace(low, high, 64)[None] + 1e-9, low=low, high=high)
    return {"src": _png(ramp), "low": f"{low:g}", "high": f"{high:g}"}


def _strength(cell: Cell) -> np.ndarray | None:
    table = (cell.surface or {}).get("strength")
    if not table:
        return None
    strength_KT = np.asarray(table, dtype=np.float64)
    return strength_KT if strength_KT.ndim == 2 and strength_KT.size else None


def _in_words(strength_KT: np.ndarray) -> str:
    low, high = float(strength_KT.min()), float(strength_KT.max())
    if low == high:
        return f"strength {strength_text(low)} throughout"
    return f"strength {strength_text(low)} to {strength_text(high)}"


def _png(colours_HWC: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colours_HWC, np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
