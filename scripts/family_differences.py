"""The table of pipeline classes in docs/families.md: how far each is from its stock pipeline.

    python scripts/family_differences.py --docs docs/families.md

Tiny random weights, float32, two samples (one where a pipeline makes one at a time), two steps,
the largest absolute difference over the largest latent. `uniform` is one scale for all frames and
steps; `surface` is a scale that differs by frame and step, which the stock pipeline itself is made
to run (tests/helpers/class_checks.py).
"""

import argparse
import logging
import re
import sys
import warnings
from pathlib import Path

HELPERS = Path(__file__).parents[1] / "tests" / "helpers"
START, END = "<!-- classes -->", "<!-- /classes -->"


def rows() -> list[tuple[str, str, str, str]]:
    """Class, family, uniform, surface; then the classes that are refused, with the reason."""
    from class_checks import surface, uniform
    from tiny_classes import CLASSES, FIRST

    from vidcfg.pipelines.families import REFUSED, family_of

    made = []
    for name, build in sorted((FIRST | CLASSES).items()):
        case = build()
        own_surface = name == "StableVideoDiffusionPipeline"  # its scale is a ramp over frames
        surfaces = "its ramp" if own_surface else f"{surface(case):.1e}"
        family = family_of(case.tiny.pipe).name
        made.append((name, family, f"{uniform(case):.1e}", surfaces))
        print(" | ".join(made[-1]), file=sys.stderr)
    return [*made, *((name, "refused", reason, "") for name, reason in sorted(REFUSED.items()))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, help="write the table into this file")
    given = parser.parse_args()
    sys.path.insert(0, str(HELPERS))
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    head = [("class", "family", "uniform", "surface"), ("---",) * 4]
    table = "\n".join("| " + " | ".join(row) + " |" for row in head + rows())
    table = table.replace("0.0e+00", "0")
    if given.docs is None:
        print(table)
        return
    text = given.docs.read_text("utf-8")
    marked = re.compile(f"{START}.*?{END}", re.S)
    given.docs.write_text(marked.sub(lambda _: f"{START}\n{table}\n{END}", text), "utf-8")


if __name__ == "__main__":
    main()
