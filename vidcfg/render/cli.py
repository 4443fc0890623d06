"""The command line of `python -m vidcfg.render`. Heavy imports wait until there is work."""

import argparse
import json
import shlex
import sys
import time
import traceback
from typing import Any

EPILOG = """\
For each prompt and seed it writes the video, a contact sheet (.png) with the strength of every
frame, and a record (.json) with all that is needed to make the video again; surface.png shows the
strength of every step and frame. An image is a video of one frame, with its picture (.image.png)
beside it; sound of a model that makes it is a .wav.

examples:
  python -m vidcfg.render configs/quickstart.yaml
  python -m vidcfg.render configs/quickstart.yaml --dry-run
  python -m vidcfg.render configs/uniform.yaml --set guidance.scale=3.0 --seed 0-3 --out out/three

exit codes:
  0    all videos are there
  1    a failure while rendering (full disk, out of memory, NaN); finished videos stay
  2    a configuration or option that cannot be used, or outputs that exist already
  130  interrupted; finished videos stay, --skip-existing continues
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m vidcfg.render",
        description="Render the videos of a configuration, guided per frame and per step.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("config", help="a YAML file such as configs/quickstart.yaml")
    add(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="replace a value of the file, such as guidance.scale=3.0; may be repeated",
    )
    add("--seed", metavar="SEEDS", help="replace the seeds: 7, 0-3 or [1, 5]")
    add("--out", metavar="DIR", help="replace output.dir")
    add("--overwrite", action="store_true", help="replace existing outputs")
    add(
        "--skip-existing",
        action="store_true",
        help="render only what is not there yet; with --overwrite also what has other settings",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print the resolved configuration, the strengths, the cost and the files; "
        "load no model, write nothing",
    )
    add("--quiet", action="store_true", help="print warnings and errors only")
    add("--debug", action="store_true", help="show the traceback of an error")
    add("--version", action="version", version=_version())
    return made


def _version() -> str:
    from vidcfg import __version__

    return f"vidcfg {__version__}"


def main(argv: list[str] | None = None) -> int:
    """Run the command; the result is its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser().parse_args(argv)
    from vidcfg.settings.errors import ConfigError

    try:
        config = _load(arguments)
    except ConfigError as error:
        return _fail(str(error), 2, arguments)
    try:
        return _run(config, arguments, argv)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, arguments)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        return _fail(_message(error, arguments.config), code, arguments)


def _load(arguments: argparse.Namespace) -> Any:
    from vidcfg.render.config import load_render_config

    overrides = list(arguments.set)
    if arguments.out is not None:
        # A JSON string is a YAML string, whatever characters it holds.
        overrides.append(f"output.dir={json.dumps(arguments.out)}")
    return load_render_config(arguments.config, overrides, seeds=arguments.seed)


def _run(config: Any, arguments: argparse.Namespace, argv: list[str]) -> int:
    from vidcfg.render.checks import check_before_loading, image_warnings
    from vidcfg.render.files import pending_units, prepare_folder
    from vidcfg.render.preview import early_warnings
    from vidcfg.render.record import unit_settings
    from vidcfg.render.units import units_of

    units = units_of(config)
    for warning in early_warnings(config):
        _warn(warning)
    check_before_loading(config)
    for warning in image_warnings(config):
        _warn(warning)
    if arguments.dry_run:
        return _dry_run(config, units)
    flags = {"overwrite": arguments.overwrite, "skip_existing": arguments.skip_existing}
    pending = pending_units(units, [unit_settings(config, unit) for unit in units], **flags)
    if not pending:
        _say(f"all {len(units)} videos are in {config.output.dir}", arguments)
        return 0
    prepare_folder(units[0].stem.parent)
    finished: list[Any] = []
    try:
        _render(config, pending, finished, arguments)
    except KeyboardInterrupt:
        _interrupted(finished, pending, argv)
        return 130
    return 0


def _dry_run(config: Any, units: list[Any]) -> int:
    import shutil

    from vidcfg.render.preview import preview

    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    print(preview(config, units, width=width, colour=sys.stdout.isatty()))
    return 0


def _render(
    config: Any, units: list[Any], finished: list[Any], arguments: argparse.Namespace
) -> None:
    begin = time.monotonic()
    if not arguments.quiet:
        print(f"loading {config.model.kind} model", flush=True)
    from vidcfg.pipelines.load import load_pipeline
    from vidcfg.render.checks import check_after_loading, late_warnings
    from vidcfg.render.job import render_units
    from vidcfg.render.progress import progress_for

    _silence_loaders()
    _print_each_note_once()
    pipe = load_pipeline(config.model)
    check_after_loading(config, pipe)
    for warning in late_warnings(config, pipe):
        _warn(warning)
    evaluations: list[tuple[int, int]] = []

    def on_finished(unit: Any, rendered: Any) -> None:
        finished.append(unit)
        evaluations.append((rendered.trace.total, rendered.trace.planned.naive))

    render_units(
        config,
        pipe,
        units,
        overwrite=arguments.overwrite,
        progress=progress_for(sys.stdout, is_quiet=arguments.quiet),
        on_finished=on_finished,
    )
    run, naive = (sum(column) for column in zip(*evaluations, strict=True))
    videos = "1 video" if len(units) == 1 else f"{len(units)} videos"
    _say(
        f"{videos} in {config.output.dir}, {time.monotonic() - begin:.1f} s, {run} model "
        f"evaluations ({100 * run / naive:.0f} % of 2 per step)",
        arguments,
    )


def _print_each_note_once() -> None:
    """What the engine says of a setting is the same for every video."""
    import logging

    said: set[str] = set()

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if text not in said:
                said.add(text)
                print(text, file=sys.stderr, flush=True)

    logger = logging.getLogger("vidcfg")
    logger.handlers, logger.propagate = [Notes()], False


def _silence_loaders() -> None:
    """Leave the terminal to our own progress: no bars or hints of the libraries that load."""
    import warnings

    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers|transformers")


def _interrupted(finished: list[Any], units: list[Any], argv: list[str]) -> None:
    kept = [word for word in argv if word != "--skip-existing"]
    command = shlex.join(["python", "-m", "vidcfg.render", *kept, "--skip-existing"])
    print(
        f"\ninterrupted: {len(finished)} of {len(units)} videos are finished. "
        f"Continue with: {command}",
        file=sys.stderr,
    )


def _exit_code(error: Exception) -> int | None:
    """1 for failures, 2 for settings that cannot be used, None for a bug."""
    from vidcfg.media.video import MediaError

    if isinstance(error, MediaError | RuntimeError | OSError | MemoryError):
        return 1
    return 2 if isinstance(error, ValueError) else None


def _message(error: Exception, config: str) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "out of memory" in text.lower() or isinstance(error, MemoryError):
        return (
            f"out of memory: {text} Use fewer or smaller frames, model.offload: model, or "
            "model.vae_tiling: true."
        )
    return f"{config}: {text}" if type(error) is ValueError else text


def _fail(text: str, code: int, arguments: argparse.Namespace) -> int:
    if arguments.debug:
        traceback.print_exc()
    print(text, file=sys.stderr)
    return code


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _say(text: str, arguments: argparse.Namespace) -> None:
    if not arguments.quiet:
        print(text, flush=True)
