"""Clips as one small picture each: all frames side by side, for pages and baselines."""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIDE = 192
"""Frames with a longer side above this are reduced to it."""


@dataclass(frozen=True)
class Strip:
    """A WebP picture of `num_frames` frames of `width` x `height`, `columns` in a row."""

    data: bytes
    num_frames: int
    width: int
    height: int
    columns: int

    @property
    def url(self) -> str:
        return "data:image/webp;base64," + base64.b64encode(self.data).decode("ascii")


def make_strip(frames_THWC: np.ndarray) -> Strip:
    """The strip of uint8 frames: exact for small frames, reduced and slightly lossy for large."""
    from PIL import Image

    num, height, width = frames_THWC.shape[:3]
    factor = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    columns = math.ceil(math.sqrt(num))
    rows = math.ceil(num / columns)
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


def strip_of_video(path: Path, *, enlarge: int = 1) -> Strip:
    """The strip of a video file; `enlarge` undoes a repetition of pixels.

    Raises:
        MediaError: the file cannot be read.
    """
    from vidcfg.media.read import read_video

    frames = read_video(path).as_uint8().transpose(0, 2, 3, 1)
    return make_strip(frames[:, ::enlarge, ::enlarge])


def read_strip(path: Path, num_frames: int) -> Strip | None:
    """The strip of a file that `make_strip` wrote, None if it is damaged."""
    from PIL import Image

    columns = math.ceil(math.sqrt(num_frames))
    rows = math.ceil(num_frames / columns)
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
    except OSError:
        return None
    if width % columns or height % rows:
        return None
    return Strip(data, num_frames, width // columns, height // rows, columns)
