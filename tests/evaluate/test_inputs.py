import json

import pytest

from vidcfg.evaluate.inputs import Item, find_items, with_prompts
from vidcfg.evaluate.prompts import prompt_and_number


def test_render_output_is_read_with_its_records(rendered):
    items = find_items([rendered])
    assert [item.name for item in items] == [f"clip_{i}.mkv" for i in range(5)]
    assert [item.seed for item in items] == [0, 1, 2, 3, 4]
    assert all("moving" in i.prompt or "ing" in i.prompt for i in items)
    # 9 frames and 3 latent frames of a causal VAE: a stride of 4.
    assert {item.stride for item in items} == {4}
    assert {item.enlarge for item in items} == {1}


def test_items_are_sorted_and_listed_once(rendered):
    files = sorted(rendered.glob("*.mkv"))
    assert find_items([files[2], rendered, files[0]]) == find_items([rendered])


def test_order_of_the_arguments_does_not_matter(rendered):
    files = sorted(rendered.glob("*.mkv"))
    assert find_items(files[::-1]) == find_items(files)


def test_folder_of_pictures_is_one_item_and_hidden_files_are_none(tmp_path):
    (tmp_path / "shots" / "a").mkdir(parents=True)
    (tmp_path / "shots" / "a" / "0.png").write_bytes(b"")
    (tmp_path / "shots" / ".tmp-1.mp4").write_bytes(b"")
    (tmp_path / "shots" / "b.mp4").write_bytes(b"")
    assert [item.name for item in find_items([tmp_path / "shots"])] == ["a", "b.mp4"]
    assert [item.name for item in find_items([tmp_path / "shots" / "a"])] == ["a"]


def test_missing_files_stay_in_the_list(tmp_path):
    assert [item.name for item in find_items([tmp_path / "gone.mp4"])] == ["gone.mp4"]


def test_same_names_in_two_folders_are_told_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.mp4").write_bytes(b"")
    names = [item.name for item in find_items([tmp_path / "a", tmp_path / "b"])]
    assert len(set(names)) == 2
    assert [item.name for item in find_items([tmp_path])] == ["a/x.mp4", "b/x.mp4"]


@pytest.mark.parametrize(
    "text", ["not json", "[1, 2]", '{"prompt": 3, "seed": "x", "video": [], "surface": {}}']
)
def test_records_that_say_nothing_are_ignored(tmp_path, text):
    (tmp_path / "x.mp4").write_bytes(b"")
    (tmp_path / "x.json").write_text(text)
    (item,) = find_items([tmp_path])
    assert (item.prompt, item.seed, item.stride, item.enlarge) == ("x", None, None, 1)
    assert item.text is None


@pytest.mark.parametrize(
    ("stem", "prompt", "number"),
    [
        ("a cat playing in park-0", "a cat playing in park", 0),
        ("a well-known man, 35 years old-12", "a well-known man, 35 years old", 12),
        ("ComfyUI_00001_", "ComfyUI", 1),
        ("fox_at_dawn_00012", "fox_at_dawn", 12),
        ("a-red-circle-s41", "a-red-circle", 41),
        ("0042", "0042", None),
        ("take_2", "take_2", None),
        ("-3", "-3", None),
        ("a cat", "a cat", None),
    ],
)
def test_names_of_other_tools_tell_prompt_and_number(stem, prompt, number):
    assert prompt_and_number(stem) == (prompt, number)


def test_name_is_the_prompt_unless_a_record_has_one_and_a_word_is_no_text(tmp_path):
    for name in ("a red fox-3.mp4", "fox_00002_.mp4", "kite-5.mp4"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "kite-5.json").write_text('{"prompt": "kites"}')
    (tmp_path / "shots-7").mkdir()
    (tmp_path / "shots-7" / "0.png").write_bytes(b"")
    items = find_items([tmp_path])
    found = [(item.prompt, item.seed, item.text) for item in items]
    assert found == [
        ("a red fox", 3, "a red fox"),
        ("fox", 2, None),
        ("kites", 5, "kites"),
        ("shots", 7, None),
    ]


def test_prompts_come_from_a_table_or_from_lines(tmp_path):
    items = [Item(tmp_path / f"{n}.mp4", f"{n}.mp4") for n in "ab"]
    table, lines = tmp_path / "p.json", tmp_path / "p.txt"
    table.write_text(json.dumps({"b": "second", "a.mp4": "first"}))
    lines.write_text("first\n\nsecond\n")
    for path in (table, lines):
        assert [item.prompt for item in with_prompts(items, path)] == ["first", "second"]


def test_prompts_that_do_not_fit_are_an_error(tmp_path):
    lines = tmp_path / "p.txt"
    lines.write_text("one\ntwo\n")
    with pytest.raises(ValueError, match="2 prompts for 1 videos"):
        with_prompts([Item(tmp_path / "a.mp4", "a.mp4")], lines)
    with pytest.raises(ValueError, match="cannot be read"):
        with_prompts([], tmp_path / "gone.txt")
