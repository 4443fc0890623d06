"""What the data say, in sentences; and what they do not say."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from vidcfg.progress import counted, listed
from vidcfg.report.compare import LEVEL, MOTION_LOSS, Change, Findings
from vidcfg.report.formats import signed
from vidcfg.report.table import DECIDING, Table, pair_of
from vidcfg.results import Key, Results, UnitResult

MOST_NEEDED = 20
"""More than so many times the clips at hand are not worth making for a difference that small."""

SLIGHT = 0.001
"""A difference below this part of the value does not matter, however sure it is."""

GOOD = {"flicker": -1, "alignment": 1}
"""Which way is better in what the front is of."""

Entry = dict[str, str]


def first_lines(results: Results, table: Table) -> list[str]:
    """What a reader has to know before any number."""
    lines = []
    labels = {cell.id: cell.label for cell in results.cells}
    if results.missing or results.failed:
        counts = [f"{len(results.failed)} failed"] if results.failed else []
        counts += [f"{len(results.missing)} not rendered yet"] if results.missing else []
        whole = f" of {len(results.plan.get('units', ()))}" if results.plan else ""
        lines.append(
            f"Incomplete: {len(results.units)}{whole} videos are there, {', '.join(counts)}. "
            f"Cells are compared on the {len(table.pairs)} of {table.num_pairs} pairs of prompt "
            "and seed that all of them have."
        )
    count = Counter(_place(unit, labels) for unit in results.units)
    if doubled := [str(key) for key, num in count.items() if num > 1]:
        lines.append(
            f"Several videos are {listed(doubled, 3, '; ')}: the last of each counts, the others "
            "have no part in what is compared. Give prompts other texts, or videos other folders."
        )
    for cell, reason in table.left_out.items():
        lines.append(f"{labels[cell]} is not compared: {reason}.")
    check = (results.summary or {}).get("self_check")
    if check and check.get("equal") is False:
        cells = " and ".join(labels.get(cell, str(cell)) for cell in check.get("cells") or ())
        lines.append(
            f"The self-check failed: {cells or 'two hidden cells'} should be the same videos and "
            "are not. Do not trust the comparison before that is explained."
        )
    lines += _mixed_lines(results) + _flicker_lines(table, labels) + _cut_lines(results, labels)
    return [*lines, *results.problems]


def _place(unit: UnitResult, labels: Mapping[str, str]) -> Key:
    prompt, seed = pair_of(unit)
    return Key(labels[unit.cell], prompt, -1 if seed is None else seed)


def _mixed_lines(results: Results) -> list[str]:
    """Which versions made how many of the videos, where they are several."""
    told = []
    known = [
        {**(unit.render.get("versions") or {}), **(unit.render.get("sources") or {})}
        for unit in results.units
    ]
    for name in ("vidcfg", "numerics", "torch", "diffusers"):
        found = Counter(str(versions.get(name, "unknown")) for versions in known)
        if len(found) > 1:
            counts = (f"{version} ({n} videos)" for version, n in sorted(found.items()))
            told.append(f"{name} {' and '.join(counts)}")
    why = "differences between cells may come from that"
    return [f"Videos of several versions are compared: {'; '.join(told)}; {why}."] if told else []


def _cut_lines(results: Results, labels: Mapping[str, str]) -> list[str]:
    """Which videos are of several shots."""
    cut = {}
    for unit in results.units:
        for at in (r.extra["cuts"] for r in unit.records.values() if "cuts" in r.extra):
            cut[_place(unit, labels)] = at
    if not cut:
        return []
    named = [f"{name} at frame {', '.join(map(str, at))}" for name, at in cut.items()]
    what = "Scene cuts, so that flicker and motion are those of shots"
    return [f"{what}: {listed(named, 5, '; ')}."]


def _flicker_lines(table: Table, labels: Mapping[str, str]) -> list[str]:
    """Why nothing is said of flicker, and who lost clips of what decides it."""
    best = DECIDING["flicker"][0]
    metric = table.metrics.get(best)
    none = "so no setting is named as flickering least"
    lines = []
    if metric is None and best in table.refused:
        lines = [f"{best} cannot decide ({table.refused[best]}), {none}."]
    elif metric is not None:
        there, total = int(metric.is_there_N.sum()), len(table.pairs)
        lost = {labels[c]: int(n) for c, n in zip(table.cells, metric.num_lost_C) if n}
        measured = f"{best} has a value in every cell for {there} of {total} clips"
        who = "; ".join(f"“{label}” lost {count}" for label, count in lost.items())
        if table.first("flicker") is None:
            lines = [f"{measured}, too few to decide by, {none}."]
        elif there < total:
            lines = [f"{measured}: means are of these."]
        if lost:
            lines[-1] += f" Clips without a value: {who}. In the tests they count as the worst."
    if table.first("flicker") is None and "frame_diff" in table.metrics:
        end = "and decides nothing" if lines else none
        lines.append(
            f"frame_diff mixes motion with flicker, {end}. To compare flicker, compute {best}: "
            "add `warp` to the sweep's metrics, or run vidcfg evaluate with --metrics warp."
        )
    return lines


def summary(found: Findings) -> list[Entry]:
    """Entries {title, text, kind}; kind is `clear`, `unclear` (data cannot tell) or `note`."""
    can_decide, cells = found.least_p <= LEVEL, found.table.cells
    if not cells:
        return [_entry("Nothing to compare", "No video is finished yet.", "note")]

    # Whether it can be said at all, then who is best in one, in both, and what to be wary of.
    entries: list[Entry | None] = []
    if not can_decide and found.prompts and len(cells) > 1:
        text = (
            f"{counted(found.prompts, 'prompt')} cannot reach p = {LEVEL:g} whatever the videos "
        )
        text += f"look like (least p {found.least_p:.2g}). Six prompts or more can."
        entries.append(_entry("Too few prompts for a verdict", text, "unclear"))
    for what, title in (("alignment", "Follows the prompt best"), ("flicker", "Flickers least")):
        if what in found.table.key_metrics and len(cells) > 1 and found.clips:
            entries.append(_best(found, what, title))
    if can_decide:
        entries += [_balance(found), _front(found), _baseline(found)]
    entries.append(_motion(found))

    # A page that has nothing to say tells why.
    if any(entries):
        return [entry for entry in entries if entry]
    if len(cells) < 2:
        return [_entry("Nothing to compare", "The page describes one setting.", "note")]
    text = "No deciding metric was measured on a shared clip."
    return [_entry("Nothing to decide by", text, "note")]


def _entry(title: str, text: str, kind: str) -> Entry:
    return {"title": title, "text": text, "kind": kind}


def _ranked(found: Findings, what: str, cells: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """The best cell, those that are the same as it, those that cannot be told apart from it."""
    best = found.best(found.table.key_metrics[what], cells)
    others = {cell: found.between(what, best, cell) for cell in cells if cell != best}
    same = [cell for cell in others if _is_same(found, best, cell)]
    unsure = [cell for cell, change in others.items() if change is None or not change.is_clear]
    return best, same, [cell for cell in unsure if cell not in same]


def _is_same(found: Findings, one: str, other: str) -> bool:
    rows = [found.between(what, one, other) for what in found.table.key_metrics]
    return all(r and r.change == 0 and r.low in (None, 0) and r.lost == (0, 0) for r in rows)


def _best(found: Findings, what: str, title: str) -> Entry:
    # What the best mean is, and who has the same videos.
    frozen = found.frozen if what == "flicker" else set()
    cells = [cell for cell in found.table.cells if cell not in frozen] or list(found.table.cells)
    title += " of those that move" * (len(cells) < len(found.table.cells))
    best, same, tied = _ranked(found, what, cells)
    name = found.table.key_metrics[what]
    mean = found.means[name][best]
    text = f"{_named(found, [best])}: {name} {mean.mean:.4g}"
    text += "" if mean.low is None else f" ({mean.low:.4g} to {mean.high:.4g})"
    for change in found.against if what == "flicker" else ():
        if change.what == "motion" and change.cell == best:
            text += f", motion {_percent(change, best)} beside the baseline"
    text += f", the same videos as {_named(found, same)}" if same else ""

    # Whether it is surely the best.
    if losses := found.losses(what):
        who = "; ".join(f"{_named(found, [cell])} lost {n}" for cell, n in losses.items())
        more = f"of {len(found.table.pairs)} clips {who}. A lost clip counts as the worst"
        end = "while losses differ, no setting is called clearly best"
        return _entry(title, f"{text}. {name} is missing: {more}; {end}.", "unclear")
    if found.least_p > LEVEL:
        doubt = f"{counted(found.prompts, 'prompt')} cannot say whether it holds for others"
        return _entry(title, f"{text}. This is the best mean; {doubt}.", "unclear")
    if not tied:
        rest = len(cells) - len(same) - 1
        how = f", clearly ahead of the other {rest}" if rest else ""
        return _entry(title, f"{text}{how}.", "clear" if rest else "note")
    text += f". It cannot be told apart from {_named(found, tied)} at n = {found.clips}"
    needed = _needed(found, what, best, found.best(name, tied))
    return _entry(title, f"{text}. {needed}", "unclear")


def _needed(found: Findings, what: str, best: str, nearest: str) -> str:
    """What it would take to tell two cells apart."""
    change = found.between(what, best, nearest)
    if change is None:
        return "They were not compared one by one."
    name, size = _named(found, [nearest]), f"differs by {_percent(change, nearest)} in {what}"
    mean = found.means[change.metric][change.base].mean
    is_slight = abs(change.change) < SLIGHT * (1 if change.is_ratio else abs(mean))
    if change.needed is None and not is_slight:
        return f"The closest, {name}, {size}; no number of clips up to a million would show it."
    if is_slight or change.needed > MOST_NEEDED * found.clips:
        return f"The closest, {name}, {size}, too little to be worth more clips, take either."
    if (more := change.needed - found.clips) > 0:
        times = "would show it in 4 of 5 tries"
        return f"{name} {size}; if that is real, about {more} more clips {times}."
    doubt = "so large that it should show, but prompts do not agree on it"
    return f"{name} {size}; {doubt}. Repeat these two on other prompts."


def _balance(found: Findings) -> Entry | None:
    """The least flicker among cells whose alignment is not surely below the best."""
    names, frozen = found.table.key_metrics, found.frozen
    cells = [cell for cell in found.table.cells if cell not in frozen]
    if not {"flicker", "alignment"} <= set(names) or not found.clips or len(cells) < 2:
        return None
    best, same, tied = _ranked(found, "alignment", cells)

    # Where alignment separates nothing, there is no pool to choose from.
    pool = [best, *same, *tied]
    if len(pool) == len(cells) > 2:
        text = "Alignment does not separate any two of these settings, so it cannot say how much "
        text += "flicker is worth. Choose by flicker, by eye, or render more prompts."
        return _entry("Both together", text, "unclear")
    chosen = found.best(names["flicker"], pool)
    text = f"{_named(found, [chosen])}: the least flicker among the {len(pool)} settings whose "
    text += "alignment is not surely below the best"
    if chosen != best and (change := found.between("flicker", best, chosen)) is not None:
        sure = "which is clear" if change.is_clear else "which is not sure"
        amount = _percent(change, chosen)
        text += f". Beside {_named(found, [best])} its flicker changes by {amount}, {sure}"
    is_clear = len(pool) == 1 and not _has_losses(found)
    return _entry("Both together", text + ".", "clear" if is_clear else "note")


def _front(found: Findings) -> Entry | None:
    frozen = found.frozen
    cells = [cell for cell in found.table.cells if cell not in frozen]
    if found.front is None or len(cells) < 3:
        return None

    # By the tests: of many equal settings each is on the front in few resamples.
    ahead = defaultdict(set)
    for change in found.among:
        pair = change.base, change.cell
        if change.is_clear and change.what in GOOD and set(pair) <= set(cells):
            is_better = change.change * GOOD[change.what] > 0
            ahead[pair[::-1] if is_better else pair].add(change.what)
    sure = []
    for cell in cells:
        others = (other for other in cells if other != cell)
        if all((cell, other) in ahead or _is_same(found, cell, other) for other in others):
            sure.append(cell)
    num_out = len({loser for (_, loser), ways in ahead.items() if len(ways) == len(GOOD)})
    num_open = len(cells) - len(sure) - num_out
    best = f"No other setting is better in both flicker and alignment than {_named(found, sure)}"
    text = best if sure else "None is surely on it"
    text += f"; {num_out} of {len(cells)} settings are surely beaten by another in both"
    text += f", {num_open} are undecided." if num_open else "."
    if _has_losses(found):
        text = f"{text.rstrip('.')}. Settings lost unequal numbers of clips, so it is not sure."
        return _entry("On the Pareto front", text, "unclear")
    return _entry("On the Pareto front", text, "clear" if sure else "unclear")


def _has_losses(found: Findings) -> bool:
    return bool(found.losses("flicker") or found.losses("alignment"))


def _baseline(found: Findings) -> Entry | None:
    parts = []
    for what, good in GOOD.items():
        if rows := [c for c in found.against if c.what == what]:
            better = sum(c.is_clear and c.change * good > 0 for c in rows)
            worse = sum(c.is_clear and c.change * good < 0 for c in rows)
            rest = len(rows) - better - worse
            parts.append(f"in {what} {better} are better, {worse} worse, {rest} undecided")
    if found.base is None or not parts:
        return None
    text = f"Beside {_named(found, [found.base])}, {'; '.join(parts)}."
    return _entry("Against the baseline", text, "note")


def _motion(found: Findings) -> Entry | None:
    frozen = sorted(found.frozen, key=found.table.cells.index)
    if not frozen:
        return None
    text = (
        f"{_named(found, frozen)}: surely over {MOTION_LOSS:.0%} less motion than the baseline, "
    )
    text += "or still. Their low flicker is no merit, so they do not count as least flickering."
    return _entry("Moves too little", text, "note")


def _named(found: Findings, cells: Sequence[str]) -> str:
    return listed([f"“{found.labels[cell]}”" for cell in cells], 4)


def _percent(change: Change, start: str) -> str:
    """The size of a change, from the other cell to `start`."""
    amount, low, high = change.change, change.low, change.high
    if change.cell != start and change.is_ratio:
        amount = 1 / (1 + amount) - 1
        low, high = (None, None) if low is None else (1 / (1 + high) - 1, 1 / (1 + low) - 1)
    elif change.cell != start:
        amount, low, high = -amount, *((None, None) if low is None else (-high, -low))
    return signed("{:+.1%}" if change.is_ratio else "{:+.2g}", amount, low, high)
