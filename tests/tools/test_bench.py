import pytest
from bench.__main__ import in_page
from bench.harness import HEADS, Row, measured


def row(calls, *, agree=True, **facts):
    def check():
        assert agree
        return "equal"

    return Row("r", lambda: calls.append("peer"), lambda: calls.append("ours"), check, **facts)


def test_nothing_is_timed_where_both_do_not_agree():
    calls = []
    with pytest.raises(AssertionError):
        measured(row(calls, agree=False))
    assert calls == []


def test_both_run_in_turns_and_each_goes_first_as_often():
    calls = []
    cells = dict(zip(HEADS, measured(row(calls, rounds=3, goal=2)), strict=True))
    assert calls == ["peer", "ours", "ours", "peer", "peer", "ours"]
    assert (cells["row"], cells["to reach"], cells["agreement"]) == ("r", "2 x", "equal")


def test_a_section_takes_the_place_of_the_one_of_its_name_and_no_other():
    page = in_page("", ["## b\n\nold\n", "## a\n\nfirst\n"])
    again = in_page(page, ["## b\n\nnew\n"])
    assert "old" in page
    assert again == page.replace("old", "new")
    assert again.index("## a") < again.index("## b")
