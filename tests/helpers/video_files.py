"""Video files for tests: as a render writes them, or as other people's programs do."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidcfg.files import atomic_path
from vidcfg.media.write import encode_video


def write_video(
    path: str | Path,
    frames_THWC: np.ndarray,
    *,
    fps: float | int,
    overwrite: bool = False,
    **options: str | int,
) -> Path:
    """Encode frames; `options` are the codec and the enlargement of `encode_video`."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(encode_video(frames_THWC, fps=fps, **options))
    return Path(path)


def noise(num_frames=7, height=22, width=36, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), np.uint8)


def smooth(num_frames=9, height=32, width=64):
    t, y, x = np.mgrid[0:num_frames, 0:height, 0:width]
    channels = [np.sin(x / 9 + t / 5 + c) + np.cos(y / 7 - c) for c in range(3)]
    return (127.5 + 60 * np.stack(channels, axis=-1)).round().astype(np.uint8)


def encode(
    path,
    frames,
    *,
    codec="ffv1",
    pixel_format="bgr0",
    rate=8,
    stamps=None,
    options=None,
    matrix=None,
):
    """Writes frames [T, H, W, 3]; `stamps` are times in 1/100 s, `matrix` how they are shown."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts = index if stamps is None else stamps[index]
            frame.time_base = Fraction(1, rate) if stamps is None else Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
