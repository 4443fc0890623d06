"""Pictures of a video: contact sheet, comparison of several, strength surface, x-t slice."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from vidcfg.media.drawing import (
    COLOUR_MAP,
    INK,
    MUTED,
    OFF,
    PAPER,
    draw_legend,
    draw_text,
    fit_text,
    font,
    frame_picture,
    strength_colours,
    strength_range,
    strength_text,
    wrap_text,
)
from vidcfg.media.video import check_range, to_uint8

MARGIN, GAP, BAR, LABEL, MIN_WIDTH = 16, 8, 22, 17, 720


def contact_sheet(
    frames_THWC: np.ndarray,
    *,
    title: str,
    subtitle: str | None = None,
    strengths: np.ndarray | None = None,
    limits: tuple[float, float] | None = None,
    max_frames: int = 17,
    frame_width: int = 128,
) -> Image.Image:
    """Frames side by side with the pixel frame number and the strength under each.

    `frames_THWC` is uint8 or float in [0, 1]. `strengths` has shape [T], or [K, T] with one row
    per step: then the bar shows the steps from left to right and the number is their mean.
    Bars and colours share one scale, `limits` (default: the range of the strengths with 1).
    More than `max_frames` frames are thinned out evenly, first and last stay.

    Raises:
        ValueError: if frames or strengths have the wrong shape or range.
    """
    frames, strengths_KT = _checked(frames_THWC, strengths)
    chosen = evenly_chosen(len(frames), max_frames)
    pictures = [frame_picture(frames[t], aim=frame_width) for t in chosen]
    width, height = pictures[0].size
    columns = _columns(len(chosen), width)
    has_strength = strengths_KT is not None
    cell_height = LABEL + height + (BAR + LABEL if has_strength else 0)
    rows = -(-len(chosen) // columns)
    sheet_width = max(2 * MARGIN + columns * (width + GAP) - GAP, MIN_WIDTH)
    header, top = _header(title, subtitle, sheet_width, has_strength)
    sheet = Image.new("RGB", (sheet_width, top + rows * (cell_height + GAP) + MARGIN - GAP), PAPER)
    sheet.paste(header, (0, 0))
    low, high = limits or strength_range(strengths_KT)
    if has_strength:
        _draw_scale(sheet, top - 24, low=low, high=high, num_steps=len(strengths_KT))
    for index, (t, picture) in enumerate(zip(chosen, pictures, strict=True)):
        x = MARGIN + (index % columns) * (width + GAP)
        y = top + (index // columns) * (cell_height + GAP)
        curve_K = strengths_KT[:, t] if has_strength else None
        _draw_cell(sheet, (x, y), picture, number=t, curve_K=curve_K, low=low, high=high)
    return sheet


def comparison_sheet(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray | None]],
    *,
    title: str,
    subtitle: str | None = None,
    max_frames: int = 9,
    frame_width: int = 128,
) -> Image.Image:
    """One row per (label, frames_THWC, strengths): the same frames of each, on one strength scale.

    `strengths` is None, [T] or [K, T] as for `contact_sheet`. The videos share their number of
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
    width, height = frame_picture(checked[0][1][0], aim=frame_width).size
    low, high = strength_range(*(strengths for _, _, strengths in checked))
    has_strength = any(strengths is not None for _, _, strengths in checked)
    sheet_width = max(2 * MARGIN + len(chosen) * (width + GAP) - GAP, MIN_WIDTH)
    header, top = _header(title, subtitle, sheet_width, has_strength)
    row_height = 24 + LABEL + height + (BAR + LABEL if has_strength else 0) + 14
    sheet = Image.new("RGB", (sheet_width, top + row_height * len(checked) + MARGIN - 14), PAPER)
    sheet.paste(header, (0, 0))
    if has_strength:
        num_steps = max(len(s) for _, _, s in checked if s is not None)
        _draw_scale(sheet, top - 24, low=low, high=high, num_steps=num_steps)
    draw = ImageDraw.Draw(sheet)
    for index, (label, frames, strengths_KT) in enumerate(checked):
        y = top + index * row_height
        text = fit_text(label, sheet_width - 2 * MARGIN, font(14, bold=True))
        draw_text(draw, (MARGIN, y), text, size=14, bold=True)
        for column, t in enumerate(chosen):
            picture = frame_picture(frames[t], aim=frame_width)
            curve_K = None if strengths_KT is None else strengths_KT[:, t]
            xy = (MARGIN + column * (width + GAP), y + 22)
            _draw_cell(sheet, xy, picture, number=t, curve_K=curve_K, low=low, high=high)
    return sheet


def xt_slice(frames_THWC: np.ndarray, *, row: int | None = None, enlarge: int = 4) -> Image.Image:
    """One pixel row of every frame, time downwards: smooth motion is a smooth edge, flicker combs.

    `row` is the pixel row (default: the middle one); every sample is `enlarge` pixels wide, and
    high enough that the whole slice is about as high as the frame.

    Raises:
        ValueError: if the row does not exist.
    """
    frames, _ = _checked(frames_THWC, None)
    num_frames, height, width = frames.shape[:3]
    row = height // 2 if row is None else row
    if not -height <= row < height:
        raise ValueError(f"row is {row}, the frames have rows 0 to {height - 1}.")
    tall = max(1, round(height * enlarge / num_frames))
    slice_TW = np.ascontiguousarray(frames[:, row])
    size = (width * enlarge, num_frames * tall)
    return Image.fromarray(slice_TW).resize(size, Image.Resampling.NEAREST)


def evenly_chosen(num_frames: int, at_most: int) -> list[int]:
    """Frame numbers at even distances, first and last included."""
    if num_frames <= at_most:
        return list(range(num_frames))
    return np.linspace(0, num_frames - 1, at_most).round().astype(int).tolist()


def _checked(
    frames_THWC: np.ndarray, strengths: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    shape = getattr(frames_THWC, "shape", ())
    if len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise ValueError(f"frames have to be an array [T, H, W, 3], not {tuple(shape)}.")
    frames = frames_THWC
    if frames.dtype != np.uint8:
        frames = np.asarray(frames, dtype=np.float32)
    check_range(frames, what="frames")
    if strengths is None:
        return to_uint8(frames), None
    strengths_KT = np.atleast_2d(np.asarray(strengths, dtype=np.float64))
    if strengths_KT.ndim != 2 or strengths_KT.shape[1] != len(frames):
        raise ValueError(
            f"strengths of shape {np.shape(strengths)} do not fit {len(frames)} frames, "
            "they have to be [T] or [K, T]."
        )
    return to_uint8(frames), strengths_KT


def _columns(count: int, width: int) -> int:
    """Columns of a sheet about 1300 pixels wide, with rows filled as evenly as possible."""
    at_most = max(1, (1300 - 2 * MARGIN + GAP) // (width + GAP))
    rows = -(-count // at_most)
    return -(-count // rows)


def _header(
    title: str, subtitle: str | None, width: int, has_legend: bool
) -> tuple[Image.Image, int]:
    """The lines above the frames, and the height that they take."""
    room = width - 2 * MARGIN
    title_lines = wrap_text(title, room, font(19, bold=True), max_lines=2)
    subtitle_lines = wrap_text(subtitle, room, font(12), max_lines=2) if subtitle else []
    height = MARGIN + 26 * len(title_lines) + 18 * len(subtitle_lines) + 8 + 26 * has_legend
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    y = MARGIN - 2
    for line in title_lines:
        draw_text(draw, (MARGIN, y), line, size=19, bold=True)
        y += 26
    for line in subtitle_lines:
        draw_text(draw, (MARGIN, y), line, size=12, colour=MUTED)
        y += 18
    return image, height


def _draw_scale(sheet: Image.Image, top: int, *, low: float, high: float, num_steps: int) -> None:
    """The line above the frames: how to read bars and numbers, and the colour bar."""
    draw_legend(sheet, sheet.width - MARGIN, top, low=low, high=high)
    if num_steps > 1:
        text = f"bar: strength from step 0 to {num_steps - 1}, number: mean over steps"
        draw = ImageDraw.Draw(sheet)
        draw_text(draw, (MARGIN, top), text, size=11, colour=MUTED)


def _draw_cell(
    sheet: Image.Image,
    xy: tuple[int, int],
    picture: Image.Image,
    *,
    number: int,
    curve_K: np.ndarray | None,
    low: float,
    high: float,
) -> None:
    draw = ImageDraw.Draw(sheet)
    x, y = xy
    width, height = picture.size
    draw_text(draw, (x, y), f"frame {number}", size=11, colour=MUTED)
    sheet.paste(picture, (x, y + LABEL))
    if curve_K is None:
        return
    top = y + LABEL + height + 2
    # Edges are rounded together, so that neighbouring steps leave no gap.
    edges = np.rint(np.linspace(x, x + width, len(curve_K) + 1)).astype(int)
    colours = strength_colours(curve_K, low=low, high=high)
    heights = 3 + np.rint((np.clip(curve_K, low, high) - low) / (high - low) * (BAR - 5))
    for left, right, colour, tall in zip(edges[:-1], edges[1:], colours, heights, strict=True):
        box = (left, top + BAR - 2 - int(tall), max(right - 1, left), top + BAR - 3)
        draw.rectangle(box, fill=tuple(int(c) for c in colour))
    text = strength_text(float(curve_K[0]) if np.ptp(curve_K) == 0 else float(curve_K.mean()))
    draw_text(draw, (x + width / 2, top + BAR), text, size=13, bold=True, anchor="ma", colour=INK)


def surface_picture(
    strength_KT: np.ndarray,
    *,
    applied_KF: np.ndarray | None = None,
    pixels_of: Sequence[range] | None = None,
    title: str = "strength",
    subtitle: str | None = None,
) -> Image.Image:
    """Heat map of the strength: pixel frames across, steps down (0, the noisiest, on top).

    With `applied_KF` and `pixels_of` (one range of pixel frames per latent frame) a second map
    shows the strength per latent frame, as the denoiser applies it, drawn over the pixel frames
    that it decodes to. Both share one colour scale; cells of exactly 1 (off) are grey.

    Raises:
        ValueError: if the arrays do not belong together.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    maps = [("asked for, per pixel frame", np.asarray(strength_KT, dtype=np.float64))]
    num_frames = maps[0][1].shape[1]
    if applied_KF is not None:
        spread_KT = spread_over_pixels(applied_KF, pixels_of, num_frames=num_frames)
        maps.append(("applied, per latent frame", spread_KT))
    low, high = strength_range(*(values for _, values in maps))
    # A parsed "$...$" would be read as a formula by matplotlib.
    title, subtitle = title.replace("$", r"\$"), (subtitle or "").replace("$", r"\$")
    figure = Figure(figsize=(9.6, 0.9 + 2.9 * len(maps)), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold")
    axes = figure.subplots(len(maps), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (label, values_KT) in zip(axes, maps, strict=True):
        _draw_map(axis, values_KT, low=low, high=high, pixels_of=pixels_of)
        axis.set_title(label, loc="left", fontsize=10)
    axes[-1].set_xlabel(f"pixel frame{' · ' + subtitle if subtitle else ''}", fontsize=9)
    _draw_colour_bar(figure, axes, low=low, high=high)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def spread_over_pixels(
    values: np.ndarray, pixels_of: Sequence[range] | None, *, num_frames: int
) -> np.ndarray:
    """Values per latent frame [..., F] repeated over the pixel frames of each: [..., T].

    Raises:
        ValueError: if there is not one range per latent frame, or if a pixel frame is left out.
    """
    values = np.asarray(values, dtype=np.float64)
    if pixels_of is None or len(pixels_of) != values.shape[-1]:
        given = "none" if pixels_of is None else len(pixels_of)
        raise ValueError(f"{values.shape[-1]} latent frames, but {given} ranges of pixel frames.")
    spread = np.full((*values.shape[:-1], num_frames), np.nan)
    for latent, pixels in enumerate(pixels_of):
        spread[..., pixels.start : pixels.stop] = values[..., latent, None]
    if np.isnan(spread).any():
        raise ValueError(f"the ranges {list(pixels_of)} leave out some of {num_frames} frames.")
    return spread


def _draw_map(axis, values_KT, *, low, high, pixels_of) -> None:
    from matplotlib.ticker import MaxNLocator

    num_steps, num_frames = values_KT.shape
    colours = strength_colours(values_KT, low=low, high=high)
    extent = (-0.5, num_frames - 0.5, num_steps - 0.5, -0.5)
    axis.imshow(colours, aspect="auto", interpolation="nearest", extent=extent)
    axis.set_ylabel("step (0 = noisiest)", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=18, min_n_ticks=1))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))
    for pixels in pixels_of or []:
        axis.axvline(pixels.start - 0.5, color="white", linewidth=0.9)
    if pixels_of:
        top = axis.secondary_xaxis("top")
        stride = -(-len(pixels_of) // 24)
        named = [(f, p) for f, p in enumerate(pixels_of) if len(p)][::stride]
        top.set_xticks([(p.start + p.stop - 1) / 2 for _, p in named])
        top.set_xticklabels([f"L{latent}" for latent, _ in named], fontsize=8)
        top.tick_params(length=0)


def _draw_colour_bar(figure, axes, *, low: float, high: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    mappable = ScalarMappable(norm=Normalize(low, high), cmap=COLOUR_MAP)
    bar = figure.colorbar(mappable, ax=list(axes), pad=0.015, aspect=28)
    bar.set_label("strength", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    grey = tuple(c / 255 for c in OFF)
    figure.legend(
        handles=[Patch(facecolor=grey, label="1 = off")],
        loc="upper right",
        fontsize=9,
        frameon=False,
    )
