"""Guidance rules, one small file each. A file in this folder is found by being here."""

from importlib import import_module
from pkgutil import iter_modules

from vidcfg.guidance.rule import Rule

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

RULES = Rule.kinds
"""Every rule by its name in the YAML, those that user code enters included."""
