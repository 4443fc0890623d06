"""The degraded latents of self-attention guidance, and the way back to a prediction."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.perturbation import Degradation
from vidcfg.guidance.prediction import convert
from vidcfg.pipelines.changes.blur import blur_matrix


@dataclass(frozen=True)
class Space:
    """Where a step's predictions live: their layout, their kind, the noise level.

    `sizes` are the latent frames, rows and columns.
    """

    layout: FrameLayout
    sizes: tuple[int, int, int]
    kind: str
    level: tuple[float, float]

    def volume(self, latents: Tensor) -> Float[Tensor, "B F C H W"]:
        """Latents of the model's layout as a volume."""
        frames = self.layout.frames(latents, self.sizes[0])
        if self.layout.axes == "tokens":
            return frames.unflatten(2, self.sizes[1:]).movedim(-1, 2)
        return frames

    def restore(self, volume: Float[Tensor, "B F C H W"]) -> Tensor:
        """The inverse of `volume`."""
        if self.layout.axes == "tokens":
            volume = volume.movedim(2, -1).flatten(2, 3)
        return self.layout.restore(volume)

    def change(self, latents: Tensor, noisy: Tensor, before: str, after: str) -> Tensor:
        """A prediction of one kind as one of another."""
        alpha, sigma = self.level
        return convert(latents, noisy, before, after, alpha=alpha, sigma=sigma)


def degraded_latents(
    noisy: Tensor,
    cond: Tensor,
    saliency: Float[Tensor, "B F2 H2 W2"],
    degradation: Degradation,
    space: Space,
) -> Tensor:
    """alpha x0' + sigma eps: the estimate of `cond`, blurred where it is salient, noised again.

    `noisy` holds the channels of a prediction alone. On pure noise it is given back as it is.
    """
    alpha, sigma = space.level
    if alpha == 0:
        return noisy
    x, p = noisy.float(), cond.float()
    x0 = space.volume(space.change(p, x, space.kind, "sample"))
    mask = salient(saliency, degradation.threshold, space.sizes)
    x0 = torch.where(mask, blurred_frames(x0, degradation.blur), x0)
    eps = space.change(p, x, space.kind, "epsilon")
    return (alpha * space.restore(x0) + sigma * eps).to(noisy.dtype)


def seen_from(noisy: Tensor, degraded: Tensor, prediction: Tensor, space: Space) -> Tensor:
    """The prediction that has, at `noisy`, the noise that was predicted at `degraded`."""
    if space.level[0] == 0:
        return prediction
    eps = space.change(prediction.float(), degraded.float(), space.kind, "epsilon")
    return space.change(eps, noisy.float(), "epsilon", space.kind).to(prediction.dtype)


def salient(
    saliency: Float[Tensor, "B F2 H2 W2"], threshold: float, sizes: tuple[int, int, int]
) -> Tensor:
    """Where tokens receive more than `threshold` times the mean attention: [B, F, 1, H, W]."""
    mask = (saliency > threshold).float()[:, None]
    return interpolate(mask, size=sizes, mode="nearest").movedim(1, 2) > 0.5


def blurred_frames(video: Float[Tensor, "B F C H W"], sigma: float) -> Float[Tensor, "B F C H W"]:
    """Each frame blurred by a Gaussian; weights are normalised inside the frame at its edges."""
    rows = blur_matrix(video.shape[-2], sigma, video.device)
    columns = blur_matrix(video.shape[-1], sigma, video.device)
    with torch.autocast(video.device.type, enabled=False):
        return rows @ video @ columns.T
