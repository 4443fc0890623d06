"""LPIPS between neighbouring frames, plain and with motion taken out."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.extras import explained
from vidcfg.metrics.flow import FLOW_PROTOCOL, MASK_PROTOCOL, MIN_COVERAGE, MIN_SIZE, Pair
from vidcfg.metrics.frames import to_unit
from vidcfg.metrics.meters import Meter
from vidcfg.metrics.metric import averaged, declare, measured
from vidcfg.metrics.record import Backend, Record
from vidcfg.metrics.weight_files import (
    MissingWeightsError,
    backend_of,
    find_weights,
    named,
    refusing,
)

SMALLEST = 32
"""Below this shorter side AlexNet's last layers have nothing to see."""

BATCH_PIXELS = 1 << 21
"""Pixels of all frames that go through the net together: one frame of 1080p."""

_PROTOCOL = "lpips-0.1;input=-1..1;no-resize"
declare("lpips_adjacent", "lpips", "lpips", "lower", _PROTOCOL)
declare("lpips_warp", "lpips", "lpips", "lower", f"{_PROTOCOL};{FLOW_PROTOCOL};{MASK_PROTOCOL}")


@dataclass(eq=False)
class Lpips:
    """LPIPS 0.1 of batches of frames, with the range owned here: [0, 1] in, [-1, 1] to the net."""

    model: Any
    net: str
    backend: Backend
    is_published: bool = False
    device: str = "cpu"

    def features(self, frames: np.ndarray) -> list[list[Any]]:
        """What the net sees in each of frames [B, 3, H, W] in [0, 1]: unit vectors, by layer.

        Raises:
            ValueError: another type, or values outside [0, 1].
        """
        import torch

        with torch.inference_mode():
            scaled = 2 * torch.from_numpy(to_unit(frames)).to(self.device) - 1
            layers = self.model.net(self.model.scaling_layer(scaled))
            for layer in layers:
                layer /= (layer * layer).sum(dim=1, keepdim=True).sqrt_() + 1e-10
            return [list(of_frame) for of_frame in zip(*layers)]

    def between(self, pairs: Sequence[tuple[list[Any], list[Any]]]) -> list[float]:
        """LPIPS of each pair of frames, given by their `features`."""
        import torch

        weights = [lin.model[-1].weight.flatten() for lin in self.model.lins]
        with torch.inference_mode():
            found = [
                sum((a - b).square_().mean(dim=(1, 2)) @ w for a, b, w in zip(*pair, weights))
                for pair in pairs
            ]
            return torch.stack(found).float().cpu().tolist()


class LpipsMeter(Meter):
    """`lpips_adjacent` of every pair, and `lpips_warp` of a frame and the next moved onto it.

    Pixels that are not seen in both frames are taken from the first, so that they count as equal;
    a pair that shares less than half of its pixels is left out. A frame goes through the net once
    for both of its neighbours.
    """

    lags = (1,)

    def __init__(self, net: Lpips, *, batch_size: int = 16) -> None:
        self._net, self._batch_size, self.backend = net, batch_size, net.backend
        self._plain: list[float] = []
        self._warped: list[float | None] = []
        self._frames: list[np.ndarray] = []
        self._moved: list[np.ndarray | None] = []
        self._last: list[Any] | None = None
        self._size = 0
        self._cuts: list[int] = []

    def start_shot(self, start: int) -> None:
        self._flush()
        self._last = None
        self._cuts.append(start)

    def add_frame(self, frame: np.ndarray) -> None:
        self._size = min(frame.shape[-2:])

    def add_pair(self, pair: Pair) -> None:
        if self._size < max(SMALLEST, MIN_SIZE):
            return
        first, moved = to_unit(pair.first), None
        if self._last is None and not self._frames:
            self._frames.append(first)
        if pair.coverage >= MIN_COVERAGE:
            warped = pair.warped.transpose(2, 0, 1)[: len(first)]
            moved = np.clip(np.where(pair.is_visible, warped, first), 0, 1)
        self._frames.append(to_unit(pair.second))
        self._moved.append(moved)
        room = max(1, BATCH_PIXELS // first[0].size)
        if len(self._moved) >= min(self._batch_size, room):
            self._flush()

    def _flush(self) -> None:
        if not self._moved:
            return
        seen = [self._last] if self._last else []
        seen += self._net.features(np.stack(self._frames))
        self._plain += self._net.between(list(pairwise(seen)))
        known = {i: frame for i, frame in enumerate(self._moved) if frame is not None}
        if known:
            moved = self._net.features(np.stack(list(known.values())))
            values = self._net.between([(seen[i], features) for i, features in zip(known, moved)])
            known = dict(zip(known, values))
        self._warped += map(known.get, range(len(self._moved)))
        self._last = seen[-1]
        self._frames.clear()
        self._moved.clear()

    def finish(self) -> list[Record]:
        self._flush()
        traces = {"lpips_adjacent": self._plain, "lpips_warp": self._warped}
        return [self._record(f"{name}[{self._net.net}]", t) for name, t in traces.items()]

    def _record(self, name: str, trace: list[float | None]) -> Record:
        known = [value for value in trace if value is not None]
        made = averaged(known, reason="the clip has fewer than 2 frames")
        if self._size < SMALLEST:
            made["reason"] = f"frames are smaller than the {SMALLEST} pixels that LPIPS needs"
        elif trace and 2 * len(known) <= len(trace):
            reason = f"optical flow explains {len(known)} of {len(trace)} pairs"
            made = {"value": None, "n": len(known), "reason": reason}
        elif trace:
            for start in self._cuts:
                trace.insert(start - 1, None)
            made["trace"] = tuple(trace)
        # With motion taken out by this flow, it is no quantity that others publish.
        is_comparable = self._net.is_published and name.startswith("lpips_adjacent")
        made["comparable_to_literature"] = is_comparable and made["value"] is not None
        return measured(name, backend=self.backend, **made)


def label(settings: Any) -> str:
    """What stands in the brackets of the records' names."""
    return settings.lpips_net


@explained("LPIPS", "metrics", MissingWeightsError)
def load_meter(settings: Any, *, prompt: str | None, fps: float) -> LpipsMeter:
    """The meter of one clip; the net is loaded once a process."""
    # Without the weights there is no need to load torch.
    path = find_weights(f"lpips-{settings.lpips_net}", paths=settings.paths)
    net = load_lpips(settings.lpips_net, path, device=settings.device)
    return LpipsMeter(net, batch_size=settings.batch_size)


@lru_cache(maxsize=2)
def load_lpips(net: str, path: Path, *, device: str = "cpu") -> Lpips:
    """LPIPS with an ImageNet backbone from a local file and the heads of the lpips package.

    Values are comparable with published ones where the file is one that was tried on such.

    Raises:
        MissingWeightsError: a file that does not fit.
    """
    model = empty_lpips(net).to(device)
    load_backbone(model, path)
    backend, weight = backend_of(f"lpips-0.1-{net}", path), named(f"lpips-{net}")
    is_published = bool(weight.tried) and backend.sha256 == weight.sha256
    return Lpips(model, net, backend, is_published, device)


def empty_lpips(net: str) -> Any:
    """The package's model with its trained heads and a random backbone: not a metric yet."""
    import lpips

    with warnings.catch_warnings():
        # torchvision warns about arguments that lpips 0.1.4 passes.
        warnings.simplefilter("ignore", UserWarning)
        return lpips.LPIPS(net=net, pretrained=True, pnet_rand=True, verbose=False)


def load_backbone(model: Any, path: str | Path) -> None:
    """Fill every backbone tensor from a torchvision checkpoint, or the like as safetensors.

    Raises:
        MissingWeightsError: the file is no checkpoint, or lacks a tensor or has it in another
        shape.
    """
    import torch
    from safetensors.torch import load_file

    with refusing(path, "cannot be loaded as weights"):
        if Path(path).suffix == ".safetensors":
            stored = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    filled = {}
    for key, tensor in model.net.state_dict().items():
        # slice2.3.weight is features.3.weight of the torchvision net.
        source = "features." + key.partition(".")[2]
        if source not in stored or stored[source].shape != tensor.shape:
            raise MissingWeightsError(f"{path} is not the backbone of this LPIPS: {source}.")
        filled[key] = stored[source]
    model.net.load_state_dict(filled, strict=True)
