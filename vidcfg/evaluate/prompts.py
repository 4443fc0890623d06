"""Which prompt a video is of: what a file of prompts says, or else its name."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidcfg.progress import printable

NUMBERED = (
    re.compile(r"(?P<prompt>.+)-(?P<number>\d{1,10})"),  # VBench: {prompt}-{index}
    re.compile(r"(?P<prompt>.+)_(?P<number>\d{5})_?"),  # ComfyUI: {prefix}_{counter:05}_
    re.compile(r"(?P<prompt>.+)-s(?P<number>\d{1,10})"),  # vidcfg render: {prompt}-s{seed}
)
"""How tools number several videos of one prompt, at the end of a file's name."""


def prompt_and_number(stem: str) -> tuple[str, int | None]:
    """The prompt and the number of a video by its name without ending.

    `a cat in a park-3` is number 3 of `a cat in a park`, `fox_00012_` number 12 of `fox`; any
    other name is a prompt of its own, without a number. Where numbered names are no seeds of one
    prompt, taking them for such makes intervals wider and tests weaker, never surer.
    """
    for form in NUMBERED:
        if found := form.fullmatch(stem):
            return found["prompt"], int(found["number"])
    return stem, None


def read_prompts(path: str | Path) -> list[str] | dict[str, str]:
    """The prompts of a file, by name of video where it has these, else in the order of its lines.

    Raises:
        ValueError: the file cannot be read, or a row of it; the message has the row and an
            example of a right one.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as prompts: {error}.") from error
    if path.suffix.lower() in (".tsv", ".yaml", ".yml"):
        raise ValueError(f"{path} cannot be read as prompts. Write {_TABLES['.csv'][1]} (.csv).")
    if path.suffix.lower() not in _TABLES:
        return [printable(line.strip()) for line in text.split("\n") if line.strip()]
    table: dict[str, str] = {}
    rows, example = _TABLES[path.suffix.lower()]
    try:
        for where, row in rows(text):
            video, prompt = _checked(row, where)
            if table.setdefault(video, prompt) != prompt:
                raise ValueError(f"{where} gives {video} a second prompt")
    except (ValueError, csv.Error, RecursionError) as error:
        raise ValueError(f"{path}: {error}. Write {example}.") from None
    return table


def _checked(row: Any, where: str) -> tuple[str, str]:
    if not isinstance(row, dict):
        raise ValueError(f"{where} is {row!r}, without names of its values")
    if None in row:
        raise ValueError(f"{where} has more values than columns; text with commas needs quotes")
    for key in ("video", "prompt"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            found = f"{key} {row[key]!r}, which is no text" if row.get(key) else f"no {key}"
            raise ValueError(f"{where} has {found}")
    return row["video"].strip(), printable(row["prompt"].strip(), keep="\n\t")


def _csv_rows(text: str) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    for row in reader:
        yield f"line {reader.line_num}", row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise ValueError(f"'{key}' is there twice, with different values")
    return found


def _json_rows(text: str) -> Iterator[tuple[str, Any]]:
    found = json.loads(text, object_pairs_hook=_once)
    if isinstance(found, dict):
        for video, prompt in found.items():
            yield f"'{video}'", {"video": video, "prompt": prompt}
        return
    if not isinstance(found, list):
        raise ValueError("it holds neither a list nor an object")
    for number, row in enumerate(found, start=1):
        yield f"entry {number}", row


def _json_line_rows(text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line, object_pairs_hook=_once)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is no JSON: {error.msg}") from None
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None


_TABLES = {
    ".csv": (_csv_rows, 'a first line `video,prompt`, then `kite.mp4,"a red kite, flying"`'),
    ".json": (
        _json_rows,
        '[{"video": "kite.mp4", "prompt": "a red kite"}] or {"kite.mp4": "a red kite"}',
    ),
    ".jsonl": (_json_line_rows, '{"video": "kite.mp4", "prompt": "a red kite"} on a line'),
}
"""By ending: how rows are read, and what they look like; of other files a line is a prompt."""
