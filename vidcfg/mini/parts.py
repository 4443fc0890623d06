"""What the models of the mini pipeline share: arguments that are kept, and a folder for both.

They are plain modules of torch: the base classes of diffusers take longer to import than a clip
takes to render.
"""

import functools
import inspect
import json
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidcfg.files import write_json
from vidcfg.progress import one_line

WEIGHTS = "diffusion_pytorch_model.safetensors"

Sample = namedtuple("Sample", "sample")
"""What a model returns: a tuple of one."""


class Arguments(dict):
    """What a part was made with: `config.width`, or `config["width"]`."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


def arguments_in(path: Path) -> dict[str, Any]:
    """The same from a file, with the name of the class as `_class_name`."""
    return json.loads(path.read_text("utf-8"))


def keeps_arguments(init: Callable) -> Callable:
    """An `__init__` that keeps its arguments, defaults too, as `config`."""

    @functools.wraps(init)
    def made(self, *args, **kwargs):
        bound = inspect.signature(init).bind(self, *args, **kwargs)
        bound.apply_defaults()
        init(self, *args, **kwargs)
        self.config = Arguments({n: v for n, v in bound.arguments.items() if n != "self"})

    return made


class Part(nn.Module):
    """A module whose `__init__` keeps its arguments."""

    device = property(lambda self: next(self.parameters()).device)
    dtype = property(lambda self: next(self.parameters()).dtype)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write arguments and weights, these in their dtype."""
        from safetensors.torch import save_file

        Path(folder).mkdir(parents=True, exist_ok=True)
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(weights, Path(folder) / WEIGHTS, metadata={"format": "pt"})
        named = {"_class_name": type(self).__name__, **self.config}
        write_json(Path(folder) / "config.json", named)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        subfolder: str | None = None,
        torch_dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        local_files_only: bool = True,
    ) -> Any:
        """What `save_pretrained` wrote, ready to evaluate. On the device `meta` no weight is read.

        Nothing is ever fetched: `local_files_only` is taken because models of diffusers do.

        Raises:
            OSError, ValueError: if the folder is not there, or holds another model.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder, subfolder or "")
        try:
            given = arguments_in(folder / "config.json")
            # Its first weights are drawn, which is not to show in what is drawn after.
            with torch.random.fork_rng(devices=()):
                part = cls(**{name: v for name, v in given.items() if not name.startswith("_")})
            if torch.device(device).type != "meta":
                part.load_state_dict(load_file(folder / WEIGHTS))
        except (TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"{folder} holds no {cls.__name__}: {one_line(error)}") from error
        return part.to(device, torch_dtype).eval()
