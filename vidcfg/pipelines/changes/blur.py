"""Gaussian blur of tokens that stand in a grid."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def blur_matrix(size: int, sigma: float, device: torch.device) -> Float[Tensor, "size size"]:
    """Row i holds the normalised weights exp(-(i - j)^2 / (2 sigma^2)) of a Gaussian around i.

    At an edge the weights inside are normalised to 1. An infinite sigma gives the mean.
    """
    assert sigma > 0
    if math.isinf(sigma):
        return torch.full((size, size), 1 / size, device=device)
    place = torch.arange(size, device=device, dtype=torch.float32)
    weights = torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
    return weights / weights.sum(dim=1, keepdim=True)


def blur_tokens(
    x: Float[Tensor, "*rows N D"], grid: tuple[int, int, int], sigma: float
) -> Float[Tensor, "*rows N D"]:
    """`x` blurred over the (F, H, W) grid of its N tokens, in float32, axis by axis.

    `sigma` above 0 is in tokens, the same along all axes; infinity gives the mean of all tokens
    in every place. Each token is a weighted mean, so constants stay.
    """
    volume = x.float().unflatten(-2, grid)
    with torch.autocast(x.device.type, enabled=False):
        for axis, size in zip((-4, -3, -2), grid):
            if size > 1:
                matrix = blur_matrix(size, sigma, x.device)
                volume = torch.tensordot(matrix, volume, dims=([1], [axis])).movedim(0, axis)
    return volume.flatten(-4, -2).to(x.dtype)
