"""How far the faults of the table move the metrics of the default gate, in tolerances of it."""

from collections.abc import Callable

import numpy as np

from vidcfg.regress.policy import Policy

HEAD = """
## Margins of the gate

How much the fault adds to the metric that is named for it, on the scale of the gate (a ratio, or a
difference), in scenes without flicker: the least in nine of ten clips, beside the margin and the
tolerance of the default policy. Where a fault adds less than the tolerance, the gate may pass it.

| fault | metric | adds, in 9 of 10 clips | margin | tolerance |
|---|---|---|---|---|"""


def margins(named: dict[str, str], pairs_of: Callable[[str, str], np.ndarray]) -> str:
    """The section; `pairs_of(fault, metric)` are clean and faulty values [clips, 2]."""
    rules, lines = Policy().metrics, [HEAD]
    for fault, name in named.items():
        rule = rules.get(name)
        if rule is None:
            continue
        clean, faulty = pairs_of(fault, name).T
        change, _ = rule.changes(faulty, clean)
        least = float(np.quantile(rule.direction * change, 0.1))
        sizes = rule.shown(rule.direction * least), rule.margin, rule.tolerance or rule.margin
        shown = [f"{size:.1%}" if rule.is_ratio else f"{size:.3g}" for size in sizes]
        lines.append(f"| {fault} | `{name}` | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"
