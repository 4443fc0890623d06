"""The tables and counts of the documents are those of the rules and frame weightings."""

import re
import sys
from pathlib import Path

import pytest

from vidcfg.guidance.frames import FrameWeights
from vidcfg.guidance.rule import Rule
from vidcfg.guidance.rules import RULES

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import guidance_tables  # noqa: E402

OURS = {kind: cls for kind, cls in RULES.items() if cls.__module__.startswith("vidcfg.")}


def test_tables_of_the_document_are_those_that_the_classes_give():
    text = guidance_tables.DOC.read_text()
    assert guidance_tables.written(text) == text, "run python tools/guidance_tables.py"


@pytest.mark.parametrize("kind", list(OURS))
def test_row_names_every_value_with_its_default_and_has_no_empty_cell(kind):
    cells = guidance_tables.rule_row(kind, OURS[kind])
    for name, field in OURS[kind].model_fields.items():
        if name in Rule.model_fields:
            continue
        words = {None: "null", (): "[]"}.get(field.default, field.default)
        wanted = f"`{name}" if field.is_required() else f"`{name}: {words}`"
        assert wanted in cells[2], f"{kind}: {wanted}"
    assert all(cells)
    if "space" in OURS[kind].model_fields:
        assert cells[5] == OURS[kind].model_fields["space"].default


def test_every_frame_mode_has_a_full_row():
    for kind, cls in FrameWeights.kinds.items():
        if cls.__module__.startswith("vidcfg."):
            assert all(guidance_tables.frame_row(kind, cls)), kind


def test_the_readme_counts_the_rules_right():
    (count,) = re.findall(r"is one of (\d+) rules", (ROOT / "README.md").read_text())
    assert int(count) == len(OURS)
