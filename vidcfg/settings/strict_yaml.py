"""YAML without its traps: text in, plain data and the line of every value out.

Numbers are read as YAML 1.2 does (`1e-4` is a number, `12:30` is text). What YAML versions
disagree about is an error that says what to write: `off`, `007`, `1_000`, `.nan`, tabs, repeated
keys. Anchors, aliases and tags are refused: a file can neither hide a value nor build an object.
"""

import math
import re
from collections.abc import Iterator, Mapping
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
    """Turns YAML events into data, with the line of every path, and collects all problems."""

    def __init__(self, events: Iterator[yaml.Event], *, has_lines: bool):
        self.events = events
        self.has_lines = has_lines
        self.end = 0
        self.lines: dict[Path, int] = {}
        self.problems: list[tuple[int, str]] = []

    def refuse(self, event: yaml.Event, message: str) -> None:
        self.problems.append((event.start_mark.line + 1, message))

    def document(self) -> Any:
        """The data of the only document, up to the index `end` of the text; None without one."""
        next(self.events)  # the start of the stream
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        data = self.build(self.next(()), ())
        next(self.events)  # the end of the document
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            what = "expected a single document in the stream but found another document"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=after.start_mark)
        return data

    def next(self, path: Path) -> yaml.Event:
        """The next event: of something at this depth, or the end of what holds it.

        No alias, anchor, tag or deep nesting goes through.
        """
        event, trouble = next(self.events), None
        self.end = event.end_mark.index
        if isinstance(event, yaml.NodeEvent):
            name, tag = event.anchor, getattr(event, "tag", None)
            if name is not None:
                trouble = f"'&{name}' and '*{name}' are not supported. Write the value out."
            elif tag is not None:
                trouble = f"the tag '{tag}' is not supported. Write the value alone."
            elif len(path) >= MAX_DEPTH:
                trouble = f"nested more than {MAX_DEPTH} levels deep. Write it flatter."
        if trouble:
            raise _Refused(event.start_mark.line + 1, trouble)
        return event

    def build(self, event: yaml.Event, path: Path) -> Any:
        self.lines.setdefault(path, event.start_mark.line + 1)
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(item := self.next((*path, 0)), yaml.SequenceEndEvent):
                items.append(self.build(item, (*path, len(items))))
            return items
        if bad := _UNUSABLE.search(event.value):
            self.refuse(event, f"the character U+{ord(bad[0]):04X} is not allowed. Delete it.")
        if event.style is not None:
            return event.value
        value, trouble = read_plain(event.value)
        if trouble:
            self.refuse(event, f"{dotted(path)}: {trouble}" if path else trouble)
        return value

    def mapping(self, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, int] = {}
        while not isinstance(key_event := self.next((*path, "")), yaml.MappingEndEvent):
            # The key
            known, is_word = len(self.problems), isinstance(key_event, yaml.ScalarEvent)
            if not is_word:
                self.build(key_event, path)
            key, line = getattr(key_event, "value", ""), key_event.start_mark.line + 1
            inner, trouble = (*path, key), None
            value_event = self.next(inner)
            if not is_word:
                trouble = "a key must be a word, not a list or a mapping."
            elif key_event.end_mark.index == value_event.start_mark.index:
                # A word in braces without ': ', as text that holds a comma looks to YAML.
                missing_space = re.fullmatch(r"\w+:.*", key)
                fix = f"Write '{key}: value', or put text that holds ',' in quotes."
                fix = "Put a space after ':'." if missing_space else fix
                trouble = f"'{key}' has no value. {fix}"
            elif key in data:
                where = f"in lines {first[key]} and {line}" if self.has_lines else "twice"
                trouble = f"the key '{dotted(inner)}' is written {where}. Delete one of them."

            # Its value: below a key that is refused nothing else is told.
            is_scalar = isinstance(value_event, yaml.ScalarEvent) and value_event.value != ""
            self.lines[inner] = value_event.start_mark.line + 1 if is_scalar else line
            value = self.build(value_event, inner)
            if trouble is None:
                first[key], data[key] = line, value
            else:
                del self.problems[known:]
                self.refuse(key_event, trouble)
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

    # What is no YAML, or more than is read of it, ends the reading.
    builder = _Builder(yaml.parse(text, Loader=yaml.SafeLoader), has_lines=has_lines)
    try:
        data = builder.document()
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

    if not has_lines and "#" in text[builder.end :]:
        message = "YAML takes what follows ' #' for a comment. Put text that holds it in quotes."
        raise ConfigError(Problem(place(None), message))

    # All else that is wrong is told together.
    if builder.problems:
        raise ConfigError([Problem(place(line), text) for line, text in builder.problems])
    places = {path: place(line) for path, line in builder.lines.items()}
    return data, places or {(): Place(source)}


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
