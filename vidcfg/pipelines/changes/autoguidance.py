"""The weaker model of autoguidance: another checkpoint, or the model itself degraded."""

import contextlib
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidcfg.guidance.perturbation import Perturbation, WeakModel
from vidcfg.pipelines.changes.base import ModelChange, StepCall, changes_model
from vidcfg.pipelines.changes.cads import seeded_noise
from vidcfg.pipelines.changes.perturbed import perturbed

_KEPT: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
"""Denoiser -> its weak models; they live as long as the denoiser itself."""


@changes_model(WeakModel)
class WeakPass(ModelChange):
    """The pass of a weaker model in the place of the denoiser."""

    @property
    def skipping(self) -> list[str]:
        return [weak.rule for weak in self.of.values() if weak.skip]

    def run(self, call: StepCall) -> Any:
        weak = self.of[call.branches[0]]
        model = weak_model(call.module, weak, call.attribute, self.start.hidden.device)
        changed = contextlib.nullcontext()
        if weak.skip:
            skip = Perturbation("skip", weak.skip, weak.rule)
            changed = perturbed(model, call.family, skip, call.arguments)
        with changed:
            return call.plain() if model is call.module else model(**call.arguments)


def weak_model(module: Any, weak: WeakModel, attribute: str, device: torch.device) -> Any:
    """The weak model beside `module`, made once for each setting and kept on `device`.

    `attribute` is the denoiser's name in its pipeline. A model that only leaves blocks out is
    `module` itself.

    Raises:
        ValueError: for a checkpoint that cannot be loaded, or weights that cannot be degraded.
    """
    if not weak.has_own_weights:
        return module
    kept = _KEPT.setdefault(module, {})
    key = (weak.checkpoint, weak.subfolder, weak.noise, weak.bits, weak.seed)
    if key not in kept:
        made = _loaded(module, weak, attribute) if weak.checkpoint else _copy(module)
        if weak.noise or weak.bits is not None:
            made.load_state_dict(degraded(made.state_dict(), weak), assign=True)
        kept[key] = made.eval().requires_grad_(False)
    return kept[key].to(device)


def degraded(weights: Mapping[str, Tensor], weak: WeakModel) -> dict[str, Tensor]:
    """Weights with noise added and then rounded, as `weak` says: a function of these alone."""
    return {name: _degraded(name, tensor, weak) for name, tensor in weights.items()}


def _degraded(name: str, tensor: Tensor, weak: WeakModel) -> Tensor:
    if not tensor.is_floating_point() or tensor.numel() < 2:
        return tensor
    value = tensor.detach().float()
    if weak.noise:
        noise = seeded_noise(f"{weak.seed}/{name}", value.shape).to(value.device)
        value = value + weak.noise * value.std() * noise
    if weak.bits is not None:
        value = rounded(value, weak.bits)
    return value.to(tensor.dtype)


def rounded(value: Float[Tensor, "..."], bits: int) -> Float[Tensor, "..."]:
    """`value` rounded to the nearest of 2^bits levels, evenly spaced between its extremes."""
    low, high = value.aminmax()
    step = (high - low) / (2**bits - 1)
    return value if step == 0 else low + torch.round((value - low) / step) * step


def _copy(module: Any) -> Any:
    """A model of the same configuration and weights."""
    weights = module.state_dict()
    if any(tensor.is_meta for tensor in weights.values()):
        raise ValueError(
            "the weights of this model are offloaded piece by piece, so they cannot be degraded. "
            "Write model.offload: model, or leave blocks out instead: skip: [2]."
        )
    with torch.random.fork_rng():
        made = type(module).from_config(module.config)
    made.load_state_dict({name: tensor.clone() for name, tensor in weights.items()}, assign=True)
    return made


def _loaded(module: Any, weak: WeakModel, attribute: str) -> Any:
    folder, subfolder = Path(weak.checkpoint).expanduser(), weak.subfolder or attribute
    if weak.checkpoint == "mini":
        from vidcfg.mini.model import STDiT
        from vidcfg.mini.pipeline import MINI_PATH

        if not isinstance(module, STDiT):
            raise ValueError(
                "guidance.method: autoguidance takes the weak checkpoint of the mini model, but "
                f"this is a {type(module).__name__}. Say what is weak: checkpoint: FOLDER, or "
                f"degrade the model itself: skip: [2]."
            )
        folder, subfolder = MINI_PATH, "transformer_weak"
    elif weak.subfolder is None and (folder / "config.json").is_file():
        subfolder = None
    try:
        return type(module).from_pretrained(
            str(folder) if folder.is_dir() else weak.checkpoint,
            subfolder=subfolder,
            torch_dtype=module.dtype,
            local_files_only=folder.is_dir(),
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"the weak model {weak.checkpoint} cannot be loaded as a {type(module).__name__}: "
            f"{reason}. Name a folder or repository that holds it, and subfolder."
        ) from error
