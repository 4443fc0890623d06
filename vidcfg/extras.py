"""Packages that only some of vidcfg needs: what brings them, said in one sentence."""

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module

EXTRA_OF = {
    **dict.fromkeys(("torch", "diffusers", "transformers", "accelerate"), "render"),
    **dict.fromkeys(("tokenizers", "safetensors", "huggingface_hub", "matplotlib"), "render"),
    **dict.fromkeys(("ray", "pyarrow", "fsspec"), "sweep"),
    "s3fs": "s3",
    "gcsfs": "gs",
    **dict.fromkeys(("lpips", "open_clip", "torchvision"), "metrics"),
    "xformers": "cuda",
    "decord": "decord",
    **dict.fromkeys(("argcomplete", "pandas", "tensorboard", "wandb", "mlflow"), ""),
}
"""Name in Python -> extra of vidcfg, for what the base does not bring; "" where none does."""


class MissingPackageError(ImportError):
    """A package that only some need is not installed; the message says what to type."""


@contextmanager
def explained(
    what: str, extra: str | None = None, error: type[Exception] = MissingPackageError
) -> Iterator[None]:
    """Raise `error`, "`what` needs torch, ...", if a package of EXTRA_OF is missing in the block.

    `extra` is given where another one than the package's own brings all that `what` needs.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        extra = extra or EXTRA_OF[package]
        wanted = f"'vidcfg[{extra}]'" if extra else package
        raise error(
            f"{what} needs {package}, which is not installed. Type: pip install {wanted}"
        ) from None


@contextmanager
def without_bars(*libraries: str) -> Iterator[None]:
    """Within it, `diffusers` or `transformers` load without bars but those of downloads."""
    hub = import_module("huggingface_hub.utils")
    are_off = hub.are_progress_bars_disabled()
    # Transformers takes those of the hub along, both ways.
    reset = hub.disable_progress_bars if are_off else hub.enable_progress_bars
    with ExitStack() as stack:
        stack.callback(reset)
        for name in libraries:
            own = import_module(f"{name}.utils.logging")
            if own.is_progress_bar_enabled():
                stack.callback(own.enable_progress_bar)
                own.disable_progress_bar()
        reset()
        yield


def quiet_xformers() -> None:
    """Have a build of xformers for another torch say so in one line, not in six."""
    logging.getLogger("xformers").addFilter(_in_one_line)


def _in_one_line(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    if text.startswith("WARNING[XFORMERS]"):
        built = re.search(r"PyTorch \S+", text)
        record.built = built[0] if built else "another PyTorch"
        record.msg = (
            f"xformers does not fit this torch, its build is for {record.built}. "
            "Type: pip uninstall xformers, or install the build for this torch."
        )
        record.args, record.exc_info = (), None
    return True
