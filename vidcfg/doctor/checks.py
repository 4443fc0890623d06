"""The checks of `vidcfg doctor`: each gives lines of (state, what, detail)."""

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

REQUIRED = [
    *("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pydantic"),
    *("pyyaml", "av", "opencv-python-headless", "pillow", "scipy", "jaxtyping", "einops"),
    *("matplotlib", "rich", "tqdm"),
]
OPTIONAL = {
    "ray": "sweeps on several processes: pip install ray",
    "lpips": "the lpips metrics: pip install lpips",
    "xformers": "attention: xformers on CUDA: pip install xformers",
    "decord": "fast random access to videos (PyAV serves without it): pip install decord",
    "sentencepiece": "the text encoders of some checkpoints: pip install sentencepiece",
}


@dataclass(frozen=True)
class Line:
    """One finding. `state` is "ok", "missing" (something does not work) or "note"."""

    state: str
    what: str
    detail: str


def versions() -> Iterator[Line]:
    """Python, this package and the libraries it stands on."""
    from vidcfg import __version__

    yield Line("ok", "vidcfg", __version__)
    python = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield Line("ok" if good else "missing", "python", python if good else f"{python}, needs 3.11")
    for name in REQUIRED:
        try:
            yield Line("ok", name, version(name))
        except PackageNotFoundError:
            yield Line("missing", name, f"not installed: pip install {name}")
    for name, purpose in OPTIONAL.items():
        try:
            yield Line("ok", name, version(name))
        except PackageNotFoundError:
            yield Line("note", name, f"not installed; for {purpose}")


def devices() -> Iterator[Line]:
    """The processors that torch can use."""
    import torch

    yield Line("ok", "cpu", f"{torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "no CUDA device is visible" if built else "this torch is built without CUDA"
        yield Line("note", "cuda", f"{why}: models run on the CPU")
        return
    for i in range(torch.cuda.device_count()):
        one = torch.cuda.get_device_properties(i)
        free, total = torch.cuda.mem_get_info(i)
        gib = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        yield Line("ok", f"cuda:{i}", f"{one.name}, {gib}")


def attention() -> Iterator[Line]:
    """Attention backends, each tried on a small input where it would run."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    q = torch.zeros(1, 2, 16, 32, device=device, dtype=dtype)
    for name in ("MATH", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"):
        try:
            import warnings

            with warnings.catch_warnings(), sdpa_kernel(getattr(SDPBackend, name)):
                warnings.simplefilter("ignore")
                torch.nn.functional.scaled_dot_product_attention(q, q, q)
            yield Line("ok", f"sdpa {name.lower()}", f"works on {device} in {dtype}"[:60])
        except RuntimeError:
            yield Line("note", f"sdpa {name.lower()}", f"does not run on {device}")
    yield _xformers(device, q)


def _xformers(device: str, q) -> Line:
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        reason = " ".join(str(error).split())[:80]
        return Line("note", "xformers", f"not usable ({reason}): attention: sdpa serves")
    if device == "cpu":
        return Line("note", "xformers", "installed; it needs CUDA, attention: sdpa serves")
    try:
        rows = q.transpose(1, 2)
        memory_efficient_attention(rows, rows, rows)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        reason = " ".join(str(error).split())[:80]
        return Line("note", "xformers", f"does not run here: {reason}")
    return Line("ok", "xformers", "works on cuda")


def weights() -> Iterator[Line]:
    """The embedded model, and the weight files of metrics."""
    from vidcfg.metrics.weight_files import WEIGHTS, MissingWeightsError, find_weights
    from vidcfg.mini.pipeline import MINI_PATH

    if (MINI_PATH / "model_index.json").is_file():
        yield Line("ok", "mini", str(MINI_PATH))
    else:
        yield Line(
            "missing",
            "mini",
            "not in this package; train it: python scripts/train_mini",
        )
    for name, weight in WEIGHTS.items():
        try:
            yield Line("ok", name, str(find_weights(name)))
        except MissingWeightsError as error:
            there = "not on this machine" not in str(error)
            reason = " ".join(str(error).split())[:120] if there else f"for {weight.used_by}"
            detail = f"{reason}: vidcfg weights fetch {name} ({weight.about:g} MB)"
            yield Line("missing" if there else "note", name, detail)


CHECKS = {
    "versions": versions,
    "devices": devices,
    "attention": attention,
    "weights": weights,
}
"""Heading -> check, in the order in which they are printed."""
