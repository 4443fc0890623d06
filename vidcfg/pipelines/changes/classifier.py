"""Classifier guidance: what the gradient of a log-probability does to a prediction."""

from typing import Any

import torch
from torch import Tensor

from vidcfg.guidance.prediction import coefficients
from vidcfg.guidance.rules.classifier import Classifier
from vidcfg.pipelines.changes.base import LogProb, ModelChange, StepCall


class ClassifierShift(ModelChange, setting=Classifier):
    """The branch without a model: a gradient in the place of a prediction."""

    def run(self, call: StepCall) -> Any:
        level = call.inputs.known_level("guidance.method: classifier", "a flow or DDIM scheduler")
        given = {"level": level, "kind": call.inputs.prediction, "step": call.inputs.step}
        return (classifier_shift(self.start.classifier, call.noisy()[0], **given),)


def classifier_shift(
    log_prob: LogProb | None, noisy: Tensor, *, level: tuple[float, float], kind: str, step: int
) -> Tensor:
    """How a prediction of `kind` moves when eps moves by -sigma grad log p.

    At alpha = 0 (pure noise) the shift is 0.

    Raises:
        ValueError: without a `log_prob`, or if its result is not one number per sample that
            depends on the latents.
    """
    if log_prob is None:
        raise ValueError(
            "guidance.method: classifier needs a function: vidcfg.guide(pipe, guidance, "
            "classifier=lambda x_t, sigma, step: ...), which returns log p(y | x_t) per sample."
        )
    alpha, sigma = level
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
