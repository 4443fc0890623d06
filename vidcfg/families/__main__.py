"""python -m vidcfg.families"""

import argparse
import sys

TESTED = {
    "exact": "a uniform scale equals the stock pipeline bit for bit, by test",
    "close": "it equals the stock pipeline to float32 rounding, by test",
    "no": "declared, not tested",
}
"""What the last column means; tests run real pipeline code with tiny random weights."""


def table() -> list[tuple[str, ...]]:
    """Head and one row per family, as text."""
    from vidcfg.pipelines.families import FAMILIES

    rows = [
        (
            family.name,
            ", ".join(family.pipelines),
            family.layout,
            family.frame_rule,
            f"{family.size_multiple}n" if family.size_multiple > 1 else "any",
            family.prediction or "scheduler's",
            family.stock_passes,
            f"{family.default_scale:g}",
            "{:g} - {:g}".format(*family.usual_range),
            family.tested,
        )
        for family in FAMILIES.values()
    ]
    head = ("family", "pipelines", "layout", "frames", "size", "prediction", "passes", "scale")
    return [(*head, "usual", "tested"), *rows]


def render_table() -> str:
    """The table as aligned text: pipeline classes one below the other."""
    rows = table()
    cells = [[cell.split(", ") if i == 1 else [cell] for i, cell in enumerate(r)] for r in rows]
    widths = [max(len(part) for r in cells for part in r[i]) for i in range(len(rows[0]))]
    lines = []
    for row in cells:
        for k in range(max(map(len, row))):
            parts = (cell[k] if k < len(cell) else "" for cell in row)
            lines.append("  ".join(f"{p:<{w}}" for p, w in zip(parts, widths)).rstrip())
    lines += ["", *(f"{name}: {meaning}" for name, meaning in TESTED.items())]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m vidcfg.families",
        description="Print the pipelines that vidcfg can guide: how each lays out its latents, "
        "which pixel frames a latent makes, of which number height and width are multiples, how "
        "it runs its passes, and which scales people use.",
        epilog="Another pipeline is declared with vidcfg.register_family: see docs/families.md.",
    )
    made.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return made


def main(argv: list[str] | None = None) -> int:
    """Print the table; the result is the exit code."""
    arguments = parser().parse_args(argv)
    if arguments.markdown:
        head, *rows = table()
        lines = [head, ("---",) * len(head), *rows]
        print("\n".join("| " + " | ".join(line) + " |" for line in lines))
    else:
        print(render_table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
