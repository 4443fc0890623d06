"""What the commands do. Every failure to compare is exit code 3, never a pass."""

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidcfg.regress.check import Outcome, check_clips, reproduction
from vidcfg.regress.clips import ClipSet, RegressError, load_clips, read_baseline, write_baseline
from vidcfg.regress.gate import INCONCLUSIVE
from vidcfg.regress.output import junit, result_dict, table, write_error, write_text
from vidcfg.regress.policy import Policy, load_policy
from vidcfg.settings.errors import ConfigError
from vidcfg.settings.strict_yaml import dump_yaml


def run(arguments: argparse.Namespace) -> int:
    """Run the parsed command; 3 and a message for every error."""
    todo: dict[str, Callable[[argparse.Namespace, Policy], int]] = {
        "record": record,
        "check": check,
        "power": power,
        "calibrate": calibrate,
        "policy": show_policy,
    }
    try:
        policy = load_policy(arguments.policy, arguments.overrides)
        return todo[arguments.command](arguments, policy)
    except (RegressError, ConfigError, OSError) as error:
        print(f"vidcfg regress: {error}", file=sys.stderr)
        message = str(error)
    except Exception as error:  # a crash must not look like a verdict
        import traceback

        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
    if arguments.command == "check" and arguments.out:
        write_error(Path(arguments.out), message)
    return 3


def record(arguments: argparse.Namespace, policy: Policy) -> int:
    """Write a baseline."""
    clips = load_clips(arguments.set, workers=arguments.workers, report=_progress(arguments))
    metrics = None if arguments.all_metrics else list(policy.metrics)
    facts = {"recorded_from": clips.source, **made_by(clips)}
    folder = Path(arguments.out)
    if (folder / "baseline.json").exists() and not arguments.overwrite:
        raise RegressError(f"{folder} holds a baseline. Use --overwrite to renew it.")
    if arguments.with_videos:
        clips = _with_strips(clips, folder / "videos")
    write_baseline(folder, clips, metrics=metrics, facts=facts, overwrite=arguments.overwrite)
    prompts = len({key.prompt for key in clips.clips})
    print(f"{len(clips)} clips of {prompts} prompts recorded in {folder}")
    return 0


def made_by(clips: ClipSet) -> dict[str, Any]:
    """Commit, versions and model of the renders, from the record of the first clip with one."""
    for clip in clips.clips.values():
        if clip.record is None:
            continue
        try:
            facts = json.loads(clip.record.read_text(encoding="utf-8"))
            found = {name: facts.get(name) for name in ("commit", "versions", "model")}
        except (OSError, ValueError, AttributeError):
            continue
        return {"made_by": {k: v for k, v in found.items() if v}} if any(found.values()) else {}
    return {}


def _with_strips(clips: ClipSet, folder: Path) -> ClipSet:
    """The clips with a picture of each; pictures of an earlier baseline are removed."""
    from dataclasses import replace

    from vidcfg.regress.page import strip_of_clip

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9]*.webp"):
        old.unlink()
    made = {}
    for index, (key, clip) in enumerate(clips.clips.items()):
        strip = strip_of_clip(clip)
        if strip is None:
            raise RegressError(f"{key} has no video to keep. Record without --with-videos.")
        path = folder / f"{index:04d}.webp"
        path.write_bytes(strip.data)
        made[key] = replace(clip, strip=path)
    return ClipSet(clips.source, made, clips.facts)


def check(arguments: argparse.Namespace, policy: Policy) -> int:
    """Compare with a baseline and write what is asked for."""
    base = load_clips(arguments.baseline)
    new = load_clips(arguments.set, workers=arguments.workers, report=_progress(arguments))
    outcome = check_clips(new, base, policy)
    text = table(outcome)
    if arguments.out:
        folder = Path(arguments.out)
        write_outputs(folder, outcome, allow_inconclusive=arguments.allow_inconclusive)
        text += f"\n\nwritten: {folder / 'index.html'}, result.json, junit.xml"
    # A reader such as `head` that closes the pipe does not change the verdict.
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)
    if outcome.verdict == INCONCLUSIVE and arguments.allow_inconclusive:
        return 0
    return outcome.judgement.exit_code


def write_outputs(folder: Path, outcome: Outcome, *, allow_inconclusive: bool = False) -> None:
    """index.html, result.json, junit.xml, and a configuration for every worst clip."""
    from vidcfg.regress.page import page

    folder.mkdir(parents=True, exist_ok=True)
    commands = write_reproductions(folder, outcome)
    facts = json.dumps(result_dict(outcome, commands), indent=1, allow_nan=False)
    write_text(folder / "result.json", facts + "\n")
    write_text(folder / "junit.xml", junit(outcome, allow_inconclusive=allow_inconclusive))
    recorded = _recorded(outcome.base)
    write_text(folder / "index.html", page(outcome, commands=commands, recorded=recorded))


def write_reproductions(folder: Path, outcome: Outcome) -> dict[str, str]:
    """A render configuration for the worst clip of each metric that does not pass -> commands."""
    commands = {}
    for result in outcome.judgement.metrics:
        worst = outcome.worst.get(result.name)
        if worst is None or result.exits_clean:
            continue
        config = reproduction(worst, folder=str(folder / "worst" / result.name))
        if config is None:
            continue
        (folder / "worst").mkdir(exist_ok=True)
        path = write_text(folder / "worst" / f"{result.name}.yaml", dump_yaml(config))
        commands[result.name] = f"python -m vidcfg.render {shlex.quote(str(path))}"
    return commands


def _recorded(base: ClipSet) -> str:
    made = base.facts.get("made_by") or {}
    commit = str(made.get("commit") or "")[:12]
    version = (made.get("versions") or {}).get("vidcfg")
    parts = [f"commit {commit}" if commit else "", f"vidcfg {version}" if version else ""]
    return ", ".join(part for part in parts if part)


def power(arguments: argparse.Namespace, policy: Policy) -> int:
    """Print what change is found by how many clips."""
    from vidcfg.regress.power import Noise, detectable_table, noise_of

    if arguments.sd is not None:
        if not arguments.sd > 0:
            raise RegressError(f"--sd is {arguments.sd}, it has to be above 0.")
        ratios = [name for name, rule in policy.metrics.items() if rule.scale == "ratio"]
        noise = {name: Noise(arguments.sd, 0, "--sd") for name in ratios}
    elif arguments.baseline:
        noise = noise_of(read_baseline(arguments.baseline), policy)
    else:
        raise RegressError("power needs --baseline DIR, or --sd 0.07.")
    if min(arguments.n) < 2:
        raise RegressError(f"-n is {min(arguments.n)}, it has to be 2 or more.")
    rows = detectable_table(noise, policy, arguments.n)
    heads = "".join(f"{f'n = {n}':>10}" for n in arguments.n)
    print(f"change found with {policy.power:.0%} power, each prompt one clip\n")
    print(f"{'metric':20}{'noise sd':>10}{heads}  noise from")
    for row in rows:
        is_ratio = policy.metrics[row["metric"]].scale == "ratio"
        cells = "".join(f"{_amount(row[n], is_ratio):>10}" for n in arguments.n)
        print(f"{row['metric']:20}{row['sd']:>10.3g}{cells}  {row['source']}")
    print("\n-: so few prompts cannot prove a change of this metric at its share of alpha")
    return 0


def _amount(value: float | None, is_ratio: bool) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if is_ratio else f"{value:.3g}"


def calibrate(arguments: argparse.Namespace, policy: Policy) -> int:
    """Print the noise of repeats and suggest margins."""
    from vidcfg.regress.power import calibrate as measure

    sets = [
        load_clips(path, workers=arguments.workers, report=_progress(arguments))
        for path in arguments.sets
    ]
    found = measure(sets, policy)
    print(f"{found.num_pairs} pairs of repeats, {found.prompts} prompts\n")
    print(f"{'metric':20}{'noise sd':>10}{'mean shift':>12}{'margin':>9}{'suggested':>11}")
    for name, noise in found.noise.items():
        margin = policy.metrics[name].margin
        print(
            f"{name:20}{noise.sd:>10.3g}{found.shift[name]:>+12.3g}{margin:>9.3g}"
            f"{found.margins[name]:>11.3g}"
        )
    for alarm in found.alarms:
        print(f"\nnot repeats of one setting, or noisier than the policy allows: {alarm} FAIL")
    if arguments.out:
        metrics = {
            name: rule.replace(margin=found.margins.get(name, rule.margin))
            for name, rule in policy.metrics.items()
        }
        write_text(Path(arguments.out), policy.replace(metrics=metrics).to_yaml())
    if arguments.save:
        path = Path(arguments.save) / "baseline.json"
        read_baseline(arguments.save)
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts["noise"] = {name: {"sd": n.sd, "n": n.n} for name, n in found.noise.items()}
        write_text(path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return 0


def show_policy(arguments: argparse.Namespace, policy: Policy) -> int:
    """Print the policy as YAML."""
    print(policy.to_yaml(), end="")
    return 0


def _progress(arguments: argparse.Namespace) -> Callable[[int, int], None]:
    """A bar on a terminal; elsewhere a line for every quarter."""
    bar: list[Any] = []

    def report(done: int, total: int) -> None:
        if arguments.quiet or total < 8:
            return
        if not sys.stderr.isatty():
            if done == total or done % max(1, total // 4) == 0:
                print(f"measured {done} of {total} clips", file=sys.stderr, flush=True)
            return
        from tqdm import tqdm

        if not bar:
            bar.append(tqdm(total=total, unit="clip", desc="measuring"))
        bar[0].update(done - bar[0].n)
        if done == total:
            bar.pop().close()

    return report
