"""What was scored before: a line a video, found again by the video's content and the protocol."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import vidcfg
from vidcfg.evaluate.inputs import Item
from vidcfg.evaluate.score import Scored, cached_net
from vidcfg.evaluate.settings import Settings
from vidcfg.files import append_text, content_of, sha256_of
from vidcfg.metrics.metric import FAMILIES, foreign_metrics
from vidcfg.metrics.record import SCHEMA, ClipInfo, Record
from vidcfg.metrics.weight_files import MissingWeightsError
from vidcfg.stored.read import ResultsError, parse
from vidcfg.stored.shapes import KeptLine

PACKAGES = ("numpy", "av", "decord", "opencv-python-headless", "torch", "torchvision")
PACKAGES += ("lpips", "transformers", "open_clip_torch")
"""Libraries whose version may change a value."""


class Kept:
    """The videos that `scored.jsonl` of a folder holds; lines are added as videos are finished.

    Lines that cannot be read (the last one of a run that was killed) are left aside. `contents`
    has what `content_of` says of every video that was asked for.
    """

    def __init__(self, folder: Path, settings: Settings):
        self.path = folder / "scored.jsonl"
        self._settings, self._protocol = settings, _protocol(settings)
        self._lines: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}
        self.contents: dict[str, str | None] = {}
        text = self.path.read_text("utf-8", "replace") if self.path.is_file() else ""
        # What follows on half a line would be lost with it.
        self._start = "\n" if text and not text.endswith("\n") else ""
        for line in text.split("\n"):
            with suppress(ResultsError):
                found = parse(line, self.path, KeptLine)
                if found["schema"] == SCHEMA:
                    self._lines[found["key"]] = found

    def find(self, item: Item) -> Scored | None:
        """A finished video, without clips."""
        self.contents[item.name] = content_of(item.path)
        # The ending may decide how it is read.
        content = item.path.suffix.lower(), self.contents[item.name]
        stride = self._settings.stride or item.stride
        key = _digest(*content, self._protocol, item.text, stride, item.enlarge)
        self._keys[item.name] = key
        line = self._lines.get(key)
        if line is None:
            return None
        try:
            records = [replace(Record.from_dict(r), subject=item.name) for r in line["records"]]
        except ValueError:
            return None
        clip = ClipInfo.from_dict(line["clip"])
        vectors = {
            net: np.array(numbers, dtype=kind) for net, (kind, numbers) in line["features"].items()
        }
        return Scored(item, records, {}, dict(line["problems"]), clip, vectors)

    def add(self, scored: Scored) -> None:
        """Keep a finished video that `find` was asked for.

        One that could not be read is not kept: it is tried again the next time.
        """
        if scored.clip is None:
            return
        line = {
            "schema": SCHEMA,
            "key": self._keys[scored.item.name],
            "video": scored.item.name,
            "clip": asdict(scored.clip),
            "problems": scored.problems,
            "features": {net: (str(v.dtype), v.tolist()) for net, v in scored.vectors.items()},
            "records": [record.to_dict() for record in scored.records],
        }
        append_text(self.path, f"{self._start}{json.dumps(line, allow_nan=False)}\n")
        self._start = ""


def _protocol(settings: Settings) -> str:
    """What decides the values of a video: settings, weights, and the code that measures."""
    # Where and how many at a time decides nothing, the reference only what is said of the set.
    facts = asdict(settings)
    for name in ("workers", "batch_size", "reference", "stride"):
        del facts[name]
    files = [*settings.paths.values(), settings.clip_model]
    given = {path: content_of(Path(path)) for path in files}
    backends = [_backend(name, settings) for name in settings.families]
    # This loads plugins, whose metrics a run without new videos reads the names of too.
    foreign = foreign_metrics(settings.families)
    return _digest(facts, given, backends, foreign, _code())


def _backend(family: str, settings: Settings) -> Any:
    """The net behind a family, wherever it lies: once missing weights are there, it is another."""
    known = FAMILIES[family]
    try:
        if known.has_weights:
            return known.load().load_meter(settings, prompt=None, fps=1.0).backend
        if known.net is not None and known.net != "mini":
            return cached_net(known.net, settings).backend
    except MissingWeightsError:
        return "absent"
    return None


@cache
def _code() -> str:
    """Files of the package and versions of libraries that values depend on."""
    root = Path(vidcfg.__file__).parent
    places = [root / name for name in ("media", "metrics", "mini", "evaluate/score.py")]
    files = [p for place in places for p in ([place] if place.is_file() else place.rglob("*.py"))]
    return _digest(*map(sha256_of, sorted(files)), *map(_version, PACKAGES))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
