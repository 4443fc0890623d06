"""The cells of a sweep: every combination of the grid, as a checked render configuration.

And which of them can be made in one run, as far as it is known before a model is loaded.
"""

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidcfg.files import digest
from vidcfg.guidance.plan import SampleRows
from vidcfg.progress import listed
from vidcfg.render.config import Prompt, RenderConfig
from vidcfg.render.forecast import forecast_of
from vidcfg.render.identity import canonical
from vidcfg.settings.document import ConfigDocument, load_document, put_value, validate
from vidcfg.settings.errors import ConfigError, Place, Problem
from vidcfg.settings.strict_yaml import dump_yaml, parse
from vidcfg.sweep.config import PromptFile, Replaced, SweepConfig

MAX_ID = 60


@dataclass(frozen=True)
class Cell:
    """One combination: `settings` are the values of the grid, `config` the whole render."""

    id: str
    label: str
    settings: dict[str, Any]
    config: RenderConfig


def cells_of(sweep: SweepConfig, document: ConfigDocument) -> tuple[Cell, ...]:
    """All cells, the last dotted path of the grid varying fastest.

    Raises:
        ConfigError: with every problem of every cell.
    """
    base = base_document(sweep, document)
    combinations = list(itertools.product(*sweep.grid.values()))
    labels = [
        " · ".join(_words(n, v, sweep.grid[n]) for n, v in zip(sweep.grid, values))
        for values in combinations
    ]
    made: list[Cell] = []
    problems: dict[Problem, list[str]] = {}
    for values, label, name in zip(combinations, labels, _ids(labels, combinations)):
        settings = dict(zip(sweep.grid, values))
        try:
            cell_document = base
            for path, value in settings.items():
                source = f"grid {path}={_short(value)}"
                cell_document = _put(cell_document, path, value, document, source=source)
            made.append(Cell(name, label, settings, validate(cell_document, RenderConfig)))
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(label)
    if problems:
        raise ConfigError(_of_cells(p, where, len(labels)) for p, where in problems.items())
    _refuse_equal_cells(made)
    return tuple(made)


def _of_cells(problem: Problem, labels: list[str], num_cells: int) -> Problem:
    """The problem with the cells that have it; without them where all have."""
    if len(labels) == num_cells:
        return problem
    named = listed([f"'{label}'" for label in labels], 3)
    word = "cell" if len(labels) == 1 else "cells"
    return Problem(problem.place, f"{problem.message} ({word} {named})")


def base_document(sweep: SweepConfig, document: ConfigDocument) -> ConfigDocument:
    """The base render with the sweep's own prompts, seeds and settings put in.

    Raises:
        ConfigError: if the base or the file of prompts cannot be read.
    """
    source = document.source
    if isinstance(sweep.base, str):
        base = load_document(_beside(source, sweep.base))
    else:
        inner = {p[1:]: place for p, place in document.places.items() if p[:1] == ("base",)}
        base = ConfigDocument(source, sweep.base, inner)
    replaced = {k: base.data[k] for k in Replaced.model_fields if base.data.get(k) is not None}
    validate(replace(base, data=replaced), Replaced)
    for path, value in sweep.set.items():
        base = _put(base, path, value, document, source=f"{source}: set {path}")
    if (prompts := sweep.prompts) is not None:
        if isinstance(prompts, PromptFile):
            prompts = read_prompts(_beside(source, prompts.file))
        data = [prompt.to_dict() for prompt in prompts]
        base = put_value(base, ("prompts",), data, source=f"{source}: prompts")
    if sweep.seeds is not None:
        base = put_value(base, ("seeds",), list(sweep.seeds), source=f"{source}: seeds")
    return base


def read_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """The prompts of a text file (one a line; blank lines and lines with # are left out) or of
    JSON lines (a text, or an object with `text`, `negative` and `image`).

    Raises:
        ConfigError: naming file and line.
    """
    if Path(path).suffix.lower() in (".csv", ".tsv", ".json", ".yaml", ".yml"):
        message = "is no text. Write one prompt a line (.txt), or JSON lines (.jsonl)."
        raise ConfigError(Problem(Place(str(path)), message))
    try:
        # Other ends of lines than that of the file, such as U+2028, are part of a text.
        lines = Path(path).read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(Problem(Place(str(path)), f"cannot be read: {reason}.")) from None
    made: list[Prompt] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            entry = json.loads(text) if Path(path).suffix == ".jsonl" else text
            made.append(Prompt(**({"text": entry} if isinstance(entry, str) else entry)))
            continue
        except json.JSONDecodeError as error:
            message = f"is not JSON: {error.msg}."
        except RecursionError:
            message = "is nested too deeply."
        except ConfigError as error:
            message = error.problems[0].message
        except TypeError:
            message = 'must be a text or an object such as {"text": "a red circle"}.'
        raise ConfigError(Problem(Place(str(path), number), message))
    if not made:
        raise ConfigError(Problem(Place(str(path)), "holds no prompts. Write one a line."))
    return tuple(made)


def baseline_of(sweep: SweepConfig, cells: tuple[Cell, ...]) -> str:
    """The id of the cell that others are compared with: as written, else the first uniform one."""
    if sweep.baseline is not None:
        wanted = sweep.baseline.items()
        return next(c.id for c in cells if all(c.settings[k] == v for k, v in wanted))
    uniform = (c for c in cells if c.config.guidance.frames.kind == "uniform")
    guided = (c for c in uniform if not c.config.guidance.is_off)
    return next(guided, cells[0]).id


def _beside(source: str, name: str) -> str:
    """A path as written, or beside the sweep file where it is not found from here."""
    near = Path(source).parent / os.path.expanduser(name)
    return str(near) if near.exists() or not Path(name).exists() else name


def _put(
    render: ConfigDocument, path: str, value: Any, sweep: ConfigDocument, *, source: str
) -> ConfigDocument:
    """The render with a value of the sweep file; an array file with where it lies, since a base
    elsewhere does not see it."""
    if isinstance(value, str) and value.endswith(".npy"):
        value = str(Path(_beside(sweep.source, value)).absolute())
    plain, _ = parse(dump_yaml(value), source=source)
    return put_value(render, tuple(path.split(".")), plain, source=source)


def _refuse_equal_cells(cells: list[Cell]) -> None:
    same: dict[str, Cell] = {}
    for cell in cells:
        text = json.dumps(cell.config.to_dict(), sort_keys=True)
        if (other := same.setdefault(text, cell)) is not cell:
            message = f"the cells '{other.label}' and '{cell.label}' are the same render."
            raise ConfigError(Problem(Place("grid"), message))


def _words(path: str, value: Any, among: list[Any]) -> str:
    """`scale 3`, `keyframes`, `decay (end 0.3)`: a setting and its value, as short as it can be
    told from the others."""
    name = re.sub(r"^(guidance|sampling|video|model)\.", "", path)
    if isinstance(value, dict):
        kind = value.get("kind", name)
        others = [v.get("kind") if isinstance(v, dict) else v for v in among]
        if others.count(kind) == 1:
            return str(kind)
        rest = ", ".join(f"{k} {_short(v)}" for k, v in value.items() if k != "kind")
        return f"{kind} ({rest})" if rest else str(kind)
    if isinstance(value, str):
        return value
    return f"{name} {_short(value)}"


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, dict):
        return " ".join(f"{k} {_short(v)}" for k, v in value.items())
    return "+".join(map(_short, value)) if isinstance(value, list) else str(value)


def _ids(labels: list[str], combinations: list[tuple]) -> list[str]:
    """File names for labels: all different, those that were cut or collide end in a hash."""
    slugs = [re.sub(r"[^a-z0-9.]+", "-", label.casefold()).strip("-") for label in labels]
    made, count = [], Counter(slugs)
    for values, slug in zip(combinations, slugs):
        if len(slug) > MAX_ID or count[slug] > 1 or not slug.strip(".-"):
            text = json.dumps(values, sort_keys=True, default=str)
            slug = f"{slug[:MAX_ID].rstrip('-.')}-{digest(text)[:8]}"
        made.append(slug)
    return made


def anchored(data: dict[str, Any], name: str) -> dict[str, Any]:
    """`data` with the path under `name` made absolute, for workers that run elsewhere."""
    if (value := data.get(name)) is not None and Path(value).exists():
        return data | {name: str(Path(value).resolve())}
    return data


def runs_of(cells: Iterable[Cell]) -> dict[str, str]:
    """The run that each cell can be a part of, by its id: the first of those of equal `_common`
    whose branches read no other texts."""
    runs, texts = {}, {}
    for cell in cells:
        common, reads = canonical(_common(cell)), cell.config.guidance.method.reads()
        known = texts.setdefault(common, [])
        fits = (one for one in known if all(one.get(b, t) == t for b, t in reads.items()))
        if (found := next(fits, None)) is None:
            known.append(found := {})
        found |= reads
        runs[cell.id] = f"{known.index(found)} {common}"
    return runs


def _common(cell: Cell) -> dict[str, Any]:
    """What videos of one run must have in common, beside prompt and seed."""
    whole = cell.config.to_dict()
    kept = {name: whole[name] for name in ("model", "video", "sampling")}
    # A branch made from another one's result is never shared, nor is anything beside it.
    is_alone = any(rule.follows_cond for rule in cell.config.guidance.method.terms)
    if is_alone or not shares_exactly(cell.config):
        return kept | {"cell": cell.id}
    return kept | {name: whole["guidance"][name] for name in ("passes", "micro_batch", "share")}


def shares_exactly(config: RenderConfig) -> bool:
    """Whether videos that are made together come out as if they were made alone.

    True where the model is called with one row at a time; where only the loaded model can tell,
    True as well, and the worker decides.
    """
    guidance = config.guidance
    if guidance.passes != "pipeline" or guidance.micro_batch == 1:
        return guidance.passes == "sequential" or guidance.micro_batch == 1
    if config.model.kind == "mini":
        return True
    family = forecast_of(config).family
    return family is None or family.stock_passes == "sequential"


def row_of(config: RenderConfig) -> tuple[SampleRows, dict[str, Any]] | None:
    """The first video of a render in a plan of evaluations, and the text of each branch; None
    where the model must tell."""
    forecast = forecast_of(config)
    try:
        return forecast.facts and (forecast.samples, forecast.texts(config.prompts[0]))
    except ValueError:
        # A scale by experts or noise levels that only the loaded model knows.
        return None
