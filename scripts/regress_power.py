"""Error rates of the default gate, by simulation with the gate's own judge.

    python scripts/regress_power.py --markdown docs/regress_power.md

Changes of all metrics of the default policy are drawn, independently of each other: noise of a
given standard deviation and shape, relative to the value (shares and pulses have 0.2), around a
rise that moves motion-compensated flicker (mc_flicker) alone. Takes 1.5 hours on one core;
`--trials 50` gives a look in minutes.
"""

import argparse
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHARE = 0.2
"""A usual value of metrics that are compared by differences."""

Rng = np.random.Generator

SHAPES: dict[str, Callable[[Rng, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy tails (t, 3 degrees)": lambda rng, n: rng.standard_t(3, n) / math.sqrt(3),
    "right skew (exponential)": lambda rng, n: rng.exponential(size=n) - 1,
    "left skew (exponential)": lambda rng, n: 1 - rng.exponential(size=n),
}


@dataclass(frozen=True)
class Case:
    """`clips` of each prompt; seeds of one prompt share half of the variance of their noise.

    `rise` is that of mc_flicker, `off` the number of clips in which it is 1.3 times as large.
    `is_calibrated`: three repeats of every clip were measured with the baseline.
    """

    clips: tuple[int, ...]
    noise: float = 0.05
    shape: str = "normal"
    rise: float = 0.0
    off: int = 0
    is_calibrated: bool = False

    @property
    def prompts(self) -> str:
        counts = set(self.clips)
        seeds = str(counts.pop()) if len(counts) == 1 else f"{min(counts)} - {max(counts)}"
        return f"{len(self.clips)}" + ("" if seeds == "1" else f" x {seeds}")

    def drawn(self, rng: Rng) -> np.ndarray:
        """Noise [clips] of one metric."""
        draw = SHAPES[self.shape]
        counts = np.array(self.clips)
        own = draw(rng, counts.sum())
        if counts.max() > 1:
            common = np.repeat(draw(rng, len(counts)), counts)
            own = (common + own) / math.sqrt(2)
        return self.noise * own

    def judged(self, rng: Rng, policy):
        """The gate's judgement on one set of draws."""
        from vidcfg.regress.change import RepeatNoise
        from vidcfg.regress.judge import judge
        from vidcfg.regress.pairs import Pairs

        prompts = tuple(f"{i:03}" for i, count in enumerate(self.clips) for _ in range(count))
        pairs, noise = {}, {}
        for name, rule in policy.metrics.items():
            if name in ("cuts", "held_share"):
                continue  # 0 in every clip: renders of one setting do not differ by these
            change = self.drawn(rng)
            if name == "mc_flicker":
                change = change + math.log1p(self.rise)
                change[: self.off] += math.log(1.3)
            pairs[name] = Pairs(*values(rule, change), prompts)
            if self.is_calibrated:
                scale = 1.0 if rule.is_ratio else SHARE
                # Two degrees of freedom each prompt; changes between the pairs of three repeats.
                repeats = np.concatenate([self.drawn(rng) for _ in range(2)]) * scale
                noise[name] = RepeatNoise.of(repeats, "repeats", len(repeats))
        return judge(pairs, policy, noise)


def values(rule, change_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """New and base values whose change on the rule's scale is the given one, times SHARE."""
    if rule.is_ratio:
        base = np.full(len(change_n), 5.0 if rule.at_least == 0.05 else 0.2)
        new = (base + rule.floor) * np.exp(change_n) - rule.floor
    else:
        # So far from 0 that no sign changes.
        base = np.full(len(change_n), 100.0)
        new = base + SHARE * change_n
    return (1 - new, 1 - base) if rule.of == "complement" else (new, base)


OPEN = {4: "INCONCLUSIVE (4)", 5: "INCONCLUSIVE (5)"}


def verdicts(case: Case, *, trials: int, seed: int = 0) -> Counter:
    """How often the gate gives each verdict; INCONCLUSIVE by its exit code."""
    from vidcfg.regress.policy import Policy

    rng, policy = np.random.default_rng(seed), Policy()
    judged = (case.judged(rng, policy) for _ in range(trials))
    return Counter(OPEN.get(found.exit_code, found.verdict) for found in judged)


def cases() -> dict[str, list[Case]]:
    """Tables: heading -> rows."""
    ones = {n: (1,) * n for n in (4, 5, 6, 8, 11, 16, 32, 64)}
    nothing = [
        Case(clips, noise, shape)
        for shape in SHAPES
        for noise in (0.01, 0.05, 0.3)
        for clips in ones.values()
    ]
    seeds = [Case(clips, noise) for clips in ((4,) * 8, (8,) * 4) for noise in (0.05, 0.3)]
    seeds += [Case((1, 2, 3, 4, 6, 8), noise) for noise in (0.05, 0.3)]
    off = [Case(ones[n], noise, off=2) for n in (4, 8, 16, 64) for noise in (0.01, 0.05)]
    calibrated = [
        Case(clips, noise, shape, is_calibrated=True)
        for shape in SHAPES
        for noise in (0.01, 0.05, 0.3)
        for clips in (ones[4], ones[8], ones[16], ones[64])
    ]
    found = [Case(ones[16], rise=0.05), Case(ones[16], 0.01, rise=0.03)]
    found += [Case(ones[64], rise=0.03), Case((2,) * 4, rise=0.5), Case(ones[8], rise=0.2)]
    found += [Case(ones[8], rise=0.1, is_calibrated=True)]
    found += [Case(ones[4], rise=0.2, is_calibrated=True)]
    others = [shape for shape in SHAPES if shape != "normal"]
    found += [Case(ones[n], shape=s, rise=r) for n, r in ((16, 0.05), (64, 0.03)) for s in others]
    return {
        "No change": nothing,
        "No change, several seeds of a prompt (correlation .5), equal and unequal numbers": seeds,
        "Two clips off by x1.3, the others without a change": off,
        "No change, noise calibrated by three repeats": calibrated,
        "A rise of mc_flicker": found,
    }


HEADS = ("prompts", "noise", "shape", "rise", "FAIL", "PASS", *OPEN.values())


def row(case: Case, found: Counter, trials: int) -> str:
    shares = [f"{found[name] / trials:.1%}" for name in HEADS[4:]]
    known = [case.prompts, f"{case.noise:g}", case.shape, f"{case.rise:.0%}"]
    return f"| {' | '.join([*known, *shares])} |"


def page(rows: dict[str, Sequence[str]], trials: int) -> str:
    spread = 100 * math.sqrt(0.05 * 0.95 / trials)
    lines = [
        "# Error rates of the default gate",
        "",
        "`python scripts/regress_power.py --markdown docs/regress_power.md`: "
        + " ".join(__doc__.split("\n\n")[2].split("Takes")[0].split()),
        f"{trials} judgements of the gate itself a row: a rate of 5 % has a standard error of "
        f"{spread:.1f} points. Noise is that of the change between two renders of one clip; "
        "`8 x 4` is 8 prompts of 4 seeds.",
    ]
    for heading, table in rows.items():
        lines += ["", f"## {heading}", "", f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
        lines += table
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--trials", type=int, default=1000)
    options = parser.parse_args()
    rows: dict[str, list[str]] = {}
    for heading, table in cases().items():
        rows[heading] = []
        for seed, case in enumerate(table):
            found = verdicts(case, trials=options.trials, seed=seed)
            rows[heading].append(row(case, found, options.trials))
            print(rows[heading][-1], flush=True)
    if options.markdown:
        options.markdown.write_text(page(rows, options.trials), encoding="utf-8")


if __name__ == "__main__":
    main()
