"""The solver of the mini model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcfg.files import write_json
from vidcfg.mini.parts import arguments_in, keeps_arguments

SAME = "FlowMatchEulerDiscreteScheduler"
"""The class of diffusers that makes the same steps; files name it."""

BEYOND = (
    *("invert_sigmas", "shift_terminal", "stochastic_sampling", "use_beta_sigmas"),
    *("use_dynamic_shifting", "use_exponential_sigmas", "use_karras_sigmas"),
)
"""Settings of that class that are off here."""


class FlowMatchEuler:
    """Euler's method along the noise levels of a flow, x_t = (1 - sigma) x0 + sigma eps:

        x' = x + (sigma' - sigma) velocity

    in float32, with K levels even from the first to the last of training, each shifted to
    shift sigma / (1 + (shift - 1) sigma), and 0 after them. It equals `SAME` bit for bit.
    """

    order = 1

    @keeps_arguments
    def __init__(self, num_train_timesteps: int = 1000, shift: float = 1.0):
        self.num_train_timesteps, self.shift, self.step_index = num_train_timesteps, shift, None
        # Shifted here and again in `set_timesteps`, as diffusers does: the last level is higher.
        self.ends = self._shifted(torch.tensor([num_train_timesteps, 1]) / num_train_timesteps)

    @classmethod
    def from_config(cls, config: dict[str, Any], **changed: Any) -> "FlowMatchEuler":
        names = ("num_train_timesteps", "shift")
        return cls(**{name: config[name] for name in names if name in config} | changed)

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "scheduler_config.json", {"_class_name": SAME, **self.config})

    def _shifted(self, sigmas: Any) -> Any:
        return self.shift * sigmas / (1 + (self.shift - 1) * sigmas)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Begin a run of so many steps: `timesteps` [K] and `sigmas` [K + 1]."""
        self.num_inference_steps, self.step_index = num_inference_steps, None
        first, last = (end * self.num_train_timesteps for end in self.ends.tolist())
        even = np.linspace(first, last, num_inference_steps) / self.num_train_timesteps
        sigmas = torch.from_numpy(self._shifted(even)).to(device, torch.float32)
        self.timesteps = sigmas * self.num_train_timesteps
        self.sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])

    def step(self, velocity: Tensor, timestep: Tensor, sample: Tensor) -> tuple[Tensor]:
        """(`sample` at the next level,), in the dtype of the velocity. A run may begin at any of
        its timesteps."""
        if self.step_index is None:
            self.step_index = int((self.timesteps == timestep).nonzero()[0])
        sigma, after = self.sigmas[self.step_index], self.sigmas[self.step_index + 1]
        self.step_index += 1
        moved = sample.to(torch.float32) + (after - sigma) * velocity
        return (moved.to(velocity.dtype),)


def load_scheduler(folder: Path) -> Any:
    """The scheduler in a folder: one of diffusers where ours does not have its settings."""
    config = arguments_in(folder / "scheduler_config.json")
    if config["_class_name"] == SAME and not any(config.get(name) for name in BEYOND):
        return FlowMatchEuler.from_config(config)
    import diffusers

    return getattr(diffusers, config["_class_name"]).from_config(config)
