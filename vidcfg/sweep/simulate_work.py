"""The work that a simulated sweep hands out: cells as paths through a tree, cut into tasks.

Cells of one prompt and seed share a trajectory while everything that acted on it was equal. So
they form a tree over the steps: a node is evaluated once, whatever the number of cells below it.
A task is a set of cells that are made together; cutting the tree into more tasks gives more GPUs
something to do and evaluates the steps above the cut once per task.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step of one cell: what acts on the trajectory, and the evaluations that it needs.

    Two cells with equal effects on all steps so far are on one trajectory.
    """

    effect: Hashable
    branches: frozenset[str]


@dataclass(frozen=True)
class Cell:
    """One setting of the grid for one prompt and seed.

    Cells of different roots share nothing: another solver, size or number of steps.
    """

    name: str
    steps: tuple[Step, ...]
    root: Hashable = None

    @property
    def evaluations(self) -> int:
        """Model evaluations of the cell alone."""
        return sum(len(step.branches) for step in self.steps)


@dataclass(frozen=True)
class Group:
    """Cells that one task makes together, and the evaluations of their shared tree."""

    cells: tuple[Cell, ...]
    evaluations: int


OFF = Step(None, frozenset({"cond"}))


def guided_step(strength: Hashable, *, extra: int = 1) -> Step:
    """A step that needs `cond` and `extra` further branches."""
    others = ("uncond", *(f"branch {i}" for i in range(2, extra + 1)))[:extra]
    return Step(strength, frozenset({"cond", *others}))


def group_of(cells: Sequence[Cell]) -> Group:
    return Group(tuple(cells), shared_evaluations(cells))


def shared_evaluations(cells: Sequence[Cell]) -> int:
    """Evaluations of the tree of these cells: every branch of every distinct trajectory once.

    sum over steps k, over trajectories before step k, of |union of the branches needed there|
    """
    return sum(
        len(frozenset().union(*(cell.steps[k].branches for cell in together)))
        for k, together in _nodes(cells)
    )


def _nodes(cells: Sequence[Cell]):
    """(step, cells that are on one trajectory before it), for all nodes of the tree."""
    open_nodes = [(0, part) for part in _by_root(cells)]
    while open_nodes:
        k, together = open_nodes.pop()
        if k < len(together[0].steps):
            yield k, together
            open_nodes += [(k + 1, part) for part in _by_effect(together, k)]


def _by_root(cells: Sequence[Cell]) -> list[list[Cell]]:
    return _parts(cells, lambda cell: cell.root)


def _by_effect(cells: Sequence[Cell], k: int) -> list[list[Cell]]:
    """The cells by what acts on them at step k."""
    assert len({len(cell.steps) for cell in cells}) == 1, "a root has one number of steps"
    return _parts(cells, lambda cell: cell.steps[k].effect)


def _parts(cells: Sequence[Cell], key: Callable[[Cell], Hashable]) -> list[list[Cell]]:
    """The cells of equal key together, in order of first appearance."""
    found: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        found.setdefault(key(cell), []).append(cell)
    return list(found.values())


def cut(cells: Sequence[Cell], num_tasks: int) -> list[Group]:
    """The tree of the cells in at most `num_tasks` groups, by descending cost.

    The cells are laid in the order of the tree and divided into runs of neighbours, such that the
    most expensive run is as cheap as it can be. `num_tasks` of 1 keeps the tree whole; of the
    number of cells, every cell is alone.
    """
    if num_tasks >= len(cells):
        runs = [[cell] for cell in cells]
    else:
        runs = _runs(_tree_order(cells), num_tasks)
    return sorted((group_of(run) for run in runs), key=lambda group: -group.evaluations)


def _tree_order(cells: Sequence[Cell]) -> list[Cell]:
    """The cells such that those with a longer common past are closer."""
    ordered: list[Cell] = []
    open_nodes = [(0, part) for part in reversed(_by_root(cells))]
    while open_nodes:
        k, together = open_nodes.pop()
        if len(together) == 1 or k == len(together[0].steps):
            ordered += together
        else:
            open_nodes += [(k + 1, part) for part in reversed(_by_effect(together, k))]
    return ordered


def _runs(ordered: list[Cell], num_tasks: int) -> list[list[Cell]]:
    """The division with the smallest largest run, found by bisection over the size allowed."""
    pairs = zip(ordered, ordered[1:], strict=False)
    added = [ordered[0].evaluations, *(_added(before, cell) for before, cell in pairs)]
    low, high = max(cell.evaluations for cell in ordered), sum(added)
    while low < high:
        middle = (low + high) // 2
        if len(_fill(ordered, added, middle)) <= num_tasks:
            high = middle
        else:
            low = middle + 1
    return _fill(ordered, added, low)


def _fill(ordered: list[Cell], added: list[int], limit: int) -> list[list[Cell]]:
    runs: list[list[Cell]] = []
    used = 0
    for cell, more in zip(ordered, added, strict=True):
        if runs and used + more <= limit:
            runs[-1].append(cell)
            used += more
        else:
            runs.append([cell])
            used = cell.evaluations
    return runs


def _added(before: Cell, cell: Cell) -> int:
    """What a cell costs beside the one before it: all but the branches of their common nodes."""
    more = cell.evaluations
    if cell.root != before.root:
        return more
    for mine, other in zip(cell.steps, before.steps, strict=True):
        more -= len(mine.branches & other.branches)
        if mine.effect != other.effect:
            break
    return more


def interval_grid(
    num_scales: int, num_starts: int, num_stops: int, *, num_steps: int
) -> list[Cell]:
    """Cells of `scales x starts x stops`: guided from the start to the stop, off elsewhere.

    Starts are spread over 0 to 0.3 of the steps (0 alone where there is one), stops over 0.4 to 1
    (1 alone where there is one), rounded to whole steps.
    """
    starts = [round(num_steps * 0.3 * i / max(num_starts - 1, 1)) for i in range(num_starts)]
    stops = [round(num_steps * (1 - 0.6 * i / max(num_stops - 1, 1))) for i in range(num_stops)]
    return [
        Cell(
            f"scale {scale} from {start} to {stop}",
            tuple(guided_step(scale) if start <= k < stop else OFF for k in range(num_steps)),
        )
        for scale in range(num_scales)
        for start in starts
        for stop in reversed(stops)
    ]
