"""vidcfg evaluate VIDEOS... [--reference FOLDER|mini] [--metrics LIST] [--out FOLDER]"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from vidcfg import cli
from vidcfg.evaluate.settings import FAMILIES, WEIGHT_FREE, Settings


def parser() -> argparse.ArgumentParser:
    metrics = "\n".join(f"  {name:12}{family.text}" for name, family in FAMILIES.items())
    made = cli.parser(
        "evaluate",
        "Measure flicker, motion, appearance, alignment and distance to real videos.",
        details=f"metrics:\n{metrics}",
    )
    add = made.add_argument
    add("videos", nargs="+", help="files, folders, or the output of vidcfg render")
    add("--reference", metavar="FOLDER|mini", help="real videos, or drawn moving shapes")
    add(
        "--metrics",
        metavar="LIST",
        help=f"names with commas, or all (default: {','.join(WEIGHT_FREE)}, and what fits "
        "the reference: mini for mini, fvd for a folder)",
    )
    cli.add_out(made, "write records.jsonl, .parquet, table.txt", metavar="FOLDER")
    add("--prompts", metavar="FILE", help="JSON of names and prompts, or text lines")
    add("--fps", type=float, help="frames per second, in place of the files' own")
    add("--stride", type=int, help="temporal stride of the VAE (default: 4)")
    add("--protocol", choices=("google", "styleganv"), default="google")
    add("--lpips", dest="lpips_net", choices=("alex", "squeeze", "vgg"), default="alex")
    add(
        "--clip",
        dest="clip_model",
        default=Settings.clip_model,
        metavar="MODEL",
        help="transformers name or folder, or open_clip:NAME@FILE",
    )
    add(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a local file for named weights (see vidcfg weights list); may be repeated",
    )
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--batch-size", type=int, default=16)
    cli.add_workers(made, "processes that decode and measure (default: 0, this process alone)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: all files were scored. 1: some could not be read."""
    return cli.run(parser(), _evaluate, argv)


def _evaluate(options: argparse.Namespace) -> int:
    # What can be wrong, before anything is loaded.
    settings = _settings(options)
    from vidcfg.evaluate.inputs import find_items, with_prompts

    items = find_items(options.videos)
    if not items:
        raise ValueError(f"no videos in {', '.join(options.videos)}.")
    if options.prompts:
        items = with_prompts(items, options.prompts)
    from vidcfg.evaluate.output import table, write_outputs
    from vidcfg.evaluate.run import evaluate
    from vidcfg.files import make_folder
    from vidcfg.progress import Progress

    out = make_folder(options.out, "--out") if options.out else None
    # The videos, then the set.
    with Progress("videos", len(items), quiet=options.quiet) as progress:

        def report(scored) -> None:
            progress.update(progress.done + 1)
            for record in scored.records:
                if record.status == "failed":
                    progress.say(f"not scored: {record.skipped_reason}")

        evaluation = evaluate(items, settings, report=report)
    # What is found.
    written = write_outputs(out, evaluation) if out else []
    if not options.quiet:
        print(table(evaluation))
        if written:
            print("\nwritten: " + ", ".join(map(str, written)))
    return cli.FAILED if evaluation.failures else cli.DONE


def _settings(options: argparse.Namespace) -> Settings:
    from vidcfg.metrics.weight_files import named

    # The reference, and the metrics that fit it.
    reference = options.reference
    if reference not in (None, "mini") and not Path(reference).exists():
        raise ValueError(f"the reference {reference} does not exist. Give a folder, or `mini`.")
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
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    sys.exit(main())
