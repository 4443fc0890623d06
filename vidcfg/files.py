"""Files that appear whole or not at all, the one writer of every command; and what files hold."""

import hashlib
import json
import os
import shutil
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"
"""What is not yet whole has a name that begins so."""

MACHINE = Path("/etc/machine-id")
"""What tells machines of one name apart, where there is one."""

REMEMBERED_BYTES = 1 << 20
"""The hash of a smaller file is not remembered: reading it is as quick."""

SETTLED_SECONDS = 2.0
"""A file that changed this recently may change again without another time of change."""


class FileError(RuntimeError):
    """A file that cannot be written; the message names it and says why."""


@contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary name in the same folder and rename it to `path` if the block succeeds.

    After any exception, Ctrl-C included, the temporary file is removed and `path` is untouched.

    Raises:
        FileError: `path` exists and `overwrite` is false (before the block runs, and again at
            the rename), or the operating system refuses to write. The message names the file.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path} is a folder, a file is to be written there.")
    if not overwrite and path.exists():
        raise _exists(path)
    temporary = temporary_beside(path)
    try:
        yield temporary
        _publish(temporary, path, overwrite=overwrite)
    except OSError as error:
        raise FileError(_why(path, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def temporary_beside(path: Path) -> Path:
    """A name beside `path` for what is to appear there; it tells which process writes it."""
    return path.with_name(
        f"{TEMPORARY}{_here()}-{os.getpid()}-{uuid.uuid4().hex[:12]}{path.suffix[:16]}"
    )


def remove_leftovers(found: Iterable[Path]) -> None:
    """Delete those temporary files and folders whose process, one of this machine, has ended."""
    for path in found:
        place, _, rest = path.name.removeprefix(TEMPORARY).partition("-")
        number = rest.partition("-")[0]
        if place != _here() or not number.isdecimal() or _is_alive(int(number)):
            continue
        shutil.rmtree(path, ignore_errors=True)  # A file or link stays, and is next.
        with suppress(OSError):
            path.unlink()


def _here() -> str:
    """This machine, or this container of it: numbers of processes count there, and several may
    share a name."""
    marks = [socket.gethostname()]
    with suppress(OSError):
        marks.append(os.readlink("/proc/self/ns/pid"))
    with suppress(OSError):
        marks.append(MACHINE.read_text("utf-8", "replace"))
    return digest("".join(marks))[:8]


def _is_alive(number: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # It is somebody else's.
    return True


def write_text(path: str | Path, text: str) -> Path:
    """Write text in UTF-8, over what is there; what cannot be encoded is written as its escape.

    Raises:
        FileError: as `atomic_path`.
    """
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def append_text(path: Path, text: str) -> None:
    """Add text in UTF-8 to a file that one process writes at a time.

    Raises:
        FileError: the operating system refuses to write; a part of the text may be there.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise FileError(_why(path, error)) from error


def write_json(path: str | Path, value: Any) -> Path:
    """Write JSON with one space of indent; NaN and Inf are refused.

    Raises:
        FileError: as `atomic_path`.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def write_together(contents: Mapping[Path, bytes], *, last: Path, overwrite: bool) -> None:
    """Write files under temporary names, then rename them, the file `last` after all others.

    Called in a thread of its own, or `uninterrupted`, where no Ctrl-C comes between the renames.

    Raises:
        FileError: if one of them cannot be written; then no temporary file stays behind.
    """
    with ExitStack() as stack:
        # The contexts are left in reverse order.
        for path in sorted(contents, key=lambda path: path != last):
            temporary = stack.enter_context(atomic_path(path, overwrite=overwrite))
            temporary.write_bytes(contents[path])
        if overwrite:
            # The one of the previous set must not vouch for this one.
            last.unlink(missing_ok=True)


def make_folder(folder: str | Path, what: str) -> Path:
    """Make a folder and try to write there, before time is spent on what goes into it; what a
    killed run left half written is removed.

    `what` names the setting in errors, such as `output.dir`.

    Raises:
        ValueError: if a file stands there.
        FileError: if it cannot be made or written, with the reason.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"{what} is {folder}, which is a file, not a folder.") from None
    except OSError as error:
        raise FileError(f"{what} {folder} cannot be made: {_reason(error)}.") from None
    remove_leftovers(folder.glob(f"{TEMPORARY}*"))
    probe = temporary_beside(folder / "probe")
    try:
        probe.write_bytes(b"vidcfg")
    except OSError as error:
        raise FileError(f"{what} {folder} cannot be written: {_reason(error)}.") from None
    finally:
        with suppress(OSError):
            probe.unlink()
    return folder


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_sha256(path: str | Path) -> str:
    """`sha256_of`, for which a large file is read once for as long as it stays as it is.

    What was found is kept in the user's cache folder, beside the place, size, inode and times of
    the file. Where any of them differs, or the cache is lost, damaged or not writable, the file
    is read.
    """
    path = Path(path).resolve()
    before = _state(path)
    if before[1] < REMEMBERED_BYTES:
        return sha256_of(path)
    kept = None
    with suppress(OSError, ValueError, RuntimeError, KeyError, TypeError):
        name = hashlib.sha256(os.fsencode(path)).hexdigest()
        kept = user_cache() / "hashes" / f"{name}.json"
        known = json.loads(kept.read_text("utf-8"))
        if known["file"] == before and len(bytes.fromhex(known["sha256"])) == 32:
            return known["sha256"]
    found = sha256_of(path)
    is_settled = time.time() - max(before[2:4]) / 1e9 > SETTLED_SECONDS
    if kept is not None and is_settled and _state(path) == before:
        with suppress(OSError, FileError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, {"file": before, "sha256": found})
    return found


def _state(path: Path) -> list[Any]:
    """What changes with the content of a file; the time of its status cannot be set back."""
    stat = path.stat()
    return [os.fspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def user_cache() -> Path:
    """The folder of vidcfg in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vidcfg"


def content_of(path: Path) -> str | None:
    """What a file, or a folder of files, holds: bytes and hash. None for what is neither."""
    if path.is_file():
        return f"{path.stat().st_size} {sha256_of(path)}"
    if not path.is_dir():
        return None
    files = [(file.name, content_of(file)) for file in sorted(path.iterdir()) if file.is_file()]
    return f"{_bytes_of(path)} {digest(json.dumps(files))}"


def is_content(path: str | Path, content: str) -> bool:
    """Whether a file or folder holds what `content_of` told; of another size it is not read."""
    path = Path(path)
    return content.split(" ")[0] == str(_bytes_of(path)) and content_of(path) == content


def _bytes_of(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


@contextmanager
def uninterrupted() -> Iterator[Callable[[], None]]:
    """Once the given function is called, Ctrl-C waits for the end of the block."""
    held = False
    is_main = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGINT) if is_main else None

    def note(number: int, frame: Any) -> None:
        nonlocal held
        held = True

    def hold() -> None:
        if is_main:
            signal.signal(signal.SIGINT, note)

    try:
        yield hold
    finally:
        if is_main:
            signal.signal(signal.SIGINT, previous)
    if held:
        raise KeyboardInterrupt


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        # A hard link fails if another process took the name meanwhile, a rename would not.
        os.link(temporary, path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:
        os.rename(temporary, path)


def _exists(path: Path) -> FileError:
    return FileError(f"{path} exists. Pass overwrite=True (--overwrite) or choose another name.")


def _why(path: Path, error: OSError) -> str:
    parent = path.parent
    if not parent.exists():
        return f"{path} cannot be written: the folder {parent} does not exist. Create it first."
    if not parent.is_dir():
        return f"{path} cannot be written: {parent} is a file, not a folder."
    return f"{path} cannot be written: {_reason(error)}."


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def digest(text: str) -> str:
    """sha256 of a text, as hexadecimal digits."""
    # A lone surrogate is a legal YAML escape and cannot be encoded otherwise.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
