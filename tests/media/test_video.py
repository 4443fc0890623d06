import tracemalloc

import numpy as np
import pytest

from vidcfg.media.video import PIECE, Video, to_uint8


def _frames(dtype=np.uint8):
    values = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 5), dtype=np.uint8)
    return values if dtype == np.uint8 else values.astype(np.float32) / np.float32(255)


def test_every_uint8_level_survives_the_way_through_float():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    as_float = levels.astype(np.float32) / np.float32(255)
    assert np.array_equal(Video(as_float, fps=8).as_uint8(), levels)


def test_frames_of_the_wanted_type_are_not_copied():
    levels = _frames()
    assert Video(levels, fps=8).as_uint8() is levels


@pytest.mark.parametrize("num_frames", [1, PIECE, 2 * PIECE + 1])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 2, 3, 0)])
def test_levels_in_pieces_are_those_of_all_frames_at_once(num_frames, order):
    """Values in between two levels too; frames that lie in memory in another order."""
    rng = np.random.default_rng(0)
    shape = (num_frames, 3, 4, 5)
    halves = rng.integers(0, 511, shape).astype(np.float32) / np.float32(510)
    stored = np.ascontiguousarray(halves.transpose(order)).transpose(np.argsort(order))
    assert np.array_equal(to_uint8(stored), np.rint(halves * np.float32(255)).astype(np.uint8))


def test_levels_need_no_more_memory_for_more_frames():
    """Beyond the levels themselves: one piece in float, and the one before it."""

    def beyond(num_frames):
        frames = np.zeros((num_frames, 3, 32, 40), np.float32)
        tracemalloc.start()
        levels = to_uint8(frames)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - levels.nbytes

    piece = PIECE * 3 * 32 * 40 * 4
    assert 2 * piece <= beyond(3 * PIECE) <= 2.1 * piece
    assert beyond(12 * PIECE) <= 2.1 * piece


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (_frames(np.float32) * 2 - 1, r"reach from -1 to 0.95.*\(x \+ 1\) / 2"),
        (_frames().astype(np.float32), "reach from 0 to 2.*Divide 0..255 by 255"),
        (np.full((2, 3, 4, 5), np.nan, np.float32), "NaN or Inf"),
        (_frames().astype(np.float64), "float64, allowed are uint8 and float32"),
        (_frames().transpose(0, 2, 3, 1), "channels last go through"),
        (_frames()[0], r"have to be an array \[T, C, H, W\]"),
        (_frames()[:0], "not .T, C, H, W. with"),
    ],
)
def test_frames_outside_of_the_contract_are_refused_with_the_way_out(frames, words):
    with pytest.raises(ValueError, match=f"clip.mp4: .*{words}"):
        Video(frames, fps=8, source="clip.mp4")


@pytest.mark.parametrize("fps", [0, -8, float("nan"), float("inf")])
def test_a_frame_rate_is_a_number_above_zero(fps):
    with pytest.raises(ValueError, match="has to be above 0"):
        Video(_frames(), fps=fps)
