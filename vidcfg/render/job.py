"""Render every unit of a configuration, one after the other, each on its own."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.media.sheet import contact_sheet, spread_over_pixels, surface_picture
from vidcfg.media.write import encode_video
from vidcfg.render.config import RenderConfig
from vidcfg.render.files import SURFACE_NAME, write_picture, write_unit
from vidcfg.render.picture_and_sound import as_png, as_wav
from vidcfg.render.progress import Progress, Silent
from vidcfg.render.record import make_record, model_record, to_json
from vidcfg.render.sampling import Rendered, sample_units
from vidcfg.render.units import Unit, describe


def render_units(
    config: RenderConfig,
    pipe: Any,
    units: list[Unit],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    on_finished: Callable[[Unit, Rendered], None] | None = None,
) -> None:
    """Render and write the units in order; the surface picture of the run comes with the first.

    The frames of a unit are a function of (prompt, seed, config): each is sampled alone, from
    noise drawn on the CPU by its own generator, so that no batch shape depends on the others.

    Raises:
        ValueError: if model and settings do not fit each other.
        NonFiniteError: if a prediction holds NaN or Inf.
        MediaError: if a file cannot be written. Units that are finished stay.
    """
    from vidcfg.pipelines.schedulers import make_scheduler

    own_scheduler = pipe.scheduler
    pipe.scheduler = make_scheduler(pipe, config.sampling)
    try:
        with mini_threads(config), progress or Silent() as shown:
            _render_all(config, pipe, units, overwrite, shown, on_finished)
    finally:
        pipe.scheduler = own_scheduler


@contextlib.contextmanager
def mini_threads(config: RenderConfig) -> Iterator[None]:
    """One thread for the mini model: its frames then do not depend on the number of cores.

    Two threads gain little on tensors of this size, and lose much on a machine that is busy.
    """
    import torch

    if config.model.kind != "mini":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _render_all(config, pipe, units, overwrite, shown, on_finished) -> None:
    model = model_record(config, pipe)
    surface_path = Path(config.output.dir) / SURFACE_NAME
    for index, unit in enumerate(units):
        shown.start(unit, index, len(units))
        (rendered,) = sample_units([config], pipe, unit, on_step=shown.step).videos
        if index == 0 and (overwrite or not surface_path.exists()):
            write_picture(surface_path, run_surface_picture(config, rendered), overwrite=overwrite)
        _write(config, pipe, unit, rendered, model=model, overwrite=overwrite)
        shown.finish(unit, rendered.seconds)
        if on_finished is not None:
            on_finished(unit, rendered)


def applied_strengths(rendered: Rendered) -> np.ndarray:
    """The strength [K, T] that each pixel frame's latent frame was guided with."""
    surface = rendered.trace.surfaces[0]
    num_frames = len(rendered.frames_THWC)
    return spread_over_pixels(surface.strength_KF, rendered.pixels_of, num_frames=num_frames)


def unit_sheet(config: RenderConfig, unit: Unit, rendered: Rendered) -> Any:
    """The contact sheet of one video, with the strength that was applied to each frame."""
    subtitle = f"seed {unit.seed} · {describe(config)}"
    if unit.prompt.negative:
        subtitle += f" · negative: {unit.prompt.negative}"
    return contact_sheet(
        rendered.frames_THWC,
        title=unit.prompt.text,
        subtitle=subtitle,
        strengths=applied_strengths(rendered),
    )


def run_surface_picture(config: RenderConfig, rendered: Rendered) -> Any:
    """The strength surface of the run, as asked for and as applied to latent frames."""
    surface = rendered.trace.surfaces[0]
    return surface_picture(
        surface.strength_KT,
        applied_KF=surface.strength_KF,
        pixels_of=rendered.pixels_of,
        title=f"{config.name}: strength of guidance",
        subtitle=describe(config),
    )


def _write(
    config: RenderConfig,
    pipe: Any,
    unit: Unit,
    rendered: Rendered,
    *,
    model: dict[str, Any],
    overwrite: bool,
) -> None:
    record = make_record(
        config,
        unit,
        pipe=pipe,
        frames_THWC=rendered.frames_THWC,
        trace=rendered.trace,
        seconds=rendered.seconds,
        model=model,
        audio=rendered.audio,
    )
    video = encode_video(
        rendered.frames_THWC,
        fps=config.video.fps,
        codec=config.output.video,
        enlarge=config.output.enlarge,
    )
    sheet = unit_sheet(config, unit, rendered)
    extras = _extras(unit, rendered)
    # A video without its record was interrupted, and nobody counts on it.
    parts = (unit.video, unit.sheet, *extras)
    leftover = not unit.record.exists() and any(path.exists() for path in parts)
    write_unit(
        unit,
        video=video,
        sheet=sheet,
        record=to_json(record),
        overwrite=overwrite or leftover,
        extras=extras,
    )


def _extras(unit: Unit, rendered: Rendered) -> dict[Path, bytes]:
    """The files beside the video: the picture of a clip of one frame, and the sound."""
    extras = {}
    if len(rendered.frames_THWC) == 1:
        extras[unit.image] = as_png(rendered.frames_THWC[0])
    if rendered.audio is not None:
        extras[unit.audio] = as_wav(*rendered.audio)
    return extras
