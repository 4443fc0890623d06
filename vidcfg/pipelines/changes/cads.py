"""Conditions mixed with noise on the noisy steps (CADS), sample by sample."""

import hashlib
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from vidcfg.guidance.plan import SampleRows
from vidcfg.guidance.rules.cads import Cads
from vidcfg.pipelines.families import Family


def annealings(samples: SampleRows, family: Family) -> tuple[Cads | None, ...]:
    """The annealing of every sample, None where its condition stays.

    Raises:
        ValueError: for a rule with two different ones, or a model without a text.
    """
    found = []
    for rule in samples.rules:
        own = {term.key: term for term in rule.method.terms if isinstance(term, Cads)}
        if len(own) > 1:
            raise ValueError(
                "guidance.method combines two cads terms that anneal differently. Give one."
            )
        found.append(next((a for a in own.values() if a.tau1 < 1), None))
    if any(found) and family.unconditional is not None:
        raise ValueError(
            f"cads anneals a text, but a {family.pipelines[0]} is conditioned on an image. Use "
            f"guidance.method: cfg."
        )
    return tuple(found)


def fingerprint(row: Tensor) -> str:
    """What tells one sample's first noisy latents from another's, wherever it is in a batch."""
    data = row.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()


def annealed(
    condition: Mapping[str, Tensor],
    settings: tuple[Cads | None, ...],
    starts: tuple[str, ...],
    *,
    step: int,
    num_steps: int,
    repeated: frozenset[str] = frozenset(),
) -> dict[str, Tensor]:
    """The condition of one step: rows of samples without an annealing, and masks, are kept.

    `starts` are the fingerprints of the samples; inputs in `repeated` hold a row per frame, which
    all get the same noise.
    """
    gammas = [1.0 if a is None else a.gamma(step, num_steps) for a in settings]
    if all(gamma == 1 for gamma in gammas):
        return dict(condition)
    result = dict(condition)
    for name, tensor in condition.items():
        if "mask" in name or not tensor.is_floating_point():
            continue
        rows = list(tensor.unbind(0))
        for b, gamma in enumerate(gammas):
            if gamma < 1:
                words = f"{settings[b].seed}/{starts[b]}/{step}/{name}"
                shape = rows[b].shape[1:] if name in repeated else rows[b].shape
                noise = seeded_noise(words, shape).to(tensor.device)
                rows[b] = anneal(rows[b], noise, gamma, settings[b])
        result[name] = torch.stack(rows)
    return result


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
