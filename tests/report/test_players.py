import base64
import io

import numpy as np
import pytest
from fake_store import PROMPTS, clip
from PIL import Image

from vidcfg.media.write import write_video
from vidcfg.report.players import MAX_FRAMES, MAX_SIDE, embed, strip_of
from vidcfg.report.table import make_table
from vidcfg.results import UnitResult, read_results


def picture(strip):
    head, _, data = strip["src"].partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def unit_of(path, **video):
    return UnitResult("k", "c", "p", 0, {}, video=path, render={"video": video})


def test_small_frames_are_kept_as_they_are(store):
    unit = next(u for u in read_results(store).units if u.cell == "uniform-6" and u.seed == 1)
    strip = strip_of(unit)
    expected = clip(PROMPTS.index(unit.prompt), 1, 6.0, "uniform")
    found = picture(strip).reshape(32, 17, 32, 3).transpose(1, 0, 2, 3)
    np.testing.assert_array_equal(found, expected)
    assert strip["frames"] == list(range(17))
    assert not strip["is_changed"]


def test_enlarged_renders_come_back_at_their_own_size(tmp_path):
    frames = clip(0, 0, 3.0, "decay")
    path = write_video(tmp_path / "v.mp4", frames, fps=8, codec="h264_lossless", enlarge=4)
    strip = strip_of(unit_of(path, enlarge=4))
    assert (strip["width"], strip["height"]) == (32, 32)
    found = picture(strip).reshape(32, 17, 32, 3).transpose(1, 0, 2, 3)
    np.testing.assert_array_equal(found, frames)


def test_large_and_long_clips_are_made_smaller_and_keep_their_duration(tmp_path):
    frames = np.zeros((60, 40, 300, 3), np.uint8)
    frames[:, :, :, 0] = np.arange(60)[:, None, None] * 4
    path = write_video(tmp_path / "v.mkv", frames, fps=30, codec="ffv1")
    strip = strip_of(unit_of(path))
    assert strip["width"] == MAX_SIDE
    assert strip["height"] == 34
    assert len(strip["frames"]) == MAX_FRAMES
    assert (strip["frames"][0], strip["frames"][-1]) == (0, 59)
    assert len(strip["frames"]) / strip["fps"] == pytest.approx(2.0)
    reds = picture(strip)[17, 128::MAX_SIDE, 0].astype(int)
    # Lossy WebP moves a flat colour by a few levels.
    np.testing.assert_allclose(reds, np.array(strip["frames"]) * 4, atol=6)


def test_size_is_bounded_and_every_prompt_comes_before_a_second_seed(store):
    results = read_results(store)
    shared = make_table(results).pairs
    whole = embed(results, shared, max_bytes=10**9)
    assert len(whole.pairs) == 8
    assert not whole.notes
    assert [seed for _, seed in whole.pairs] == [0] * 4 + [1] * 4
    size = sum(len(strip["src"]) for strip in whole.strips.values())
    part = embed(results, shared, max_bytes=int(0.6 * size))
    assert 3 <= len(part.pairs) < 8
    assert sum(len(strip["src"]) for strip in part.strips.values()) <= 0.6 * size
    assert f"hold {len(part.pairs)} of 8 pairs" in part.notes[0]
    assert str(results.root / "units") in part.notes[0]


def test_one_pair_is_there_whatever_the_bound(store):
    results = read_results(store)
    found = embed(results, make_table(results).pairs, max_bytes=0)
    assert len(found.pairs) == 1
    assert len(found.strips) == 6


def test_damaged_video_is_named_and_the_others_stay(store, tmp_path):
    import shutil

    results = read_results(shutil.copytree(store, tmp_path / "s"))
    bad = results.units[0].video
    bad.write_bytes(b"no video")
    found = embed(results, make_table(results).pairs, max_bytes=10**9)
    assert len(found.strips) == 47
    assert str(bad) in found.notes[-1]
