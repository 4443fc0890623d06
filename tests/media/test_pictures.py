"""Animated pictures and folders of stills: which frames, when, and what is odd."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from video_files import encode, noise, smooth

from vidcfg.evaluate.inputs import find_items
from vidcfg.evaluate.run import evaluate
from vidcfg.evaluate.settings import Settings
from vidcfg.media.probe import probe
from vidcfg.media.read import first_frames, read_video
from vidcfg.media.video import MediaError


def save_animated(path, frames, *, duration=125, **options):
    pictures = [Image.fromarray(frame) for frame in frames]
    path.parent.mkdir(exist_ok=True)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration, **options)
    return path


def save_stills(folder, frames, names):
    folder.mkdir(exist_ok=True)
    for frame, name in zip(frames, names, strict=True):
        Image.fromarray(frame).save(folder / name)
    return folder


def shown(path):
    return read_video(path).frames.transpose(0, 2, 3, 1)


UNEVEN = [40, 40, 40, 90, 90, 90, 500]
ANIMATED = {
    "even.webp": ({"lossless": True}, 125, 8.0),
    "uneven.webp": ({"lossless": True}, UNEVEN, 6 / 0.39),
    "even.png": ({}, 40, 25.0),
    "uneven.apng": ({"format": "png"}, UNEVEN, 6 / 0.39),
    "no_time.webp": ({"lossless": True}, 0, 10.0),
    "too_short_a_time.webp": ({"lossless": True}, 10, 10.0),
    "short.png": ({}, 20, 50.0),
    "behind_a_cover.png": ({"default_image": True}, 125, 8.0),
}


@pytest.mark.parametrize("name", ANIMATED)
def test_animated_picture_is_a_video_with_its_own_timing(tmp_path, name):
    options, duration, fps = ANIMATED[name]
    frames = noise(7)
    path = save_animated(tmp_path / name, frames, duration=duration, **options)
    # A cover is shown by readers without animation only; Pillow makes one of the first picture.
    frames = frames[1:] if "default_image" in options else frames
    info = probe(path)
    assert np.array_equal(shown(path), frames)
    assert np.array_equal(first_frames(info, 5).transpose(0, 2, 3, 1), frames[:5])
    assert info.fps == pytest.approx(fps)
    assert info.is_variable_rate is (duration == UNEVEN)
    assert info.lossless


def test_frames_stored_as_changes_are_whole(tmp_path):
    frames = np.repeat(smooth(1), 5, axis=0)
    for index in range(5):
        frames[index, 4 * index : 4 * index + 3, 10:20] = (250, 10, 90)
    for name, options in (("c.webp", {"lossless": True}), ("c.png", {})):
        assert np.array_equal(shown(save_animated(tmp_path / name, frames, **options)), frames)


def test_animated_webp_with_loss_is_marked(tmp_path):
    path = save_animated(tmp_path / "c.webp", smooth(4), quality=90)
    assert probe(path).lossless is False
    assert np.abs(shown(path).astype(int) - smooth(4)).mean() < 4


@pytest.mark.parametrize("name", ["c.webp", "c.png", "c.gif"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_animated_picture_without_its_end_is_cut_short(tmp_path, name, share):
    path = save_animated(tmp_path / name, noise(6))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    words = "is cut short|cannot be read" if name == "c.gif" else "is cut short"
    with pytest.raises(MediaError, match=f"{name} {words}"):
        probe(path)


def test_animated_webp_cut_between_frames_is_cut_short(tmp_path):
    path = save_animated(tmp_path / "c.webp", noise(6))
    data = path.read_bytes()
    path.write_bytes(data[: data.rfind(b"ANMF")])
    with pytest.raises(MediaError, match="cut short: it ends after 5 frames"):
        probe(path)


@pytest.mark.parametrize("suffix", ["webp", "png", "gif"])
def test_folder_of_animated_pictures_is_many_videos(tmp_path, suffix):
    for index in range(3):
        save_animated(tmp_path / "out" / f"ComfyUI_0000{index}_.{suffix}", noise(4, seed=index))
    items = find_items([tmp_path / "out"])
    assert [item.name for item in items] == [f"ComfyUI_0000{i}_.{suffix}" for i in range(3)]
    assert [probe(item.path).num_frames for item in items] == [4, 4, 4]


def test_animated_pictures_and_stills_of_one_folder_are_told_apart(tmp_path):
    folder = tmp_path / "mixed"
    save_animated(folder / "a_01.webp", noise(4), lossless=True)
    save_animated(folder / "b.png", noise(5))
    stills = noise(3, seed=5)
    save_stills(folder, stills, ["f_1.png", "f_2.png", "f_3.png"])
    # A still named as a video is its preview.
    save_stills(folder, stills[:1], ["a_01.png"])
    items = find_items([folder])
    assert [item.name for item in items] == ["mixed", "a_01.webp", "b.png"]
    assert [probe(item.path).num_frames for item in items] == [3, 4, 5]
    assert np.array_equal(shown(folder), stills)
    assert "3 stills beside 2 animated" in probe(folder).notes[0]


def test_stills_beside_videos_are_no_frames(tmp_path):
    encode(tmp_path / "clip.mkv", noise(3))
    save_stills(tmp_path, noise(3), ["sheet_1.png", "sheet_2.png", "sheet_3.png"])
    assert [item.name for item in find_items([tmp_path])] == ["clip.mkv"]


FOLDERS = {
    "4 missing": ([f"f_{i:04}.png" for i in (*range(1, 9), *range(13, 16))], "(4): 9 to 12"),
    "every tenth": ([f"f_{i}.png" for i in (90, 100, 110, 140)], "(2): 120 to 130"),
    "stray": (["f_01.png", "f_02.png", "f_03.png", "preview.png"], "f_03.png: preview.png"),
    "numbered stray": (["f_1.png", "f_2.png", "f_3.png", "old_1.png"], "f_3.png: old_1.png"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_gaps_and_strays_of_a_folder_are_told(tmp_path, case):
    names, words = FOLDERS[case]
    frames = noise(len(names), 16, 20)
    folder = save_stills(tmp_path / "f", frames, names)
    is_frame = [name.startswith("f_") for name in names]
    assert np.array_equal(shown(folder), frames[is_frame])
    (note,) = probe(folder).notes
    assert words in note
    # And said with the values, not only known.
    found = evaluate(find_items([folder]), Settings(families=("flicker",)))
    assert found.warnings == [f"f: {note}"]
    assert found.records("f")[0].extra["reading"] == note


@pytest.mark.parametrize(
    "names",
    [
        ["f_9.png", "f_11.png", "f_10.png"],
        ["10.jpg", "9.jpg"],
        ["shot2_0001_v3.png", "shot2_0002_v3.png"],
        ["b.png", "a.png"],
        ["only.png"],
    ],
)
def test_folder_without_anything_odd_has_no_notes(tmp_path, names):
    assert probe(save_stills(tmp_path / "f", noise(len(names)), names)).notes == ()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a_1.png", "a_2.png", "b_1.png", "b_2.png"], "several sequences"),
        (["s1_f1.png", "s1_f2.png", "s2_f1.png", "s2_f2.png"], "several sequences"),
        (["f_1.png", "f_01.png", "f_2.png"], "picture 1 twice: f_01.png and f_1.png"),
        (["f_1.png", "f_1.jpg", "f_2.png"], "picture 1 twice"),
    ],
)
def test_folder_that_may_be_two_videos_is_refused(tmp_path, names, words):
    with pytest.raises(MediaError, match=words):
        probe(save_stills(tmp_path / "f", noise(len(names)), names))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation_of_stills_is_applied(tmp_path, suffix):
    save = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    for number in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = number
        path = tmp_path / str(number) / f"f_1.{suffix}"
        path.parent.mkdir()
        Image.fromarray(noise(1)[0]).save(path, exif=exif, **save.get(suffix, {}))
        expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        for given in (path, path.parent):
            frame = shown(given)[0]
            assert frame.shape == expected.shape
            assert np.abs(frame.astype(int) - expected).max() <= (2 if suffix == "jpg" else 0)
            assert ("as EXIF says" in "".join(probe(given).notes)) is (number != 1)


@pytest.mark.parametrize("suffix", ["y4m", "flv", "wmv", "mxf", "apng", "ts"])
def test_endings_that_are_found(tmp_path, suffix):
    (tmp_path / f"clip.{suffix}").write_bytes(b"")
    assert [item.name for item in find_items([tmp_path])] == [f"clip.{suffix}"]


@pytest.mark.parametrize("suffix", ["tif", "png", "webp"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_colours_are_those_beside_the_alpha_and_not_multiplied_by_it(tmp_path, mode, suffix):
    if (mode, suffix) == ("LA", "webp"):
        pytest.skip("WebP has no gray with alpha")
    (frame,) = smooth(1, height=18, width=26)
    alpha = np.tile(np.linspace(10, 240, 26).astype(np.uint8), (18, 1))
    picture = Image.fromarray(frame).convert(mode)
    picture.putalpha(Image.fromarray(alpha))
    exif = Image.Exif()
    exif[0x0112] = 6
    lossless = {"lossless": True, "exact": True} if suffix == "webp" else {}
    picture.save(tmp_path / f"clear.{suffix}", exif=exif, **lossless)
    colours = np.asarray(picture.convert("RGBA"))[..., :3]
    (got,) = shown(tmp_path / f"clear.{suffix}")
    np.testing.assert_array_equal(got, colours.transpose(1, 0, 2)[:, ::-1])
