"""python -m vidcfg.families: the video pipelines that vidcfg can guide, and those it cannot."""

import argparse
import sys
from collections.abc import Sequence
from itertools import zip_longest
from textwrap import wrap

from vidcfg import cli

TESTED = {
    "exact": "a uniform scale equals the stock pipeline bit for bit, by test",
    "close": "it equals the stock pipeline to float32 rounding, by test",
    "no": "declared, not tested",
}
"""What the last column means; tests run real pipeline code with tiny random weights."""

COLUMNS = {
    "family": lambda family: family.name,
    "pipelines": lambda family: ", ".join(family.pipelines),
    "layout": lambda family: family.layout,
    "frames": lambda family: family.frame_rule,
    "size": lambda family: f"{family.size_multiple}n" if family.size_multiple > 1 else "any",
    "prediction": lambda family: family.prediction or "scheduler's",
    "passes": lambda family: family.stock_passes,
    "scale": lambda family: f"{family.default_scale:g}",
    "usual": lambda family: "{:g} - {:g}".format(*family.usual_range),
    "tested": lambda family: family.tested,
}


def table() -> list[tuple[str, ...]]:
    """Head and one row per family, as text."""
    from vidcfg.pipelines.families import FAMILIES

    rows = [tuple(show(family) for show in COLUMNS.values()) for family in FAMILIES.values()]
    return [tuple(COLUMNS), *rows]


def _aligned(rows: list[tuple[str, ...]]) -> str:
    """Columns of one width each, pipeline classes one below the other."""
    cells = [[cell.split(", ") if i == 1 else [cell] for i, cell in enumerate(r)] for r in rows]
    widths = [max(len(part) for cell in column for part in cell) for column in zip(*cells)]
    lines = []
    for row in cells:
        for parts in zip_longest(*row, fillvalue=""):
            lines.append("  ".join(f"{p:<{w}}" for p, w in zip(parts, widths)).rstrip())
    return "\n".join([*lines, "", *(f"{name}: {meaning}" for name, meaning in TESTED.items())])


def refused() -> str:
    """What cannot be guided: each reason and the pipeline classes that it holds for."""
    from vidcfg.pipelines.families import FAMILIES, REFUSED

    groups: dict[str, list[str]] = {}
    for name, reason in REFUSED.items():
        groups.setdefault(reason, []).append(name)
    covered = sum(len(f.pipelines) for f in FAMILIES.values() if f.module == "diffusers")
    lines = [
        f"{covered} pipeline classes of diffusers can be guided, "
        f"{len(REFUSED)} of its video classes cannot:"
    ]
    for reason, names in groups.items():
        lines += ["", *wrap(f"{', '.join(names)}: {reason}.", 100, subsequent_indent="    ")]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    made = cli.parser(
        "families",
        "Print the pipelines that vidcfg can guide: how each lays out its latents, which pixel\n"
        "frames a latent makes, of which number height and width are multiples, how it runs its\n"
        "passes, and which scales people use.",
        details="Another pipeline is declared with vidcfg.register_family: see docs/families.md.",
    )
    made.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return cli.run(made, _print, argv)


def _print(options: argparse.Namespace) -> int:
    rows = table()
    if options.markdown:
        rows.insert(1, ("---",) * len(rows[0]))
        print("\n".join("| " + " | ".join(row) + " |" for row in rows))
    else:
        print(_aligned(rows), refused(), sep="\n\n")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
