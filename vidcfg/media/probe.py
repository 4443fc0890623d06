"""What is known about a video before it is decoded."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.media.video import MediaError

VIDEO_SUFFIXES = frozenset(
    [".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif", ".ogv"]
)
FRAME_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"])
LOSSLESS_FRAMES = frozenset([".png", ".bmp", ".tif", ".tiff"])

FOLDER_FPS = 8.0
"""Frames per second of a folder of pictures unless another rate is given."""

LOSSLESS_CODECS = frozenset(
    ["ffv1", "ffvhuff", "huffyuv", "utvideo", "magicyuv", "rawvideo"]
    + ["png", "apng", "bmp", "tiff", "qoi", "qtrle", "zlib"]
)
"""FFmpeg decoder names of codecs that have no lossy mode."""

LOSSY_CODECS = frozenset(
    ["hevc", "vp8", "mpeg4", "mpeg1video", "mpeg2video", "mjpeg"]
    + ["prores", "wmv2", "wmv3", "theora", "gif", "dvvideo"]
)
"""Codecs that lose something unless their header says otherwise, which is not read."""


@dataclass(frozen=True)
class VideoInfo:
    """Facts of one video. `is_frames` marks a folder of pictures, one a frame.

    `fps` is the average rate; with `is_variable_rate` the frames are not evenly spaced in time.
    """

    path: Path
    num_frames: int
    fps: float
    height: int
    width: int
    codec: str
    bit_depth: int
    lossless: bool | None
    is_variable_rate: bool = False
    is_frames: bool = False


def is_frame_folder(path: Path) -> bool:
    """A folder with pictures and without videos is one video."""
    if not path.is_dir():
        return False
    suffixes = {p.suffix.lower() for p in path.iterdir() if not p.name.startswith(".")}
    return bool(suffixes & FRAME_SUFFIXES) and not suffixes & VIDEO_SUFFIXES


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder, numbers in names ordered by value (2 before 10)."""

    def by_number(path: Path) -> list[tuple[int, int | str]]:
        parts = re.split(r"(\d+)", path.name)
        return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]

    files = [p for p in folder.iterdir() if p.suffix.lower() in FRAME_SUFFIXES]
    return sorted((p for p in files if not p.name.startswith(".")), key=by_number)


def probe(path: str | Path, *, fps: float | None = None) -> VideoInfo:
    """Size, rate, number of frames, codec: packets are counted, nothing is decoded.

    `fps` replaces the file's own rate.

    Raises:
        MediaError: the file is missing, empty, no video, without frames, or ends too early.
    """
    path = Path(path)
    if not path.exists():
        raise MediaError(f"{path} does not exist.")
    if path.is_dir():
        return _probe_folder(path, fps=fps)
    if path.stat().st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes).")
    with open_container(path) as container:
        return _probe_container(path, container, fps=fps)


@contextmanager
def open_container(path: Path) -> Iterator[Any]:
    """An opened PyAV container; its errors become MediaErrors that name the file."""
    import av

    try:
        # A Python file keeps libav from reading a name such as "a:b" as a protocol.
        with open(path, "rb") as file, av.open(file) as container:
            yield container
    except av.FFmpegError as error:
        raise MediaError(
            f"{path} cannot be read as a video: {error.strerror}. "
            "It is damaged, cut short, or no video file."
        ) from error
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error}.") from error


def video_stream(path: Path, container):
    """The first video stream that is no cover picture."""
    streams = [s for s in container.streams.video if "attached_pic" not in str(s.disposition)]
    if not streams:
        raise MediaError(f"{path} has no video stream.")
    return streams[0]


def _probe_container(path: Path, container, *, fps: float | None) -> VideoInfo:
    # Packets: their number and times.
    stream = video_stream(path, container)
    packets = [(p.pts, p.is_discard, p.is_corrupt) for p in container.demux(stream) if p.size]
    times = [pts for pts, is_discard, _ in packets if pts is not None and not is_discard]
    if not packets:
        raise MediaError(f"{path} holds no frames.")
    if any(is_corrupt for *_, is_corrupt in packets) or len(packets) < stream.frames:
        expected = f" of {stream.frames}" if stream.frames else ""
        raise MediaError(f"{path} is cut short: it ends after {len(packets)}{expected} frames.")
    # Rate, size and format.
    average, is_variable = _rate(sorted(times), stream)
    rate = fps or average
    if not rate:
        raise MediaError(f"{path} has no frame rate. Give one with --fps.")
    context = stream.codec_context
    if not (context.width and context.height and context.pix_fmt):
        raise MediaError(f"{path} cannot be decoded: its header names no frame size or format.")
    _check_end(path, container, stream, times, rate)
    codec = context.codec.canonical_name
    return VideoInfo(
        path=path,
        num_frames=len(packets),
        fps=float(rate),
        height=context.height,
        width=context.width,
        codec=codec,
        bit_depth=max(c.bits for c in context.format.components),
        lossless=_is_lossless(codec, context.pix_fmt, context.extradata or b""),
        is_variable_rate=is_variable,
    )


def _rate(times: list[int], stream) -> tuple[float | None, bool]:
    """Average frames per second, and whether frames are unevenly spaced."""
    declared = stream.average_rate or stream.guessed_rate
    gaps = [b - a for a, b in zip(times, times[1:])]
    if not gaps or times[-1] == times[0] or not stream.time_base:
        return (float(declared) if declared else None), False
    typical = sorted(gaps)[len(gaps) // 2]
    # Containers with millisecond stamps alternate between 41 and 42: one tick of play each way.
    is_variable = max(gaps) - min(gaps) > max(2, 0.1 * typical)
    if is_variable or not declared:
        return len(gaps) / float((times[-1] - times[0]) * stream.time_base), is_variable
    return float(declared), False


def _check_end(path: Path, container, stream, times: list[int], rate: float) -> None:
    """Containers that count no frames (Matroska) declare a duration; it has to be reached."""
    is_alone = len(container.streams) == 1
    if stream.frames or not (is_alone and container.duration and times and stream.time_base):
        return
    reached = float((max(times) - min(times)) * stream.time_base)
    declared = container.duration / 1e6
    if reached + 3 / rate + 0.05 * declared < declared:
        raise MediaError(f"{path} is cut short: it ends at {reached:.2f} s of {declared:.2f} s.")


def _probe_folder(folder: Path, *, fps: float | None) -> VideoInfo:
    files = frame_files(folder)
    if not files:
        raise MediaError(f"{folder} holds no pictures ({', '.join(sorted(FRAME_SUFFIXES))}).")
    first = read_picture(files[0])
    suffixes = {p.suffix.lower() for p in files}
    return VideoInfo(
        path=folder,
        num_frames=len(files),
        fps=float(fps or FOLDER_FPS),
        height=first.shape[0],
        width=first.shape[1],
        codec="+".join(sorted(s[1:] for s in suffixes)),
        bit_depth=16 if first.dtype.itemsize == 2 else 8,
        lossless=suffixes <= LOSSLESS_FRAMES,
        is_frames=True,
    )


def read_picture(path: Path) -> np.ndarray:
    """A picture as [H, W, 3], RGB, uint8 or uint16; alpha is left out."""
    import cv2

    try:
        picture = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, OSError):
        picture = None
    if picture is None or picture.dtype not in (np.uint8, np.uint16):
        raise MediaError(f"{path} cannot be read as a picture.")
    picture = np.atleast_3d(picture)
    if picture.shape[2] < 3:
        return np.repeat(picture[..., :1], 3, axis=2)
    return picture[..., 2::-1]


def _is_lossless(codec: str, pixel_format: str, extradata: bytes) -> bool | None:
    """True if decoded pixels are the stored ones, False if not, None if it cannot be told.

    Chroma at half resolution counts as lossy. H.264 counts as lossless where its sequence header
    lets blocks pass untransformed, which encoders set for quantiser 0 only.
    """
    if any(part in pixel_format for part in ("420", "422", "411", "410", "440", "nv12", "pal8")):
        return False
    if codec == "h264":
        return _h264_bypasses_transform(extradata)
    return True if codec in LOSSLESS_CODECS else False if codec in LOSSY_CODECS else None


def _h264_bypasses_transform(extradata: bytes) -> bool | None:
    """qpprime_y_zero_transform_bypass_flag of the first sequence header; None without a header.

    Layout: ITU-T H.264, 7.3.2.1.1; avcC box: ISO/IEC 14496-15.
    """
    # The first NAL unit of type 7, from an avcC box or from start codes.
    if extradata[:1] == b"\x01" and len(extradata) > 8 and extradata[5] & 0x1F:
        header = extradata[8 : 8 + int.from_bytes(extradata[6:8], "big")]
    else:
        units = extradata.split(b"\x00\x00\x01")[1:]
        header = next((unit for unit in units if unit and unit[0] & 0x1F == 7), b"")
    header = header.replace(b"\x00\x00\x03", b"\x00\x00")
    if len(header) < 5:
        return None
    if header[1] not in (100, 110, 122, 244, 44):
        return False
    # Its bits from the most significant end; zeros follow the last byte.
    bits = chain("".join(f"{byte:08b}" for byte in header[4:]), repeat("0"))

    def exp_golomb() -> int:
        zeros = 0
        while zeros < 32 and next(bits) == "0":
            zeros += 1
        return (1 << zeros) - 1 + int("".join(islice(bits, zeros)) or "0", 2)

    exp_golomb()  # seq_parameter_set_id
    if exp_golomb() == 3:  # chroma_format_idc 4:4:4
        next(bits)  # separate_colour_plane_flag
    exp_golomb()  # bit_depth_luma_minus8
    exp_golomb()  # bit_depth_chroma_minus8
    return next(bits) == "1"
