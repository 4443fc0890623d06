"""Stage `scorer`: the video-text scorer, on real clips that are degraded in many ways."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur
from train_mini.config import TrainConfig
from train_mini.data import sample_clip
from train_mini.loop import Clock, Log, Stop, descend, run_model

from vidcfg.mini.codec import CausalVAE
from vidcfg.mini.scorer import Scorer
from vidcfg.mini.shapes import ATTRIBUTES


class LabelledClips:
    """Clips of all colour x shape pairs, held-out ones too, so that every pair is judged alike."""

    def __init__(self, config: TrainConfig, *, num_clips: int, seed: int):
        clips = [
            sample_clip((seed, index), config.data, held_out=None, partial=0.3)
            for index in range(num_clips)
        ]
        self.frames = torch.from_numpy(np.stack([c.frames for c in clips])).permute(0, 1, 4, 2, 3)
        self.captions = [c.caption for c in clips]
        self.labels = torch.tensor([list(c.scene.labels().values()) for c in clips])
        self.mentions = torch.stack([_mentions(c.caption) for c in clips])

    def batch(self, generator: torch.Generator, size: int):
        rows = torch.randint(len(self.frames), (size,), generator=generator)
        video = self.frames[rows].float() / 255
        captions = [self.captions[i] for i in rows.tolist()]
        return video, captions, self.labels[rows], self.mentions[rows]


def _mentions(text: str) -> Int[Tensor, " A"]:
    """The value that a caption gives each attribute, -1 where it says nothing."""
    words = text.split()
    found = [[v for v in values if v in words] for values in ATTRIBUTES.values()]
    values = ATTRIBUTES.values()
    return torch.tensor([v.index(f[0]) if f else -1 for v, f in zip(values, found, strict=True)])


def compatible(labels: Int[Tensor, "B A"], mentions: Int[Tensor, "C A"]) -> Bool[Tensor, "B C"]:
    """Whether everything that caption c says holds for video b."""
    said = mentions[None] >= 0
    return ((labels[:, None] == mentions[None]) | ~said).all(-1)


def degrade(
    video: Float[Tensor, "B T 3 H W"], vae: CausalVAE, generator: torch.Generator
) -> Float[Tensor, "B T 3 H W"]:
    """Noise in pixels and in latents, blur, contrast, brightness: the ways in which a generated
    clip is imperfect.
    """

    def chance(p: float) -> bool:
        return bool(torch.rand((), generator=generator) < p)

    def uniform(low: float, high: float) -> Tensor:
        size = (video.shape[0], 1, 1, 1, 1)
        return low + (high - low) * torch.rand(size, generator=generator)

    if chance(0.6):
        with torch.no_grad():
            z = vae.encode(video.transpose(1, 2) * 2 - 1).latents
            z = z + uniform(0.0, 0.5) * torch.randn(z.shape, generator=generator)
            video = (vae.decode(z).sample.transpose(1, 2) + 1) / 2
    if chance(0.3):
        sigma = float(0.3 + torch.rand((), generator=generator))
        video = gaussian_blur(video.flatten(0, 1), [5, 5], [sigma, sigma]).view_as(video)
    if chance(0.5):
        video = (video - 0.5) * uniform(0.7, 1.4) + 0.5 + uniform(-0.1, 0.1)
    if chance(0.5):
        video = video + uniform(0.0, 0.15) * torch.randn(video.shape, generator=generator)
    return video.clamp(0, 1)


def scorer_loss(model: Scorer, video, captions, labels, mentions) -> Tensor:
    """Cross-entropy of every head plus the pairwise sigmoid loss between videos and captions
    (SigLIP).
    """
    features = model.features(video)
    loss = sum(
        nn.functional.cross_entropy(head(features), labels[:, i], label_smoothing=0.02)
        for i, head in enumerate(model.heads.values())
    )
    text = model.encode_text(captions)
    cosine = nn.functional.normalize(features, dim=-1) @ text.T
    sign = compatible(labels, mentions).float() * 2 - 1
    logits = cosine * model.logit_scale.exp() + model.logit_bias
    return loss + -nn.functional.logsigmoid(sign * logits).sum(1).mean()


def train_scorer(config: TrainConfig, log: Log, *, stop: Stop | None = None) -> None:
    """Train for `scorer.minutes` and save to `run_dir/scorer`; resumes a stopped run."""
    settings, folder = config.scorer, config.run_dir / "scorer"
    if (folder / "config.json").is_file():
        return
    vae = CausalVAE.from_pretrained(config.run_dir / "vae")
    clips = LabelledClips(config, num_clips=settings.num_clips, seed=config.data.seed + 1)
    torch.manual_seed(config.seed)
    model = Scorer(width=settings.width, embed=settings.embed)
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.02)
    clock, checkpoint = Clock(settings.minutes, settings.max_steps), config.run_dir / "scorer.pt"

    def train_step(step: int, progress: float) -> dict[str, float]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        video, *rest = clips.batch(generator, settings.batch_size)
        rate = min(1, (step + 1) / 50) * min(1, 2 * (1 - progress))
        loss = scorer_loss(model, degrade(video, vae, generator), *rest)
        return descend(loss, weights, optimizer, rate=settings.learning_rate * rate)

    how = {"log": log, "stop": stop, "checkpoint_minutes": config.checkpoint_minutes}
    run_model("scorer", checkpoint, model, optimizer, clock, train_step, **how)
    model.save_pretrained(folder)
    log.note("scorer: done", steps=clock.step)
