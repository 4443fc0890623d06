"""YUV of 10 and 12 bit: the values of its matrix and range, against float64."""

from pathlib import Path

import av
import numpy as np
import pytest

from vidcfg.media.probe import probe
from vidcfg.media.read import first_frames, read_video

LUMA_WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}


def flat_colours(bits, matrix, *, is_full):
    """Codes (y, u, v), the first white, the second black, and their RGB by float64."""
    unit, top, red, blue = 1 << (bits - 8), (1 << bits) - 1, *LUMA_WEIGHTS[matrix]
    white, black = (top, 0) if is_full else (235 * unit, 16 * unit)
    middle, chroma_span = 128 * unit, top if is_full else 224 * unit
    codes = [(white, middle, middle), (black, middle, middle), (500 * unit // 4, middle, middle)]
    codes += [(120 * unit, 100 * unit, 160 * unit), (90 * unit, 150 * unit, 125 * unit)]
    y, u, v = np.array(codes, dtype=float).T
    luma = (y - black) / (white - black)
    r = luma + 2 * (1 - red) * (v - middle) / chroma_span
    b = luma + 2 * (1 - blue) * (u - middle) / chroma_span
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return codes, np.stack([r, g, b], axis=1)


def assert_colours(frames, expected):
    assert len(frames) == len(expected)
    # The converter works in 16 bits: 5 of its steps are a twelfth of a 10-bit level.
    assert np.abs(frames - expected[:, :, None, None]).max() < 5 / 65535
    assert (frames[0] == 1).all()
    assert (frames[1] == 0).all()


CODECS = {
    # Encoder, pixel format, options without loss, height and width.
    "ffv1 444 10": ("ffv1", "yuv444p10le", {}, (11, 37)),
    "ffv1 420 10": ("ffv1", "yuv420p10le", {}, (11, 37)),
    "ffv1 444 12": ("ffv1", "yuv444p12le", {}, (11, 37)),
    "h264 422 10": ("libx264", "yuv422p10le", {"qp": "0"}, (34, 66)),
    "hevc 420 10": (
        "libx265",
        "yuv420p10le",
        {"x265-params": "lossless=1:log-level=none"},
        (34, 66),
    ),
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("matrix", LUMA_WEIGHTS)
@pytest.mark.parametrize("is_full", [False, True])
def test_deep_yuv_has_the_values_of_its_matrix_and_range(tmp_path, codec, matrix, is_full):
    encoder, pixel_format, options, (height, width) = CODECS[codec]
    codes, expected = flat_colours(int(pixel_format[-4:-2]), matrix, is_full=is_full)
    path = tmp_path / "deep.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=8, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        context = stream.codec_context
        context.colorspace, context.color_range = matrix, 2 if is_full else 1
        for levels in codes:
            frame = av.VideoFrame(width, height, pixel_format)
            frame.colorspace, frame.color_range = matrix, 2 if is_full else 1
            for plane, level in zip(frame.planes, levels):
                np.frombuffer(plane, np.uint16)[:] = level
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert_colours(read_video(path).frames, expected)
    assert (first_frames(probe(path), 2) == read_video(path).frames[:2]).all()


def test_vp9_of_ten_bits_has_the_values_of_bt709():
    # The encoder of the PyAV wheels knows 8 bits only: this file is the ffmpeg program's.
    codes, expected = flat_colours(10, 1, is_full=False)
    info = probe(Path(__file__).with_name("vp9_10bit.webm"))
    assert (info.codec, info.bit_depth, info.num_frames) == ("vp9", 10, len(codes))
    assert_colours(read_video(info.path).frames, expected)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_gray_is_of_full_range(tmp_path, bits):
    top = (1 << bits) - 1
    path = tmp_path / "gray.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 37, 11, f"gray{bits}le"
        for level in (top, top // 3, 0):
            frame = av.VideoFrame(37, 11, f"gray{bits}le")
            np.frombuffer(frame.planes[0], np.uint16)[:] = level
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    frames = read_video(path).frames
    assert np.abs(frames - np.array([1, 1 / 3, 0]).reshape(3, 1, 1, 1)).max() < 5 / 65535
