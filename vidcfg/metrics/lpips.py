"""LPIPS between neighbouring frames, plain and with motion taken out."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vidcfg.metrics.catalogue import lpips_names, measured
from vidcfg.metrics.flow import MIN_COVERAGE, MIN_SIZE, Pair
from vidcfg.metrics.frames import to_unit
from vidcfg.metrics.meters import Meter
from vidcfg.metrics.record import Backend, ClipInfo, Record
from vidcfg.metrics.weight_files import MissingWeightsError, find_weights, sha256_of

NETS = ("alex", "squeeze", "vgg")

SMALLEST = 32
"""Below this shorter side AlexNet's last layers have nothing to see."""


class Lpips:
    """LPIPS 0.1 of batches of frames, with the range owned here: [0, 1] in, [-1, 1] to the net."""

    def __init__(
        self, model: nn.Module, *, net: str, backend: Backend, device: str = "cpu"
    ) -> None:
        self.net = net
        self.backend = backend
        self._model = model.eval().to(device)
        self._device = device

    @torch.inference_mode()
    def distance(self, first: np.ndarray, second: np.ndarray) -> list[float]:
        """LPIPS of each pair of frames [B, 3, H, W] in [0, 1].

        Raises:
            ValueError: another type, or values outside [0, 1].
        """
        first, second = (torch.from_numpy(to_unit(x)).to(self._device) for x in (first, second))
        return self._model(first, second, normalize=True).reshape(-1).float().cpu().tolist()


class LpipsMeter(Meter):
    """`lpips_adjacent` of every pair, and `lpips_warp` of a frame and the next moved onto it.

    Pixels that are not seen in both frames are taken from the first, so that they count as equal;
    a pair that shares less than half of its pixels is left out.
    """

    lags = (1,)

    def __init__(self, net: Lpips, *, batch_size: int = 16) -> None:
        self._net = net
        self._batch_size = batch_size
        self._plain: list[float] = []
        self._warped: list[float | None] = []
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
        self._size = 0

    def add_frame(self, frame: np.ndarray) -> None:
        self._size = min(frame.shape[-2:])

    def add_pair(self, pair: Pair, lag: int) -> None:
        if self._size < max(SMALLEST, MIN_SIZE):
            return
        first = to_unit(pair.first)
        moved = None
        if pair.coverage >= MIN_COVERAGE:
            moved = np.where(pair.is_visible, pair.warped, first)
        self._waiting.append((first, to_unit(pair.second), moved))
        if len(self._waiting) == self._batch_size:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        first, second, moved = zip(*self._waiting)
        self._plain += self._net.distance(np.stack(first), np.stack(second))
        known = [i for i, frame in enumerate(moved) if frame is not None]
        found: list[float | None] = [None] * len(moved)
        if known:
            values = self._net.distance(
                np.stack([first[i] for i in known]),
                np.stack([np.clip(moved[i], 0, 1) for i in known]),
            )
            for i, value in zip(known, values):
                found[i] = value
        self._warped += found
        self._waiting.clear()

    def finish(self, clip: ClipInfo) -> list[Record]:
        self._flush()
        plain, warped = lpips_names(self._net.net)
        return [
            self._record(plain, self._plain),
            self._record(warped, self._warped),
        ]

    def _record(self, name: str, trace: list) -> Record:
        known = [value for value in trace if value is not None]
        rest = {"backend": self._net.backend}
        if self._size < SMALLEST:
            reason = f"frames are smaller than the {SMALLEST} pixels that LPIPS needs"
            return measured(name, None, n=0, reason=reason, status="skipped", **rest)
        if not trace:
            reason = "the clip has fewer than 2 frames"
            return measured(name, None, n=0, reason=reason, status="skipped", **rest)
        if 2 * len(known) <= len(trace):
            reason = f"optical flow explains {len(known)} of {len(trace)} pairs"
            return measured(name, None, n=len(known), reason=reason, **rest)
        value = float(np.mean(known))
        return measured(name, value, n=len(known), trace=tuple(trace), **rest)


def load_lpips(
    net: str, *, paths: Mapping[str, str | Path] | None = None, device: str = "cpu"
) -> Lpips:
    """LPIPS with an ImageNet backbone from a local file and the heads of the lpips package.

    Raises:
        MissingWeightsError: no backbone file, or one that does not fit.
        ValueError: `net` is none of alex, squeeze, vgg.
    """
    if net not in NETS:
        raise ValueError(f"LPIPS has no net {net!r}. Known: {', '.join(NETS)}.")
    path = find_weights(f"lpips-{net}", paths=paths)
    model = empty_lpips(net)
    load_backbone(model, path)
    return Lpips(
        model,
        net=net,
        backend=Backend(f"lpips-0.1-{net}", sha256_of(path), path.name),
        device=device,
    )


def empty_lpips(net: str) -> nn.Module:
    """The package's model with its trained heads and a random backbone: not a metric yet."""
    import lpips

    with warnings.catch_warnings():
        # torchvision warns about arguments that lpips 0.1.4 passes.
        warnings.simplefilter("ignore", UserWarning)
        return lpips.LPIPS(net=net, pretrained=True, pnet_rand=True, verbose=False)


def load_backbone(model: nn.Module, path: str | Path) -> None:
    """Fill every backbone tensor from a torchvision checkpoint.

    Raises:
        MissingWeightsError: the file is no checkpoint, or lacks a tensor or has it in another
        shape.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise MissingWeightsError(f"{path} cannot be loaded as weights: {error}.") from error
    wanted = model.net.state_dict()
    filled = {}
    for key, tensor in wanted.items():
        # slice2.3.weight is features.3.weight of the torchvision net.
        source = "features." + key.partition(".")[2]
        if source not in stored or stored[source].shape != tensor.shape:
            raise MissingWeightsError(f"{path} is not the backbone of this LPIPS: {source}.")
        filled[key] = stored[source]
    model.net.load_state_dict(filled, strict=True)
