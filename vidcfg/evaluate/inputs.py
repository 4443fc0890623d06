"""Which videos there are, and what is written beside them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidcfg import cli
from vidcfg.evaluate.prompts import prompt_and_number, read_prompts
from vidcfg.media.pictures import is_frame_folder, is_video
from vidcfg.progress import printable


@dataclass(frozen=True)
class Item:
    """A video to score. What is not known is None. `name` is what reports call it.

    With `from_name` the prompt is the file's name, for want of another. `address` is set where
    `path` is a copy that goes.
    """

    path: Path
    name: str
    prompt: str | None = None
    seed: int | None = None
    stride: int | None = None
    enlarge: int = 1
    unit_key: str | None = None
    from_name: bool = False
    address: str | None = None

    @property
    def place(self) -> str:
        """Where the video is, for whoever reads the results."""
        return self.address or str(self.path)

    @property
    def text(self) -> str | None:
        """The prompt for a text encoder; None for a file name of one word, which describes
        nothing."""
        is_word = self.from_name and " " not in (self.prompt or "")
        return None if is_word else self.prompt


def find_items(paths: Sequence[str | Path]) -> list[Item]:
    """Videos among files and folders, sorted by path, each once.

    Folders are searched through, but for baselines of the gate, whose pictures are no videos; one
    that holds numbered stills and no video but animated pictures is a video. Paths that do not
    exist stay in the list, so that they are reported. Prompt, seed and temporal stride are read
    from the `.json` file that a render leaves beside its video, prompt and seed else from the
    file's name (`prompt_and_number`).
    """
    # Each file under the first folder that was given for it, whence its name.
    found: dict[Path, Path] = {}
    for given in map(Path, paths):
        for path in _videos_in(given) if given.is_dir() else [given]:
            root = given.parent if path == given else given
            # A link that leads nowhere keeps its own name.
            place = path.resolve() if path.exists() else root.resolve() / path.relative_to(root)
            found.setdefault(place, root.resolve())
    names = {
        path: path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        for path, root in sorted(found.items())
    }
    # Names that are not distinct become paths.
    count = Counter(names.values())
    return [
        Item(path, printable(name if count[name] == 1 else str(path)), **_facts_of(path))
        for path, name in names.items()
    ]


def real_items(reference: str | None) -> list[Item]:
    """The videos of a reference folder (or file); none of `mini`, whose clips are drawn.

    Raises:
        ValueError: it does not exist or holds no videos.
    """
    if reference in (None, "mini"):
        return []
    is_there = Path(reference).exists()
    if items := [item for item in find_items([reference]) if is_there and item.path.exists()]:
        return items
    lacks = "holds no videos" if is_there else "does not exist"
    raise ValueError(f"the reference {reference} {lacks}. Give a folder of videos, or `mini`.")


def _videos_in(folder: Path) -> list[Path]:
    baselines = {path.parent for path in folder.rglob("baseline.json")}
    return [
        path
        for path in (folder, *folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and baselines.isdisjoint(path.parents)
        and (is_video(path) or is_frame_folder(path))
    ]


def _facts_of(path: Path) -> dict[str, Any]:
    """Prompt, seed, stride, enlargement and unit key: of a record beside it, else of its name."""
    data: Any = None
    with suppress(OSError, ValueError, RecursionError):
        data = json.loads(path.with_suffix(".json").read_text("utf-8"))
    if path.is_dir() or not isinstance(data, dict):
        data = {}
    prompt, video = data.get("prompt"), data.get("video")
    text = prompt.get("text") if isinstance(prompt, dict) else prompt
    key = data.get("unit")
    facts = {
        "prompt": printable(text, keep="\n\t") if isinstance(text, str) else None,
        "seed": _within(0, data.get("seed"), (1 << 63) - 1),
        "stride": _within(1, _stride(data.get("surface")), 1024),
        "enlarge": _within(1, video.get("enlarge") if isinstance(video, dict) else None, 1024),
        "unit_key": printable(key) if isinstance(key, str) else None,
    }
    known = {key: value for key, value in facts.items() if value is not None}
    prompt, number = prompt_and_number(printable(path.name if path.is_dir() else path.stem))
    return {"prompt": prompt, "seed": number, "from_name": "prompt" not in known} | known


def _within(low: int, value: Any, high: int) -> int | None:
    """A whole number in these bounds; None for anything else."""
    return value if type(value) is int and low <= value <= high else None


def _stride(surface: Any) -> int | None:
    """Pixel frames per latent frame of a causal VAE, from the widths of the surface's tables."""
    counts = surface if isinstance(surface, dict) else {}
    num_frames, num_latents = counts.get("num_frames"), counts.get("num_latent_frames")
    if not (type(num_frames) is type(num_latents) is int) or num_latents < 2:
        return None
    stride, rest = divmod(num_frames - 1, num_latents - 1)
    return stride if rest == 0 else None


def with_prompts(sets: Mapping[str, list[Item]], path: str | Path) -> dict[str, list[Item]]:
    """The sets with the prompts of a file (`read_prompts`).

    Names in it are those of the videos, with or without their folder and ending; a video that it
    does not name keeps its prompt, with a warning. A file without names has a prompt for each
    video of a set, sorted.

    Raises:
        ValueError: the file cannot be read, or does not fit the videos.
    """
    found = read_prompts(path)
    if isinstance(found, list):
        for name, items in sets.items():
            if len(found) != len(items):
                of = f" of {name}" if name else ""
                raise ValueError(f"{path} has {len(found)} prompts for {len(items)} videos{of}.")
        return {
            name: [replace(i, prompt=p, from_name=False) for i, p in zip(items, found)]
            for name, items in sets.items()
        }
    # By the longest name that the file has.
    keys: dict[str, str | None] = {}
    for name, items in sets.items():
        for item in items:
            whole = [item.name, item.name.removeprefix(f"{name}/"), item.path.name]
            names = [*whole, *(n.removesuffix(item.path.suffix) for n in whole)]
            keys[item.name] = next((key for key in names if key in found), None)
    if missed := [name for name, key in keys.items() if key is None]:
        text = f"{path} has no prompt for {len(missed)} of {len(keys)} videos, such as {missed[0]}"
        used = set(keys.values())
        if others := [key for key in found if key not in used]:
            text += f"; {len(others)} of its names are no video here, such as {others[0]}"
        if len(missed) == len(keys):
            raise ValueError(f"{text}. Names are those of the files, such as {missed[0]}.")
        cli.warn(f"{text}.")

    def told(item: Item) -> Item:
        key = keys[item.name]
        return item if key is None else replace(item, prompt=found[key], from_name=False)

    return {name: list(map(told, items)) for name, items in sets.items()}
