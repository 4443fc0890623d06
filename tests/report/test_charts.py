import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from vidcfg.report.charts import LETTER, Point, curve_chart, scatter_chart, ticks
from vidcfg.report.formats import number
from vidcfg.report.write import _change_charts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.012, 0.031, [0.015, 0.02, 0.025, 0.03])],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert ticks(low, high) == expected


def test_tick_of_one_value_is_that_value():
    assert ticks(3.0, 3.0) == [3.0]


def test_numbers_are_short_and_have_a_minus_sign():
    assert number(-0.000012345) == "−1.234e−5"
    assert number(0.35771) == "0.3577"


def positions(svg, attribute):
    hits = re.findall(r'class="hit" cx="([\d.]+)" cy="([\d.]+)"', svg)
    return [float(hit[attribute]) for hit in hits]


def test_larger_values_stand_higher_and_further_right():
    points = [Point(x, y, 0, "tip") for x, y in ((1, 0.2), (3, 0.1), (9, 0.4))]
    svg = curve_chart(points, title="t", x_name="x", y_name="y")
    across, down = positions(svg, 0), positions(svg, 1)
    assert across[0] < across[1] < across[2]
    assert down[2] < down[0] < down[1]
    # Positions are proportional: (9 - 3) is three times (3 - 1).
    assert (across[2] - across[1]) / (across[1] - across[0]) == pytest.approx(3, abs=0.02)


def test_hostile_text_is_escaped_and_the_chart_stays_well_formed():
    bad = '"><script>alert(1)</script>&'
    point = Point(1, 1, 0, bad, low=0.5, high=2, x_low=0.9, x_high=1.1, label=bad)
    for svg in (
        curve_chart([point], title=bad, x_name=bad, y_name=bad, x_labels={1: bad}),
        scatter_chart([point, Point(2, 3, 9, bad)], [0, 1], title=bad, x_name=bad, y_name=bad),
    ):
        assert "<script" not in svg
        root = ElementTree.fromstring(svg)
        assert root.find(".//g[@data-tip]").get("data-tip") == bad


def test_front_steps_through_its_points_only():
    points = [Point(1, 1, 0, ""), Point(2, 0.5, 0, ""), Point(3, 2, 0, "")]
    svg = scatter_chart(points, [0, 2], title="", x_name="", y_name="")
    path = re.search(r'class="front" d="([^"]+)"', svg)[1]
    assert path.count("H") == 1
    assert path.startswith(f"M{positions(svg, 0)[0]:.1f} {positions(svg, 1)[0]:.1f}H")


def labels(svg):
    """Place, anchor and text of the labels under the axis, then of those beside it."""
    texts = re.findall(
        r'<text class="" x="([\d.]+)" y="[\d.]+" text-anchor="(\w+)" >([^<]*)<', svg
    )
    return [[(float(x), text) for x, at, text in texts if at == end] for end in ("middle", "end")]


def test_axis_of_a_narrow_range_repeats_no_label():
    points = [Point(1e5 + 0.001 * x, 0.33 + 1e-7 * x, 0, "") for x in range(12)]
    drawn = scatter_chart(points, [], title="", x_name="", y_name="")
    for found in labels(drawn):
        texts = [text for _, text in found]
        assert len(texts) > 1
        assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("values", [(1, 1.05, 1.1, 7, 15), (1.00001, 2.00002, 2.1, 3, 3.1, 3.2)])
def test_labels_under_an_axis_do_not_touch(values):
    points = [Point(x, 1, 0, "") for x in values]
    found, _ = labels(curve_chart(points, title="", x_name="", y_name=""))
    assert len(found) > 1
    for (x, text), (next_x, after) in pairwise(found):
        assert x + len(text) * LETTER / 2 <= next_x - len(after) * LETTER / 2


def test_last_label_under_an_axis_stays_in_the_picture():
    points = [Point(0.018575, 1, 0, "")]
    svg = scatter_chart(points, [], title="", x_name="", y_name="")
    width = float(re.search(r'viewBox="0 0 (\d+)', svg)[1])
    x, text = labels(svg)[0][-1]
    assert x + len(text) * LETTER / 2 <= width


def test_names_that_do_not_fit_under_the_axis_are_numbered():
    long = {float(i): f"a setting with a long name, {i}" for i in range(5)}
    points = [Point(x, 1, 0, "") for x in long]
    svg = curve_chart(points, title="", x_name="cell", y_name="", x_labels=long)
    assert [text for _, text in labels(svg)[0]] == ["1", "2", "3", "4", "5"]
    assert "cell, by its place in the table" in svg
    short = {0.0: "calm", 1.0: "strong"}
    svg = curve_chart(points[:2], title="", x_name="cell", y_name="", x_labels=short)
    assert [text for _, text in labels(svg)[0]] == ["calm", "strong"]


def test_labels_of_marks_that_lie_together_are_not_drawn_over_each_other():
    points = [
        Point(1, 1, 0, "", label="3.5"),
        Point(1.001, 1.001, 1, "", label="4"),
        Point(2, 2, 0, "", label="6"),
    ]
    svg = scatter_chart(points, [], title="", x_name="", y_name="")
    assert re.findall(r'class="label"[^>]*>([^<]+)<', svg) == ["3.5", "6"]


def test_bars_of_a_few_prompts_leave_the_marks_apart_and_say_where_they_end():
    cells = [{"id": i, "label": i, "line": "", "x": x} for x, i in enumerate("abc")]
    facts = {"what": "flicker", "metric": "mc_flicker", "p": 1, "p_fdr": 1, "is_clear": False}
    facts |= {"is_ratio": True, "low": -0.99}
    changes = [
        {**facts, "cell": "b", "change": 6.8, "high": 1.7e12},
        {**facts, "cell": "c", "change": 0.0, "high": 3.0},
    ]
    axis = {"name": None, "lines": [""]}
    analysis = {"cells": cells, "changes": changes, "baseline": "a", "axis": axis}
    ((_, chart),) = _change_charts(analysis)
    assert "change in %, bars cut at 6800" in chart
    marks = [float(y) for y in re.findall(r'class="hit" cx="[\d.]+" cy="([\d.]+)"', chart)]
    assert len(marks) == 3
    assert max(marks) - min(marks) > 15  # pixels of about 210
    analysis["changes"] = changes[1:]
    assert "cut" not in next(_change_charts(analysis))[1]
