"""python -m vidcfg.render config.yaml. Heavy imports wait until there is work."""

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vidcfg import cli
from vidcfg.progress import put
from vidcfg.settings.presets import presets
from vidcfg.tracking import add_log, tracked

DETAILS = """\
For each prompt and seed it writes the video, a contact sheet (.png) with the strength of every
frame, and a record (.json) with all that is needed to make the video again; surface.png shows the
strength of every step and frame. An image is a video of one frame, with its picture (.image.png)
beside it; sound of a model that makes it is a .wav. After an interruption, --skip-existing
continues.

examples:
  python -m vidcfg.render wan2.2-5b --prompt "a red kite over a green hill"
  python -m vidcfg.render configs/quickstart.yaml
  python -m vidcfg.render configs/quickstart.yaml --dry-run
  python -m vidcfg.render configs/uniform.yaml --set guidance.scale=3.0 --seed 0-3 --out out/three
"""


def parser() -> argparse.ArgumentParser:
    about = "Render the videos of a configuration, guided per frame and per step."
    made = cli.parser("render", about, details=DETAILS)
    add = made.add_argument
    config = "a YAML file such as configs/quickstart.yaml, or one of `vidcfg presets`"
    add("config", help=config).completer = lambda **_: presets()
    cli.add_set(made, "guidance.scale=3.0")
    add("--prompt", metavar="TEXT", help="replace the prompts; what else the first has stays")
    add("--image", metavar="FILE", help="replace the image that the first prompt starts from")
    add("--seed", dest="seeds", metavar="SEEDS", help="replace the seeds: 7, 0-3 or [1, 5]")
    cli.add_out(made, "replace output.dir")
    add("--overwrite", action="store_true", help="replace existing outputs")
    add(
        "--skip-existing",
        action="store_true",
        help="render only what is not there yet; with --overwrite also what has other settings",
    )
    add_log(made)
    add(
        "--dry-run",
        action="store_true",
        help="print the resolved configuration, the strengths, the cost and the files; "
        "load no model, write nothing",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the result is its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    return cli.run(parser(), lambda arguments: _run(arguments, argv), argv)


def _run(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    # the settings
    from vidcfg.render.config import load_render_config

    overrides = list(arguments.set)
    if arguments.out is not None:
        # A JSON string is a YAML string, whatever characters it holds.
        overrides.append(f"output.dir={json.dumps(arguments.out)}")
    replaced = {name: getattr(arguments, name) for name in ("seeds", "prompt", "image")}
    config = load_render_config(arguments.config, overrides, **replaced)
    # what can be told of them
    from vidcfg.render.checks import check_before_loading, image_warnings
    from vidcfg.render.config import units_of
    from vidcfg.render.preview import preview
    from vidcfg.render.prompts import early_prompt_warnings
    from vidcfg.settings.presets import head_of, path_of

    units = units_of(config)
    with _explained(arguments.config):
        for text in (*config.notes, *early_prompt_warnings(config)):
            cli.warn(text)
        check_before_loading(config)
        for text in image_warnings(config):
            cli.warn(text)
        if arguments.dry_run:
            width = min(shutil.get_terminal_size((100, 24)).columns, 120)
            put(preview(config, units, width=width, colour=sys.stdout.isatty()))
            if needs := head_of(path_of(arguments.config)).get("Needs"):
                cli.say(f"\nneeds, as its file says: {needs}")
    return cli.DONE if arguments.dry_run else _render(config, units, arguments, argv)


def _render(
    config: Any, units: list[Any], arguments: argparse.Namespace, argv: Sequence[str]
) -> int:
    # what is there already
    from vidcfg.dataframes import settings_of
    from vidcfg.files import make_folder
    from vidcfg.render.files import fault_of, pending_units

    flags = {"overwrite": arguments.overwrite, "skip_existing": arguments.skip_existing}
    pending = pending_units(config, units, **flags)
    say = (lambda text: None) if arguments.quiet else cli.say
    replaced = {unit: why for unit, why in pending.items() if why}
    for unit, why in replaced.items():
        say(f"{unit.video} is made again: {why}")
    if not pending:
        say(f"all {len(units)} videos are in {config.output.dir}")
        return cli.DONE
    make_folder(units[0].stem.parent, "output.dir")
    # the rest
    begin, traces = time.monotonic(), []
    try:
        run = tracked(arguments.log, config.name, settings_of(config.to_dict()))
        with run as log, _explained(arguments.config):
            say(f"loading {config.model.kind} model")

            def finished(unit: Any, made: Any) -> None:
                traces.append(made.trace)
                log(unit.stem.name, units.index(unit), _values_of(made))

            _load_and_render(config, pending, arguments, replaced=replaced, on_finished=finished)
    except KeyboardInterrupt:
        kept = [word for word in argv if word != "--skip-existing"]
        command = shlex.join(["python", "-m", "vidcfg.render", *kept, "--skip-existing"])
        done = f"{len(traces)} of {len(pending)} videos are finished"
        raise KeyboardInterrupt(f"interrupted: {done}. Continue with: {command}") from None
    run, naive = sum(t.total for t in traces), sum(t.planned.naive for t in traces)
    videos = "1 video" if len(pending) == 1 else f"{len(pending)} videos"
    say(
        f"{videos} in {config.output.dir}, {time.monotonic() - begin:.1f} s, {run} model "
        f"evaluations ({100 * run / max(naive, 1):.0f} % of 2 per step)"
    )
    # nothing vanished meanwhile
    faults = [f"{unit.stem}: {fault}" for unit in units if (fault := fault_of(unit))]
    for fault in faults:
        cli.say(f"{fault}. Run again with --skip-existing.", file=sys.stderr)
    return cli.FAILED if faults else cli.DONE


def _values_of(made: Any) -> dict[str, float]:
    """What a render has measured itself; strength and spread are means over steps and frames."""
    rows = made.trace.rows()
    names = ("strength", "std_cond", "std_guided")
    means = {name: sum(row[name] for row in rows) / len(rows) for name in names}
    return {"seconds": made.seconds, "evaluations": made.trace.total, **means}


def _load_and_render(config: Any, units: Any, arguments: Any, **told: Any) -> None:
    from vidcfg.pipelines.load import load_pipeline
    from vidcfg.progress import Progress
    from vidcfg.render.checks import check_after_loading, late_warnings
    from vidcfg.render.job import render_units

    pipe = load_pipeline(config.model)
    check_after_loading(config, pipe)
    for text in late_warnings(config, pipe):
        cli.warn(text)
    progress = Progress("videos", len(units), quiet=arguments.quiet, stream=sys.stdout)
    told |= {"overwrite": arguments.overwrite, "skip_existing": arguments.skip_existing}
    render_units(config, pipe, units, progress=progress, **told)


@contextmanager
def _explained(config: str) -> Iterator[None]:
    """Errors of settings name the file that they come from; lack of memory says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error).lower():
            raise
        raise RuntimeError(
            f"out of memory: {error} Use fewer or smaller frames, model.offload: model, or "
            "model.vae_tiling: true."
        ) from error
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise ValueError(f"{config}: {' '.join(str(error).split())}") from error


if __name__ == "__main__":
    sys.exit(main())
