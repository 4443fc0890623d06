"""Where a sweep keeps its results: a folder, or any place that fsspec can reach.

A unit counts as done when it is whole (`vidcfg.stored.unit`), content included. On a local disk
the whole directory appears by one rename; on an object store `DONE` is written last. What stands
in its place without being it (a file, a link, half a unit) is moved to `damaged/`.
"""

import contextlib
import errno
import itertools
import json
import os
import random
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vidcfg.files import TEMPORARY, FileError, atomic_path, remove_leftovers, temporary_beside
from vidcfg.places import is_url, reach
from vidcfg.stored.read import ResultsError, fields_of, parse
from vidcfg.stored.shapes import RenderFacts, shape_of
from vidcfg.stored.unit import DONE, facts_of, read_unit

WRITES = 8
"""So often a unit is written to an object store, where two drivers may be at it at once."""

AT_ONCE = 16
"""So many answers are waited for at once where the store is no local folder."""

PAUSE_SECONDS = 0.5
"""Between two of these writes at most so much more each time, by chance: one of the two wins."""


class StoreError(RuntimeError):
    """The store cannot be used any more: it is full, damaged or not writable."""


class NoStoreError(StoreError, ValueError):
    """What is given as the store is none, or that of another sweep."""


class DamagedFileError(StoreError, ResultsError):
    """A file of the store has another shape than it should; the message names it."""


class Store:
    """Reads and writes the files of a sweep by their path below the root.

    Methods that write raise StoreError if the store is full or cannot be written.
    """

    def __init__(self, url: str):
        self.url, self.is_local = url, not is_url(url)
        try:
            self.fs, self.root = reach(url, StoreError)
        except ValueError as error:
            raise NoStoreError(f"the store {error}") from None
        for place in (Path(self.root), *Path(self.root).parents) if self.is_local else ():
            if place.is_dir():
                break
            if os.path.lexists(place):
                raise NoStoreError(f"the store {url} cannot be: {place} is no folder.")

    def path(self, name: str) -> str:
        """The full path of a file of the store."""
        return f"{self.root.rstrip('/')}/{name}"

    def unit(self, key: str) -> str:
        """The directory of a unit."""
        return f"units/{key[:2]}/{key}"

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where it is missing."""
        try:
            return self.fs.cat_file(self.path(name))
        except FileNotFoundError:
            return None

    def read_json(self, name: str) -> Any:
        """The content of a JSON file, of the shape that its name says; None where it is missing.

        Raises:
            DamagedFileError: if it has another shape, or is no JSON.
        """
        if (text := self.read(name)) is not None:
            return self._checked(parse, text, name, shape_of(name))
        return None

    def render_of(self, key: str) -> dict[str, Any]:
        """What is read of the render of a unit that is done.

        Raises:
            DamagedFileError: if it is damaged.
        """
        name = f"{self.unit(key)}/record.json"
        return self._checked(fields_of, self.read(name) or b"", name, RenderFacts)

    def _checked(self, reader: Callable[..., Any], text: bytes, name: str, shape: Any) -> Any:
        try:
            return reader(text, self.path(name), shape)
        except ResultsError as error:
            raise DamagedFileError(str(error)) from None

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder of the store, sorted, but for those not yet whole."""
        try:
            found = self.fs.ls(self.path(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = (str(name).rstrip("/").rsplit("/", 1)[-1] for name in found)
        return sorted(name for name in names if not name.startswith(TEMPORARY))

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file whole: readers see the old content or the new one."""
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        with self._told():
            if not self.is_local:
                self.fs.pipe_file(self.path(name), data)
                return
            target = self._room_for(name)
            with atomic_path(target, overwrite=True) as temporary, open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, json.dumps(value, indent=1, allow_nan=False) + "\n")

    def append(self, name: str, line: str) -> None:
        """Add a line to a file that one worker writes at a time."""
        with self._told():
            if not self.is_local:
                known = self.read(name) or b""
                self.fs.pipe_file(self.path(name), known + line.encode() + b"\n")
                return
            with open(self._room_for(name), "a", encoding="utf-8") as file:
                file.write(line + "\n")

    def remove(self, name: str) -> None:
        """Delete a file; nothing happens where there is none."""
        with self._told(), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self.fs.rm_file(self.path(name))

    def remove_leftovers(self) -> None:
        """Delete what killed workers of this machine left half written."""
        for folder in ("", "*/", "*/*/") if self.is_local else ():
            remove_leftovers(Path(self.root).glob(f"{folder}{TEMPORARY}*"))

    def is_done(self, key: str) -> bool:
        """Whether a unit is there, whole."""
        return self._is_whole(self.path(self.unit(key)))

    def _is_whole(self, folder: str | Path) -> bool:
        try:
            read_unit(str(folder), None if self.is_local else self.fs, with_content=True)
        except (OSError, ResultsError):
            return False
        return True

    def done_keys(self, keys: Collection[str]) -> set[str]:
        """Those of `keys` that are done; folders that hold none of them are asked once."""
        folders = [f"units/{start}" for start in {key[:2] for key in keys}]
        names = set().union(*self.each(self.names, folders))
        there = [key for key in keys if key in names]
        return set(itertools.compress(there, self.each(self.is_done, there)))

    def each(self, ask: Callable[[str], Any], names: Iterable[str]) -> Iterator[Any]:
        """`map(ask, names)`, many at once where an answer takes as long as hundreds of a disk."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield from (map if self.is_local else pool.map)(ask, names)

    def commit(self, key: str, files: Mapping[str, bytes]) -> bool:
        """Put a unit into the store; False if another worker was first."""
        if self.is_done(key):
            return False
        facts = {name: facts_of(data) for name, data in files.items()}
        whole = {**files, DONE: json.dumps(facts, sort_keys=True).encode()}
        with self._told():
            if self.is_local:
                return self._commit_local(key, whole)
            # Without DONE it is what a killed worker left, or what another one is writing.
            if self.fs.exists(self.path(f"{self.unit(key)}/{DONE}")):
                if self.is_done(key):
                    return False
                self._set_aside(key)
            for number in range(1, 1 + WRITES):
                for name, data in whole.items():
                    self.fs.pipe_file(self.path(f"{self.unit(key)}/{name}"), data)
                if self.is_done(key):
                    return True
                time.sleep(random.uniform(0.0, number * PAUSE_SECONDS))
                if self.is_done(key):
                    return False
        raise StoreError(f"{self.path(self.unit(key))} does not keep what is written there.")

    def _commit_local(self, key: str, files: Mapping[str, bytes]) -> bool:
        # Nothing is synced: what a power failure leaves half is seen by its size or content.
        target = self._room_for(self.unit(key), is_folder=True)
        temporary = temporary_beside(target)
        temporary.mkdir()
        try:
            for name, data in files.items():
                (temporary / name).write_bytes(data)
            while True:
                try:
                    os.rename(temporary, target)
                    return True
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
                if self.is_done(key):
                    return False
                self._set_aside(key)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _set_aside(self, key: str) -> None:
        """Move what is not a whole unit out of the way."""
        folder = self.path(self.unit(key))
        if self.is_local:
            self._move_aside(Path(folder), self._is_whole)
        elif self.fs.exists(folder):
            aside = self.path(f"damaged/{key}-{uuid.uuid4().hex[:6]}")
            self.fs.mv(folder, aside, recursive=True)

    def _room_for(self, name: str, *, is_folder: bool = False) -> Path:
        """The place of a local file, whose folders are made; what is in the way is moved aside."""
        target = Path(self.path(name))
        for inner in reversed(Path(name).parents[:-1]):
            place = Path(self.path(str(inner)))
            if os.path.lexists(place) and not place.is_dir():
                self._move_aside(place, Path.is_dir)
        if target.is_dir() and not is_folder:
            self._move_aside(target, Path.is_file)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _move_aside(self, place: Path, is_wanted: Callable[[Path], bool]) -> None:
        """Move what stands at a place; back again where another worker has put there meanwhile
        what `is_wanted`."""
        name = f"{place.name}-{uuid.uuid4().hex[:6]}"
        # Where `damaged` itself is a file, its new name stands beside it.
        is_damaged = place == Path(self.path("damaged"))
        aside = place.with_name(name) if is_damaged else self._room_for(f"damaged/{name}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(place, aside)
        if is_wanted(aside):
            with contextlib.suppress(OSError):
                os.rename(aside, place)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """An error of the disk or the network as one that says what to do."""
        try:
            yield
        except (OSError, FileError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError(
                    f"the store {self.url} is full. Free some space and run the same command "
                    "again: what is finished stays."
                ) from error
            raise StoreError(f"the store {self.url} cannot be written: {error}") from error
