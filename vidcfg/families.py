"""python -m vidcfg.families: the video pipelines that vidcfg can guide, and those it cannot."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module, util
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import Any

from vidcfg import cli

TESTED = {
    "exact": "a uniform scale equals the stock pipeline bit for bit, by test",
    "close": "it equals the stock pipeline to float32 rounding, by test",
    "no": "declared, not tested",
}
"""What the last column means; tests run real pipeline code with tiny random weights."""

SIZES = {
    "steps": "denoising steps (3)",
    "frames": "pixel frames (those of three latent frames)",
    "height": "in pixels (at most 64)",
    "width": "in pixels (twice the height)",
}
"""Options of `check`, with what is taken where they are not given."""

COLUMNS = {
    "family": lambda family: family.name,
    "pipelines": lambda family: ", ".join(family.pipelines),
    "layout": lambda family: family.layout,
    "frames": lambda family: family.frame_rule,
    "size": lambda family: f"{family.size_multiple}n" if family.size_multiple > 1 else "any",
    "prediction": lambda family: family.prediction or "scheduler's",
    "passes": lambda family: family.stock_passes,
    "scale": lambda family: f"{family.default_scale:g}",
    "usual": lambda family: "{:g} - {:g}".format(*family.usual_range),
    "tested": lambda family: family.tested,
}


def table() -> list[tuple[str, ...]]:
    """Head and one row per family, as text."""
    from vidcfg.pipelines.families import FAMILIES

    shows = COLUMNS.values()
    return [tuple(COLUMNS), *(tuple(show(f) for show in shows) for f in FAMILIES.values())]


def _aligned(rows: list[tuple[str, ...]]) -> str:
    """Columns of one width each, pipeline classes one below the other."""
    cells = [[cell.split(", ") if i == 1 else [cell] for i, cell in enumerate(r)] for r in rows]
    widths = [max(len(part) for cell in column for part in cell) for column in zip(*cells)]
    lines = []
    for row in cells:
        for parts in zip_longest(*row, fillvalue=""):
            lines.append("  ".join(f"{p:<{w}}" for p, w in zip(parts, widths)).rstrip())
    return "\n".join([*lines, "", *(f"{name}: {meaning}" for name, meaning in TESTED.items())])


def refused() -> str:
    """What cannot be guided: each reason and the pipeline classes that it holds for."""
    from vidcfg.pipelines.families import FAMILIES, REFUSED

    groups: dict[str, list[str]] = {}
    for name, reason in REFUSED.items():
        groups.setdefault(reason, []).append(name)
    covered = sum(len(f.pipelines) for f in FAMILIES.values() if f.module == "diffusers")
    lines = [
        f"{covered} pipeline classes of diffusers can be guided, "
        f"{len(REFUSED)} of its video classes cannot:"
    ]
    for reason, names in groups.items():
        lines += ["", *wrap(f"{', '.join(names)}: {reason}.", 100, subsequent_indent="    ")]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    made = cli.parser(
        "families",
        "Print the pipelines that vidcfg can guide: how each lays out its latents, which pixel\n"
        "frames a latent makes, of which number height and width are multiples, how it runs its\n"
        "passes, and which scales people use.",
        details="Another pipeline is declared with vidcfg.register_family: see docs/families.md.",
    )
    made.add_argument("--markdown", action="store_true", help="print a Markdown table")
    made.set_defaults(todo=_print)
    commands = made.add_subparsers(metavar="[check]")
    text = "run a pipeline with its own guidance and with vidcfg's, and tell where they differ"
    check = commands.add_parser("check", help=text, description=text)
    cli.shared(check, default=argparse.SUPPRESS).set_defaults(todo=_check)
    text = (
        "mini; a folder or repository of a checkpoint; or file.py:function or module:function, "
        "which returns a pipeline, or a pipeline and a dict of arguments for its call"
    )
    check.add_argument("pipeline", metavar="PIPELINE", help=text)
    for name, text in SIZES.items():
        check.add_argument(f"--{name}", type=int, metavar="N", help=text)
    devices = ("auto", "cpu", "cuda")
    check.add_argument("--device", default="auto", choices=devices, help="of a checkpoint")
    return cli.run(made, lambda options: options.todo(options), argv)


def _check(options: argparse.Namespace) -> int:
    """0: all lines passed, or could not be told. 1: one failed."""
    from vidcfg.pipelines.check import LENGTHS, check_pipeline, length_argument

    pipe, call = _loaded(options.pipeline, options.device)
    if hasattr(pipe, "set_progress_bar_config"):
        pipe.set_progress_bar_config(disable=True)
    names = {"steps": "num_inference_steps", "frames": length_argument(pipe) or LENGTHS[0]}
    given = {names.get(option, option): getattr(options, option) for option in SIZES}
    call |= {name: value for name, value in given.items() if value is not None}
    lines = check_pipeline(pipe, **call)
    for line in lines:
        if not (options.quiet and line.passed):
            cli.say(line)
    failed, unsure = ([line.name for line in lines if line.passed is p] for p in (False, None))
    if failed:
        cli.say(f"{len(failed)} of {len(lines)} failed: {', '.join(failed)}")
    elif not options.quiet:
        cli.say("passed")
    if unsure:
        cli.say(f"not known: {', '.join(unsure)}")
    return cli.FAILED if failed else cli.DONE


def _loaded(target: str, device: str) -> tuple[Any, dict[str, Any]]:
    """The pipeline that a target names, and the arguments that come with it."""
    from vidcfg.pipelines.load import DiffusersModel, MiniModel, ModelError, load_pipeline

    place, _, name = target.rpartition(":")
    if not place:
        if target == "mini":
            return load_pipeline(MiniModel(device=device)), {}
        if not Path(target).expanduser().is_dir() and target.count("/") != 1:
            raise ValueError(
                f"there is no folder {target}. Type mini, a folder, a repository such as "
                f"Wan-AI/Wan2.1-T2V-1.3B-Diffusers, file.py:function or module:function."
            )
        try:
            # In float32 a wrong declaration cannot be taken for rounding.
            model = DiffusersModel(checkpoint=target, device=device, dtype="float32")
            return load_pipeline(model), {}
        except ModelError as error:
            raise ValueError(str(error)) from error
    try:
        made = getattr(_module(place), name)()
    except Exception as error:
        raise ValueError(f"{target} fails: {type(error).__name__}: {error}") from error
    pipe, call = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(call, dict) or pipe is None:
        raise ValueError(f"{target} must return a pipeline, or a pipeline and a dict: pipe, {{}}")
    return pipe, dict(call)


def _module(place: str) -> Any:
    """A module by its name, also of this folder, or by the path of its file."""
    path = Path(place)
    sys.path.insert(0, str(path.resolve().parent if path.suffix == ".py" else Path.cwd()))
    if path.suffix != ".py":
        return import_module(place)
    spec = util.spec_from_file_location(path.stem, path)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _print(options: argparse.Namespace) -> int:
    rows = table()
    if options.markdown:
        rows.insert(1, ("---",) * len(rows[0]))
        cli.say("\n".join("| " + " | ".join(row) + " |" for row in rows))
    else:
        cli.say(_aligned(rows), refused(), sep="\n\n")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
