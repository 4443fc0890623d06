"""The pipelines that can be guided: one small declaration each, found by walking this folder."""

import pkgutil
from importlib import import_module
from typing import Any

from vidcfg.pipelines.families.refused import REFUSED
from vidcfg.pipelines.family import Family
from vidcfg.plugins import load_plugins

__all__ = [
    "FAMILIES",
    "Family",
    "adapted_family",
    "family_of",
    "pipeline_class",
    "register_family",
]

FAMILIES: dict[str, Family] = {
    value.name: value
    for found in pkgutil.iter_modules(__path__)
    for value in vars(import_module(f"{__name__}.{found.name}")).values()
    if isinstance(value, Family)
}
OURS = frozenset(FAMILIES)


def register_family(family: Family) -> None:
    """Make `vidcfg.guide` accept the pipeline classes of `family`.

    Declared anew, as a cell of a notebook is run again, it takes the place of the one before.

    Raises:
        ValueError: if its name or one of its pipeline classes is taken.
    """
    known = FAMILIES.get(family.name)
    if known is not None and (family.name in OURS or known.pipelines != family.pipelines):
        raise ValueError(f"a family named {family.name!r} exists. Choose another name.")
    FAMILIES.pop(family.name, None)
    for other in FAMILIES.values():
        taken = set(family.pipelines) & set(other.pipelines)
        if taken:
            raise ValueError(f"{', '.join(sorted(taken))} belongs to the family {other.name!r}.")
    FAMILIES[family.name] = family


def family_of(pipe: Any) -> Family:
    """The family of a pipeline, by the name of its class or of the classes it derives from.

    Raises:
        ValueError: for a pipeline that no family covers, with the reason where there is one.
    """
    names = [cls.__name__ for cls in type(pipe).__mro__]
    if not any(name in family.pipelines for family in FAMILIES.values() for name in names):
        load_plugins()
    for name in names:
        for family in FAMILIES.values():
            if name in family.pipelines:
                return family.of(pipe)
    name = type(pipe).__name__
    if name in REFUSED:
        raise ValueError(
            f"vidcfg cannot guide a {name}: {REFUSED[name]}. `vidcfg families` lists what it can."
        )
    known = ", ".join(name for family in FAMILIES.values() for name in family.pipelines)
    raise ValueError(
        f"vidcfg cannot guide a {name}. It knows {known}. For another pipeline "
        f"declare how it names its inputs: "
        f"vidcfg.register_family(vidcfg.pipelines.families.Family(...)), see docs/families.md."
    )


def pipeline_class(name: str) -> type | None:
    """The pipeline class of that name, from the module of its family; None if there is none."""
    module = next((f.module for f in FAMILIES.values() if name in f.pipelines), "diffusers")
    return getattr(import_module(module), name, None)


def adapted_family(part: str) -> Family:
    """The family whose pipeline that part makes of another family's checkpoint."""
    return next(f for f in FAMILIES.values() if f.adapter is not None and f.adapter.part == part)
