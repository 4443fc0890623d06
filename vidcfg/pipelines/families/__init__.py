"""The pipelines that can be guided: one small declaration each, one row in a table."""

from typing import Any

from vidcfg.pipelines.families import (
    animatediff,
    cogvideox,
    flux,
    hunyuan_video,
    hunyuan_video15,
    ltx,
    ltx2,
    mini,
    mochi,
    skyreels_v2,
    stable_diffusion,
    svd,
    wan,
)
from vidcfg.pipelines.family import Family

_VIDEO = (mini, wan, skyreels_v2, ltx, ltx2, cogvideox, hunyuan_video, hunyuan_video15, mochi)
_UNETS = (svd, animatediff)
_IMAGE = (stable_diffusion.SD15, stable_diffusion.SDXL, stable_diffusion.SD3, flux.FAMILY)

FAMILIES: dict[str, Family] = {
    family.name: family for family in (*(m.FAMILY for m in (*_VIDEO, *_UNETS)), *_IMAGE)
}


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
        f"vidcfg.register_family(vidcfg.pipelines.families.Family(...)), see docs/families.md."
    )


__all__ = ["FAMILIES", "Family", "family_of", "register_family"]
