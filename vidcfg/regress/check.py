"""The whole comparison: pair, judge, and find what is behind it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidcfg.regress.blame import Worst, worst_of
from vidcfg.regress.clips import ClipSet
from vidcfg.regress.gate import Judgement, judge
from vidcfg.regress.pairing import Paired, pair
from vidcfg.regress.policy import Policy


@dataclass(frozen=True, eq=False)
class Outcome:
    """A verdict with everything a report shows. `worst` has the worst clip of each metric."""

    judgement: Judgement
    paired: Paired
    policy: Policy
    worst: Mapping[str, Worst]
    new: ClipSet
    base: ClipSet

    @property
    def verdict(self) -> str:
        return self.judgement.verdict


def check_clips(new: ClipSet, base: ClipSet, policy: Policy | None = None) -> Outcome:
    """Compare two sets of clips.

    Raises:
        RegressError: the sets cannot be compared.
    """
    policy = policy or Policy()
    paired = pair(new, base, policy)
    judgement = judge(paired.metrics, policy)
    worst = {}
    for result in judgement.metrics:
        found = worst_of(result, policy.metrics[result.name], paired)
        if found is not None:
            worst[result.name] = found
    return Outcome(judgement, paired, policy, worst, new, base)


def reproduction(worst: Worst, *, folder: str) -> dict[str, Any] | None:
    """The render configuration of the worst clip alone; None if it has no record with one."""
    if worst.new.record is None:
        return None
    try:
        record = json.loads(worst.new.record.read_text(encoding="utf-8"))
        config = dict(record["config"])
        config["prompts"], config["seeds"] = [record["prompt"]], [record["seed"]]
        config["output"] = {**config["output"], "dir": folder}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return config
