"""Which clips belong together, and whether they may be compared at all."""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vidcfg.metrics.record import ClipInfo
from vidcfg.progress import listed
from vidcfg.regress.clips import ClipSet, MeasuredClip
from vidcfg.regress.policy import DEFAULTS, Policy
from vidcfg.results import Key
from vidcfg.stored.read import ResultsError

_SIZE = "Render at the size of the baseline, or record a new baseline."
FIXES = {
    "codec": "Render both with output.video: ffv1 (or h264_lossless), or both with the same lossy "
    "codec; a lossy file hides flicker.",
    "num_frames": "Render as many frames as the baseline has, or record a new baseline.",
    "height": _SIZE,
    "width": _SIZE,
    "fps": "Render at the rate of the baseline, or record a new baseline.",
    "protocol": "Measure both with the same settings and version of vidcfg: record the baseline "
    "again from its videos.",
    "backend": "Measure both with the same weights: record the baseline again from its videos.",
}
"""What clips may differ in -> what to do about it."""

ENOUGH = "Compare 4 prompts or more, better 16."


@dataclass(frozen=True, eq=False)
class Pairs:
    """One metric of paired clips, NaN where a clip has no value, and the clips' prompts."""

    new_N: np.ndarray
    base_N: np.ndarray
    clusters_N: tuple[str, ...]

    @property
    def common(self) -> tuple[np.ndarray, ...]:
        """Of clips with a value on both sides: places, new and base values, prompts."""
        n = np.flatnonzero(np.isfinite(self.new_N) & np.isfinite(self.base_N))
        return n, self.new_N[n], self.base_N[n], np.array(self.clusters_N)[n]


@dataclass(frozen=True, eq=False)
class Paired:
    """The clips that both sides have, in one order, and what only one side has."""

    new: tuple[MeasuredClip, ...]
    base: tuple[MeasuredClip, ...]
    missing: tuple[Key, ...]
    extra: tuple[Key, ...]
    metrics: Mapping[str, Pairs]

    @property
    def num_prompts(self) -> int:
        return len({clip.key.prompt for clip in self.new})


def pair(new: ClipSet, base: ClipSet, policy: Policy) -> Paired:
    """Clips of equal (cell, prompt, seed), with the values of all metrics of the policy.

    Raises:
        ResultsError: more than `max_missing` of the clips are on one side only, none or one are
            common, or clips were made or measured in ways that cannot be compared.
    """
    ours, theirs = set(new.clips), set(base.clips)
    keys, missing, extra = map(sorted, (ours & theirs, theirs - ours, ours - theirs))
    _check_counts(keys, missing, extra, policy, new.source, base.source)
    sides = [new.clips[k] for k in keys], [base.clips[k] for k in keys]
    _check_like(list(zip(keys, *sides)), policy)
    _check_measured(policy, base, new)
    clusters = tuple(k.prompt if policy.unit == "prompt" else str(k) for k in keys)
    metrics = {}
    for name, rule in policy.metrics.items():
        pairs = Pairs(*(_values(name, side) for side in sides), clusters)
        if np.isfinite([pairs.new_N, pairs.base_N]).any():
            metrics[name] = pairs
        elif rule.required:
            raise ResultsError(
                f"{name} is required by the policy, but no clip has a value on either side. "
                f"Set metrics.{name}.required: false if that is as it should be."
            )
    return Paired(*map(tuple, (*sides, missing, extra)), metrics)


def can_pass(clips: ClipSet, policy: Policy) -> None:
    """Refuses a baseline that no set of clips could pass.

    Raises:
        ResultsError: fewer than two clips, or a required metric that no clip has a value of.
    """
    if len(clips) < 2:
        raise ResultsError(f"{clips.source} is one clip, which proves nothing. {ENOUGH}")
    _check_measured(policy, clips)
    for name, rule in policy.metrics.items():
        if not rule.required or np.isfinite(_values(name, clips.clips.values())).any():
            continue
        records = (clip.records.get(name) for clip in clips.clips.values())
        reasons = {record.skipped_reason for record in records if record and record.skipped_reason}
        why = f" ({min(reasons)})" if reasons else ""
        raise ResultsError(
            f"{clips.source}: {name} is required by the policy, but no clip has a value{why}. "
            "No check against this baseline could pass. Render longer or larger clips, or record "
            f"with --set metrics.{name}.required=false"
        )


def _check_measured(policy: Policy, base: ClipSet, *new: ClipSet) -> None:
    """Raise ResultsError for a metric of the policy that nobody has measured in one of the sets.

    A metric of the built-in policy may be new to a baseline: it is skipped.
    """
    measured = [({n for c in s.clips.values() for n in c.records}, s.source) for s in (base, *new)]
    for name in policy.metrics:
        lacking = [source for names, source in measured if name not in names]
        if not lacking or (name in DEFAULTS and base.source in lacking):
            continue
        near = difflib.get_close_matches(name, measured[0][0], n=1)
        fix = "Measure it (vidcfg evaluate VIDEOS -o DIR) and name DIR"
        fix = f"Did you mean '{near[0]}'? If not, measure it" if near else fix
        where = " and ".join(lacking)
        raise ResultsError(
            f"the policy checks {name}, which was not measured in {where}. {fix}, or take it out "
            "of the policy."
        )


def _values(name: str, clips: Iterable[MeasuredClip]) -> np.ndarray:
    # None becomes NaN.
    return np.array([clip.value(name) for clip in clips], dtype=np.float64)


def _check_counts(keys, missing, extra, policy: Policy, new: str, base: str) -> None:
    total = len(keys) + len(missing) + len(extra)
    lines = [f"{len(keys)} clips are on both sides (cell, prompt and seed in common)."]
    gone, more = f"of the baseline are missing in {new}", f"are not in the baseline {base}"
    for some, where in ((missing, gone), (extra, more)):
        if some:
            lines.append(f"{len(some)} {where}: {listed(some, 5, '; ')}.")
    if not keys:
        lines += ["Render the prompts and seeds of the baseline, or record a new one. A video"]
        lines += ["without its record (.json) goes by its name."]
    elif max(len(missing), len(extra)) > policy.max_missing * total:
        lines += [f"At most {policy.max_missing:.0%} may differ. Render what is missing, record a"]
        lines += ["new baseline, or compare the common clips with --set max_missing=0.5"]
    elif len(keys) < 2:
        lines = [f"One clip proves nothing. {ENOUGH}"]
    else:
        return
    raise ResultsError(" ".join(lines))


def _check_like(pairs: Sequence[tuple[Key, MeasuredClip, MeasuredClip]], policy: Policy) -> None:
    found: dict[tuple[str, str], list[Key]] = defaultdict(list)
    for key, new, base in pairs:
        for problem in {*_differences(new, base, policy)}:
            found[problem].append(key)
    if not found:
        return
    lines = ["These clips cannot be compared:"]
    for (_, text), at in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"  {text} in {len(at)} of {len(pairs)} clips, first {at[0]}.")
    kinds = {kind for kind, _ in found}
    # Height and width have one fix.
    lines += dict.fromkeys(f"  {fix}" for kind, fix in FIXES.items() if kind in kinds)
    raise ResultsError("\n".join(lines))


def _differences(
    new: MeasuredClip, base: MeasuredClip, policy: Policy
) -> Iterator[tuple[str, str]]:
    """(a key of FIXES, the difference in words) of two clips."""
    if new.info and base.info:
        codecs = codec_class(new.info), codec_class(base.info)
        if codecs[0] != codecs[1]:
            yield "codec", "the codec is {} against {}".format(*codecs)
        for name in ("num_frames", "height", "width", "fps"):
            a, b = getattr(new.info, name), getattr(base.info, name)
            if a != b:
                yield name, f"{name} is {a} against {b}"
    for name in policy.metrics.keys() & new.records.keys() & base.records.keys():
        a, b = new.records[name], base.records[name]
        found = {"protocol": (a.protocol, b.protocol)}
        if None not in (a.value, b.value):  # else there may be no net
            for part in ("name", "sha256"):
                found[f"backend {part}"] = [getattr(x.backend, part, None) for x in (a, b)]
        for what, (ours, theirs) in found.items():
            if ours != theirs:
                yield what.split()[0], f"{name}: {what} is {ours!r} against {theirs!r}"


def codec_class(info: ClipInfo) -> str:
    """`lossless` for files that keep every value and for arrays in memory, else the codec."""
    if info.lossless or (info.lossless is None and info.codec is None):
        return "lossless"
    return f"lossy ({info.codec})" if info.lossless is False else f"unknown ({info.codec})"
