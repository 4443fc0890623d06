"""Ready configurations by name: the files of configs/, which an installed package carries.

The head of such a file says what it is for: `# For: ...`, `# Evidence: ...`, and what it needs.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Preset:
    """A file by its name, and the words of its head: what they are followed by, on one line."""

    path: Path
    head: dict[str, str]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def family(self) -> str:
        return "mini" if self.path.parent == folder() else self.path.parent.name


def folder() -> Path:
    """configs/ of an installed package, or of the checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def head_of(path: Path) -> dict[str, str]:
    """`# For: less flicker` and the lines below it that are indented, as {"For": ...}."""
    found: dict[str, str] = {}
    word = None
    for line in path.read_text("utf-8-sig").splitlines():
        if not line.startswith("#"):
            break
        text = line[1:].strip()
        if line.startswith("#  ") and word:
            found[word] += f" {text}"
        elif ": " in text:
            word, _, found[word] = text.partition(": ")
    return found


def presets() -> dict[str, Preset]:
    """Every file that says what it is for, by name; those of the embedded model come first."""
    paths = [*folder().glob("*.yaml"), *folder().glob("*/*.yaml")]
    paths.sort(key=lambda path: (path.parent != folder(), path.parent.name, path.stem))
    found = (Preset(path, head_of(path)) for path in paths)
    return {preset.name: preset for preset in found if "For" in preset.head}


def preset_named(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: with the nearest names.
    """
    known = presets()
    if name not in known:
        raise ValueError(f"there is no preset '{name}'. {nearest(name, known)}")
    return known[name]


def path_of(path: str | Path) -> Path:
    """The file that a path, or the name of a preset, stands for; a file of that name is meant."""
    path = Path(path)
    if not is_name(path) or path.is_file():
        return path
    preset = presets().get(str(path))
    return preset.path if preset else path


def is_name(path: str | Path) -> bool:
    """Whether it may name a preset: one word, without the ending of a file."""
    return Path(path).name == str(path) and Path(path).suffix not in (".yaml", ".yml")


def nearest(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'wan2.2-5b' or ...?`, and where all names are told."""
    begins = [other for other in known if name and other.startswith(name.lower())]
    near = begins or difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    guess = f"Did you mean {' or '.join(repr(word) for word in near[:3])}? " if near else ""
    return f"{guess}`vidcfg presets` lists them."
