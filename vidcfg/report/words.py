"""What the data say, in sentences; and what they do not say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidcfg.report.compare import LEVEL, Change, Estimate, Front
from vidcfg.report.results import Results
from vidcfg.report.values import FLICKER, Table

MOTION_LOSS = 0.25
"""A cell that surely loses this share of the baseline's motion cannot win in flicker."""

MOST_NEEDED = 20
"""More than so many times the clips at hand are not worth making for a difference that small."""


SLIGHT = 0.001
"""A difference below this part of the value does not matter, however sure it is."""


@dataclass(frozen=True, eq=False)
class Words:
    """What sentences are made of. `against` is by the baseline, `among` by pairs of cells."""

    labels: Mapping[str, str]
    table: Table
    means: Mapping[str, Mapping[str, Estimate]]
    against: list[Change]
    among: list[Change]
    front: Front | None
    base: str | None
    prompts: int
    clips: int
    least_p: float

    def named(self, cell: str) -> str:
        return f"“{self.labels[cell]}”"

    def between(self, what: str, one: str, other: str) -> Change | None:
        for change in self.among:
            if change.what == what and {change.base, change.cell} == {one, other}:
                return change
        return None


def first_lines(results: Results, table: Table) -> list[str]:
    """What a reader has to know before any number."""
    lines = []
    labels = {cell.id: cell.label for cell in results.cells}
    planned = len((results.plan or {}).get("units", ()))
    if results.missing or results.failed:
        counts = [f"{len(results.failed)} failed"] if results.failed else []
        counts += [f"{len(results.missing)} not rendered yet"] if results.missing else []
        whole = f" of {planned}" if planned else ""
        lines.append(
            f"Incomplete: {len(results.units)}{whole} videos are there, {', '.join(counts)}. "
            f"Cells are compared on the {len(table.pairs)} of {table.num_pairs} pairs of prompt "
            "and seed that all of them have."
        )
    for cell, reason in table.left_out.items():
        lines.append(f"{labels[cell]} is not compared: {reason}.")
    check = (results.summary or {}).get("self_check")
    if check and check.get("equal") is False:
        cells = " and ".join(labels.get(cell, str(cell)) for cell in check.get("cells", []))
        lines.append(
            f"The self-check failed: {cells} should be the same videos and are not. "
            "Do not trust the comparison before that is explained."
        )
    return [*lines, *_flicker_lines(table), *results.problems]


def _flicker_lines(table: Table) -> list[str]:
    """Where motion-compensated flicker is missing for some clips, or for too many to decide."""
    flicker = table.first(FLICKER)
    wanted = table.metrics.get(FLICKER[0])
    if flicker is None:
        return []
    if wanted is None:
        reason = table.refused.get(FLICKER[0])
        instead = f"flicker is judged by {flicker}, which counts motion as flicker."
        return [] if reason is None else [f"{FLICKER[0]} cannot decide ({reason}): {instead}"]
    there = int(np.isfinite(wanted.values_CN).all(axis=0).sum())
    measured = f"{FLICKER[0]} has a value in every cell for {there} of {len(table.pairs)} clips"
    if flicker != FLICKER[0]:
        return [
            f"{measured}, too few to decide by: flicker is judged by {flicker}, which counts "
            "motion as flicker."
        ]
    if there < len(table.pairs):
        return [f"{measured}, where optical flow works. Flicker is compared on these."]
    return []


def summary(words: Words) -> list[dict[str, str]]:
    """Entries {title, text, kind}; kind is `clear`, `unclear` (data cannot tell) or `note`."""
    entries = []
    if words.least_p > LEVEL and words.prompts and len(words.table.cells) > 1:
        entries.append(_too_few(words))
    for what, title, wants_high in (
        ("alignment", "Follows the prompt best", True),
        ("flicker", "Flickers least", False),
    ):
        if what in words.table.key_metrics and len(words.table.cells) > 1 and words.clips:
            entries.append(_best(words, what, title, wants_high))
    entries += [entry for entry in (_balance(words), _front(words)) if entry]
    entries += [entry for entry in (_baseline(words), _motion(words)) if entry]
    if not words.table.cells:
        return [_entry("Nothing to compare", "No video is finished yet.", "note")]
    if not entries:
        entries.append(
            _entry("Nothing to compare", "The page describes one setting.", "note")
            if len(words.table.cells) < 2
            else _entry(
                "Nothing to decide by", "No deciding metric was measured on a shared clip.", "note"
            )
        )
    return entries


def _entry(title: str, text: str, kind: str) -> dict[str, str]:
    return {"title": title, "text": text, "kind": kind}


def _too_few(words: Words) -> dict[str, str]:
    return _entry(
        "Too few prompts for a verdict",
        f"{_prompts(words)} cannot reach p = {LEVEL:g} whatever the videos look like "
        f"(least p {words.least_p:.2g}). Six prompts or more can.",
        "unclear",
    )


def _prompts(words: Words) -> str:
    return f"{words.prompts} prompt" + ("s" if words.prompts > 1 else "")


def _cost(words: Words, what: str, cell: str, wants_high: bool) -> float:
    value = words.means[words.table.key_metrics[what]][cell].mean
    return -value if wants_high else value


def _frozen(words: Words) -> set[str]:
    """Cells without a claim to little flicker: static clips, or surely less motion."""
    lost = {
        c.cell
        for c in words.against
        if c.what == "motion" and c.is_ratio and c.high is not None and c.high < -MOTION_LOSS
    }
    name = words.table.key_metrics.get("motion")
    static = {} if name is None else words.means[name]
    return lost | {cell for cell, found in static.items() if 2 * found.static > found.clips}


def _tied(words: Words, what: str, best: str, cells) -> tuple[list[str], list[str]]:
    """Cells that are the same as the best, and cells that cannot be told apart from it."""
    same, tied = [], []
    for cell in cells:
        change = words.between(what, best, cell)
        if cell == best:
            continue
        if _is_same(words, best, cell):
            same.append(cell)
        elif change is None or not change.is_clear:
            tied.append(cell)
    return same, tied


def _is_same(words: Words, one: str, other: str) -> bool:
    rows = [words.between(what, one, other) for what in words.table.key_metrics]
    return all(row is not None and row.change == 0 and row.low in (None, 0) for row in rows)


def _best(words: Words, what: str, title: str, wants_high: bool) -> dict[str, str]:
    frozen = _frozen(words) if what == "flicker" else set()
    cells = [cell for cell in words.table.cells if cell not in frozen] or list(words.table.cells)
    best = min(cells, key=lambda cell: _cost(words, what, cell, wants_high))
    name = words.table.key_metrics[what]
    found = words.means[name][best]
    same, tied = _tied(words, what, best, cells)
    text = f"{words.named(best)}: {name} {_value(found)}"
    text += _its_motion(words, best) if what == "flicker" else ""
    text += f", the same videos as {_listed(words, same)}" if same else ""
    if words.least_p > LEVEL:
        text += (
            f". This is the best mean; {_prompts(words)} cannot say whether it holds for others."
        )
        return _entry(title, text, "unclear")
    if not tied:
        rest = len(cells) - len(same) - 1
        how = f", clearly ahead of the other {rest}" if rest else ""
        return _entry(title, f"{text}{how}.", "clear")
    nearest = min(tied, key=lambda cell: _cost(words, what, cell, wants_high))
    text += f". It cannot be told apart from {_listed(words, tied)} at n = {words.clips}"
    return _entry(title, f"{text}. {_needed(words, what, best, nearest)}", "unclear")


def _its_motion(words: Words, cell: str) -> str:
    for change in words.against:
        if change.what == "motion" and change.cell == cell:
            return f", motion {_percent(change, cell)} beside the baseline"
    return ""


def _needed(words: Words, what: str, best: str, nearest: str) -> str:
    change = words.between(what, best, nearest)
    if change is None:
        return "They were not compared one by one."
    sizes = f"{_percent(change, nearest)} in {what}"
    is_costly = change.needed is None or change.needed > MOST_NEEDED * words.clips
    if is_costly or _is_slight(words, change):
        return (
            f"The closest, {words.named(nearest)}, differs by {sizes}, too little to be worth "
            "more clips, take either."
        )
    more = max(0, change.needed - words.clips)
    if not more:
        return (
            f"{words.named(nearest)} differs by {sizes}; alone that would count, among "
            f"{sum(c.what == what for c in words.among)} comparisons it does not. Repeat these "
            "two on other prompts."
        )
    return (
        f"{words.named(nearest)} differs by {sizes}; if that is real, about {more} more clips "
        "would show it."
    )


def _is_slight(words: Words, change: Change) -> bool:
    mean = words.means[change.metric][change.base].mean
    return abs(change.change) < SLIGHT * (1 if change.is_ratio else abs(mean))


def _balance(words: Words) -> dict[str, str] | None:
    """The least flicker among cells whose alignment is not surely below the best."""
    if not {"flicker", "alignment"} <= set(words.table.key_metrics) or not words.clips:
        return None
    frozen = _frozen(words)
    cells = [cell for cell in words.table.cells if cell not in frozen]
    if len(cells) < 2:
        return None
    best = min(cells, key=lambda cell: _cost(words, "alignment", cell, True))
    same, tied = _tied(words, "alignment", best, cells)
    pool = [best, *same, *tied]
    if words.least_p > LEVEL:
        return None
    if len(pool) == len(cells) > 2:
        return _entry(
            "Both together",
            "Alignment does not separate any two of these settings, so it cannot say how much "
            "flicker is worth. Choose by flicker, by eye, or render more prompts.",
            "unclear",
        )
    chosen = min(pool, key=lambda cell: _cost(words, "flicker", cell, False))
    text = (
        f"{words.named(chosen)}: the least flicker among the {len(pool)} settings whose "
        "alignment is not surely below the best"
    )
    change = words.between("flicker", best, chosen) if chosen != best else None
    if change is not None:
        sure = "which is clear" if change.is_clear else "which is not sure"
        amount = _percent(change, chosen)
        text += f". Beside {words.named(best)} its flicker changes by {amount}, {sure}"
    return _entry("Both together", text + ".", "clear" if len(pool) == 1 else "note")


def _front(words: Words) -> dict[str, str] | None:
    if words.front is None or len(words.table.cells) < 3 or words.least_p > LEVEL:
        return None
    share = dict(zip(words.table.cells, words.front.membership_C))
    sure = [cell for cell, part in share.items() if part >= 0.95]
    out = [cell for cell, part in share.items() if part < 0.05]
    open_ = len(share) - len(sure) - len(out)
    named = _listed(words, sure) or "none"
    text = f"No other setting is better in both flicker and alignment than {named}"
    text += f"; {len(out)} of {len(share)} settings are surely beaten by another"
    text += f", {open_} are undecided." if open_ else "."
    return _entry("On the Pareto front", text, "clear" if sure else "unclear")


def _baseline(words: Words) -> dict[str, str] | None:
    if words.base is None or not words.against or words.least_p > LEVEL:
        return None
    parts = []
    for what, good in (("flicker", -1), ("alignment", 1)):
        rows = [c for c in words.against if c.what == what]
        if rows:
            better = sum(c.is_clear and c.change * good > 0 for c in rows)
            worse = sum(c.is_clear and c.change * good < 0 for c in rows)
            rest = len(rows) - better - worse
            parts.append(f"in {what} {better} are better, {worse} worse, {rest} undecided")
    if not parts:
        return None
    title = "Against the baseline"
    return _entry(title, f"Beside {words.named(words.base)}, {'; '.join(parts)}.", "note")


def _motion(words: Words) -> dict[str, str] | None:
    frozen = sorted(_frozen(words), key=words.table.cells.index)
    if not frozen:
        return None
    text = (
        f"{_listed(words, frozen)}: surely over {MOTION_LOSS:.0%} less motion than the baseline, "
        "or still. Their low flicker is no merit, so they do not count as least flickering."
    )
    return _entry("Moves too little", text, "unclear")


def _listed(words: Words, cells, *, at_most: int = 4) -> str:
    shown = ", ".join(words.named(cell) for cell in cells[:at_most])
    return shown + (f" and {len(cells) - at_most} more" if len(cells) > at_most else "")


def _value(found: Estimate) -> str:
    if found.low is None:
        return f"{found.mean:.4g}"
    return f"{found.mean:.4g} ({found.low:.4g} to {found.high:.4g})"


def _percent(change: Change, start: str) -> str:
    """The size of a change, from the other cell to `start`."""
    amount, low, high = change.change, change.low, change.high
    if change.cell != start and change.is_ratio:
        amount = 1 / (1 + amount) - 1
        low, high = (None, None) if low is None else (1 / (1 + high) - 1, 1 / (1 + low) - 1)
    elif change.cell != start:
        amount, low, high = -amount, *((None, None) if low is None else (-high, -low))
    form = "{:+.1%}" if change.is_ratio else "{:+.2g}"
    return _signed(form, amount, low, high)


def _signed(form: str, amount: float, low: float | None, high: float | None) -> str:
    text = form.format(amount)
    text = text if low is None else f"{text} ({form.format(low)} to {form.format(high)})"
    return text.replace("-", "−")


def change_text(change: Mapping[str, Any]) -> str:
    """A change as `+4.1 % (+2.0 % to +6.3 %)`, from its dictionary."""
    form = "{:+.1%}" if change["is_ratio"] else "{:+.3g}"
    return _signed(form, change["change"], change["low"], change["high"])
