"""Conditions mixed with noise on the noisy steps (CADS), sample by sample."""

import hashlib
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from vidcfg.guidance.rules.cads import Cads
from vidcfg.pipelines.changes.base import ModelChange


class AnnealedCondition(ModelChange, setting=Cads):
    """Anneals what `cond` sees, with noise that follows each sample wherever it is in a batch.

    Rows of samples without an annealing, masks and image prompts are kept. Inputs that hold a row
    per frame get the same noise in all of them.
    """

    def begin(self) -> None:
        settings: dict[int, Cads] = {}
        family = self.start.family
        for each in self.asked:
            own = each.setting
            if settings.setdefault(each.sample, own).key != own.key:
                raise ValueError(
                    "guidance.method combines two cads terms that anneal differently. Give one."
                )
        self.settings = {b: own for b, own in settings.items() if own.changes_cond}
        if self.settings and family.control is not None:
            raise ValueError(
                "cads anneals the text of the denoiser, but the ControlNet of this pipeline reads "
                "it too. Use guidance.method: cfg."
            )
        if self.settings and not family.texts:
            raise ValueError(
                f"cads anneals a text, but a {family.pipelines[0]} is conditioned on an "
                f"image. Use guidance.method: cfg."
            )
        self.starts = {b: _fingerprint(self.start.hidden[b]) for b in self.settings}

    def tag(self, sample: int) -> object:
        return self.settings[sample].key if sample in self.settings else None

    def condition(self, cond: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        result, num_steps = dict(cond), self.start.samples.num_steps
        gammas = {b: own.gamma(step, num_steps) for b, own in self.settings.items()}
        gammas = {b: gamma for b, gamma in gammas.items() if gamma < 1}
        for name, tensor in cond.items() if gammas else ():
            is_text = name in self.start.family.texts and "mask" not in name
            if not is_text or not tensor.is_floating_point():
                continue
            passed = self.start.arguments.get(name)
            by_frame = isinstance(passed, Tensor) and len(passed) != len(tensor)
            rows = list(tensor.unbind(0))
            for b, gamma in gammas.items():
                setting = self.settings[b]
                words = f"{setting.seed}/{self.starts[b]}/{step}/{name}"
                shape = rows[b].shape[1:] if by_frame else rows[b].shape
                noise = seeded_noise(words, shape).to(tensor.device)
                rows[b] = anneal(rows[b], noise, gamma, setting)
            result[name] = torch.stack(rows)
        return result


def _fingerprint(row: Tensor) -> str:
    """What tells one sample's first noisy latents from another's."""
    data = row.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()


def seeded_noise(words: str, shape: torch.Size) -> Tensor:
    """Standard normal noise that is a function of some words and a shape."""
    digest = hashlib.sha256(words.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(shape, generator=generator)


def anneal(
    condition: Float[Tensor, "*n"], noise: Float[Tensor, "*m"], gamma: float, setting: Cads
) -> Float[Tensor, "*n"]:
    """sqrt(gamma) y + noise_scale sqrt(1 - gamma) n, and its mean and spread put back by `mix`.

    A condition without spread keeps y' as it is.
    """
    y = condition.float()
    moved = gamma**0.5 * y + setting.noise_scale * (1 - gamma) ** 0.5 * noise
    spread = moved.std()
    if setting.mix and spread > 0:
        back = (moved - moved.mean()) / spread * y.std() + y.mean()
        moved = setting.mix * back + (1 - setting.mix) * moved
    return moved.to(condition.dtype)
