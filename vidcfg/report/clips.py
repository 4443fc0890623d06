"""Videos for the page's players: strips of frames as WebP, as many as a size allows."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidcfg.media.read import read_video
from vidcfg.media.sheet import evenly_chosen
from vidcfg.media.video import MediaError
from vidcfg.report.results import Results, UnitResult
from vidcfg.report.values import Pair, pair_of

MAX_SIDE = 256
MAX_FRAMES = 48
LOSSLESS_SIDE = 64
"""Frames up to this size are kept as they are; larger ones are stored with loss."""


@dataclass(frozen=True, eq=False)
class Clips:
    """`strips` by (cell, pair number): a data URI and its layout. `notes` say what is not here."""

    pairs: tuple[Pair, ...]
    strips: dict[tuple[str, int], dict[str, Any]]
    notes: tuple[str, ...]


def embed(
    results: Results,
    shared: Sequence[Pair],
    *,
    max_bytes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Clips:
    """Strips of every cell for as many pairs as fit into `max_bytes`, at least one pair.

    Pairs that all cells have come first, and every prompt once before any prompt twice.
    """
    units: dict[Pair, list[UnitResult]] = {}
    for unit in results.units:
        if unit.video is not None:
            units.setdefault(pair_of(unit), []).append(unit)
    order = _order(list(units), shared)
    pairs, strips, problems = [], {}, []
    used, count, total = 0, 0, sum(map(len, units.values()))
    changed = False
    for pair in order:
        made = {}
        for unit in units[pair]:
            count += 1
            progress(count, total)
            try:
                made[unit.cell] = strip_of(unit)
            except (MediaError, ValueError) as error:
                problems.append(f"{unit.video} cannot be shown: {error}")
        size = sum(len(strip["src"]) for strip in made.values())
        if pairs and used + size > max_bytes:
            break
        if not made:
            continue
        used += size
        changed |= any(strip.pop("is_changed") for strip in list(made.values()))
        strips |= {(cell, len(pairs)): strip for cell, strip in made.items()}
        pairs.append(pair)
    notes = _notes(results, len(pairs), len(order), changed)
    return Clips(tuple(pairs), strips, (*notes, *problems))


def _order(pairs: list[Pair], shared: Sequence[Pair]) -> list[Pair]:
    rank = {pair: index for index, pair in enumerate(shared)}
    pairs = sorted(pairs, key=lambda pair: (rank.get(pair, len(rank)), str(pair)))
    seen: dict[str, int] = {}
    turns = []
    for pair in pairs:
        turns.append(seen.get(pair[0], 0))
        seen[pair[0]] = turns[-1] + 1
    order = sorted(zip(pairs, turns), key=lambda item: (item[0] not in rank, item[1]))
    return [pair for pair, _ in order]


def _notes(results: Results, shown: int, total: int, changed: bool) -> list[str]:
    notes = []
    if shown < total:
        where = results.root / "units" if results.kind == "sweep" else results.root
        notes.append(
            f"The players hold {shown} of {total} pairs of prompt and seed, to keep this file "
            f"small. All videos are in {where}."
        )
    if changed:
        notes.append(
            f"Frames above {MAX_SIDE} pixels are made smaller, clips above {MAX_FRAMES} frames "
            f"are thinned evenly, and frames above {LOSSLESS_SIDE} pixels are compressed with "
            "loss. Numbers are of the full videos."
        )
    return notes


def strip_of(unit: UnitResult) -> dict[str, Any]:
    """All frames side by side: `src`, size and rate of a frame, and their numbers in the clip.

    Raises:
        MediaError: the video cannot be read.
    """
    video = read_video(unit.video)
    frames = video.as_uint8().transpose(0, 2, 3, 1)
    frames = _original_size(frames, (unit.record.get("video") or {}).get("enlarge") or 1)
    numbers = evenly_chosen(len(frames), MAX_FRAMES)
    pictures = _within(frames[numbers])
    _, height, width, _ = pictures.shape
    is_small = max(height, width) <= LOSSLESS_SIDE
    strip = pictures.transpose(1, 0, 2, 3).reshape(height, -1, pictures.shape[-1])
    return {
        "src": _webp(strip, lossless=is_small),
        "width": width,
        "height": height,
        "fps": float(video.fps) * len(numbers) / len(frames),
        "frames": list(map(int, numbers)),
        "is_changed": not is_small or len(numbers) < len(frames),
    }


def _original_size(frames_THWC: np.ndarray, enlarge: int) -> np.ndarray:
    """Frames before pixels were repeated `enlarge` times: the mean of each block."""
    num, height, width, channels = frames_THWC.shape
    if enlarge <= 1 or height % enlarge or width % enlarge:
        return frames_THWC
    blocks = (num, height // enlarge, enlarge, width // enlarge, enlarge, channels)
    return np.rint(frames_THWC.reshape(blocks).mean(axis=(2, 4))).astype(np.uint8)


def _within(frames_THWC: np.ndarray) -> np.ndarray:
    """At most MAX_SIDE pixels on the longer side."""
    import cv2

    height, width = frames_THWC.shape[1:3]
    factor = MAX_SIDE / max(height, width)
    if factor >= 1:
        return frames_THWC
    size = max(1, round(width * factor)), max(1, round(height * factor))
    made = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames_THWC]
    return np.stack(made).reshape(len(made), size[1], size[0], -1)


def _webp(picture_HWC: np.ndarray, *, lossless: bool) -> str:
    from PIL import Image

    if picture_HWC.shape[-1] == 1:
        picture_HWC = picture_HWC.repeat(3, axis=-1)
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture_HWC))
    image.save(file, "WEBP", lossless=lossless, quality=82, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
