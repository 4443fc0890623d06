"""A verdict as one HTML page that needs no other file, and clips as pictures for it."""

import base64
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.media.video import MediaError
from vidcfg.regress.check import GateOutcome, Worst
from vidcfg.regress.clips import ClipSet, MeasuredClip
from vidcfg.regress.judge import MetricResult

MAX_CASES = 8
"""Worst clips with players; further metrics are in the table alone."""

SIDE = 192
"""Frames with a longer side above this are reduced to it."""


def page(outcome: GateOutcome, *, commands: Mapping[str, str]) -> str:
    """The page: verdict, all metrics as intervals against their margins, and the worst clips.

    `commands` has a command that makes the worst clip again, by metric.
    """
    import jinja2

    results = outcome.judgement.metrics
    shown = [r for r in results if not r.exits_clean and r.name in outcome.worst][:MAX_CASES]
    players = {f"case{i}": _player(outcome.worst[r.name]) for i, r in enumerate(shown)}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
    )
    return environment.get_template("regress.html.j2").render(
        outcome=outcome,
        paired=outcome.paired,
        recorded=_recorded(outcome.base),
        rows=results,
        plot=_plot,
        cases=shown,
        commands=commands,
        data=json.dumps(players, allow_nan=False),
    )


def _recorded(base: ClipSet) -> str:
    """How the baseline was made."""
    made = base.facts.get("made_by") or {}
    commit = str(made.get("commit") or "")[:12]
    version = (made.get("versions") or {}).get("vidcfg")
    parts = [f"commit {commit}" if commit else "", f"vidcfg {version}" if version else ""]
    return ", ".join(part for part in parts if part)


def _plot(result: MetricResult) -> dict[str, float] | None:
    """Positions from -1 to 1 of an interval, in which a third is the margin; ends are cut."""
    ends = {"low": result.low, "high": result.high, "point": result.change}
    if None in ends.values() or not result.margin:
        return None
    margins = {name: end / result.margin for name, end in ends.items()}
    places = {name: round(max(-1.0, min(1.0, end / 3)), 4) for name, end in margins.items()}
    return places | {"is_cut": abs(result.change) > 3 * result.margin}


def _player(worst: Worst) -> dict[str, Any]:
    """What the script of the page plays."""
    info = worst.new.info
    new, base = (strip and strip.for_page for strip in map(strip_of, (worst.new, worst.base)))
    return {
        "frames": info.num_frames if info else 0,
        "fps": info.fps if info and info.fps and math.isfinite(info.fps) else 8,
        "new": new,
        "base": base,
        "worst": worst.frames,
        "spans": worst.spans_t,
        "new_trace": worst.new_t,
        "base_trace": worst.base_t,
    }


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


# Several metrics may blame one clip, whose video is read once.
@lru_cache(maxsize=2 * MAX_CASES)
def strip_of(clip: MeasuredClip) -> Strip | None:
    """The pictures of a clip: from its strip, else from its video; None without either."""
    info = clip.info
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
    return make_strip(frames[:, ::enlarge, ::enlarge])


def make_strip(frames_THWC: np.ndarray) -> Strip:
    """The strip of uint8 frames: exact for small frames, reduced and slightly lossy for large."""
    from PIL import Image

    num, height, width = frames_THWC.shape[:3]
    factor = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    columns, rows = _grid(num)
    sheet = Image.new("RGB", (columns * size[0], rows * size[1]))
    for t, frame in enumerate(frames_THWC):
        picture = Image.fromarray(np.ascontiguousarray(frame)).convert("RGB")
        if factor < 1:
            picture = picture.resize(size, Image.Resampling.BOX)
        sheet.paste(picture, (t % columns * size[0], t // columns * size[1]))
    file = io.BytesIO()
    options = {"lossless": True} if factor == 1 else {"quality": 90}
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
    except OSError:
        return None
    if width % columns or height % rows:
        return None
    return Strip(data, num_frames, width // columns, height // rows, columns)


def _grid(num_frames: int) -> tuple[int, int]:
    columns = math.ceil(math.sqrt(num_frames))
    return columns, math.ceil(num_frames / columns)
