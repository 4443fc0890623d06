"""vidcfg evaluate VIDEOS... | FOLDER FOLDER... [--reference FOLDER|mini] [--metrics LIST]"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from vidcfg import cli
from vidcfg.evaluate.settings import FAMILIES, WEIGHT_FREE, Settings
from vidcfg.progress import Progress, duration, terminal_width
from vidcfg.tracking import add_log, tracked


def parser() -> argparse.ArgumentParser:
    metrics = "\n".join(f"  {name:12}{family.text}" for name, family in FAMILIES.items())
    about = "Measure flicker, motion, appearance, alignment and distance to real videos."
    made = cli.parser("evaluate", about, details=f"metrics:\n{metrics}")
    add = made.add_argument
    add("videos", nargs="+", help="files, or a folder; several folders are sets to compare")
    add("--reference", metavar="FOLDER|mini", help="real videos, or drawn moving shapes")
    text = f"names with commas, or all (default: {','.join(WEIGHT_FREE)}, and what fits "
    text += "the reference: mini for mini, fvd for a folder)"
    add("--metrics", metavar="LIST", help=text)
    cli.add_out(made, "where results and what is finished go (default: runs/evaluate/NAME)")
    add("--per-video", action="store_true", help="a row for each video too")
    text = "CSV, JSON or JSON lines of `video` and `prompt`, or a prompt a line (.txt)"
    add("--prompts", metavar="FILE", help=text)
    add("--fps", type=float, help="frames per second, in place of the files' own")
    add("--stride", type=int, help="temporal stride of the VAE (default: its record's, or 4)")
    protocols = ("google", "styleganv")
    add("--protocol", choices=protocols, default="google", help="of fvd (default: google)")
    nets = ("alex", "squeeze", "vgg")
    add("--lpips", dest="lpips_net", choices=nets, default="alex", help="its net (default: alex)")
    text = "transformers name or folder, or open_clip:NAME@FILE (default: %(default)s)"
    add("--clip", dest="clip_model", default=Settings.clip_model, metavar="MODEL", help=text)
    text = "a local file for named weights (see vidcfg weights list); may be repeated"
    add("--weights", action="append", default=[], metavar="NAME=FILE", help=text)
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--batch-size", type=int, default=16, help="frames that lpips and clip take at once (16)")
    add_log(made)
    cli.add_workers(made, "processes that decode and measure (default: 0, this process alone)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: all files were scored. 1: some could not be read. 2: none, or nothing was measured."""

    def todo(arguments: argparse.Namespace) -> int:
        from vidcfg.places import fetched

        with fetched(arguments, "videos", "reference") as here:
            return _evaluate(here)

    return cli.run(parser(), todo, argv)


def _evaluate(options: argparse.Namespace) -> int:
    # What can be wrong, before anything is loaded.
    settings = _settings(options)
    from vidcfg.evaluate import compare, output
    from vidcfg.evaluate.inputs import with_prompts
    from vidcfg.files import make_folder, write_text
    from vidcfg.places import told

    sets = compare.find_sets(options.videos, options.addresses)
    items = [item for of_set in sets.values() for item in of_set]
    if not any(item.path.exists() for item in items):
        raise ValueError(f"{items[0].place} does not exist. Give a file or a folder of videos.")
    if options.prompts:
        sets = with_prompts(sets, options.prompts)
    out = make_folder(options.out or place_of(options.videos, list(sets)), "--out")
    found, total = _scored(sets, settings, out, options), sum(map(len, sets.values()))
    # What is found.
    evaluation = compare.joined(found)
    warnings = [told(text, options.addresses) for text in evaluation.warnings]
    evaluation = replace(evaluation, warnings=warnings)
    names = list(sets) if len(sets) > 1 else ["set"]
    written = output.write_outputs(out, evaluation)
    failures = evaluation.failures
    if len(failures) == total:
        raise ValueError(f"none of {total} videos could be read: {_reason(failures)}")
    said = [] if len(sets) == 1 else ["\n".join(compare.comparison(out, sets))]

    def text(fit: int | None, is_brief: bool) -> str:
        videos = [output.per_video(evaluation, fit)] if options.per_video else []
        table = output.table(evaluation, names, is_brief=is_brief, fit=fit)
        return "\n\n".join([*said, *videos, table])

    write_text(out / "table.txt", text(None, False) + "\n")
    if not options.quiet:
        # What compares sets fits a screen.
        cli.say(text(terminal_width(), len(sets) > 1))
    if not any(row["value"] is not None for row in evaluation.rows):
        raise ValueError(f"nothing was measured: {_reason(evaluation.records(names[0]))}")
    if not options.quiet:
        cli.say(f"\nwritten: {out}: {', '.join(p.name for p in written)}, table.txt")
    return cli.FAILED if failures else cli.DONE


def _scored(sets: Any, settings: Settings, out: Path, options: Any) -> dict[str, Any]:
    """The evaluation of each set: its videos, then the set.

    What could not be read is said at once, and a Ctrl-C says what is kept.
    """
    from vidcfg.dataframes import by_path
    from vidcfg.evaluate.kept import Kept
    from vidcfg.evaluate.run import evaluate

    total, begin, fresh = sum(map(len, sets.values())), time.monotonic(), 0

    def report(scored: Any, is_kept: bool) -> None:
        nonlocal fresh
        log(scored.item.name, bars.done, _values(scored.records))
        for record in scored.records:
            if record.status == "failed":
                bars.say(f"not scored: {record.skipped_reason}")
        # The rate is of those that were scored now.
        fresh += not is_kept
        per_minute = 60 * fresh / max(1e-9, time.monotonic() - begin)
        left, note = total - bars.done - 1, ""
        if fresh and left:
            note = f"{per_minute:.3g} a minute, {duration(60 * left / per_minute)} left"
        bars.update(bars.done + 1, note=note)

    found, run = {}, tracked(options.log, out.name, by_path(vars(settings)))
    with run as log, Progress("videos", total, quiet=options.quiet) as bars:
        try:
            how = {"kept": Kept(out, settings), "report": report, "step": bars.step}
            for name, items in sets.items():
                found[name] = evaluate(items, settings, **how)
                of_set = _values(found[name].records())
                log(name, total, {f"set/{metric}": value for metric, value in of_set.items()})
        except KeyboardInterrupt:
            done = f"{bars.done} of {total} videos are scored"
            raise KeyboardInterrupt(
                f"interrupted: {done} and kept in {out}. The same command goes on."
            ) from None
    return found


def _values(records: Sequence) -> dict[str, float | None]:
    return {record.name: record.value for record in records}


def _reason(records: Sequence) -> str:
    return next((r.skipped_reason for r in records if r.skipped_reason), "no metric fits")


def place_of(videos: Sequence[str], sets: Sequence[str]) -> Path:
    """Where results go unless told: `runs/evaluate/` and the names of what is given."""
    first = Path(videos[0]).resolve()
    if len(sets) > 1:
        names = [Path(name).name for name in sets]
    elif first.is_dir():
        names = [first.name]
    else:
        names = [first.stem if len(videos) == 1 else first.parent.name]
    more = [f"{len(names) - 4}-more"] if len(names) > 4 else []
    return Path("runs/evaluate") / ("-".join([*names[:4], *more]) or "videos")


def _settings(options: argparse.Namespace) -> Settings:
    from vidcfg.evaluate.inputs import real_items
    from vidcfg.metrics.weight_files import named

    # The reference, and the metrics that fit it.
    reference = options.reference
    real_items(reference)
    if options.metrics is None:
        fitting = {None: (), "mini": ("mini",)}.get(reference, ("fvd",))
        families = (*WEIGHT_FREE, *fitting)
    elif options.metrics == "all":
        families = tuple(FAMILIES)
    else:
        names = (name.strip() for name in options.metrics.split(","))
        families = tuple(dict.fromkeys(name for name in names if name))
    # Files of weights.
    for entry in options.weights:
        name, equals, _ = entry.partition("=")
        if not equals:
            raise ValueError(f"--weights {entry} is not of the form NAME=FILE.")
        if name != "mini":
            named(name)
    given = vars(options) | {"families": families, "device": _device(options.device)}
    given["paths"] = dict(entry.partition("=")[::2] for entry in options.weights)
    return Settings(**{field.name: given[field.name] for field in fields(Settings)})


def _device(name: str) -> str:
    if name != "auto":
        return name
    # Asking torch costs seconds; without a device file there is no CUDA device.
    if sys.platform == "linux" and not Path("/dev/nvidiactl").exists():
        return "cpu"
    try:
        import torch
    except ModuleNotFoundError:  # what needs no weights needs no torch
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    sys.exit(main())
