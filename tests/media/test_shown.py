"""Frames are those that a player shows, whichever decoder fetches them."""

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from video_files import encode, noise, smooth

from vidcfg.media.probe import probe
from vidcfg.media.read import first_frames, read_video
from vidcfg.media.video import MediaError

H264 = {"codec": "libx264", "pixel_format": "yuv420p"}
ONE = 0x10000

PLAIN = {
    "h264.mp4": H264,
    "h264.mkv": {"codec": "libx264", "pixel_format": "yuv444p"},
    "open_groups.mp4": H264 | {"options": {"x264-params": "open-gop=1:keyint=12"}},
    "hevc.mov": {"codec": "libx265", "pixel_format": "yuv420p"},
    "vp9.webm": {"codec": "libvpx-vp9", "pixel_format": "yuv444p"},
}
OTHER = {
    "interlaced.mp4": H264 | {"options": {"x264-params": "tff=1"}},
    "turned.mp4": H264 | {"matrix": [-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30]},
    "b_frames.ts": {"codec": "mpeg2video", "pixel_format": "yuv420p", "options": {"bf": "2"}},
    "nv12.mkv": {"codec": "rawvideo", "pixel_format": "nv12"},
    "deep.mp4": {"codec": "libx264", "pixel_format": "yuv422p10le"},
}


@pytest.mark.parametrize("name", PLAIN | OTHER)
def test_first_frames_are_those_of_the_whole_video(tmp_path, monkeypatch, name):
    used = []
    from vidcfg.media import read

    by_decord = read._decord_frames
    monkeypatch.setattr(read, "_decord_frames", lambda *a: used.append(by_decord(*a)) or used[-1])
    info = probe(encode(tmp_path / name, smooth(25), **(PLAIN | OTHER)[name]))
    frames = read_video(info.path).frames
    for count in (4, 25):
        assert np.array_equal(first_frames(info, count), frames[:count])
    # decord is asked only where it is equal, and there it does answer.
    assert [frames is not None for frames in used] == [True, True] * (name in PLAIN)


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 9])
def test_both_decoders_follow_matrix_and_range(tmp_path, matrix, is_full):
    path = tmp_path / "c.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = matrix, 2 if is_full else 1
        for picture in smooth(5):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info = probe(path)
    assert info.is_plain
    assert np.array_equal(first_frames(info, 5), read_video(path).frames)


SHOWN = {
    # a, b, c, d of (x, y) -> (a x + c y, b x + d y), and the same by NumPy on [T, H, W, 3].
    "as stored": ((1, 0, 0, 1), lambda f: f),
    "mirrored": ((-1, 0, 0, 1), lambda f: np.flip(f, 2)),
    "180": ((-1, 0, 0, -1), lambda f: np.rot90(f, 2, (1, 2))),
    "upside down": ((1, 0, 0, -1), lambda f: np.flip(f, 1)),
    "transposed": ((0, 1, 1, 0), lambda f: np.swapaxes(f, 1, 2)),
    "90 clockwise": ((0, 1, -1, 0), lambda f: np.rot90(f, -1, (1, 2))),
    "transverse": ((0, -1, -1, 0), lambda f: np.rot90(np.swapaxes(f, 1, 2), 2, (1, 2))),
    "90 anticlockwise": ((0, -1, 1, 0), lambda f: np.rot90(f, 1, (1, 2))),
}


@pytest.mark.parametrize("case", SHOWN)
def test_display_matrix_is_applied_and_said(tmp_path, case):
    (a, b, c, d), by_numpy = SHOWN[case]
    matrix = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]
    frames = noise(3)
    path = encode(
        tmp_path / "turned.mp4",
        frames,
        codec="libx264rgb",
        pixel_format="rgb24",
        options={"crf": "0"},
        matrix=matrix,
    )
    info, expected = probe(path), by_numpy(frames)
    assert (info.height, info.width) == expected.shape[1:3]
    assert np.array_equal(read_video(path).frames.transpose(0, 2, 3, 1), expected)
    assert np.array_equal(first_frames(info, 2).transpose(0, 2, 3, 1), expected[:2])
    assert ("shown" in "".join(info.notes)) is (case != "as stored")


def test_display_matrix_of_another_angle_is_said_and_not_applied(tmp_path):
    half = ONE * 7 // 10
    matrix = [half, half, 0, -half, half, 0, 0, 0, 1 << 30]
    info = probe(encode(tmp_path / "c.mp4", smooth(2), **H264, matrix=matrix))
    assert (info.height, info.width) == (32, 64)
    assert "is not applied" in info.notes[0]


@pytest.mark.parametrize("number", [1, 2, 6])
def test_exif_orientation_of_motion_jpeg_is_applied(tmp_path, number):
    from PIL import Image, ImageOps

    path = tmp_path / "camera.avi"
    shown = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuvj444p"
        for index, picture in enumerate(smooth(2)):
            exif = Image.Exif()
            exif[0x0112] = number
            file = BytesIO()
            Image.fromarray(picture).save(file, "jpeg", quality=98, subsampling=0, exif=exif)
            shown.append(np.asarray(ImageOps.exif_transpose(Image.open(file))))
            packet = av.Packet(file.getvalue())
            packet.stream, packet.pts, packet.dts = stream, index, index
            packet.time_base, packet.is_keyframe = Fraction(1, 8), True
            container.mux(packet)
    frames = read_video(path).frames.transpose(0, 2, 3, 1)
    # Two decoders of JPEG round differently.
    assert frames.shape == np.stack(shown).shape
    assert np.abs(frames.astype(int) - np.stack(shown)).max() <= 4


def copy_packets(source, path, *, earlier=Fraction(0)):
    """Packets as they are; what lies before time 0 is hidden by an edit list, as cutters do it."""
    with av.open(str(source)) as given, av.open(str(path), "w") as made:
        stream = given.streams.video[0]
        copy = made.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.size:
                ticks = int(earlier / packet.time_base)
                packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
                packet.stream = copy
                made.mux(packet)
    return path


def test_frames_that_an_edit_list_hides_are_not_there(tmp_path):
    whole = encode(tmp_path / "whole.mp4", smooth(24), **H264, rate=24, options={"g": "24"})
    info = probe(copy_packets(whole, tmp_path / "cut.mp4", earlier=Fraction(6, 24)))
    assert info.num_frames == 18
    assert info.fps == 24
    assert info.notes == ("its header counts 24 frames, 18 are shown",)
    frames = read_video(info.path).frames
    assert np.array_equal(frames, read_video(whole).frames[6:])
    assert np.array_equal(first_frames(info, 20), frames)


def test_stream_that_starts_between_key_frames_gives_what_can_be_shown(tmp_path):
    options = {"g": "6", "bf": "0", "sc_threshold": "0"}
    path = encode(tmp_path / "c.ts", smooth(18), **H264, options=options)
    whole, data = read_video(path).frames, path.read_bytes()
    path.write_bytes(data[188 * (len(data) // 188 // 2) :])
    info, frames = probe(path), read_video(path).frames
    assert info.num_frames == len(frames) == 6
    assert np.array_equal(frames, whole[12:])


def test_fields_of_an_interlaced_frame_keep_their_own_colours(tmp_path):
    # Luma and chroma of the upper field, then of the lower: rows in turn, of chroma too.
    fields = np.array([[120, 90, 200], [90, 190, 80]])
    path = tmp_path / "c.mp4"
    with av.open(str(path), "w") as container:
        options = {"x264-params": "tff=1", "qp": "0"}
        stream = container.add_stream("libx264", rate=8, options=options)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame(64, 32, "yuv420p")
            for plane, levels in zip(frame.planes, fields.T):
                rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
                rows[::2], rows[1::2] = levels
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info, frames = probe(path), read_video(path).frames
    assert info.notes == ("interlaced: both fields are one frame",)
    assert len(frames) == 3
    for field, (y, u, v) in enumerate(fields.astype(float)):
        luma, blue, red = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
        r, b = luma + 1.402 * red, luma + 1.772 * blue
        g = (luma - 0.299 * r - 0.114 * b) / 0.587
        shown = frames[:, :, field::2].transpose(0, 2, 3, 1)
        # Two roundings of 8 bits.
        assert np.abs(shown - 255 * np.clip([r, g, b], 0, 1)).max() <= 3


@pytest.mark.parametrize(("at", "size"), [(b"strh", 32), (b"avih", 16)])
def test_header_that_promises_another_count_is_a_note(tmp_path, at, size):
    frames = noise(5)
    path = encode(tmp_path / "c.avi", frames, codec="huffyuv", pixel_format="rgb24")
    data = bytearray(path.read_bytes())
    place = data.find(at) + 8 + size
    data[place : place + 4] = (99).to_bytes(4, "little")
    path.write_bytes(data)
    assert np.array_equal(read_video(path).frames.transpose(0, 2, 3, 1), frames)
    if at == b"strh":
        assert probe(path).notes == ("its header counts 99 frames, 5 are shown",)
    # The same header on a file that is cut short is no note.
    path.write_bytes(data[: -len(data) // 3])
    with pytest.raises(MediaError, match="cut short"):
        probe(path)


def test_header_that_promises_more_seconds_is_a_note_on_a_whole_file(tmp_path):
    path = encode(tmp_path / "c.mkv", noise(5))
    data = path.read_bytes()
    at = data.find(b"\x44\x89\x88") + 3
    promised = np.array([9000.0], ">f8").tobytes()
    path.write_bytes(data[:at] + promised + data[at + 8 :])
    assert probe(path).notes == ("its header promises 9.00 s, its frames end at 0.50 s",)
    assert len(read_video(path).frames) == 5
    path.write_bytes((data[:at] + promised + data[at + 8 :])[:-200])
    with pytest.raises(MediaError, match="cut short"):
        probe(path)


def test_rate_of_a_gif_is_that_of_its_times(tmp_path):
    from PIL import Image

    frames = [Image.fromarray(frame) for frame in smooth(7)]
    save = {"save_all": True, "append_images": frames[1:]}
    # 24 a second in hundredths: not uneven, and not the rate that the decoder declares.
    frames[0].save(tmp_path / "even.gif", duration=[40, 40, 40, 40, 50, 40, 40], **save)
    frames[0].save(tmp_path / "uneven.gif", duration=[40, 40, 40, 90, 90, 90, 500], **save)
    even, uneven = probe(tmp_path / "even.gif"), probe(tmp_path / "uneven.gif")
    assert (even.fps, even.is_variable_rate) == (pytest.approx(6 / 0.25), False)
    assert (uneven.fps, uneven.is_variable_rate) == (pytest.approx(6 / 0.39), True)
    assert (even.num_frames, uneven.num_frames) == (7, 7)
    # A frame that stands twice as long, at 50 a second: two ticks are as much as a frame.
    frames[0].save(tmp_path / "held.gif", duration=[20, 20, 20, 40, 20, 20, 20], **save)
    held = probe(tmp_path / "held.gif")
    assert (held.fps, held.is_variable_rate) == (pytest.approx(6 / 0.14), True)
    # Browsers show a frame of 10 ms for 100.
    frames[0].save(tmp_path / "short.gif", duration=10, **save)
    short = probe(tmp_path / "short.gif")
    assert (short.fps, short.is_variable_rate) == (pytest.approx(10), False)


def test_frames_that_need_one_before_a_cut_are_not_shown(tmp_path):
    """An open GOP, cut at a key frame: two frames behind it stand before it in time."""
    frames = smooth(25, 64, 96)
    gop = {"x264-params": "open-gop=1:keyint=8:bframes=2:b-adapt=0:scenecut=0"}
    whole = encode(
        tmp_path / "whole.mkv", frames, codec="libx264", pixel_format="yuv420p", options=gop
    )
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        key = [number for number, packet in enumerate(packets) if packet.is_keyframe][1]
        first = packets[key].pts
        assert packets[key + 1].pts < first
        for packet in packets[key:]:
            packet.stream = stream
            target.mux(packet)
    num_before = sum(packet.pts < first for packet in packets)
    info, kept = probe(tmp_path / "cut.mkv"), read_video(tmp_path / "cut.mkv").frames
    assert (info.num_frames, len(kept)) == (25 - num_before,) * 2
    np.testing.assert_array_equal(kept, read_video(whole).frames[num_before:])
    np.testing.assert_array_equal(first_frames(info, 4), kept[:4])


def test_a_frame_that_the_decoder_calls_damaged_is_told(tmp_path):
    path = encode(tmp_path / "a.mp4", smooth(12, 64, 96), codec="mpeg4", pixel_format="yuv420p")
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][5]
    data, middle = bytearray(path.read_bytes()), packet.pos + packet.size // 2
    data[middle : middle + 8] = bytes(8)
    path.write_bytes(data)
    assert probe(path).num_frames == 12
    with pytest.raises(MediaError, match="a.mp4 is damaged at frame [5-9]"):
        read_video(path)
