"""One optimizer step and one checkpoint, as the codec and the scorer use them."""

from pathlib import Path

import torch
from torch import Tensor, nn

from vidcfg.train.loop import Clock


def descend(
    loss: Tensor, weights: list[nn.Parameter], optimizer, *, rate: float
) -> dict[str, float]:
    """One step down the gradient, its norm clipped to 1, at learning rate `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    return {"loss": float(loss.detach())}


def save_state(path: Path, model: nn.Module, optimizer, clock: Clock) -> None:
    """Write by rename, so that an interruption leaves the checkpoint before it."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save({**state, "step": clock.step, "seconds": clock.seconds}, part)
    part.replace(path)


def load_state(path: Path, model: nn.Module, optimizer, clock: Clock) -> None:
    """Continue from `path` where it exists."""
    if path.is_file():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        clock.step, clock.seconds = state["step"], state["seconds"]
