import re

import pytest

from vidcfg.render.config import Prompt, prompt_names, units_of

HOSTILE = [
    "../../etc/passwd",
    "/absolute",
    "..",
    ".hidden",
    'a\\b:c*d?e"f<g>h|i',
    "CON",
    "日本の風景",
    "Ünïcödé café",
    "x" * 5000,
    "word " * 500,
    "line\nbreak\ttab\x00nul\x7f",
    "🎈🎈",
    "-rf --help",
    "%s {name} $HOME `id`",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_prompt_becomes_a_plain_file_name(text):
    (name,) = prompt_names((Prompt(text=text),))
    assert re.fullmatch(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 80


def test_prompts_that_differ_get_names_that_differ():
    texts = [
        *HOSTILE,
        "a red circle",
        "A red circle!",
        "a  red-circle",
        "日本の山",
        "x" * 4999,
        "🎉",
    ]
    prompts = [Prompt(text=text) for text in texts]
    prompts += [Prompt(text="a red circle", negative="blurry")]
    names = prompt_names(tuple(prompts))
    assert len(set(names)) == len(prompts)


def test_a_prompt_in_plain_words_is_its_own_name_whatever_else_is_rendered():
    plain = Prompt(text="A red circle, moving left")
    assert prompt_names((plain,)) == ["a-red-circle-moving-left"]
    assert prompt_names((Prompt(text="日本"), plain))[1] == "a-red-circle-moving-left"


def test_a_name_that_says_less_than_its_prompt_does_not_depend_on_the_others():
    cut = Prompt(text="word " * 500)
    assert prompt_names((cut,))[0] == prompt_names((Prompt(text="word " * 400), cut))[1]


def test_units_are_all_pairs_with_the_seeds_of_a_prompt_together(config, tmp_path):
    units = units_of(config("seeds=[7, 2]"))
    assert [(unit.prompt.text.split()[1], unit.seed) for unit in units] == [
        ("red", 7),
        ("red", 2),
        ("blue", 7),
        ("blue", 2),
    ]
    assert units[0].stem.parent == tmp_path / "out"
    assert len({path for unit in units for path in unit.files}) == 12


def test_file_ending_follows_the_codec(config):
    assert units_of(config("output.video=h264"))[0].video.suffix == ".mp4"
    assert units_of(config("output.video=ffv1"))[0].video.suffix == ".mkv"
