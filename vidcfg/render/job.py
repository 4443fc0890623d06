"""Render every unit of a configuration, one after the other, each on its own."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.files import atomic_path
from vidcfg.media.sheet import contact_sheet, spread_over_pixels, surface_picture
from vidcfg.media.video import check_range, to_uint8
from vidcfg.media.write import encode_video
from vidcfg.progress import Progress
from vidcfg.render.call import audio_of, call_arguments, check_made, check_shape, frames_of
from vidcfg.render.config import RenderConfig
from vidcfg.render.files import SURFACE_NAME, as_png, as_wav, write_together
from vidcfg.render.record import make_record, model_record, to_json
from vidcfg.render.units import Unit, describe


@dataclass(frozen=True, eq=False)
class Rendered:
    """One sampled video before it is written: uint8 frames [T, H, W, 3], and how they came.

    `audio` is what a pipeline made beside it: float32 [samples, channels], and their rate in Hz.
    """

    frames_THWC: np.ndarray
    trace: Any
    pixels_of: list[range]
    seconds: float
    audio: tuple[np.ndarray, int] | None = None

    @property
    def strength_KT(self) -> np.ndarray:
        """The strength that each pixel frame's latent frame was guided with, step by step."""
        strength_KF = self.trace.surfaces[0].strength_KF
        return spread_over_pixels(strength_KF, self.pixels_of, num_frames=len(self.frames_THWC))


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
        FileError: if a file cannot be written. Units that are finished stay.
    """
    from vidcfg.pipelines.schedulers import make_scheduler

    own_scheduler, model = pipe.scheduler, model_record(config, pipe)
    surface_path = Path(config.output.dir) / SURFACE_NAME
    progress = progress or Progress("videos", len(units), quiet=True)
    try:
        pipe.scheduler = make_scheduler(pipe, config.sampling)
        with mini_threads(config), progress:
            for count, unit in enumerate(units, start=1):
                # sampled
                on_step = functools.partial(progress.step, what=unit.stem.name)
                rendered = sample_unit(config, pipe, unit, on_step=on_step)
                # written
                if count == 1 and (overwrite or not surface_path.exists()):
                    _write_surface(surface_path, config, rendered, overwrite=overwrite)
                _write(config, pipe, unit, rendered, model=model, overwrite=overwrite)
                # told
                line = f"[{count}/{len(units)}] {rendered.seconds:.1f} s  {unit.video}"
                progress.update(count, line=line)
                if on_finished is not None:
                    on_finished(unit, rendered)
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


def sample_unit(
    config: RenderConfig,
    pipe: Any,
    unit: Unit,
    *,
    on_step: Callable[[int, int], None] | None = None,
) -> Rendered:
    """Sample one video; `on_step(done, total)` is called after every step of the solver."""
    import inspect

    import torch

    import vidcfg
    from vidcfg.pipelines.families import family_of

    family = family_of(pipe)
    accepted = inspect.signature(type(pipe).__call__).parameters
    check_shape(config, family)
    call = call_arguments(config, unit.prompt, family, accepted)
    if on_step is not None and "callback_on_step_end" in accepted:
        call["callback_on_step_end"] = _step_callback(on_step)
    begin = time.perf_counter()
    guided = vidcfg.guide(
        pipe, config.guidance, negative_prompt=unit.prompt.negative, fps=config.video.fps
    )
    with guided as trace:
        generator = torch.Generator("cpu").manual_seed(unit.seed)
        output = pipe(**call, generator=generator)
    frames = frames_of(output, family)[0]
    check_range(frames, what=f"the decoded video of '{unit.stem.name}'")
    check_made(config, frames, pipe)
    return Rendered(
        frames_THWC=to_uint8(frames),
        trace=trace,
        pixels_of=family.frame_map(pipe).pixels_of(len(frames)),
        seconds=time.perf_counter() - begin,
        audio=next(iter(audio_of(output, pipe)), None),
    )


def _step_callback(on_step: Callable[[int, int], None]) -> Callable:
    def callback(pipe: Any, index: int, timestep: Any, tensors: dict) -> dict:
        on_step(index + 1, len(pipe.scheduler.timesteps))
        return {}

    return callback


def unit_sheet(config: RenderConfig, unit: Unit, rendered: Rendered) -> Any:
    """The contact sheet of one video, with the strength that was applied to each frame."""
    subtitle = f"seed {unit.seed} · {describe(config)}"
    if unit.prompt.negative:
        subtitle += f" · negative: {unit.prompt.negative}"
    return contact_sheet(
        rendered.frames_THWC,
        title=unit.prompt.text,
        subtitle=subtitle,
        strengths=rendered.strength_KT,
    )


def _write_surface(
    path: Path, config: RenderConfig, rendered: Rendered, *, overwrite: bool
) -> None:
    """The strength surface of the run, as asked for and as applied to latent frames."""
    surface = rendered.trace.surfaces[0]
    picture = surface_picture(
        surface.strength_KT,
        applied_KF=surface.strength_KF,
        pixels_of=rendered.pixels_of,
        title=f"{config.name}: strength of guidance",
        subtitle=describe(config),
    )
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(as_png(picture))


def _write(
    config: RenderConfig,
    pipe: Any,
    unit: Unit,
    rendered: Rendered,
    *,
    model: dict[str, Any],
    overwrite: bool,
) -> None:
    frames, output = rendered.frames_THWC, config.output
    record = make_record(config, unit, rendered, pipe=pipe, model=model)
    contents = {
        unit.record: to_json(record).encode(),
        unit.sheet: as_png(unit_sheet(config, unit, rendered)),
        unit.video: encode_video(
            frames, fps=config.video.fps, codec=output.video, enlarge=output.enlarge
        ),
    }
    if len(frames) == 1:
        contents[unit.image] = as_png(frames[0])
    if rendered.audio is not None:
        contents[unit.audio] = as_wav(*rendered.audio)
    # A video without its record was interrupted, and nobody counts on it.
    is_leftover = not unit.record.exists() and any(path.exists() for path in contents)
    write_together(contents, last=unit.record, overwrite=overwrite or is_leftover)
