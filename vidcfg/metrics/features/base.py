"""What a feature net is, which ones there are by name, and the sizes they want frames in."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vidcfg.extras import explained
from vidcfg.metrics.frames import to_unit
from vidcfg.metrics.record import Backend, Record
from vidcfg.metrics.weight_files import WEIGHTS, MissingWeightsError, find_weights

NETS = {
    "mini": "vidcfg.metrics.features.mini",
    "i3d-k400": "vidcfg.metrics.features.i3d",
    "r3d18-k400": "vidcfg.metrics.features.r3d18",
}
"""Net name -> module with `load(path, protocol, device) -> FeatureNet`."""


class FeatureNet(ABC):
    """Clips in, one feature vector each out.

    `num_frames` frames are taken from the start of a video; one with fewer than `min_frames` has
    no features.
    """

    name: str
    backend: Backend
    protocol: str
    num_frames: int
    min_frames: int
    device: Any = "cpu"
    is_biased_covariance: bool = False
    is_published: bool = False
    """True if values may be compared with published ones, given enough clips."""

    @abstractmethod
    def prepare(self, frames: np.ndarray) -> np.ndarray:
        """Frames [T, 3, H, W], uint8 or float32 in [0, 1], at the net's size: float32."""

    def encode(self, clip: Any) -> Any:
        """Features [1, D] of a prepared clip, both tensors on `device`."""
        raise NotImplementedError

    def features(self, clips: np.ndarray) -> Float[np.ndarray, "B D"]:
        """Features float32 of prepared clips [B, T, 3, H, W] in [0, 1].

        Each goes through the net on its own: a convolution may round differently in another batch
        size.

        Raises:
            ValueError: if values lie outside [0, 1].
        """
        import torch

        check_clips(clips)
        with torch.inference_mode():
            inside = (torch.from_numpy(np.clip(clip, 0, 1)).to(self.device) for clip in clips)
            return torch.cat([self.encode(clip) for clip in inside]).float().cpu().numpy()

    def judge(self, clip: np.ndarray, prompt: str | None) -> tuple[np.ndarray, list[Record]]:
        """The features [D] of a prepared clip, and what the net says of it and its prompt."""
        return self.features(clip[None])[0], []


def load_net(
    name: str,
    *,
    protocol: str = "google",
    paths: Mapping[str, str | Path] | None = None,
    device: str = "cpu",
) -> FeatureNet:
    """The net of that name; `protocol` concerns I3D.

    Raises:
        MissingWeightsError: its weights, or packages, are not here or not what they should be.
        ValueError: there is no such net or protocol.
    """
    if name not in NETS:
        raise ValueError(f"no feature net is named {name!r}. Known: {', '.join(NETS)}.")
    # Asked before the module is imported: without weights there is no need to load torch.
    path = find_weights(name, paths=paths) if name in WEIGHTS else (paths or {}).get(name)
    with explained(name, "render" if name == "mini" else "metrics", MissingWeightsError):
        return import_module(NETS[name]).load(path, protocol=protocol, device=device)


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


def area_to_side(frames: np.ndarray, side: int) -> np.ndarray:
    """Frames [T, C, H, W] with the shorter side reduced to `side` by area averaging.

    Smaller frames stay as they are. Float32 in [0, 1].
    """
    import cv2

    frames = to_unit(frames)
    height, width = frames.shape[-2:]
    shorter = min(height, width)
    if shorter <= side:
        return frames
    size = (round(width * side / shorter), round(height * side / shorter))
    channels_last = frames.transpose(0, 2, 3, 1)
    small = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in channels_last]
    return np.clip(np.stack(small).transpose(0, 3, 1, 2), 0, 1)


def stretch(frames: np.ndarray, height: int, width: int, *, is_legacy: bool = False) -> np.ndarray:
    """Bilinear resize without antialiasing, the ratio of the sides not kept; float32 in [0, 1].

    Pixel centres are aligned, as by torch's `align_corners=False`. Legacy is TensorFlow 1, and the
    published FVD of google-research: output pixel i samples at i * scale.
    """
    frames = to_unit(frames)
    for axis, size in ((2, height), (3, width)):
        offset, last = 0.0 if is_legacy else 0.5, frames.shape[axis] - 1
        position = (np.arange(size, dtype=np.float64) + offset) * ((last + 1) / size) - offset
        position = np.maximum(position, 0)
        lower = np.minimum(np.floor(position).astype(int), last)
        part = (position - lower).astype(np.float32)
        part = part[:, None] if axis == 2 else part
        low = frames.take(lower, axis=axis)
        high = frames.take(np.minimum(lower + 1, last), axis=axis)
        frames = low + (high - low) * np.clip(part, 0, 1)
    return frames
