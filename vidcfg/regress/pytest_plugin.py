"""The pytest plugin: the fixture and marker `temporal_gate`, and `--vidcfg-record`.

Imports nothing but pytest until a test asks for the fixture, and then neither torch nor a net.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

SETTINGS = {"policy": None, "inconclusive": "fail", "name": None, "fps": 8.0, "stride": 4}
"""What the marker `temporal_gate` takes, by name."""

MARKER = (
    f"temporal_gate({', '.join(f'{name}={value!r}' for name, value in SETTINGS.items())}): "
    "settings of the fixture temporal_gate: a policy file or mapping, whether an inconclusive "
    "gate fails or warns, the baseline's name, frames per second, temporal stride of the VAE"
)
_LINES = pytest.StashKey[list]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vidcfg", "temporal regression of videos")
    text = "renew the baselines of temporal_gate in place of comparing with them"
    group.addoption("--vidcfg-record", action="store_true", help=text)
    text = "write a page, result.json and junit.xml for every temporal_gate"
    group.addoption("--vidcfg-out", metavar="DIR", help=text)
    text = "folder of the baselines, relative to the test file (default: baselines)"
    parser.addini("vidcfg_baselines", text, default="baselines")
    parser.addini("vidcfg_policy", "policy file, relative to the root folder", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    config.stash[_LINES] = []


def pytest_terminal_summary(terminalreporter, exitstatus, config: pytest.Config) -> None:
    if lines := config.stash.get(_LINES, []):
        terminalreporter.section("temporal gates")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def temporal_gate(request: pytest.FixtureRequest):
    """Compares clips with the baseline of this test: `temporal_gate({"prompt": frames, ...})`.

    A clip is an array [T, H, W, 3] (uint8, or floats in [0, 1]) or the path of a video; a key is
    a prompt or (prompt, seed). Fails the test on a regression. `pytest --vidcfg-record` renews
    the baseline.
    """
    return TemporalGate(request)


class InconclusiveWarning(UserWarning):
    """A gate that could not decide, where the test allows for that."""


class TemporalGate:
    """One test's gate. Call it, once or several times with different names."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.node, config, folder = request.node.nodeid, request.config, request.node.path.parent
        # The marker's settings.
        marker = request.node.get_closest_marker("temporal_gate")
        settings = SETTINGS | (marker.kwargs if marker else {})
        if marker and (marker.args or len(settings) > len(SETTINGS)):
            text = f"temporal_gate takes {', '.join(SETTINGS)}, by name."
            raise pytest.UsageError(f"{self.node}: {text}")
        if settings["inconclusive"] not in ("fail", "warn"):
            raise pytest.UsageError(f"{self.node}: inconclusive is 'fail' or 'warn'.")
        self.is_lenient = settings["inconclusive"] == "warn"
        self.fps, self.stride = float(settings["fps"]), int(settings["stride"])
        self.policy = _policy(settings["policy"], config, folder)
        # Where baselines and pages go.
        plain = re.sub(r"[^\w.-]+", "-", f"{request.node.path.stem}.{request.node.name}")
        self.name = settings["name"] or plain.strip("-")
        self.folder = folder / config.getini("vidcfg_baselines")
        self.is_recording = config.getoption("--vidcfg-record")
        out = config.getoption("--vidcfg-out")
        self.out = Path(out) if out else None
        self.lines = config.stash[_LINES]
        # How wide the terminal is; none in a file, or a worker of pytest-xdist.
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        is_terminal = getattr(reporter, "isatty", False)
        self.width = config.get_terminal_writer().fullwidth if is_terminal else None

    def __call__(self, clips: Any, *, name: str = "", fps: float | int | None = None) -> Any:
        """Compare clips with the baseline `name`; returns the outcome, None while recording.

        `clips` maps a prompt, or (prompt, seed), to frames or to a video file; or it is the
        path of a folder of renders. `fps` is that of arrays.
        """
        __tracebackhide__ = True
        from vidcfg.regress.output import write_error

        name = name or self.name
        try:
            outcome = self._compared(clips, fps or self.fps, name)
        except (ValueError, RuntimeError, OSError) as error:
            if self.out:
                write_error(self.out / name, error)
            self.lines.append(f"ERROR {name}")
            pytest.fail(f"temporal_gate {name}: {error}", pytrace=False)
        if outcome is None:
            self.lines.append(f"recorded {name} in {self.folder}: nothing was compared")
        else:
            self._report(name, outcome)
        return outcome

    def _measured(self, clips: Any, fps: float | int):
        from vidcfg.regress.clips import as_set
        from vidcfg.regress.measure import load_clips, measure_file, measure_frames
        from vidcfg.results import Key

        if isinstance(clips, str | Path):
            return load_clips(clips)
        if not isinstance(clips, Mapping):
            raise ValueError(
                f"give a mapping of prompts to clips, or a folder, not {type(clips).__name__}."
            )
        options = {"fps": fps, "stride": self.stride}
        options["has_preview"] = self.is_recording or bool(self.out)
        made = []
        for given, value in clips.items():
            is_pair = isinstance(given, tuple) and len(given) == 2
            prompt, seed = given if is_pair else (given, -1)
            if not isinstance(prompt, str) or not isinstance(seed, int):
                raise ValueError(f"the key {given!r} is no prompt and no (prompt, seed).")
            key = Key("", prompt, seed)
            if isinstance(value, str | Path):
                made.append(measure_file(Path(value), key, stride=self.stride))
            else:
                made.append(measure_frames(value, key, what=f"clip {key}", **options))
        return as_set(self.node, made)

    def _compared(self, clips: Any, fps: float | int, name: str):
        from vidcfg.regress.check import check_clips
        from vidcfg.regress.clips import PREVIEW, read_baseline, write_baseline
        from vidcfg.regress.noise import lost_noise
        from vidcfg.regress.output import write_outputs
        from vidcfg.regress.pairs import can_pass

        folder = self.folder / name
        if not self.is_recording and not (folder / "baseline.json").is_file():
            raise ValueError(
                f"there is no baseline in {folder}. Record it: pytest {self.node} --vidcfg-record"
            )
        new = self._measured(clips, fps)
        if self.is_recording:
            metrics, facts = list(self.policy.metrics), {"recorded_from": self.node}
            can_pass(new, self.policy)
            given = clips if isinstance(clips, str | Path) else "RENDERS"
            if lost := lost_noise(folder, str(given)):
                self.lines.append(f"warning: {lost}")
            what = {"metrics": metrics, "facts": facts, "side": PREVIEW}
            write_baseline(folder, new, **what, overwrite=True)
            return None
        outcome = check_clips(new, read_baseline(folder), self.policy)
        if self.out:
            write_outputs(self.out / name, outcome, allow_inconclusive=self.is_lenient)
        return outcome

    def _report(self, name: str, outcome) -> None:
        __tracebackhide__ = True
        from vidcfg.regress.output import table

        results, verdict = outcome.judgement.metrics, outcome.verdict
        named = [f"{r.name} {r.amount(r.change)}" for r in results if r.verdict == verdict]
        self.lines.append(f"{name}: {verdict}: {', '.join(named)}")
        hint = f"\n\nIf the change is wanted, renew: pytest {self.node} --vidcfg-record"
        text = f"temporal_gate {name}\n{table(outcome, self.width)}"
        if outcome.judgement.may_be_allowed and self.is_lenient:
            warnings.warn(text, InconclusiveWarning, stacklevel=3)
        elif verdict != "PASS":
            pytest.fail(text + hint, pytrace=False)


def _policy(given: Any, config: pytest.Config, folder: Path) -> Any:
    """From the marker (a file beside the test, or a mapping), else the ini file, else built in."""
    from vidcfg.regress.policy import Policy, load_policy
    from vidcfg.settings.errors import ConfigError

    try:
        if isinstance(given, Policy):
            return given
        if isinstance(given, Mapping):
            return Policy(**given)
        if given is not None:
            return load_policy(folder / given)
        named = config.getini("vidcfg_policy")
        return load_policy(config.rootpath / named if named else None)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
