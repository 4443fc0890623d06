"""Videos from files: whole, frame by frame, or the first frames alone.

8-bit sources give uint8 frames, deeper ones float32. Alpha is left out. Frames come as a player
shows them, turned upright; with a variable rate none is repeated or dropped.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.media.pictures import animation_frames, frame_files, read_picture, turned
from vidcfg.media.probe import VideoInfo, open_video, probe
from vidcfg.media.video import MediaError, Video


def read_video(path: str | Path, *, fps: float | None = None) -> Video:
    """The whole video in memory. `fps` replaces the file's own rate.

    Raises:
        MediaError: the file is missing, empty, damaged, cut short or no video.
    """
    info = probe(path, fps=fps)
    frames = np.stack(list(iter_frames(info)))
    return Video(frames, info.fps, info.lossless, info.codec, source=str(info.path))


def first_frames(info: VideoInfo, count: int) -> np.ndarray:
    """The first frames, [n, 3, H, W], as many as asked for or as there are.

    decord reads those of plain files: H.264, HEVC or VP9 of 8 bits, 4:2:0 or 4:4:4, progressive,
    upright, 64 pixels wide or more, in MP4 or Matroska, without hidden frames. There it gives the
    values that PyAV does, as long as it has not to seek. Elsewhere, and where decord is missing,
    PyAV decodes.

    Raises:
        MediaError: the file is damaged.
    """
    count = min(count, info.num_frames)
    frames = _decord_frames(info, count) if info.is_plain else None
    return np.stack(list(islice(iter_frames(info), count))) if frames is None else frames


def _decord_frames(info: VideoInfo, count: int) -> np.ndarray | None:
    """None where decord is absent, fails, or counts other frames than the packets."""
    # decord brings its own zlib, which breaks OpenCV's PNG reader unless OpenCV is loaded first.
    import cv2  # noqa: F401

    try:
        import decord
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.FATAL)
    try:
        reader = decord.VideoReader(str(info.path.resolve()), num_threads=1)
        if len(reader) != info.num_frames:
            return None
        frames = reader.get_batch(list(range(count))).asnumpy()
    except (decord.DECORDError, RuntimeError, OSError):
        return None
    if frames.shape[1:] != (info.height, info.width, 3):
        return None
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))


def iter_frames(info: VideoInfo) -> Iterator[np.ndarray]:
    """The frames [3, H, W] in order, by PyAV.

    Raises:
        MediaError: at a frame that is damaged or changes its size, and at the end if fewer frames
            came out than the file holds.
    """
    if info.is_frames:
        yield from (_picture(path, info) for path in frame_files(info.path)[0])
        return
    if info.is_animation:
        yield from map(np.ascontiguousarray, animation_frames(info.path))
        return
    count = 0
    # Packed 16-bit RGB of an odd width is wrong in rows that share their chroma; planes are right.
    pixel_format = "rgb24" if info.bit_depth <= 8 else "gbrp16le"
    with open_video(info.path) as (container, stream):
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise MediaError(f"{info.path} is damaged at frame {count}.")
            picture = frame.to_ndarray(format=pixel_format).transpose(2, 0, 1)
            shown = turned(picture, info.orientation)
            if shown.shape[1:] != (info.height, info.width):
                raise MediaError(
                    f"{info.path} changes its frame size at frame {count}: {info.height} x "
                    f"{info.width} to {shown.shape[1]} x {shown.shape[2]}. Cut it there."
                )
            count += 1
            yield _levels(shown, white=_white_of(frame, info.bit_depth))
    if count < info.num_frames:
        raise MediaError(
            f"{info.path} is damaged: {count} of its {info.num_frames} frames can be decoded."
        )


def _picture(path: Path, info: VideoInfo) -> np.ndarray:
    picture = read_picture(path)
    height, width, bits = *picture.shape[:2], picture.dtype.itemsize * 8
    if (height, width, bits) != (info.height, info.width, info.bit_depth):
        raise MediaError(
            f"{path} is {height} x {width} in {bits} bit, the first picture of its folder "
            f"{info.height} x {info.width} in {info.bit_depth} bit."
        )
    return _levels(picture.transpose(2, 0, 1))


def _white_of(frame: Any, bits: int) -> int:
    """What the 16-bit RGB of swscale holds where a frame deeper than 8 bits is white.

    RGB is stretched to all 16 bits. YUV is only shifted up: full range 2^b - 1 by 16 - b bits;
    limited range, chroma too, as 255 is by 8, with a rounding of the matrix that adds 3. Gray is
    of full range whatever its file says.
    """
    if frame.format.is_rgb:
        return 65535
    is_full = frame.color_range == 2 or frame.format.name.startswith(("gray", "ya"))
    return ((1 << bits) - 1) << (16 - bits) if is_full else 65283


def _levels(frame_CHW: np.ndarray, *, white: int = 65535) -> np.ndarray:
    """Frames in one piece: uint8 as they are, 16 bits as float32 with `white` at 1."""
    frame = np.ascontiguousarray(frame_CHW)
    if frame.dtype == np.uint8:
        return frame
    # Codes above white, which limited range has, are white.
    return np.minimum(frame.astype(np.float32) / np.float32(white), np.float32(1))
