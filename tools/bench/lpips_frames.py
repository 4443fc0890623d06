"""LPIPS of neighbouring frames, against the `lpips` package on one pair after the other.

AlexNet with random weights, which cost what trained ones do.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from harness import Row
from lpips import LPIPS

from vidcfg.metrics.lpips import Lpips
from vidcfg.metrics.record import Backend


def rows() -> Iterator[Row]:
    torch.manual_seed(0)
    model = LPIPS(net="alex", pnet_rand=True, verbose=False)
    yield row(model, num_frames=17, height=480, width=832)


def row(model: LPIPS, num_frames: int, height: int, width: int) -> Row:
    clip = np.random.default_rng(0).random((num_frames, 3, height, width), dtype=np.float32)
    net = Lpips(model, net="alex", backend=Backend("random"))

    def peer() -> list[float]:
        frames = torch.from_numpy(clip)
        with torch.inference_mode():
            return [
                model(one[None], other[None], normalize=True).item()
                for one, other in pairwise(frames)
            ]

    def ours() -> list[float]:
        found, last = [], None
        for frame in clip:
            (features,) = net.features(frame[None])
            found += net.between([(last, features)]) if last else []
            last = features
        return found

    def check() -> str:
        error = np.abs(np.divide(ours(), peer()) - 1).max()
        assert error <= 1e-6, error
        return f"relative {error:.0e}"

    name = f"{num_frames} frames of {height} x {width}"
    return Row(name, peer, ours, check, goal=1.8, rounds=3)
