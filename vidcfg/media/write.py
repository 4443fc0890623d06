"""Videos to files: three codecs, and files that appear whole or not at all."""

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidcfg.media.video import MediaError, check_range, to_uint8


@dataclass(frozen=True)
class Codec:
    """How one codec name is stored: file ending, container, encoder, pixel format, options."""

    extension: str
    lossless: bool
    container: str
    encoder: str
    pixel_format: str
    needs_even_size: bool = False
    options: dict[str, str] = field(default_factory=dict)


# x264's macroblock tree is not repeatable at some widths, so it is switched off.
_H264 = {"crf": "16", "preset": "medium", "x264-params": "mbtree=0"}

CODECS: dict[str, Codec] = {
    "h264": Codec(".mp4", False, "mp4", "libx264", "yuv420p", True, _H264),
    "h264_lossless": Codec(".mp4", True, "mp4", "libx264rgb", "rgb24", False, {"crf": "0"}),
    "ffv1": Codec(".mkv", True, "matroska", "ffv1", "bgr0", False, {"level": "3"}),
}


def write_video(
    path: str | Path,
    frames_THWC: np.ndarray,
    *,
    fps: float | int,
    codec: str = "h264",
    enlarge: int = 1,
    overwrite: bool = False,
) -> Path:
    """Encode frames and let the file appear under its name once it is complete.

    `frames_THWC` is uint8 in 0..255 or float in [0, 1], RGB. `enlarge` repeats every pixel that
    many times in both directions (nearest neighbour; 1 = off). `h264` (crf 16, 4:2:0) is lossy
    and needs even sizes; `h264_lossless` (RGB) and `ffv1` give back the uint8 frames bit for bit.
    The same frames give the same bytes with the same version of PyAV.

    Raises:
        ValueError: unknown codec, wrong shape, dtype or range, odd size for h264.
        MediaError: the file exists and `overwrite` is false, the folder cannot be written,
            the disk is full, the encoder fails. No partial file stays behind, and a file that
            was there stays as it is.
    """
    path = Path(path)
    with atomic_path(path, overwrite=overwrite) as temporary:
        encoded = encode_video(frames_THWC, fps=fps, codec=codec, enlarge=enlarge)
        temporary.write_bytes(encoded)
    return path


def encode_video(
    frames_THWC: np.ndarray, *, fps: float | int, codec: str = "h264", enlarge: int = 1
) -> bytes:
    """The content of a video file; arguments as for `write_video`.

    Raises:
        ValueError: unknown codec, wrong shape, dtype or range, odd size for h264.
        MediaError: the encoder fails.
    """
    import av

    check_size(*_checked_shape(frames_THWC), codec=codec, enlarge=enlarge)
    if frames_THWC.dtype != np.uint8:
        frames_THWC = np.asarray(frames_THWC, dtype=np.float32)
    check_range(frames_THWC, what="frames")
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}, it has to be above 0.")
    try:
        return _encode(to_uint8(frames_THWC), fps=fps, codec=CODECS[codec], enlarge=enlarge)
    except av.FFmpegError as error:
        raise MediaError(f"{codec} cannot encode these frames: {error}") from error


def check_size(height: int, width: int, *, codec: str, enlarge: int = 1) -> None:
    """Raise ValueError unless `codec` exists and can store frames of this size.

    Called before a run, it keeps a long job from failing at its first video.
    """
    if codec not in CODECS:
        raise ValueError(f"codec is {codec!r}, allowed are {', '.join(CODECS)}.")
    if enlarge < 1:
        raise ValueError(f"enlarge is {enlarge}, it has to be 1 (off) or more.")
    odd = height * enlarge % 2 or width * enlarge % 2
    if CODECS[codec].needs_even_size and odd:
        raise ValueError(
            f"{codec} needs an even height and width, not {height * enlarge} x {width * enlarge}. "
            "Use enlarge: 2, pad the frames by one row or column, or use h264_lossless or ffv1."
        )


@contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary name in the same folder and rename it to `path` if the block succeeds.

    After any exception, Ctrl-C included, the temporary file is removed and `path` is untouched.

    Raises:
        MediaError: `path` exists and `overwrite` is false (before the block runs, and again at
            the rename), or the operating system refuses to write. The message names the file.
    """
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"{path} is a folder, a file is to be written there.")
    if not overwrite and path.exists():
        raise _exists(path)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex[:12]}{path.suffix[:16]}")
    try:
        yield temporary
        _publish(temporary, path, overwrite=overwrite)
    except OSError as error:
        raise MediaError(_why(path, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        # A hard link fails if another process took the name meanwhile, a rename would not.
        os.link(temporary, path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:
        os.rename(temporary, path)


def _exists(path: Path) -> MediaError:
    return MediaError(f"{path} exists. Pass overwrite=True (--overwrite) or choose another name.")


def _why(path: Path, error: OSError) -> str:
    parent = path.parent
    if not parent.exists():
        return f"{path} cannot be written: the folder {parent} does not exist. Create it first."
    if not parent.is_dir():
        return f"{path} cannot be written: {parent} is a file, not a folder."
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{path} cannot be written: {reason}."


def _checked_shape(frames_THWC: np.ndarray) -> tuple[int, int]:
    shape = getattr(frames_THWC, "shape", ())
    if len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise ValueError(f"frames have to be an array [T, H, W, 3], not {tuple(shape)}.")
    return shape[1], shape[2]


def _encode(frames_THWC: np.ndarray, *, fps: float | int, codec: Codec, enlarge: int) -> bytes:
    """The finished file as bytes.

    libav reads a name such as "a:b" as protocol "a" and is vague about a full disk; the bytes
    are small beside the frames, and Python writes them with a plain error.
    """
    import av

    rate = Fraction(fps).limit_denominator(1001)
    file = io.BytesIO()
    # bitexact leaves random identifiers and dates out of the container.
    options = {"fflags": "+bitexact"}
    with av.open(file, "w", format=codec.container, options=options) as container:
        stream = container.add_stream(codec.encoder, rate=rate, options=dict(codec.options))
        stream.height, stream.width = (size * enlarge for size in frames_THWC.shape[1:3])
        stream.pix_fmt = codec.pixel_format
        # The number of threads changes the bytes that x264 writes.
        stream.codec_context.thread_count = 1
        if codec.pixel_format == "yuv420p":
            _tag_colours(stream.codec_context)
        for index, frame_HWC in enumerate(frames_THWC):
            container.mux(stream.encode(_video_frame(frame_HWC, index, rate, codec, enlarge)))
        container.mux(stream.encode(None))
    return file.getvalue()


def _tag_colours(codec_context) -> None:
    """Name the colour conversion in the file.

    The matrix is BT.601, which readers that ignore the tag (OpenCV, decord) assume as well.
    """
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    codec_context.colorspace = Colorspace.ITU601
    codec_context.color_range = ColorRange.MPEG
    codec_context.color_primaries = ColorPrimaries.BT709
    codec_context.color_trc = ColorTrc.BT709


def _video_frame(frame_HWC: np.ndarray, index: int, rate: Fraction, codec: Codec, enlarge: int):
    import av

    if enlarge > 1:
        frame_HWC = frame_HWC.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
    if codec.pixel_format != "rgb24":
        frame = frame.reformat(format=codec.pixel_format, dst_colorspace="ITU601")
    frame.pts, frame.time_base = index, 1 / rate
    return frame
