"""What a user may write: strict YAML, checked models, errors that say what to type.

    config = load_render_config("configs/quickstart.yaml", ["guidance.scale=3.0"])

Imports neither torch nor anything else of vidcfg.
"""

from vidcfg.config.base import ConfigModel, Finding, Fraction, Number, Positive, Range
from vidcfg.config.checks import check_run
from vidcfg.config.document import ConfigDocument, apply_overrides, load_document, read_document
from vidcfg.config.errors import ConfigError, Place, Problem
from vidcfg.config.frames import (
    DecayFrames,
    KeyframesFrames,
    KnotsFrames,
    RampFrames,
    TrapezoidFrames,
    TriangleFrames,
    UniformFrames,
    Window,
)
from vidcfg.config.guidance import Guidance, Rescale, Threshold
from vidcfg.config.methods import Cfg, Condition, Dual, Multi, PerpNeg
from vidcfg.config.render import (
    DiffusersModel,
    MiniModel,
    Output,
    Prompt,
    RenderConfig,
    Sampling,
    VideoShape,
    load_render_config,
)
from vidcfg.config.schedules import (
    ConstantSchedule,
    CosineSchedule,
    IntervalSchedule,
    KnotsSchedule,
    LinearSchedule,
    ListSchedule,
    StepSchedule,
)
from vidcfg.config.strict_yaml import dump_yaml
from vidcfg.config.validation import validate

__all__ = [
    "Cfg",
    "Condition",
    "ConfigDocument",
    "ConfigError",
    "ConfigModel",
    "ConstantSchedule",
    "CosineSchedule",
    "DecayFrames",
    "DiffusersModel",
    "Dual",
    "Finding",
    "Fraction",
    "Guidance",
    "IntervalSchedule",
    "KeyframesFrames",
    "KnotsFrames",
    "KnotsSchedule",
    "LinearSchedule",
    "ListSchedule",
    "MiniModel",
    "Multi",
    "Number",
    "Output",
    "PerpNeg",
    "Place",
    "Positive",
    "Problem",
    "Prompt",
    "RampFrames",
    "Range",
    "RenderConfig",
    "Rescale",
    "Sampling",
    "StepSchedule",
    "Threshold",
    "TrapezoidFrames",
    "TriangleFrames",
    "UniformFrames",
    "VideoShape",
    "Window",
    "apply_overrides",
    "check_run",
    "dump_yaml",
    "load_document",
    "load_render_config",
    "read_document",
    "validate",
]
