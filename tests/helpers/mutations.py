"""Files as they may come from a stranger or a bad disk: seeded mutations of good ones.

python tests/helpers/mutations.py FILE --seed 7     prints FILE (JSON) with one mutation
"""

import copy
import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

ODD = (
    *(None, True, -1, 0.5, 10**30, 1e300, -1e300, "", "x", "\0", "../../x", "/etc/passwd"),
    *("\x1b[31m", "=1+1", "\ud800", "y" * 5000, [], {}, [[[]]], {"a": {"b": []}}, [None]),
)
"""What stands in place of a value."""

NONSENSE = tuple(f"by {x!r}:" for x in (10**30, 1e300, -1e300, "\0", "\ud800", [[[]]], [None]))
"""What no setting can mean, as `mutated` tells it."""

GARBAGE = (b"", b"\0" * 64, b"\x89PNG\r\n", b"[" * 5000, b"NaN", b"1e999", b"\xff\xfe\xfa", b"{}")
"""What stands in place of a whole file."""


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all values inside plain data."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inner:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from places(part, (*path, key))


def mutated(value: Any, draw: random.Random) -> tuple[Any, str]:
    """A copy of plain data with one thing changed, and what was done where."""
    made = copy.deepcopy(value)
    found = list(places(made))
    if not found:
        return draw.choice(ODD), "the whole"
    # A depth first: else nearly every place would be a number of a long list.
    depth = draw.choice(sorted({len(path) for path in found}))
    *above, last = draw.choice([path for path in found if len(path) == depth])
    node = made
    for part in above:
        node = node[part]
    how = draw.choice(("replaced", "replaced", "deleted", "wrapped", "doubled", "renamed"))
    if how == "deleted":
        del node[last]
    elif how == "wrapped":
        node[last] = draw.choice(([node[last]], {"a": node[last]}))
    elif how == "doubled" and isinstance(node, list):
        node.append(copy.deepcopy(node[last]))
    elif how == "renamed" and isinstance(node, dict):
        node[f"{last}x"] = node.pop(last)
    else:
        node[last] = draw.choice(ODD)
        how = f"replaced by {node[last]!r:.40}:"
    return made, f"{how} {'.'.join(map(str, (*above, last)))}"


def mutated_bytes(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    """A file cut off, with bytes changed, or replaced as a whole."""
    how = draw.choice(("cut", "flipped", "garbage"))
    if how == "garbage" or not data:
        return draw.choice(GARBAGE), "garbage"
    if how == "cut":
        return data[: draw.randrange(len(data))], "cut"
    made = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        made[draw.randrange(len(made))] = draw.randrange(256)
    return bytes(made), "flipped"


def mutated_json(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    """A file of JSON, or of JSON lines, mutated as data or, one time in four, as bytes."""
    if draw.random() < 0.25:
        return mutated_bytes(data, draw)
    lines = data.splitlines(keepends=True)
    is_lines = data.rstrip().count(b"\n{") > 0 and lines[0].rstrip().endswith(b"}")
    at = draw.randrange(len(lines)) if is_lines else 0
    made, what = mutated(json.loads(lines[at] if is_lines else data), draw)
    text = json.dumps(made).encode()
    return (b"".join([*lines[:at], text + b"\n", *lines[at + 1 :]]) if is_lines else text), what


HANG = 30.0
"""Seconds."""


class Tally:
    """Counts what a reader makes of mutated inputs: refused in a sentence, read, or a fault."""

    def __init__(self) -> None:
        self.refused = self.read = 0
        self.faults: list[str] = []

    def of(self, what: str, work: Callable[[], Any], refusals: tuple[type, ...]) -> None:
        """Do the work; any error that is no refusal is a fault, and so is nonsense that is taken
        (where the work tells what it took by its result) and more than half a minute.
        """
        begin = time.monotonic()
        try:
            if nonsense := work():
                raise AssertionError(f"nonsense is accepted: {nonsense}")
        except UnicodeError as error:
            self.faults.append(f"{what}: {error}")
        except refusals as error:
            self.refused += 1
            if not str(error).strip():
                self.faults.append(f"{what}: an empty sentence")
        except Exception as error:
            self.faults.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
        else:
            self.read += 1
        if time.monotonic() - begin > HANG:
            self.faults.append(f"{what}: hangs")

    def __str__(self) -> str:
        total = self.refused + self.read + len(self.faults)
        faults = f"{len(self.faults)} tracebacks, hangs or nonsense"
        return f"{total} inputs: {self.refused} refused, {self.read} read, {faults}"
