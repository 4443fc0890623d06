"""The strengths of a surface as text for a terminal."""

import re

from vidcfg.guidance.frame_map import CausalMap
from vidcfg.guidance.frames import Decay, Ramp, Uniform
from vidcfg.guidance.schedule import Constant, IntervalSchedule, Linear, Listed
from vidcfg.guidance.setting import Guidance
from vidcfg.render.preview import terminal_heat_map


def build(schedule, frames, num_steps=5, num_frames=17):
    guidance = Guidance(scale=schedule, frames=frames)
    return guidance.surface(num_steps=num_steps, num_frames=num_frames, frame_map=CausalMap(4))


def bars(text):
    """The drawn rows of a plain heat map, without labels."""
    return [line.rsplit("  ", 1)[1] for line in text.splitlines()[1:-1]]


def test_the_heat_map_has_a_row_per_step_and_a_column_per_frame():
    text = terminal_heat_map(build(Listed([1.0, 4.0, 8.0]), Ramp(0, 1), 3, 9), width=60)
    rows = bars(text)
    assert [len(row) for row in rows] == [27, 27, 27]
    assert rows[0] == "▁" * 27
    assert rows[2].startswith("▁▁▁")
    assert rows[2].endswith("███")
    assert "▁ 1 to █ 8" in text
    assert text.splitlines()[-1].split() == ["frame", "0", "8"]


def test_the_heat_map_groups_steps_and_frames_to_fit():
    text = terminal_heat_map(build(Linear(9.0, 2.0), Decay(0.1), 50, 161), width=50)
    lines = text.splitlines()
    assert len(bars(text)) == 12
    assert max(len(line) for line in lines) <= 50
    assert lines[1].split()[0] == "0-4"
    assert lines[-2].split()[0] == "46-49"


def test_the_heat_map_is_plain_unless_colour_is_asked_for():
    surface = build(IntervalSchedule(6.0, 0.0, 0.5), Ramp(0, 1))
    plain, coloured = terminal_heat_map(surface), terminal_heat_map(surface, colour=True)
    assert "\x1b" not in plain
    assert "\x1b[48;5;" in coloured
    cells = [re.sub("\x1b.*?m", "", line) for line in coloured.splitlines()[1:-1]]
    assert [len(row) for row in cells] == [len(row) for row in plain.splitlines()[1:-1]]


def test_a_flat_heat_map_says_its_one_strength():
    assert "strength 6 on every frame" in terminal_heat_map(build(Constant(6.0), Uniform()), 40)


def test_a_single_frame_and_a_single_step_are_drawn():
    assert "4" in terminal_heat_map(build(Constant(4.0), Uniform(), 1, 1), 40)
