"""Places such as s3://bucket/store: reached through fsspec, or one sentence why not."""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vidcfg.progress import one_line
from vidcfg.stored.read import ResultsError, inside

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""What of vidcfg[...] brings the library of a kind of address."""

UNREAD = ("attempts", "logs", "report", "damaged")
"""Folders of a store that are not copied."""


def is_url(place: str | Path) -> bool:
    return "://" in str(place) and not str(place).startswith("file://")


def reach(url: str, error: type[Exception]) -> tuple[Any, str]:
    """The file system of a place, and the path there.

    Of a place that is no local folder nothing is remembered, since others may write there; what
    goes wrong on the way is raised as `error`, in one sentence.

    Raises:
        ValueError: there is no such kind of address, or its library is not installed.
    """
    import fsspec

    if not is_url(url):
        # By itself: in an address `::` stands between two places.
        path = os.path.expanduser(url.removeprefix("file://"))
        return fsspec.filesystem("file"), os.path.abspath(path)
    try:
        system, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as why:
        extra = EXTRAS.get(url.partition("://")[0])
        fix = f"Type: pip install 'vidcfg[{extra}]'" if extra else str(why)
        raise ValueError(f"{url} needs a library that is not installed. {fix}") from None
    except ValueError as why:
        raise ValueError(f"{url} cannot be reached: {why}") from None
    return _Distant(system, url, error), root


class _Distant:
    """A file system whose errors, of whichever library, name the place."""

    def __init__(self, system: Any, url: str, error: type[Exception]):
        self._system, self._url, self._error = system, url, error

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._system, name)
        if not callable(found):
            return found

        def called(*args: Any, **kwargs: Any) -> Any:
            try:
                return found(*args, **kwargs)
            except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError):
                raise
            except Exception as why:
                raise self._error(f"{self._url} cannot be reached: {one_line(why)}") from why

        return called


def copy_here(url: str, stack: contextlib.ExitStack) -> Path:
    """Copy what is read of the files at `url`; where they are, until the stack is closed.

    Times of change are kept, where the place knows them.

    Raises:
        ResultsError: it cannot be read, or a name would leave the folder.
    """
    temporary = tempfile.TemporaryDirectory(prefix="vidcfg-store-", ignore_cleanup_errors=True)
    folder = os.path.realpath(stack.enter_context(temporary))
    try:
        system, root = reach(url, ResultsError)
        target = inside(folder, root.rstrip("/").rpartition("/")[2])
        for name in system.find(root):
            inner = name.removeprefix(root).strip("/")
            path = inside(target, inner) if inner else target
            if inner.split("/")[0] in UNREAD:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            # A sweep may be at work there: what goes meanwhile is not copied.
            with contextlib.suppress(FileNotFoundError):
                system.get_file(name, str(path))
            with contextlib.suppress(FileNotFoundError, NotImplementedError):
                os.utime(path, (system.modified(name).timestamp(),) * 2)
    except (OSError, ValueError) as error:
        told = str(error)
        raise ResultsError(told if url in told else f"{url} cannot be read: {told}") from error
    return target


@contextlib.contextmanager
def fetched(arguments: argparse.Namespace, *names: str) -> Iterator[argparse.Namespace]:
    """The arguments with a copy in place of each address that those of these names hold.

    The copies go with the block; `addresses` tells what each is a copy of (`told`).
    """
    addresses: dict[str, str] = {}
    with contextlib.ExitStack() as stack:

        def here(place: Any) -> Any:
            if isinstance(place, list):
                return [here(one) for one in place]
            if place is None or not is_url(place):
                return place
            copy = str(copy_here(place, stack))
            addresses[copy] = place
            return copy

        copies = {name: here(vars(arguments).get(name)) for name in names}
        yield argparse.Namespace(**(vars(arguments) | copies), addresses=addresses)


def told(text: str, addresses: Mapping[str, str]) -> str:
    """A text with the address of each copy in place of its path."""
    for copy, address in addresses.items():
        text = text.replace(copy, address.rstrip("/"))
    return text
