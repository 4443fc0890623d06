"""YAML without its traps: text in, plain data and the line of every value out.

Numbers are read as YAML 1.2 does (`1e-4` is a number, `12:30` is text). What YAML versions
disagree about is an error that says what to write: `off`, `007`, `1_000`, `.nan`, tabs, repeated
keys. Anchors, aliases and tags are refused: a file can neither hide a value nor build an object.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from vidcfg.settings.errors import ConfigError, Path, Place, Problem, dotted

MAX_DEPTH = 32
MAX_DIGITS = 19

_UNUSABLE = re.compile(r"[\x00\ud800-\udfff]")
"""What an escape in quotes can write, but no file name, tokenizer or page can hold."""

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASED = re.compile(r"[-+]?0[xXoObB][0-9a-fA-F_]+")
_GROUPED = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_OLD_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}

_HINTS = {
    "'\\t'": "Indent with spaces, not tabs.",
    "mapping values are not allowed": "Put text that holds ': ' in quotes.",
    "cannot start any token": "Put text that starts with a special character in quotes.",
    "expected a single document": "Keep one configuration in one file: delete '---' and what "
    "follows.",
    "while scanning a quoted scalar": "Close the quote.",
}


class _Refused(Exception):
    """Something that stops the reading: a line and what is wrong with it."""


class _Loader(yaml.SafeLoader):
    """Composes the node tree only; refuses aliases, anchors, tags and deep nesting."""

    depth = 0

    def compose_node(self, parent, index):
        event, trouble = self.peek_event(), None
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            name = event.anchor
            trouble = f"'&{name}' and '*{name}' are not supported. Write the value out."
        elif event.tag is not None:
            trouble = f"the tag '{event.tag}' is not supported. Write the value alone."
        elif self.depth >= MAX_DEPTH:
            trouble = f"nested more than {MAX_DEPTH} levels deep. Write it flatter."
        if trouble:
            raise _Refused(event.start_mark.line + 1, trouble)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_plain(text: str) -> tuple[Any, str | None]:
    """The value of an unquoted word, and what is wrong with it (None if nothing is)."""
    lower, quoted = text.lower(), f'"{text}" for text.'
    if lower in _WORDS and text in (lower, text.upper(), text.capitalize()):
        return _WORDS[lower], None
    value, trouble = text, None
    if lower in _OLD_BOOLEANS:
        trouble = f"is neither true nor false. Write {_OLD_BOOLEANS[lower]}, or {quoted}"
    elif _NOT_FINITE.fullmatch(text):
        trouble = "is not finite. Write a finite number."
    elif _INT.fullmatch(text) and len(text.lstrip("+-")) > MAX_DIGITS:
        return None, f"'{text[:24]}' has too many digits. Write at most {MAX_DIGITS}."
    elif _INT.fullmatch(text):
        value = int(text)
    elif re.fullmatch(r"[-+]?[0-9]+", text):
        plain = str(int(text)) if len(text) <= MAX_DIGITS else text.lstrip("0")
        trouble = f"starts with 0, which some read as octal. Write {plain}, or {quoted}"
    elif _FLOAT.fullmatch(text):
        value = float(text)
        trouble = None if math.isfinite(value) else "is too large."
    elif _BASED.fullmatch(text):
        trouble = f"is not decimal. Write it in decimal, or {quoted}"
    elif "_" in text and _GROUPED.fullmatch(text):
        trouble = f"holds '_'. Write {text.replace('_', '')}, or {quoted}"
    return (None, f"'{text}' {trouble}") if trouble else (value, None)


class _Builder:
    """Turns a node tree into data, with the line of every path, and collects all problems."""

    def __init__(self, *, has_lines: bool):
        self.has_lines = has_lines
        self.lines: dict[Path, int] = {}
        self.problems: list[tuple[int, str]] = []

    def refuse(self, node: yaml.Node, message: str) -> None:
        self.problems.append((node.start_mark.line + 1, message))

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        if bad := _UNUSABLE.search(node.value):
            self.refuse(node, f"the character U+{ord(bad[0]):04X} is not allowed. Delete it.")
        if node.style is not None:
            return node.value
        value, trouble = read_plain(node.value)
        if trouble:
            self.refuse(node, f"{dotted(path)}: {trouble}" if path else trouble)
        return value

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.refuse(key_node, "a key must be a word, not a list or a mapping.")
                continue
            key, line = key_node.value, key_node.start_mark.line + 1
            inner = (*path, key)
            if key_node.end_mark.index == value_node.start_mark.index:
                # A word in braces without ': ', as text that holds a comma looks to YAML.
                missing_space = re.fullmatch(r"\w+:.*", key)
                fix = f"Write '{key}: value', or put text that holds ',' in quotes."
                fix = "Put a space after ':'." if missing_space else fix
                self.refuse(key_node, f"'{key}' has no value. {fix}")
            elif key in data:
                where = f"in lines {first[key]} and {line}" if self.has_lines else "twice"
                message = f"the key '{dotted(inner)}' is written {where}. Delete one of them."
                self.refuse(key_node, message)
            else:
                first[key] = line
                is_scalar = isinstance(value_node, yaml.ScalarNode) and value_node.value != ""
                self.lines[inner] = (value_node if is_scalar else key_node).start_mark.line + 1
                data[key] = self.build(value_node, inner)
        return data


def parse(text: str, *, source: str, has_lines: bool = True) -> tuple[Any, Mapping[Path, Place]]:
    """Data of plain dicts, lists, texts, numbers, booleans and None, and the place of every path.

    An empty text gives None. `has_lines=False` leaves line numbers out of messages, and refuses
    comments (for values from the command line, where ` #` is meant as text).

    Raises:
        ConfigError: naming the source and line of everything that is wrong with the YAML itself.
    """

    def place(line: int | None) -> Place:
        return Place(source, line if has_lines else None)

    # Text to nodes: the first thing that is wrong ends it.
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        hints = [hint for sign, hint in _HINTS.items() if sign in said]
        message = " ".join([f"not valid YAML: {said}.", *hints[:1]])
        raise ConfigError(Problem(place(mark.line + 1 if mark else None), message)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"the character U+{error.character:04X} is not allowed. Delete it."
        raise ConfigError(Problem(place(line), message)) from None
    except _Refused as error:
        line, message = error.args
        raise ConfigError(Problem(place(line), message)) from None

    if not has_lines and "#" in text[node.end_mark.index if node else 0 :]:
        message = "YAML takes what follows ' #' for a comment. Put text that holds it in quotes."
        raise ConfigError(Problem(place(None), message))

    # Nodes to data: all that is wrong is told together.
    if node is None:
        return None, {(): Place(source)}
    builder = _Builder(has_lines=has_lines)
    data = builder.build(node, ())
    if builder.problems:
        raise ConfigError([Problem(place(line), text) for line, text in builder.problems])
    return data, {path: place(line) for path, line in builder.lines.items()}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    value, trouble = read_plain(text)
    style = '"' if trouble or not isinstance(value, str) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(data: Any) -> str:
    """Plain data as YAML that `parse` reads back to equal data; keys keep their order."""
    style = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None}
    return yaml.dump(data, Dumper=_Dumper, width=100_000, **style)
