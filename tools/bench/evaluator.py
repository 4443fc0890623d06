"""All metrics without weights on a file of 1080p, against decoding it, and against the search for
flow alone, which nobody who wants flow can do without.

A panning texture with a thing that moves across and the noise of 8 bits, as H.264. Frames a second
are the number of frames over the time.
"""

import resource
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import cv2
import numpy as np
from harness import Row

from vidcfg.evaluate.inputs import Item
from vidcfg.evaluate.score import score_video
from vidcfg.evaluate.settings import Settings
from vidcfg.metrics.flow import View, dis_flow

NUM_FRAMES, HEIGHT, WIDTH = 24, 1080, 1920


def rows() -> Iterator[Row]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write(path)
        yield from rows_of(path)


def rows_of(path: Path) -> Iterator[Row]:
    item, settings = Item(path, path.name), Settings()

    def decode() -> Iterator[np.ndarray]:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "NONE"
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")

    def peer() -> None:
        for _ in decode():
            pass

    def check() -> str:
        records = score_video(item, settings).records
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        found = {record.name: record.value for record in records}
        assert None not in found.values(), found
        error = max(abs(found[name] / value - 1) for name, value in plain(decode()).items())
        assert error <= 1e-6, error
        return f"plain metrics relative {error:.0e}; peak {peak:.2f} GB resident"

    name = f"{NUM_FRAMES} frames"
    yield Row(name, peer, lambda: score_video(item, settings), check, rounds=2)

    looks = [View(np.ascontiguousarray(frame.transpose(2, 0, 1))).search for frame in decode()]

    def search() -> None:
        for first, second in pairwise(looks):
            dis_flow(first, second)
            dis_flow(second, first)
        for first, last in zip(looks[:-2:2], looks[2::2]):
            dis_flow(first, last)

    note = "OpenCV's own, at the size at which flow is searched"
    yield Row(f"{name}, of it the search", None, search, lambda: "–", note, rounds=2)


def plain(frames: Iterable[np.ndarray]) -> dict[str, float]:
    """Some of the metrics, by their formulas in float64."""
    steps, colours, spreads, before = [], [], [], None
    for levels in frames:
        frame = levels / 255
        high, low = frame.max(axis=-1), frame.min(axis=-1)
        colours.append(np.mean((high - low) / np.maximum(high, 1 / 255)))
        spreads.append(np.std(frame @ [0.2126, 0.7152, 0.0722]))
        if before is not None:
            steps.append(np.abs(frame - before).mean())
        before = frame
    names = ("frame_diff", "saturation", "contrast")
    return {name: float(np.mean(of)) for name, of in zip(names, (steps, colours, spreads))}


def write(path: Path) -> None:
    rng = np.random.default_rng(0)
    texture = np.zeros((HEIGHT + 100, WIDTH + 200, 3), dtype=np.float32)
    for size in (4, 16, 64):
        cells = rng.random((HEIGHT // size, WIDTH // size, 3), dtype=np.float32)
        texture += cv2.resize(cells, (WIDTH + 200, HEIGHT + 100), interpolation=cv2.INTER_CUBIC)
    texture *= 255 / texture.max()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for t in range(NUM_FRAMES):
            move = np.float32([[1, 0, -3.3 * t - 20], [0, 1, -1.6 * t - 20]])
            picture = cv2.warpAffine(texture, move, (WIDTH, HEIGHT))
            picture[400 + 5 * t : 600 + 5 * t, 500 + 9 * t : 800 + 9 * t] = (230, 50, 25)
            picture += rng.normal(0, 1, picture.shape)
            levels = np.clip(picture, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(levels, format="rgb24")))
        container.mux(stream.encode())
