"""What the fixture `temporal_gate` does. Loads neither torch nor a net."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vidcfg.regress.check import Outcome, check_clips
from vidcfg.regress.clips import (
    Clip,
    ClipSet,
    Key,
    RegressError,
    as_set,
    load_clips,
    read_baseline,
    write_baseline,
)
from vidcfg.regress.gate import FAIL, INCONCLUSIVE, one_line
from vidcfg.regress.output import table, write_error
from vidcfg.regress.policy import Policy, load_policy
from vidcfg.settings.errors import ConfigError

SETTINGS = ("policy", "inconclusive", "name", "fps", "stride")


class InconclusiveWarning(UserWarning):
    """A gate that could not decide, where the test allows for that."""


@dataclass
class TemporalGate:
    """One test's gate. Call it, once or several times with different names.

    `node` names the test in messages, `folder` holds the baselines.
    """

    node: str
    folder: Path
    default_name: str
    policy: Policy
    inconclusive: str = "fail"
    fps: float | int = 8.0
    stride: int = 4
    is_recording: bool = False
    out: Path | None = None
    lines: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, request: pytest.FixtureRequest, marker, *, lines: list[str]) -> "TemporalGate":
        """The gate of a test, set up from its marker, the options and the ini file."""
        settings = dict(marker.kwargs) if marker else {}
        config, node = request.config, request.node
        if marker and (marker.args or set(settings) - set(SETTINGS)):
            raise pytest.UsageError(
                f"{node.nodeid}: temporal_gate takes {', '.join(SETTINGS)}, by name."
            )
        if settings.get("inconclusive", "fail") not in ("fail", "warn"):
            raise pytest.UsageError(f"{node.nodeid}: inconclusive is 'fail' or 'warn'.")
        out = config.getoption("--vidcfg-out")
        plain = re.sub(r"[^\w.-]+", "-", f"{node.path.stem}.{node.name}").strip("-")
        try:
            policy = _policy(settings.get("policy"), config, node.path.parent)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from None
        return cls(
            node=node.nodeid,
            folder=node.path.parent / config.getini("vidcfg_baselines"),
            default_name=settings.get("name") or plain,
            policy=policy,
            inconclusive=settings.get("inconclusive", "fail"),
            fps=float(settings.get("fps", 8.0)),
            stride=int(settings.get("stride", 4)),
            is_recording=bool(config.getoption("--vidcfg-record")),
            out=Path(out) if out else None,
            lines=lines,
        )

    def __call__(
        self, clips: Any, *, name: str | None = None, fps: float | int | None = None
    ) -> Any:
        """Compare clips with the baseline `name`; returns the outcome, None while recording.

        `clips` maps a prompt, or (prompt, seed), to frames or to a video file; or it is the
        path of a folder of renders. `fps` is that of arrays.
        """
        __tracebackhide__ = True
        name = name or self.default_name
        try:
            outcome = self._run(clips, self.folder / name, fps or self.fps)
        except (RegressError, ConfigError, OSError) as error:
            if self.out:
                write_error(self.out / name, str(error))
            self.lines.append(f"ERROR {name}")
            pytest.fail(f"temporal_gate {name}: {error}", pytrace=False)
        if outcome is None:
            self.lines.append(f"recorded {name} in {self.folder}: nothing was compared")
            return None
        self._report(name, outcome)
        return outcome

    def _run(self, clips: Any, folder: Path, fps: float | int) -> Outcome | None:
        new = self._measured(clips, fps)
        if self.is_recording:
            metrics = list(self.policy.metrics)
            facts = {"recorded_from": self.node}
            write_baseline(folder, new, metrics=metrics, facts=facts, overwrite=True)
            return None
        if not (folder / "baseline.json").is_file():
            raise RegressError(
                f"there is no baseline in {folder}. Record it: pytest {self.node} --vidcfg-record"
            )
        outcome = check_clips(new, read_baseline(folder), self.policy)
        if self.out:
            from vidcfg.regress.commands import write_outputs

            allowed = self.inconclusive == "warn"
            write_outputs(self.out / folder.name, outcome, allow_inconclusive=allowed)
        return outcome

    def _measured(self, clips: Any, fps: float | int) -> ClipSet:
        if isinstance(clips, str | Path):
            return load_clips(clips)
        if not isinstance(clips, Mapping):
            raise RegressError(
                f"give a mapping of prompts to clips, or a folder, not {type(clips).__name__}."
            )
        made = [self._clip(key, value, fps) for key, value in clips.items()]
        return as_set(self.node, made)

    def _clip(self, given: Any, value: Any, fps: float | int) -> Clip:
        from vidcfg.regress.measure import measure_file, measure_frames

        is_pair = isinstance(given, tuple) and len(given) == 2
        prompt, seed = given if is_pair else (given, -1)
        if not isinstance(prompt, str) or not isinstance(seed, int):
            raise RegressError(f"the key {given!r} is no prompt and no (prompt, seed).")
        key = Key("", prompt, seed)
        if isinstance(value, str | Path):
            return measure_file(Path(value), key, stride=self.stride)
        return measure_frames(value, key, fps=fps, stride=self.stride, what=f"clip {key}")

    def _report(self, name: str, outcome: Outcome) -> None:
        __tracebackhide__ = True
        self.lines.append(f"{name}: {one_line(outcome.judgement)}")
        hint = f"\n\nIf the change is wanted, renew: pytest {self.node} --vidcfg-record"
        text = f"temporal_gate {name}\n{table(outcome)}"
        if outcome.verdict == INCONCLUSIVE and self.inconclusive == "warn":
            warnings.warn(text, InconclusiveWarning, stacklevel=3)
        elif outcome.verdict in (FAIL, INCONCLUSIVE):
            pytest.fail(text + hint, pytrace=False)


def _policy(given: Any, config: pytest.Config, folder: Path) -> Policy:
    """From the marker (a file beside the test, or a mapping), else the ini file, else built in."""
    if isinstance(given, Policy):
        return given
    if isinstance(given, Mapping):
        return Policy(**given)
    if given is not None:
        return load_policy(folder / given)
    named = config.getini("vidcfg_policy")
    return load_policy(config.rootpath / named if named else None)
