"""Where the results go: checks before a run, and sets of files that appear whole."""

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from vidcfg.files import atomic_path
from vidcfg.media.video import MediaError
from vidcfg.render.units import Unit

SURFACE_NAME = "surface.png"


class OutputError(ValueError):
    """The output folder holds files that this run would replace."""


def pending_units(
    units: list[Unit],
    settings: list[dict[str, Any]],
    *,
    overwrite: bool = False,
    skip_existing: bool = False,
) -> list[Unit]:
    """The units that have to be rendered.

    With `skip_existing` a unit whose record is there and was made with the same `settings` is
    done; a video without its record was interrupted and is made again. With both options, a unit
    of other settings is made again as well.

    Raises:
        OutputError: if files are in the way and neither option allows for them, or if a finished
            unit was made with other settings and may not be replaced.
    """
    if skip_existing:
        found = [unit.record.exists() for unit in units]
        same = [
            is_there and _settings_of(unit.record) == wanted
            for unit, is_there, wanted in zip(units, found, settings, strict=True)
        ]
        other = [unit.record for unit, f, s in zip(units, found, same, strict=True) if f and not s]
        if other and not overwrite:
            raise OutputError(
                f"made with other settings: {_listed(other)}. Add --overwrite to make them again, "
                "or use --out with another folder."
            )
        return [unit for unit, is_done in zip(units, same, strict=True) if not is_done]
    if overwrite:
        return units
    present = [path for unit in units for path in unit.files if path.exists()]
    surface = units[0].stem.parent / SURFACE_NAME
    present += [surface] if surface.exists() else []
    if present:
        raise OutputError(
            f"already there: {_listed(present)}. Use --overwrite to replace them, "
            "--skip-existing to continue, or --out with another folder."
        )
    return units


def _listed(paths: list[Path], *, at_most: int = 6) -> str:
    shown = ", ".join(str(path) for path in paths[:at_most])
    return shown + (f" and {len(paths) - at_most} more" if len(paths) > at_most else "")


def _settings_of(record: Path) -> Any:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads(record.read_text("utf-8"))["settings"]
    return None


def prepare_folder(folder: Path) -> None:
    """Make the folder and try to write there, before a model is loaded.

    Raises:
        MediaError: if that is not possible, with the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise MediaError(f"output.dir is {folder}, which is a file, not a folder.") from None
    except OSError as error:
        raise MediaError(f"output.dir {folder} cannot be made: {_reason(error)}.") from None
    probe = folder / f".tmp-{os.getpid()}"
    try:
        probe.write_bytes(b"vidcfg")
    except OSError as error:
        raise MediaError(f"output.dir {folder} cannot be written: {_reason(error)}.") from None
    finally:
        with suppress(OSError):
            probe.unlink()


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def write_unit(
    unit: Unit,
    *,
    video: bytes,
    sheet: Image.Image,
    record: str,
    overwrite: bool,
    extras: Mapping[Path, bytes] | None = None,
) -> None:
    """Write all files of a unit under temporary names, then rename them, the record last.

    `extras` are further files by path: audio, or the picture of a clip of one frame.

    A Ctrl-C during the renames takes effect after them.

    Raises:
        MediaError: if one of them cannot be written; then no temporary file stays behind.
    """
    with uninterrupted() as renaming, ExitStack() as stack:
        # Left in reverse order: extras, video, sheet, record.
        record_path = stack.enter_context(atomic_path(unit.record, overwrite=overwrite))
        record_path.write_text(record, "utf-8")
        sheet_path = stack.enter_context(atomic_path(unit.sheet, overwrite=overwrite))
        sheet.save(sheet_path, format="png")
        video_path = stack.enter_context(atomic_path(unit.video, overwrite=overwrite))
        video_path.write_bytes(video)
        for path, content in (extras or {}).items():
            stack.enter_context(atomic_path(path, overwrite=overwrite)).write_bytes(content)
        renaming()
        if overwrite:
            # A record of the previous video must not vouch for this one.
            unit.record.unlink(missing_ok=True)


def write_picture(path: Path, picture: Image.Image, *, overwrite: bool) -> None:
    with atomic_path(path, overwrite=overwrite) as temporary:
        picture.save(temporary, format="png")


@contextmanager
def uninterrupted() -> Iterator[Any]:
    """Once the given function is called, Ctrl-C waits for the end of the block."""
    held: list[Any] = []
    is_main = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGINT) if is_main else None

    def hold() -> None:
        if is_main:
            signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))

    try:
        yield hold
    finally:
        if is_main:
            signal.signal(signal.SIGINT, previous)
    if held:
        raise KeyboardInterrupt
