"""Sets of measured clips, read from finished results, and their pictures; baselines, written."""

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg import results as on_disk
from vidcfg.evaluate.prompts import prompt_and_number
from vidcfg.files import make_folder, uninterrupted, write_together
from vidcfg.media.video import MediaError
from vidcfg.metrics.record import ClipInfo, Record
from vidcfg.results import Key, UnitResult, read_results
from vidcfg.stored.read import ResultsError, render_of
from vidcfg.stored.shapes import BASELINE_KIND


@dataclass(frozen=True)
class Strip:
    """A WebP picture of `num_frames` frames of `width` x `height`, `columns` in a row."""

    data: bytes
    num_frames: int
    width: int
    height: int
    columns: int

    @property
    def for_page(self) -> dict[str, Any]:
        url = "data:image/webp;base64," + base64.b64encode(self.data).decode("ascii")
        size = {"width": self.width, "height": self.height, "columns": self.columns}
        return {"url": url, "frames": self.num_frames, **size}


@dataclass(frozen=True, eq=False)
class MeasuredClip:
    """The records of one clip by metric, and its files: video, record, and strip of pictures.

    `preview` has pictures that are in no file.
    """

    key: Key
    records: Mapping[str, Record]
    video: Path | None = None
    record: Path | None = None
    strip: Path | None = None
    preview: Strip | None = None

    @property
    def info(self) -> ClipInfo | None:
        """What is known about the video, None if no metric has it."""
        return next((r.clip for r in self.records.values() if r.clip is not None), None)

    def value(self, metric: str) -> float | None:
        """What was measured; None without a record, or a value in it."""
        record = self.records.get(metric)
        return record and record.value

    @property
    def render(self) -> dict[str, Any]:
        """What the render's record says; nothing without one, or if it is damaged."""
        try:
            return render_of(self.record) if self.record else {}
        except ResultsError:
            return {}


@dataclass(frozen=True, eq=False)
class ClipSet:
    """Clips by key, where they come from, and what the baseline file says beside them."""

    source: str
    clips: Mapping[Key, MeasuredClip]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clips)


def read_baseline(folder: str | Path) -> ClipSet:
    """A baseline as `write_baseline` leaves it.

    Raises:
        ResultsError: files are missing, damaged, or of another kind.
    """
    results = on_disk.read_baseline(folder)
    clips = [_clip(folder, unit, Key(unit.cell, unit.prompt, unit.seed)) for unit in results.units]
    return replace(as_set(str(folder), clips), facts=results.plan)


def as_set(source: str, clips: Iterable[MeasuredClip]) -> ClipSet:
    """A set of clips with different keys.

    Raises:
        ResultsError: if there are none, or two have the same key.
    """
    by_key: dict[Key, MeasuredClip] = {}
    for clip in clips:
        if clip.key in by_key:
            raise ResultsError(
                f"{source}: two clips are {clip.key}. Each prompt and seed of a cell may be there "
                "once: remove one, or keep them in separate folders."
            )
        by_key[clip.key] = clip
    if not by_key:
        raise ResultsError(f"{source}: there are no clips.")
    return ClipSet(source, dict(sorted(by_key.items())))


def read_finished(path: Path) -> ClipSet:
    """A sweep's store or an evaluated folder with all of its units, each of them fresh.

    Raises:
        ResultsError: files are damaged, units have failed or are missing.
    """
    results = read_results(path)
    # A unit that has failed, is damaged or not there is no evidence of quality.
    if results.failed:
        named = "; ".join(f"{f.key}: {f.message}" for f in results.failed[:3])
        raise ResultsError(f"{path}: {len(results.failed)} videos have failed ({named}).")
    if results.problems:
        raise ResultsError(f"{path}: {results.problems[0]}")
    if results.missing:
        planned = len(results.missing) + len(results.units)
        raise ResultsError(
            f"{path}: {len(results.missing)} of {planned} units are not rendered. "
            f"Finish the sweep first: vidcfg sweep resumes where it stopped."
        )
    has_cells = len({unit.cell for unit in results.units}) > 1
    clips = []
    for unit in results.units:
        cell = unit.cell if has_cells else ""
        if results.kind == "evaluation":
            cell = folder_of(unit.key)
            records, video = path / "records.jsonl", unit.video
            is_there = video is not None and video.is_file()
            if is_there and video.stat().st_mtime > records.stat().st_mtime + 1:
                raise ResultsError(
                    f"{video} is younger than {records}, which may be of another video. "
                    f"Remove {records.name} to measure on the spot, or run vidcfg evaluate again."
                )
        prompt, number = prompt_and_number(Path(unit.key).stem)
        seed = number if unit.seed is None else unit.seed
        key = Key(cell, unit.prompt or prompt, -1 if seed is None else seed)
        clips.append(_clip(path, unit, key))
    return as_set(str(path), clips)


def folder_of(name: str) -> str:
    """The cell of a video by its name: its folder below what was given, none for a whole path."""
    folder = Path(name).parent
    return "" if folder.is_absolute() or folder == Path() else folder.as_posix()


def _clip(path: str | Path, unit: UnitResult, key: Key) -> MeasuredClip:
    if not unit.records:
        raise ResultsError(f"{path}: {key}: there are no records.")
    for record in unit.records.values():
        if record.status == "failed":
            raise ResultsError(f"{path}: {key}: {record.skipped_reason}")
    return MeasuredClip(key, unit.records, unit.video, unit.render_file, unit.strip)


def write_baseline(
    folder: str | Path,
    clips: ClipSet,
    *,
    metrics: Sequence[str] | None = None,
    facts: Mapping[str, Any] | None = None,
    side: int | None = None,
    overwrite: bool = False,
) -> Path:
    """`baseline.json`, `records.jsonl` and, up to `side` pixels (None: without), pictures;
    `metrics` limits what is kept. All appear together, in the place of what is there, or nothing
    is changed.

    Traces are rounded to five digits: they name frames, no verdict depends on them.

    Raises:
        ResultsError: a baseline is there and may not be replaced.
        FileError: a file cannot be written.
    """
    folder = Path(folder)
    if (folder / "baseline.json").exists() and not overwrite:
        raise ResultsError(f"{folder} holds a baseline. Use --overwrite to renew it.")
    # Values by clip and metric; what is known about the video, and its pictures, once a clip.
    lines, listed, pictures = [], [], {}
    for index, (key, clip) in enumerate(clips.clips.items()):
        place = key._asdict()
        listed.append(place | ({"video": asdict(clip.info)} if clip.info else {}))
        # Pictures of an earlier set may be those that are kept.
        if strip := strip_of(clip, side=side) if side else None:
            listed[-1]["strip"] = f"{index:04d}.webp"
            pictures[folder / "videos" / f"{index:04d}.webp"] = strip.data
        for name, record in clip.records.items():
            if metrics is None or name in metrics:
                lines.append(json.dumps(place | _brief(record), allow_nan=False))
    whole = {"kind": BASELINE_KIND, **(facts or {}), "clips": listed}
    head = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
    texts = {folder / "records.jsonl": "\n".join(lines), folder / "baseline.json": head}
    files = {path: f"{text}\n".encode(errors="backslashreplace") for path, text in texts.items()}

    # The head comes last: without it the folder is no baseline.
    make_folder(folder / "videos" if pictures else folder, "the baseline")
    with uninterrupted() as hold:
        hold()
        write_together(pictures | files, last=folder / "baseline.json", overwrite=True)
        for old in (folder / "videos").glob("[0-9]*.webp"):
            if old not in pictures:
                old.unlink()
    return folder


def _brief(record: Record) -> dict[str, Any]:
    """The row of a record without what reading puts back: names, facts of the clip, defaults."""
    row = record.to_dict()
    if row["trace"] is not None:
        row["trace"] = [None if x is None else float(f"{x:.5g}") for x in row["trace"]]
    usual = {"better": "none", "status": "ok", "unit": "", "comparable_to_literature": False}
    usual |= {name: row[name] for name in ("subject", "clip")}
    return {key: v for key, v in row.items() if v not in (None, {}, usual.get(key))}


SIDE = 192
"""Frames with a longer side above this are reduced to it."""

PREVIEW = 96
"""Likewise for the small pictures that every baseline keeps."""


# Several metrics may blame one clip, whose video is read once.
@lru_cache(maxsize=16)
def strip_of(clip: MeasuredClip, *, side: int = SIDE) -> Strip | None:
    """The pictures of a clip: kept ones, else from its video; None without either."""
    info = clip.info
    if clip.preview is not None:
        return clip.preview
    if clip.strip is not None and info is not None and info.num_frames:
        return read_strip(clip.strip, info.num_frames)
    if clip.video is None or not clip.video.exists():
        return None
    from vidcfg.media.read import read_video

    try:
        frames = read_video(clip.video).as_uint8().transpose(0, 2, 3, 1)
    except MediaError:
        return None
    # Measures know the size before pixels were repeated.
    enlarge = max(1, frames.shape[1] // info.height) if info and info.height else 1
    return make_strip(frames[:, ::enlarge, ::enlarge], side=side)


def make_strip(frames_THWC: np.ndarray, *, side: int = SIDE) -> Strip:
    """The strip of uint8 frames: exact up to `side` pixels, reduced and slightly lossy above."""
    from PIL import Image

    num, height, width = frames_THWC.shape[:3]
    factor = min(1.0, side / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    columns, rows = _grid(num)
    sheet = Image.new("RGB", (columns * size[0], rows * size[1]))
    for t, frame in enumerate(frames_THWC):
        picture = Image.fromarray(np.ascontiguousarray(frame)).convert("RGB")
        if factor < 1:
            picture = picture.resize(size, Image.Resampling.BOX)
        sheet.paste(picture, (t % columns * size[0], t // columns * size[1]))
    file = io.BytesIO()
    options = {"lossless": True} if factor == 1 else {"quality": 90 if side == SIDE else 70}
    sheet.save(file, format="webp", **options)
    return Strip(file.getvalue(), num, *size, columns)


def read_strip(path: Path, num_frames: int) -> Strip | None:
    """The strip of a file that `make_strip` wrote, None if it is damaged."""
    from PIL import Image

    columns, rows = _grid(num_frames)
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
    except Exception:  # Pillow has kinds of its own, such as for a huge size
        return None
    is_whole = not (width % columns or height % rows)
    return Strip(data, num_frames, width // columns, height // rows, columns) if is_whole else None


def _grid(num_frames: int) -> tuple[int, int]:
    columns = math.ceil(math.sqrt(num_frames))
    return columns, math.ceil(num_frames / columns)
