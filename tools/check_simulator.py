"""The sweep simulator against a real sweep on two Ray workers.

    python tools/check_simulator.py [pairs] [rounds]

Renders a grid of videos of the mini model whose lengths differ six-fold, on one worker and then on
two. Costs are fitted to what one worker recorded, or taken from what the two recorded; the
simulator then says how long two workers take, and the run says how long they took. The second
comparison is free of what other work on the machine, and the shared memory bus, cost two workers.
"""

import sys

from bench_ray import start_ray, with_ray
from fleet import Fleet, run_fleet
from simulate_cluster import fit_costs

STEPS = (60, 45, 30, 20, 15, 10)


def predict(records: list[tuple[int, int, float]], jobs: list[tuple[int, int, float]]) -> float:
    """Seconds of two workers by the simulator, costs fitted to the records."""
    costs = fit_costs(records)
    seconds = [costs.seconds(evaluations, units) for evaluations, units, _ in jobs]
    return run_fleet(seconds, Fleet(gpus=2, load_seconds=0.0)).seconds


def recorded(events: list) -> list[tuple[int, int, float]]:
    return [
        (sum(result["evaluations"] for result in event.results), len(event.results), event.seconds)
        for event in events
    ]


def main(pairs: int, rounds: int) -> None:
    import ray

    start_ray()
    units = [f"{steps}-{seed}" for steps in STEPS for seed in range(pairs)]
    for _ in range(rounds):
        wall_one, one = with_ray(1, units)
        wall_two, two = with_ray(2, units)
        print(f"{len(units)} videos: one worker {wall_one:.2f} s, two workers {wall_two:.2f} s")
        for name, events in (("one worker", one), ("two workers", two)):
            told = predict(recorded(events), recorded(two))
            print(
                f"  costs recorded by {name}: two workers would take {told:.2f} s, "
                f"{100 * (told / wall_two - 1):+.1f} %"
            )
    ray.shutdown()


if __name__ == "__main__":
    main(*(int(word) for word in (sys.argv[1:] + ["3", "3"][len(sys.argv) - 1 :])))
