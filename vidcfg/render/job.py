"""Render every unit of a configuration, one after the other, each on its own.

A video is encoded and written in a thread beside the sampling of the next one.
"""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib  # noqa: F401 - draws the sheets: said to be missing before a video is sampled

from vidcfg.files import atomic_path, write_together
from vidcfg.media.sheet import contact_sheet, surface_picture
from vidcfg.media.write import encode_video
from vidcfg.progress import Progress
from vidcfg.render.config import RenderConfig, Unit, describe
from vidcfg.render.files import SURFACE_NAME, as_png, as_wav, pending_units
from vidcfg.render.record import kinds_of, make_record, model_record, to_json
from vidcfg.render.sampling import Rendered, sample_units


def render_units(
    config: RenderConfig,
    pipe: Any,
    units: Collection[Unit],
    *,
    overwrite: bool = False,
    skip_existing: bool = False,
    replaced: Collection[Unit] = (),
    progress: Progress | None = None,
    on_finished: Callable[[Unit, Rendered], None] | None = None,
) -> None:
    """Render and write the units in order; the surface picture of the run comes with the first.

    The frames of a unit are a function of (prompt, seed, config): each is sampled alone, from
    noise drawn on the CPU by its own generator, so that no batch shape depends on the others.
    Files that are there are replaced with `overwrite`, and those of the units `replaced`; with
    `skip_existing`, units that another run has made meanwhile are left out.

    `on_finished` is called once the files of a unit are there. After an error or Ctrl-C, the unit
    that is sampled already is written first.

    Raises:
        ValueError: if model and settings do not fit each other.
        NonFiniteError: if a prediction holds NaN or Inf.
        FileError: if a file cannot be written. Units that are finished stay.
    """
    from vidcfg.pipelines.changes.layers import swapped
    from vidcfg.pipelines.schedulers import make_scheduler

    model, scheduler = model_record(config, pipe), make_scheduler(pipe, config.sampling)
    surface_path = Path(config.output.dir) / SURFACE_NAME
    how = {"overwrite": overwrite, "skip_existing": skip_existing}
    progress = progress or Progress("videos", len(units), quiet=True)
    stepped = swapped(pipe, "scheduler", scheduler)
    with stepped, mini_threads(config), progress, _Beside() as beside:

        def on_step(done: int, total: int) -> None:
            beside.finish(wait_for_it=False)
            progress.step(done, total, what=unit.stem.name)

        def told(count: int, unit: Unit, rendered: Rendered) -> None:
            line = f"[{count}/{len(units)}] {rendered.seconds:.1f} s  {unit.video}"
            progress.update(count, line=line)
            if on_finished is not None:
                on_finished(unit, rendered)

        for count, unit in enumerate(units, start=1):
            if skip_existing and not pending_units(config, [unit], **how):
                progress.update(count)
                continue
            (rendered,) = sample_units([config], pipe, unit, on_step=on_step).videos
            if count == 1 and (overwrite or not surface_path.exists()):
                may = overwrite or skip_existing
                _write_surface(surface_path, config, rendered, overwrite=may)
            record = make_record(config, unit, rendered, pipe=pipe, model=model)
            may = how | {"overwrite": overwrite or unit in replaced}
            write = partial(_write, config, unit, rendered, record, **may)
            beside.start(write, then=partial(told, count, unit, rendered))
            # The next one is sampled without the frames of this one, once they are written.
            del rendered, write
        beside.finish()


class _Beside:
    """A thread beside this one for one thing at a time: `start` waits for what it does already.

    What the thread raises is raised by the call that finds it finished. Ctrl-C, which comes to the
    main thread alone, waits for the end of what is begun; a second one does not.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._begun: tuple[Future, Callable[[], None]] | None = None

    def start(self, work: Callable[[], None], *, then: Callable[[], None]) -> None:
        """Begin `work` there. Once it is done, one of the calls that follow runs `then` here."""
        self.finish()
        self._begun = self._pool.submit(work), then

    def finish(self, *, wait_for_it: bool = True) -> None:
        """Run what was to come then, if the work is done or is waited for."""
        if self._begun is None:
            return
        future, then = self._begun
        if wait_for_it:
            wait([future])
        if future.done():
            self._begun = None
            future.result()
            then()

    def __enter__(self) -> "_Beside":
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.finish()
        finally:
            self._pool.shutdown(wait=False)


@contextlib.contextmanager
def mini_threads(config: RenderConfig) -> Iterator[None]:
    """One thread for the mini model: its frames then do not depend on the number of cores.

    Two threads gain little on tensors of this size, and lose much on a machine that is busy.
    """
    import torch

    with contextlib.ExitStack() as stack:
        if config.model.kind == "mini":
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        yield


def encoded(config: RenderConfig, unit: Unit, rendered: Rendered) -> dict[str, bytes]:
    """The files of one video by what they are: `kinds_of`."""
    frames, output = rendered.frames_THWC, config.output
    form = {"fps": config.video.fps, "codec": output.video, "enlarge": output.enlarge}
    make = {
        "video": lambda: encode_video(frames, **form),
        "sheet": lambda: as_png(_sheet(config, unit, rendered)),
        "image": lambda: as_png(frames[0]),
        "audio": lambda: as_wav(*rendered.audio),
    }
    return {kind: make[kind]() for kind in kinds_of(rendered)}


def _sheet(config: RenderConfig, unit: Unit, rendered: Rendered) -> Any:
    """The contact sheet of one video, with the strength that was applied to each frame."""
    subtitle = f"seed {unit.seed} · {describe(config)}"
    if unit.prompt.negative:
        subtitle += f" · negative: {unit.prompt.negative}"
    words = {"title": unit.prompt.text, "subtitle": subtitle}
    return contact_sheet(rendered.frames_THWC, **words, strengths=rendered.strength_KT)


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
    unit: Unit,
    rendered: Rendered,
    record: dict,
    *,
    overwrite: bool,
    skip_existing: bool,
) -> None:
    if skip_existing and not pending_units(
        config, [unit], overwrite=overwrite, skip_existing=True
    ):
        return
    contents = {getattr(unit, k): data for k, data in encoded(config, unit, rendered).items()}
    digests = {path.name: hashlib.sha256(data).hexdigest() for path, data in contents.items()}
    contents[unit.record] = to_json(record | {"contents": digests}).encode()
    # A video without its record was interrupted, and nobody counts on it.
    is_leftover = not unit.record.exists() and any(path.exists() for path in contents)
    # Another run that makes the same unit at this moment writes the same.
    may = overwrite or is_leftover or skip_existing
    write_together(contents, last=unit.record, overwrite=may)
