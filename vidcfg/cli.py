"""What every command line shares: options, exit codes, errors, Ctrl-C."""

import argparse
import atexit
import contextlib
import getpass
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vidcfg.extras import MissingPackageError, explained, quiet_xformers
from vidcfg.plugins import raised_in
from vidcfg.progress import one_line, printable, put

DONE, FAILED, USAGE, ERROR, UNPROVEN, UNSURE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

EXIT_CODES = {
    DONE: "done",
    FAILED: "some of the work failed; the rest stays",
    USAGE: "a configuration, option or input that cannot be used",
    ERROR: "an error while running: full disk, out of memory, NaN; what is finished stays",
    INTERRUPTED: "interrupted (Ctrl-C, SIGTERM); what is finished stays",
}
VERDICTS = {
    DONE: "done, or PASS",
    FAILED: "FAIL",
    UNPROVEN: "INCONCLUSIVE: worse, but not proven",
    UNSURE: "INCONCLUSIVE: no sign of harm, but too much noise or too few clips to be sure",
}
"""What exit codes mean, and what those of a command that gives verdicts do."""


class PlainParser(argparse.ArgumentParser):
    """One whose messages show control characters of what was typed as their escapes."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(printable(message, keep="\n\t"), file)


Todo = Callable[[argparse.Namespace], int]


def parser(
    name: str, about: str, *, details: str = "", has_verdict: bool = False
) -> argparse.ArgumentParser:
    """The parser of `vidcfg <name>`, with --debug, --quiet and --version.

    `details` (what it writes, examples) comes behind the options, before the exit codes.
    """
    from vidcfg import __version__

    made = PlainParser(
        prog=f"vidcfg {name}",
        description=about,
        epilog=f"{details.rstrip()}\n\n{exit_codes(has_verdict)}".lstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"vidcfg {__version__}")
    return shared(made)


def exit_codes(has_verdict: bool) -> str:
    """What exit codes mean, with those of verdicts for a command that gives them."""
    codes = EXIT_CODES | (VERDICTS if has_verdict else {})
    return "exit codes:\n" + "".join(f"  {c:<5}{text}\n" for c, text in sorted(codes.items()))


def shared(made: argparse.ArgumentParser, *, default: Any = False) -> argparse.ArgumentParser:
    """Give a parser the options that all have; a subcommand's takes `argparse.SUPPRESS`.

    Without that its default would replace what stands before the subcommand.
    """
    for name, text in (
        ("--quiet", "print warnings and errors only"),
        ("--debug", "show the traceback of an error"),
    ):
        made.add_argument(name, action="store_true", default=default, help=text)
    return made


def add_set(made: argparse.ArgumentParser, example: str) -> None:
    """`--set PATH=VALUE`, kept as a list in `set`."""
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help=f"replace a value of the file, such as {example}; may be repeated",
    )


def add_out(
    made: argparse.ArgumentParser, text: str, *, metavar: str = "DIR", **more: Any
) -> None:
    """`-o`, `--out`."""
    # Shells leave the `~` of --out=~/kite as it is.
    more["type"] = os.path.expanduser
    made.add_argument("-o", "--out", metavar=metavar, help=text, **more)


def add_workers(made: argparse.ArgumentParser, text: str, default: int | None = 0) -> None:
    """`--workers N`: processes beside this one; 0 does all the work in this process."""
    made.add_argument("--workers", type=_count, default=default, metavar="N", help=text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def run(made: argparse.ArgumentParser, todo: Todo, argv: Sequence[str] | None = None) -> int:
    """Parse `argv` and do the work; the result is the exit code.

    A ValueError is wrong input, and so is what needs a package that is not installed (2);
    RuntimeError, OSError and MemoryError are errors while running (3); anything else is a bug,
    shown with its traceback (3). Ctrl-C, once or twice, is 130, and so is SIGTERM.
    """
    _open_streams()
    _name_user()
    complete(made)
    arguments = made.parse_args(argv)
    quiet_xformers()
    _say_notes_once()
    if getattr(arguments, "quiet", False):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with explained("this"), _ended_as_by_ctrl_c():
            return todo(arguments)
    except KeyboardInterrupt as interrupt:
        _leave_at_once_on_ctrl_c()
        return _fail(made, str(interrupt) or "interrupted", INTERRUPTED, arguments)
    except (ValueError, MissingPackageError) as error:
        return _fail(made, str(error) + raised_in(error), USAGE, arguments)
    except (RuntimeError, OSError, MemoryError) as error:
        text = one_line(error, None)
        # What Python says where HOME is not set, and the user has no entry either.
        fix = " Type: export HOME=FOLDER" if text.startswith("Could not determine home") else ""
        return _fail(made, text + fix + raised_in(error), ERROR, arguments)
    except Exception as error:
        if place := raised_in(error):
            return _fail(made, f"{type(error).__name__}: {error}{place}", ERROR, arguments)
        say(traceback.format_exc(), file=sys.stderr)
        text = f"a bug in vidcfg, please report it: {type(error).__name__}: {error}"
        return _fail(made, text, ERROR, argparse.Namespace(debug=False))


def _open_streams() -> None:
    """Output that is closed takes all and shows nothing; a character that the encoding of an
    output lacks is written as its escape."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - it stays open
            setattr(sys, name, nowhere)
        with contextlib.suppress(AttributeError):  # a notebook's, which takes any character
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _name_user() -> None:
    """A user without a name, as in a container, is called by its number: torch wants a name."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def _say_notes_once() -> None:
    """No hints of the libraries, and each note of the engine once: of a setting it says the same
    for every video.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers|transformers")
    said: dict[str, logging.LogRecord] = {}
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: said.setdefault(record.getMessage(), record) is record)
    logger = logging.getLogger("vidcfg")
    logger.handlers, logger.propagate = [handler], False


def complete(made: argparse.ArgumentParser) -> None:
    """Where a shell asks (`vidcfg completion`), tell how the line may go on, and exit."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(made)


def say(*texts: object, sep: str = " ", end: str = "\n", file: Any = None) -> None:
    """Print at once, control characters as their escapes: names and prompts may hold any."""
    put(printable(sep.join(map(str, texts)), keep="\n\t"), file, end)


def warn(text: str) -> None:
    """A line on standard error that does not stop the command."""
    say(f"warning: {text}", file=sys.stderr)


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, with which schedulers end a command, is a Ctrl-C in the block."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ValueError):  # not the main thread, where no signal arrives
            before = signal.signal(signal.SIGTERM, _interrupt)
            stack.callback(signal.signal, signal.SIGTERM, before)
        yield


def _interrupt(number: int, frame: Any) -> None:
    # Where something must not be interrupted, Ctrl-C has a handler that waits. It is ignored in
    # the background of a script, where SIGTERM has to end the command all the same.
    if callable(handler := signal.getsignal(signal.SIGINT)):
        handler(signal.SIGINT, frame)
    else:
        raise KeyboardInterrupt


def _leave_at_once_on_ctrl_c() -> None:
    """A second Ctrl-C, while libraries shut down, ends the process without a traceback."""
    with contextlib.suppress(ValueError):  # not the main thread, where no Ctrl-C arrives
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)


def _leave(number: int, frame: Any) -> None:
    os._exit(INTERRUPTED)


@atexit.register
def _forget_ctrl_c() -> None:
    """The last steps of the interpreter forget handlers of Python, but not that it is ignored.

    Registered before what libraries clean up, it runs after that.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is _leave:
            signal.signal(number, signal.SIG_IGN)


def _fail(made: argparse.ArgumentParser, text: str, code: int, arguments: Any) -> int:
    if arguments.debug:
        say(traceback.format_exc(), file=sys.stderr)
    say(f"{made.prog}: {text}", file=sys.stderr)
    return code
