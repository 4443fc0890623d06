"""When a unit of a store is whole: one rule, by which a sweep makes again what is not, and report
and gate leave it aside.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vidcfg.metrics.record import Record
from vidcfg.stored.read import ResultsError, arrays_of, fields_of, inside, measures_of
from vidcfg.stored.shapes import DoneFile, RenderFacts

DONE = "DONE"
"""The file that lists the others, with their size and content. It is written last."""

NEEDED = ("video", "record.json", "records.jsonl")
"""What every unit has; a video has its ending."""

HASHED_BYTES = 4 << 20
"""Larger files count by their size alone: a resumed sweep need not read all of its videos."""


class UnitFiles(NamedTuple):
    """A whole unit: the names of its files, its records and what is read of its render."""

    names: tuple[str, ...]
    records: list[Record]
    render: dict[str, Any]


def read_unit(folder: str, system: Any = None, *, with_content: bool = False) -> UnitFiles:
    """The unit in a folder, on this disk or on an fsspec file system.

    Every file that `DONE` lists is there, is none of somewhere else, and has its size; record and
    records have their content and read back; `with_content` so have the features, and all else up
    to HASHED_BYTES has its content.

    Raises:
        ResultsError: it is not whole, and why.
        OSError: it cannot be read.
    """
    # What is listed
    read, size = (system.cat_file, system.size) if system else (_read_here, _size_here)
    if system is None and os.path.islink(folder):
        raise ResultsError(f"{folder} is a link")
    done = fields_of(read(f"{folder}/{DONE}"), f"{folder}/{DONE}", DoneFile)
    listed = {"video" if name.startswith("video.") else name for name in done}
    if absent := [name for name in NEEDED if name not in listed]:
        raise ResultsError(f"{folder}/{DONE} lists no {absent[0]}")

    # What is there, read as far as it has to be
    found: dict[str, bytes] = {}
    for name, facts in done.items():
        path = f"{folder}/{name}"
        is_read = with_content and (facts["size"] <= HASHED_BYTES or name == "features.npz")
        try:
            if is_read or name in NEEDED:
                found[name] = read(path)
            length = len(found[name]) if name in found else size(path)
        except FileNotFoundError:
            raise ResultsError(f"{name} is missing") from None
        if length != facts["size"]:
            raise ResultsError(f"{name} has another size than {DONE} says")
        if name in found and facts_of(found[name]) != facts:
            raise ResultsError(f"{name} has another content than {DONE} says")

    # What it says
    text = found["records.jsonl"].decode(errors="replace")
    records = measures_of(text, f"{folder}/records.jsonl")
    render = fields_of(found["record.json"], f"{folder}/record.json", RenderFacts)
    key = folder.rpartition("/")[2]
    if render.get("unit", key) != key:
        raise ResultsError(f"it holds the unit {render['unit'][:12]}")
    if "frames_sha256" not in render.get("video", {}):
        raise ResultsError(f"{folder}/record.json: video.frames_sha256 is missing")
    if "features.npz" in found:
        arrays_of(found["features.npz"], f"{folder}/features.npz")
    return UnitFiles(tuple(done), records, render)


def facts_of(data: bytes) -> Mapping[str, Any]:
    """What `DONE` says of a file."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _read_here(path: str) -> bytes:
    _refuse_link(path)
    with open(path, "rb") as file:
        return file.read()


def _size_here(path: str) -> int:
    _refuse_link(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(path)
    return os.path.getsize(path)


def _refuse_link(path: str) -> None:
    if os.path.islink(path):
        inside(Path(path).parent, os.path.basename(path))
