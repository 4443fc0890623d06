"""What the rules of a run do to its model: each kind in a file of its own, found by walking."""

import functools
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import Tensor

from vidcfg.pipelines.changes.base import KINDS, Asked, RunStart, StepCall

for _found in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_found.name}")


class Changes:
    """All changes of one run, made when it begins and asked at every call."""

    def __init__(self, start: RunStart):
        asked: dict[type, list[Asked]] = {}
        sources: dict[str, str] = {}
        for sample, rule in enumerate(start.samples.rules):
            sources |= rule.method.sources()
            for place, term in enumerate(getattr(rule.method, "terms", (rule.method,))):
                if type(term.change) in KINDS:
                    kind = KINDS[type(term.change)]
                    asked.setdefault(kind, []).append(Asked(sample, place, term.change))
        self.all = tuple(kind(start, tuple(found)) for kind, found in asked.items())
        self.followers = ("cond", *(b for b, source in sources.items() if source == "cond"))
        """The branches that see what `cond` sees."""
        self.needs_samples = any(change.needs_samples for change in self.all)
        self.touches = {rule: does for c in self.all for rule, does in c.touches.items()}

    def tag(self, sample: int) -> object:
        """What the condition of a sample depends on beside its text."""
        return tuple(change.tag(sample) for change in self.all)

    def by_branch(
        self, by_branch: Mapping[str, Mapping[str, Tensor]], step: int
    ) -> dict[str, dict[str, Tensor]]:
        """The inputs of every branch on a step, from what it sees without any change."""
        cond = by_branch["cond"]
        for change in self.all:
            cond = change.condition(cond, step)
        found = {branch: dict(inputs) for branch, inputs in by_branch.items()}
        found |= {branch: dict(cond) for branch in self.followers}
        for change in self.all:
            for branch, inputs in found.items():
                inputs |= change.inputs(branch, step)
        return found

    def run(self, call: StepCall) -> Any:
        """The model's outputs for one call, or what stands for them where there is no model."""
        for change in self.all:
            if call.branches[0] in change.of:
                return change.run(call)
        run = call.plain
        for change in self.all:
            run = functools.partial(change.watch, call, run)
        return run()
