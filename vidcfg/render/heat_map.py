"""The strengths of a surface as text for a terminal."""

import numpy as np

from vidcfg.guidance.surface import Surface

_BARS = "▁▂▃▄▅▆▇█"
_COLOURS = (17, 18, 24, 30, 36, 71, 113, 185, 220)
_MAX_ROWS = 12
_MAX_CELL = 3


def terminal_heat_map(surface: Surface, width: int = 80, *, colour: bool = False) -> str:
    """The strengths over steps (rows, first on top) and pixel frames (columns) as text.

    At most 12 rows; steps, and frames that do not fit `width` characters, are shown as the mean of
    equal groups. The legend gives the lowest and highest strength of the surface itself. Plain
    mode (default) draws bars, `colour=True` draws ANSI 256-colour cells.
    """
    num_steps, num_frames = surface.strength_KT.shape
    step_groups = np.array_split(np.arange(num_steps), min(num_steps, _MAX_ROWS))
    labels = [_span(group) for group in step_groups]
    label_width = max(len("step"), *(len(label) for label in labels))
    space = max(width - label_width - 2, 8)
    frame_groups = np.array_split(np.arange(num_frames), min(num_frames, space))
    cell = max(1, min(_MAX_CELL, space // len(frame_groups)))
    low, high = float(surface.strength_KT.min()), float(surface.strength_KT.max())

    lines = [f"{'step':>{label_width}}  {_legend(low, high, colour)}"]
    for label, steps in zip(labels, step_groups, strict=True):
        row_T = surface.strength_KT[steps].mean(axis=0)
        cells = [_cell(row_T[group].mean(), low, high, cell, colour) for group in frame_groups]
        lines.append(f"{label:>{label_width}}  {''.join(cells)}")
    drawn = cell * len(frame_groups)
    last = f"{num_frames - 1}"
    axis = "frame 0" if num_frames == 1 else f"frame 0{last:>{max(drawn - 7, len(last) + 1)}}"
    lines.append(f"{'':>{label_width}}  {axis}")
    return "\n".join(lines)


def _span(group: np.ndarray) -> str:
    """The numbers of a group as "3" or "3-5"."""
    return f"{group[0]}" if len(group) == 1 else f"{group[0]}-{group[-1]}"


def _cell(value: float, low: float, high: float, width: int, colour: bool) -> str:
    """`width` characters whose height or colour is where `value` lies in low..high."""
    share = (value - low) / (high - low) if high > low else 1.0
    if colour:
        code = _COLOURS[min(int(share * len(_COLOURS)), len(_COLOURS) - 1)]
        return f"\x1b[48;5;{code}m{' ' * width}\x1b[0m"
    return _BARS[min(int(share * len(_BARS)), len(_BARS) - 1)] * width


def _legend(low: float, high: float, colour: bool) -> str:
    """What the darkest and brightest cells mean."""
    if low == high:
        return f"strength {low:.4g} on every frame (1 = off)"
    darkest = _cell(low, low, high, 1, colour)
    brightest = _cell(high, low, high, 1, colour)
    return f"strength {darkest} {low:.4g} to {brightest} {high:.4g} (1 = off)"
