"""Videos as the content of files, by three codecs."""

import io
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from vidcfg.media.video import MediaError, rgb_levels


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


def encode_video(
    frames_THWC: np.ndarray, *, fps: float | int, codec: str = "h264", enlarge: int = 1
) -> bytes:
    """The content of a video file.

    `frames_THWC` is uint8 in 0..255 or float in [0, 1], RGB. `enlarge` repeats every pixel that
    many times in both directions (nearest neighbour; 1 = off). `h264` (crf 16, 4:2:0) is lossy
    and needs even sizes; `h264_lossless` (RGB) and `ffv1` give back the uint8 frames bit for bit.
    The same frames give the same bytes with the same version of PyAV.

    Raises:
        ValueError: unknown codec, wrong shape, dtype or range, odd size for h264.
        MediaError: the encoder fails.
    """
    import av

    frames_THWC = rgb_levels(frames_THWC)
    check_size(*frames_THWC.shape[1:3], codec=codec, enlarge=enlarge)
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}, it has to be above 0.")
    try:
        return _encode(frames_THWC, fps=fps, codec=CODECS[codec], enlarge=enlarge)
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
    height, width = height * enlarge, width * enlarge
    if CODECS[codec].needs_even_size and (height % 2 or width % 2):
        raise ValueError(
            f"{codec} needs an even height and width, not {height} x {width}. "
            "Use enlarge: 2, pad the frames by one row or column, or use h264_lossless or ffv1."
        )


def _encode(frames_THWC: np.ndarray, *, fps: float | int, codec: Codec, enlarge: int) -> bytes:
    """The finished file as bytes.

    libav reads a name such as "a:b" as protocol "a" and is vague about a full disk; the bytes
    are small beside the frames, and Python writes them with a plain error.
    """
    import av
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    rate = Fraction(fps).limit_denominator(1001)
    file = io.BytesIO()
    # bitexact leaves random identifiers and dates out of the container.
    options = {"fflags": "+bitexact"}
    with av.open(file, "w", format=codec.container, options=options) as container:
        # The stream: one thread, for the number of threads changes the bytes that x264 writes.
        stream = container.add_stream(codec.encoder, rate=rate, options=dict(codec.options))
        stream.height, stream.width = (size * enlarge for size in frames_THWC.shape[1:3])
        stream.pix_fmt = codec.pixel_format
        stream.codec_context.thread_count = 1
        if codec.pixel_format == "yuv420p":
            # The conversion is named in the file. Readers that ignore it (OpenCV, decord) assume
            # BT.601 as well.
            stream.codec_context.colorspace = Colorspace.ITU601
            stream.codec_context.color_range = ColorRange.MPEG
            stream.codec_context.color_primaries = ColorPrimaries.BT709
            stream.codec_context.color_trc = ColorTrc.BT709
        # The frames, enlarged and converted one by one.
        for index, frame_HWC in enumerate(frames_THWC):
            large_HWC = frame_HWC.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
            frame = av.VideoFrame.from_ndarray(large_HWC, format="rgb24")
            if codec.pixel_format != "rgb24":
                frame = frame.reformat(format=codec.pixel_format, dst_colorspace="ITU601")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
