from pathlib import Path

import pytest

from vidcfg.evaluate.settings import FAMILIES
from vidcfg.metrics.catalogue import METRICS, NET_METRICS, measured

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
ARROWS = {"lower": "↓", "higher": "↑", "none": "–"}


def rows():
    """Metric name as documented -> cells of its row."""
    found = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            found |= {name.strip(" `").partition("[")[0]: cells for name in cells[0].split(",")}
    return found


@pytest.mark.parametrize("name", [*METRICS, *NET_METRICS])
def test_every_metric_is_documented_with_its_unit_and_direction(name):
    metric = (METRICS | NET_METRICS)[name]
    cells = rows()[name]
    assert metric.unit.replace("^2", "²").replace("*", "·") in cells[3]
    assert cells[4] == ARROWS[metric.better]


def test_nothing_else_is_documented():
    assert set(rows()) == set(METRICS | NET_METRICS)


def test_families_of_weight_free_metrics_can_be_chosen():
    assert {metric.family for metric in METRICS.values()} <= set(FAMILIES)


def test_record_takes_unit_direction_and_protocol_from_the_catalogue():
    record = measured("fd[mini]", 2.0, n=9, protocol="clip=first")
    assert (record.unit, record.better) == ("feature^2", "lower")
    assert record.protocol == "frechet;clip=first"
    null = measured("frame_diff", None, n=0, reason="one frame")
    assert (null.status, null.skipped_reason) == ("invalid", "one frame")
