"""What the documents lead to and tell to type is there: files, headings, commands, options."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from vidcfg.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def without_code(text):
    """A page without its blocks and spans of code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


@cache
def anchors(page):
    """The names of the headings of a page, as GitHub and mkdocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    heads = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file_and_heading_that_exist(name):
    page = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text("utf-8")))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        place, _, heading = link.partition("#")
        target = (page.parent / place) if place else page
        assert target.exists(), f"{name}: {link}"
        assert not heading or heading in anchors(target), f"{name}: {link}"


def shell_lines(page):
    """The lines of the shell blocks of a page, continued lines as one."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    return "\n".join(blocks).replace("\\\n", " ").splitlines()


def arguments_of(line):
    """The words behind `vidcfg` of a line, up to what the shell takes; none for another line."""
    found = re.search(r"(?:python -m vidcfg\.|\bvidcfg )([a-z]+\b.*)", line)
    if not found or line.lstrip().startswith("#"):
        return []
    # A command for another machine stands in quotes of its own.
    rest = found[1].removesuffix("'") if found[1].count("'") % 2 else found[1]
    # The end of a command in quotes or $(...) is no word of it.
    rest = rest.split(')"')[0]
    words = shlex.split(rest, comments=True)
    ends = [i for i, word in enumerate(words) if word in (">", "|", "&&", ";")]
    return words[: ends[0]] if ends else words


@pytest.mark.parametrize("name", NAMES)
def test_commands_of_shell_blocks_are_taken_by_their_parsers(name, monkeypatch):
    def parse_alone(made, todo, argv=None):
        made.parse_args(argv)
        return 0

    monkeypatch.setattr("vidcfg.cli.run", parse_alone)
    for line in shell_lines(ROOT / name):
        for script in re.findall(r"python ((?:scripts|tools)/[\w/.]+)", line):
            assert (ROOT / script).exists(), f"{name}: {line}"
        words = arguments_of(line)
        if words:
            assert words[0] in COMMANDS, f"{name}: {line}"
            assert main(words) == 0, f"{name}: {line}"
            for word in words[1:]:
                if word.startswith("configs/"):
                    assert (ROOT / word).exists(), f"{name}: {line}"


def test_the_tree_of_the_readme_names_every_part_of_the_package():
    tree = (ROOT / "README.md").read_text("utf-8").split("## The house")[1].split("```")[1]
    for part in (ROOT / "vidcfg").iterdir():
        if not part.name.startswith("_") and (
            part.suffix == ".py" or (part / "__init__.py").exists()
        ):
            assert f" {part.name}" in tree, part.name


def test_the_documents_have_commands_of_most_kinds():
    words = [arguments_of(line)[:1] for page in PAGES for line in shell_lines(page)]
    known = {word[0] for word in words if word}
    assert {"render", "evaluate", "sweep", "regress", "presets", "init"} <= known
