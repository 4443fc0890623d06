"""What a video is a function of: its settings, the content of what they name, and our numerics."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vidcfg.files import digest, remembered_sha256
from vidcfg.mini import FEW_STEPS, MINI_PATH, STRENGTH_ADAPTER
from vidcfg.plugins import code_of
from vidcfg.progress import Progress
from vidcfg.render.config import Prompt, RenderConfig
from vidcfg.settings.base import ConfigModel, Kinds

NUMERICS = 1
"""The version of what vidcfg computes. Raise it when the same configuration gives other pixels:
videos of before are then made again. `tests/render/test_numerics.py` tells when that is."""

PLACES = re.compile(r"(.+_)?(checkpoint|adapter|lora|path|file|folder|image|video)s?")
"""Names of settings whose values are files, folders or repositories."""

BESIDE = {".md", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4", ".webm", ".pdf", ".html"}
"""Endings of what lies beside a model without being a part of it."""

LONG_BYTES = 1 << 30
"""Reading more than this is shown on a terminal."""

Sources = Mapping[str, Any]
"""Dotted name of a setting -> the content of what it names; and `numerics`."""


def sources_of(config: RenderConfig, known: dict[tuple, str | None] | None = None) -> Sources:
    """What the videos of a configuration are made of beside its settings.

    The content is the sha256 of a file or folder, or the commit of a repository; None where it is
    not known on this machine. `known` keeps what was found for the next call.
    """
    return model_sources(config, known) | guidance_sources(config, known)


def model_sources(config: RenderConfig, known: dict | None = None) -> dict[str, Any]:
    """The numerics, and the content of what `model` names: what is loaded at once."""
    model = config.model
    place, revision = model.folder or model.checkpoint, getattr(model, "revision", None)
    own = {"numerics": NUMERICS, "model.checkpoint": _content(place, revision, known)}
    if (model.kind, model.checkpoint) == ("mini", "few_steps"):
        own["model.few_steps"] = _content(FEW_STEPS, None, known)
    return own | _contents({**model.to_dict(), "checkpoint": None}, "model", known)


def guidance_sources(config: RenderConfig, known: dict | None = None) -> dict[str, Any]:
    """The content of what `guidance` names, such as a weak model, and the code of rules, frame
    weightings and schedules that are not ours."""
    found = _contents(config.guidance.to_dict(), "guidance", known)
    for kind in _kinds(config.guidance):
        if code := code_of(type(kind)):
            found[f"guidance: {kind.kind}"] = code
    for rule in config.guidance.method.terms:
        if getattr(rule, "source", None) == "mini":
            found["guidance: weak"] = _content(MINI_PATH / "transformer_weak", None, known)
        if getattr(rule, "adapter", None) == "mini":
            found["guidance: adapter"] = _content(STRENGTH_ADAPTER, None, known)
    return found


def _kinds(setting: Any) -> Iterator[Kinds]:
    """The rules, schedules and the like in a setting."""
    if isinstance(setting, Kinds):
        yield setting
    if isinstance(setting, ConfigModel):
        setting = [getattr(setting, name) for name in type(setting).model_fields]
    elif isinstance(setting, Mapping):
        setting = setting.values()
    elif not isinstance(setting, list | tuple):
        return
    for inner in setting:
        yield from _kinds(inner)


def _contents(settings: dict[str, Any], name: str, known: dict | None) -> dict[str, Any]:
    return {path: _content(on[key], None, known) for path, on, key in _places(settings, name)}


def _places(settings: Any, above: str) -> Iterator[tuple[str, Any, str | int]]:
    """Settings that name a file, folder or repository: dotted path, their holder, and the key."""
    is_dict = isinstance(settings, dict)
    for key, value in settings.items() if is_dict else enumerate(settings):
        path = f"{above}.{key}"
        if isinstance(value, dict | list | tuple):
            yield from _places(value, path)
        elif not isinstance(value, str) or value == "mini":
            continue
        elif PLACES.fullmatch(key if is_dict else above.rpartition(".")[2]):
            yield path, settings, key


def _content(place: str | Path, revision: str | None, known: dict | None) -> str | None:
    known = {} if known is None else known
    if (place, revision) not in known:
        known[place, revision] = content_of(place, revision)
    return known[place, revision]


def content_of(place: str | Path, revision: str | None = None) -> str | None:
    """The sha256 of a file, or of a folder's files; the commit of a repository; None if unknown.

    All files of a folder count by their names and whole contents, those behind links too, but for
    hidden ones, pictures and documents.
    """
    path = Path(place).expanduser()
    if path.is_file():
        return remembered_sha256(path)
    if not path.is_dir():
        return commit_of(str(place), revision)
    # A bar, since a model of many gigabytes is read for a while, once
    files = sorted(_files(path))
    total, digest = sum(file.stat().st_size for _, file in files), hashlib.sha256()
    is_quiet = total < LONG_BYTES or not sys.stderr.isatty()
    with Progress(f"bytes of {path.name}", total, quiet=is_quiet, is_bytes=True) as bar:
        for name, file in files:
            line = f"{name}\0{remembered_sha256(file)}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
            bar.update(bar.done + file.stat().st_size)
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of a model by their names below its folder."""
    seen = set()
    for place, inner, names in os.walk(folder, followlinks=True):
        # A link may lead back to where it stands.
        inner[:] = [name for name in inner if not name.startswith(".")]
        if os.path.realpath(place) in seen:
            inner.clear()
            continue
        seen.add(os.path.realpath(place))
        for name in names:
            file = Path(place) / name
            text_of_root = file.suffix == ".txt" and file.parent == folder
            is_beside = file.suffix.lower() in BESIDE or name.startswith(".") or text_of_root
            if not is_beside and file.is_file():
                yield file.relative_to(folder).as_posix(), file


def commit_of(repository: str, revision: str | None = None) -> str | None:
    """The commit that a revision of a hub repository names, from the local cache alone."""
    from huggingface_hub import constants

    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return f"commit {revision}"
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    with suppress(OSError, ValueError):
        commit = (folder / "refs" / (revision or "main")).read_text("utf-8").strip()
        if commit and (folder / "snapshots" / commit).is_dir():
            return f"commit {commit}"
    return None


def cell_digest(config: RenderConfig, sources: Sources) -> str:
    """What the videos of one configuration have in common: settings, sources, strengths.

    Where the content of a place is known, its name does not matter.
    """
    kept = settings_of_cell(config)
    for section in ("model", "guidance"):
        for path, holder, key in [*_places(kept[section], section)]:
            if sources.get(path) is not None:
                holder[key] = None
    return digest(canonical(kept | {"surface": surface_of(config), "sources": sources}))


def settings_of_cell(config: RenderConfig) -> dict[str, Any]:
    """The settings that decide pixels and encoding, but for prompt and seed, as plain data."""
    whole = config.to_dict()
    kept = {name: whole[name] for name in ("schema", "model", "video", "sampling", "guidance")}
    return kept | {"output": {name: whole["output"][name] for name in ("video", "enlarge")}}


def unit_key(cell: str, prompt: Prompt, seed: int, known: dict | None = None) -> str:
    """The name of a video: equal for equal configurations (by digest), prompts and seeds."""
    (content,) = prompt_sources(prompt, known).values() or (None,)
    shown = prompt.to_dict() | ({} if content is None else {"image": content})
    return digest(canonical({"cell": cell, "prompt": shown, "seed": seed}))


def prompt_sources(prompt: Prompt, known: dict | None = None) -> dict[str, str | None]:
    """The content of the image of a prompt, if it has one."""
    return {"prompt.image": _content(prompt.image, None, known)} if prompt.image else {}


def surface_of(config: RenderConfig) -> dict | None:
    """The strengths of a render, where they are known before its model is loaded."""
    from vidcfg.render.forecast import forecast_of

    forecast = forecast_of(config)
    try:
        return forecast.facts and next(iter(forecast.surfaces.values())).to_dict()
    except ValueError:
        return None


def what_changed(before: Any, after: Sources) -> str:
    """In a few words, what differs between the sources of two videos; empty if nothing does.

    A content that is not known on either side does not differ.
    """
    if not isinstance(before, Mapping) or "numerics" not in before:
        return "they were made by a vidcfg that did not note what its videos are made of"
    old, new = before["numerics"], after["numerics"]
    parts = [f"the numerics of vidcfg are version {new}, not {old}"] if old != new else []
    for name, old in before.items():
        new = after.get(name)
        if name != "numerics" and None not in (old, new) and old != new:
            parts.append(f"the content of {name} is another")
    return " and ".join(parts)


def canonical(value: Any) -> str:
    """JSON that is equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
