"""What the commands do. No failure to compare is a pass."""

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidcfg import cli
from vidcfg import results as on_disk
from vidcfg.files import write_json, write_text
from vidcfg.progress import Progress, counted, terminal_width
from vidcfg.regress.check import check_clips
from vidcfg.regress.clips import PREVIEW, SIDE, ClipSet, read_baseline, write_baseline
from vidcfg.regress.measure import load_clips
from vidcfg.regress.noise import RepeatNoise, lost_noise, noise_of
from vidcfg.regress.noise import calibrate as noise_of_repeats
from vidcfg.regress.output import size_words, table, write_error, write_outputs
from vidcfg.regress.pairs import can_pass
from vidcfg.regress.policy import load_policy

ACCEPT = "If the change is wanted, accept it:"
MORE = (
    "Render more prompts (needs: with so many clips it would be decided), or measure what repeats "
    "differ by (vidcfg regress calibrate A B --save BASELINE)."
)
NEXT = {
    cli.FAILED: "FAIL: it got worse. Look at the worst clips (-o DIR writes a page).",
    cli.UNPROVEN: f"INCONCLUSIVE: it looks worse, but that is not proven. {MORE}",
    cli.UNSURE: f"INCONCLUSIVE: no sign of harm, and no proof that there is none. {MORE} "
    "--allow-inconclusive lets it pass.",
}
"""Exit code of a check -> what to do."""


def policy(arguments: argparse.Namespace) -> int:
    """Print the policy as YAML."""
    cli.say(load_policy(arguments.policy, arguments.set).to_yaml(), end="")
    return cli.DONE


def _loaded(path: str, arguments: argparse.Namespace) -> ClipSet:
    with Progress("clips measured", quiet=arguments.quiet) as progress:
        clips = load_clips(path, workers=arguments.workers, report=progress.update)
    return replace(clips, source=arguments.addresses.get(path, clips.source))


def record(arguments: argparse.Namespace) -> int:
    """Write a baseline."""
    rules, folder = load_policy(arguments.policy, arguments.set), Path(arguments.out)
    if (folder / "baseline.json").exists() and not arguments.overwrite:
        raise ValueError(f"{folder} holds a baseline. Use --overwrite to renew it.")
    clips = _loaded(arguments.clips, arguments)
    can_pass(clips, rules)
    side = None if arguments.no_pictures else SIDE if arguments.with_videos else PREVIEW
    metrics = None if arguments.all_metrics else list(rules.metrics)
    facts = {"recorded_from": clips.source, **_made_by(clips)}
    what = {"metrics": metrics, "facts": facts, "side": side}
    if lost := lost_noise(folder, arguments.clips):
        cli.warn(lost)
    write_baseline(folder, clips, **what, overwrite=arguments.overwrite)
    prompts = len({key.prompt for key in clips.clips})
    cli.say(f"{counted(len(clips), 'clip')} of {counted(prompts, 'prompt')} recorded in {folder}")
    return cli.DONE


def _made_by(clips: ClipSet) -> dict[str, Any]:
    """Commit, versions and model of the renders, from the first record that tells."""
    for clip in clips.clips.values():
        facts = clip.render
        names = ("commit", "versions", "model")
        if found := {name: facts[name] for name in names if facts.get(name)}:
            return {"made_by": found}
    return {}


def check(arguments: argparse.Namespace) -> int:
    """Compare with a baseline and write what is asked for, errors included."""
    folder, is_lenient = Path(arguments.out or ""), arguments.allow_inconclusive
    try:
        rules = load_policy(arguments.policy, arguments.set)
        base = load_clips(arguments.baseline)
        outcome = check_clips(_loaded(arguments.clips, arguments), base, rules)
        text = table(outcome, terminal_width())
        if arguments.out:
            write_outputs(folder, outcome, allow_inconclusive=is_lenient)
            text += f"\n\nwritten: {folder / 'index.html'}, result.json, junit.xml"
    except Exception as error:
        if arguments.out:
            write_error(folder, error)
        raise
    judgement = outcome.judgement
    code = cli.DONE if judgement.may_be_allowed and is_lenient else judgement.exit_code
    if advice := NEXT.get(judgement.exit_code):
        text += f"\n\n{advice} {ACCEPT} {shlex.join(_renewing(arguments))}"
    cli.say(text)
    return code


def _renewing(arguments: argparse.Namespace) -> list[str]:
    """The command that makes the set that is checked the baseline."""
    words = ["vidcfg", "regress", "record", arguments.clips, "-o", arguments.baseline]
    policy = ["--policy", arguments.policy] if arguments.policy else []
    return [*words, "--overwrite", *policy, *(w for one in arguments.set for w in ("--set", one))]


def power(arguments: argparse.Namespace) -> int:
    """Print what change is found by how many clips."""
    rules, counts = load_policy(arguments.policy, arguments.set), arguments.n
    # The noise: given, or that of the baseline.
    if arguments.sd is not None:
        if not 0 < arguments.sd <= 100:
            raise ValueError(f"--sd is {arguments.sd}, it has to be above 0 and at most 100.")
        ratios = [name for name, rule in rules.metrics.items() if rule.is_ratio]
        noise = {name: RepeatNoise(arguments.sd, 0, "--sd") for name in ratios}
    elif arguments.baseline:
        noise = noise_of(read_baseline(arguments.baseline), rules)
    else:
        raise ValueError("power needs --baseline DIR, or --sd 0.07.")
    if min(counts) < 2:
        raise ValueError(f"-n is {min(counts)}, it has to be 2 or more.")
    # A row a metric, at its own share of alpha.
    heads = "".join(f"{f'n = {n}':>10}" for n in counts)
    cli.say(f"change found with {rules.power:.0%} power, each prompt one clip\n")
    cli.say(f"{'metric':20}{'noise sd':>10}{heads}  noise from")
    for name in [name for name in rules.metrics if name in noise]:
        rule, found, cells = rules.metrics[name], noise[name], ""
        for num in counts:
            seen = found.detectable(rule, num, alpha=rules.share(name), power=rules.power)
            cells += f"{size_words(seen, rule.is_ratio):>10}"
        cli.say(f"{name:20}{found.sd:>10.3g}{cells}  {found.source}")
    cli.say("\n-: so few prompts cannot prove a change of this metric at its share of alpha")
    return cli.DONE


def calibrate(arguments: argparse.Namespace) -> int:
    """Print the noise of repeats and suggest margins."""
    rules = load_policy(arguments.policy, arguments.set)
    # Measure and print.
    found = noise_of_repeats([_loaded(path, arguments) for path in arguments.sets], rules)
    cli.say(
        f"{counted(found.num_pairs, 'pair')} of repeats, {counted(found.num_prompts, 'prompt')}\n"
    )
    cli.say(f"{'metric':20}{'noise sd':>10}{'mean shift':>12}{'margin':>9}{'suggested':>11}")
    for name, noise in found.noise.items():
        cli.say(
            f"{name:20}{noise.sd:>10.3g}{found.shift[name]:>+12.3g}"
            f"{rules.metrics[name].margin:>9.3g}{found.margins[name]:>11.3g}"
        )
    for alarm in found.alarms:
        cli.say(f"\nnot repeats of one setting, or noisier than the policy allows: {alarm} FAIL")
    # Keep what was found: margins in a policy, noise in a baseline.
    if arguments.out:
        metrics = {
            name: rule.replace(margin=found.margins.get(name, rule.margin))
            for name, rule in rules.metrics.items()
        }
        write_text(arguments.out, rules.replace(metrics=metrics).to_yaml())
    if arguments.save:
        facts = dict(on_disk.read_baseline(arguments.save).plan)
        facts["noise"] = {name: {"sd": n.sd, "n": n.n} for name, n in found.noise.items()}
        write_json(Path(arguments.save) / "baseline.json", facts)
    return cli.DONE
