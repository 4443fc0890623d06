"""Several rules at once."""

from dataclasses import replace
from functools import reduce
from operator import and_
from typing import Any

import numpy as np

from vidcfg.guidance.combination import Combination, as_number
from vidcfg.guidance.gram import NOISY, Gram
from vidcfg.guidance.rule import Method, Rows, Vectors
from vidcfg.settings.base import Finding


def _any(name: str) -> property:
    """Whether one of the terms says so."""
    return property(lambda self: any(getattr(term, name) for term in self.rules))


def _numbered(name: str) -> property:
    """The names that all terms give, each with the number of its term."""
    return property(
        lambda self: tuple(f"{i}.{n}" for i, t in enumerate(self.rules) for n in getattr(t, name))
    )


class Composite(Method):
    """The sum of what each rule does to the conditional prediction.

        guided_f = cond_f + sum_i (rule_i(strength_if)_f - cond_f)

    The terms are added in order; limits come after the sum. Strengths and weights have an axis of
    N terms before the frames: (..., N, F). A term whose strength is 1 on a frame adds nothing to
    it, and a frame on which every term is off is `cond` bit for bit. One term is that rule, bit
    for bit, without the axis.

    Raises:
        ConfigError: if two terms read one branch from different texts.
    """

    base = "cond"

    rules: tuple[Method, ...]

    def findings(self):
        found: dict[str, tuple[str, str]] = {}
        for term in self.rules:
            for branch, source in term.reads().items():
                name, known = found.setdefault(branch, (term.kind, source))
                if known != source:
                    message = (
                        f"combines {name} and {term.kind}, whose {branch} branch "
                        f"sees different texts ({known} and {source}). Use one of them."
                    )
                    yield Finding((), message)
                    return

    @property
    def terms(self) -> tuple[Method, ...]:
        return self.rules

    @property
    def key(self) -> tuple:
        return (type(self), *(term.key for term in self.rules))

    @property
    def kind(self) -> str:
        return "+".join(term.kind for term in self.rules)

    @property
    def branches(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(branch for term in self.rules for branch in term.branches))

    @property
    def isolated(self) -> frozenset[str]:
        return frozenset().union(*(term.isolated for term in self.rules))

    needs_gram = _any("needs_gram")
    may_stop = _any("may_stop")
    needs_levels = _any("needs_levels")
    needs_negative = _any("needs_negative")
    in_x0 = _any("in_x0")
    extras = _numbered("extras")
    remembers = _numbered("remembers")

    def sources(self) -> dict[str, str]:
        return {branch: source for term in self.rules for branch, source in term.sources().items()}

    def rows(self, strength: Rows, weight: Rows) -> list[tuple]:
        """Each term with the strength and the weight that are its own."""
        if len(self.rules) == 1:
            return [(self.rules[0], strength, weight)]
        rows = enumerate(self.rules)
        return [(term, strength[..., i, :], weight[..., i, :]) for i, term in rows]

    def deltas(self, strength: Rows, weight: Rows) -> dict[str, Any]:
        return {
            f"{i}.{branch}": values
            for i, (term, s, w) in enumerate(self.rows(strength, weight))
            for branch, values in term.deltas(s, w).items()
        }

    def tag(self, branch: str, strength_F: Rows, weight_F: Rows) -> object:
        tags = [term.tag(branch, s, w) for term, s, w in self.rows(strength_F, weight_F)]
        return tuple(tag for tag in tags if tag is not None) or None

    def is_off(self, strength: Rows, weight: Rows) -> Any:
        rows = self.rows(strength, weight)
        return reduce(and_, [term.is_off(s, w) for term, s, w in rows])

    def required(self, strength_F: Rows, weight_F: Rows) -> frozenset[str]:
        rows = self.rows(strength_F, weight_F)
        active = [(t, s, w) for t, s, w in rows if not t.is_off(s, w).all()]
        if not active:
            return frozenset({"cond"})
        if len(active) == 1:
            term, strength, weight = active[0]
            return term.required(strength, weight)
        if any(term.needs_gram or term.extras for term, _, _ in active):
            return frozenset({"cond"}).union(*(t.required(s, w) for t, s, w in active))
        total = {"cond": 1.0 - len(active)}
        for term, strength, weight in active:
            found = term.combination(None, strength[None], weight[None])
            for branch, values in found.of_predictions().items():
                total[branch] = total.get(branch, 0.0) + values
        return frozenset(branch for branch, values in total.items() if np.any(values != 0))

    def steps(self, strength_KF: Rows, weights_KF: Rows, **run: Any) -> tuple[Method, ...]:
        rows = self.rows(strength_KF, weights_KF)
        parts = [term.steps(s, w, **run) for term, s, w in rows]
        whole_K = [not all(term.is_limited for term in terms) for terms in zip(*parts)]
        if any(whole_K):
            # A step that one term takes over is none of which the others keep anything.
            off_KF = np.array(whole_K)[:, None]
            parts = [t.steps(np.where(off_KF, 1.0, s), w, **run) for t, s, w in rows]
        return tuple(_together(terms) for terms in zip(*parts))

    def extra(self, vectors: Vectors) -> dict[str, Any]:
        found = {}
        rows = self.rows(vectors.strength_BF, vectors.weight_BF)
        for i, (term, strength, weight) in enumerate(rows):
            if not term.extras or term.is_off(strength, weight).all():
                continue
            prefix = f"{i}."
            known = vectors.remembered.items()
            own = {n.removeprefix(prefix): v for n, v in known if n.startswith(prefix)}
            scale = vectors.x0_scale if term.in_x0 else 1.0
            made = term.extra(replace(vectors, remembered=own, x0_scale=scale))
            found |= {prefix + name: vector for name, vector in made.items()}
        return found

    def combination(self, gram: Gram | None, strength: Rows, weight: Rows) -> Combination:
        return self.coefficients(gram, strength, weight)

    def coefficients(
        self,
        gram: Gram | None,
        strength_BF: Rows,
        weight_BF: Rows,
        x0: tuple[float, float] | None = None,
    ) -> Combination:
        # Each term by itself, in its own space and with its own vectors.
        parts = []
        for i, (term, strength, weight) in enumerate(self.rows(strength_BF, weight_BF)):
            off_BF = term.is_off(strength, weight)
            if off_BF.all():
                parts.append(Combination("cond", None, {}, off_BF))
                continue
            own = None if gram is None else gram.of_term(f"{i}.")
            parts.append(term.coefficients(own, strength, weight, x0))

        # Their sum, written from cond.
        off = reduce(and_, [part.off_BF for part in parts])
        deltas, extras = {}, {}
        gain = 1 + 0 * as_number(off)
        for i, part in enumerate(parts):
            found = part.of_predictions()
            gain = gain + (sum(found.values()) - 1)
            for branch, values in found.items():
                if branch != "cond":
                    deltas[branch] = deltas.get(branch, 0.0) + values
            for name, values in part.of_extras().items():
                full = name if name == NOISY else f"{i}.{name}"
                extras[full] = extras.get(full, 0.0) + values
        if all(part.gain_BF is None and part.factor_BF is None for part in parts):
            gain = None

        # Where each term ends by itself.
        stops = [part.stop_BF for part in parts]
        stop = None
        if any(found is not None for found in stops):
            import torch

            never = off & ~off
            stop = torch.stack([never if found is None else found for found in stops], dim=1)
        return Combination("cond", gain, deltas, off, extra_BF=extras, stop_BF=stop)


def _together(terms: tuple[Method, ...]) -> Method:
    """The rule of one step; a term that takes the whole step over takes it from all."""
    if len(terms) == 1:
        return terms[0]
    whole = next((term for term in terms if not term.is_limited), None)
    if whole is None:
        return Composite(terms)
    plain = (term if term.is_limited else term.rule for term in terms)
    return type(whole)(Composite(tuple(plain)))
