"""`--dry-run`: what a render would do, told before any weight is loaded."""

from typing import Any

import numpy as np

from vidcfg.guidance.surface import EVENED, Surface
from vidcfg.progress import printable
from vidcfg.render.config import RenderConfig, Unit, describe
from vidcfg.render.forecast import Forecast, follows_levels, forecast_of
from vidcfg.settings.strict_yaml import dump_yaml

MAX_FILES_LISTED = 12
_BARS = "▁▂▃▄▅▆▇█"
_COLOURS = (17, 18, 24, 30, 36, 71, 113, 185, 220)
_MAX_ROWS = 12
_MAX_CELL = 3


def preview(config: RenderConfig, units: list[Unit], *, width: int, colour: bool) -> str:
    """The text of a dry run.

    Raises:
        ValueError: if the settings do not fit the clip.
    """
    written, seeds = config.to_dict(), config.seeds
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1)):
        written["seeds"] = f"{seeds[0]}-{seeds[-1]}"
    parts = [dump_yaml(written).rstrip(), _memory_part(config), _files_part(config, units)]
    parts = [printable(part, keep="\n") for part in parts]
    # Its colours are control characters.
    return "\n\n".join([parts[0], _guidance_part(config, len(units), width, colour), *parts[1:]])


def _guidance_part(config: RenderConfig, num_units: int, width: int, colour: bool) -> str:
    head = f"guidance: {describe(config)}"
    forecast = forecast_of(config)
    later = f"{head}\nsurface and cost: told when the model is loaded"
    if forecast.facts is None:
        return f"{later} ({forecast.why_not}, so its latent frames are not known)."
    if forecast.why_not and follows_levels(config.guidance):
        if alone := forecast.by_expert:
            parts = [head, f"which expert runs when is told later: {forecast.why_not}", ""]
            for name, one in alone.items():
                surface = next(iter(one.surfaces.values()))
                heat_map = terminal_heat_map(surface, width=width, colour=colour)
                parts += [f"{name} on every step:", heat_map, "", _cost_line(one, num_units), ""]
            return "\n".join(parts[:-1])
        what = "the scale follows the scheduler's noise levels or the model's experts"
        return f"{later} ({what}, and {forecast.why_not})."
    surfaces = forecast.surfaces
    parts = [head, ""]
    for name, surface in surfaces.items():
        parts += [f"{name}:"] if len(surfaces) > 1 else []
        parts += [terminal_heat_map(surface, width=width, colour=colour), ""]
        parts += [EVENED, ""] if surface.is_evened else []
    if follows_levels(config.guidance):
        parts += [_by_step(next(iter(surfaces.values())), forecast.facts), ""]
    return "\n".join([*parts, _cost_line(forecast, num_units)])


def _cost_line(forecast: Forecast, num_units: int) -> str:
    plan = forecast.plan()
    at_most = "at most " * plan.is_upper_bound
    by_branch = ", ".join(f"{count} {branch}" for branch, count in plan.evaluations.items())
    line = (
        f"model evaluations: {at_most}{plan.total} ({by_branch}) for {num_units} videos, "
        f"{100 * plan.total / plan.naive:.0f} % of {plan.naive} at 2 per step"
    )
    if forecast.why_not and forecast.config.sampling.scheduler == "pipeline":
        line += f" (if the scheduler calls the model once a step: {forecast.why_not})"
    return line


def _by_step(surface: Any, steps: Any) -> str:
    """Scale, noise level and expert of at most ten steps, the first and the last among them."""
    count = len(steps.calls)
    shown = sorted({round(i * (count - 1) / 9) for i in range(10)})
    lines = [f"{'step':>5}{'scale':>8}" + f"{'sigma':>8}" * (steps.sigmas_K is not None)]
    for k in shown:
        line = f"{k:>5}{surface.scale_K[k]:>8.2f}"
        if steps.sigmas_K is not None:
            line += f"{steps.sigmas_K[k]:>8.3f}"
        lines.append(line + (f"  {steps.experts[k]}" if steps.experts else ""))
    return "\n".join(lines)


def _memory_part(config: RenderConfig) -> str:
    shape, folder, weights = config.video, config.model.folder, "not here yet"
    video = shape.num_frames * shape.height * shape.width * 3 * 4
    if folder is not None and folder.is_dir():
        size = sum(p.stat().st_size for p in folder.rglob("*.safetensors"))
        weights = f"{_size(size)} on disk"
    return (
        f"memory: weights: {weights}; one decoded video: {_size(video)}; activations come on top"
    )


def _size(count: int) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _files_part(config: RenderConfig, units: list[Unit]) -> str:
    from vidcfg.render.files import SURFACE_NAME

    folder = units[0].stem.parent
    endings = [".png", ".json", *([".image.png"] if config.video.num_frames == 1 else [])]
    count = (1 + len(endings)) * len(units) + 1
    lines = [f"writes {count} files:", f"  {folder / SURFACE_NAME}"]
    for unit in units[:MAX_FILES_LISTED]:
        is_there = "  (exists)" * unit.record.exists()
        lines.append(f"  {unit.video} {' '.join(endings)}{is_there}")
    if len(units) > MAX_FILES_LISTED:
        lines.append(f"  ... and {len(units) - MAX_FILES_LISTED} more videos")
    return "\n".join(lines)


def terminal_heat_map(surface: Surface, width: int = 80, *, colour: bool = False) -> str:
    """The strengths over steps (rows, first on top) and pixel frames (columns) as text.

    At most 12 rows; steps, and frames that do not fit `width` characters, are shown as the mean of
    equal groups. The legend gives the lowest and highest strength of the surface itself. Plain
    mode (default) draws bars, `colour=True` draws ANSI 256-colour cells.
    """
    num_steps, num_frames = surface.strength_KT.shape
    step_groups = np.array_split(np.arange(num_steps), min(num_steps, _MAX_ROWS))
    labels = [f"{g[0]}" if len(g) == 1 else f"{g[0]}-{g[-1]}" for g in step_groups]
    label_width = max(map(len, ("step", *labels)))
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


def _cell(value: float, low: float, high: float, width: int, colour: bool) -> str:
    """`width` characters whose height or colour is where `value` lies in low..high."""
    share = (value - low) / (high - low) if high > low else 1.0
    drawn = _COLOURS if colour else _BARS
    chosen = drawn[min(int(share * len(drawn)), len(drawn) - 1)]
    return f"\x1b[48;5;{chosen}m{' ' * width}\x1b[0m" if colour else chosen * width


def _legend(low: float, high: float, colour: bool) -> str:
    """What the darkest and brightest cells mean."""
    if low == high:
        return f"strength {low:.4g} on every frame (1 = off)"
    darkest, brightest = (_cell(value, low, high, 1, colour) for value in (low, high))
    return f"strength {darkest} {low:.4g} to {brightest} {high:.4g} (1 = off)"
