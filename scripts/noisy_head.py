"""A noise-aware classifier of a few hundred numbers, for classifier guidance of the mini model."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class NoisyHead:
    """Classes told apart by the mean latent of a clip, at every noise level of a flow.

    With m the mean over all positions of x_t = (1 - sigma) x0 + sigma eps, N positions a clip:

        p(m | y) = Normal((1 - sigma) mean_y, (1 - sigma)^2 covariance + sigma^2 / N)

    so it knows nothing at sigma = 1 and is sharpest at 0. Classes are equally likely beforehand.
    """

    means: Float[Tensor, "K C"]
    covariance: Float[Tensor, "C C"]

    def log_probs(self, x_t: Float[Tensor, "B C F H W"], sigma: float) -> Float[Tensor, "B K"]:
        """log p(y | x_t) of every class."""
        count = x_t[0, 0].numel()
        mean = x_t.flatten(2).mean(dim=2)
        spread = (1 - sigma) ** 2 * self.covariance
        spread = spread + (sigma**2 / count + 1e-6) * torch.eye(len(spread), device=x_t.device)
        apart = mean[:, None] - (1 - sigma) * self.means
        distance = (apart * torch.linalg.solve(spread, apart[..., None])[..., 0]).sum(dim=-1)
        return (-distance / 2).log_softmax(dim=-1)

    def log_prob(self, labels: Int[Tensor, " B"]) -> Callable[[Tensor, float, int], Tensor]:
        """The function that `vidcfg.guide(classifier=...)` takes, for one class per sample."""

        def of_labels(x_t: Tensor, sigma: float, step: int) -> Tensor:
            return self.log_probs(x_t, sigma).gather(1, labels[:, None])[:, 0]

        return of_labels


def fit_noisy_head(
    latents: Float[Tensor, "B C F H W"], labels: Int[Tensor, " B"], *, num_classes: int
) -> NoisyHead:
    """The class means and the common covariance of the mean latents of clean clips.

    Raises:
        ValueError: if a class has no clip.
    """
    values = latents.float().flatten(2).mean(dim=2)
    missing = sorted(set(range(num_classes)) - set(labels.tolist()))
    if missing:
        raise ValueError(f"no clip is of the classes {missing}. Give some of every class.")
    means = torch.stack([values[labels == k].mean(dim=0) for k in range(num_classes)])
    apart = values - means[labels]
    return NoisyHead(means, apart.T @ apart / len(values))
