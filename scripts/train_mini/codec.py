"""Stage `codec`: the closed-form encoder, then training of the decoder's correction."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from train_mini.config import TrainConfig
from train_mini.data import draw_clips, to_pixels
from train_mini.loop import Clock, Log, Stop, descend, run_model

from vidcfg.mini.codec import CausalVAE


def fit_encoder(config: TrainConfig, clips: Float[Tensor, "B 3 T H W"]) -> CausalVAE:
    """The codec with the principal components of these clips and an untrained decoder
    correction.
    """
    settings = config.codec
    torch.manual_seed(config.seed)
    vae = CausalVAE(
        latent_channels=settings.latent_channels,
        stride=settings.stride,
        patch=settings.patch,
        scaling_power=settings.scaling_power,
        decoder_width=settings.decoder_width,
        decoder_layers=settings.decoder_layers,
    )
    fit(vae, clips)
    return vae


@torch.no_grad()
def fit(vae: CausalVAE, clips: Float[Tensor, "B 3 T H W"]) -> None:
    """Set both projections to the principal components of these clips (closed form).

    `spread` is the standard deviation to the power `scaling_power`, times one factor that makes
    the mean latent variance 1: a power of 1 is full whitening, below 1 leaves fine components
    smaller than coarse ones.
    """
    parts = (vae.first, vae.patches(clips[:, :, :1], 1))
    for projection, patches in (parts, (vae.group, vae.patches(clips[:, :, 1:], vae.stride))):
        x = patches.flatten(0, -2).double()
        projection.mean.copy_(x.mean(0))
        x = x - projection.mean
        variance, vectors = torch.linalg.eigh(x.T @ x / len(x))
        keep = projection.basis.shape[1]
        variance, vectors = variance.flip(0)[:keep], vectors.flip(1)[:, :keep]
        std = variance.clamp_min(1e-10).sqrt()
        spread = std**vae.config.scaling_power
        projection.basis.copy_(vectors)
        projection.spread.copy_(spread * (std / spread).square().mean().sqrt())


def decoder_loss(
    vae: CausalVAE, clips: Float[Tensor, "B 3 T H W"], latents: Float[Tensor, "B C F h w"]
) -> Tensor:
    """Squared error of the decoded frames, plus the absolute error of their differences in time
    (it keeps still things still) and 0.1 of the absolute error.
    """
    error = vae.decode(latents).sample.float() - clips
    change = error.diff(dim=2).abs().mean()
    return error.square().mean() + change + 0.1 * error.abs().mean()


def train_codec(config: TrainConfig, folder: Path, log: Log, *, stop: Stop | None = None) -> None:
    """Fit the encoder, train the decoder for `codec.minutes`, save to `folder`; resumes a
    stopped run.
    """
    settings, checkpoint = config.codec, config.run_dir / "codec.pt"
    clips = draw_clips(config.data, 0, settings.num_clips)[0]
    if (folder / "config.json").is_file():
        vae = CausalVAE.from_pretrained(folder)
    else:
        vae = fit_encoder(config, to_pixels(clips))
        vae.save_pretrained(folder)
        log.note("codec: encoder fitted")
    vae.to(config.device)
    weights = list(vae.refine.parameters())
    if not weights:
        return
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    clock = Clock(settings.minutes, settings.max_steps)

    def train_step(step: int, progress: float) -> dict[str, float]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        rows = torch.randint(len(clips), (settings.batch_size,), generator=generator)
        batch = to_pixels(clips[rows.numpy()], config.device)
        rate = min(1, (step + 1) / 50) * min(1, 1.5 * (1 - progress))
        latents = noisy_latents(vae, batch, settings.noise, generator)
        with torch.autocast(
            vae.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"
        ):
            loss = decoder_loss(vae, batch, latents)
        return descend(loss, weights, optimizer, rate=settings.learning_rate * rate)

    how = {"log": log, "stop": stop, "checkpoint_minutes": config.checkpoint_minutes}
    run_model("codec", checkpoint, vae, optimizer, clock, train_step, **how)
    vae.save_pretrained(folder)
    log.note("codec: done", steps=clock.step)


@torch.no_grad()
def noisy_latents(
    vae: CausalVAE, clips: Float[Tensor, "B 3 T H W"], amount: float, generator: torch.Generator
) -> Float[Tensor, "B C F h w"]:
    """Latents of the clips, half of them with normal noise whose deviation is uniform in
    0..amount.

    The noise makes the decoder forgive what a generator gets slightly wrong.
    """
    latents = vae.encode(clips).latents
    level = amount * torch.rand((len(clips), 1, 1, 1, 1), generator=generator)
    level = level * (torch.rand(level.shape, generator=generator) < 0.5)
    noise = torch.randn(latents.shape, generator=generator)
    return latents + (level * noise).to(latents.device)
