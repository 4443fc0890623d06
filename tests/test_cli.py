"""What every command line shares: options, exit codes, errors, Ctrl-C."""

import getpass
import io
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vidcfg import __version__, cli
from vidcfg.files import FileError, uninterrupted, user_cache
from vidcfg.media.video import MediaError
from vidcfg.progress import Progress
from vidcfg.regress.__main__ import main as regress

ROOT = Path(__file__).parents[1]


def _parser():
    made = cli.parser("demo", "Show what is shared.", details="examples:\n  vidcfg demo x.yaml")
    cli.add_set(made, "guidance.scale=3.0")
    cli.add_out(made, "where the result goes")
    cli.add_workers(made, "processes beside this one")
    return made


def _run(*argv, todo=lambda arguments: cli.DONE):
    return cli.run(_parser(), todo, argv)


def _raise(error):
    def todo(arguments):
        raise error

    return todo


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("num_frames is 80. Use 77 or 81."), 2),
        (MediaError("the image kite.png cannot be read"), 2),
        (RuntimeError("the loss is nan"), 3),
        (FileError("out/a.mp4 cannot be written"), 3),
        (OSError(28, "No space left on device"), 3),
        (KeyboardInterrupt(), 130),
        (KeyboardInterrupt("interrupted: 1 of 2 videos are finished."), 130),
    ],
)
def test_exit_code_and_one_line_tell_what_kind_of_error_it_was(capsys, error, code):
    assert _run(todo=_raise(error)) == code
    text = capsys.readouterr().err
    assert text == f"vidcfg demo: {str(error) or 'interrupted'}\n"


def test_lack_of_memory_has_a_line_though_python_gives_it_no_text(capsys):
    assert _run(todo=_raise(MemoryError())) == 3
    assert capsys.readouterr().err == "vidcfg demo: MemoryError\n"


def test_a_bug_is_shown_with_its_traceback_and_asks_for_a_report(capsys):
    assert _run(todo=_raise(KeyError("name"))) == 3
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "vidcfg demo: a bug in vidcfg, please report it: KeyError: 'name'" in text


def test_the_result_of_the_work_is_the_exit_code():
    assert _run(todo=lambda arguments: cli.FAILED) == 1
    assert _run() == 0


def test_debug_adds_the_traceback(capsys):
    assert _run("--debug", todo=_raise(ValueError("no"))) == 2
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert text.endswith("vidcfg demo: no\n")


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit, match="0"):
        _run("--version")
    assert capsys.readouterr().out == f"vidcfg {__version__}\n"


def test_help_ends_with_the_exit_codes(capsys):
    with pytest.raises(SystemExit, match="0"):
        _run("--help")
    text = capsys.readouterr().out
    assert text.startswith("usage: vidcfg demo")
    assert text.index("vidcfg demo x.yaml") < text.index("exit codes:") < text.index("130  inter")
    assert "\n  0    done\n  1    some of the work failed" in text
    assert not re.search("PASS|FAIL|INCONCLUSIVE|^  [45] ", text, re.MULTILINE)


def test_help_of_a_command_that_gives_verdicts_has_their_exit_codes():
    text = cli.parser("demo", "Demo.", has_verdict=True).format_help()
    codes = re.findall(r"^  (\d+) +(\w+)", text.partition("exit codes:\n")[2], re.MULTILINE)
    assert [code for code, _ in codes] == ["0", "1", "2", "3", "4", "5", "130"]
    assert [word for _, word in codes if word.isupper()] == ["FAIL", *["INCONCLUSIVE"] * 2]


@pytest.mark.parametrize(("command", "has_verdict"), [("check", True), ("record", False)])
def test_help_of_a_subcommand_of_the_gate_has_its_own_exit_codes(command, has_verdict, capsys):
    with pytest.raises(SystemExit, match="0"):
        regress([command, "--help"])
    text = capsys.readouterr().out
    assert "\n  130  interrupted" in text
    assert ("\n  4    INCONCLUSIVE" in text) == has_verdict


def test_options_are_spelled_alike():
    made = _parser()
    assert made.parse_args(["-o", "a"]).out == made.parse_args(["--out", "a"]).out == "a"
    plain = made.parse_args([])
    assert (plain.out, plain.set, plain.workers) == (None, [], 0)
    assert (plain.quiet, plain.debug) == (False, False)
    assert made.parse_args(["--set", "a=1", "--set", "b=2"]).set == ["a=1", "b=2"]
    assert made.parse_args(["--workers", "3"]).workers == 3
    assert made.parse_args(["--out=~/kite"]).out == os.path.expanduser("~/kite")


@pytest.mark.parametrize("number", ["-1", "two", "1.5", ""])
def test_a_number_of_workers_that_is_none_is_refused_with_a_sentence(capsys, number):
    with pytest.raises(SystemExit, match="2"):
        _run(f"--workers={number}")
    error = capsys.readouterr().err
    assert f"argument --workers: {number!r} is not a whole number of at least 0" in error


def test_warnings_do_not_stop_a_command(capsys):
    cli.warn("guidance.rescale has no effect")
    assert capsys.readouterr().err == "warning: guidance.rescale has no effect\n"


MANY = """
import pathlib, sys
from vidcfg import cli
from vidcfg.progress import Progress
from vidcfg.regress.__main__ import main as regress

def todo(arguments):
    with Progress("lines", 10**4, stream=sys.stdout) as progress:
        for i in range(10**4):
            cli.say("line")
            progress.update(i, line="line")
    pathlib.Path(sys.argv[1]).write_text("the work is done")
    return cli.FAILED

sys.exit(cli.run(cli.parser("demo", ""), todo, []))
"""


def test_a_reader_that_closes_the_pipe_changes_neither_the_work_nor_the_exit_code(tmp_path):
    with _process("-c", MANY, str(tmp_path / "done")) as process:
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.wait(30) == cli.FAILED
        assert process.stderr.read() == ""
    assert (tmp_path / "done").read_text() == "the work is done"


def test_another_broken_pipe_is_an_error(capsys):
    assert _run(todo=_raise(BrokenPipeError(32, "Broken pipe"))) == cli.ERROR
    assert "Broken pipe" in capsys.readouterr().err


def test_a_stream_of_few_characters_gets_escapes_and_one_that_is_closed_nothing():
    code = "import sys\nfrom vidcfg import cli\nsys.exit(cli.run(cli.parser('demo', ''), "
    code += "lambda a: sys.stdout.isatty() or cli.say('20 \u2588') or 0, []))"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "20 \\u2588\n", "")
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" >&-', *command], env=environment, stderr=subprocess.PIPE
    )
    assert (closed.returncode, closed.stderr) == (0, b"")


def test_characters_that_an_output_cannot_encode_are_written_as_their_escapes(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    assert _run(todo=lambda arguments: print("réd \u2192 日本") or cli.DONE) == cli.DONE
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue() == b"r\xe9d \\u2192 \\u65e5\\u672c\n"


@pytest.mark.parametrize("closed", [("stderr",), ("stdout", "stderr")])
def test_a_command_whose_outputs_are_closed_works_in_silence(monkeypatch, closed):
    for name in closed:
        monkeypatch.setattr(sys, name, None)

    def todo(arguments):
        with Progress("videos", 2) as progress:
            progress.update(2)
        cli.warn("nobody reads this")
        raise ValueError("nor this")

    assert _run(todo=todo) == cli.USAGE


def test_a_user_of_a_container_without_name_and_home(monkeypatch, capsys):
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    # What torch asks for, and what the places of weights are made of.
    assert _run(todo=lambda arguments: getpass.getuser() != str(os.getuid())) == cli.DONE
    assert _run(todo=lambda arguments: user_cache() and cli.DONE) == cli.ERROR
    assert capsys.readouterr().err.endswith("home directory. Type: export HOME=FOLDER\n")


def test_held_ctrl_c_comes_after_the_block_and_the_handler_is_given_back():
    handler, done = signal.getsignal(signal.SIGINT), []

    def block():
        with uninterrupted() as hold:
            hold()
            signal.raise_signal(signal.SIGINT)
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_sigterm_is_a_ctrl_c_and_its_handler_is_given_back(capsys, ctrl_c):
    handler, before = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGINT, ctrl_c)
    try:
        assert _run(todo=lambda arguments: signal.raise_signal(signal.SIGTERM)) == 130
        # Now each of both ends the process at once.
        assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is cli._leave
        signal.signal(signal.SIGTERM, handler)
        assert _run() == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert capsys.readouterr().err == "vidcfg demo: interrupted\n"


def test_sigterm_waits_where_ctrl_c_does():
    done = []

    def todo(arguments):
        with uninterrupted() as hold:
            hold()
            signal.raise_signal(signal.SIGTERM)
            done.append(1)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert (_run(todo=todo), done) == (130, [1])
    finally:
        signal.signal(signal.SIGINT, handlers[0])
        signal.signal(signal.SIGTERM, handlers[1])


# A command whose clean-up takes long, with a process beside it that must not outlive it.
SLOW = """
import atexit, multiprocessing, sys, time
from vidcfg import cli

def clean_up():
    print("cleaning", flush=True)
    time.sleep(60)

def work(arguments):
    spawn = multiprocessing.get_context("spawn")
    child = spawn.Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    print(child.pid, flush=True)
    try:
        time.sleep(60)
    finally:
        child.terminate()
        child.join()

if __name__ == "__main__":
    atexit.register(clean_up)
    sys.exit(cli.run(cli.parser("demo", ""), work, []))
"""


def _process(*arguments):
    return subprocess.Popen(
        [sys.executable, *(arguments if len(arguments) > 1 else ("-c", *arguments))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_second_ctrl_c_while_cleaning_up_ends_at_once_and_leaves_nothing(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    with _process("-u", str(script)) as process:
        child = int(process.stdout.readline())
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cleaning\n"
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert time.monotonic() - begin < 10
        assert process.stderr.read() == "vidcfg demo: interrupted\n"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
