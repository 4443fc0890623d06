"""A whole surface: a scale of its own for each step and latent frame. float64, numpy only."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from vidcfg.guidance.schedule import Schedule, Steps, schedule
from vidcfg.guidance.shapes import Float64
from vidcfg.settings.base import AtLeastOne, Finding, Number, plain, refuse

MOST_NUMBERS = 1_000_000
"""More than any run has; a file of more is not read into memory."""


def _rows(value: Any, info: Any) -> Any:
    """Rows of a file, array, tensor or list; one number per step is a row of its own."""
    if isinstance(value, str):
        value = _numbers_of(Path(value).expanduser(), info.context)
    value = plain(value)
    if not isinstance(value, list | tuple):
        return value
    return tuple([row] if isinstance(row, int | float) else row for row in value)


def _numbers_of(path: Path, context: Any) -> list:
    """The numbers of an .npy file; a path that is not absolute starts where the YAML file lies."""
    beside = Path((context or {}).get("source", "")).parent / path
    path = beside if beside.exists() else path
    try:
        # Mapped, so that a size is known before anything is read; never pickled objects.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        reason = f"but it cannot be read: {error.strerror or 'it is no .npy file'}."
        raise refuse(f"{reason} Name a file as numpy.save writes it.") from None
    except Exception:  # a damaged head raises whatever Python's own parser does
        raise refuse("but it holds no numbers as numpy.save writes them.") from None
    shape = getattr(array, "shape", ())
    if len(shape) not in (1, 2) or array.dtype.kind not in "iuf" or array.size > MOST_NUMBERS:
        told = f"{array.dtype} of shape {shape}" if shape else "no array of steps and frames"
        raise refuse(f"but holds {told}. Save numbers of shape (steps, latent frames).")
    return array.tolist()


def _of_one_length(rows_KF: tuple) -> tuple:
    lengths = sorted({len(row) for row in rows_KF})
    if len(lengths) > 1:
        told = f"{lengths[0]} and {lengths[-1]}"
        raise refuse(f"but has rows of {told} numbers. Give each step one number per frame.")
    return rows_KF


@schedule("matrix")
class Matrix(Schedule):
    """A scale for each step (row) and latent frame (column). Off where it is 1.

    `values` are nested lists, an array or tensor [K, F], or the path of an `.npy` file, which is
    read once and from then on is these numbers. A single row holds on every step, a single column
    on every frame. `guidance.scale: [[6.0, 3.0], [2.0, 1.0]]` and `guidance.scale: strength.npy`
    are short for it.
    """

    scales = ("values_KF",)

    values_KF: Annotated[
        AtLeastOne[AtLeastOne[Number]], BeforeValidator(_rows), AfterValidator(_of_one_length)
    ] = Field(alias="values", description="rows of numbers, or an .npy file")

    def findings(self):
        if self.over == "sigma":
            message = "is 'sigma', but a matrix has its own steps. Write 'progress'."
            yield Finding(("over",), message)

    def numbers(self) -> tuple[float, ...]:
        return tuple(number for row in self.values_KF for number in row)

    def raised(self) -> "Matrix":
        rows = tuple(tuple(number + 1.0 for number in row) for row in self.values_KF)
        return self.model_copy(update={"values_KF": rows})

    def check_run(self, position_K: Steps) -> Iterator[Finding]:
        num_rows, num_columns = np.shape(self.values_KF)
        if num_rows not in (1, len(position_K)):
            shape = f"has shape ({num_rows}, {num_columns}), but there are {len(position_K)} steps"
            yield Finding((), f"{shape}. Give {len(position_K)} rows, or one for all steps.")

    def values(self, position_K: Steps) -> Float64[np.ndarray, "K N"]:
        """K rows of a scale for each latent frame, or of one for all."""
        rows_KN = np.array(self.values_KF, dtype=np.float64)
        return np.repeat(rows_KN, len(position_K) // len(rows_KN), axis=0)


def parted(
    rows_KF: Float64[np.ndarray, "K F"],
) -> tuple[Float64[np.ndarray, "K"], Float64[np.ndarray, "K F"]]:
    """Scales and weights of a matrix: row = 1 + (scale - 1) weight.

    The scale of a step is the entry farthest from 1, whose weight is 1; an entry of 1 has weight
    0, as has the whole of a row of ones. So a rule with a second number (`dual`, `multi`) or an
    input for the scale (`embedded`) sees what it sees of frame weights.
    """
    farthest_K = np.abs(rows_KF - 1.0).argmax(axis=1)
    scale_K = rows_KF[np.arange(len(rows_KF)), farthest_K]
    span_K = np.where(scale_K == 1.0, 1.0, scale_K - 1.0)
    return scale_K, (rows_KF - 1.0) / span_K[:, None]
