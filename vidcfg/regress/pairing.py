"""Which clips belong together, and whether they may be compared at all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vidcfg.metrics.record import ClipInfo, Record, unlike
from vidcfg.regress.clips import Clip, ClipSet, Key, RegressError
from vidcfg.regress.estimate import Pairs
from vidcfg.regress.policy import Policy

FIXES = {
    "codec": "Render both with output.video: ffv1 (or h264_lossless), or both with the same lossy "
    "codec; a lossy file hides flicker.",
    "num_frames": "Render as many frames as the baseline has, or record a new baseline.",
    "height": "Render at the size of the baseline, or record a new baseline.",
    "width": "Render at the size of the baseline, or record a new baseline.",
    "fps": "Render at the rate of the baseline, or record a new baseline.",
    "protocol": "Measure both with the same settings and version of vidcfg: record the baseline "
    "again from its videos.",
    "backend": "Measure both with the same weights: record the baseline again from its videos.",
}


@dataclass(frozen=True, eq=False)
class Paired:
    """The clips that both sides have, in one order, and what only one side has."""

    keys: tuple[Key, ...]
    new: tuple[Clip, ...]
    base: tuple[Clip, ...]
    missing: tuple[Key, ...]
    extra: tuple[Key, ...]
    metrics: Mapping[str, Pairs]


def pair(new: ClipSet, base: ClipSet, policy: Policy) -> Paired:
    """Clips of equal (cell, prompt, seed), with the values of all metrics of the policy.

    Raises:
        RegressError: more than `max_missing` of the clips are on one side only, none or one are
            common, or clips were made or measured in ways that cannot be compared.
    """
    keys = tuple(sorted(set(new.clips) & set(base.clips)))
    missing = tuple(sorted(set(base.clips) - set(new.clips)))
    extra = tuple(sorted(set(new.clips) - set(base.clips)))
    _check_counts(keys, missing, extra, policy, new.source, base.source)
    clips = tuple(new.clips[k] for k in keys), tuple(base.clips[k] for k in keys)
    _check_like(keys, *clips, policy)
    clusters = tuple(k.prompt if policy.unit == "prompt" else str(k) for k in keys)
    metrics = {}
    for name in policy.metrics:
        values = [_values(name, side) for side in clips]
        _check_present(name, values, policy)
        if any(np.isfinite(side).any() for side in values):
            metrics[name] = Pairs(*values, clusters)
    return Paired(keys, *clips, missing, extra, metrics)


def _values(name: str, clips: Sequence[Clip]) -> np.ndarray:
    records = [clip.records.get(name) for clip in clips]
    values = [np.nan if r is None or r.value is None else r.value for r in records]
    return np.array(values, dtype=np.float64)


def _check_present(name: str, values: list[np.ndarray], policy: Policy) -> None:
    if policy.metrics[name].required and not any(np.isfinite(v).any() for v in values):
        raise RegressError(
            f"{name} is required by the policy, but no clip has a value on either side. "
            f"Set metrics.{name}.required: false if that is as it should be."
        )


def _check_counts(keys, missing, extra, policy: Policy, new: str, base: str) -> None:
    total = len(keys) + len(missing) + len(extra)
    lines = [f"{len(keys)} clips are on both sides (cell, prompt and seed in common)."]
    if missing:
        lines.append(f"{len(missing)} of the baseline are missing in {new}: {_named(missing)}.")
    if extra:
        lines.append(f"{len(extra)} are not in the baseline {base}: {_named(extra)}.")
    if not keys:
        lines.append("Render the prompts and seeds of the baseline, or record a new one.")
        raise RegressError(" ".join(lines))
    if max(len(missing), len(extra)) > policy.max_missing * total:
        lines.append(
            f"At most {policy.max_missing:.0%} may differ. Render what is missing, record a new "
            "baseline, or compare the common clips with --set max_missing=0.5"
        )
        raise RegressError(" ".join(lines))
    if len(keys) < 2:
        raise RegressError("One clip proves nothing. Compare 5 prompts or more, better 16.")


def _named(keys: Sequence[Key], at_most: int = 5) -> str:
    more = f" and {len(keys) - at_most} more" if len(keys) > at_most else ""
    return "; ".join(str(key) for key in keys[:at_most]) + more


def _check_like(
    keys: Sequence[Key], new: Sequence[Clip], base: Sequence[Clip], policy: Policy
) -> None:
    problems: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], Key] = {}
    for key, one, other in zip(keys, new, base):
        found = set(_unlike_clips(one.info, other.info))
        for name in policy.metrics:
            if name in one.records and name in other.records:
                found |= set(_unlike_records(name, one.records[name], other.records[name]))
        for problem in found:
            problems[problem] += 1
            first.setdefault(problem, key)
    if not problems:
        return
    lines = ["These clips cannot be compared:"]
    for (kind, text), count in sorted(problems.items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"  {text} in {count} of {len(keys)} clips, first {first[kind, text]}.")
    lines += [f"  {FIXES[kind]}" for kind in FIXES if kind in {k for k, _ in problems}]
    raise RegressError("\n".join(lines))


def codec_class(info: ClipInfo) -> str:
    """`lossless` for files that keep every value and for arrays in memory, else the codec."""
    if info.lossless or (info.lossless is None and info.codec is None):
        return "lossless"
    return f"lossy ({info.codec})" if info.lossless is False else f"unknown ({info.codec})"


def _unlike_clips(new: ClipInfo | None, base: ClipInfo | None) -> list[tuple[str, str]]:
    if new is None or base is None:
        return []
    found = []
    if codec_class(new) != codec_class(base):
        text = f"the codec is {codec_class(new)} against {codec_class(base)}"
        found.append(("codec", text))
    for name in ("num_frames", "height", "width", "fps"):
        a, b = getattr(new, name), getattr(base, name)
        if a != b:
            found.append((name, f"{name} is {a} against {b}"))
    return found


def _unlike_records(name: str, new: Record, base: Record) -> list[tuple[str, str]]:
    found = []
    for reason in unlike(new, base):
        kind = reason.split()[0]
        # Without a value there may be no net; the size of the clip is looked at once.
        has_values = new.value is not None and base.value is not None
        if kind == "protocol" or (kind == "backend" and has_values):
            found.append((kind, f"{name}: {reason}"))
    return found
