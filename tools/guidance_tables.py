"""The tables of docs/guidance.md, made of the rules and frame weightings themselves.

    python tools/guidance_tables.py          # writes them
    python tools/guidance_tables.py --check  # 1 if they are not what would be written

A class says its row in the last lines of its docstring, `Formula: ...` for a rule, `Weight: ...`
for frame weights, and `Off:`, `Passes:`, `Space:`, `Use:`, `Source:` where the default is not
meant; a line that goes on is indented.
"""

import re
import sys
from inspect import cleandoc
from pathlib import Path

from vidcfg.guidance.frames import FrameWeights
from vidcfg.guidance.rule import Rule
from vidcfg.guidance.rules import RULES

DOC = Path(__file__).parents[1] / "docs" / "guidance.md"
RULE_HEADS = ("rule", "formula", "parameters and defaults", "off", "passes", "space", "source")
WORDS = {"None": "null", "()": "[]"}


def facts(cls: type) -> dict[str, str]:
    """What a docstring says under `Name: ...`; `First` is its first sentence."""
    found, name = {}, ""
    text = cleandoc(cls.__doc__ or "")
    for line in text.splitlines():
        match = re.match(r"([A-Z][a-z]+): (.*)", line)
        if match:
            name = match[1]
            found[name] = match[2]
        elif name and line.startswith("    "):
            found[name] += " " + line.strip()
        else:
            name = ""
    found["First"] = text.split("\n\n")[0].replace("\n", " ").rstrip(".")
    if "Source" not in found and "Source: " in text:
        found["Source"] = text.split("Source: ")[1].replace("\n", " ")
    return found


def parameters(cls: type[Rule]) -> str:
    """`name: default` of every value of a rule's own, and what must be given."""
    shown = []
    own = [name for name in cls.__annotations__ if name in cls.model_fields]
    for name in dict.fromkeys([*own, *cls.model_fields]):
        field = cls.model_fields[name]
        if name in Rule.model_fields:
            continue
        if field.is_required():
            shown.append(f"`{name}`: {field.description}")
            continue
        told = f" ({field.description})" if field.description else ""
        shown.append(f"`{name}: {WORDS.get(str(field.default), field.default)}`{told}")
    return ", ".join(shown) or "none"


def rule_row(kind: str, cls: type[Rule]) -> list[str]:
    """The cells of one rule."""
    said = facts(cls)
    space = cls.model_fields.get("space")
    branches = cls.branches if isinstance(cls.branches, tuple) else ("cond", "other")
    source = said.get("Source", "").rstrip(".").replace("arXiv:", "")
    return [
        f"`{kind}`",
        said.get("Formula", said["First"]),
        parameters(cls),
        said.get("Off", "s = 1"),
        said.get("Passes", str(len(branches))),
        said.get("Space", space.default if space else "any"),
        source,
        said.get("Use", ""),
    ]


def frame_row(kind: str, cls: type[FrameWeights]) -> list[str]:
    """The cells of one way to weight frames."""
    said = facts(cls)
    return [f"`{kind}`", said.get("Weight", said["First"]), said.get("Use", "")]


def table(heads: tuple[str, ...], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *([c.replace("|", "\\|") for c in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables() -> dict[str, str]:
    """Every table by the name of its place in the document."""
    # Those of user code are not ours to document.
    rules = {k: c for k, c in RULES.items() if c.__module__.startswith("vidcfg.")}
    frames = {k: c for k, c in FrameWeights.kinds.items() if c.__module__.startswith("vidcfg.")}
    return {
        "rules": table((*RULE_HEADS, "when to use"), [rule_row(*item) for item in rules.items()]),
        "frames": table(
            ("`frames`", "weight of a frame", "use it for"),
            [frame_row(*item) for item in frames.items()],
        ),
    }


def written(text: str) -> str:
    """The document with the tables put in."""
    for name, body in tables().items():
        before, rest = text.split(f"<!-- {name} -->")
        after = rest.split(f"<!-- /{name} -->")[1]
        text = f"{before}<!-- {name} -->\n{body}\n<!-- /{name} -->{after}"
    return text


if __name__ == "__main__":
    was = DOC.read_text()
    if "--check" in sys.argv:
        sys.exit(was != written(was))
    DOC.write_text(written(was))
