import pytest

from vidcfg.evaluate.inputs import Item, find_items, with_prompts
from vidcfg.evaluate.prompts import prompt_and_number
from vidcfg.progress import printable


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
    "text",
    [
        *("not json", "[1, 2]", '{"prompt": 3, "seed": "x", "video": [], "surface": {}}'),
        '{"seed": -1, "video": {"enlarge": 0}}',
        '{"seed": 9223372036854775808, "video": {"enlarge": -2}}',
        '{"seed": true, "surface": {"num_frames": -3, "num_latent_frames": 2}}',
    ],
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


@pytest.fixture
def sets(tmp_path):
    """Two sets of two videos, one of which is in a folder below."""
    return {
        name: [Item(tmp_path / name / v, f"{name}/{v}", "old", from_name=True) for v in videos]
        for name, videos in {"A": ("a.mp4", "b/c.mp4"), "B": ("a.mp4", "d.mp4")}.items()
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "p.csv",
            '\ufeffnote,video,prompt\n1,a.mp4,"one, two"\n\n,b/c,kite\n,B/d.mp4,"new\nline"\n',
        ),
        ("p.json", '{"a.mp4": "one, two", "c": "kite", "d.mp4": "new\\nline"}'),
        (
            "p.json",
            '[{"video": "a", "prompt": "one, two"}, {"video": "A/b/c.mp4", "prompt": "kite"},'
            ' {"video": "B/d", "prompt": "new\\nline"}]',
        ),
        (
            "p.JSONL",
            '{"video": "a", "prompt": "one, two"}\n\n{"video": "c.mp4", "prompt": " kite"}\r\n'
            '{"video": "d", "prompt": "new\\nline", "seed": 3}',
        ),
        ("p.txt", "one, two\n\n  kite\n"),
    ],
)
def test_prompts_come_from_tables_by_name_or_from_lines_in_order(tmp_path, sets, name, text):
    path = tmp_path / name
    path.write_text(text)
    if path.suffix == ".txt":
        del sets["B"]
    found = with_prompts(sets, path)
    assert [item.prompt for item in found["A"]] == ["one, two", "kite"]
    # A prompt of one word is a text too, where the file says so.
    assert [item.text for item in found["A"]] == ["one, two", "kite"]
    if "B" in sets:
        assert [item.prompt for item in found["B"]] == ["one, two", "new\nline"]


@pytest.mark.parametrize("ending", ["txt", "csv"])
def test_a_prompt_ends_where_its_line_does_and_at_no_other_separator(tmp_path, sets, ending):
    path, odd = tmp_path / f"p.{ending}", "one\u2028two\x0bthree\x85four"
    lines = ["video,prompt", f"a,{odd}", "c,kite"] if ending == "csv" else [odd, "kite"]
    path.write_text("\r\n".join(lines), newline="", encoding="utf-8")
    found = with_prompts({"A": sets["A"]}, path)["A"]
    assert [item.prompt for item in found] == [printable(odd), "kite"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "p.csv",
            "file,prompt\na.mp4,x\n",
            "line 2 has no video. Write a first line `video,prompt`",
        ),
        ("p.csv", "video,prompt\na,x\nd,one, two\n", "line 3 has more values than columns"),
        ("p.csv", "video,prompt\na\n", "line 2 has no prompt"),
        ("p.csv", 'video,prompt\na,"x\n', "unexpected end of data"),
        ("p.csv", "video,prompt\na,x\nd,y\na,z\n", "line 4 gives a a second prompt"),
        ("p.json", '{"a": 3}', "'a' has prompt 3, which is no text"),
        ("p.json", '[{"video": "a", "prompt": "x"}, "y"]', "entry 2 is 'y', without names"),
        ("p.json", '[{"video": "a", "prompt": "  "}]', "entry 1 has no prompt|prompt '  '"),
        ("p.json", '"a"', "neither a list nor an object"),
        ("p.json", '{"a": "x", "e": "y", "a": "z"}', "'a' is there twice, with different values"),
        (
            "p.jsonl",
            '{"video": "a", "prompt": "x", "prompt": "y"}',
            "line 1: 'prompt' is there twice",
        ),
        ("p.json", "{", r"line 1 column 2.*Write \[\{\"video\""),
        ("p.jsonl", '{"video": "a", "prompt": "x"}\n\nb\n', "line 3 is no JSON"),
        (
            "p.csv",
            "video,prompt\nz.mp4,x\n",
            "no prompt for 4 of 4 .* no video here, such as z.mp4",
        ),
        ("p.csv", "", "no prompt for 4 of 4 videos, such as A/a.mp4"),
        ("p.txt", "one\ntwo\nthree\n", "3 prompts for 2 videos of A"),
        ("gone.csv", None, "gone.csv cannot be read as prompts"),
        ("p.tsv", "a.mp4\tx\nb.mp4\ty\n", r"Write a first line `video,prompt`.* \(.csv\)"),
    ],
)
def test_prompts_that_do_not_fit_name_the_row_and_what_to_write(tmp_path, sets, name, text, words):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=words):
        with_prompts(sets, path)


def test_videos_that_a_table_leaves_out_keep_their_prompt_and_are_told(tmp_path, sets, capsys):
    path = tmp_path / "p.csv"
    path.write_text("video,prompt\na,first\ne,second\n")
    found = with_prompts(sets, path)
    assert [item.prompt for items in found.values() for item in items] == [
        *("first", "old", "first", "old")
    ]
    told = "no prompt for 2 of 4 videos, such as A/b/c.mp4; 1 of its names are no video here"
    assert told in capsys.readouterr().err
