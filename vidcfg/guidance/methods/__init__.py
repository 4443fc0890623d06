"""Guidance rules, one small file each; a rule is one row of `METHODS`."""

from collections.abc import Callable

from vidcfg.guidance.methods.adaptive_stop import AdaptiveStop
from vidcfg.guidance.methods.apg import AdaptiveProjected
from vidcfg.guidance.methods.autoguidance import autoguidance
from vidcfg.guidance.methods.base import Method
from vidcfg.guidance.methods.cads import cads
from vidcfg.guidance.methods.cfg import ClassifierFree
from vidcfg.guidance.methods.cfg_pp import CfgPlusPlus
from vidcfg.guidance.methods.classifier import Classifier
from vidcfg.guidance.methods.composite import Composite
from vidcfg.guidance.methods.delta_reuse import DeltaReuse
from vidcfg.guidance.methods.dual import Dual
from vidcfg.guidance.methods.embedded import Embedded
from vidcfg.guidance.methods.freq import FrequencyDecoupled
from vidcfg.guidance.methods.mambo import MagnitudeAware
from vidcfg.guidance.methods.multi import Multi
from vidcfg.guidance.methods.pag import pag
from vidcfg.guidance.methods.perp_neg import PerpNeg
from vidcfg.guidance.methods.renorm import Renorm
from vidcfg.guidance.methods.sag import sag
from vidcfg.guidance.methods.seg import seg
from vidcfg.guidance.methods.slg import slg
from vidcfg.guidance.methods.stg import stg
from vidcfg.guidance.methods.tcfg import Tangential
from vidcfg.guidance.methods.zero_star import ZeroStar

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
