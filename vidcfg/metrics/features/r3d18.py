"""torchvision's R3D-18 on Kinetics-400 as a feature net. Its distances are never called FVD."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vidcfg.metrics.features.base import FeatureNet, stretch
from vidcfg.metrics.record import Backend
from vidcfg.metrics.weight_files import backend_of, refusing

MEAN = (0.43216, 0.394666, 0.37645)
STD = (0.22803, 0.22145, 0.216989)


class R3D18Net(FeatureNet):
    """512 pooled features of the first 16 frames, stretched to 128 x 171, the middle 112 x 112."""

    name = "r3d18-k400"
    protocol = "resize=128x171-bilinear;crop=112;T=16;stride=1;clip=first"
    num_frames = min_frames = 16

    def __init__(self, model: nn.Module, *, backend: Backend, device: str = "cpu") -> None:
        self.backend, self.device = backend, device
        net = model.eval().to(device)
        self._layers = nn.Sequential(net.stem, net.layer1, net.layer2, net.layer3, net.layer4)

    def prepare(self, frames: np.ndarray) -> np.ndarray:
        return stretch(frames, 128, 171)[:, :, 8:120, 30:142]

    def encode(self, clip: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(v, device=self.device).reshape(3, 1, 1, 1) for v in (MEAN, STD))
        x = self._layers(((clip.transpose(0, 1) - mean) / std)[None])
        return functional.adaptive_avg_pool3d(x, 1).flatten(1)


def load(path: Path, *, protocol: str, device: str) -> R3D18Net:
    """R3D-18 from a file of its weights."""
    from torchvision.models.video import r3d_18

    model = r3d_18(weights=None)
    with refusing(path, "is no state_dict of R3D-18"):
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return R3D18Net(model, backend=backend_of("r3d18-k400", path), device=device)
