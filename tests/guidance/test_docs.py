"""docs/guidance.md has a row for every rule and frame mode, with the values of a setting."""

from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from vidcfg.guidance.frames import FrameWeights
from vidcfg.guidance.rules import RULES
from vidcfg.guidance.setting import Guidance

DOC = (Path(__file__).parents[2] / "docs" / "guidance.md").read_text()
SHARED = {"kind", "scale", "frames", "windows"}


def rows(name: str) -> dict[str, list[str]]:
    """First cell -> cells of every row of one table."""
    body = DOC.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0].strip()
    cells = [
        [cell.strip().replace("\0", "|") for cell in line.replace("\\|", "\0")[1:-1].split("|")]
        for line in body.splitlines()
    ]
    assert {len(row) for row in cells} == {len(cells[0])}
    return {row[0].strip("`"): row for row in cells[2:]}


def setting_of(kind: str):
    extra = {"conditions": [{"name": "a", "prompt": "a", "scale": 1.0}]} if kind == "multi" else {}
    return Guidance(scale=0.5, method={"kind": kind, **extra}).method


def test_every_rule_has_a_row_and_every_row_a_rule():
    assert list(rows("rules")) == list(RULES)


@pytest.mark.parametrize("kind", list(RULES))
def test_row_names_every_value_with_its_default(kind):
    method, cells = setting_of(kind), rows("rules")[kind]
    for name, field in type(method).model_fields.items():
        if name in SHARED:
            continue
        default = field.default
        words = {None: "null", (): "[]"}.get(default, default)
        wanted = f"`{name}" if default is PydanticUndefined else f"`{name}: {words}`"
        assert wanted in cells[2], f"{kind}: {wanted}"
    assert all(cells)


@pytest.mark.parametrize("kind", list(RULES))
def test_row_names_the_space_that_the_rule_is_taken_in(kind):
    made = {"multi": RULES["multi"](scales=(("a", 1.0),))}
    method, cell = made.get(kind) or RULES[kind](), rows("rules")[kind][5]
    if "space" in type(setting_of(kind)).model_fields:
        assert cell == method.space


def test_every_frame_mode_has_a_row():
    assert set(rows("frames")) == set(FrameWeights.kinds)
