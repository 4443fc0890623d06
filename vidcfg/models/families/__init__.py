"""The pipelines that can be guided: one small declaration each, one row in a table."""

from typing import Any

from vidcfg.models.families import cogvideox, hunyuan_video, ltx, mini, mochi, wan
from vidcfg.models.families.family import Family

_BUILT_IN = (mini, wan, ltx, cogvideox, hunyuan_video, mochi)

FAMILIES: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in _BUILT_IN}


def register_family(family: Family) -> None:
    """Make `vidcfg.guide` accept the pipeline classes of `family`.

    Raises:
        ValueError: if its name or one of its pipeline classes is taken.
    """
    if family.name in FAMILIES:
        raise ValueError(f"a family named {family.name!r} exists. Choose another name.")
    for other in FAMILIES.values():
        taken = set(family.pipelines) & set(other.pipelines)
        if taken:
            raise ValueError(f"{', '.join(sorted(taken))} belongs to the family {other.name!r}.")
    FAMILIES[family.name] = family


def family_of(pipe: Any) -> Family:
    """The family of a pipeline, by the name of its class or of the classes it derives from.

    Raises:
        ValueError: for a pipeline that no family covers, with the ones that are.
    """
    for cls in type(pipe).__mro__:
        for family in FAMILIES.values():
            if cls.__name__ in family.pipelines:
                return family
    known = ", ".join(name for family in FAMILIES.values() for name in family.pipelines)
    raise ValueError(
        f"vidcfg cannot guide a {type(pipe).__name__}. It knows {known}. For another pipeline "
        f"declare how it names its inputs: "
        f"vidcfg.register_family(vidcfg.models.families.Family(...))."
    )


__all__ = ["FAMILIES", "Family", "family_of", "register_family"]
