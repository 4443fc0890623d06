"""What is known about a video before all of it is decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidcfg.media.pictures import (
    LOSSLESS_FRAMES,
    ORIENTATIONS,
    Orientation,
    animation_facts,
    animation_frames,
    exif_orientation,
    frame_files,
    is_animated,
    is_still,
    read_picture,
)
from vidcfg.media.video import MediaError

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

UPRIGHT = (False, False, False)

_ONE_FRAME_A_PACKET = frozenset(
    ["h264", "hevc", "vp9", "av1", *LOSSLESS_CODECS, "prores", "mjpeg"]
)
_INDEXED = frozenset(["mov", "matroska"])
"""Codecs and containers whose progressive frames are counted by their packets."""

_BY_DECORD = frozenset(["yuv420p", "yuv444p", "yuvj420p", "yuvj444p"])


@dataclass(frozen=True)
class VideoInfo:
    """Facts of one video, as it is shown.

    `num_frames` are those that a player shows, `height` and `width` theirs: `orientation` is what
    display does to stored frames. `is_frames` marks pictures, one a frame, `is_animation` an
    animated WebP or PNG file. `fps` is the average rate; with `is_variable_rate` the frames are
    not evenly spaced in time. `is_plain` marks files that decord reads as PyAV does. `notes` are
    sentences about what is odd, or was done to show it.
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
    is_animation: bool = False
    is_plain: bool = False
    orientation: Orientation = UPRIGHT
    notes: tuple[str, ...] = ()


def probe(path: str | Path, *, fps: float | None = None) -> VideoInfo:
    """Size, rate, number of frames, codec, from packets and the first frame.

    Where packets may be other than frames (fields, frames that are not shown, streams without an
    index) all are decoded. `fps` replaces the file's own rate.

    Raises:
        MediaError: the file is missing, empty, no video, without frames, or ends too early.
    """
    path = Path(path)
    if not path.exists():
        raise MediaError(f"{path} does not exist.")
    if path.is_file() and path.stat().st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes).")
    if path.is_dir() or is_still(path):
        return _probe_stills(path, fps=fps)
    if is_animated(path):
        return _probe_animation(path, fps=fps)
    return _probe_container(path, fps=fps)


@contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """An opened PyAV container, and its first video stream that is no cover picture.

    PyAV's errors become MediaErrors that name the file.
    """
    # torchvision turns libav's log on. Its callback takes the interpreter's lock in a decoder's
    # threads, and whoever lets go of an unfinished decoder waits for them with the lock in hand.
    av.logging.set_level(None)
    try:
        # A Python file keeps libav from reading a name such as "a:b" as a protocol.
        with open(path, "rb") as file, av.open(file, metadata_errors="replace") as container:
            videos = container.streams.video
            streams = [s for s in videos if "attached_pic" not in str(s.disposition)]
            if not len(container.streams):
                raise MediaError(
                    f"{path} holds nothing that can be read: it is damaged or cut short."
                )
            if not streams:
                raise MediaError(f"{path} has no video stream.")
            yield container, streams[0]
    except av.FFmpegError as error:
        raise MediaError(
            f"{path} cannot be read as a video: {error.strerror}. "
            "It is damaged, cut short, or no video file."
        ) from error
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error}.") from error


def _probe_container(path: Path, *, fps: float | None) -> VideoInfo:
    # Packets: their number and times; the first frame.
    with open_video(path) as (container, stream):
        packets, first, orientation, notes = _read_packets(path, container, stream)
        stored = [pts for pts, *_ in packets if pts is not None]
        times = sorted(pts for pts, is_discard, _ in packets if pts is not None and not is_discard)
        context, counted = stream.codec_context, stream.frames
        codec = context.codec.canonical_name
        num_frames = sum(not is_discard for _, is_discard, _ in packets)
        # Fields, hidden frames, and frames that need one before the first (they come without a
        # time, or with one before it), are no frames.
        is_exact = (
            codec in _ONE_FRAME_A_PACKET
            and container.format.name.split(",")[0] in _INDEXED
            and num_frames == len(packets)
            and not (first.interlaced_frame or context.field_order > 1)
            and len(stored) in (0, len(packets))
            and (not times or packets[0][0] == times[0])
        )
        if not is_exact:
            num_frames, times = _count_frames(path)
        average, is_variable = _rate(times, stream)
        rate = fps or average
        if not rate:
            raise MediaError(f"{path} has no frame rate. Give one with --fps.")
        notes += _check_end(path, container, stream, stored, rate)
        pixel_format = first.format
        lossless = _is_lossless(codec, pixel_format.name, context.extradata or b"")
    # What is said about it.
    if counted and counted != num_frames:
        notes.append(f"its header counts {counted} frames, {num_frames} are shown")
    if first.interlaced_frame:
        notes.append("interlaced: both fields are one frame")
    size = (first.height, first.width)
    is_decord = codec in ("h264", "hevc", "vp9") and pixel_format.name in _BY_DECORD
    # decord fails on frames narrower than this, and may take the process with it.
    is_decord &= first.width >= 64
    return VideoInfo(
        path=path,
        num_frames=num_frames,
        fps=float(rate),
        height=size[orientation[0]],
        width=size[not orientation[0]],
        codec=codec,
        bit_depth=max(c.bits for c in pixel_format.components),
        lossless=lossless,
        is_variable_rate=is_variable,
        is_plain=is_exact and is_decord and orientation == UPRIGHT,
        orientation=orientation,
        notes=tuple(notes),
    )


def _read_packets(path: Path, container, stream) -> tuple[list, Any, Orientation, list[str]]:
    """(time, is hidden, is damaged) of every packet; the first frame and how it is shown."""
    packets, end, first, orientation, notes = [], 0, None, UPRIGHT, []
    for packet in container.demux(stream):
        if packet.size:
            packets.append((packet.pts, packet.is_discard, packet.is_corrupt))
            end = (packet.pos or 0) + packet.size
        if first is None and (frames := packet.decode()):
            first = frames[0]
            orientation, notes = _orientation(first, bytes(packet))
    if not packets:
        raise MediaError(f"{path} holds no frames.")
    if (
        any(is_corrupt for *_, is_corrupt in packets)
        or len(packets) < len(stream.index_entries or ())
        or _promised_bytes(path) > path.stat().st_size
        # YUV4MPEG2 is frames to its end: what is left is half of one.
        or (container.format.name == "yuv4mpegpipe" and end < path.stat().st_size)
    ):
        expected = f" of {stream.frames}" if stream.frames > len(packets) else ""
        raise MediaError(f"{path} is cut short: it ends after {len(packets)}{expected} frames.")
    if first is None:
        raise MediaError(f"{path} cannot be decoded: none of its frames is whole.")
    return packets, first, orientation, notes


def _orientation(frame, packet: bytes) -> tuple[Orientation, list[str]]:
    """From the display matrix of a frame, or from the EXIF data of a Motion JPEG packet."""
    try:
        matrix = frame.side_data["DISPLAYMATRIX"]
    except KeyError:
        return UPRIGHT, []
    except ValueError:
        # PyAV does not list side data where a type is new to it, as EXIF is.
        orientation = exif_orientation(BytesIO(packet))
    else:
        # (x, y) -> (a x + c y, b x + d y)
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
        if not (a == d == 0 != b * c or b == c == 0 != a * d):
            return UPRIGHT, [f"its display matrix, of {frame.rotation} degrees, is not applied"]
        orientation = (a == 0, a + c < 0, b + d < 0)
    is_upright = orientation == UPRIGHT
    return orientation, [] if is_upright else [f"shown {ORIENTATIONS[orientation]}, as it says"]


def _count_frames(path: Path) -> tuple[int, list[int]]:
    """All frames that come out, and their times."""
    with open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        times = [frame.pts for frame in container.decode(stream)]
    return len(times), sorted(pts for pts in times if pts is not None)


def _promised_bytes(path: Path) -> int:
    """How long a RIFF, Matroska or GIF file is, or has to be at least; 0 where nothing tells.

    Layout: EBML, RFC 8794; Segment, RFC 9559.
    """
    with open(path, "rb") as file:
        head = file.read(4096)
        file.seek(max(0, path.stat().st_size - 64))
        tail = file.read()
    if head[:4] == b"RIFF":
        # A program that writes to a pipe leaves all ones.
        return 8 + int.from_bytes(head[4:8].replace(b"\xff" * 4, b""), "little")
    if head[:3] == b"GIF":
        return path.stat().st_size + (not tail.rstrip(b"\0\r\n").endswith(b";"))
    at = head.find(b"\x18\x53\x80\x67") + 4
    if head[:4] != b"\x1a\x45\xdf\xa3" or at < 4 or not head[at : at + 1].strip(b"\0"):
        return 0
    # The number of leading zero bits tells the number of bytes; all ones: not known.
    length = 9 - head[at].bit_length()
    size = int.from_bytes(head[at : at + length], "big") & ((1 << 7 * length) - 1)
    return 0 if size == (1 << 7 * length) - 1 else at + length + size


def _rate(times: list[int], stream) -> tuple[float | None, bool]:
    """Average frames per second, and whether frames are unevenly spaced."""
    declared = stream.average_rate or stream.guessed_rate
    gaps = [b - a for a, b in zip(times, times[1:])]
    if not gaps or times[-1] == times[0] or not stream.time_base:
        return (float(declared) if declared else None), False
    # As browsers do; ticks of a GIF are 10 ms.
    if stream.codec_context.name == "gif":
        gaps = [gap if gap > 1 else 10 for gap in gaps]
    is_variable = _are_uneven(gaps)
    measured = len(gaps) / float(sum(gaps) * stream.time_base)
    # Stamps are rounded; a declared rate is exact, but may count fields or be made up.
    if is_variable or not declared or abs(measured / declared - 1) > 0.02:
        return measured, is_variable
    return float(declared), False


def _are_uneven(gaps: list[int]) -> bool:
    """Not where stamps in milliseconds alternate between 41 and 42: one tick of play each way, of
    coarse ticks (a GIF's of 10 ms) one in all."""
    median = sorted(gaps)[len(gaps) // 2]
    return max(gaps) - min(gaps) > max(2 if median >= 10 else 1, 0.1 * median)


def _check_end(path: Path, container, stream, times: list[int], rate: float) -> list[str]:
    """Containers that count no frames declare a duration; it has to be reached.

    A note where the file is whole and only its header promises more.
    """
    is_alone = len(container.streams) == 1
    if stream.frames or not (is_alone and container.duration and times and stream.time_base):
        return []
    reached = float((max(times) - min(times)) * stream.time_base)
    declared = container.duration / 1e6
    if reached + 3 / rate + 0.05 * declared >= declared:
        return []
    if _promised_bytes(path):
        return [f"its header promises {declared:.2f} s, its frames end at {reached:.2f} s"]
    raise MediaError(f"{path} is cut short: it ends at {reached:.2f} s of {declared:.2f} s.")


def _probe_stills(path: Path, *, fps: float | None) -> VideoInfo:
    files, notes = frame_files(path)
    first = read_picture(files[0])
    suffixes = {p.suffix.lower() for p in files}
    if (orientation := exif_orientation(files[0])) != UPRIGHT:
        notes.append(f"shown {ORIENTATIONS[orientation]}, as EXIF says")
    return VideoInfo(
        path=path,
        num_frames=len(files),
        fps=float(fps or FOLDER_FPS),
        height=first.shape[0],
        width=first.shape[1],
        codec="+".join(sorted(s[1:] for s in suffixes)),
        bit_depth=16 if first.dtype.itemsize == 2 else 8,
        lossless=suffixes <= LOSSLESS_FRAMES,
        is_frames=True,
        notes=tuple(notes),
    )


def _probe_animation(path: Path, *, fps: float | None) -> VideoInfo:
    times, lossless = animation_facts(path)
    if _promised_bytes(path) > path.stat().st_size:
        raise MediaError(f"{path} is cut short: it ends after {len(times)} frames.")
    _, height, width = next(animation_frames(path)).shape
    # The last frame's own time ends at nothing.
    gaps = times[:-1] or times
    return VideoInfo(
        path=path,
        num_frames=len(times),
        fps=float(fps or 1000 * len(gaps) / sum(gaps)),
        height=height,
        width=width,
        codec=path.suffix[1:].lower(),
        bit_depth=8,
        lossless=lossless,
        is_variable_rate=_are_uneven(gaps),
        is_animation=True,
    )


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
