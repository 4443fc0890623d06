"""docs/evidence.md: verdicts, tables of every sweep, predictions, and how to do it again."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence.cells import ALIGNMENT, FLICKER, METRICS, Work
from evidence.drawn import CLIPS_OF_PROMPT, REAL_CLIPS, WRONG
from evidence.sets import BY_PROMPT, SETS, SetValues
from evidence.verdicts import Cells, Verdict, bayes_share, paired

from vidcfg.files import write_text
from vidcfg.metrics.paired import needed_clips
from vidcfg.mini.shapes import ATTRIBUTES

PILOT = 64
"""Prompts whose spread says how many a difference needs."""

COLUMNS = {ALIGNMENT: "alignment", FLICKER: "flicker, levels", "clipped_share": "clipped, %"}
SCALES = {FLICKER: 255.0, "clipped_share": 100.0}
"""What is multiplied for reading: intensities to 8-bit levels, shares to percent."""

MATTERS = (
    (ALIGNMENT, 0.02, False, ".02"),
    (FLICKER, math.log(1.03), True, "3 %"),
    ("clipped_share", 0.005, False, "half a percent of the values"),
)
"""Metric, the difference that matters, whether it is a ratio, and how it is read."""

WRONG_OF = {"shape": 0.277, "colour": 0.281}
"""Share of training captions that name an attribute wrongly, where it is not WRONG: captions that
would name a held-out pair are drawn again (12,000 captions of the training data)."""

DROPOUT = (
    "# The small models of the sweep dropout, before it: ten minutes of one core each.",
    "for m in text.05 text.1 text.2 text.5 zeros.1 learned.1; do",
    "  python scripts/train_mini configs/train/dropout.yaml --set run_dir=runs/dropout/$m \\",
    "    --set output=runs/dropout/$m/export --set transformer.null=${m%%.*} \\",
    "    --set transformer.drop_condition=0.${m#*.}",
    "done",
)

INTRO = """\
# What guidance does, measured

The field's claims about classifier-free guidance, each held against the embedded model: its
training captions name each attribute wrongly with a probability of .3, so that guidance has
something to do ([mini.md](mini.md)). Verdicts are of this model and of no other. Claims, figures
and tests were written down ([claims.yaml](../configs/evidence/claims.yaml)) before the sweeps were
run; four that a sweep suggested, or could not tell, have prompts and seeds of their own. Videos
are made by 12 steps of UniPC where nothing else is said.

![Alignment, flicker, clipping and distance over the scale; frame weights](pictures/evidence.png)
"""


def write_page(
    path: Path,
    works: Sequence[Work],
    sweeps: Mapping[str, Cells],
    verdicts: Sequence[Verdict],
    sets: SetValues,
    how: Mapping[str, Any],
) -> Path:
    """Write the whole page."""
    nums = {work.sweep: len(work.prompts) // work.seeds for work in works}
    seeds = {work.sweep: work.seeds for work in works}
    num = max(nums.values())
    labels = {(work.sweep, work.id): work.label for work in works}
    parts = [INTRO, *_verdicts(verdicts, num)]
    parts += _power(sweeps, len(verdicts), nums.get("scale", 0))
    for name, cells in sweeps.items():
        videos = f"{nums[name]} prompts" + (f", {n} videos each" if (n := seeds[name]) > 1 else "")
        parts += _table(name, videos, cells, {id: labels[name, id] for id in cells}, sets)
        if name in ("scale", "held_out"):
            parts += _bayes(cells, labels, name)
    parts += _again(nums, how)
    return write_text(path, "\n".join(parts).rstrip() + "\n")


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:], ""]


def _verdicts(verdicts: Sequence[Verdict], num: int) -> Iterator[str]:
    words = [verdict.word for verdict in verdicts]
    count = {word: words.count(word) for word in ("holds", "does not hold", "cannot tell")}
    yield "## Verdicts\n"
    yield (
        f"Of {len(verdicts)} claims {count['holds']} hold, {count['does not hold']} do not, and "
        f"of {count['cannot tell']} it cannot be told. Up to {num} prompts, one seed each; "
        "intervals of 95 % and tests are by prompt, those of distances by random halves of the "
        "prompts. p-values are adjusted for all claims together (false discovery rate 5 %); of "
        "several conditions the weakest is shown.\n"
    )
    rows = []
    for verdict in verdicts:
        claim, found = verdict.claim, verdict.found
        is_ratio = claim.get("relative") or "equal" in claim
        sign = "below" if claim["side"] == "below" else "above"
        bound = f"{sign} {_figure(claim['bound'], claim['metric'], is_ratio)}"
        ends = (_figure(x, claim["metric"], is_ratio) for x in (found.low, found.high))
        figure = f"{_figure(found.figure, claim['metric'], is_ratio)} ({' to '.join(ends)})"
        about = f" ({found.about})" if found.about else ""
        lost = f", {found.lost} without a value" if found.lost else ""
        rows.append(
            [
                f"**{verdict.word}**",
                claim["name"] + about,
                str(claim["source"]),
                f"{claim['metric']}: {figure}",
                bound,
                f"{found.n}{lost}",
                f"{verdict.adjusted:.2g}",
                f"`--only {claim['sweep']}`",
            ]
        )
    head = ["verdict", "claim", "what is said", "figure (95 %)", "must be", "n", "p", "again"]
    yield from _rows(head, rows)


def _figure(value: float, metric: str, is_ratio: bool) -> str:
    if not math.isfinite(value):
        return "unknown"
    if is_ratio:
        return f"{100 * value:+.1f} %"
    return f"{value:+.4f}" if metric in ("fd", "fd of look", FLICKER) else f"{value:+.3f}"


def _power(sweeps: Mapping[str, Cells], num_claims: int, num: int) -> Iterator[str]:
    """How many prompts differences that matter need, from the spread of the first prompts."""
    cells = sweeps.get("scale", {})
    if not {"scale-3", "scale-4"} <= set(cells):
        return
    yield "## How many prompts it takes\n"
    rows = []
    for name, effect, is_ratio, read in MATTERS:
        values = paired({"scale-3": -1, "scale-4": 1}, name, cells, is_ratio=is_ratio)[:PILOT]
        values = values[np.isfinite(values)]
        alpha = 0.05 / 2 / num_claims
        needed = needed_clips(values, np.arange(len(values)), effect=effect, alpha=alpha)
        rows.append([COLUMNS[name], read, f"{values.std(ddof=1):.4f}", str(needed or "unknown")])
    yield (
        f"Scale 3 against 4 on the first {min(PILOT, num)} prompts, as a pilot: the spread of the "
        f"paired differences, and the prompts that find a difference that matters in 4 of 5 cases "
        f"at a level of .05 / {num_claims}. The sweep over scales has {num}.\n"
    )
    yield from _rows(["metric", "difference that matters", "spread", "prompts needed"], rows)


def _table(
    name: str, videos: str, cells: Cells, labels: Mapping[str, str], sets: SetValues
) -> Iterator[str]:
    yield f"## {name.replace('_', ' ').capitalize()}\n"
    yield f"[configs/evidence/{name}.yaml](../configs/evidence/{name}.yaml), {videos}\n"
    of_sets = {"held_out": (), "variety": BY_PROMPT, "minimum": SETS[:2]}.get(name, SETS)
    names = {"fd": "Fréchet", "fd of look": "Fréchet of look"}
    rows = []
    for id, made in cells.items():
        row = [labels[id], f"{made.evaluations:g}"]
        for metric in COLUMNS:
            row.append(_mean(made.values[metric], SCALES.get(metric, 1.0)))
        row.append(_mean(made.values["align[mini]"], 1.0))
        row.append(_mean(made.values["dynamic_degree"], 1.0))
        for metric in of_sets:
            if metric in BY_PROMPT:
                row.append(_mean(made.values[metric], 1.0))
                continue
            values = sets.values(metric, made)
            row.append(f"{values[0]:.3f} ± {1.96 * values[1:].std():.3f}")
        rows.append(row)
    head = ["setting", "passes", *COLUMNS.values(), "cosine", "dynamic degree"]
    head += [names.get(metric, metric) for metric in of_sets]
    yield from _rows(head, rows)


def _mean(values: np.ndarray, factor: float) -> str:
    known = values[np.isfinite(values)] * factor
    if not len(known):
        return "none"
    return f"{known.mean():.3f} ± {1.96 * known.std() / len(known) ** 0.5:.3f}"


def wilson(share: float, num: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the mean of values in 0..1, which none has a wider spread than
    right or wrong ones; it has a width where all are right."""
    z2 = 1.96**2 / num
    half = 1.96 * math.sqrt(share * (1 - share) / num + z2 / num / 4)
    return (share + z2 / 2 - half) / (1 + z2), (share + z2 / 2 + half) / (1 + z2)


def _bayes(cells: Cells, labels: Mapping[tuple, str], name: str) -> Iterator[str]:
    """What exact predictions of the contaminated captions would give, beside what was found."""
    yield f"### Predicted and measured, {name.replace('_', ' ')}\n"
    rows, parted, total = [], [], 0
    for id, made in cells.items():
        scale, row = float(id.removeprefix("scale-")), [labels[name, id]]
        for attribute, options in ATTRIBUTES.items():
            right = made.right[attribute]
            right = right[np.isfinite(right)]
            predicted = bayes_share(len(options), scale, WRONG_OF.get(attribute, WRONG))
            if not len(right):
                row.append("none")
                continue
            measured, total = float(right.mean()), total + 1
            low, high = wilson(measured, len(right))
            is_apart = not low <= predicted <= high
            parted += [(attribute, measured - predicted)] * is_apart
            mark = "**" if is_apart else ""
            row.append(f"{predicted:.3f} / {mark}{measured:.3f}{mark} ({low:.3f} to {high:.3f})")
        rows.append(row)
    below = sum(gap < 0 for _, gap in parted)
    worst = min(parted, key=lambda pair: pair[1]) if parted else None
    yield (
        "Share of right attributes among prompts that name them: 1 / (1 + (k - 1) r^s), which "
        "exact predictions would give, and what was measured, bold where the prediction is "
        f"outside its 95 % interval ({len(parted)} of {total}; {below} below the prediction"
        + (f", the furthest {worst[0]} by {-worst[1]:.2f}" if worst and worst[1] < 0 else "")
        + "). The measured share also has the scorer's own errors.\n"
    )
    yield from _rows(["setting", *ATTRIBUTES], rows)


def _again(nums: Mapping[str, int], how: Mapping[str, Any]) -> Iterator[str]:
    precision = " --bfloat16" if how["bfloat16"] else ""
    same = {num: [name for name in nums if nums[name] == num] for num in nums.values()}
    yield "## Not measured\n"
    yield (
        "In the sweep dropout, what another training of the same small model would give. Batched "
        "against sequential passes is speed, not video: the rows of `guided_call` in "
        "[performance.md](performance.md).\n"
    )
    yield "## Again\n"
    yield "```bash"
    for num, names in same.items():
        run = f"python scripts/evidence run --only {' '.join(names)} --prompts {num}{precision}"
        yield f"{run} --dry-run    # the cost"
        yield f"{run}              # resumes"
    if "dropout" in nums:
        yield from DROPOUT
    yield f"python scripts/evidence run --only rules --prompts 32{precision} --out runs/some"
    yield "python scripts/evidence page    # of all prompts that are there"
    yield "```\n"
    versions = ", ".join(f"{k} {v}" for k, v in how.get("versions", {}).items() if v)
    yield (
        "Video i is drawn from seed i (of `distance` from 512 + i, of `confirm` from 1040 + i, of "
        "`minimum` from 10256 + i), "
        f"in {'bfloat16' if how['bfloat16'] else 'float32'}. Here: "
        f"{how.get('device', 'CPU')}; {versions}. Metrics: "
        + ", ".join(f"`{name}`" for name in METRICS)
        + f"; distances against {REAL_CLIPS} drawn clips of trained pairs, by prompt against "
        f"{CLIPS_OF_PROMPT} clips that its caption stands for (each value that it names is "
        "another one with a probability of .3), by what the scorer reads and by how a clip looks "
        "(means over time of the scorer's first convolutions). The files are sweeps: "
        "`vidcfg sweep configs/evidence/scale.yaml` keeps every video, from one seed for all.\n"
    )
