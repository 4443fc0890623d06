"""python -m vidcfg.doctor: what works on this machine, what is missing, and how to get it."""

import argparse
import json
import logging
import platform
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from vidcfg import __version__, cli
from vidcfg.extras import quiet_xformers
from vidcfg.progress import one_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

EXTRAS = {
    "render": "rendering and vidcfg.guide",
    "sweep": "sweeps on several processes, Parquet",
    "s3": "stores at s3://",
    "gs": "stores at gs://",
    "metrics": "LPIPS, CLIP, FVD and R3D-18",
    "cuda": "attention: xformers on CUDA",
    "decord": "the first frames of reference videos (PyAV serves without it)",
}
"""Extra -> what it is for."""
MARKS = {"ok": "  ok  ", "missing": " MISS ", "note": " note "}


class Line(NamedTuple):
    """One finding. `state` is "ok", "missing" (something does not work) or "note"."""

    state: str
    what: str
    detail: str


def versions() -> Iterator[Line]:
    """Python, this package, and the libraries that it names, against the versions it needs."""
    yield Line("ok", "vidcfg", __version__)
    python = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield Line("ok" if good else "missing", "python", python if good else f"{python}, needs 3.11")
    seen, absent = set(), defaultdict(list)
    for extra, needed in _needed():
        name = needed.name
        try:
            found = version(name)
        except PackageNotFoundError:
            if extra:
                absent[extra].append(name)
            else:
                yield Line("missing", name, f"not installed. Type: pip install '{needed}'")
            continue
        if not needed.specifier.contains(found, prereleases=True):
            detail = f"{found}, vidcfg needs {needed.specifier}. Type: pip install '{needed}'"
            yield Line("missing", name, detail)
        elif name not in seen:
            yield Line("ok", name, found)
        seen.add(name)
    for extra, names in absent.items():
        detail = f"without {', '.join(names)}; for {EXTRAS[extra]}"
        yield Line("note", f"[{extra}]", f"{detail}. Type: pip install 'vidcfg[{extra}]'")


def _needed() -> "Iterator[tuple[str, Requirement]]":
    """What the installed package says it needs: the base, whose extra is "", then the extras."""
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(text) for text in requires("vidcfg") or ()]
    except PackageNotFoundError:  # a folder on the path
        return
    for extra in ("", *EXTRAS):
        for one in needed:
            # What the base needs holds for every extra too.
            holds = [one.marker is None or one.marker.evaluate({"extra": e}) for e in ("", extra)]
            if holds[1] and (not extra or not holds[0]):
                one.marker = None
                yield extra, one


def _torch() -> Any:
    """The module; None where it is missing, or does not load."""
    try:
        import torch
    except (ImportError, OSError):
        return None
    return torch


def devices() -> Iterator[Line]:
    """The processors that torch can use, and packages that are built for one version of it."""
    torch = _torch()
    if torch is None:
        is_there = find_spec("torch") is not None
        fix = "does not load. Type: pip install --force-reinstall torch"
        why = fix if is_there else "not installed: nothing can be rendered, see [render]"
        yield Line("missing" if is_there else "note", "torch", why)
        return
    if find_spec("torchvision") is not None:
        try:
            import torchvision  # noqa: F401
        except (ImportError, OSError, RuntimeError) as error:
            fix = f"pip install torchvision torch=={torch.__version__}"
            why = f"does not fit torch {torch.__version__} ({one_line(error, 60)}). Type: {fix}"
            yield Line("missing", "torchvision", why)
    yield Line("ok", "cpu", f"{torch.get_num_threads()} thread(s)")
    if not torch.cuda.is_available():
        is_built = torch.version.cuda
        why = "no CUDA device is visible" if is_built else "this torch is built without CUDA"
        yield Line("note", "cuda", f"{why}: models run on the CPU")
    for i in range(torch.cuda.device_count()):
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(i))
        detail = f"{torch.cuda.get_device_name(i)}, {free:.1f} of {total:.1f} GiB free"
        yield Line("ok", f"cuda:{i}", detail)


def attention() -> Iterator[Line]:
    """Attention backends, each tried on a small input where it would run."""
    torch = _torch()
    if torch is None:
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    q = torch.zeros(1, 2, 16, 32, device=device, dtype=dtype)
    for name in ("MATH", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"):
        try:
            quiet = warnings.catch_warnings(action="ignore")
            with quiet, sdpa_kernel(getattr(SDPBackend, name)):
                torch.nn.functional.scaled_dot_product_attention(q, q, q)
            yield Line("ok", f"sdpa {name.lower()}", f"works on {device} in {dtype}")
        except RuntimeError:
            yield Line("note", f"sdpa {name.lower()}", f"does not run on {device}")
    if find_spec("xformers") is not None:
        yield _xformers(torch, q)


def _xformers(torch: Any, q: Any) -> Line:
    # What it says while it loads is caught: it is long, and said here in one line.
    told: list[logging.LogRecord] = []
    quiet_xformers()
    logger, handler = logging.getLogger("xformers"), logging.Handler()
    handler.emit, logger.propagate = told.append, False
    logger.addHandler(handler)
    state, effect = "note", "attention: sdpa serves without it"
    try:
        from xformers.ops import memory_efficient_attention

        if not told and q.device.type == "cpu":
            return Line("note", "xformers", "installed; it needs CUDA, attention: sdpa serves")
        if not told:
            memory_efficient_attention(*[q.transpose(1, 2)] * 3)
            return Line("ok", "xformers", "works on cuda")
        why = ""
    except (ImportError, OSError) as error:
        why, state = one_line(error, 60), "missing"
        effect = "diffusers does not load either: the mini model alone is rendered"
    except (RuntimeError, NotImplementedError, ValueError) as error:
        why = f"does not run here ({one_line(error, 80)})"
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    if built := next((record.built for record in told if hasattr(record, "built")), None):
        why = f"built for {built}, this is {torch.__version__}"
    fix = f"Type: pip uninstall xformers, or install the build for torch {torch.__version__}"
    return Line(state, "xformers", f"{why}; {effect}. {fix}")


def weights() -> Iterator[Line]:
    """The embedded model, and the weight files of metrics."""
    from vidcfg.metrics.weight_files import WEIGHTS, MissingWeightsError, find_weights
    from vidcfg.mini import MINI_PATH

    if (MINI_PATH / "model_index.json").is_file():
        yield Line("ok", "mini", str(MINI_PATH))
    else:
        yield Line("missing", "mini", "not in this package; train it: python scripts/train_mini")
    for name, weight in WEIGHTS.items():
        try:
            yield Line("ok", name, str(find_weights(name)))
        except MissingWeightsError as error:
            there = "not on this machine" not in str(error)
            reason = one_line(error, 120) if there else f"for {weight.used_by} ({weight.about})"
            detail = f"{reason}. {weight.how_to_get}"
            yield Line("missing" if there else "note", name, detail)


CHECKS = {check.__name__: check for check in (versions, devices, attention, weights)}
"""Heading -> check, in the order in which they are printed."""


def main(argv: Sequence[str] | None = None) -> int:
    """0: all that the base needs is there, and what extras brought fits. 1: something is wrong."""
    made = cli.parser(
        "doctor",
        "Say what works on this machine: versions, devices, attention backends and weight files;\n"
        "for what is missing or wrong, what to type. The exit code is 1 if something is wrong or\n"
        "lacks in the base; an extra that is not installed is a note.",
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
            cli.say(heading, *(rows or ["       without torch"]), "", sep="\n")
    missing = [line.what for lines in found.values() for line in lines if line.state == "missing"]
    if options.json:
        plain = {heading: [line._asdict() for line in found[heading]] for heading in found}
        cli.say(json.dumps(plain, indent=2))
    elif missing or is_text:
        cli.say(f"missing: {', '.join(missing)}" if missing else "all that vidcfg needs is here")
    return cli.FAILED if missing else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
