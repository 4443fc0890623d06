"""Fonts, colours and text placement shared by the pictures in `sheet.py`."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, MUTED, PAPER, OFF = (25, 25, 30), (115, 115, 125), (255, 255, 255), (200, 200, 204)
COLOUR_MAP = "viridis"


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as bundled with matplotlib, so that pictures look the same everywhere."""
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _colour_table() -> np.ndarray:
    from matplotlib import colormaps

    return (colormaps[COLOUR_MAP](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


def strength_range(*strengths: np.ndarray | None) -> tuple[float, float]:
    """Lowest and highest strength with 1 (off) included; at least 1 apart, for a usable scale."""
    values = [np.ravel(s) for s in strengths if s is not None]
    everything = np.concatenate([*values, np.ones(1)])
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


def fit_text(text: str, width: int, typeface: ImageFont.FreeTypeFont) -> str:
    """The text on one line, cut with an ellipsis if it is wider than `width` pixels."""
    return wrap_text(text, width, typeface, max_lines=1)[0]


def wrap_text(
    text: str, width: int, typeface: ImageFont.FreeTypeFont, *, max_lines: int
) -> list[str]:
    """Lines no wider than `width` pixels; what does not fit in `max_lines` ends in an ellipsis."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    words = printable.split() or [""]
    lines, line = [], ""
    while words:
        longer = f"{line} {words[0]}".strip()
        if typeface.getlength(longer) <= width:
            line = longer
            words.pop(0)
        elif line and len(lines) < max_lines - 1:
            lines.append(line)
            line = ""
        else:
            return [*lines, _cut(longer, width, typeface)]
    return [*lines, line]


def _cut(text: str, width: int, typeface: ImageFont.FreeTypeFont) -> str:
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if typeface.getlength(text[:middle].rstrip() + "…") <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


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
    draw.text(xy, text, fill=colour, font=font(size, bold=bold), anchor=anchor)


def draw_legend(
    image: Image.Image, right: int, top: int, *, low: float, high: float, width: int = 150
) -> None:
    """A colour bar that ends at `right`, with the values at both ends and the grey of 1 (off)."""
    draw = ImageDraw.Draw(image)
    low_text, high_text = strength_text(low).removesuffix(" off"), strength_text(high)
    x = right - round(font(11).getlength(high_text))
    draw_text(draw, (x, top), high_text, size=11, colour=MUTED)
    x -= width + 5
    ramp = strength_colours(np.linspace(low, high, width) + 1e-9, low=low, high=high)
    image.paste(Image.fromarray(np.repeat(ramp[None], 12, axis=0)), (x, top + 1))
    x -= 5 + round(font(11).getlength(low_text))
    draw_text(draw, (x, top), low_text, size=11, colour=MUTED)
    x -= 14
    x -= round(font(11).getlength("1 off"))
    draw_text(draw, (x, top), "1 off", size=11, colour=MUTED)
    x -= 17
    draw.rectangle((x, top + 1, x + 12, top + 12), fill=OFF)
    x -= 8
    draw_text(draw, (x, top), "strength", size=11, colour=MUTED, anchor="ra")


def frame_picture(frame_HWC: np.ndarray, *, aim: int) -> Image.Image:
    """One uint8 frame about `aim` pixels wide: nearest neighbour by a whole factor when small."""
    height, width = frame_HWC.shape[:2]
    image = Image.fromarray(np.ascontiguousarray(frame_HWC))
    if width <= aim:
        factor = max(1, round(aim / width))
        return image.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    return image.resize((aim, max(1, round(height * aim / width))), Image.Resampling.LANCZOS)
