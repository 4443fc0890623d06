import errno
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import write_video

from vidcfg.files import FileError
from vidcfg.media.video import MediaError
from vidcfg.media.write import CODECS, check_size, encode_video

LOSSLESS = [name for name, codec in CODECS.items() if codec.lossless]


def _noise(num_frames=5, height=18, width=26):
    shape = (num_frames, height, width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _decode(path):
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames), rate


@pytest.mark.parametrize("codec", LOSSLESS)
@pytest.mark.parametrize("shape", [(5, 18, 26), (3, 17, 27)])
def test_lossless_codec_gives_back_every_level_also_at_odd_sizes(tmp_path, codec, shape):
    frames = _noise(*shape)
    path = write_video(tmp_path / f"x{CODECS[codec].extension}", frames, fps=8, codec=codec)
    assert np.array_equal(_decode(path)[0], frames)


@pytest.mark.parametrize("fps", [8, 23.976, 30])
@pytest.mark.parametrize("codec", list(CODECS))
def test_number_of_frames_and_rate_are_kept(tmp_path, codec, fps):
    path = write_video(tmp_path / f"x{CODECS[codec].extension}", _noise(7), fps=fps, codec=codec)
    frames, rate = _decode(path)
    assert len(frames) == 7
    assert float(rate) == pytest.approx(fps, rel=1e-4)


def test_h264_keeps_flat_colours_within_a_few_levels(tmp_path):
    colours = np.array([[200, 30, 40], [20, 30, 120], [240, 220, 20], [10, 120, 110]], np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (4, 32, 48, 3)).copy()
    decoded, _ = _decode(write_video(tmp_path / "x.mp4", frames, fps=8))
    # Limited range and 8-bit chroma round each channel by up to two levels, crf 16 by one more.
    assert np.abs(decoded.astype(int) - frames).max() <= 4


def test_enlarge_repeats_pixels_and_nothing_else(tmp_path):
    frames = _noise(3)
    path = write_video(tmp_path / "x.mkv", frames, fps=8, codec="ffv1", enlarge=3)
    decoded, _ = _decode(path)
    assert decoded.shape == (3, 54, 78, 3)
    assert np.array_equal(decoded[:, ::3, ::3], frames)
    assert np.array_equal(decoded[:, 2::3, 1::3], frames)


def test_float_frames_are_rounded_to_the_nearest_level(tmp_path):
    levels = _noise(2)
    values = (levels.astype(np.float64) + 0.3) / 255.6
    path = write_video(tmp_path / "x.mkv", values, fps=8, codec="ffv1")
    assert np.array_equal(_decode(path)[0], np.rint(values.astype(np.float32) * 255))


@pytest.mark.parametrize("codec", list(CODECS))
def test_the_same_frames_give_the_same_bytes(codec):
    frames = _noise(6)
    first = encode_video(frames, fps=8, codec=codec, enlarge=4)
    # The memory around the frames differs between the calls.
    padded = np.zeros((6, 20, 30, 3), np.uint8)
    padded[:, 1:-1, 2:-2] = frames
    assert encode_video(padded[:, 1:-1, 2:-2], fps=8, codec=codec, enlarge=4) == first


def test_existing_file_is_kept_unless_overwriting_is_asked_for(tmp_path):
    path = tmp_path / "x.mkv"
    path.write_bytes(b"precious")
    with pytest.raises(FileError, match=r"x\.mkv exists.*overwrite"):
        write_video(path, _noise(), fps=8, codec="ffv1")
    assert path.read_bytes() == b"precious"
    write_video(path, _noise(), fps=8, codec="ffv1", overwrite=True)
    assert np.array_equal(_decode(path)[0], _noise())


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "No space left"), (errno.EACCES, "Permission denied")],
)
def test_full_disk_or_forbidden_folder_is_one_line_that_names_the_file(
    tmp_path, monkeypatch, number, words
):
    def fail(self, data):
        self.touch()
        raise OSError(number, "low level text")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(FileError, match=words) as caught:
        write_video(tmp_path / "x.mkv", _noise(), fps=8, codec="ffv1")
    assert "x.mkv" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_failing_encoder_leaves_no_file(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise av.error.ExternalError(1, "broken encoder")

    monkeypatch.setattr("vidcfg.media.write._encode", fail)
    with pytest.raises(MediaError, match="ffv1 cannot encode these frames"):
        write_video(tmp_path / "x.mkv", _noise(), fps=8, codec="ffv1")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_missing_or_a_file_is_named(tmp_path):
    with pytest.raises(FileError, match="folder .*missing does not exist"):
        write_video(tmp_path / "missing" / "x.mkv", _noise(), fps=8, codec="ffv1")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="is a file, not a folder"):
        write_video(tmp_path / "file" / "x.mkv", _noise(), fps=8, codec="ffv1")
    with pytest.raises(FileError, match="is a folder"):
        write_video(tmp_path, _noise(), fps=8, codec="ffv1")


def test_a_name_that_looks_like_a_protocol_is_a_file_name(tmp_path):
    path = write_video(tmp_path / "pipe:1.mkv", _noise(), fps=8, codec="ffv1")
    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("size", "codec", "enlarge", "words"),
    [
        ((33, 32), "h264", 1, "even height and width, not 33 x 32.*enlarge: 2"),
        ((32, 31), "h264", 3, "not 96 x 93"),
        ((32, 32), "vp9", 1, "codec is 'vp9', allowed are h264, h264_lossless, ffv1"),
        ((32, 32), "h264", 0, "enlarge is 0"),
    ],
)
def test_sizes_that_cannot_be_stored_are_refused_with_the_way_out(size, codec, enlarge, words):
    with pytest.raises(ValueError, match=words):
        check_size(*size, codec=codec, enlarge=enlarge)


def test_odd_sizes_can_be_stored_after_enlarging(tmp_path):
    path = write_video(tmp_path / "x.mp4", _noise(2, 17, 27), fps=8, enlarge=2)
    assert _decode(path)[0].shape == (2, 34, 54, 3)


def test_frames_outside_of_their_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match="reach from -1 to 1"):
        write_video(tmp_path / "x.mp4", _noise().astype(np.float32) / 127.5 - 1, fps=8)
    with pytest.raises(ValueError, match=r"\[T, H, W, 3\], not \(5, 3, 18, 26\)"):
        write_video(tmp_path / "x.mp4", _noise().transpose(0, 3, 1, 2), fps=8)
    with pytest.raises(ValueError, match="fps is 0"):
        write_video(tmp_path / "x.mp4", _noise(), fps=0)
    assert list(tmp_path.iterdir()) == []
