"""YUV of 10 and 12 bit: the values of its matrix and range, against float64."""

import av
import numpy as np
import pytest

from vidcfg.media.probe import probe
from vidcfg.media.read import read_frames, read_video

LUMA_WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}


@pytest.mark.parametrize("pixel_format", ["yuv444p10le", "yuv420p10le", "yuv444p12le"])
@pytest.mark.parametrize("matrix", LUMA_WEIGHTS)
@pytest.mark.parametrize("is_full", [False, True])
def test_deep_yuv_has_the_values_of_its_matrix_and_range(tmp_path, pixel_format, matrix, is_full):
    bits = int(pixel_format[-4:-2])
    unit, top, red, blue = 1 << (bits - 8), (1 << bits) - 1, *LUMA_WEIGHTS[matrix]
    white, black = (top, 0) if is_full else (235 * unit, 16 * unit)
    middle, chroma_span = 128 * unit, top if is_full else 224 * unit
    codes = [(white, middle, middle), (black, middle, middle), (500 * unit // 4, middle, middle)]
    codes += [(120 * unit, 100 * unit, 160 * unit), (90 * unit, 150 * unit, 125 * unit)]
    path = tmp_path / "deep.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 37, 11, pixel_format
        context = stream.codec_context
        context.colorspace, context.color_range = matrix, 2 if is_full else 1
        for levels in codes:
            frame = av.VideoFrame(37, 11, pixel_format)
            frame.colorspace, frame.color_range = matrix, 2 if is_full else 1
            for plane, level in zip(frame.planes, levels):
                np.frombuffer(plane, np.uint16)[:] = level
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video = read_video(path)
    for frame, (y, u, v) in zip(video.frames, codes, strict=True):
        luma = (y - black) / (white - black)
        r = luma + 2 * (1 - red) * (v - middle) / chroma_span
        b = luma + 2 * (1 - blue) * (u - middle) / chroma_span
        g = (luma - red * r - blue * b) / (1 - red - blue)
        # The converter works in 16 bits: 5 of its steps are a twelfth of a 10-bit level.
        assert np.abs(frame.transpose(1, 2, 0) - [r, g, b]).max() < 5 / 65535
    assert (video.frames[0] == 1).all()
    assert (video.frames[1] == 0).all()
    assert (read_frames(probe(path), [0, 2]) == video.frames[[0, 2]]).all()
