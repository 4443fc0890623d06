"""Fonts, colours and text of the pictures in `sheet.py`."""

from bisect import bisect_right
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ImageDraw, ImageFont, features

from vidcfg.extras import explained

INK, MUTED, PAPER, OFF = (25, 25, 30), (115, 115, 125), (255, 255, 255), (200, 200, 204)
COLOUR_MAP = "viridis"


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as bundled with matplotlib, so that pictures look the same everywhere.

    Raises:
        MissingPackageError: without matplotlib.
    """
    with explained("a contact sheet"):
        from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _characters(path: str) -> frozenset[int]:
    """The characters that a font file has."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())


@cache
def _path_with(character: str) -> str | None:
    """The file of a font of this machine that has a character, upright and regular rather than
    not; None without one."""
    from matplotlib.font_manager import fontManager, weight_dict

    def rank(entry: Any) -> tuple:
        weight = weight_dict.get(entry.weight, entry.weight)
        return entry.style != "normal", abs(weight - 400), entry.fname

    fonts = (one for one in fontManager.ttflist if "last resort" not in one.name.lower())
    paths = (entry.fname for entry in sorted(fonts, key=rank))
    return next((path for path in paths if ord(character) in _characters(path)), None)


def _runs(text: str, typeface: ImageFont.FreeTypeFont) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """The parts of a text, each with the font that has its characters: the given one, else one of
    this machine."""
    own = _characters(typeface.path)
    if text.isascii():
        return [(text, typeface)]

    def path_of(character: str) -> str:
        return typeface.path if ord(character) in own else _path_with(character) or typeface.path

    parts = [(path, "".join(run)) for path, run in groupby(text, path_of)]
    return [(run, _shaping(path, typeface, run)) for path, run in parts]


def _shaping(path: str, typeface: ImageFont.FreeTypeFont, run: str) -> ImageFont.FreeTypeFont:
    """A font that joins letters, and turns their direction, where the script of `run` does."""
    is_plain = all(ord(c) < 0x590 or 0x2000 <= ord(c) < 0x2E80 for c in run)
    if path == typeface.path and (is_plain or not features.check("raqm")):
        return typeface
    return ImageFont.truetype(path, typeface.size)


def _legible(text: str, typeface: ImageFont.FreeTypeFont) -> str:
    """The text with an escape such as `\\u732b` for each character that no font has."""
    own = _characters(typeface.path)

    return "".join(
        c if c.isascii() or ord(c) in own or _path_with(c) else ascii(c)[1:-1] for c in text
    )


def _length(text: str, typeface: ImageFont.FreeTypeFont) -> float:
    return sum(face.getlength(run) for run, face in _runs(text, typeface))


@cache
def _colour_table() -> np.ndarray:
    """RGB uint8 [256, 3] of `COLOUR_MAP`, the same as matplotlib's."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    return cv2.applyColorMap(levels, getattr(cv2, f"COLORMAP_{COLOUR_MAP.upper()}"))[:, 0, ::-1]


def strength_range(*strengths: np.ndarray) -> tuple[float, float]:
    """Lowest and highest strength with 1 (off) included; at least 1 apart, for a usable scale."""
    everything = np.concatenate([*map(np.ravel, strengths), np.ones(1)])
    low, high = float(everything.min()), float(everything.max())
    return low, max(high, low + 1.0)


def strength_colours(strengths: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """RGB uint8 [..., 3] on a perceptual colour map; a strength of exactly 1 (off) is grey."""
    strengths = np.asarray(strengths, dtype=np.float64)
    position = np.clip((strengths - low) / (high - low), 0, 1)
    colours = _colour_table()[np.rint(position * 255).astype(int)]
    return np.where((strengths == 1.0)[..., None], np.array(OFF, np.uint8), colours)


def strength_text(strength: float) -> str:
    """Three significant digits; exactly 1 reads "1 off"."""
    if strength == 1.0:
        return "1 off"
    text = f"{strength:.3g}"
    return text if any(c in text for c in ".e") or abs(strength) >= 100 else f"{text}.0"


def wrap_text(
    text: str, width: int, typeface: ImageFont.FreeTypeFont, *, max_lines: int
) -> list[str]:
    """Lines no wider than `width` pixels; what does not fit in `max_lines` ends in an ellipsis."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    words = _legible(printable, typeface).split() or [""]
    lines, line = [], ""
    while words:
        longer = f"{line} {words[0]}".strip()
        if _length(longer, typeface) <= width:
            line = longer
            words.pop(0)
        elif line and len(lines) < max_lines - 1:
            lines.append(line)
            line = ""
        else:
            return [*lines, _cut(longer, width, typeface)]
    return [*lines, line]


def _cut(text: str, width: int, typeface: ImageFont.FreeTypeFont) -> str:
    def cut(length: int) -> str:
        return text[:length].rstrip() + "…"

    lengths = range(1, len(text) + 1)
    return cut(bisect_right(lengths, width, key=lambda length: _length(cut(length), typeface)))


def draw_text(
    draw: ImageDraw.ImageDraw,
    xy: tuple[float | int, float | int],
    text: str,
    *,
    size: int = 13,
    bold: bool = False,
    colour: tuple[int, int, int] = INK,
    anchor: str = "la",
) -> None:
    typeface = font(size, bold=bold)
    if anchor != "la" or text.isascii():
        draw.text(xy, text, fill=colour, font=typeface, anchor=anchor)
        return
    # Fonts share a line by what their letters stand on.
    x, y = xy[0], xy[1] + typeface.getmetrics()[0]
    for run, face in _runs(text, typeface):
        draw.text((x, y), run, fill=colour, font=face, anchor="ls")
        x += face.getlength(run)
