"""The `.json` beside a video: everything that is needed to make it again."""

import hashlib
import json
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg import __version__
from vidcfg.media.write import CODECS
from vidcfg.render import identity
from vidcfg.render.config import RenderConfig, Unit

PACKAGES = ("torch", "diffusers", "transformers", "av", "numpy")


def unit_settings(config: RenderConfig, unit: Unit) -> dict[str, Any]:
    """All settings that decide the pixels and the encoding of one video, as plain data."""
    kept = identity.settings_of_cell(config)
    own = {"prompt": unit.prompt.to_dict(), "seed": unit.seed, "output": kept.pop("output")}
    return kept | own


def make_record(
    config: RenderConfig, unit: Unit, rendered: Any, *, pipe: Any, model: dict[str, Any]
) -> dict[str, Any]:
    """The record of a `Rendered` unit as plain data.

    `frames_sha256` is of the uint8 frames before encoding.
    """
    # Of the frames where they lie: their bytes would be a copy.
    frames_sha256 = hashlib.sha256(np.ascontiguousarray(rendered.frames_THWC).reshape(-1))
    of_cell, codec = cell_sources(config, model), config.output.video
    return {
        "kind": "vidcfg.render/1",
        "name": config.name,
        "prompt": unit.prompt.to_dict(),
        "seed": unit.seed,
        "files": {kind: getattr(unit, kind).name for kind in kinds_of(rendered)},
        "video": {
            **config.video.to_dict(),
            "codec": codec,
            "lossless": CODECS[codec].lossless,
            "enlarge": config.output.enlarge,
            "frames_sha256": frames_sha256.hexdigest(),
        },
        "seconds": round(rendered.seconds, 3),
        "settings": unit_settings(config, unit),
        "config": config.to_dict(),
        "model": {name: value for name, value in model.items() if name != "sources"},
        "unit": identity.unit_key(identity.cell_digest(config, of_cell), unit.prompt, unit.seed),
        "sources": of_cell | identity.prompt_sources(unit.prompt),
        "scheduler": scheduler_record(pipe.scheduler),
        "versions": versions(),
        "commit": commit(),
        "surface": rendered.trace.surfaces[0].to_dict(),
        "trace": rendered.trace.to_dict(),
    }


def kinds_of(rendered: Any) -> list[str]:
    """What files a `Rendered` becomes beside its record; a clip of one frame has its picture."""
    more = {"image": len(rendered.frames_THWC) == 1, "audio": rendered.audio is not None}
    return ["video", "sheet", *(kind for kind, is_there in more.items() if is_there)]


def to_json(record: dict[str, Any]) -> str:
    """JSON with one line per entry, except that lists of numbers stay on one line."""
    return _compact(record, 0) + "\n"


def _compact(value: Any, depth: int) -> str:
    inner, outer = "  " * (depth + 1), "  " * depth
    if isinstance(value, dict) and value:
        lines = (f"{inner}{json.dumps(k)}: {_compact(v, depth + 1)}" for k, v in value.items())
        return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[\n" + ",\n".join(inner + _compact(v, depth + 1) for v in value) + f"\n{outer}]"
    return json.dumps(value, allow_nan=False, default=str)


def scheduler_record(scheduler: Any) -> dict[str, Any]:
    """Class and settings of the scheduler that stepped the video."""
    settings = {n: v for n, v in dict(scheduler.config).items() if not n.startswith("_")}
    text = json.dumps(settings, default=str)
    # JSON has no infinity, which some schedulers keep as a limit: it becomes a word.
    plain = json.loads(text, parse_constant=lambda word: str(float(word)))
    return {"class": type(scheduler).__name__, "config": plain}


@cache
def versions() -> dict[str, str]:
    """Versions of vidcfg, Python and the packages that the pixels depend on."""
    found = {"vidcfg": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@cache
def commit() -> str | None:
    """The git commit of a source checkout, with `+changed` if files differ; None elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ("git", "--no-optional-locks", "-C", str(root), *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return done.stdout.strip()

    with suppress(OSError, subprocess.SubprocessError):
        is_changed = bool(git("status", "--porcelain", "--untracked-files=no"))
        return git("rev-parse", "HEAD") + "+changed" * is_changed
    return None


def model_record(config: RenderConfig, pipe: Any) -> dict[str, Any]:
    """What model made the video: its name, class, device, dtype, and a hash of its files.

    `sources` is the content of all that is loaded with it, as it is at this moment.
    """
    sources = identity.model_sources(config)
    folder, content = config.model.folder, sources["model.checkpoint"]
    denoiser = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
    return {
        "kind": config.model.kind,
        "checkpoint": getattr(config.model, "checkpoint", None),
        "revision": getattr(config.model, "revision", None),
        "pipeline": type(pipe).__name__,
        "device": str(getattr(denoiser, "device", "")) or None,
        "dtype": str(getattr(denoiser, "dtype", "")).removeprefix("torch.") or None,
        "sha256": content if folder is not None and folder.is_dir() else None,
        "sources": sources,
    }


def cell_sources(config: RenderConfig, model: dict[str, Any]) -> dict[str, Any]:
    """The content of what a video is made of; that of `model` as it was when it was loaded."""
    return model["sources"] | identity.guidance_sources(config)
