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

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASED = re.compile(r"[-+]?0[xXoObB][0-9a-fA-F_]+")
_GROUPED = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_OLD_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}

_HINTS = (
    ("'\\t'", "Indent with spaces, not tabs."),
    ("mapping values are not allowed", "Put text that holds ': ' in quotes."),
    ("cannot start any token", "Put text that starts with a special character in quotes."),
    (
        "expected a single document",
        "Keep one configuration in one file: delete '---' and what follows.",
    ),
    ("while scanning a quoted scalar", "Close the quote."),
)


class _Refused(Exception):
    """Something that stops the reading at one line."""

    def __init__(self, line: int, message: str):
        self.line, self.message = line, message


class _Loader(yaml.SafeLoader):
    """Composes the node tree only; refuses aliases, anchors, tags and deep nesting."""

    depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            name = event.anchor
            raise _Refused(
                line, f"'&{name}' and '*{name}' are not supported. Write the value out."
            )
        if event.tag is not None:
            raise _Refused(line, f"the tag '{event.tag}' is not supported. Write the value alone.")
        if self.depth >= MAX_DEPTH:
            raise _Refused(line, f"nested more than {MAX_DEPTH} levels deep. Write it flatter.")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_plain(text: str) -> tuple[Any, str | None]:
    """The value of an unquoted word, and what is wrong with it (None if nothing is)."""
    if text.lower() in _WORDS and text in (text.lower(), text.upper(), text.capitalize()):
        return _WORDS[text.lower()], None
    if text.lower() in _OLD_BOOLEANS:
        word = _OLD_BOOLEANS[text.lower()]
        return None, f"'{text}' is neither true nor false. Write {word}, or \"{text}\" for text."
    if _NOT_FINITE.fullmatch(text):
        return None, f"'{text}' is not finite. Write a finite number."
    if _INT.fullmatch(text):
        if len(text.lstrip("+-")) > MAX_DIGITS:
            return None, f"'{text[:24]}' has too many digits. Write at most {MAX_DIGITS}."
        return int(text), None
    if re.fullmatch(r"[-+]?[0-9]+", text):
        plain = str(int(text)) if len(text) <= MAX_DIGITS else text.lstrip("0")
        return (
            None,
            f"'{text}' starts with 0, which some read as octal. "
            f'Write {plain}, or "{text}" for text.',
        )
    if _FLOAT.fullmatch(text):
        value = float(text)
        return (value, None) if math.isfinite(value) else (None, f"'{text}' is too large.")
    if _BASED.fullmatch(text):
        return None, f"'{text}' is not decimal. Write it in decimal, or \"{text}\" for text."
    if "_" in text and _GROUPED.fullmatch(text):
        plain = text.replace("_", "")
        return None, f"'{text}' holds '_'. Write {plain}, or \"{text}\" for text."
    return text, None


class _Builder:
    """Turns a node tree into data, with the line of every path, and collects all problems."""

    def __init__(self, source: str, *, has_lines: bool):
        self.source, self.has_lines = source, has_lines
        self.places: dict[Path, Place] = {}
        self.problems: list[Problem] = []

    def place(self, node: yaml.Node) -> Place:
        return Place(self.source, node.start_mark.line + 1 if self.has_lines else None)

    def refuse(self, node: yaml.Node, message: str) -> None:
        self.problems.append(Problem(self.place(node), message))

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.places.setdefault(path, self.place(node))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        if node.style is not None:
            return node.value
        value, trouble = read_plain(node.value)
        if trouble:
            self.refuse(node, f"{dotted(path)}: {trouble}" if path else trouble)
        return value

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.refuse(key_node, "a key must be a word, not a list or a mapping.")
                continue
            key, line = key_node.value, key_node.start_mark.line + 1
            inner = (*path, key)
            if key_node.end_mark.index == value_node.start_mark.index:
                self.refuse(key_node, _no_value_message(key))
                continue
            if key in data:
                where = f"in lines {first_lines[key]} and {line}" if self.has_lines else "twice"
                self.refuse(
                    key_node, f"the key '{dotted(inner)}' is written {where}. Delete one of them."
                )
                continue
            first_lines[key] = line
            is_scalar = isinstance(value_node, yaml.ScalarNode) and value_node.value != ""
            self.places[inner] = self.place(value_node if is_scalar else key_node)
            data[key] = self.build(value_node, inner)
        return data


def parse(text: str, *, source: str, has_lines: bool = True) -> tuple[Any, Mapping[Path, Place]]:
    """Data of plain dicts, lists, texts, numbers, booleans and None, and the place of every path.

    An empty text gives None. `has_lines=False` leaves line numbers out of messages (for values
    from the command line).

    Raises:
        ConfigError: naming the source and line of everything that is wrong with the YAML itself.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark and has_lines else None
        raise ConfigError(Problem(Place(source, line), _syntax_message(error))) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if has_lines else None
        message = f"the character U+{error.character:04X} is not allowed. Delete it."
        raise ConfigError(Problem(Place(source, line), message)) from None
    except _Refused as error:
        line = error.line if has_lines else None
        raise ConfigError(Problem(Place(source, line), error.message)) from None
    finally:
        if loader is not None:
            loader.dispose()
    if node is None:
        return None, {(): Place(source)}
    builder = _Builder(source, has_lines=has_lines)
    data = builder.build(node, ())
    if builder.problems:
        raise ConfigError(builder.problems)
    return data, builder.places


def _no_value_message(key: str) -> str:
    """For a word in braces without ': ', which is how text that holds a comma looks to YAML."""
    if re.fullmatch(r"\w+:.*", key):
        return f"'{key}' has no value. Put a space after ':'."
    return f"'{key}' has no value. Write '{key}: value', or put text that holds ',' in quotes."


def _syntax_message(error: yaml.MarkedYAMLError) -> str:
    said = " ".join(part for part in (error.context, error.problem) if part)
    hints = [hint for sign, hint in _HINTS if sign in said]
    return " ".join([f"not valid YAML: {said}.", *hints[:1]])


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
    return yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=100_000,
    )
