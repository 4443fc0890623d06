"""A loaded configuration file: its data, where each value stands, overrides, and its check."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vidcfg.settings.errors import ConfigError, Path, Place, Problem, dotted
from vidcfg.settings.presets import is_name, nearest, path_of, presets
from vidcfg.settings.strict_yaml import dump_yaml, parse
from vidcfg.settings.validation import explain

Model = TypeVar("Model", bound=BaseModel)

LARGEST_FILE = 16 << 20
"""Bytes: more than any configuration has, and read in half a minute; a video has more."""


@dataclass(frozen=True)
class ConfigDocument:
    """What a file says, as plain data, before any model has checked it.

    `source` is the file as the user named it; `places` has the place of every path in `data`.
    """

    source: str
    data: Mapping[str, Any]
    places: Mapping[Path, Place]

    def locate(self, path: Path) -> Place:
        """Where `path` is written; for a value left to its default, the nearest part above it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places[path] if path else Place(self.source)

    def error(self, path: Path, message: str) -> ConfigError:
        """An error that names the file and the line of `path`."""
        return ConfigError(Problem(self.locate(path), message))


def load_document(path: str | FilePath) -> ConfigDocument:
    """Read a YAML file of one mapping, named by its path or by the name of a preset.

    Raises:
        ConfigError: if the file is missing, unreadable, empty, above LARGEST_FILE, not UTF-8, not
            a mapping or not strict YAML.
    """
    path = path_of(path)
    source = str(path)
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            what = f"is larger than {LARGEST_FILE >> 20} MB, which no configuration is."
            raise ConfigError(Problem(Place(source), f"{what} Name a .yaml file."))
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        message = _missing_message(path)
    except IsADirectoryError:
        message = "is a folder. Name a .yaml file."
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start}). Save it as UTF-8."
    except OSError as error:
        message = f"cannot be read: {error.strerror}."
    else:
        return read_document(text, source=source)
    raise ConfigError(Problem(Place(source), message))


def read_document(text: str, *, source: str) -> ConfigDocument:
    """A document from YAML text; `source` names it in errors."""
    data, places = parse(text, source=source)
    if data is None:
        raise ConfigError(Problem(Place(source), "is empty. Start from a file in configs/."))
    if not isinstance(data, dict):
        what = "a list" if isinstance(data, list) else "one value"
        message = f"is {what}, but must be a mapping of keys such as 'schema: 1'."
        raise ConfigError(Problem(Place(source, 1), message))
    return ConfigDocument(source, data, places)


def apply_overrides(document: ConfigDocument, overrides: Iterable[str]) -> ConfigDocument:
    """The document with each `path=value` of `--set` put in, in order; values are strict YAML.

    A value replaces all that the file says at its path. Whether a path may exist is for the model
    to say.

    Raises:
        ConfigError: naming `--set path=value`.
    """
    for override in overrides:
        source = f"--set {override}"
        path_text, equals, value_text = override.partition("=")
        parts = path_text.strip().split(".")
        if not equals or "" in parts:
            message = "is not 'path=value'. Write for example --set guidance.scale=3.0"
            raise ConfigError(Problem(Place(source), message))
        value, _ = parse(value_text, source=source, has_lines=False)
        document = put_value(document, tuple(parts), value, source=source)
    return document


def put_value(document: ConfigDocument, path: Path, value: Any, *, source: str) -> ConfigDocument:
    """The document with plain data at `path`; `source` names the option or file in errors.

    Digits in the path are the number of an item where the document has a list.
    """
    # The data: copied from the root down to the value, the rest is shared.
    data = node = dict(document.data)
    for depth, part in enumerate(path):
        if isinstance(node, list) and str(part).isascii() and str(part).isdigit():
            part = int(part)
            path = (*path[:depth], part, *path[depth + 1 :])
        has_part = isinstance(node, list) and part in range(len(node))
        if not has_part and not isinstance(node, dict):
            raise ConfigError(Problem(Place(source), _no_such_part(node, path[: depth + 1])))
        if depth == len(path) - 1:
            node[part] = value
        else:
            inner = node[part] if isinstance(node, list) else node.get(part, {})
            is_open = isinstance(inner, dict | list)
            node[part] = inner.copy() if is_open else inner
            node = node[part]

    # Its places: those of the file below the path are gone.
    places = {p: place for p, place in document.places.items() if p[: len(path)] != path}
    for depth in range(1, len(path)):
        places.setdefault(path[:depth], Place(source))
    places[path] = Place(source)
    return ConfigDocument(document.source, data, places)


def _no_such_part(node: Any, here: Path) -> str:
    """Why nothing can be put at `here`, whose last part is not in `node`."""
    part, above = here[-1], dotted(here[:-1])
    if isinstance(node, list):
        indices = f"items 0 to {len(node) - 1}" if node[1:] else "item 0" if node else "no items"
        return f"'{dotted(here)}' is not in {above}, which has {indices}."
    shown = f"the text '{node}'" if isinstance(node, str) else dump_yaml(node).split()[0]
    return (
        f"{above} is {shown}, which has no part '{part}'. "
        f"Replace it as a whole: --set '{above}={{{part}: ...}}'"
    )


def validate(document: ConfigDocument, model: type[Model]) -> Model:
    """The document as a `model`.

    Raises:
        ConfigError: listing all that is wrong, each with file and line or command-line option.
    """
    try:
        return model.model_validate(
            document.data, by_alias=True, by_name=False, context={"source": document.source}
        )
    except ValidationError as error:
        found = explain(error, document.data, model)
        problems = [Problem(document.locate(path), message) for path, message in found]
        raise ConfigError(problems) from None


def _missing_message(path: FilePath) -> str:
    if is_name(path):
        return f"no such file or preset. {nearest(str(path), presets())}"
    folder = path.parent
    if not folder.is_dir():
        return "no such file: its folder does not exist. Check the path."
    found = sorted(p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    near = difflib.get_close_matches(path.name, found, n=1, cutoff=0.5)
    if near:
        return f"no such file. Did you mean '{folder / near[0]}'?"
    listed = f" Files there: {', '.join(found[:12])}." if found else " Check the path."
    return f"no such file.{listed}"
