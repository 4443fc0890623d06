"""How the units of a sweep are cut into jobs for a number of workers.

Units of one prompt and seed that differ in guidance alone form a group: they start from the same
noise and share every evaluation until their settings part. Made whole, a group takes the fewest
evaluations; cut, it keeps more workers busy, and what was shared across a cut is made twice.
"""

import heapq
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

CLOSE = 1.02
"""Cuts that end within this factor of the soonest count as equally soon."""

Units = tuple[str, ...]
Chain = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Job:
    """Units that are made together, by their keys: they may share a trajectory.

    `level` counts how often the job ran out of memory; each level needs less, and changes nothing
    in the result.
    """

    id: str
    units: Units
    level: int = 0


def best_cut(
    groups: Sequence[Units],
    cost: Callable[[Units], int],
    *,
    num_workers: int,
    most: int,
    model: Callable[[Units], str],
) -> list[Units]:
    """The groups in pieces of at most `most` units, the costliest first within a model.

    Of all cuts that end within 2 % of the soonest, the one with the fewest evaluations.
    """
    # What units cost alone and beside each other
    if not groups:
        return []
    chains = [_chain(group, cost) for group in groups]
    sizes = [_cost(chain) for chain in chains]
    largest = max(sizes)

    # Ever more pieces, until no cut can end sooner: workers are busy, and everything is shared
    found, parts = [], 1
    while True:
        # Cheaper groups are cut into fewer pieces, so that all pieces are about as large.
        cuts = [
            _runs(chain, -(-parts * size // largest), most) for chain, size in zip(chains, sizes)
        ]
        costs = [_cost(chain[i:j]) for chain, cut in zip(chains, cuts) for i, j in cut]
        found.append((ends_after(sorted(costs, reverse=True), num_workers), sum(costs), cuts))
        is_ideal = found[-1][0] <= CLOSE * found[0][1] / num_workers
        if is_ideal or len(costs) == sum(map(len, groups)):
            break
        parts = max(parts + 1, int(1.2 * parts))

    # The one to take
    soonest = min(end for end, _, _ in found)
    _, _, cuts = min((one for one in found if one[0] <= CLOSE * soonest), key=lambda one: one[1])
    pieces = [group[i:j] for group, cut in zip(groups, cuts) for i, j in cut]
    return sorted(pieces, key=lambda piece: (model(piece), -cost(piece), piece))


def ends_after(costs: Sequence[int], num_workers: int) -> int:
    """When the last worker is done, if each takes the next job as soon as it is free."""
    busy = [0] * min(num_workers, len(costs))
    for cost in costs:
        heapq.heapreplace(busy, busy[0] + cost)
    return max(busy)


def _chain(group: Units, cost: Callable[[Units], int]) -> Chain:
    """For each unit what it costs alone, and what it costs more beside the one before it."""
    alone = [cost((unit,)) for unit in group]
    beside = [cost(pair) - before for pair, before in zip(pairwise(group), alone)]
    return tuple(zip(alone, [0, *beside]))


@cache
def _cost(chain: Chain) -> int:
    """What a run of neighbours costs: the first alone, and what each adds to the one before it.

    At most a few evaluations too much, where one in the middle needs fewer branches.
    """
    return chain[0][0] + sum(added for _, added in chain[1:])


@cache
def _runs(chain: Chain, count: int, most: int) -> list[tuple[int, int]]:
    """Neighbours in at most `count` runs (more where a run would hold over `most`): the largest
    is as cheap as it can be, found by bisection over the cost allowed."""
    count = max(count, -(-len(chain) // most))
    if count >= len(chain):
        return [(i, i + 1) for i in range(len(chain))]
    low = max(alone for alone, _ in chain)
    limits = range(low, _cost(chain))
    more = bisect_left(limits, True, key=lambda limit: len(_fill(chain, limit, most)) <= count)
    return _fill(chain, low + more, most)


def _fill(chain: Chain, limit: int, most: int) -> list[tuple[int, int]]:
    """Runs of at most `most` units and, where one unit does not exceed it, a cost of `limit`."""
    starts, used = [0], chain[0][0]
    for i, (alone, added) in enumerate(chain[1:], start=1):
        if used + added <= limit and i - starts[-1] < most:
            used += added
        else:
            starts.append(i)
            used = alone
    return list(pairwise([*starts, len(chain)]))
