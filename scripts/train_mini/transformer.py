"""Stage `transformer`: flow matching of the ST-DiT and its text encoder on cached latents."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from train_mini.config import TrainConfig, TransformerConfig
from train_mini.data import LatentBatches
from train_mini.loop import Clock, Log, Stop, run_loop, save_state

from vidcfg.mini.model import STDiT
from vidcfg.mini.text import TextEncoder


class Denoiser(nn.Module):
    """Transformer and text encoder as one module: (noisy latents, time, tokens) -> velocity."""

    def __init__(self, settings: TransformerConfig, *, channels: int, vocab_size: int):
        super().__init__()
        self.transformer = STDiT(
            in_channels=channels,
            width=settings.width,
            num_layers=settings.num_layers,
            num_heads=settings.num_heads,
            mlp_ratio=settings.mlp_ratio,
            text_width=settings.text_width,
            attention=settings.attention,
            attention_backend=settings.attention_backend,
        )
        self.text_encoder = TextEncoder(
            vocab_size=vocab_size,
            width=settings.text_width,
            num_layers=settings.text_layers,
            null=settings.null,
        )
        self.text_encoder.token.weight.data.mul_(0.5)

    def forward(
        self, noisy: Float[Tensor, "B C F H W"], time: Float[Tensor, " B"], ids: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B C F H W"]:
        mask = ids > 0
        text = self.text_encoder(ids, mask)
        return self.transformer(noisy, time * 1000, text, mask, return_dict=False)[0]


def draw_noise(
    latents: Float[Tensor, "B C F H W"],
    ids: Int[Tensor, "B L"],
    empty: Int[Tensor, " L"],
    settings: TransformerConfig,
    *,
    seed: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy latents (1 - t) x0 + t noise, t = sigmoid(normal + shift), prompts (some replaced by
    the empty prompt) and the target noise - x0; a function of `seed` = (run, step) and of the
    kind of device.
    """
    device, size = latents.device, latents.shape[0]
    generator = torch.Generator(device).manual_seed(seed[0] * 1_000_003 + seed[1])
    noise = torch.randn(latents.shape, generator=generator, device=device)
    # Stratified normals: one in each of B equal slices of probability, which steadies the loss.
    slices = (
        torch.randperm(size, generator=generator, device=device)
        + torch.rand(size, generator=generator, device=device)
    ) / size
    normal = math.sqrt(2) * torch.erfinv((2 * slices - 1).clamp(-0.999999, 0.999999))
    t = torch.sigmoid(normal + settings.time_shift)
    drop = torch.rand(size, generator=generator, device=device) < settings.drop_condition
    ids = torch.where(drop[:, None], empty.to(device), ids)
    s = t[:, None, None, None, None]
    return (1 - s) * latents + s * noise, t, ids, noise - latents


def build_optimizers(model: Denoiser, settings: TransformerConfig) -> list[torch.optim.Optimizer]:
    """Muon on the matrices inside the blocks and AdamW on the rest, or AdamW on all."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        is_hidden = parameter.ndim == 2 and "blocks" in name
        (matrices if is_hidden and settings.optimizer == "muon" else rest).append(parameter)
    decay = settings.weight_decay
    optimizers = [
        torch.optim.AdamW(rest, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=decay)
    ]
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                matrices,
                lr=settings.matrix_rate,
                weight_decay=decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def rate_factor(settings: TransformerConfig, *, step: int, progress: float) -> float:
    """Linear warm-up by steps, constant, then linear to 0 from `decay_from` of the budget."""
    warm = min(1.0, (step + 1) / settings.warmup_steps)
    left = (1 - progress) / max(1e-6, 1 - settings.decay_from)
    return warm * max(0.0, min(1.0, left))


class TransformerTraining:
    """The state of a run (weights, average, optimizers, clock) and one step of it."""

    def __init__(self, config: TrainConfig, *, channels: int, vocab_size: int, empty: Tensor):
        self.config, self.settings = config, config.transformer
        torch.manual_seed(config.seed)
        self.model = Denoiser(self.settings, channels=channels, vocab_size=vocab_size)
        if config.start and not config.anew:
            self._start(config.start)
        self.model.to(config.device)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimizers = build_optimizers(self.model, self.settings)
        self.clock = Clock(self.settings.minutes, self.settings.max_steps)
        self.empty = empty
        self._run = torch.compile(self.model) if config.is_compiled else self.model

    def train_step(self, latents: Tensor, ids: Tensor) -> dict[str, float]:
        """One optimizer step on a batch; returns what the log shows."""
        settings, step = self.settings, self.clock.step
        factor = rate_factor(settings, step=step, progress=self.clock.progress)
        for optimizer in self.optimizers:
            is_muon = isinstance(optimizer, torch.optim.Muon)
            for group in optimizer.param_groups:
                rate = settings.matrix_rate if is_muon else settings.learning_rate
                group["lr"] = rate * factor
        batch = draw_noise(latents, ids, self.empty, settings, seed=(self.config.seed, step))
        loss = self._backward(batch)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._update_average()
        return {"loss": loss, "norm": float(norm), "rate": factor}

    def save(self, path: Path) -> None:
        save_state(
            path,
            self.clock,
            model=self.model.state_dict(),
            average=self.average,
            optimizers=[o.state_dict() for o in self.optimizers],
        )

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True, map_location=self.config.device)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        self.clock.step, self.clock.seconds = state["step"], state["seconds"]

    def _start(self, folder: Path) -> None:
        """Take the weights of a finished model; its weak checkpoint, with the text encoder that
        it reads, becomes that of this run.
        """
        transformer, weak_transformer, text_encoder = (
            kind.from_pretrained(folder, subfolder=name, torch_dtype=torch.float32)
            for kind, name in (
                (STDiT, "transformer"),
                (STDiT, "transformer_weak"),
                (TextEncoder, "text_encoder"),
            )
        )
        self.model.transformer.load_state_dict(transformer.state_dict())
        self.model.text_encoder.load_state_dict(text_encoder.state_dict())
        weak = self.config.run_dir / "transformer" / "weak.pt"
        if not weak.is_file():
            parts = {"transformer": weak_transformer, "text_encoder": text_encoder}
            weak.parent.mkdir(parents=True, exist_ok=True)
            torch.save(nn.ModuleDict(parts).state_dict(), weak)

    def _backward(self, batch: tuple[Tensor, ...]) -> float:
        device = torch.device(self.config.device)
        total, size = 0.0, batch[0].shape[0]
        for parts in zip(*(x.split(self.settings.micro_batch) for x in batch), strict=True):
            noisy, t, ids, target = (x.to(device) for x in parts)
            with torch.autocast(
                device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"
            ):
                out = self._run(noisy, t, ids)
            loss = (out.float() - target).square().mean() * (len(noisy) / size)
            loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise RuntimeError(
                f"the loss is {total} at step {self.clock.step}. "
                "Lower transformer.learning_rate and matrix_rate and start again."
            )
        return total

    def _update_average(self) -> None:
        decay = min(self.settings.ema, (1 + self.clock.step) / (10 + self.clock.step))
        current = self.model.state_dict()
        torch._foreach_lerp_(
            list(self.average.values()), [current[k] for k in self.average], 1 - decay
        )


def train(
    run: TransformerTraining,
    batches: LatentBatches,
    folder: Path,
    log: Log,
    *,
    stop: Stop | None = None,
    draw_samples: Callable[[TransformerTraining], None] | None = None,
) -> None:
    """Train to the end of the budget, or resume it; checkpoints and the weak weights go to
    `folder`.

    `draw_samples(run)` is called every `sample_minutes` and at the end.
    """
    checkpoint, weak = folder / "checkpoint.pt", folder / "weak.pt"
    if checkpoint.is_file():
        run.load(checkpoint)
        log.note(f"transformer: resumes at step {run.clock.step}")
    sampled = run.clock.seconds

    def train_step(step: int, progress: float) -> dict[str, float]:
        nonlocal sampled
        values = run.train_step(*batches.get(step))
        if not weak.is_file() and progress >= run.settings.weak_at:
            weak.parent.mkdir(parents=True, exist_ok=True)
            torch.save(run.average, weak)
        if draw_samples and run.clock.seconds - sampled > 60 * run.config.sample_minutes:
            sampled = run.clock.seconds
            draw_samples(run)
        return values

    run_loop(
        "transformer",
        run.clock,
        train_step,
        save=lambda: run.save(checkpoint),
        log=log,
        stop=stop,
        checkpoint_minutes=run.config.checkpoint_minutes,
    )
    if draw_samples:
        draw_samples(run)
