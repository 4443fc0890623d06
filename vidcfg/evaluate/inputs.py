"""Which videos there are, and what is written beside them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidcfg.media.probe import VIDEO_SUFFIXES, is_frame_folder


@dataclass(frozen=True)
class Item:
    """A video to score. What is not known is None. `name` is what reports call it."""

    path: Path
    name: str
    prompt: str | None = None
    seed: int | None = None
    stride: int | None = None
    enlarge: int = 1
    unit_key: str | None = None


def find_items(paths: Sequence[str | Path]) -> list[Item]:
    """Videos among files and folders, sorted by path, each once.

    Folders are searched through; one that holds pictures and no video is a video. Paths that do
    not exist stay in the list, so that they are reported. Prompt, seed and temporal stride are
    read from the `.json` file that a render leaves beside its video.
    """
    found: dict[Path, Path] = {}
    for given in map(Path, paths):
        inside = _videos_in(given) if given.is_dir() and not is_frame_folder(given) else [given]
        root = given if given.is_dir() and given not in inside else given.parent
        for path in inside:
            found.setdefault(path.resolve(), root)
    items = [_item(path, root.resolve()) for path, root in sorted(found.items())]
    return _with_distinct_names(items)


def _videos_in(folder: Path) -> list[Path]:
    entries = [p for p in folder.rglob("*") if not _is_hidden(p.relative_to(folder))]
    files = [p for p in entries if p.is_file() and p.suffix.lower() in VIDEO_SUFFIXES]
    return files + [p for p in entries if is_frame_folder(p)]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _item(path: Path, root: Path) -> Item:
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    item = Item(path=path, name=name)
    beside = path.with_suffix(".json")
    if path.is_dir() or not beside.is_file():
        return item
    try:
        facts = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return item
    return replace(item, **_facts(facts)) if isinstance(facts, dict) else item


def _facts(data: dict[str, Any]) -> dict[str, Any]:
    """Prompt, seed, stride, enlargement and unit key, where the file has them."""
    prompt, video = data.get("prompt"), data.get("video")
    facts = {
        "prompt": prompt.get("text") if isinstance(prompt, dict) else prompt,
        "seed": data.get("seed"),
        "stride": _stride(data.get("surface")),
        "enlarge": video.get("enlarge") if isinstance(video, dict) else None,
        "unit_key": data.get("unit"),
    }
    kinds = {"prompt": str, "seed": int, "stride": int, "enlarge": int, "unit_key": str}
    return {key: value for key, value in facts.items() if type(value) is kinds[key]}


def _stride(surface: Any) -> int | None:
    """Pixel frames per latent frame of a causal VAE, from the widths of the surface's tables."""
    try:
        num_frames, num_latents = (surface[key] for key in ("num_frames", "num_latent_frames"))
    except (KeyError, TypeError):
        return None
    if not (type(num_frames) is type(num_latents) is int):
        return None
    whole = num_latents > 1 and (num_frames - 1) % (num_latents - 1) == 0
    return (num_frames - 1) // (num_latents - 1) if whole else None


def _with_distinct_names(items: list[Item]) -> list[Item]:
    names = [item.name for item in items]
    return [
        replace(item, name=str(item.path)) if names.count(item.name) > 1 else item
        for item in items
    ]


def with_prompts(items: list[Item], path: str | Path) -> list[Item]:
    """Items with the prompts of a file: a JSON object name -> prompt, or a text line for each.

    Names in JSON are those of the videos, with or without their ending. Lines follow the sorted
    videos.

    Raises:
        ValueError: the file cannot be read, or does not fit the videos.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if path.suffix.lower() == ".json" else None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as prompts: {error}.") from error
    if table is None:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if len(lines) != len(items):
            raise ValueError(f"{path} has {len(lines)} prompts for {len(items)} videos.")
        return [replace(item, prompt=line) for item, line in zip(items, lines)]
    if not isinstance(table, dict):
        raise ValueError(f"{path} has to hold an object of video names and prompts.")
    return [replace(item, prompt=_prompt_of(item, table)) for item in items]


def _prompt_of(item: Item, table: dict[str, Any]) -> str | None:
    for key in (item.name, item.path.name, item.path.stem):
        if key in table:
            return str(table[key])
    return item.prompt
