"""How many cuts are found between drawn scenes, and how many clips without one are called cut.

    python scripts/flicker_table/cuts.py --seeds 2

Every scene is joined with every scene of the next seed. Clips without a cut: all scenes, and all
scenes with each fault at one, two and four times its strength.
"""

import argparse
import sys

import numpy as np
from faults import FAULTS
from scenes import CLEAN, FLICKERS, FRAMES, draw

from vidcfg.metrics.shots import with_cuts
from vidcfg.progress import Progress

OF_ORDER = ("a frame repeated", "two frames swapped", "a frame dropped", "frozen tail")
"""Faults without a strength."""


def cuts_of(clip: np.ndarray) -> list[int]:
    """First frames of new shots in a clip of levels [T, H, W, 3]."""
    frames = np.clip(np.rint(clip), 0, 255).astype(np.uint8).transpose(0, 3, 1, 2)
    return [index for index, (_, starts) in enumerate(with_cuts(frames)) if starts]


def faulty_clips(clip: np.ndarray, seed: int) -> list[np.ndarray]:
    """A clip with each fault at each strength."""
    made = []
    for name, (fault, _) in FAULTS.items():
        faulty = fault(clip, np.random.default_rng([seed, 3]))
        strengths = (1,) if name in OF_ORDER else (1, 2, 4)
        made += [clip + strength * (faulty - clip) for strength in strengths]
    return made


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="clips of each scene (default: 2)")
    options = parser.parse_args(argv)

    scenes = list(CLEAN | FLICKERS)
    joined, clean, faulty = [], [], []
    todo = [(scene, seed) for seed in range(options.seeds) for scene in scenes]
    with Progress("scenes", len(todo)) as progress:
        for done, (scene, seed) in enumerate(todo, 1):
            clip = draw(scene, seed)
            clean.append(cuts_of(clip))
            faulty += [cuts_of(each) for each in faulty_clips(clip, seed)]
            joined += [cuts_of(np.concatenate([clip, draw(o, seed + 1)])) for o in scenes]
            progress.update(done)

    found = sum(any(abs(at - FRAMES) <= 1 for at in cuts) for cuts in joined)
    exact = sum(cuts == [FRAMES] for cuts in joined)
    print(f"joined: {len(joined)}, found within a frame {found}, at the frame alone {exact}")
    for name, clips in (("clean", clean), ("with a fault", faulty)):
        print(f"{name}: {len(clips)}, called cut {sum(map(bool, clips))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
