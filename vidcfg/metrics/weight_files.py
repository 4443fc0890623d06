"""Named weight files: where they come from, how they are recognised, and where they lie.

A net that measures is loaded from a file whose hash is checked, or not at all.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vidcfg import files
from vidcfg.metrics.record import Backend


@dataclass(frozen=True)
class WeightFile:
    """One file of weights; `about` is its size in megabytes.

    Of the hashes, those that are known are checked: the first digits of the `sha256`, or all of
    it, and the `git_sha1` of the file as a git blob.
    """

    name: str
    filename: str
    url: str
    used_by: str
    licence: str
    about: float
    sha256: str | None = None
    git_sha1: str | None = None


_TORCH = "https://download.pytorch.org/models/"
WEIGHTS: dict[str, WeightFile] = {
    "i3d-k400": WeightFile(
        name="i3d-k400",
        filename="i3d_pretrained_400.pt",
        url="https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt",
        used_by="fvd",
        licence="Apache-2.0 upstream (deepmind/kinetics-i3d); the port states none",
        about=51.0,
        git_sha1="a867b87ac3a9097d200598b1d48a1b890d8ec744",
    )
}
for _name, _filename, _about in (
    ("r3d18-k400", "r3d_18-b3b3357e.pth", 127.4),
    ("lpips-alex", "alexnet-owt-7be5be79.pth", 233.1),
    ("lpips-squeeze", "squeezenet1_1-b8a52dc0.pth", 4.7),
    ("lpips-vgg", "vgg16-397923af.pth", 527.8),
):
    _metrics = ("lpips_adjacent", "lpips_warp") if "lpips" in _name else ("fd", "kd")
    _net = _name.removeprefix("lpips-")
    WEIGHTS[_name] = WeightFile(
        name=_name,
        filename=_filename,
        url=_TORCH + _filename,
        used_by=", ".join(f"{metric}[{_net}]" for metric in _metrics),
        licence="BSD-3-Clause (torchvision)",
        about=_about,
        # torchvision ends a file's name with the first digits of its hash.
        sha256=Path(_filename).stem.rpartition("-")[2],
    )
WEIGHTS["open-clip-vit-b-32"] = WeightFile(
    name="open-clip-vit-b-32",
    filename="open_clip_vit_b_32_laion2b_s34b_b79k.safetensors",
    url="https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K/resolve/main/"
    "open_clip_model.safetensors",
    used_by="clip_score[open_clip:ViT-B-32]",
    licence="MIT",
    about=577.0,
)


class MissingWeightsError(ValueError):
    """Weights that are absent or are not what they should be; the message has the command."""


def weights_folder() -> Path:
    """`VIDCFG_WEIGHTS_DIR`, or `vidcfg/weights` in the user's cache folder."""
    given = os.environ.get("VIDCFG_WEIGHTS_DIR")
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "vidcfg" / "weights"


def is_offline() -> bool:
    """True if `VIDCFG_OFFLINE` or `HF_HUB_OFFLINE` is set to anything but 0."""
    return any(
        os.environ.get(name, "0").lower() not in ("", "0", "false", "no")
        for name in ("VIDCFG_OFFLINE", "HF_HUB_OFFLINE")
    )


def named(name: str) -> WeightFile:
    """The weight file of that name.

    Raises:
        MissingWeightsError: there is none; the message lists the names.
    """
    if name not in WEIGHTS:
        raise MissingWeightsError(f"no weights are named {name!r}. Known: {', '.join(WEIGHTS)}.")
    return WEIGHTS[name]


def find_weights(name: str, *, paths: Mapping[str, str | Path] | None = None) -> Path:
    """The local file of named weights, its hash checked.

    Looks at `paths[name]` (a file given by the user, any content), else in the weights folder,
    else in the cache of torch.hub. Never downloads.

    Raises:
        MissingWeightsError: no file, or one with another hash.
    """
    weight = named(name)
    given = (paths or {}).get(name)
    if given is not None:
        if not Path(given).is_file():
            raise MissingWeightsError(f"{given}, given for {name}, is no file.")
        return Path(given)
    torch_home = Path(os.environ.get("TORCH_HOME") or "~/.cache/torch").expanduser()
    for folder in (weights_folder(), torch_home / "hub" / "checkpoints"):
        path = folder / weight.filename
        if path.is_file():
            check(weight, path)
            return path
    raise MissingWeightsError(
        f"weights {name} ({weight.about:g} MB) are not on this machine. "
        f"Get them with: vidcfg weights fetch {name}"
    )


def check(weight: WeightFile, path: Path) -> bool:
    """True if a known hash agrees, False if none is known.

    Raises:
        MissingWeightsError: one does not agree.
    """
    facts = {"sha256": (weight.sha256, sha256_of), "git sha1": (weight.git_sha1, git_sha1_of)}
    known = {what: fact for what, fact in facts.items() if fact[0] is not None}
    for what, (expected, measure) in known.items():
        found = measure(path)[: len(expected)]
        if found != expected:
            raise MissingWeightsError(
                f"{path} is not {weight.name}: its {what} is {found}, not {expected}. "
                f"Delete it and run: vidcfg weights fetch {weight.name}"
            )
    return bool(known)


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file in hex; kept in memory until the file changes."""
    stat = Path(path).stat()
    return _sha256(str(Path(path).resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, _size: int, _changed: int) -> str:
    return files.sha256_of(path)


def git_sha1_of(path: str | Path) -> str:
    """The sha1 that git gives the file as a blob: sha1("blob <size>\\0" + content)."""
    digest = hashlib.sha1(b"blob %d\0" % Path(path).stat().st_size)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def backend_of(name: str, path: Path) -> Backend:
    """The backend that a file of weights makes."""
    return Backend(name, sha256_of(path), path.name)


@contextmanager
def refusing(path: str | Path, what: str) -> Iterator[None]:
    """Raise MissingWeightsError, "`path` `what`: ...", for any error in the block."""
    try:
        yield
    except Exception as error:
        raise MissingWeightsError(f"{path} {what}: {error}.") from error


def fetch(
    name: str, *, report: Callable[[int, int | None], None] | None = None, timeout: float = 60.0
) -> Path:
    """Download named weights into the weights folder, unless they lie there already.

    The file appears under its name after its hash was checked. `report(done, total)` is called as
    bytes arrive.

    Raises:
        MissingWeightsError: offline, not reachable, or the download has another hash.
    """
    weight = named(name)
    target = weights_folder() / weight.filename
    if target.is_file():
        check(weight, target)
        return target
    if is_offline():
        raise MissingWeightsError(
            f"{name} is not fetched: VIDCFG_OFFLINE or HF_HUB_OFFLINE is set. Unset it, or bring "
            f"{weight.url} to {target} by other means."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    from pooch import HTTPDownloader

    download = HTTPDownloader(
        progressbar=_Arrived(report),
        chunk_size=1 << 20,
        timeout=timeout,
        headers={"User-Agent": "vidcfg"},
    )
    try:
        with files.atomic_path(target, overwrite=True) as temporary:
            download(weight.url, str(temporary), None)
            check(weight, temporary)
    except files.FileError as error:
        raise MissingWeightsError(
            f"{weight.url} cannot be fetched: {error.__cause__ or error}. "
            f"Put the file at {target} by other means."
        ) from error
    return target


class _Arrived:
    """What the downloader counts on: a chunk for each that arrived, at the end all bytes anew."""

    total = done = 0

    def __init__(self, report: Callable[[int, int | None], None] | None):
        self.report = report or (lambda done, total: None)

    def update(self, num_bytes: int) -> None:
        if num_bytes:
            self.done += num_bytes
            # The last chunk is shorter than it is counted.
            self.report(min(self.done, self.total or self.done), self.total or None)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        """Nothing is open."""
