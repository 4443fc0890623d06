from dataclasses import replace

import numpy as np
import pytest

from vidcfg.mini.shapes import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    SHAPES,
    Scene,
    all_scenes,
    caption,
    draw,
    sample_clip,
    vary,
)


def object_mask(frames, scene):
    """Pixels nearer to the object's colour than to the background's."""
    front, back = np.array(COLOURS[scene.colour]), np.array(BACKGROUNDS[scene.background])
    to = [np.linalg.norm(frames.astype(float) - c, axis=-1) for c in (front, back)]
    return to[0] < to[1]


def cover(frames, scene):
    """Share of every pixel that the object covers, from the mix of the two colours."""
    front, back = np.array(COLOURS[scene.colour]), np.array(BACKGROUNDS[scene.background])
    return (frames - back) @ (front - back) / np.square(front - back).sum()


def test_same_seed_gives_the_same_clip_whatever_else_is_drawn():
    alone = sample_clip((3, 7))
    sample_clip((3, 8))
    again = sample_clip((3, 7))
    assert np.array_equal(alone.frames, again.frames)
    assert alone.caption == again.caption
    assert not np.array_equal(alone.frames, sample_clip((3, 8)).frames)


def test_drawing_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    sample_clip(0)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_training_clips_never_show_a_held_out_pair():
    clips = [sample_clip((0, i), num_frames=1, height=8, width=8) for i in range(600)]
    seen = {(c.scene.colour, c.scene.shape) for c in clips}
    assert not seen & set(HELD_OUT)
    assert len(seen) == len(COLOURS) * len(SHAPES) - len(HELD_OUT)


def test_held_out_clips_show_only_held_out_pairs():
    clips = [sample_clip((0, i), num_frames=1, held_out=True) for i in range(40)]
    assert {(c.scene.colour, c.scene.shape) for c in clips} == set(HELD_OUT)


def test_every_held_out_word_is_seen_in_another_pair():
    trained = all_scenes(held_out=False)
    assert {s.colour for s in trained} == set(COLOURS)
    assert {s.shape for s in trained} == set(SHAPES)
    assert len(trained) + len(all_scenes(held_out=True)) == len(all_scenes()) == 6 * 4 * 6 * 4


def test_caption_says_every_attribute():
    scene = Scene(shape="cross", colour="pink", motion="up", background="teal")
    assert caption(scene) == "a pink cross moving up over a teal background"


@pytest.mark.parametrize("sizes", [(17, 32, 32), (33, 64, 48), (5, 24, 40)])
@pytest.mark.parametrize("motion", ATTRIBUTES["motion"])
def test_object_is_in_view_in_every_frame_at_every_size(motion, sizes):
    num_frames, height, width = sizes
    rng = np.random.default_rng(1)
    for shape in SHAPES:
        scene = replace(vary(Scene(shape=shape, motion=motion), rng), tint=(0.0, 0.0))
        frames = draw(scene, num_frames=num_frames, height=height, width=width)
        assert frames.shape == (num_frames, height, width, 3)
        area = cover(frames, scene).sum((1, 2))
        if motion not in ("growing", "shrinking"):
            # Corners are antialiased by distance, not by exact area.
            assert area.min() > 0.96 * area.max()
        assert area.min() > 4


@pytest.mark.parametrize(
    ("motion", "axis", "sign"), [("left", 2, -1), ("right", 2, 1), ("up", 1, -1), ("down", 1, 1)]
)
def test_object_moves_the_way_the_caption_says(motion, axis, sign):
    scene = vary(Scene(motion=motion), np.random.default_rng(2))
    mask = object_mask(draw(scene), scene)
    index = np.arange(32).reshape((1, 32, 1) if axis == 1 else (1, 1, 32))
    centre = (mask * index).sum((1, 2)) / mask.sum((1, 2))
    assert np.all(np.diff(centre)[::2] * sign > -0.2)
    assert 10 < sign * (centre[-1] - centre[0]) < 20


def test_growing_grows_and_shrinking_shrinks():
    for motion, sign in (("growing", 1), ("shrinking", -1)):
        scene = Scene(motion=motion)
        area = object_mask(draw(scene), scene).sum((1, 2))
        assert sign * (area[-1] - area[0]) > 3 * min(area[0], area[-1])


def test_shapes_have_about_the_same_area():
    areas = [cover(draw(Scene(shape=s)), Scene()).sum((1, 2)).mean() for s in SHAPES]
    assert max(areas) < 1.25 * min(areas)


def test_blurry_clip_says_so_and_has_softer_edges():
    sharp, soft = Scene(), Scene(is_blurry=True)
    assert caption(soft) == "blurry, " + caption(sharp)
    steepest = [np.abs(np.diff(draw(s).astype(int), axis=2)).max() for s in (sharp, soft)]
    assert steepest[1] < 0.6 * steepest[0]
