"""Which blocks of a denoiser a perturbation acts on."""

from dataclasses import dataclass
from typing import Any

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.pipelines.blocks import Blocks


@dataclass(frozen=True)
class Layer:
    """One transformer block: its number through all lists, its name in the denoiser, itself."""

    index: int
    name: str
    block: Any


def all_layers(module: Any, blocks: Blocks) -> list[Layer]:
    """Every block of a denoiser, numbered through the family's lists."""
    found: list[Layer] = []
    for path in blocks.lists:
        for i, block in enumerate(module.get_submodule(path)):
            found.append(Layer(len(found), f"{path}.{i}", block))
    return found


def find_layers(module: Any, blocks: Blocks, perturbation: Perturbation) -> list[Layer]:
    """The blocks that a perturbation names, or the family's own choice for its rule.

    Raises:
        ValueError: for a layer that this model does not have, with the ones that it has.
    """
    layers = all_layers(module, blocks)
    wanted, own = perturbation.layers, False
    if not wanted:
        own = True
        wanted = blocks.layers.get(perturbation.rule, blocks.layers.get("stg", ()))
        if wanted == "all":
            return layers
        wanted = wanted or (len(layers) // 2,)
    by_key = {key: layer for layer in layers for key in (layer.index, layer.name)}
    missing = [key for key in wanted if key not in by_key]
    if missing:
        raise ValueError(_no_such_layer(missing, layers, module, perturbation.rule, own))
    return [by_key[key] for key in dict.fromkeys(wanted)]


def _no_such_layer(
    missing: list[int | str], layers: list[Layer], module: Any, rule: str, own: bool
) -> str:
    told = ", ".join(map(str, missing))
    known = ", ".join(f"{layer.index} ({layer.name})" for layer in layers)
    why = "which is the usual one of this family, " if own else ""
    return (
        f"{rule} perturbs layer {told}, {why}but this {type(module).__name__} has the layers "
        f"{known}. Give some of them, by number or by name: layers: [{len(layers) // 2}]."
    )
