"""The files of a unit: which are there already, and what pictures and sound are as files."""

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidcfg.files import sha256_of
from vidcfg.progress import listed
from vidcfg.render import identity
from vidcfg.render.config import RenderConfig, Unit
from vidcfg.render.record import unit_settings
from vidcfg.stored.read import ResultsError, render_of

SURFACE_NAME = "surface.png"


def pending_units(
    config: RenderConfig, units: list[Unit], *, overwrite: bool, skip_existing: bool
) -> dict[Unit, str]:
    """The units that have to be rendered, and why those that are there do not do.

    With `skip_existing` a unit is done if its record is there with the same key, and its files as
    the record says; a video without its record was interrupted and is made again. With both
    options, a unit of other settings is made again as well.

    Raises:
        ValueError: if files are in the way and neither option allows for them, or if a finished
            unit was made with other settings and may not be replaced.
    """
    if skip_existing:
        sources, known = identity.sources_of(config), {}
        cell = identity.cell_digest(config, sources)
        found, others = {}, []
        for unit in units:
            record = _read(unit.record)
            key = identity.unit_key(cell, unit.prompt, unit.seed, known)
            if record and record.get("settings") != unit_settings(config, unit):
                found[unit] = "made with other settings"
                others.append(unit.record)
            elif record and record.get("unit") != key:
                now = sources | identity.prompt_sources(unit.prompt, known)
                why = identity.what_changed(record.get("sources"), now)
                found[unit] = why or "its strengths, or files that are not known here, may differ"
            elif fault := fault_of(unit):
                found[unit] = fault * unit.record.exists()
        if others and not overwrite:
            raise ValueError(
                f"made with other settings: {listed(others, 6)}. Add --overwrite to make them "
                "again, or use --out with another folder."
            )
        return found
    places = *(path for unit in units for path in unit.files), units[0].stem.parent / SURFACE_NAME
    present = [path for path in places if path.exists()]
    if present and not overwrite:
        raise ValueError(
            f"already there: {listed(present, 6)}. Use --overwrite to replace them, "
            "--skip-existing to continue, or --out with another folder."
        )
    return dict.fromkeys(units, "")


def fault_of(unit: Unit) -> str:
    """What is wrong with the files of a finished unit; empty if they are as its record says."""
    contents = _read(unit.record).get("contents")
    if not isinstance(contents, dict) or not contents:
        return f"{unit.record.name} is missing or damaged"
    for name, sha256 in contents.items():
        try:
            is_same = sha256_of(unit.stem.parent / Path(name).name) == sha256
        except OSError:
            return f"{name} is missing"
        if not is_same:
            return f"{name} is damaged"
    return ""


def _read(record: Path) -> dict[str, Any]:
    """A record; empty where there is none, or a damaged one."""
    with suppress(ResultsError):
        return render_of(record)
    return {}


def as_png(picture: Image.Image | np.ndarray) -> bytes:
    """A picture, or a uint8 frame [H, W, 3], as a PNG file, every pixel kept."""
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    # Level 4 is quicker than the usual 6, by a third on small sheets, for 0 to 3 % more bytes.
    picture.save(buffer, format="png", compress_level=4)
    return buffer.getvalue()


def as_wav(samples: np.ndarray, rate: int) -> bytes:
    """Float samples [samples, channels] in -1..1 (louder ones are clipped) as a 16-bit WAV file.

    Raises:
        ValueError: if a sample is NaN or Inf.
    """
    from scipy.io import wavfile

    if not np.isfinite(samples).all():
        raise ValueError("the audio of the pipeline holds NaN or Inf. Use model.dtype: float32.")
    levels = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2")
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, levels)
    return buffer.getvalue()
