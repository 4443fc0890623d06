"""What an installed package registers is a word like ours; docs/extending.md is the package."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from vidcfg.guidance.frame_map import CausalMap
from vidcfg.guidance.frames import FrameWeights
from vidcfg.guidance.rule import Rule
from vidcfg.guidance.schedule import Schedule
from vidcfg.guidance.setting import Guidance
from vidcfg.metrics.metric import METRICS, metrics_of
from vidcfg.plugins import load_plugins
from vidcfg.render.__main__ import main
from vidcfg.settings.document import read_document, validate
from vidcfg.settings.errors import ConfigError

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


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

    load_plugins.cache_clear()
    yield install
    load_plugins.cache_clear()
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
