"""The one error that a configuration can raise."""

from collections.abc import Iterable
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""A place inside a configuration, such as `("prompts", 0, "text")`."""


@dataclass(frozen=True)
class Place:
    """Where a value was written: a file with a line (counted from 1), or a command-line option."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where: `configs/x.yaml:14: <message>`."""

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class ConfigError(ValueError):
    """A configuration that cannot be used. Its text has one line for each problem.

    `problems` holds the same as values, ordered by source and line.
    """

    def __init__(self, problems: Problem | Iterable[Problem]):
        listed = [problems] if isinstance(problems, Problem) else list(problems)
        unique = list(dict.fromkeys(listed))
        unique.sort(key=lambda p: (p.place.source.startswith("--"), p.place.line or 0))
        self.problems = tuple(unique)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self):
        return type(self), (self.problems,)


def dotted(path: Path) -> str:
    """`("prompts", 0, "text")` -> `prompts.0.text`."""
    return ".".join(str(part) for part in path)
