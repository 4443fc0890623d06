"""Videos for the page's players: strips of frames as WebP, as many as a size allows."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidcfg.media.read import read_video
from vidcfg.media.sheet import evenly_chosen
from vidcfg.media.video import MediaError
from vidcfg.report.formats import picture_uri
from vidcfg.report.table import Pair, pair_of
from vidcfg.results import Results, UnitResult

MAX_SIDE = 256
MAX_FRAMES = 48
LOSSLESS_SIDE = 64
"""Frames up to this size are kept as they are; larger ones are stored with loss."""


@dataclass(frozen=True, eq=False)
class Players:
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
) -> Players:
    """Strips of every cell for as many pairs as fit into `max_bytes`, at least one pair.

    Pairs that all cells have come first, and every prompt once before any prompt twice.
    """
    units: dict[Pair, list[UnitResult]] = {}
    for unit in results.units:
        if unit.video is not None:
            units.setdefault(pair_of(unit), []).append(unit)

    # Strips, pair by pair, until they are too large.
    pairs, strips, problems = [], {}, []
    used, count, total = 0, 0, sum(map(len, units.values()))
    for pair in _order(list(units), shared):
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
        if made:
            used += size
            strips |= {(cell, len(pairs)): strip for cell, strip in made.items()}
            pairs.append(pair)
    is_changed = True in [strip.pop("is_changed") for strip in strips.values()]
    notes = _notes(results, len(pairs), len(units), is_changed)
    return Players(tuple(pairs), strips, (*notes, *problems))


def _notes(results: Results, shown: int, total: int, is_changed: bool) -> Iterator[str]:
    hidden = sum(unit.video is None for unit in results.units)
    if hidden and results.kind == "evaluation":
        yield (
            f"{hidden} of {len(results.units)} videos {'is' if hidden == 1 else 'are'} not shown: "
            f"not there, or neither inside {results.root} nor the very file that was scored."
        )
    if shown < total:
        where = results.root / "units" if results.kind == "sweep" else results.root
        yield (
            f"The players hold {shown} of {total} pairs of prompt and seed, to keep this file "
            f"small. All videos are in {where}."
        )
    if is_changed:
        yield (
            f"Frames above {MAX_SIDE} pixels are made smaller, clips above {MAX_FRAMES} frames "
            f"are thinned evenly, and frames above {LOSSLESS_SIDE} pixels are compressed with "
            "loss. Numbers are of the full videos."
        )


def _order(pairs: list[Pair], shared: Sequence[Pair]) -> list[Pair]:
    rank = {pair: index for index, pair in enumerate(shared)}
    pairs = sorted(pairs, key=lambda pair: (rank.get(pair, len(rank)), str(pair)))
    seen = defaultdict(itertools.count)
    turns = {pair: next(seen[pair[0]]) for pair in pairs}
    return sorted(pairs, key=lambda pair: (pair not in rank, turns[pair]))


def strip_of(unit: UnitResult) -> dict[str, Any]:
    """All frames side by side: `src`, size and rate of a frame, and their numbers in the clip.

    Raises:
        MediaError: the video cannot be read.
    """
    video = read_video(unit.video)
    frames = video.as_uint8().transpose(0, 2, 3, 1)
    frames = _original_size(frames, (unit.render.get("video") or {}).get("enlarge") or 1)
    numbers = evenly_chosen(len(frames), MAX_FRAMES)
    pictures = _within(frames[numbers])
    _, height, width, channels = pictures.shape
    is_small = max(height, width) <= LOSSLESS_SIDE
    strip = pictures.transpose(1, 0, 2, 3).reshape(height, -1, channels)
    strip = strip.repeat(3, axis=-1) if channels == 1 else strip
    return {
        "src": picture_uri(strip, "webp", lossless=is_small, quality=82, method=2),
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
