from dataclasses import replace

import numpy as np
import pytest
from every_scene import all_scenes

from vidcfg.mini.shapes import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    FAULTS,
    HELD_OUT,
    LIGHTS,
    SHAPES,
    TEXTURES,
    Scene,
    asked,
    caption,
    draw,
    late_readings,
    sample_clip,
    sample_scene,
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
    seen = {(c.scene.value("colour", late=x), c.scene.shape) for c in clips for x in (False, True)}
    assert not seen & set(HELD_OUT)
    assert len(seen) == len(COLOURS) * len(SHAPES) - len(HELD_OUT)


def test_held_out_clips_show_only_held_out_pairs():
    clips = [sample_clip((0, i), num_frames=1, held_out=True) for i in range(40)]
    pairs = [
        {(c.scene.value("colour", late=x), c.scene.shape) for x in (False, True)} for c in clips
    ]
    assert all(pair & set(HELD_OUT) for pair in pairs)
    assert set.union(*pairs) >= set(HELD_OUT)


def test_every_held_out_word_is_seen_in_another_pair():
    trained = all_scenes(held_out=False)
    assert {s.colour for s in trained} == set(COLOURS)
    assert {s.shape for s in trained} == set(SHAPES)
    assert len(trained) + len(all_scenes(held_out=True)) == len(all_scenes()) == 6 * 4 * 6 * 4


def test_caption_says_every_attribute_and_every_change():
    scene = Scene("cross", "pink", "up", "teal", "striped", "fading", "white")
    text = "a pink cross moving up over a striped teal background in fading light with a white dot"
    assert caption(scene) == text
    scene = replace(scene, then_colour="red", then_motion="growing", dot="no")
    text = "a pink cross turning red moving up then growing over a striped teal background"
    assert caption(scene) == f"{text} in fading light with no dot"


@pytest.mark.parametrize(
    ("without", "text"),
    [
        ({"colour", "shape", "light", "dot", "texture"}, "moving up over a teal background"),
        (
            {"shape", "background", "light", "dot"},
            "a pink shape moving up over a striped background",
        ),
        (set(ATTRIBUTES) - {"dot"}, "with a white dot"),
    ],
)
def test_parts_of_a_caption_can_be_left_out(without, text):
    scene = Scene("cross", "pink", "up", "teal", "striped", "fading", "white")
    assert caption(scene, without) == text


def test_what_a_caption_says_is_read_back_for_both_halves():
    rng = np.random.default_rng(4)
    for _ in range(300):
        scene = sample_scene(rng, held_out=None, turns=0.5, faults=dict.fromkeys(FAULTS, 0.3))
        values = {n: (scene.value(n), scene.value(n, late=True)) for n in ATTRIBUTES}
        assert asked(caption(scene)) == values
        without = {name for name in ATTRIBUTES if rng.random() < 0.5}
        said = asked(caption(scene, without | {"then_colour"}))
        kept = {n: v for n, v in values.items() if n not in without and n != "colour"}
        assert {n: v for n, v in said.items() if n != "colour"} == kept


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red or green square", {"shape": ("square", "square")}),
        ("a shape turning Blue", {"colour": (None, "blue")}),
        ("red with a red dot", {"colour": ("red", "red"), "dot": ("red", "red")}),
        ("no circle, with no dot", {"shape": ("circle", "circle"), "dot": ("no", "no")}),
        ("a kite in the wind", {}),
        ("a redcircle", {}),
    ],
)
def test_prompts_are_read_by_whole_words_that_are_named_once(prompt, expected):
    assert asked(prompt) == expected


def test_colour_and_motion_change_at_half_time():
    scene = Scene(motion="left", then_motion="up", colour="red", then_colour="green")
    frames = draw(scene, num_frames=17).astype(float)
    object_at = np.linalg.norm(frames - np.array(BACKGROUNDS["navy"]), axis=-1) > 90
    y, x = np.mgrid[:32, :32]
    centre = np.array([[(a * m).sum() / m.sum() for a in (x, y)] for m in object_at])
    move = np.diff(centre, axis=0)
    assert np.all(move[:8, 0] < -0.4)
    assert np.all(np.abs(move[:8, 1]) < 0.3)
    assert np.all(move[8:, 1] < -0.4)
    assert np.all(np.abs(move[8:, 0]) < 0.3)
    for frame, colour in ((0, "red"), (7, "red"), (12, "green"), (16, "green")):
        column, row = centre[frame].round().astype(int)
        np.testing.assert_allclose(frames[frame, row, column], COLOURS[colour], atol=1)
    late = late_readings(17)
    assert late == [False, False, False, True, True]
    colours = [ATTRIBUTES["colour"][i] for i in scene.labels()["colour"]]
    assert colours == ["red", "red", "red", "green", "green"]


@pytest.mark.parametrize(("light", "sign"), [("rising", 1), ("fading", -1), ("steady", 0)])
def test_light_changes_every_pixel_by_the_same_factor(light, sign):
    frames = draw(Scene(light=light, background="gray")).astype(float)
    corner = frames[:, 0, 0, 0] / 112
    expected = np.interp(np.arange(17), (0, 16), LIGHTS[light])
    np.testing.assert_allclose(corner, expected, atol=0.006)
    assert np.sign(corner[-1].round(2) - corner[0].round(2)) == sign


def test_textures_differ_and_stand_still():
    looks = [draw(Scene(texture=t, background="gray", radius=0.01))[:, :8] for t in TEXTURES]
    for frames in looks:
        assert np.array_equal(frames[0], frames[-1])
    for i, one in enumerate(looks):
        for other in looks[:i]:
            assert np.abs(one.astype(int) - other).mean() > 5
    rows, columns = looks[1][0, :, 5, 0], looks[1][0, 3, :, 0]
    assert np.ptp(rows) > 30
    assert np.ptp(columns) == 0


@pytest.mark.parametrize("corner", [(-1, -1), (1, 1), (-1, 1)])
def test_dot_stands_in_its_corner(corner):
    with_dot, without = (draw(Scene(dot=d, corner=corner)) for d in ("yellow", "no"))
    where = np.abs(with_dot.astype(int) - without).max(-1)
    y, x = np.mgrid[:32, :32] - 15.5
    for frame in where:
        centre = [(axis * frame).sum() / frame.sum() / 32 for axis in (x, y)]
        np.testing.assert_allclose(centre, 0.36 * np.array(corner), atol=0.02)


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


def test_flicker_and_shake_move_a_still_clip_and_are_said():
    still = Scene(motion="growing", radius=0.01, texture="checkered", background="gray")
    for fault in ("flickering", "shaky"):
        scene = replace(still, faults=(fault,))
        change = [np.abs(np.diff(draw(s).astype(int), axis=0)).mean() for s in (still, scene)]
        assert change[1] > 3 > change[0]
        assert caption(scene) == f"{fault}, {caption(still)}"
    levels = draw(replace(still, texture="plain", faults=("flickering",))).mean((1, 2, 3)) / 112
    assert 0.05 < levels.std() < 0.25


def test_blurry_clip_says_so_and_has_softer_edges():
    sharp, soft = Scene(), Scene(faults=("blurry",))
    assert caption(soft) == "blurry, " + caption(sharp)
    steepest = [np.abs(np.diff(draw(s).astype(int), axis=2)).max() for s in (sharp, soft)]
    assert steepest[1] < 0.6 * steepest[0]
