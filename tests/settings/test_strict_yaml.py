import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vidcfg.settings.errors import ConfigError
from vidcfg.settings.strict_yaml import dump_yaml, parse


def read(text):
    return parse(text, source="a.yaml")[0]


def error_of(text):
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2E3", -2000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("+7", 7),
        ("0", 0),
        ("12:30", "12:30"),
        ("2026-01-02", "2026-01-02"),
        ("nan", "nan"),
        ("0-3", "0-3"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("tRuE", "tRuE"),
        ("'1e-4'", "1e-4"),
        ('"off"', "off"),
        ("1.5s", "1.5s"),
    ],
)
def test_a_plain_word_is_read_as_yaml_1_2_does(text, value):
    got = read(f"key: {text}")["key"]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("word", "write"),
    [("off", "false"), ("no", "false"), ("No", "false"), ("yes", "true"), ("ON", "true")],
)
def test_old_booleans_are_refused_with_what_to_write(word, write):
    assert error_of(f"a: 1\nkey: {word}") == (
        f"a.yaml:2: key: '{word}' is neither true nor false. "
        f'Write {write}, or "{word}" for text.'
    )


def test_an_old_boolean_may_be_a_key():
    assert read("no: 1") == {"no": 1}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (".nan", "'.nan' is not finite. Write a finite number."),
        ("-.INF", "'-.INF' is not finite. Write a finite number."),
        ("1e999", "'1e999' is too large."),
        ("010", "'010' starts with 0, which some read as octal. Write 10, or \"010\" for text."),
        ("0o17", "'0o17' is not decimal. Write it in decimal, or \"0o17\" for text."),
        ("0x1F", "'0x1F' is not decimal. Write it in decimal, or \"0x1F\" for text."),
        ("1_000", "'1_000' holds '_'. Write 1000, or \"1_000\" for text."),
        ("1" * 30, f"'{'1' * 24}' has too many digits. Write at most 19."),
    ],
)
def test_numbers_that_yaml_versions_disagree_about_are_refused(word, message):
    assert error_of(f"key: [{word}]") == f"a.yaml:1: key.0: {message}"


def test_a_repeated_key_names_both_lines():
    text = "a:\n  x: 1\n  y: 2\n  x: 3\n"
    assert error_of(text) == (
        "a.yaml:4: the key 'a.x' is written in lines 2 and 4. Delete one of them."
    )


def test_several_problems_are_listed_in_line_order():
    lines = error_of("a: off\nb: {c: 1, c: 2}\nd: .inf").split("\n")
    assert [line.split(" ")[0] for line in lines] == ["a.yaml:1:", "a.yaml:2:", "a.yaml:3:"]


def test_text_with_a_comma_in_braces_is_not_read_as_a_key():
    assert error_of("p: {text: a red circle, moving left}") == (
        "a.yaml:1: 'moving left' has no value. Write 'moving left: value', "
        "or put text that holds ',' in quotes."
    )


def test_a_missing_space_after_a_colon_is_named():
    assert error_of("p: {kind:linear}") == (
        "a.yaml:1: 'kind:linear' has no value. Put a space after ':'."
    )


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("a:\n\tb: 1", 2, "Indent with spaces, not tabs."),
        ("a: x: y", 1, "Put text that holds ': ' in quotes."),
        ("a: 1\nb: %x", 2, "Put text that starts with a special character in quotes."),
        ("a: 1\n---\nb: 2", 2, "Keep one configuration in one file"),
        ('a: 1\nb: "x', 2, "Close the quote."),
    ],
)
def test_broken_yaml_names_its_line_and_the_fix(text, line, hint):
    message = error_of(text)
    assert message.startswith(f"a.yaml:{line}: not valid YAML: ")
    assert hint in message


def test_a_control_character_names_its_line():
    assert error_of("a: 1\nb: \x00") == (
        "a.yaml:2: the character U+0000 is not allowed. Delete it."
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: &x 1\nb: *x", "a.yaml:1: '&x' and '*x' are not supported."),
        ("a: *x", "a.yaml:1: '&x' and '*x' are not supported."),
        ("a: !!python/object:os.system x", "a.yaml:1: the tag 'tag:yaml.org"),
        ("a: !!float 1", "is not supported. Write the value alone."),
        ("[" * 5000, "a.yaml:1: nested more than 32 levels deep."),
        ("? [1, 2]\n: 3", "a.yaml:1: a key must be a word"),
    ],
)
def test_magic_is_refused(text, part):
    assert part in error_of(text)


def test_lines_are_kept_for_every_path():
    text = "a: 1\nb:\n  - {c: 2}\n  - d:\n      3\n"
    places = parse(text, source="a.yaml")[1]
    lines = {path: place.line for path, place in places.items() if path}
    # The value of `d` stands one line below its key: the value's line counts.
    assert lines == {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 0, "c"): 3,
        ("b", 1): 4,
        ("b", 1, "d"): 5,
    }


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ("{a: ", "}")])
def test_values_lie_at_most_31_lists_or_mappings_deep(opened, closed):
    assert read(opened * 31 + "x" + closed * 31) is not None
    assert "nested more than 32 levels deep" in error_of(opened * 32 + "x" + closed * 32)


@pytest.mark.parametrize("key", ["a", "[b]"])
def test_below_a_key_that_is_refused_nothing_else_is_told(key):
    (problem,) = error_of(f"a: 1\n{key}: {{x: off, y: [007]}}").splitlines()
    assert "007" not in problem


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm():
    assert read("a: 1\r\nb: two words\r\n") == {"a": 1, "b": "two words"}


words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=12)
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | floats | words
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(trees)
@example(["off", "1e-4", "007", "12:30", ".nan", "~", "", "a: b", "#x", "1_0", "é\u2028"])
def test_what_is_dumped_reads_back_equal(data):
    again = read(dump_yaml({"key": data}))["key"]
    assert again == data
    assert dump_yaml(again) == dump_yaml(data)


def test_a_dumped_float_keeps_its_last_bit():
    value = math.nextafter(0.1, 1)
    assert read(dump_yaml({"a": value}))["a"] == value
