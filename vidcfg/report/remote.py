"""Stores that are no local folder: copied to one for reading, written back file by file."""

import tempfile
from pathlib import Path

UNREAD = ("features.npz", "sheet.png")
UNREAD_FOLDERS = ("attempts", "logs", "report", "damaged")


def is_url(place: str | Path) -> bool:
    return "://" in str(place)


def local_copy(url: str) -> Path:
    """A temporary folder with what a report needs of a store; a `file://` URL is not copied.

    Raises:
        ValueError: the place cannot be reached, or its protocol is unknown.
        OSError: a file cannot be copied.
    """
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ValueError(f"{url} cannot be reached: {error}") from error
    if url.startswith("file://"):
        return Path(root)
    folder = Path(tempfile.mkdtemp(prefix="vidcfg-store-"))
    for name in system.find(root):
        inner = Path(name.removeprefix(root).lstrip("/"))
        if inner.name not in UNREAD and inner.parts[0] not in UNREAD_FOLDERS:
            target = folder / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(name, str(target))
    return folder


def put(files: list[Path], url: str) -> None:
    """Copy files into the folder at `url`, replacing those of the same name."""
    import fsspec

    system, root = fsspec.core.url_to_fs(url)
    system.makedirs(root, exist_ok=True)
    for path in files:
        system.put_file(str(path), f"{root.rstrip('/')}/{path.name}")
