"""python -m vidcfg.doctor: what works on this machine, what is missing, and how to get it."""

import argparse
import json
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from vidcfg import __version__, cli

REQUIRED = [
    *("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pydantic"),
    *("pyyaml", "av", "opencv-python-headless", "pillow", "scipy", "jaxtyping", "einops"),
    *("matplotlib", "rich"),
]
OPTIONAL = {
    "ray": "sweeps on several processes: pip install ray",
    "lpips": "the lpips metrics: pip install lpips",
    "xformers": "attention: xformers on CUDA: pip install xformers",
    "decord": "the first frames of reference videos (PyAV serves without it): pip install decord",
    "sentencepiece": "the text encoders of some checkpoints: pip install sentencepiece",
}
MARKS = {"ok": "  ok  ", "missing": " MISS ", "note": " note "}


class Line(NamedTuple):
    """One finding. `state` is "ok", "missing" (something does not work) or "note"."""

    state: str
    what: str
    detail: str


def versions() -> Iterator[Line]:
    """Python, this package and the libraries it stands on."""
    yield Line("ok", "vidcfg", __version__)
    python = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield Line("ok" if good else "missing", "python", python if good else f"{python}, needs 3.11")
    absent = {name: ("missing", f"not installed: pip install {name}") for name in REQUIRED}
    absent |= {name: ("note", f"not installed; for {use}") for name, use in OPTIONAL.items()}
    for name, (state, text) in absent.items():
        try:
            yield Line("ok", name, version(name))
        except PackageNotFoundError:
            yield Line(state, name, text)


def devices() -> Iterator[Line]:
    """The processors that torch can use."""
    import torch

    yield Line("ok", "cpu", f"{torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        is_built = torch.version.cuda
        why = "no CUDA device is visible" if is_built else "this torch is built without CUDA"
        yield Line("note", "cuda", f"{why}: models run on the CPU")
    for i in range(torch.cuda.device_count()):
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(i))
        name = torch.cuda.get_device_name(i)
        yield Line("ok", f"cuda:{i}", f"{name}, {free:.1f} of {total:.1f} GiB free")


def attention() -> Iterator[Line]:
    """Attention backends, each tried on a small input where it would run."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    q = torch.zeros(1, 2, 16, 32, device=device, dtype=dtype)
    for name in ("MATH", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"):
        try:
            with warnings.catch_warnings(), sdpa_kernel(getattr(SDPBackend, name)):
                warnings.simplefilter("ignore")
                torch.nn.functional.scaled_dot_product_attention(q, q, q)
            yield Line("ok", f"sdpa {name.lower()}", f"works on {device} in {dtype}")
        except RuntimeError:
            yield Line("note", f"sdpa {name.lower()}", f"does not run on {device}")
    try:
        from xformers.ops import memory_efficient_attention

        if device == "cpu":
            yield Line("note", "xformers", "installed; it needs CUDA, attention: sdpa serves")
            return
        memory_efficient_attention(*[q.transpose(1, 2)] * 3)
        yield Line("ok", "xformers", "works on cuda")
    except ImportError as error:
        yield Line("note", "xformers", f"not usable ({_short(error, 80)}): attention: sdpa serves")
    except (RuntimeError, NotImplementedError, ValueError) as error:
        yield Line("note", "xformers", f"does not run here: {_short(error, 80)}")


def weights() -> Iterator[Line]:
    """The embedded model, and the weight files of metrics."""
    from vidcfg.metrics.weight_files import WEIGHTS, MissingWeightsError, find_weights
    from vidcfg.mini.pipeline import MINI_PATH

    if (MINI_PATH / "model_index.json").is_file():
        yield Line("ok", "mini", str(MINI_PATH))
    else:
        yield Line("missing", "mini", "not in this package; train it: python scripts/train_mini")
    for name, weight in WEIGHTS.items():
        try:
            yield Line("ok", name, str(find_weights(name)))
        except MissingWeightsError as error:
            there = "not on this machine" not in str(error)
            reason = _short(error, 120) if there else f"for {weight.used_by} ({weight.about})"
            detail = f"{reason}. {weight.how_to_get}"
            yield Line("missing" if there else "note", name, detail)


def _short(error: Exception, length: int) -> str:
    return " ".join(str(error).split())[:length]


CHECKS = {check.__name__: check for check in (versions, devices, attention, weights)}
"""Heading -> check, in the order in which they are printed."""


def main(argv: Sequence[str] | None = None) -> int:
    """0: all that vidcfg needs is there. 1: something is missing."""
    made = cli.parser(
        "doctor",
        "Say what works on this machine: versions, devices, attention backends and weight files;\n"
        "for what is missing, the command that gets it. The exit code is 1 if something is.",
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    return cli.run(made, _examine, argv)


def _examine(options: argparse.Namespace) -> int:
    found: dict[str, list[Line]] = {}
    is_text = not (options.json or options.quiet)
    for heading, check in CHECKS.items():
        found[heading] = list(check())
        if is_text:
            rows = [f"{MARKS[line.state]}{line.what:<26}{line.detail}" for line in found[heading]]
            cli.say(heading, *rows, "", sep="\n")
    missing = [line.what for lines in found.values() for line in lines if line.state == "missing"]
    if options.json:
        plain = {heading: [line._asdict() for line in found[heading]] for heading in found}
        cli.say(json.dumps(plain, indent=2))
    elif missing or is_text:
        cli.say(f"missing: {', '.join(missing)}" if missing else "all that vidcfg needs is here")
    return cli.FAILED if missing else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
