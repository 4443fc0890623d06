"""The weaker model of autoguidance: another checkpoint, or the model itself degraded."""

import contextlib
import weakref
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.rules.autoguidance import Autoguidance
from vidcfg.pipelines.arguments import images_of
from vidcfg.pipelines.changes.base import ModelChange, StepCall
from vidcfg.pipelines.changes.cads import seeded_noise
from vidcfg.pipelines.changes.perturbed import perturbed
from vidcfg.progress import one_line

_KEPT: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
"""Denoiser -> its weak models, or their weights; they live as long as the denoiser itself."""


class WeakPass(ModelChange, setting=Autoguidance):
    """The pass of a weaker model in the place of the denoiser."""

    def begin(self) -> None:
        self.made: dict[tuple[str, str], Any] = {}
        images = images_of(self.start.family, self.start.arguments)
        for weak in self.of.values():
            if weak.source and images:
                raise ValueError(
                    f"the weak model {weak.source} would not see the image prompt of this "
                    f"call. Degrade the model itself instead: skip: [2], noise: 0.1 or bits: 4."
                )

    @property
    def touches(self) -> dict[str, str]:
        return {weak.kind: "leaves out blocks" for weak in self.of.values() if weak.skip}

    def run(self, call: StepCall) -> Any:
        weak, place = self.of[call.branches[0]], (call.attribute, call.branches[0])
        has_own_weights = weak.source or weak.noise or weak.bits is not None
        if has_own_weights and place not in self.made:
            make = weak_model if weak.source else weak_weights
            device = self.start.hidden.device
            self.made[place] = make(call.module, weak, call.attribute, device)
        made = self.made.get(place)
        model = made if weak.source else call.module
        skip = Perturbation("skip", weak.skip, weak.kind)
        changed = perturbed(model, call.family, skip, call.arguments)
        with changed if weak.skip else contextlib.nullcontext():
            if made is None:
                return call.plain()
            if weak.source:
                return made(**call.arguments)
            swapped = _OwnForward(call.module, call.original)
            return functional_call(swapped, made, kwargs=dict(call.arguments), tie_weights=False)


class _OwnForward(torch.nn.Module):
    """A denoiser as a part, so that its weights can be swapped while its own forward runs."""

    def __init__(self, module: torch.nn.Module, forward: Callable):
        super().__init__()
        self.module, self.run = module, forward

    def forward(self, **arguments: Any) -> Any:
        return self.run(**arguments)


def weak_model(module: Any, weak: Autoguidance, attribute: str, device: torch.device) -> Any:
    """The other checkpoint that stands beside `module`, kept on `device` in the dtype of `module`.

    `attribute` is the denoiser's name in its pipeline.
    """

    def make() -> Any:
        made = _loaded(module, weak, attribute)
        if weak.noise or weak.bits is not None:
            made.load_state_dict(degraded(made.state_dict(), weak), assign=True)
        return made.eval().requires_grad_(False)

    return _kept(module, weak, module.dtype, make).to(device)


def weak_weights(
    module: Any, weak: Autoguidance, attribute: str, device: torch.device
) -> dict[str, Tensor]:
    """Degraded weights of `module` and of the adapters in it, by their names in `_OwnForward`.

    Made anew wherever the weights of `module` have other content than when they were made.

    Raises:
        ValueError: for weights that cannot be degraded: offloaded piece by piece, or quantised.
    """
    weights = module.state_dict()
    _check_plain(weights, {name for name, _ in module.named_parameters()})
    made = _kept(module, weak, content_of(weights), lambda: degraded(weights, weak))
    return {f"module.{name}": tensor.to(device) for name, tensor in made.items()}


def _kept(module: Any, weak: Autoguidance, source: Any, make: Callable[[], Any]) -> Any:
    """What was made of `source` for this setting, or what `make` makes of it now."""
    kept = _KEPT.setdefault(module, {})
    key = (weak.source, weak.subfolder, weak.noise, weak.bits, weak.seed)
    if key not in kept or kept[key][0] != source:
        kept.pop(key, None)  # free it before the next one takes its room
        kept[key] = (source, make())
    return kept[key][1]


def content_of(weights: Mapping[str, Tensor]) -> tuple:
    """What tells weights from others by their bits, whatever holds them and wherever they lie.

    Sums of bits by row, weighted by the place of the row: a few passes over the memory.
    """
    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums = []
    for tensor in weights.values():
        rows = tensor.detach().reshape(tensor.shape[0] if tensor.ndim else 1, -1).contiguous()
        by_row = rows.view(widths[rows.itemsize]).sum(dim=1, dtype=torch.int64)
        place = torch.arange(1, len(by_row) + 1, device=by_row.device)
        sums += [by_row.sum(), (by_row * place).sum()]
    shapes = tuple((name, tensor.dtype, tensor.shape) for name, tensor in weights.items())
    return shapes, tuple(torch.stack(sums).tolist())


def _check_plain(weights: Mapping[str, Any], parameters: Collection[str]) -> None:
    instead = "leave blocks out instead: skip: [2]."
    for name, tensor in weights.items():
        is_tensor = type(tensor) in (Tensor, torch.nn.Parameter)
        if is_tensor and tensor.is_meta:
            raise ValueError(
                "the weights of this model are offloaded piece by piece, so they cannot be "
                f"degraded. Write model.offload: model, or {instead}"
            )
        if not is_tensor or (name in parameters and not tensor.is_floating_point()):
            kind = tensor.dtype if is_tensor else type(tensor).__name__
            raise ValueError(
                f"the weights of this model are quantised ({name}: {kind}), so they cannot be "
                f"degraded. Name a checkpoint of a weaker model, or {instead}"
            )


def degraded(weights: Mapping[str, Tensor], weak: Autoguidance) -> dict[str, Tensor]:
    """Weights with noise added and then rounded, as `weak` says: a function of these alone."""
    made = dict(weights)
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or tensor.numel() < 2:
            continue
        value = tensor.detach().float()
        if weak.noise:
            # A layer that an adapter was put around keeps the noise that it had.
            plain = name.replace(".base_layer.", ".")
            noise = seeded_noise(f"{weak.seed}/{plain}", value.shape).to(value.device)
            value = value + weak.noise * value.std() * noise
        if weak.bits is not None:
            # The nearest of 2^bits levels, evenly spaced between the extremes.
            low, high = value.aminmax()
            step = (high - low) / (2**weak.bits - 1)
            value = value if step == 0 else low + torch.round((value - low) / step) * step
        made[name] = value.to(tensor.dtype)
    return made


def _loaded(module: Any, weak: Autoguidance, attribute: str) -> Any:
    folder, subfolder = Path(weak.source).expanduser(), weak.subfolder or attribute
    if weak.source == "mini":
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
            str(folder) if folder.is_dir() else weak.source,
            subfolder=subfolder,
            torch_dtype=module.dtype,
            local_files_only=folder.is_dir(),
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the weak model {weak.source} cannot be loaded as a {type(module).__name__}: "
            f"{one_line(error)}. Name a folder or repository that holds it, and subfolder."
        ) from error
