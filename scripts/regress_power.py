"""Error rates of the default gate by simulation.

    python scripts/regress_power.py --markdown docs/regress_power.md

Every metric of the default policy is drawn log-normal: prompts differ with sd 0.5, two renders of
one prompt with sd 0.05, metrics independently of each other. A rise moves motion-compensated
flicker (mc_flicker) alone. Verdicts come from the gate itself, margins and Holm included.
Takes a few minutes on one core.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

BETWEEN, WITHIN, LEVEL = 0.5, 0.05, 0.02


def draw(rng: np.random.Generator, num: int, *, rise: float, within: float = WITHIN):
    """Values {metric: (new, base)} of `num` clips of as many prompts."""
    from vidcfg.regress.policy import Policy

    hard = rng.normal(0, BETWEEN, num)
    drawn = {}
    for name, rule in Policy().metrics.items():
        base, new = LEVEL * np.exp(hard + rng.normal(0, within, (2, num)))
        if name == "mc_flicker":
            new = new * (1 + rise)
        if rule.of == "complement":
            base, new = 1 - base, 1 - new
        drawn[name] = new, base
    return drawn


def judged(drawn):
    """The gate's own judgement on drawn values."""
    from vidcfg.regress.judge import judge
    from vidcfg.regress.pairs import Pairs
    from vidcfg.regress.policy import Policy

    prompts = tuple(f"prompt {i}" for i in range(len(drawn["mc_flicker"][0])))
    pairs = {name: Pairs(new, base, prompts) for name, (new, base) in drawn.items()}
    return judge(pairs, Policy())


def failures(trials: list) -> np.ndarray:
    """Which metrics FAIL in each trial, bool [trials, metrics]: the gate's rule, all at once.

    p-values are of 4095 random sign patterns for all trials together, which is much faster than
    the gate, and equal to it but for the chance of the patterns.
    """
    from vidcfg.metrics.paired import holm
    from vidcfg.regress.policy import Policy

    rules = Policy().metrics
    above = np.zeros((len(trials), len(rules)), dtype=bool)
    worse, is_double = [], np.array([rule.bad == "either" for rule in rules.values()])
    for i, drawn in enumerate(trials):
        for j, (name, rule) in enumerate(rules.items()):
            change, difference = rule.changes(*drawn[name])
            sign = -1 if rule.bad == "down" or (is_double[j] and change.mean() < 0) else 1
            is_far = sign * change.mean() > rule.margin_of(sign)
            above[i, j] = is_far and sign * difference.mean() > rule.at_least
            worse.append(sign * change)
    p = sign_flips(np.stack(worse)).reshape(above.shape)
    p = np.where(is_double, np.minimum(2 * p, 1), p)
    weights = [rule.weight for rule in rules.values()]
    adjusted = np.stack([holm(row, weights=weights) for row in p])
    return above & (adjusted <= Policy().alpha)


def sign_flips(worse_MN: np.ndarray, *, resamples: int = 4095) -> np.ndarray:
    """One-sided sign-flip p-values of many rows."""
    num = worse_MN.shape[1]
    signs = np.random.default_rng(0).integers(0, 2, (resamples, num)) * 2.0 - 1
    counts = [
        (signs @ block.T >= block.sum(axis=1) - 1e-12).sum(axis=0)
        for block in np.array_split(worse_MN, max(1, len(worse_MN) // 500))
    ]
    return (1 + np.concatenate(counts)) / (1 + resamples)


def failure_rates(
    num: int, *, rise: float, trials: int, seed: int, within: float = WITHIN
) -> tuple[float, float]:
    """How often the gate FAILs, and how often it does by mc_flicker."""
    rng = np.random.default_rng(seed)
    failed = failures([draw(rng, num, rise=rise, within=within) for _ in range(trials)])
    return float(failed.any(axis=1).mean()), float(failed[:, 0].mean())


def verdicts(num: int, *, rise: float, trials: int, seed: int, within: float = WITHIN) -> Counter:
    """How often the gate itself gives each verdict."""
    rng = np.random.default_rng(seed)
    drawn = (draw(rng, num, rise=rise, within=within) for _ in range(trials))
    return Counter(judged(values).verdict for values in drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--trials", type=int, default=4000, help="for FAIL rates")
    parser.add_argument("--gate-trials", type=int, default=100, help="for the other verdicts")
    options = parser.parse_args()
    lines = [
        "# Error rates of the default gate",
        "",
        "`python scripts/regress_power.py --markdown docs/regress_power.md`: fourteen metrics, "
        "log-normal, sd 0.5 between prompts, sd between renders of one prompt as given, "
        "independent of each other; the rise moves `mc_flicker` alone. Margins and weighted "
        f"Holm are those of the default policy. FAIL rates are of {options.trials} simulated "
        "comparisons with the gate's rule for all at once, its alarms left out; INCONCLUSIVE and "
        f"PASS are of {options.gate_trials} verdicts of the gate itself.",
        "",
        "| clips | sd within | true rise | FAIL | FAIL by mc_flicker | INCONCLUSIVE | PASS |",
        "|---|---|---|---|---|---|---|",
    ]
    cases = [(n, rise, WITHIN) for n in (16, 64) for rise in (0.0, 0.03, 0.05)]
    cases += [(12, 0.05, WITHIN), (32, 0.03, WITHIN), (16, 0.0, 0.01), (16, 0.03, 0.01)]
    for seed, (num, rise, within) in enumerate(cases):
        case = {"rise": rise, "seed": seed, "within": within}
        rate, flicker = failure_rates(num, trials=options.trials, **case)
        found = verdicts(num, trials=options.gate_trials, **case)
        shares = [f"{found[name] / options.gate_trials:.0%}" for name in ("INCONCLUSIVE", "PASS")]
        cells = [f"{rate:.1%}", f"{flicker:.1%}", *shares]
        lines.append(f"| {num} | {within} | {rise:.0%} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    spread = 100 * np.sqrt(0.25 / options.trials)
    lines += ["", f"Standard error of a FAIL rate: at most {spread:.1f} percentage points."]
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
