"""Inflated 3D Inception (I3D) on Kinetics-400: the net of FVD.

Source: Carreira & Zisserman 2017, arXiv:1705.07750; layer names as in the common PyTorch port, so
that its state_dict fits.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vidcfg.metrics.features.base import FeatureNet, stretch
from vidcfg.metrics.record import Backend
from vidcfg.metrics.weight_files import MissingWeightsError, backend_of, refusing

SIDE = 224
NUM_FRAMES = 16
BATCH_NORM_EPSILON = 1e-3
"""That of the original net (Sonnet's default). Readers of the same weights that use 1e-5 get
features that differ by 6e-4."""


def _pad_same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """TensorFlow's SAME: ceil(size / stride) outputs; an odd pixel is padded behind."""
    pads: list[int] = []
    for size, k, s in reversed(list(zip(x.shape[-3:], kernel, stride))):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


class Unit3D(nn.Module):
    """Convolution with SAME padding, batch norm and ReLU; `is_last` has neither of the two."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, is_last: bool = False
    ):
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride=stride, bias=is_last)
        self.bn = None if is_last else nn.BatchNorm3d(outputs, eps=BATCH_NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3d(_pad_same(x, self.conv3d.kernel_size, self.conv3d.stride))
        return x if self.bn is None else functional.relu(self.bn(x))


class Pool(nn.MaxPool3d):
    """Max pooling with SAME padding by zeros; its inputs are never negative."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_pad_same(x, self.kernel_size, self.stride))


class Mixed(nn.Module):
    """Four branches side by side: 1; 1-3; 1-3; pool-1."""

    def __init__(self, inputs: int, *widths: int):
        super().__init__()
        one, reduce_a, three_a, reduce_b, three_b, pooled = widths
        self.b0 = Unit3D(inputs, one)
        self.b1a, self.b1b = Unit3D(inputs, reduce_a), Unit3D(reduce_a, three_a, 3)
        self.b2a, self.b2b = Unit3D(inputs, reduce_b), Unit3D(reduce_b, three_b, 3)
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Unit3D(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        three = (self.b1b(self.b1a(x)), self.b2b(self.b2a(x)))
        return torch.cat([self.b0(x), *three, self.b3b(self.b3a(x))], dim=1)


_LAYERS = {
    "Conv3d_1a_7x7": (Unit3D, 3, 64, 7, 2),
    "MaxPool3d_2a_3x3": (Pool, (1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1": (Unit3D, 64, 64),
    "Conv3d_2c_3x3": (Unit3D, 64, 192, 3),
    "MaxPool3d_3a_3x3": (Pool, (1, 3, 3), (1, 2, 2)),
    "Mixed_3b": (Mixed, 192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (Mixed, 256, 128, 128, 192, 32, 96, 64),
    "MaxPool3d_4a_3x3": (Pool, (3, 3, 3), (2, 2, 2)),
    "Mixed_4b": (Mixed, 480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (Mixed, 512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (Mixed, 512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (Mixed, 512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (Mixed, 528, 256, 160, 320, 32, 128, 128),
    "MaxPool3d_5a_2x2": (Pool, (2, 2, 2), (2, 2, 2)),
    "Mixed_5b": (Mixed, 832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (Mixed, 832, 384, 192, 384, 48, 128, 128),
}


class I3D(nn.Module):
    """Videos in [-1, 1] to the 400 logits before the softmax, averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        for name, (kind, *sizes) in _LAYERS.items():
            self.add_module(name, kind(*sizes))
        self.logits = Unit3D(1024, 400, is_last=True)

    def forward(self, video: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 400"]:
        """Raises ValueError below 9 frames or 193 pixels, where nothing is left to average."""
        x, (num_frames, *sides) = video, video.shape[2:]
        if num_frames < 9 or min(sides) < 193:
            raise ValueError(
                f"I3D needs 9 frames and 193 x 193 pixels or more, not {tuple(video.shape[2:])}: "
                "it halves time three times and averages two steps."
            )
        for name in _LAYERS:
            x = getattr(self, name)(x)
        x = functional.avg_pool3d(x, (2, 7, 7), stride=1)
        return self.logits(x).mean(dim=(2, 3, 4))


class I3DNet(FeatureNet):
    """FVD features by one of two published protocols.

    Never called comparable with literature: the epsilon of published values is not settled.

    google: TensorFlow 1's bilinear stretch to 224 x 224, unbiased covariance (Unterthiner et al.
    2018). styleganv: torch's bilinear stretch, covariance divided by n (Skorokhodov et al. 2022).
    """

    name = "i3d-k400"
    num_frames = min_frames = NUM_FRAMES

    def __init__(
        self, model: nn.Module, *, protocol: str, backend: Backend, device: str = "cpu"
    ) -> None:
        if protocol not in ("google", "styleganv"):
            raise ValueError(f"protocol is {protocol!r}, allowed are 'google' and 'styleganv'.")
        self.backend = backend
        self._is_legacy = protocol == "google"
        resize = "legacy" if self._is_legacy else "centred"
        self.protocol = f"{protocol};resize=224sq-bilinear-{resize};T={NUM_FRAMES};stride=1"
        self.protocol += f";clip=first;bn-eps={BATCH_NORM_EPSILON:g}"
        self.is_biased_covariance = not self._is_legacy
        self._model, self.device = model.eval().to(device), device

    def prepare(self, frames: np.ndarray) -> np.ndarray:
        return stretch(frames, SIDE, SIDE, is_legacy=self._is_legacy)

    def encode(self, clip: Tensor) -> Tensor:
        return self._model(clip.transpose(0, 1)[None] * 2 - 1)


def load_i3d(path: str | Path) -> I3D:
    """The net with weights from a state_dict file, all of them.

    Raises:
        MissingWeightsError: the file is no state_dict of this net.
    """
    model = I3D()
    # Counters of the batch norms, which some files leave out, change nothing.
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    with refusing(path, "is no state_dict of I3D"):
        stored = torch.load(path, map_location="cpu", weights_only=True)
        missing, unexpected = model.load_state_dict(stored | counters, strict=False)
    if missing or unexpected:
        raise MissingWeightsError(
            f"{path} is no state_dict of I3D: missing {missing[:3]}, unexpected {unexpected[:3]}."
        )
    return model


def load(path: Path, *, protocol: str, device: str) -> I3DNet:
    """I3D from a file of its weights."""
    backend = backend_of("i3d-k400", path)
    return I3DNet(load_i3d(path), protocol=protocol, backend=backend, device=device)
