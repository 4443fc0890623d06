"""Sets of videos compared, in sentences: paired where names or prompts match, else as sets."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from vidcfg.evaluate.inputs import Item, find_items
from vidcfg.evaluate.run import Evaluation
from vidcfg.media.pictures import is_frame_folder
from vidcfg.metrics.paired import cluster_means
from vidcfg.places import told
from vidcfg.progress import counted, printable
from vidcfg.report.compare import FLOORS, LEVEL, Change, find
from vidcfg.report.formats import change_text
from vidcfg.report.sentences import first_lines, summary
from vidcfg.report.table import (
    DECIDING,
    LEAST_PROMPTS,
    Table,
    base_name,
    differing,
    make_table,
    pair_of,
)
from vidcfg.results import CellResult, Results, UnitResult, read_results

WORDS = {
    "flicker": ("flickers more", "flickers less"),
    "alignment": ("follows the prompt better", "follows the prompt worse"),
    "motion": ("moves more", "moves less"),
}
"""How a rise and a fall of what decides is said."""


def find_sets(
    videos: Sequence[str | Path], addresses: Mapping[str, str] = MappingProxyType({})
) -> dict[str, list[Item]]:
    """The videos by set: a set a folder if several folders are all that is given, else one, `""`.

    A folder of pictures is a video. Sets are called as their folders; names of their videos begin
    with the set. `addresses` tells what paths are copies of: nothing is called as a copy.

    Raises:
        ValueError: a folder holds no videos.
    """
    folders = {path.resolve(): path for path in map(Path, videos)}
    is_sets = all(path.is_dir() and not is_frame_folder(path) for path in folders)
    places: dict[str, Sequence[str | Path]] = {"": videos}
    if is_sets and len(folders) > 1:
        count = Counter(path.name for path in folders)
        names = [path.name if count[path.name] == 1 else str(path) for path in folders]
        places = {printable(name): [place] for name, place in zip(names, folders.values())}
    made: dict[str, list[Item]] = {}
    for name, of_set in places.items():
        called, items = told(name, addresses), find_items(of_set)
        if not items:
            where = called or told(", ".join(map(str, videos)), addresses)
            raise ValueError(f"no videos in {where}.")
        made[called] = []
        for item in items:
            inner, place = (told(text, addresses) for text in (item.name, str(item.path)))
            address = place if place != str(item.path) else None
            whole = f"{called}/{inner}" if called else inner
            made[called].append(replace(item, name=whole, address=address))
    return made


def joined(evaluations: Mapping[str, Evaluation]) -> Evaluation:
    """The evaluations of sets as one: rows of videos, then those of each set, named after it."""
    if len(evaluations) == 1:
        return next(iter(evaluations.values()))
    videos, of_sets, warnings = [], [], []
    features: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, found in evaluations.items():
        videos += found.of_videos
        of_sets += [row | {"subject": name} for row in found.rows if row["path"] is None]
        warnings += found.warnings
        for net, vectors in found.features.items():
            features[net] |= vectors
    return Evaluation(videos + of_sets, features, list(dict.fromkeys(warnings)))


def comparison(out: Path, sets: Mapping[str, Sequence[Item]]) -> list[str]:
    """What the written results say of the sets: which flickers less, by how much, how sure."""
    results, labels = _results(out, sets), {name: name for name in sets}
    base = next(iter(sets))
    start = f"changes are from “{base}”"
    ways = {"names": results, "prompts": _by_prompt(results)}
    common = {how: _with_partners(paired) for how, paired in ways.items()}
    for how, paired in (*ways.items(), *common.items()):
        table = _table(paired)
        if table is None:
            continue
        found = find(table, base, labels)
        prompts = counted(found.prompts, "prompt")
        head = f"{len(table.pairs)} pairs of videos with equal {how}, {prompts}"
        if num_alone := len(results.units) - len(sets) * len(table.pairs):
            head += f" ({num_alone} videos are in none)"
        head += f"; {start}"
        lines = [_sentence(change, found.least_p) for change in found.against]
        said = [f"{entry['title']}: {entry['text']}" for entry in summary(found)]
        return [head, *lines, "", *said, *first_lines(paired, table)]
    by_set = {name: [u for u in results.units if u.cell == name] for name in sets}
    changes, refused = changes_of_sets(by_set, base)
    counts = ", ".join(f"{len(units)} of {name}" for name, units in by_set.items())
    head = f"too few names and prompts match, so sets are compared: {counts}; {start}"
    return [head, *(_sentence(change, 0.0) for change in changes), *refused]


def _results(out: Path, sets: Mapping[str, Sequence[Item]]) -> Results:
    """What is on disk, each set a cell."""
    found = read_results(out)
    cell = {item.name: name for name, items in sets.items() for item in items}
    return replace(
        found,
        cells=tuple(CellResult(name, name) for name in sets),
        units=tuple(replace(unit, cell=cell[unit.key]) for unit in found.units),
        failed=tuple(replace(failure, cell=cell[failure.key]) for failure in found.failed),
    )


def _by_prompt(results: Results) -> Results:
    """With the videos of a prompt numbered anew in each set: of as many in each, which is paired
    with which decides nothing, since a prompt counts by its mean."""
    number = defaultdict(itertools.count)
    units = (replace(u, seed=next(number[u.cell, pair_of(u)[0]])) for u in results.units)
    return replace(results, units=tuple(units))


def _with_partners(results: Results) -> Results:
    """The videos that all sets have a partner of, if prompts enough for a verdict have them."""
    owned = [{pair_of(u) for u in results.units if u.cell == cell.id} for cell in results.cells]
    shared = set.intersection(*owned)
    if len({prompt for prompt, _ in shared}) < LEAST_PROMPTS:
        return results
    return replace(results, units=tuple(u for u in results.units if pair_of(u) in shared))


def _table(results: Results) -> Table | None:
    """The table of pairs; None where a set has no part in it, or two videos are one pair."""
    places = [(unit.cell, pair_of(unit)) for unit in results.units]
    table = make_table(results)
    return None if table.left_out or len(set(places)) < len(places) else table


def _sentence(change: Change, least_p: float) -> str:
    """`“B” flickers less than “A”: mc_flicker −12 % (−20 % to −4 %), p = 0.008`."""
    base, cell = f"“{change.base}”", f"“{change.cell}”"
    said = f"{cell} and {base} cannot be told apart in {change.what}"
    if change.is_clear and least_p <= LEVEL:
        said = f"{cell} {WORDS[change.what][change.change < 0]} than {base}"
    said += f": {change.metric} {change_text(asdict(change))}, p = {change.p_fdr:.2g}"
    if any(change.lost):
        said += f"; {change.lost[0]} clips of {base} and {change.lost[1]} of {cell} have no value"
    return said


def changes_of_sets(
    sets: Mapping[str, Sequence[UnitResult]], base: str
) -> tuple[list[Change], list[str]]:
    """From the set `base` to each other one, where clips form no pairs; and what cannot be said.

    Welch's test and interval on the means of prompts, of their logs where the unit reads as a
    ratio. `lost` of a change counts each set's clips without a value.
    """
    from scipy.stats import false_discovery_control

    found, refused = [], []
    for what, names in DECIDING.items():
        measured = {name for units in sets.values() for unit in units for name in unit.records}
        ranked = [n for base_of in names for n in sorted(measured) if base_name(n) == base_of]
        rows = []
        for cell, name in itertools.product(sets, ranked[:1]):
            if cell != base:
                row = _between_sets(what, name, {c: sets[c] for c in (base, cell)})
                (refused if isinstance(row, str) else rows).append(row)
        adjusted = false_discovery_control([row.p for row in rows]) if rows else []
        found += [replace(row, p_fdr=float(p)) for row, p in zip(rows, adjusted)]
    return found, list(dict.fromkeys(refused))


def _between_sets(what: str, name: str, sets: Mapping[str, Sequence[UnitResult]]) -> Change | str:
    from scipy.stats import ttest_ind

    # The values of both sides, and whether they may be compared.
    sides = [
        [u for u in units if name in u.records and u.records[name].value is not None]
        for units in sets.values()
    ]
    records = [[unit.records[name] for unit in side] for side in sides]
    if not all(sides):
        return f"{name}: a set has no value"
    if unlike := differing([records]):
        return f"{name}: {unlike}"
    values = [np.array([record.value for record in side]) for side in records]
    floor = FLOORS.get(records[0][0].unit)
    is_ratio = floor is not None and bool(min(v.min() for v in values) >= 0)

    # Means of prompts, and how they differ.
    read = [np.log(v + floor) if is_ratio else v for v in values]
    means = [cluster_means(v, [pair_of(unit)[0] for unit in side]) for v, side in zip(read, sides)]
    change, p, low, high = float(means[1].mean() - means[0].mean()), 1.0, None, None
    if min(map(len, means)) > 1 and any(np.ptp(m) > 0 for m in means):
        test = ttest_ind(means[1], means[0], equal_var=False)
        p, (low, high) = float(test.pvalue), map(float, test.confidence_interval())
    ends = [x if x is None or not is_ratio else math.expm1(x) for x in (change, low, high)]
    lost = [len(units) - len(side) for units, side in zip(sets.values(), sides)]
    counts = None, sum(map(len, sides)), tuple(lost)
    return Change(what, name, *sets, *ends, is_ratio, p, p, p, p, *counts)
