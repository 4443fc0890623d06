"""vidcfg evaluate VIDEOS... [--reference FOLDER|mini] [--metrics LIST] [--out FOLDER]"""

import argparse
import sys
from collections.abc import Sequence

from vidcfg.evaluate.settings import FAMILIES, WEIGHT_FREE, Settings


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="vidcfg evaluate",
        description="Measure flicker, motion, appearance, alignment and distance to real videos.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="metrics:\n"
        + "\n".join(f"  {name:12}{family.text}" for name, family in FAMILIES.items())
        + "\n\nexit code: 0 all files scored, 1 some could not be read, 2 wrong arguments",
    )
    made.add_argument("videos", nargs="+", help="files, folders, or the output of vidcfg render")
    made.add_argument(
        "--reference", metavar="FOLDER|mini", help="real videos, or drawn moving shapes"
    )
    made.add_argument(
        "--metrics",
        metavar="LIST",
        help=f"names with commas, or all (default: {','.join(WEIGHT_FREE)}, and what fits "
        "the reference: mini for mini, fvd for a folder)",
    )
    made.add_argument("--out", metavar="FOLDER", help="write records.jsonl, .parquet, table.txt")
    made.add_argument("--prompts", metavar="FILE", help="JSON of names and prompts, or text lines")
    made.add_argument("--fps", type=float, help="frames per second, in place of the files' own")
    made.add_argument("--stride", type=int, help="temporal stride of the VAE (default: 4)")
    made.add_argument("--protocol", choices=("google", "styleganv"), default="google")
    made.add_argument("--lpips", choices=("alex", "squeeze", "vgg"), default="alex")
    made.add_argument(
        "--clip",
        default="openai/clip-vit-base-patch32",
        metavar="MODEL",
        help="transformers name or folder, or open_clip:NAME@FILE",
    )
    made.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a local file for named weights (see vidcfg weights list); may be repeated",
    )
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    made.add_argument("--batch-size", type=int, default=16)
    made.add_argument("--workers", type=int, default=1, help="processes that decode and measure")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: all files were scored. 1: some could not be read. 2: wrong arguments."""
    options = parser().parse_args(argv)
    from vidcfg.evaluate.inputs import find_items, with_prompts

    try:
        settings = settings_of(options)
        items = find_items(options.videos)
        if not items:
            raise ValueError(f"no videos in {', '.join(options.videos)}.")
        if options.prompts:
            items = with_prompts(items, options.prompts)
    except ValueError as error:
        print(f"vidcfg evaluate: {error}", file=sys.stderr)
        return 2
    return _run(items, settings, options.out)


def settings_of(options: argparse.Namespace) -> Settings:
    """Settings from parsed arguments.

    Raises:
        ValueError: unknown metrics, wrong numbers, a reference that does not exist.
    """
    from pathlib import Path

    from vidcfg.metrics.weight_files import named

    reference = options.reference
    if reference not in (None, "mini") and not Path(reference).exists():
        raise ValueError(f"the reference {reference} does not exist. Give a folder, or `mini`.")
    paths = dict(entry.partition("=")[::2] for entry in options.weights)
    wrong = [entry for entry in options.weights if "=" not in entry]
    if wrong:
        raise ValueError(f"--weights {wrong[0]} is not of the form NAME=FILE.")
    for name in paths:
        if name != "mini":
            named(name)
    return Settings(
        families=_families(options.metrics, reference),
        stride=options.stride,
        fps=options.fps,
        reference=reference,
        protocol=options.protocol,
        lpips_net=options.lpips,
        clip_model=options.clip,
        paths=paths,
        device=_device(options.device),
        batch_size=options.batch_size,
        workers=options.workers,
    )


def _families(text: str | None, reference: str | None) -> tuple[str, ...]:
    if text is None:
        fitting = {None: (), "mini": ("mini",)}.get(reference, ("fvd",))
        return (*WEIGHT_FREE, *fitting)
    if text == "all":
        return tuple(FAMILIES)
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _device(name: str) -> str:
    if name != "auto":
        return name
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        return "cpu"
    from pathlib import Path

    # Asking torch costs seconds; without a device file there is no CUDA device.
    if not Path("/dev/nvidiactl").exists() and sys.platform == "linux":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _run(items, settings: Settings, out: str | None) -> int:
    from vidcfg.evaluate.output import table, write_outputs
    from vidcfg.evaluate.run import evaluate

    with _progress(len(items)) as report:
        evaluation = evaluate(items, settings, report=report)
    print(table(evaluation))
    if out:
        written = write_outputs(out, evaluation)
        print("\nwritten: " + ", ".join(str(path) for path in written))
    return 1 if evaluation.failures else 0


def _progress(total: int):
    """A bar on a terminal; elsewhere a line for every tenth of the videos. Failures are named."""
    from contextlib import contextmanager

    @contextmanager
    def bar():
        from tqdm import tqdm

        is_terminal = sys.stderr.isatty()
        with tqdm(total=total, unit="video", disable=not is_terminal) as shown:
            done = 0

            def report(scored) -> None:
                nonlocal done
                done += 1
                shown.update()
                for record in scored.records:
                    if record.status == "failed":
                        tqdm.write(f"not scored: {record.skipped_reason}", file=sys.stderr)
                if not is_terminal and (done == total or done % max(1, total // 10) == 0):
                    print(f"{done} of {total} videos", file=sys.stderr, flush=True)

            yield report

    return bar()


if __name__ == "__main__":
    sys.exit(main())
