"""All metrics: importing this registers those of every family."""

from vidcfg.metrics.metric import FAMILIES, METRICS, measured

__all__ = ["FAMILIES", "METRICS", "measured"]

for _family in FAMILIES.values():
    _family.load()
