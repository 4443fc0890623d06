"""`--dry-run`: what a render would do, told before any weight is loaded."""

from typing import Any

from vidcfg.progress import printable
from vidcfg.render.config import RenderConfig
from vidcfg.render.forecast import Forecast, follows_levels, forecast_of
from vidcfg.render.prompts import prompt_warnings, texts_of, tokenizer_in
from vidcfg.render.record import model_folder
from vidcfg.render.units import Unit, describe
from vidcfg.settings.strict_yaml import dump_yaml

MAX_FILES_LISTED = 12


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


def early_warnings(config: RenderConfig) -> list[str]:
    """Notes on settings without effect and, if the model's folder is here, on its prompts."""
    folder = model_folder(config)
    found = tokenizer_in(folder) if folder is not None else None
    return [*config.notes, *(prompt_warnings(texts_of(config), *found) if found else [])]


def _guidance_part(config: RenderConfig, num_units: int, width: int, colour: bool) -> str:
    from vidcfg.render.heat_map import terminal_heat_map

    head = f"guidance: {describe(config)}"
    forecast = forecast_of(config)
    later = f"{head}\nsurface and cost: told when the model is loaded"
    if forecast.facts is None:
        return f"{later} ({forecast.why_not}, so its latent frames are not known)."
    if forecast.why_not and follows_levels(config.guidance):
        alone = forecast.by_expert
        if alone:
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
    if follows_levels(config.guidance):
        parts += [_by_step(next(iter(surfaces.values())), forecast.facts), ""]
    return "\n".join([*parts, _cost_line(forecast, num_units)])


def _cost_line(forecast: Forecast, num_units: int) -> str:
    plan = forecast.plan()
    at_most = "at most " if plan.is_upper_bound else ""
    by_branch = ", ".join(f"{count} {branch}" for branch, count in plan.evaluations.items())
    share = 100 * plan.total / plan.naive
    line = (
        f"model evaluations: {at_most}{plan.total} ({by_branch}) for {num_units} videos, "
        f"{share:.0f} % of {plan.naive} at 2 per step"
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
    shape = config.video
    video = shape.num_frames * shape.height * shape.width * 3 * 4
    folder = model_folder(config)
    if folder is None or not folder.is_dir():
        weights = "weights: not here yet"
    else:
        size = sum(p.stat().st_size for p in folder.rglob("*.safetensors"))
        weights = f"weights: {_size(size)} on disk"
    return f"memory: {weights}; one decoded video: {_size(video)}; activations come on top"


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
