"""Files that PyAV writes here: exact where the codec is lossless, a clear error otherwise."""

from dataclasses import replace

import av
import numpy as np
import pytest
from video_files import encode, noise, smooth

from vidcfg.media.probe import probe
from vidcfg.media.read import first_frames, iter_frames, read_video
from vidcfg.media.video import MediaError


def channels_last(frames):
    return frames.transpose(0, 2, 3, 1)


LOSSLESS = [
    ("clip.mkv", "ffv1", "bgr0", {}),
    ("clip.mp4", "libx264rgb", "rgb24", {"crf": "0"}),
    ("clip.avi", "huffyuv", "rgb24", {}),
]


@pytest.mark.parametrize(("name", "codec", "pixel_format", "options"), LOSSLESS)
def test_lossless_files_give_back_every_value(tmp_path, name, codec, pixel_format, options):
    frames = noise()
    path = encode(tmp_path / name, frames, codec=codec, pixel_format=pixel_format, options=options)
    video = read_video(path)
    assert np.array_equal(channels_last(video.frames), frames)
    assert video.frames.dtype == np.uint8
    assert (video.fps, video.lossless, video.source) == (8.0, True, str(path))


@pytest.mark.parametrize(
    ("pixel_format", "options", "lossless"),
    [
        ("yuv420p", {"crf": "0"}, False),
        ("yuv444p", {"crf": "0"}, True),
        ("yuv444p", {"crf": "1"}, False),
        ("yuv420p", {}, False),
    ],
)
def test_h264_is_marked_by_what_its_header_says(tmp_path, pixel_format, options, lossless):
    path = encode(
        tmp_path / "c.mp4", smooth(), codec="libx264", pixel_format=pixel_format, options=options
    )
    assert probe(path).lossless is lossless
    assert probe(path).codec == "h264"


def test_colour_tags_are_followed(tmp_path):
    frames = smooth(num_frames=1)
    read = {}
    for matrix in ("ITU601", "ITU709"):
        from av.video.reformatter import Colorspace

        path = tmp_path / f"{matrix}.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=8)
            stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv444p"
            stream.codec_context.colorspace = Colorspace[matrix]
            frame = av.VideoFrame.from_ndarray(frames[0], format="rgb24")
            frame = frame.reformat(format="yuv444p", dst_colorspace=matrix)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        read[matrix] = channels_last(read_video(path).frames).astype(int)
        # Two roundings of 8 bits.
        assert np.abs(read[matrix] - frames).max() <= 3
    assert not np.array_equal(read["ITU601"], read["ITU709"])


@pytest.mark.parametrize(("height", "width"), [(21, 35), (1, 2), (17, 64)])
def test_odd_sizes_are_read_whole(tmp_path, height, width):
    frames = noise(3, height, width)
    path = encode(tmp_path / "odd.mkv", frames)
    assert np.array_equal(channels_last(read_video(path).frames), frames)


def test_ten_bit_files_keep_their_depth(tmp_path):
    levels = np.linspace(0, 1023, 40).round().astype(np.uint16)
    path = tmp_path / "deep.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.height, stream.width, stream.pix_fmt = 6, 40, "gbrp10le"
        planes = np.broadcast_to(levels[None, None], (3, 6, 40)).astype(np.uint16)
        frame = av.VideoFrame(40, 6, "gbrp10le")
        for plane, values in zip(frame.planes, planes):
            padded = np.zeros((6, plane.line_size // 2), dtype=np.uint16)
            padded[:, :40] = values
            plane.update(padded.tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video = read_video(path)
    assert video.frames.dtype == np.float32
    # 10 bits stretched to 16 by the converter: within one 10-bit level, and 40 levels stay apart.
    np.testing.assert_allclose(video.frames[0, 0, 0], levels / 1023, atol=1 / 1023)
    assert len(np.unique(video.frames)) == 40


def test_alpha_is_left_out(tmp_path):
    path = tmp_path / "alpha.mkv"
    rgba = np.concatenate([noise(2), np.full((2, 22, 36, 1), 90, np.uint8)], axis=-1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.height, stream.width, stream.pix_fmt = 22, 36, "bgra"
        for picture in rgba:
            frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format="bgra")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.array_equal(channels_last(read_video(path).frames), rgba[..., :3])


def test_variable_rate_keeps_every_frame_and_reports_the_average(tmp_path):
    stamps = [0, 10, 20, 70, 80, 90, 100]
    frames = noise(len(stamps))
    path = encode(tmp_path / "vfr.mkv", frames, rate=10, stamps=stamps)
    info, video = probe(path), read_video(path)
    assert info.is_variable_rate
    assert video.fps == pytest.approx(6 / 1.0)
    assert np.array_equal(channels_last(video.frames), frames)


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_millisecond_stamps_are_no_variable_rate(tmp_path, rate):
    info = probe(encode(tmp_path / "c.mkv", noise(9), rate=rate))
    assert not info.is_variable_rate
    assert info.fps == rate


def test_sound_is_ignored_and_its_absence_too(tmp_path):
    frames = noise(8)
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        video, audio = (
            container.add_stream("ffv1", rate=8),
            container.add_stream("pcm_s16le", 8000),
        )
        video.height, video.width, video.pix_fmt = 22, 36, "bgr0"
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")
            container.mux(video.encode(frame))
        silence = np.zeros((1, 16000), dtype=np.int16)
        sound = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(audio.encode(sound))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    assert np.array_equal(channels_last(read_video(path).frames), frames)


def test_one_frame_is_a_video(tmp_path):
    frames = noise(1)
    video = read_video(encode(tmp_path / "one.mkv", frames))
    assert np.array_equal(channels_last(video.frames), frames)
    assert video.fps == 8


def write_bytes(path, data):
    path.write_bytes(data)
    return path


def sound_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", 8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return path


def header_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("huffyuv", rate=8)
        stream.height, stream.width, stream.pix_fmt = 22, 36, "rgb24"
        container.start_encoding()
    return path


def cut_short(path, *, share, **options):
    data = encode(path, noise(12), **options).read_bytes()
    return write_bytes(path, data[: int(share * len(data))])


MP4 = {"codec": "libx264rgb", "pixel_format": "rgb24", "options": {"crf": "0"}}
BROKEN = {
    "missing": (lambda d: d / "gone.mp4", "does not exist"),
    "empty": (lambda d: write_bytes(d / "empty.mp4", b""), "is empty"),
    "text": (lambda d: write_bytes(d / "text.mp4", b"no video\n" * 99), "cannot be read"),
    "zeros": (lambda d: write_bytes(d / "zeros.mkv", bytes(5000)), "cannot be read"),
    "sound only": (lambda d: sound_only(d / "sound.mkv"), "no video stream"),
    "zero frames": (lambda d: header_only(d / "none.avi"), "holds no frames"),
    "mp4 without its end": (lambda d: cut_short(d / "c.mp4", share=0.6, **MP4), "cannot be read"),
    "mkv without its end": (lambda d: cut_short(d / "c.mkv", share=0.6), "cut short"),
    "avi without its end": (
        lambda d: cut_short(d / "c.avi", share=0.6, codec="huffyuv", pixel_format="rgb24"),
        "cut short",
    ),
    "y4m without its end": (
        lambda d: cut_short(
            d / "c.y4m", share=0.6, codec="wrapped_avframe", pixel_format="yuv420p"
        ),
        "cut short",
    ),
    "folder without pictures": (lambda d: d, "holds no pictures"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_input_is_an_error_that_names_the_file(tmp_path, case):
    make, words = BROKEN[case]
    path = make(tmp_path)
    with pytest.raises(MediaError, match=words) as caught:
        read_video(path)
    assert str(path) in str(caught.value)


def test_mp4_with_its_index_in_front_is_known_to_be_cut(tmp_path):
    path = tmp_path / "front.mp4"
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264rgb", rate=8, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = 22, 36, "rgb24"
        for picture in noise(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        ends = [p.pos + p.size for p in container.demux(video=0) if p.size]
    data = path.read_bytes()
    for length, frames in ((ends[6] + 40, 8), (ends[6], 7)):
        # In the middle of a frame, and exactly behind one.
        path.write_bytes(data[:length])
        with pytest.raises(MediaError, match=f"front.mp4 is cut short: .* {frames} of 12"):
            read_video(path)


def test_fewer_frames_than_the_file_counts_are_an_error(tmp_path):
    info = probe(encode(tmp_path / "c.mkv", noise(4)))
    with pytest.raises(MediaError, match="4 of its 5 frames can be decoded"):
        list(iter_frames(replace(info, num_frames=5)))


def test_frames_joined_are_the_video(tmp_path):
    frames = noise(7)
    info = probe(encode(tmp_path / "c.mkv", frames))
    assert np.array_equal(channels_last(np.stack(list(iter_frames(info)))), frames)


@pytest.mark.parametrize(("name", "codec", "pixel_format", "options"), LOSSLESS[:2])
def test_first_frames_are_as_many_as_asked_for_or_as_there_are(
    tmp_path, name, codec, pixel_format, options
):
    frames = noise(9)
    path = tmp_path / name
    info = probe(encode(path, frames, codec=codec, pixel_format=pixel_format, options=options))
    for count in (1, 4, 9, 20):
        assert np.array_equal(channels_last(first_frames(info, count)), frames[:count])


def test_threads_of_a_decoder_that_is_let_go_wait_for_no_log(tmp_path):
    path = tmp_path / "clip.mkv"
    encode(path, smooth(6), codec="ffv1", pixel_format="bgr0")
    info = probe(path)
    # As torchvision does; its callback and the end of an unfinished decoder would wait for each
    # other.
    av.logging.set_level(av.logging.ERROR)
    frames = iter_frames(info)
    next(frames)
    assert av.logging.get_level() is None
    frames.close()


def write_pictures(folder, frames, *, suffix=".png", names=None):
    import cv2

    folder.mkdir()
    for index, picture in enumerate(frames):
        name = names[index] if names else f"frame_{index}{suffix}"
        assert cv2.imwrite(str(folder / name), picture[..., ::-1])
    return folder


def test_folder_of_pictures_is_a_video_in_the_order_of_its_numbers(tmp_path):
    frames = noise(12)
    video = read_video(write_pictures(tmp_path / "frames", frames))
    assert np.array_equal(channels_last(video.frames), frames)
    assert (video.fps, video.lossless, video.codec) == (8.0, True, "png")
    assert read_video(tmp_path / "frames", fps=12.5).fps == 12.5
    first = first_frames(probe(tmp_path / "frames"), 11)
    assert np.array_equal(channels_last(first), frames[:11])


def test_jpeg_pictures_are_lossy(tmp_path):
    assert not read_video(write_pictures(tmp_path / "f", smooth(), suffix=".jpg")).lossless


def test_sixteen_bit_gray_and_transparent_pictures(tmp_path):
    import cv2

    deep, gray, alpha = (tmp_path / name for name in ("deep", "gray", "alpha"))
    for folder in (deep, gray, alpha):
        folder.mkdir()
    cv2.imwrite(str(deep / "0.png"), np.full((4, 6, 3), 257 * 100 + 3, dtype=np.uint16))
    cv2.imwrite(str(gray / "0.png"), np.full((4, 6), 77, dtype=np.uint8))
    cv2.imwrite(str(alpha / "0.png"), np.full((4, 6, 4), (1, 2, 3, 4), dtype=np.uint8))
    assert read_video(deep).frames[0, 0, 0, 0] == np.float32((257 * 100 + 3) / 65535)
    assert read_video(gray).frames[0, :, 0, 0].tolist() == [77, 77, 77]
    assert read_video(alpha).frames[0, :, 0, 0].tolist() == [3, 2, 1]


def test_picture_of_another_size_is_named(tmp_path):
    folder = write_pictures(tmp_path / "f", noise(2))
    import cv2

    cv2.imwrite(str(folder / "frame_2.png"), np.zeros((9, 8, 3), dtype=np.uint8))
    with pytest.raises(MediaError, match=r"frame_2\.png is 9 x 8 in 8 bit"):
        read_video(folder)


def test_broken_picture_is_named(tmp_path):
    folder = write_pictures(tmp_path / "f", noise(2))
    (folder / "frame_1.png").write_bytes(b"not a picture")
    with pytest.raises(MediaError, match=r"frame_1\.png cannot be read"):
        read_video(folder)


def test_name_that_looks_like_a_protocol_is_a_file(tmp_path):
    frames = noise(2)
    path = encode(tmp_path / "plain.mkv", frames)
    odd = path.rename(tmp_path / "a: b é%d.mkv")
    assert np.array_equal(channels_last(read_video(odd).frames), frames)
    assert np.array_equal(channels_last(first_frames(probe(odd), 2)), frames)


def test_pictures_are_read_after_decord_was_loaded(tmp_path):
    import subprocess
    import sys

    frames = smooth(num_frames=3)
    encode(tmp_path / "c.mp4", frames, codec="libx264", pixel_format="yuv420p")
    write_pictures(tmp_path / "f", frames)
    code = (
        "import sys; from vidcfg.media.probe import probe; from vidcfg.media.read import *;"
        "first_frames(probe(sys.argv[1]), 2); print(read_video(sys.argv[2]).frames.shape)"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "c.mp4"), str(tmp_path / "f")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(3, 3, 32, 64)"
