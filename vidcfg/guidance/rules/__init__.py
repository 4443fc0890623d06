"""Guidance rules, one small file each; a rule is one row of `METHODS`."""

from collections.abc import Callable

from vidcfg.guidance.rules.adaptive_stop import AdaptiveStop
from vidcfg.guidance.rules.apg import AdaptiveProjected
from vidcfg.guidance.rules.autoguidance import autoguidance
from vidcfg.guidance.rules.base import Method
from vidcfg.guidance.rules.cads import cads
from vidcfg.guidance.rules.cfg import ClassifierFree
from vidcfg.guidance.rules.cfg_pp import CfgPlusPlus
from vidcfg.guidance.rules.classifier import Classifier
from vidcfg.guidance.rules.composite import Composite
from vidcfg.guidance.rules.delta_reuse import DeltaReuse
from vidcfg.guidance.rules.dual import Dual
from vidcfg.guidance.rules.embedded import Embedded
from vidcfg.guidance.rules.freq import FrequencyDecoupled
from vidcfg.guidance.rules.mambo import MagnitudeAware
from vidcfg.guidance.rules.multi import Multi
from vidcfg.guidance.rules.pag import pag
from vidcfg.guidance.rules.perp_neg import PerpNeg
from vidcfg.guidance.rules.renorm import Renorm
from vidcfg.guidance.rules.sag import sag
from vidcfg.guidance.rules.seg import seg
from vidcfg.guidance.rules.slg import slg
from vidcfg.guidance.rules.stg import stg
from vidcfg.guidance.rules.tcfg import Tangential
from vidcfg.guidance.rules.zero_star import ZeroStar

METHODS: dict[str, Callable[..., Method]] = {
    "cfg": ClassifierFree,
    "dual": Dual,
    "multi": Multi,
    "perp_neg": PerpNeg,
    "apg": AdaptiveProjected,
    "zero_star": ZeroStar,
    "tcfg": Tangential,
    "mambo": MagnitudeAware,
    "renorm": Renorm,
    "freq": FrequencyDecoupled,
    "cfg_pp": CfgPlusPlus,
    "adaptive_stop": AdaptiveStop,
    "delta_reuse": DeltaReuse,
    "pag": pag,
    "slg": slg,
    "stg": stg,
    "seg": seg,
    "sag": sag,
    "autoguidance": autoguidance,
    "cads": cads,
    "embedded": Embedded,
    "classifier": Classifier,
}

__all__ = [
    "METHODS",
    "AdaptiveProjected",
    "AdaptiveStop",
    "CfgPlusPlus",
    "ClassifierFree",
    "Composite",
    "DeltaReuse",
    "Dual",
    "FrequencyDecoupled",
    "MagnitudeAware",
    "Method",
    "Multi",
    "PerpNeg",
    "Renorm",
    "Tangential",
    "ZeroStar",
]
