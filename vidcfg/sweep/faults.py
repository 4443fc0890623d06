"""What an error says about the worker that raised it. Imports neither torch nor Ray."""

from collections.abc import Iterator

STICKY = (
    "cuda error",
    "device-side assert",
    "cublas_status_execution_failed",
    "cublas_status_not_initialized",
    "cudnn_status_execution_failed",
    "uncorrectable ecc",
    "hip error",
)
"""Texts of errors after which the process cannot use its GPU again."""

MAX_MESSAGE = 600


def kind_of(error: BaseException) -> str:
    """`oom`, `sticky` or `error`, by the exception and those that it was raised from.

    `oom`: host or GPU memory ran out, and a job that needs less may still succeed in the same
    process. `sticky`: CUDA is unusable in this process, which must be replaced. `error`: all else.
    """
    chain = list(_chain(error))
    if any(_is_out_of_memory(one) for one in chain):
        return "oom"
    return "sticky" if any(_is_sticky(one) for one in chain) else "error"


def _is_out_of_memory(error: BaseException) -> bool:
    # By name: torch.OutOfMemoryError and ray.exceptions.OutOfMemoryError, without their import.
    if any(base.__name__ in ("OutOfMemoryError", "MemoryError") for base in type(error).__mro__):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


def _is_sticky(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(mark in text for mark in STICKY)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, without going round in circles."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )


def one_line(error: BaseException) -> str:
    """`Type: text` on one line, at most 600 characters."""
    text = " ".join(str(error).split())
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 3]}..."
