"""Guidance rules, one small file each; a rule is one row of `METHODS`."""

from vidcfg.guidance.methods.base import Method
from vidcfg.guidance.methods.cfg import ClassifierFree
from vidcfg.guidance.methods.dual import Dual
from vidcfg.guidance.methods.multi import Multi
from vidcfg.guidance.methods.perp_neg import PerpNeg

METHODS: dict[str, type] = {
    "cfg": ClassifierFree,
    "dual": Dual,
    "multi": Multi,
    "perp_neg": PerpNeg,
}

__all__ = ["METHODS", "ClassifierFree", "Dual", "Method", "Multi", "PerpNeg"]
