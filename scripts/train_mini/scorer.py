"""Stage `scorer`: the video-text scorer, on real clips that are degraded in many ways."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur
from train_mini.config import TrainConfig
from train_mini.data import draw_clips
from train_mini.loop import Clock, Log, Stop, descend, run_model

from vidcfg.mini.codec import CausalVAE
from vidcfg.mini.scorer import Scorer
from vidcfg.mini.shapes import ATTRIBUTES, asked


class LabelledClips:
    """Clips of all colour x shape pairs, held-out ones too, so that every pair is judged alike,
    with captions that are true and often partial.
    """

    def __init__(self, config: TrainConfig, *, num_clips: int, seed: int):
        data = config.data.model_copy(update={"wrong": 0.0, "partial": 0.6, "seed": seed})
        frames, self.captions, scenes = draw_clips(data, 0, num_clips, held_out=None)
        self.frames = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).to(config.device)
        readings = [list(s.labels(data.num_frames).values()) for s in scenes]
        self.labels = torch.tensor(readings).to(config.device)
        self.mentions = torch.stack([mentions(c) for c in self.captions]).to(config.device)

    def batch(self, generator: torch.Generator, size: int):
        """Frames float32 [B, T, 3, H, W], captions, labels [B, A, K], mentions [B, A, 2]."""
        rows = torch.randint(len(self.frames), (size,), generator=generator)
        captions = [self.captions[i] for i in rows.tolist()]
        rows = rows.to(self.frames.device)
        return self.frames[rows].float() / 255, captions, self.labels[rows], self.mentions[rows]


def mentions(text: str) -> Int[Tensor, "A 2"]:
    """The value that a caption gives each attribute before and after half time; -1: none."""
    said = asked(text)
    return torch.tensor(
        [
            [values.index(value) if value else -1 for value in said.get(name, (None, None))]
            for name, values in ATTRIBUTES.items()
        ]
    )


def compatible(
    labels: Int[Tensor, "B A K"], mentioned: Int[Tensor, "C A 2"]
) -> Bool[Tensor, "B C"]:
    """Whether everything that caption c says holds for video b, at its first and last reading."""
    ends = labels[:, None, :, [0, -1]]
    return ((ends == mentioned[None]) | (mentioned[None] < 0)).flatten(2).all(-1)


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
        return (low + (high - low) * torch.rand(size, generator=generator)).to(video.device)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like.device)

    if chance(0.6):
        with torch.no_grad():
            z = vae.encode(video.transpose(1, 2) * 2 - 1).latents
            z = z + uniform(0.0, 0.5) * normal(z)
            video = (vae.decode(z).sample.transpose(1, 2) + 1) / 2
    if chance(0.3):
        sigma = float(0.3 + torch.rand((), generator=generator))
        video = gaussian_blur(video.flatten(0, 1), [5, 5], [sigma, sigma]).view_as(video)
    if chance(0.5):
        video = (video - 0.5) * uniform(0.7, 1.4) + 0.5 + uniform(-0.1, 0.1)
    if chance(0.5):
        video = video + uniform(0.0, 0.15) * normal(video)
    return video.clamp(0, 1)


def scorer_loss(model: Scorer, video, captions, labels, mentioned) -> Tensor:
    """Cross-entropy of every head at every reading plus the pairwise sigmoid loss between videos
    and captions (SigLIP).
    """
    states = model.states(video)
    loss = sum(
        nn.functional.cross_entropy(logits.mT, labels[:, i], label_smoothing=0.02)
        for i, logits in enumerate(model.read(states).values())
    )
    text = model.encode_text(captions)
    cosine = nn.functional.normalize(model.embed(states), dim=-1) @ text.T
    sign = compatible(labels, mentioned).float() * 2 - 1
    logits = cosine * model.logit_scale.exp() + model.logit_bias
    return loss + -nn.functional.logsigmoid(sign * logits).sum(1).mean()


def train_scorer(config: TrainConfig, log: Log, *, stop: Stop | None = None) -> None:
    """Train for `scorer.minutes` and save to `run_dir/scorer`; resumes a stopped run."""
    settings, folder = config.scorer, config.run_dir / "scorer"
    if (folder / "config.json").is_file():
        return
    vae = CausalVAE.from_pretrained(config.run_dir / "vae").to(config.device)
    clips = LabelledClips(config, num_clips=settings.num_clips, seed=config.data.seed + 1)
    torch.manual_seed(config.seed)
    model = Scorer(width=settings.width, embed=settings.embed).to(config.device)
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
    model.cpu().save_pretrained(folder)
    log.note("scorer: done", steps=clock.step)
