"""What a feature net is, and which ones there are by name. Imports no torch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import numpy as np

from vidcfg.metrics.record import Backend
from vidcfg.metrics.weight_files import WEIGHTS, find_weights

NETS = {
    "mini": "vidcfg.metrics.features.mini",
    "i3d-k400": "vidcfg.metrics.features.i3d",
    "r3d18-k400": "vidcfg.metrics.features.r3d18",
}
"""Net name -> module with `load(protocol, paths, device) -> FeatureNet`."""


class FeatureNet(ABC):
    """Clips in, one feature vector each out.

    `num_frames` frames are taken from the start of a video; a video with fewer has no features,
    but with `is_any_length` at least `min_frames` do.
    """

    name: str
    backend: Backend
    protocol: str
    num_frames: int
    min_frames: int
    is_biased_covariance: bool = False
    is_published: bool = False
    """True if values may be compared with published ones, given enough clips."""

    @abstractmethod
    def prepare(self, frames: np.ndarray) -> np.ndarray:
        """Frames [T, 3, H, W], uint8 or float32 in [0, 1], at the net's size: float32."""

    @abstractmethod
    def features(self, clips: np.ndarray) -> np.ndarray:
        """Features float32 [B, D] of prepared clips [B, T, 3, H, W] in [0, 1].

        Raises:
            ValueError: if values lie outside [0, 1].
        """


def load_net(
    name: str,
    *,
    protocol: str = "google",
    paths: Mapping[str, str | Path] | None = None,
    device: str = "cpu",
) -> FeatureNet:
    """The net of that name; `protocol` concerns I3D.

    Raises:
        MissingWeightsError: its weights are not here or not what they should be.
        ValueError: there is no such net or protocol.
    """
    if name not in NETS:
        raise ValueError(f"no feature net is named {name!r}. Known: {', '.join(NETS)}.")
    if name in WEIGHTS:
        # Asked before the module is imported: without weights there is no need to load torch.
        find_weights(name, paths=paths)
    return import_module(NETS[name]).load(protocol=protocol, paths=paths, device=device)


def check_clips(clips: np.ndarray) -> None:
    """Raise ValueError unless clips are float32 [B, T, 3, H, W] in [0, 1]."""
    if clips.dtype != np.float32 or clips.ndim != 5 or clips.shape[2] != 3:
        raise ValueError(
            f"clips are {clips.dtype} {clips.shape}; nets take float32 [B, T, 3, H, W]."
        )
    low, high = float(clips.min()), float(clips.max())
    # Resizing in float32 may pass the ends by a rounding.
    if not (low >= -1e-5 and high <= 1 + 1e-5):
        raise ValueError(f"clips reach from {low:g} to {high:g}; nets take [0, 1] here.")
