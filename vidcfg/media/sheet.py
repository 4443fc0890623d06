"""Pictures of a video: contact sheet, comparison of several, strength surface."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from vidcfg.media.drawing import (
    COLOUR_MAP,
    MUTED,
    OFF,
    PAPER,
    draw_text,
    font,
    strength_colours,
    strength_range,
    strength_text,
    wrap_text,
)
from vidcfg.media.video import rgb_levels

MARGIN, GAP, BAR, LABEL, MIN_WIDTH, AIM = 16, 8, 22, 17, 720, 128


def contact_sheet(
    frames_THWC: np.ndarray,
    *,
    title: str,
    subtitle: str,
    strengths: np.ndarray,
    max_frames: int = 17,
) -> Image.Image:
    """Frames side by side with the pixel frame number and the strength under each.

    `frames_THWC` is uint8 or float in [0, 1]. `strengths` has shape [T], or [K, T] with one row
    per step: then the bar shows the steps from left to right and the number is their mean.
    Bars and colours share one scale, the range of the strengths with 1. More than `max_frames`
    frames are thinned out evenly, first and last stay.

    Raises:
        ValueError: if frames or strengths have the wrong shape or range.
    """
    frames, strengths_KT = _checked(frames_THWC, strengths)
    chosen = evenly_chosen(len(frames), max_frames)
    # About 1300 pixels wide, with rows filled as evenly as possible.
    width = _picture(frames[0]).width
    at_most = max(1, (1300 - 2 * MARGIN + GAP) // (width + GAP))
    columns = -(-len(chosen) // -(-len(chosen) // at_most))
    rows = [
        _Row(None, frames, strengths_KT, chosen[first : first + columns])
        for first in range(0, len(chosen), columns)
    ]
    return _sheet(rows, title, subtitle)


def comparison_sheet(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]],
    *,
    title: str,
    subtitle: str,
    max_frames: int = 9,
) -> Image.Image:
    """One row per (label, frames_THWC, strengths): the same frames of each, on one strength scale.

    `strengths` is [T] or [K, T] as for `contact_sheet`. The videos share their number of
    frames and their size.

    Raises:
        ValueError: if there is no row, or if numbers of frames or sizes differ.
    """
    if not rows:
        raise ValueError("comparison_sheet needs at least one row.")
    checked = [(label, *_checked(frames, strengths)) for label, frames, strengths in rows]
    shapes = {frames.shape for _, frames, _ in checked}
    if len(shapes) > 1:
        raise ValueError(f"the rows have different shapes: {sorted(shapes)}.")
    chosen = evenly_chosen(len(checked[0][1]), max_frames)
    made = [_Row(*row, chosen) for row in checked]
    return _sheet(made, title, subtitle)


def evenly_chosen(num_frames: int, at_most: int) -> list[int]:
    """Frame numbers at even distances, first and last included."""
    if num_frames <= at_most:
        return list(range(num_frames))
    return np.linspace(0, num_frames - 1, at_most).round().astype(int).tolist()


def _checked(frames_THWC: np.ndarray, strengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frames = rgb_levels(frames_THWC)
    strengths_KT = np.atleast_2d(np.asarray(strengths, dtype=np.float64))
    if strengths_KT.ndim != 2 or strengths_KT.shape[1] != len(frames):
        raise ValueError(
            f"strengths of shape {np.shape(strengths)} do not fit {len(frames)} frames, "
            "they have to be [T] or [K, T]."
        )
    return frames, strengths_KT


class _Row(NamedTuple):
    label: str | None
    frames_THWC: np.ndarray
    strengths_KT: np.ndarray
    numbers: list[int]


def _sheet(rows: list[_Row], title: str, subtitle: str) -> Image.Image:
    """The numbered frames of each row, below title, subtitle and legend."""
    # Sizes: either all rows have a label, or none.
    limits = strength_range(*(row.strengths_KT for row in rows))
    num_steps = max(len(row.strengths_KT) for row in rows)
    width, height = _picture(rows[0].frames_THWC[0]).size
    label_height, gap = (0, GAP) if rows[0].label is None else (22, 16)
    row_height = label_height + LABEL + height + BAR + LABEL + gap
    sheet_width = max(2 * MARGIN + len(rows[0].numbers) * (width + GAP) - GAP, MIN_WIDTH)
    room = sheet_width - 2 * MARGIN
    title_lines = wrap_text(title, room, font(19, bold=True), max_lines=2)
    subtitle_lines = wrap_text(subtitle, room, font(12), max_lines=2)
    top = MARGIN + 26 * len(title_lines) + 18 * len(subtitle_lines) + 8 + 26
    # The last row needs no gap; a labelled one ends in two pixels of its own.
    bottom = top + len(rows) * row_height - min(gap, 14)
    sheet = Image.new("RGB", (sheet_width, bottom + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    # Title, subtitle, and how to read bars and numbers.
    for index, line in enumerate(title_lines):
        draw_text(draw, (MARGIN, MARGIN - 2 + 26 * index), line, size=19, bold=True)
    below = MARGIN - 2 + 26 * len(title_lines)
    for index, line in enumerate(subtitle_lines):
        draw_text(draw, (MARGIN, below + 18 * index), line, size=12, colour=MUTED)
    _draw_legend(sheet, top - 24, limits)
    if num_steps > 1:
        text = f"bar: strength from step 0 to {num_steps - 1}, number: mean over steps"
        draw_text(draw, (MARGIN, top - 24), text, size=11, colour=MUTED)
    # The rows.
    for y, row in zip(range(top, bottom, row_height), rows):
        if row.label is not None:
            (text,) = wrap_text(row.label, room, font(14, bold=True), max_lines=1)
            draw_text(draw, (MARGIN, y), text, size=14, bold=True)
        for column, t in enumerate(row.numbers):
            xy = MARGIN + column * (width + GAP), y + label_height
            _draw_frame(sheet, xy, row, t, limits)
    return sheet


def _draw_legend(sheet: Image.Image, top: int, limits: tuple[float, float]) -> None:
    """From right to left: a colour bar between the values at its ends, the grey of 1 (off)."""
    draw = ImageDraw.Draw(sheet)
    low, high = limits
    x = sheet.width - MARGIN

    def write(text: str) -> None:
        nonlocal x
        x -= round(font(11).getlength(text))
        draw_text(draw, (x, top), text, size=11, colour=MUTED)

    write(strength_text(high))
    x -= 155
    ramp = strength_colours(np.linspace(low, high, 150) + 1e-9, low=low, high=high)
    sheet.paste(Image.fromarray(np.repeat(ramp[None], 12, axis=0)), (x, top + 1))
    x -= 5
    write(strength_text(low).removesuffix(" off"))
    x -= 14
    write("1 off")
    x -= 17
    draw.rectangle((x, top + 1, x + 12, top + 12), fill=OFF)
    draw_text(draw, (x - 8, top), "strength", size=11, colour=MUTED, anchor="ra")


def _picture(frame_HWC: np.ndarray) -> Image.Image:
    """One frame about `AIM` pixels wide: nearest neighbour by a whole factor when small."""
    image = Image.fromarray(np.ascontiguousarray(frame_HWC))
    width, height = image.size
    if width <= AIM:
        factor = max(1, round(AIM / width))
        return image.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    return image.resize((AIM, max(1, round(height * AIM / width))), Image.Resampling.LANCZOS)


def _draw_frame(
    sheet: Image.Image, xy: tuple[int, int], row: _Row, t: int, limits: tuple[float, float]
) -> None:
    """Frame t under its number, and over the bar and the mean of its strengths."""
    draw = ImageDraw.Draw(sheet)
    x, y = xy
    picture = _picture(row.frames_THWC[t])
    draw_text(draw, xy, f"frame {t}", size=11, colour=MUTED)
    sheet.paste(picture, (x, y + LABEL))
    curve_K, (low, high) = row.strengths_KT[:, t], limits
    top = y + LABEL + picture.height + 2
    # Edges are rounded together, so that neighbouring steps leave no gap.
    edges = np.rint(np.linspace(x, x + picture.width, len(curve_K) + 1)).astype(int)
    colours = strength_colours(curve_K, low=low, high=high)
    heights = 3 + np.rint((np.clip(curve_K, low, high) - low) / (high - low) * (BAR - 5))
    for left, right, colour, tall in zip(edges[:-1], edges[1:], colours, heights, strict=True):
        box = (left, top + BAR - 2 - int(tall), max(right - 1, left), top + BAR - 3)
        draw.rectangle(box, fill=tuple(int(c) for c in colour))
    text = strength_text(float(curve_K[0]) if np.ptp(curve_K) == 0 else float(curve_K.mean()))
    draw_text(draw, (x + picture.width / 2, top + BAR), text, bold=True, anchor="ma")


def surface_picture(
    strength_KT: np.ndarray,
    *,
    applied_KF: np.ndarray,
    pixels_of: Sequence[range],
    title: str,
    subtitle: str,
) -> Image.Image:
    """Heat maps of the strength: pixel frames across, steps down (0, the noisiest, on top).

    The second map shows the strength per latent frame, as the denoiser applies it, drawn over the
    pixel frames that it decodes to, `pixels_of` (one range for each latent frame). Both share one
    colour scale; cells of exactly 1 (off) are grey.

    Raises:
        ValueError: if the arrays do not belong together.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    # Two maps on one scale.
    strength_KT = np.asarray(strength_KT, dtype=np.float64)
    spread_KT = spread_over_pixels(applied_KF, pixels_of, num_frames=strength_KT.shape[1])
    maps = {"asked for, per pixel frame": strength_KT, "applied, per latent frame": spread_KT}
    low, high = strength_range(*maps.values())
    # Lines fit the picture; a parsed "$...$" would be read as a formula by matplotlib.
    below = textwrap.fill(f"pixel frame · {subtitle}", 130).replace("$", r"\$")
    title = textwrap.fill(title, 68).replace("$", r"\$")
    figure = Figure(figsize=(9.6, 0.9 + 2.9 * 2), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold")
    axes = figure.subplots(2, 1, sharex=True)
    for axis, (label, values_KT) in zip(axes, maps.items(), strict=True):
        _draw_map(axis, values_KT, low=low, high=high, pixels_of=pixels_of)
        axis.set_title(label, loc="left", fontsize=10)
    axes[-1].set_xlabel(below, fontsize=9)
    # The colour bar, and the grey of 1 (off).
    mappable = ScalarMappable(norm=Normalize(low, high), cmap=COLOUR_MAP)
    bar = figure.colorbar(mappable, ax=axes, pad=0.015, aspect=28)
    bar.set_label("strength", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    off = Patch(facecolor=tuple(c / 255 for c in OFF), label="1 = off")
    figure.legend(handles=[off], loc="upper right", fontsize=9, frameon=False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def spread_over_pixels(
    values: np.ndarray, pixels_of: Sequence[range], *, num_frames: int
) -> np.ndarray:
    """Values per latent frame [..., F] repeated over the pixel frames of each: [..., T].

    Raises:
        ValueError: if there is not one range per latent frame, or if a pixel frame is left out.
    """
    values = np.asarray(values, dtype=np.float64)
    num_latents, num_ranges = values.shape[-1], len(pixels_of)
    if num_latents != num_ranges:
        raise ValueError(f"{num_latents} latent frames, but {num_ranges} ranges of pixel frames.")
    spread = np.full((*values.shape[:-1], num_frames), np.nan)
    for latent, pixels in enumerate(pixels_of):
        spread[..., pixels.start : pixels.stop] = values[..., latent, None]
    if np.isnan(spread).any():
        raise ValueError(f"the ranges {list(pixels_of)} leave out some of {num_frames} frames.")
    return spread


def _draw_map(axis, values_KT, *, low, high, pixels_of) -> None:
    from matplotlib.ticker import MaxNLocator

    # Steps down, pixel frames across.
    num_steps, num_frames = values_KT.shape
    colours = strength_colours(values_KT, low=low, high=high)
    extent = (-0.5, num_frames - 0.5, num_steps - 0.5, -0.5)
    axis.imshow(colours, aspect="auto", interpolation="nearest", extent=extent)
    axis.set_ylabel("step (0 = noisiest)", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=18, min_n_ticks=1))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))
    # Where each latent frame begins, and the names of at most 24 of them.
    for pixels in pixels_of:
        axis.axvline(pixels.start - 0.5, color="white", linewidth=0.9)
    top = axis.secondary_xaxis("top")
    named = [(f, p) for f, p in enumerate(pixels_of) if len(p)][:: -(-len(pixels_of) // 24)]
    top.set_xticks([(p.start + p.stop - 1) / 2 for _, p in named])
    top.set_xticklabels([f"L{latent}" for latent, _ in named], fontsize=8)
    top.tick_params(length=0)
