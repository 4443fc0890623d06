"""Inflated 3D Inception (I3D) on Kinetics-400: the net of FVD.

Source: Carreira & Zisserman 2017, arXiv:1705.07750; layer names as in the common PyTorch port, so
that its state_dict fits.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vidcfg.metrics.features.base import FeatureNet, check_clips
from vidcfg.metrics.features.resize import stretch_centred, stretch_legacy
from vidcfg.metrics.record import Backend
from vidcfg.metrics.weight_files import MissingWeightsError, find_weights, sha256_of

SIDE = 224
NUM_FRAMES = 16
MIN_FRAMES = 10
"""The net runs from 9 frames on; 10 is what published numbers use as their shortest."""


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME: ceil(size / stride) outputs; an odd pixel is padded behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad_same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    pads: list[int] = []
    for size, k, s in reversed(list(zip(x.shape[-3:], kernel, stride))):
        pads += _same_padding(size, k, s)
    return functional.pad(x, pads)


class Unit3D(nn.Module):
    """Convolution with SAME padding, batch norm and ReLU; `is_last` has neither of the two."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, is_last: bool = False
    ):
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride=stride, bias=is_last)
        self.bn = None if is_last else nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3d(_pad_same(x, self.conv3d.kernel_size, self.conv3d.stride))
        return x if self.bn is None else functional.relu(self.bn(x))


class Pool(nn.Module):
    """Max pooling with SAME padding by zeros; its inputs are never negative."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool3d(
            _pad_same(x, self.kernel, self.stride), self.kernel, self.stride
        )


class Mixed(nn.Module):
    """Four branches side by side: 1; 1-3; 1-3; pool-1."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]):
        super().__init__()
        one, reduce_a, three_a, reduce_b, three_b, pooled = widths
        self.b0 = Unit3D(inputs, one)
        self.b1a = Unit3D(inputs, reduce_a)
        self.b1b = Unit3D(reduce_a, three_a, 3)
        self.b2a = Unit3D(inputs, reduce_b)
        self.b2b = Unit3D(reduce_b, three_b, 3)
        self.b3a = Pool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit3D(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        branches = [
            self.b0(x),
            self.b1b(self.b1a(x)),
            self.b2b(self.b2a(x)),
            self.b3b(self.b3a(x)),
        ]
        return torch.cat(branches, dim=1)


_MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}


class I3D(nn.Module):
    """Videos in [-1, 1] to the 400 logits before the softmax, averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {
            "Conv3d_1a_7x7": Unit3D(3, 64, 7, 2),
            "MaxPool3d_2a_3x3": Pool((1, 3, 3), (1, 2, 2)),
            "Conv3d_2b_1x1": Unit3D(64, 64),
            "Conv3d_2c_3x3": Unit3D(64, 192, 3),
            "MaxPool3d_3a_3x3": Pool((1, 3, 3), (1, 2, 2)),
        }
        for name, (first, second) in _MIXED.items():
            layers[name] = (
                Mixed(first, second) if name.startswith("Mixed") else Pool(first, second)
            )
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.logits = Unit3D(1024, 400, is_last=True)

    def forward(self, video: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 400"]:
        """Raises ValueError below 9 frames or 193 pixels, where nothing is left to average."""
        x = video
        for layer in self.children():
            if layer is not self.logits:
                x = layer(x)
        if x.shape[2] < 2 or min(x.shape[3:]) < 7:
            raise ValueError(
                f"I3D needs 9 frames and 193 x 193 pixels or more, not {tuple(video.shape[2:])}: "
                "it halves time three times and averages two steps."
            )
        x = functional.avg_pool3d(x, (2, 7, 7), stride=1)
        return self.logits(x).mean(dim=(2, 3, 4))


class I3DNet(FeatureNet):
    """FVD features by one of two published protocols.

    google: TensorFlow 1's bilinear stretch to 224 x 224, unbiased covariance (Unterthiner et al.
    2018). styleganv: torch's bilinear stretch, covariance divided by n (Skorokhodov et al. 2022).
    """

    name = "i3d-k400"
    num_frames = NUM_FRAMES
    min_frames = NUM_FRAMES

    def __init__(
        self,
        model: nn.Module,
        *,
        protocol: str,
        backend: Backend,
        is_published: bool,
        device: str = "cpu",
    ):
        if protocol not in ("google", "styleganv"):
            raise ValueError(f"protocol is {protocol!r}, allowed are 'google' and 'styleganv'.")
        self.backend = backend
        resize = "bilinear-legacy" if protocol == "google" else "bilinear-centred"
        self.protocol = f"{protocol};resize=224sq-{resize};T={NUM_FRAMES};stride=1;clip=first"
        self.is_biased_covariance = protocol == "styleganv"
        self.is_published = is_published
        self._stretch = stretch_legacy if protocol == "google" else stretch_centred
        self._model = model.eval().to(device)
        self._device = device

    def prepare(self, frames: np.ndarray) -> np.ndarray:
        return self._stretch(frames, SIDE, SIDE)

    @torch.inference_mode()
    def features(self, clips: np.ndarray) -> np.ndarray:
        check_clips(clips)
        # One clip at a time: a convolution may round differently in another batch size.
        rows = []
        for clip in clips:
            video = torch.from_numpy(np.clip(clip, 0, 1)).to(self._device)
            rows.append(self._model(video.transpose(0, 1)[None] * 2 - 1))
        return torch.cat(rows).float().cpu().numpy()


def load_i3d(path: str | Path) -> I3D:
    """The net with weights from a state_dict file, all of them.

    Raises:
        MissingWeightsError: the file is no state_dict of this net.
    """
    model = I3D()
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        stored = {k: v for k, v in stored.items() if not k.endswith("num_batches_tracked")}
        missing, unexpected = model.load_state_dict(stored, strict=False)
    except Exception as error:
        raise MissingWeightsError(f"{path} is no state_dict of I3D: {error}.") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise MissingWeightsError(
            f"{path} is no state_dict of I3D: missing {missing[:3]}, unexpected {unexpected[:3]}."
        )
    return model


def load(*, protocol: str, paths: Mapping[str, str | Path] | None, device: str) -> I3DNet:
    """I3D from its named weights, or from a local file; only the checked file is comparable."""
    path = find_weights("i3d-k400", paths=paths)
    backend = Backend("i3d-k400", sha256_of(path), path.name)
    is_published = "i3d-k400" not in (paths or {})
    model = load_i3d(path)
    return I3DNet(
        model, protocol=protocol, backend=backend, is_published=is_published, device=device
    )
