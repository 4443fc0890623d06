"""From what a user writes to what runs: rules, pipelines, guided pipelines, costs."""

from importlib import import_module

_PUBLIC = {
    "build_rule": "vidcfg.build.rule",
    "guide": "vidcfg.build.guided",
    "load_pipeline": "vidcfg.build.model",
    "make_scheduler": "vidcfg.build.schedulers",
    "plan_render": "vidcfg.build.cost",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'vidcfg.build' has no attribute {name!r}")
