"""Reading what commands leave on disk.

Stores, records and baselines may be made by strangers. Nothing of them is used unchecked: each
name that becomes a path passes `inside`, each file `parse` with its shape.
"""

import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import accumulate, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from vidcfg.metrics.record import LARGEST, SCHEMA, Record
from vidcfg.progress import one_line
from vidcfg.stored.shapes import RenderFile, RowPlace

LARGEST_FEATURES = 1 << 24
"""Bytes that the vectors of a video may take; an archive that unpacks to more is not read."""

AGAIN = "Remove it and run the command that wrote it again."


class ResultsError(ValueError):
    """Results that cannot be read or compared; the message names the place and what to do."""


class GoneError(ResultsError):
    """A file that is not there, such as one that a command at work has just replaced."""


def inside(folder: str | Path, name: str) -> Path:
    """`folder / name`, for a name that a store, a record or a baseline gives.

    Raises:
        ResultsError: if it would leave the folder: it is absolute, has a part `..`, or a link on
            the way leads out.
    """
    path, parts = Path(folder, name), PurePosixPath(name)
    is_plain = name.strip("./") and not parts.is_absolute() and ".." not in parts.parts
    is_plain = is_plain and "\0" not in name
    if not is_plain or not (_has_no_link(folder, name) or leads_into(folder, path)):
        raise ResultsError(f"{folder} names {name!r}, which leads out of it. It is not read.")
    return path


def _has_no_link(folder: str | Path, name: str) -> bool:
    """Whether no part of a plain name is a link below `folder`: it is inside, wherever that is."""
    way = accumulate(name.split("/"), os.path.join, initial=os.fspath(folder))
    return not any(map(os.path.islink, islice(way, 1, None)))


def leads_into(folder: str | Path, path: str | Path) -> bool:
    """Whether a path, with all links followed, lies in a folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def parse(text: str | bytes, where: str | Path, shape: Any = Any, *, fix: str = AGAIN) -> Any:
    """The data of a JSON text of that shape.

    Raises:
        ResultsError: it is no JSON, holds a number that is not finite or above LARGEST, or has
            another shape; the message names the file and the first field that is wrong.
    """
    try:
        data = _data_of(text)
        # As JSON: there lists stand for tuples and mappings for dataclasses, strictly.
        _adapter(shape).validate_json(text, strict=True)
    except ValidationError as error:
        told = _of_later(data, error) or f"{_first_of(error)}. {fix}"
        raise ResultsError(f"{where}: {told}") from None
    except (RecursionError, ValueError) as error:
        told = error if isinstance(error, ValueError) else "it is nested too deeply"
        raise ResultsError(f"{where} is damaged: {told}. {fix}") from None
    return data


def _data_of(text: str | bytes) -> Any:
    """What a JSON text holds; ValueError if it is none, or has a number above LARGEST."""
    # The fast reader first; what it or a number is refused for is told by the other.
    with suppress(ValueError):
        data = from_json(text, allow_inf_nan=False)
        if _is_small(data):
            return data
    return json.loads(text, parse_constant=_no_number, parse_float=_float, parse_int=_integer)


def _of_later(data: Any, error: ValidationError) -> str | None:
    """What to do about a file whose kind, such as `vidcfg.sweep/2`, only a later version knows."""
    for found in error.errors(include_url=False):
        if found["loc"] == ("kind",) and found["type"] == "literal_error":
            name, _, number = str(found["input"]).rpartition("/")
            ours, _, known = found["ctx"]["expected"].strip("'").rpartition("/")
            if name == ours and number.isdecimal() and int(number) > int(known):
                made = data.get("versions") or (data.get("made_by") or {}).get("versions") or {}
                by = f" {made['vidcfg']}" if made.get("vidcfg") else ""
                what = f"a later version of vidcfg{by} wrote it ({found['input']}"
                return f"{what}, this one knows {ours}/{known}). Type: pip install -U vidcfg"
    return None


def _is_small(data: Any) -> bool:
    """Whether no number in it is above LARGEST."""
    kind = type(data)
    if kind is float or kind is int:
        return abs(data) <= LARGEST
    if kind is list:
        return all(map(_is_small, data))
    return kind is not dict or all(map(_is_small, data.values()))


def text_of(path: Path, fix: str = AGAIN) -> str:
    """The text of a file.

    Raises:
        ResultsError: it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        kind = GoneError if isinstance(error, FileNotFoundError) else ResultsError
        raise kind(f"{path} cannot be read: {error}. {fix}") from error


def fields_of(text: str | bytes, where: str | Path, shape: Any) -> Any:
    """Of a JSON object no more than the fields that its shape names, in a fraction of the time.

    Raises:
        ResultsError: as `parse`, but numbers are only as small as the shape says.
    """
    try:
        return _adapter(shape).validate_json(text, strict=True)
    except ValidationError as error:
        raise ResultsError(f"{where}: {_first_of(error)}. {AGAIN}") from None


def render_of(path: Path) -> dict[str, Any]:
    """The record of a render; nothing where the file beside a video is something else.

    Raises:
        ResultsError: it is a record, or might be one, and is damaged.
    """
    text = text_of(path)
    data = parse(text, path)
    try:
        return parse(text, path, RenderFile)
    except ResultsError:
        if isinstance(data, dict) and str(data.get("kind")).startswith("vidcfg."):
            raise
        return {}


@cache
def _adapter(shape: Any) -> TypeAdapter:
    return TypeAdapter(shape)


def _first_of(error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    field = ".".join(map(str, found["loc"])) or "the whole"
    told = found["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    if found["type"] == "value_error":
        return f"{field}: {told}"
    if found["type"] == "missing":
        return f"{field} is missing"
    return f"{field} is {json.dumps(found['input'], default=str)[:60]}: {told}"


def _no_number(text: str) -> None:
    raise ValueError(f"{text[:40]} is no number here, values have to be finite and below 1e15")


def _float(text: str) -> float:
    return value if abs(value := float(text)) <= LARGEST else _no_number(text)


def _integer(text: str) -> int:
    # Seeds have up to 64 bits; longer numbers are not even converted.
    return value if len(text) <= 20 and abs(value := int(text)) < 1 << 64 else _no_number(text)


def records_of(
    text: str, where: str | Path, *, fix: str = AGAIN, **defaults: Any
) -> Iterator[tuple[Record, dict[str, Any]]]:
    """The records of the text of a `records.jsonl`, each with what its row says beside it.

    `defaults` stand where a row leaves a key out.

    Raises:
        ResultsError: naming the line that is damaged, or that is no record.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = _adapter(RowPlace).validate_json(line, strict=True)
            if defaults:
                line = json.dumps(defaults | from_json(line))
            record = Record.from_json(line, schema=row.get("schema", SCHEMA))
            if not _is_small(record.extra):
                raise ValueError(f"a number of extra is above {LARGEST:.0e}")
            yield record, row
        except ValidationError as error:
            why = _first_of(error)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = str(error).strip()
        else:
            continue
        raise ResultsError(f"{where}:{number}: no record ({why}), a damaged line. {fix}")


def measures_of(text: str, where: str | Path) -> list[Record]:
    """The records of the text of a `records.jsonl` of a unit.

    Raises:
        ResultsError: as `records_of`.
    """
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    # All lines at once; what is wrong is said line by line.
    with suppress(ValueError):
        if '"schema"' not in text:
            made = _adapter(list[Record]).validate_json(f"[{','.join(lines)}]", strict=True)
            are_possible = all(r.is_of_its_unit and _is_small(r.extra) for r in made)
            if len(made) == len(lines) and are_possible:
                return made
    return [record for record, _ in records_of(text, where)]


def arrays_of(data: bytes, where: str | Path) -> dict[str, np.ndarray]:
    """The vectors [D] of a `features.npz`, by the name of the net.

    Raises:
        ResultsError: it is damaged, or holds something else than finite numbers.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            if sum(part.file_size for part in arrays.zip.infolist()) > LARGEST_FEATURES:
                raise ValueError(f"it unpacks to more than {LARGEST_FEATURES >> 20} MB")
            found = {name: np.asarray(arrays[name]) for name in arrays.files}
    except Exception as why:  # a damaged archive or head raises whatever its own parser does
        raise ResultsError(f"{where} is damaged: {one_line(why)}. {AGAIN}") from None
    for name, vector in found.items():
        if vector.ndim != 1 or vector.dtype.kind != "f" or not np.isfinite(vector).all():
            raise ResultsError(f"{where}: {name} is no vector of finite numbers. {AGAIN}")
    return found


class Once:
    """Parts that many units have alike, held once: a large sweep would not fit into memory."""

    def __init__(self, *, traces: bool):
        self.traces = traces
        self._known: dict[Any, Any] = {}

    def __call__(self, value: Any) -> Any:
        """An equal value that was seen before, or this one."""
        return self._known.setdefault(json.dumps(value), value)

    def slim(self, record: Record) -> Record:
        """The same record, with what it shares; without its trace if nobody wants it."""
        # It is new and nobody else's yet, so it may still change.
        for name in ("backend", "clip", "name", "protocol", "unit", "subject"):
            value = getattr(record, name)
            object.__setattr__(record, name, self._known.setdefault(value, value))
        if not self.traces:
            object.__setattr__(record, "trace", None)
        return record
