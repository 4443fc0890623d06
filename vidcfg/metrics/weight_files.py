"""Named weight files: where they come from, how they are recognised, and where they lie.

A net that measures is loaded from a file whose hash is checked, or not at all.
"""

import hashlib
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class WeightFile:
    """One file of weights.

    `size` is in bytes where it is known, `about` in megabytes. Of the hashes, those that are known
    are checked: the whole `sha256`, its first digits `sha256_prefix`, or the `git_sha1` of the
    file as a git blob.
    """

    name: str
    filename: str
    url: str
    used_by: str
    licence: str
    about: float
    size: int | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    git_sha1: str | None = None


_TORCH = "https://download.pytorch.org/models/"

WEIGHTS: dict[str, WeightFile] = {
    w.name: w
    for w in (
        WeightFile(
            name="i3d-k400",
            filename="i3d_pretrained_400.pt",
            url="https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt",
            used_by="fvd",
            licence="Apache-2.0 upstream (deepmind/kinetics-i3d); the port states none",
            about=51.0,
            git_sha1="a867b87ac3a9097d200598b1d48a1b890d8ec744",
        ),
        WeightFile(
            name="r3d18-k400",
            filename="r3d_18-b3b3357e.pth",
            url=_TORCH + "r3d_18-b3b3357e.pth",
            used_by="fd[r3d18-k400], kd[r3d18-k400]",
            licence="BSD-3-Clause (torchvision)",
            about=127.4,
            sha256_prefix="b3b3357e",
        ),
        WeightFile(
            name="lpips-alex",
            filename="alexnet-owt-7be5be79.pth",
            url=_TORCH + "alexnet-owt-7be5be79.pth",
            used_by="lpips_adjacent[alex], lpips_warp[alex]",
            licence="BSD-3-Clause (torchvision)",
            about=233.1,
            sha256_prefix="7be5be79",
        ),
        WeightFile(
            name="lpips-squeeze",
            filename="squeezenet1_1-b8a52dc0.pth",
            url=_TORCH + "squeezenet1_1-b8a52dc0.pth",
            used_by="lpips_adjacent[squeeze], lpips_warp[squeeze]",
            licence="BSD-3-Clause (torchvision)",
            about=4.7,
            sha256_prefix="b8a52dc0",
        ),
        WeightFile(
            name="lpips-vgg",
            filename="vgg16-397923af.pth",
            url=_TORCH + "vgg16-397923af.pth",
            used_by="lpips_adjacent[vgg], lpips_warp[vgg]",
            licence="BSD-3-Clause (torchvision)",
            about=527.8,
            sha256_prefix="397923af",
        ),
        WeightFile(
            name="open-clip-vit-b-32",
            filename="open_clip_vit_b_32_laion2b_s34b_b79k.safetensors",
            url="https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K/resolve/main/"
            "open_clip_model.safetensors",
            used_by="clip_score[open_clip:ViT-B-32]",
            licence="MIT",
            about=577.0,
        ),
    )
}


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
    for path in _places(weight):
        if path.is_file():
            check(weight, path)
            return path
    raise MissingWeightsError(
        f"weights {name} ({weight.about:g} MB) are not on this machine. "
        f"Get them with: vidcfg weights fetch {name}"
    )


def _places(weight: WeightFile) -> list[Path]:
    hub = os.environ.get("TORCH_HOME") or "~/.cache/torch"
    checkpoints = Path(hub).expanduser() / "hub" / "checkpoints"
    return [weights_folder() / weight.filename, checkpoints / weight.filename]


def check(weight: WeightFile, path: Path) -> bool:
    """True if a known hash or size agrees, False if none is known.

    Raises:
        MissingWeightsError: one does not agree.
    """
    facts: list[tuple[str, object, Callable[[], object]]] = [
        ("size", weight.size, lambda: path.stat().st_size),
        ("sha256", weight.sha256, lambda: sha256_of(path)),
        ("git sha1", weight.git_sha1, lambda: git_sha1_of(path)),
    ]
    if weight.sha256_prefix:
        digits = len(weight.sha256_prefix)
        facts.append(("sha256", weight.sha256_prefix, lambda: sha256_of(path)[:digits]))
    known = [fact for fact in facts if fact[1] is not None]
    for what, expected, measure in known:
        found = measure()
        if found != expected:
            raise MissingWeightsError(
                f"{path} is not {weight.name}: its {what} is {found}, not {expected}. "
                f"Delete it and run: vidcfg weights fetch {weight.name}"
            )
    return bool(known)


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file in hex; kept in memory until the file changes."""
    path = Path(path).resolve()
    stat = path.stat()
    return _hashed(str(path), "sha256", stat.st_size, stat.st_mtime_ns)


def git_sha1_of(path: str | Path) -> str:
    """The sha1 that git gives the file as a blob: sha1("blob <size>\\0" + content)."""
    path = Path(path).resolve()
    stat = path.stat()
    return _hashed(str(path), "sha1", stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _hashed(path: str, kind: str, size: int, _changed: int) -> str:
    digest = hashlib.new(kind)
    if kind == "sha1":
        digest.update(b"blob %d\0" % size)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex[:12]}")
    try:
        _download(weight, temporary, report=report, timeout=timeout)
        check(weight, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise MissingWeightsError(
            f"{weight.url} cannot be fetched: {error}. Put the file at {target} by other means."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return target


def _download(weight: WeightFile, target: Path, *, report, timeout: float) -> None:
    from urllib.request import Request, urlopen

    request = Request(weight.url, headers={"User-Agent": "vidcfg"})
    with urlopen(request, timeout=timeout) as response, open(target, "wb") as file:
        length = response.headers.get("Content-Length")
        total, done = int(length) if length else None, 0
        while block := response.read(1 << 20):
            file.write(block)
            done += len(block)
            if report:
                report(done, total)
    if total is not None and done != total:
        raise OSError(f"{done} of {total} bytes arrived")
