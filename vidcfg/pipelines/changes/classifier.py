"""Classifier guidance: what the gradient of a log-probability does to a prediction."""

from collections.abc import Callable

import torch
from torch import Tensor

from vidcfg.guidance.prediction import coefficients

LogProb = Callable[[Tensor, float, int], Tensor]
"""(noisy latents [B, ...] in the model's layout, sigma, step) -> log p(y | x_t) [B]."""


def classifier_shift(
    log_prob: LogProb | None,
    noisy: Tensor,
    *,
    level: tuple[float, float] | None,
    kind: str,
    step: int,
    num_channels: int | None = None,
    channel_axis: int = 1,
) -> Tensor:
    """How a prediction of `kind` moves when eps moves by -sigma grad log p.

    `noisy` may hold further channels behind those of a prediction, which get no gradient. At
    alpha = 0 (pure noise) the shift is 0.

    Raises:
        ValueError: without a `log_prob`, without a noise level, or if its result is not one
            number per sample that depends on the latents.
    """
    if log_prob is None:
        raise ValueError(
            "guidance.method: classifier needs a function: vidcfg.guide(pipe, guidance, "
            "classifier=lambda x_t, sigma, step: ...), which returns log p(y | x_t) per sample."
        )
    if level is None:
        raise ValueError(
            "guidance.method: classifier needs the noise level of the scheduler, which this "
            "scheduler does not give. Use a flow or DDIM scheduler."
        )
    alpha, sigma = level
    if num_channels is not None:
        noisy = noisy.narrow(channel_axis, 0, num_channels)
    if alpha == 0:
        return torch.zeros_like(noisy)
    with torch.enable_grad():
        x = noisy.detach().float().requires_grad_()
        value = log_prob(x, sigma, step)
        if not isinstance(value, Tensor) or value.shape != (len(x),) or not value.requires_grad:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"the classifier returned {found}; return a tensor of shape ({len(x)},), one "
                f"log-probability per sample, computed from x_t with gradients on."
            )
        (gradient,) = torch.autograd.grad(value.sum(), x)
    _, factor = coefficients("epsilon", kind, alpha, sigma)
    return (-sigma * factor * gradient).to(noisy.dtype)
