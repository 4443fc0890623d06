"""The house: arrows go one way, no circle, one class for one word, files of a readable size."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "vidcfg"

EVERYWHERE = {"files", "progress", "cli", "plugins", "extras"}
"""What every part may import: the one writer, progress and command runner, the plugins, and what
extras bring."""

ALLOWED = {
    "files": set(),
    "progress": set(),
    "cli": set(),
    "extras": set(),
    "plugins": set(),
    "settings": set(),
    "guidance": {"settings"},
    "mini": set(),
    "media": set(),
    "metrics": {"media", "mini"},
    "pipelines": {"settings", "guidance", "mini", "stored"},
    "diffusers": {"pipelines"},
    "stored": {"metrics"},
    "places": {"stored"},
    "dataframes": {"stored"},
    "results": {"places", "stored", "dataframes", "metrics", "media"},
    "tracking": set(),
    "render": {
        *("settings", "guidance", "mini", "pipelines", "media"),
        *("stored", "dataframes", "tracking"),
    },
    "evaluate": {
        *("settings", "mini", "media", "metrics", "stored", "places"),
        *("results", "dataframes", "tracking", "report"),
    },
    "report": {"media", "metrics", "stored", "results", "places"},
    "regress": {
        *("settings", "media", "metrics", "evaluate", "report"),
        *("places", "stored", "results"),
    },
    "sweep": {
        *("settings", "guidance", "mini", "pipelines", "media", "metrics", "places"),
        *("stored", "results", "dataframes", "tracking", "render", "evaluate", "report"),
    },
    "families": {"pipelines", "guidance"},
    "weights": {"metrics"},
    "doctor": {"metrics", "mini", "pipelines"},
    "completion": set(),
    "presets": {"settings"},
    "init": {"settings"},
}
"""What each part may import besides itself. Commands stand last; a sweep is made of renders and
evaluations, and a regression test of evaluations, so these two commands import those."""

FOREIGN = {
    "settings": {"torch", "numpy", "diffusers", "cv2", "av", "ray"},
    "report": {"torch", "diffusers", "ray"},
    "regress": {"torch", "diffusers", "ray"},
    "results": {"torch", "diffusers", "ray"},
    "stored": {"torch", "diffusers", "ray"},
}
"""Libraries that a part must not import, at any depth of its own files."""


@cache
def modules() -> dict[str, ast.Module]:
    """Dotted name -> parsed source of every module of the package."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text("utf-8"))
    return found


def imports_of(name: str) -> set[str]:
    """Dotted names of all that a module imports, also inside functions."""
    names = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {n if n in modules() else node.module for n in full}
    return names


def part_of(name: str) -> str | None:
    """`vidcfg.render.job` -> `render`; None for the package itself and for `python -m vidcfg`."""
    parts = name.split(".")
    if parts[0] != "vidcfg" or len(parts) == 1 or parts[1] == "__main__":
        return None
    return parts[1]


def parts() -> list[str]:
    return sorted({part_of(name) for name in modules()} - {None})


@pytest.mark.parametrize("part", parts())
def test_no_arrow_points_back(part):
    assert part in ALLOWED, f"vidcfg/{part} has no row in ALLOWED"
    for name in modules():
        if part_of(name) == part:
            used = {part_of(n) for n in imports_of(name)} - {None}
            extra = used - ALLOWED[part] - EVERYWHERE - {part}
            assert not extra, f"{name} imports {sorted(extra)}"


def test_the_table_of_arrows_names_no_part_that_is_gone():
    assert sorted(ALLOWED) == parts()


@pytest.mark.parametrize("part", sorted(FOREIGN))
def test_part_stays_free_of_heavy_libraries(part):
    for name in modules():
        if part_of(name) == part:
            found = {n.split(".")[0] for n in imports_of(name)} & FOREIGN[part]
            assert not found, f"{name} imports {sorted(found)}"


def test_only_sweep_imports_ray():
    for name in modules():
        if part_of(name) != "sweep":
            assert "ray" not in {n.split(".")[0] for n in imports_of(name)}, name


def test_no_circle_also_through_an_import_inside_a_function():
    arrows = {name: (imports_of(name) & set(modules())) - {name} for name in modules()}
    # Take away what imports nothing that is left, until nothing or a circle remains.
    left = dict(arrows)
    while True:
        free = [name for name, used in left.items() if not used & set(left)]
        if not free:
            break
        for name in free:
            del left[name]
    assert not left, f"in or above a circle: {sorted(left)}"


def test_a_class_name_stands_for_one_class():
    places = defaultdict(list)
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name)
    assert not {word: found for word, found in places.items() if len(found) > 1}


def test_what_is_printed_goes_through_the_one_helper_that_escapes():
    printing = set()
    for name, tree in modules().items():
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        if {"print", "put"} & {call.id for call in calls if isinstance(call, ast.Name)}:
            printing.add(name)
    # The runner and the progress escape; a preview, whose colours are escapes, does so itself.
    assert printing == {"vidcfg.cli", "vidcfg.progress", "vidcfg.render.__main__"}


def test_files_stay_below_400_lines():
    long = {p.name: n for p in ROOT.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long
