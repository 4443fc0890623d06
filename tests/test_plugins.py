"""What an installed package registers is a word like ours; docs/extending.md is the package."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from video_files import write_video

from vidcfg.evaluate.__main__ import main as evaluate
from vidcfg.guidance.frame_map import CausalMap
from vidcfg.guidance.frames import FrameWeights
from vidcfg.guidance.rule import Rule
from vidcfg.guidance.schedule import Schedule
from vidcfg.guidance.setting import Guidance
from vidcfg.metrics.metric import METRICS, metrics_of
from vidcfg.plugins import _code_of_module, code_of, load_plugins
from vidcfg.render.__main__ import main
from vidcfg.render.config import RenderConfig
from vidcfg.render.identity import cell_digest, sources_of, what_changed
from vidcfg.settings.document import read_document, validate
from vidcfg.settings.errors import ConfigError

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
QUICKSTART = (Path(__file__).parents[1] / "configs" / "quickstart.yaml").read_text()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package of one module, with the plugins that its pyproject.toml names."""

    def install(code, plugins):
        (tmp_path / "kite_guidance.py").write_text(code)
        info = tmp_path / "kite_guidance-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: kite-guidance\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(plugins)
        monkeypatch.syspath_prepend(tmp_path)

    forget()
    yield install
    forget()


def forget():
    """As a new process knows nothing of the package."""
    load_plugins.cache_clear()
    _code_of_module.cache_clear()
    sys.modules.pop("kite_guidance", None)
    for known in (Rule.kinds, FrameWeights.kinds, Schedule.kinds, METRICS):
        for name in [n for n, what in known.items() if "kite_guidance" in where(what)]:
            del known[name]


def where(registered):
    outcome = getattr(registered, "needs", None) and registered.needs[0].of
    return (outcome or registered).__module__


def page():
    text = PAGE.read_text()
    (plugins,) = re.findall(r"```toml\n(.*?)```", text, re.S)
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    plugins = plugins.replace('[project.entry-points."vidcfg.plugins"]', "[vidcfg.plugins]")
    return code, plugins.replace('"', "")


def read(text):
    return validate(read_document(text, source="a.yaml"), Guidance)


def test_what_a_package_registers_is_found_by_its_name_in_the_yaml(installed):
    installed(*page())
    given = "scale: {kind: bump, top: 6}\nframes: {kind: every, step: 4}\nmethod: half"
    guidance = read(given)
    run = {"num_steps": 3, "num_frames": 9, "frame_map": CausalMap(1)}
    want = np.where(np.arange(9) % 4 == 0, np.array([[1.0], [6.0], [1.0]]), 1.0)
    # sin(pi) is no exact zero
    np.testing.assert_allclose(guidance.surface(**run).strength_KF, want, atol=1e-15)
    strength = np.array([[1.0, 6.0, 3.0]])
    deltas = read(f"{given[:-4]}{{kind: half, share: 0.25}}").method.deltas(strength, strength)
    np.testing.assert_array_equal(deltas["cond"], [[1.0, 2.25, 1.5]])
    with pytest.raises(ConfigError, match="1: unknown key 'scale.topp'. Did you mean 'scale.top'"):
        read("scale: {kind: bump, topp: 6}")
    with pytest.raises(
        ConfigError, match="'halv', but must be one of .*half. Did you mean 'half'"
    ):
        read("scale: 3\nmethod: halv")


def test_a_metric_of_a_package_is_measured_with_its_family(installed):
    installed(*page())
    (red_share,) = [metric for metric in metrics_of("appearance") if metric.name == "red_share"]
    frame_CHW = np.stack([np.full((4, 5), v, np.float32) for v in (0.6, 0.3, 0.3)])
    assert red_share.needs[0].of(frame_CHW) == pytest.approx(0.5)
    assert METRICS["red_share"].protocol == "red/(red+green+blue)"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("scale: 3, method: half", "half"),
        ("scale: 3, method: [cfg, {kind: pag, scale: {kind: bump, top: 6}}]", "bump"),
        ("scale: 3, frames: {kind: every, step: 4}", "every"),
    ],
)
def test_other_code_of_a_package_makes_other_videos(installed, tmp_path, words, kind):
    def made():
        text = re.sub(r"(?ms)^guidance:\n.*?(?=^\w)", "", QUICKSTART) + f"guidance: {{{words}}}\n"
        config = validate(read_document(text, source="a.yaml"), RenderConfig)
        sources = sources_of(config)
        return cell_digest(config, sources), sources

    code, plugins = page()
    installed(code, plugins)
    (before, old), (again, _) = made(), made()
    assert before == again
    forget()
    (tmp_path / "kite_guidance.py").write_text(f"{code}\n# another\n")
    after, new = made()
    assert after != before
    assert what_changed(old, new) == f"the content of guidance: {kind} is another"


def test_videos_are_scored_anew_when_the_code_of_a_metric_changes(installed, tmp_path, capsys):
    code, plugins = page()
    installed(code, plugins)
    frames = np.zeros((3, 20, 28, 3), np.uint8) + np.array([100, 60, 40], np.uint8)
    write_video(tmp_path / "red.mkv", frames, fps=8, codec="ffv1")
    want = {"[0].sum()": "0.5", "[1].sum()": "0.3"}
    for channel, share in want.items():
        (tmp_path / "kite_guidance.py").write_text(code.replace("[0].sum()", channel))
        # The second time from what is kept, in a process that has imported nothing of it yet.
        for _ in range(2):
            forget()
            words = [tmp_path / "red.mkv", "--metrics", "appearance", "-o", tmp_path / "out"]
            assert evaluate([str(word) for word in words]) == 0
            found = capsys.readouterr().out
            assert re.search(rf"^  red_share +{re.escape(share)} ", found, re.M), found
    assert len((tmp_path / "out" / "scored.jsonl").read_text().splitlines()) == 2


def test_a_package_counts_with_all_its_modules_and_ours_with_none(tmp_path, monkeypatch):
    (tmp_path / "kite_whole").mkdir()
    for name in ("__init__", "rules", "helper"):
        (tmp_path / "kite_whole" / f"{name}.py").write_text("def of(frame):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    of = importlib.import_module("kite_whole.rules").of
    before = code_of(of)
    (tmp_path / "kite_whole" / "helper.py").write_text("shared = 2\n")
    # What a process has imported is what it runs.
    assert code_of(of) == before
    _code_of_module.cache_clear()
    assert code_of(of) not in (before, None)
    assert code_of(Guidance) is None
    of.__module__ = "__nowhere__"
    assert code_of(of) is None


def test_a_plugin_that_cannot_be_imported_is_named_and_the_others_are_loaded(installed):
    code, _ = page()
    installed(code, "[vidcfg.plugins]\nbroken = kite_nowhere\nkite = kite_guidance\n")
    with pytest.warns(UserWarning, match="broken = kite_nowhere is left out: ModuleNotFoundError"):
        assert read("scale: 3\nmethod: half").kind == "half"


def test_an_error_of_a_users_code_says_where_it_was_raised(installed, capsys):
    code, plugins = page()
    broken = code.replace("return (np.arange", "raise KeyError('kite')\n        return (np.arange")
    broken = broken.replace("return 1 + (", "raise ValueError('top')\n        return 1 + (")
    broken = broken.replace("return float(", "raise OSError('red')\n    return float(")
    installed(broken, plugins)
    guidance = "guidance={{scale: {}, frames: {}}}"
    for scale, frames, code, told in (
        ("6", "{kind: every, step: 4}", 3, "KeyError: 'kite' (raised in "),
        ("{kind: bump, top: 6}", "uniform", 2, "top (raised in "),
    ):
        words = ["quickstart", "--dry-run", "--set", guidance.format(scale, frames)]
        assert main(words) == code
        err = capsys.readouterr().err
        assert re.search(re.escape(told) + r"\S*kite_guidance\.py:\d+\)", err)
        assert "a bug in vidcfg" not in err
    reason = METRICS["red_share"].needs[0].of(np.ones((3, 4, 5), np.float32))
    assert re.fullmatch(r"OSError: red \(raised in \S*kite_guidance\.py:\d+\)", reason)
