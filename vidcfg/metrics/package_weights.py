"""Convolution weights that a pinned source package holds: got by pip, read as arrays only.

Neither the package's code nor its build is run: pip checks the hash of the file, and is given a
build backend of ours that only says what the package is called.
"""

import os
import pickle
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

_BACKEND = """\
import sys
from pathlib import Path

__legacy__ = sys.modules[__name__]


def get_requires_for_build_wheel(settings=None):
    return []


def prepare_metadata_for_build_wheel(folder, settings=None):
    made = Path(folder, "{stem}.dist-info")
    made.mkdir()
    text = "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}"
    made.joinpath("METADATA").write_text(text)
    return made.name
"""
"""What stands in for setuptools, whose hooks would run the package's `setup.py`."""

_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


@dataclass(frozen=True)
class PackageFile:
    """A source package by its exact bytes, and the pickle in it that holds a net.

    `layers` are the numbers of the net's convolutions in torchvision's `features`.
    """

    name: str
    version: str
    size: int
    sha256: str
    member: str
    layers: tuple[int, ...]

    @property
    def stem(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}"

    def __str__(self) -> str:
        return f"the source package {self.name} {self.version}, {self.stem}.tar.gz"


def download(package: PackageFile, folder: Path, *, quiet: bool) -> Path:
    """The package's file, brought to a folder by pip with the user's own settings.

    Raises:
        ValueError: pip could not, or got another file; what it printed says why.
    """
    with TemporaryDirectory() as own:
        backend = Path(own, "setuptools")
        backend.mkdir()
        backend.joinpath("__init__.py").touch()
        text = _BACKEND.format(stem=package.stem, name=package.name, version=package.version)
        backend.joinpath("build_meta.py").write_text(text)
        wanted = Path(own, "requirements.txt")
        wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
        command += ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517", "--no-input"]
        command += ["--disable-pip-version-check", *(["--quiet"] if quiet else [])]
        command += ["--dest", str(folder), "--requirement", str(wanted)]
        first = os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH")]))
        # Standard output is for what the command finds.
        env = os.environ | {"PYTHONPATH": first}
        done = subprocess.run(command, stdout=2, env=env, check=False)
    path = folder / f"{package.stem}.tar.gz"
    if done.returncode or not path.is_file():
        raise ValueError(
            f"`python -m pip download {package.name}=={package.version}` failed; "
            "bring the file here by other means and add --from FILE"
        )
    return path


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, not arrays alone")
        return _ADMITTED[module, name]


def tensors_in(package: PackageFile, path: Path) -> dict[str, np.ndarray]:
    """`features.N.weight` [out, in, height, width] and `features.N.bias` [out], float32.

    The pickle nests `Conv_N` with a kernel [height, width, in, out] and a bias below one name.

    Raises:
        Exception: of any kind, where the file is not such a package.
    """
    with tarfile.open(path) as archive:
        stored = _ArraysOnly(archive.extractfile(f"{package.stem}/{package.member}")).load()
    net = next(value for value in stored.values() if len(value) == len(package.layers))
    tensors = {}
    for number, layer in enumerate(package.layers):
        found = net[f"Conv_{number}"]
        kernel = found["kernel"].transpose(3, 2, 0, 1)
        tensors[f"features.{layer}.weight"] = np.ascontiguousarray(kernel, np.float32)
        tensors[f"features.{layer}.bias"] = np.ascontiguousarray(found["bias"], np.float32)
    return tensors
