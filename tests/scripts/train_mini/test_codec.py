"""The closed-form encoder."""

import numpy as np
import torch
from train_mini.codec import fit

from vidcfg.mini.codec import CausalVAE
from vidcfg.mini.shapes import sample_clip


def test_fit_with_all_components_restores_every_pixel():
    vae = CausalVAE(latent_channels=12, stride=1, patch=2)
    video = torch.randn(3, 3, 5, 8, 12)
    fit(vae, video)
    # Float32 products of twelve terms, basis computed in float64.
    torch.testing.assert_close(vae(video).sample, video, atol=1e-4, rtol=1e-4)


def test_fitted_components_are_the_best_of_their_number():
    frames = [sample_clip((5, i), held_out=None).frames for i in range(12)]
    video = torch.from_numpy(np.stack(frames)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    vae = CausalVAE(latent_channels=6)
    fit(vae, video)
    groups = video[:, :, 1:].unfold(2, 4, 4).unfold(3, 4, 4).unfold(4, 4, 4)
    rows = groups.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(0, 3).flatten(1).double()
    rows = rows - rows.mean(0)
    best = torch.linalg.svdvals(rows)[6:].square().sum() / rows.numel()
    error = (vae(video).sample - video)[:, :, 1:].square().mean()
    torch.testing.assert_close(error.double(), best, rtol=1e-3, atol=1e-6)
