"""Imports go one way: settings -> guidance -> pipelines -> commands, never back."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "vidcfg"

EVERYWHERE = {"files", "progress", "cli"}
"""What every part may import: the one writer, the one progress, the one command runner."""

ALLOWED = {
    "files": set(),
    "progress": set(),
    "cli": set(),
    "settings": set(),
    "guidance": {"settings"},
    "mini": set(),
    "media": set(),
    "pipelines": {"settings", "guidance", "mini", "render"},
    "metrics": {"media", "mini"},
    "results": {"media", "metrics"},
    "report": {"results", "media", "metrics"},
    "diffusers": {"pipelines"},
    "render": {"settings", "pipelines", "guidance", "media", "mini"},
    "evaluate": {"settings", "media", "metrics", "mini"},
    "sweep": {
        *("settings", "pipelines", "guidance", "media", "metrics", "mini"),
        *("render", "evaluate", "report", "results"),
    },
    "regress": {"settings", "media", "metrics", "evaluate", "report", "results"},
    "train": {"settings", "mini", "media"},
    "families": {"pipelines", "guidance"},
    "weights": {"metrics"},
    "doctor": {"metrics", "mini", "pipelines"},
}
"""What each part may import besides itself. Commands stand last; a sweep is made of renders and
evaluations, and a regression test of evaluations, so these two commands import those."""

FOREIGN = {
    "settings": {"torch", "numpy", "diffusers", "cv2", "av", "ray"},
    "results": {"torch", "diffusers", "ray"},
    "report": {"torch", "diffusers", "ray"},
    "regress": {"torch", "diffusers", "ray"},
    "train": {"ray", "decord", "lpips"},
}
"""Libraries that a part must not import, at any depth of its own files."""


def imports_of(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts() -> list[str]:
    packages = [p.parent.name for p in ROOT.glob("*/__init__.py")]
    modules = [p.stem for p in ROOT.glob("*.py") if not p.stem.startswith("__")]
    return sorted(packages + modules)


def files_of(part: str) -> list[Path]:
    single = ROOT / f"{part}.py"
    return [single] if single.exists() else sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", parts())
def test_no_arrow_points_back(part):
    assert part in ALLOWED, f"vidcfg/{part} has no row in ALLOWED"
    for path in files_of(part):
        used = {
            name.split(".")[1]
            for name in imports_of(path)
            if name.startswith("vidcfg.") and name.split(".")[1] in parts()
        }
        extra = used - ALLOWED[part] - EVERYWHERE - {part}
        assert not extra, f"{path.relative_to(ROOT.parent)} imports {sorted(extra)}"


@pytest.mark.parametrize("part", sorted(FOREIGN))
def test_part_stays_free_of_heavy_libraries(part):
    for path in files_of(part):
        found = {name.split(".")[0] for name in imports_of(path)} & FOREIGN[part]
        assert not found, f"{path.relative_to(ROOT.parent)} imports {sorted(found)}"


def test_only_sweep_imports_ray():
    for path in ROOT.rglob("*.py"):
        if "sweep" not in path.relative_to(ROOT).parts[0]:
            assert "ray" not in {name.split(".")[0] for name in imports_of(path)}, path
