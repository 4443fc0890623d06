"""The cells of the sweeps in configs/evidence, and what is kept of their videos on disk.

A cell lies under the digest of all that its videos are made of, in files of a few prompts each:
whatever made them, in which order and in how many pieces, they are read as one.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.files import atomic_path, remembered_sha256
from vidcfg.mini import FEW_STEPS, MINI_PATH, STRENGTH_ADAPTER
from vidcfg.mini.shapes import ATTRIBUTES
from vidcfg.render.identity import content_of
from vidcfg.sweep.cells import cells_of, read_prompts
from vidcfg.sweep.config import load_sweep_config

CONFIGS = Path(__file__).parents[2] / "configs" / "evidence"
SWEEPS = ("scale", "confirm", "distance", "minimum", "held_out", "variety")
SWEEPS += ("frames", "schedules", "rules", "steps", "distilled", "few_steps", "dropout")
ALIGNMENT, FLICKER = "attribute_accuracy[mini]", "mc_flicker"
METRICS = (ALIGNMENT, "align[mini]", FLICKER, "judder", "frame_diff", "dynamic_degree")
METRICS += ("clipped_share", "saturation")
FEATURES = "scorer;its-first-convolutions-at-2x2-places"


@dataclass(frozen=True, eq=False)
class Work:
    """One cell of a sweep on the first N of its prompts, `seeds` videos of each.

    `prompts` has one for each video, of which the first is drawn from `first_seed`. Equal work
    has equal digests. `scorer_alone` leaves out what takes a search for motion.
    """

    sweep: str
    id: str
    label: str
    config: Any
    prompts: tuple[str, ...]
    digest: str
    seeds: int = 1
    first_seed: int = 0
    scorer_alone: bool = False


@dataclass(frozen=True, eq=False)
class Made:
    """What was measured of N videos, in the order of the prompts.

    `values` are metrics by name [N], NaN where there is none; `right` the share of read times at
    which an attribute is as its prompt says [N], NaN where the prompt does not name it.
    """

    values: dict[str, np.ndarray]
    right: dict[str, np.ndarray]
    features: np.ndarray = field(repr=False)
    evaluations: float = float("nan")


def load_sweeps(
    names: Iterable[str] = SWEEPS,
    num: int | None = None,
    *,
    overrides: Sequence[str] = (),
    numerics: str = "",
) -> list[Work]:
    """Every cell of these sweeps, on their first `num` prompts (None: all).

    Raises:
        ConfigError: a file is wrong.
    """
    made = []
    for name in names:
        path = CONFIGS / f"{name}.yaml"
        sweep, document = load_sweep_config(path, overrides)
        # The file of prompts and not its lines: more of them are the same work.
        file, prompts = getattr(sweep.prompts, "file", None), sweep.prompts
        if file is not None:
            prompts = read_prompts(path.parent / file)
        seeds = sweep.seeds or (0,)
        texts = tuple(prompt.text for prompt in prompts[:num] for _ in seeds)
        for cell in cells_of(sweep.model_copy(update={"prompts": prompts[:1]}), document=document):
            facts = [_facts(cell.config), METRICS, FEATURES, numerics, weights(), file]
            digest = digest_of(facts + [seeds[0]] * (seeds[0] > 0) + _taught(cell.config))
            rest = (texts, digest, len(seeds), seeds[0], "warp" not in sweep.metrics)
            made.append(Work(name, cell.id, cell.label, cell.config, *rest))
    return made


def digest_of(facts: Any) -> str:
    """16 characters that stand for plain data."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _facts(config: Any) -> dict[str, Any]:
    render = config.to_dict()
    render["model"].pop("device", None)
    return {k: render[k] for k in ("model", "video", "sampling", "guidance")}


def _taught(config: Any) -> list[str | None]:
    """Hashes of what was trained beside the embedded model, of what a cell uses."""
    place = config.model.checkpoint
    found = [] if place is None else [FEW_STEPS if place == "few_steps" else place]
    if getattr(config.guidance.method, "adapter", None) == "mini":
        found.append(STRENGTH_ADAPTER)
    return [content_of(path) for path in found]


@cache
def weights() -> dict[str, str]:
    """Hashes of the weight files of the embedded model."""
    return {
        str(path.relative_to(MINI_PATH)): remembered_sha256(path)
        for path in sorted(MINI_PATH.glob("*/*.safetensors"))
    }


def write_block(out: Path, work: Work, start: int, made: Made) -> None:
    """Keep the videos of prompts `start` and following ones."""
    stop = start + len(made.features)
    path = out / work.digest / f"{start:05d}-{stop:05d}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    prompts = np.array(work.prompts[start:stop])
    values = {f"value:{name}": column for name, column in made.values.items()}
    right = {f"right:{name}": column for name, column in made.right.items()}
    rest = {"prompts": prompts, "start": start, "evaluations": made.evaluations}
    with atomic_path(path, overwrite=True) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, features=made.features, **values, **right, **rest)


def missing(out: Path, work: Work) -> list[int]:
    """The numbers of prompts whose videos are not there."""
    there = {int(i) for block in _blocks(out, work) for i in block["rows"]}
    return [i for i in range(len(work.prompts)) if i not in there]


def read(out: Path, work: Work) -> Made:
    """All videos of a cell.

    Raises:
        ValueError: some are missing.
    """
    lacks = missing(out, work)
    if lacks:
        raise ValueError(
            f"{out} lacks {len(lacks)} of {len(work.prompts)} videos of {work.sweep}: {work.id}. "
            f"Make them: python scripts/evidence run --only {work.sweep} "
            f"--prompts {len(work.prompts) // work.seeds} --out {out}"
        )
    blocks = _blocks(out, work)
    rows = np.concatenate([block["rows"] for block in blocks])
    _, first = np.unique(rows, return_index=True)

    def whole(name: str) -> np.ndarray:
        return np.concatenate([block[name] for block in blocks])[first]

    values = {name: whole(f"value:{name}") for name in METRICS}
    right = {name: whole(f"right:{name}") for name in ATTRIBUTES}
    counts = [float(block["evaluations"]) for block in blocks]
    return Made(values, right, whole("features"), float(np.mean(counts)))


def _blocks(out: Path, work: Work) -> list[dict[str, np.ndarray]]:
    """The files of a cell that are of its prompts, cut to those that it has."""
    made = []
    for path in sorted((out / work.digest).glob("*.npz")):
        with np.load(path) as file:
            block = dict(file)
        start = int(block["start"])
        num = min(len(block["features"]), max(len(work.prompts) - start, 0))
        if num and tuple(block["prompts"][:num]) == work.prompts[start : start + num]:
            kept = {k: v[:num] for k, v in block.items() if v.ndim}
            rows = np.arange(start, start + num)
            made.append(kept | {"rows": rows, "evaluations": block["evaluations"]})
    return made
