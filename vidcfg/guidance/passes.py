"""How the rows of a step become model calls: one per branch, all at once, or in small pieces."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Row = tuple[str, int]
"""A branch and the number of a sample."""
Place = tuple[Tensor, int]
"""The result of a model call, and the row of it."""
Evaluate = Callable[[dict[str, Tensor], tuple[str, ...]], Tensor]
"""Runs the model on named inputs of N rows; the second argument names the branch of each row."""

_SECONDS: dict[tuple, dict[str, list[float]]] = {}
_WARM_UP = 1
_TIMED = 2
_BEGINNING = 4096


@dataclass(frozen=True)
class Passes:
    """How a model wants to be called: the stock pipeline's own way, and what the user chose.

    `mode` is pipeline, sequential, batched or auto; `stock` is what "pipeline" means here.
    """

    mode: str = "pipeline"
    stock: str = "sequential"
    micro_batch: int | None = None
    share: bool = True


@dataclass(frozen=True)
class StepInputs:
    """What one denoiser call brings.

    Args:
        shared: inputs that all branches see, each with B rows; the first is the noisy sample.
        by_branch: further inputs of each branch (texts, masks), each with B rows.
        num_frames: latent frames F.
        step: index of the denoising step, for the surface.
        level: (alpha, sigma) of x_t = alpha x0 + sigma eps, or None where it is not known.
        prediction: kind of the model's prediction (vidcfg.guidance.prediction.KINDS).
        expert: name of the model, for pipelines with several.
        grid: height and width of a frame in tokens, for the layout "tokens" (else known).
        num_channels: channels of a prediction, where the noisy sample has more.
    """

    shared: Mapping[str, Tensor]
    by_branch: Mapping[str, Mapping[str, Tensor]]
    num_frames: int
    step: int
    level: tuple[float, float] | None = None
    prediction: str = "flow"
    expert: str | None = None
    grid: tuple[int, int] | None = None
    num_channels: int | None = None

    @property
    def noisy(self) -> Tensor:
        return next(iter(self.shared.values()))

    @property
    def sigma(self) -> float | None:
        return None if self.level is None else self.level[1]

    def known_level(self, what: str, instead: str) -> tuple[float, float]:
        """(alpha, sigma) of this step, which `what` needs; `instead` tells what to use without.

        Raises:
            ValueError: if the scheduler does not tell it.
        """
        if self.level is None:
            raise ValueError(
                f"{what} needs the noise level of the scheduler, which this scheduler does not "
                f"give. Use {instead}."
            )
        return self.level


@dataclass(frozen=True)
class PassTimer:
    """Chooses between sequential and batched passes by timing each on real steps.

    Steps with equal `rows` (how many rows each branch has) are compared with each other alone.
    Each way runs three such steps in turn, batched first; the first of each is not counted, as it
    pays for allocation. The faster way is then kept per (key, rows) for the life of the process.
    Steps that run one branch only are the same both ways and are not timed.
    """

    key: tuple

    def choose(self, rows: tuple[int, ...] = ()) -> str:
        """The way to run the next step."""
        times = self._times(rows)
        if all(len(seconds) >= _WARM_UP + _TIMED for seconds in times.values()):
            return min(times, key=lambda mode: min(times[mode][_WARM_UP:]))
        return "batched" if len(times["batched"]) <= len(times["sequential"]) else "sequential"

    def record(self, mode: str, seconds: float, rows: tuple[int, ...] = ()) -> None:
        """Add the time of one step; steps after the choice has been made change nothing."""
        times = self._times(rows)[mode]
        if len(times) < _WARM_UP + _TIMED:
            times.append(seconds)

    def _times(self, rows: tuple[int, ...]) -> dict[str, list[float]]:
        return _SECONDS.setdefault((self.key, rows), {"batched": [], "sequential": []})


def clock(device: torch.device) -> float:
    """Seconds, after the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def served_by(
    needed: list[tuple[str, ...]], inputs: StepInputs, *, share: bool, told: dict[tuple, tuple]
) -> dict[Row, Row]:
    """The evaluation that serves each branch that a sample needs; `told` as in `same_rows`."""
    if not share or len(needed) < 2:
        return {(branch, s): (branch, s) for s, names in enumerate(needed) for branch in names}
    sources = {}
    for branch in dict.fromkeys(branch for names in needed for branch in names):
        own = inputs.by_branch[branch]
        shared = {name: rows for name, rows in inputs.shared.items() if name not in own}
        seen = [same_rows(("shared", *shared), shared, told)] if shared else []
        if own and not (shared and len(set(seen[0])) == len(needed)):
            seen.append(same_rows((branch,), own, told))
        first: dict[tuple[int, ...], int] = {}
        for s, key in enumerate(zip(*seen)):
            if branch in needed[s]:
                sources[branch, s] = (branch, first.setdefault(key, s))
    return sources


def same_rows(
    name: tuple[str, ...], tensors: Mapping[str, Tensor], told: dict[tuple, tuple]
) -> list[int]:
    """For every row of these inputs the first one that is equal to it in all of them.

    `told` remembers by name what was said last, which holds while the tensors are the same and
    nothing has written to them: inputs are compared once a step, texts once a run.
    """
    versions = [None if t.is_inference() else t._version for t in tensors.values()]
    before, known, rows = told.get(name, ((), None, []))
    unchanged = known == versions and None not in versions
    if not unchanged or any(a is not b for a, b in zip(before, tensors.values())):
        given = tuple(tensors.values())
        rows = equal_rows(given)
        told[name] = (given, versions, rows)
    return rows


def run_rows(
    rows: list[Row],
    inputs: StepInputs,
    evaluate: Evaluate,
    passes: Passes,
    *,
    isolated: frozenset[str],
    timer: PassTimer | None,
) -> tuple[dict[Row, Place], int]:
    """Where the prediction of each row is, and the number of model calls."""
    # Which way: the user's, the stock pipeline's, or the faster one.
    sizes = Counter(branch for branch, _ in rows if branch not in isolated)
    mode = passes.stock if passes.mode == "pipeline" else passes.mode
    shapes = {
        frozenset((name, t.shape[1:]) for name, t in inputs.by_branch[branch].items())
        for branch in sizes
    }
    stackable = len(sizes) > 1 and len(shapes) == 1  # one call can hold all branches
    timed = mode == "auto" and stackable
    if timed:
        mode = timer.choose(tuple(sizes.values()))

    # The calls, those that change the model last and never timed.
    batched, size = mode == "batched" and stackable, passes.micro_batch
    calls = model_calls(rows, batched=batched, micro_batch=size, isolated=isolated)
    apart = next((i for i, call in enumerate(calls) if call[0][0] in isolated), len(calls))
    began = clock(inputs.noisy.device) if timed else 0.0
    results = _evaluated(calls[:apart], inputs, evaluate)
    if timed:
        seconds = clock(inputs.noisy.device) - began
        timer.record(mode, seconds, tuple(sizes.values()))
    return results | _evaluated(calls[apart:], inputs, evaluate), len(calls)


def model_calls(
    rows: list[Row], *, batched: bool, micro_batch: int | None, isolated: frozenset[str]
) -> list[list[Row]]:
    """Cut `rows` (branch, sample) into model calls.

    Sequential: one call per branch, in the order in which the branches first appear. Batched: one
    call, `cond` last as diffusers does. Each `isolated` branch follows in a call of its own, in
    either way. `micro_batch` caps the rows of a call (None: no cap); with 1 a
    result does not depend on its batch neighbours, bit for bit.
    """
    by_branch: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_branch[row[0]].append(row)
    apart = [by_branch.pop(name) for name in list(by_branch) if name in isolated]
    calls = list(by_branch.values())
    if batched:
        names = sorted(by_branch, key=lambda name: name == "cond")
        calls = [[row for name in names for row in by_branch[name]]]
    size = micro_batch or max(len(rows), 1)
    return [call[i : i + size] for call in calls + apart for i in range(0, len(call), size)]


def _evaluated(calls: list[list[Row]], inputs: StepInputs, evaluate: Evaluate) -> dict[Row, Place]:
    """Where the predictions of the rows of some model calls are."""
    results, count = {}, inputs.noisy.shape[0]
    for call in calls:
        # The inputs: the rows of each branch, in the order of the call.
        pieces = []
        for branch in dict.fromkeys(branch for branch, _ in call):
            samples = [sample for name, sample in call if name == branch]
            tensors = {**inputs.shared, **inputs.by_branch[branch]}
            start, stop = samples[0], samples[-1] + 1
            if samples != list(range(start, stop)):
                index = torch.tensor(samples, device=inputs.noisy.device)
                tensors = {n: t.index_select(0, index.to(t.device)) for n, t in tensors.items()}
            elif stop - start < count:
                tensors = {name: t[start:stop] for name, t in tensors.items()}
            pieces.append(tensors)
        rows = pieces[0]
        if len(pieces) > 1:
            rows = {name: torch.cat([piece[name] for piece in pieces]) for name in rows}
        prediction = evaluate(rows, tuple(branch for branch, _ in call))
        assert len(prediction) == len(call), "the model must return one row per input row"
        results |= {row: (prediction, i) for i, row in enumerate(call)}
    return results


def at_places(places: list[Place]) -> Tensor:
    """The predictions at some places, of one row where all are the same: a view, or a copy."""
    first, start = places[0]
    rows = [i for prediction, i in places if prediction is first]
    if rows == [start] * len(places):
        return first[start : start + 1]
    if rows == list(range(start, start + len(places))):
        return first[start : start + len(places)]
    return torch.cat([prediction[i : i + 1] for prediction, i in places])


def equal_rows(tensors: Sequence[Tensor]) -> list[int]:
    """For each row the first one that is equal to it, bit for bit, in all tensors."""
    # The rows as integers of the same width, so that -0.0 and 0.0 differ and NaN equals itself.
    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    patterns = [t.reshape(len(t), -1).contiguous().view(widths[t.itemsize]) for t in tensors]
    # Rows whose beginnings have unequal sums are unequal; a comparison tells of the others.
    sums = [p[:, :_BEGINNING].sum(dim=1, dtype=torch.int64) for p in patterns]
    sums = torch.stack([s.to(sums[0].device) for s in sums], dim=1).tolist()
    first: dict[tuple, list[int]] = {}
    served = []
    for row, key in enumerate(map(tuple, sums)):
        known = first.setdefault(key, [])
        equal = (k for k in known if all(torch.equal(p[k], p[row]) for p in patterns))
        served.append(next(equal, row))
        if served[-1] == row:
            known.append(row)
    return served
