import pytest

from vidcfg.settings.document import LARGEST_FILE, apply_overrides, load_document, read_document
from vidcfg.settings.errors import ConfigError

TEXT = "a: 1\nlist:\n  - {x: 1}\n  - {x: 2}\nsub:\n  deep: 6.0\n"


@pytest.fixture
def document():
    return read_document(TEXT, source="a.yaml")


def refusal(call):
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


def test_a_path_is_located(document):
    assert str(document.locate(("list", 1, "x"))) == "a.yaml:4"


def test_a_default_is_located_at_the_part_that_holds_it(document):
    assert str(document.locate(("sub", "other", "more"))) == "a.yaml:5"
    assert str(document.locate(("nothing",))) == "a.yaml"


def test_a_later_check_can_name_the_line(document):
    assert str(document.error(("sub", "deep"), "is wrong")) == "a.yaml:6: is wrong"


def test_an_override_replaces_what_the_file_says_and_is_named_as_its_source(document):
    changed = apply_overrides(document, ["sub={new: [1, off_side]}", "list.0.x=1e-3"])
    assert changed.data == {
        "a": 1,
        "list": [{"x": 1e-3}, {"x": 2}],
        "sub": {"new": [1, "off_side"]},
    }
    assert str(changed.locate(("sub", "new", 1))) == "--set sub={new: [1, off_side]}"
    assert str(changed.locate(("list", 0, "x"))) == "--set list.0.x=1e-3"
    assert str(changed.locate(("list", 1, "x"))) == "a.yaml:4"
    # The replaced part keeps no trace of the file.
    assert ("sub", "deep") not in changed.places


def test_overrides_apply_in_order_and_leave_the_document_alone(document):
    changed = apply_overrides(document, ["a=2", "a=3", "new.key=x=y"])
    assert changed.data["a"] == 3
    assert changed.data["new"] == {"key": "x=y"}
    assert document.data["a"] == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a", "--set a: is not 'path=value'. Write for example --set guidance.scale=3.0"),
        ("=3", "--set =3: is not 'path=value'. Write for example --set guidance.scale=3.0"),
        (
            "a..b=3",
            "--set a..b=3: is not 'path=value'. Write for example --set guidance.scale=3.0",
        ),
        ("list.2.x=3", "--set list.2.x=3: 'list.2' is not in list, which has items 0 to 1."),
        ("list.²=3", "--set list.²=3: 'list.²' is not in list, which has items 0 to 1."),
        ("list.y=3", "--set list.y=3: 'list.y' is not in list, which has items 0 to 1."),
        (
            "sub.deep.x=3",
            "--set sub.deep.x=3: sub.deep is 6.0, which has no part 'x'. "
            "Replace it as a whole: --set 'sub.deep={x: ...}'",
        ),
        ("a=no", "--set a=no: 'no' is neither true nor false. Write false, or \"no\" for text."),
        (
            "a={x: 1, x: 2}",
            "--set a={x: 1, x: 2}: the key 'x' is written twice. Delete one of them.",
        ),
        (
            "a=out/run #3",
            "--set a=out/run #3: YAML takes what follows ' #' for a comment. "
            "Put text that holds it in quotes.",
        ),
        (
            "a=#3",
            "--set a=#3: YAML takes what follows ' #' for a comment. "
            "Put text that holds it in quotes.",
        ),
    ],
)
def test_a_wrong_override_names_itself_and_the_fix(document, override, message):
    assert refusal(lambda: apply_overrides(document, [override])) == message


def test_an_override_may_hold_a_number_sign_in_quotes_or_in_a_word(document):
    changed = apply_overrides(document, ['a="out/run #3"', "sub.new=[take#2, ' #']"])
    assert changed.data["a"] == "out/run #3"
    assert changed.data["sub"]["new"] == ["take#2", " #"]


def test_a_missing_file_names_the_nearest_one(tmp_path):
    (tmp_path / "quickstart.yaml").write_text("a: 1")
    assert refusal(lambda: load_document(tmp_path / "quikstart.yaml")).endswith(
        f"quikstart.yaml: no such file. Did you mean '{tmp_path}/quickstart.yaml'?"
    )
    assert refusal(lambda: load_document(tmp_path / "zzz.yaml")).endswith(
        "zzz.yaml: no such file. Files there: quickstart.yaml."
    )
    assert "its folder does not exist" in refusal(lambda: load_document(tmp_path / "x" / "a.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": is empty. Start from a file in configs/."),
        (b"# only a comment\n", ": is empty. Start from a file in configs/."),
        (b"- a\n", ":1: is a list, but must be a mapping of keys such as 'schema: 1'."),
        (b"word", ":1: is one value, but must be a mapping of keys such as 'schema: 1'."),
        (b"a: \xff", ": is not UTF-8 text (byte 3). Save it as UTF-8."),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    assert refusal(lambda: load_document(path)) == f"{path}{message}"


def test_a_file_that_is_too_large_or_has_no_end_is_refused_at_once(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: 1 #" + b"x" * LARGEST_FILE)
    for given in (path, "/dev/zero"):
        assert refusal(lambda given=given: load_document(given)) == (
            f"{given}: is larger than 16 MB, which no configuration is. Name a .yaml file."
        )


def test_a_folder_is_refused(tmp_path):
    assert refusal(lambda: load_document(tmp_path)) == (
        f"{tmp_path}: is a folder. Name a .yaml file."
    )


def test_a_byte_order_mark_is_read_over(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert load_document(path).data == {"a": 1}
