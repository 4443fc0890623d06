"""Render every unit of a configuration, one after the other, each on its own."""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import matplotlib  # noqa: F401 - draws the sheets: said to be missing before a video is sampled

from vidcfg.files import atomic_path
from vidcfg.media.sheet import contact_sheet, surface_picture
from vidcfg.media.write import encode_video
from vidcfg.progress import Progress
from vidcfg.render.config import RenderConfig
from vidcfg.render.files import SURFACE_NAME, as_png, as_wav, write_together
from vidcfg.render.record import make_record, model_record, to_json
from vidcfg.render.sampling import Rendered, sample_units
from vidcfg.render.units import Unit, describe


def render_units(
    config: RenderConfig,
    pipe: Any,
    units: Collection[Unit],
    *,
    overwrite: bool = False,
    replaced: Collection[Unit] = (),
    progress: Progress | None = None,
    on_finished: Callable[[Unit, Rendered], None] | None = None,
) -> None:
    """Render and write the units in order; the surface picture of the run comes with the first.

    The frames of a unit are a function of (prompt, seed, config): each is sampled alone, from
    noise drawn on the CPU by its own generator, so that no batch shape depends on the others.
    Files that are there are replaced with `overwrite`, and those of the units `replaced`.

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
                (rendered,) = sample_units([config], pipe, unit, on_step=on_step).videos
                # written
                if count == 1 and (overwrite or not surface_path.exists()):
                    _write_surface(surface_path, config, rendered, overwrite=overwrite)
                may_replace = overwrite or unit in replaced
                _write(config, pipe, unit, rendered, model=model, overwrite=may_replace)
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
    contents = {
        unit.sheet: as_png(unit_sheet(config, unit, rendered)),
        unit.video: encode_video(
            frames, fps=config.video.fps, codec=output.video, enlarge=output.enlarge
        ),
    }
    if len(frames) == 1:
        contents[unit.image] = as_png(frames[0])
    if rendered.audio is not None:
        contents[unit.audio] = as_wav(*rendered.audio)
    record = make_record(config, unit, rendered, pipe=pipe, model=model)
    digests = {path.name: hashlib.sha256(data).hexdigest() for path, data in contents.items()}
    contents[unit.record] = to_json(record | {"contents": digests}).encode()
    # A video without its record was interrupted, and nobody counts on it.
    is_leftover = not unit.record.exists() and any(path.exists() for path in contents)
    write_together(contents, last=unit.record, overwrite=overwrite or is_leftover)
