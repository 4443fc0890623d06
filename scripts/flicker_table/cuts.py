"""Which cuts between drawn scenes are found, and whether a clip without one is called cut.

    python scripts/flicker_table/cuts.py

Prints the section that `scripts/flicker_table` puts into its page. A few minutes.
"""

from collections import Counter

import numpy as np
from faults import FAULTS
from scenes import CLEAN, FLICKERS, FRAMES, draw

from vidcfg.metrics.catalogue import METRICS
from vidcfg.metrics.meters import ClipMeasures, measure
from vidcfg.metrics.shots import with_cuts
from vidcfg.progress import Progress

OF_ORDER = ("a frame repeated", "two frames swapped", "a frame dropped", "frozen tail")
"""Faults without a strength."""

OF_SHOTS = ("mc_flicker", "judder", "jump_share", "dynamic_degree")

SECTION = """
## Scene cuts

Every scene is cut to every scene of another seed: {pairs} pairs. A cut is right at the very frame
where the other picture begins, and nowhere else.

| clips | number | called cut | right |
|---|---|---|---|
{rows}

Missed, and so scored as a fault: {missed}.
Called cut without one: {false}.

What a cut adds to a clip's values, over the mean of both shots alone, in {near} pairs where it is
found:

| metric | of the shots, median | added, median | added, most |
|---|---|---|---|
{values}
"""


def frames_of(clip: np.ndarray) -> np.ndarray:
    """Uint8 [T, 3, H, W] of a clip of levels [T, H, W, 3]."""
    levels = np.clip(np.rint(clip), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 3, 1, 2))


def cuts_of(clip: np.ndarray) -> list[int]:
    """First frames of new shots."""
    return [index for index, (_, starts) in enumerate(with_cuts(frames_of(clip))) if starts]


def faulty_clips(clip: np.ndarray) -> dict[str, np.ndarray]:
    """A clip with each fault at once, twice and four times its strength."""
    made = {}
    for name, (fault, _) in FAULTS.items():
        faulty = fault(clip, np.random.default_rng([0, 3]))
        if name in OF_ORDER or len(faulty) != len(clip):
            made[f"{name}, x1"] = faulty
            continue
        for strength in (1, 2, 4):
            made[f"{name}, x{strength}"] = clip + strength * (faulty - clip)
    return made


def measured(clip: np.ndarray) -> np.ndarray:
    """Values of OF_SHOTS."""
    meter = ClipMeasures([METRICS[name] for name in OF_SHOTS])
    measure(frames_of(clip), [meter])
    return np.array([record.value for record in meter.finish()])


def section() -> str:
    """Markdown: what was found, missed and called cut, and the values of clips with a cut."""
    scenes = list(CLEAN | FLICKERS)
    firsts, others = ({scene: draw(scene, seed) for scene in scenes} for seed in (0, 1))
    joined, single, distances = {}, {}, []
    with Progress("cuts", len(scenes)) as progress:
        for done, (scene, clip) in enumerate(firsts.items(), 1):
            for other, second in others.items():
                joined[scene, other] = cuts_of(np.concatenate([clip, second]))
            single["no fault", scene] = cuts_of(clip)
            for fault, faulty in faulty_clips(clip).items():
                single[fault, scene] = cuts_of(faulty)

            # What a cut adds to the values of its shots.
            following = scenes[done % len(scenes)]
            if joined[scene, following]:
                shots = (measured(clip) + measured(others[following])) / 2
                whole = measured(np.concatenate([clip, others[following]]))
                distances.append((shots, whole - shots))
            progress.update(done)
    return written(joined, single, np.array(distances))


def written(joined: dict, single: dict, distances: np.ndarray) -> str:
    """The section, of cuts by pair of scenes and by fault and scene; distances [pairs, 2, 4]."""
    steady = {pair: cuts for pair, cuts in joined.items() if not set(pair) & set(FLICKERS)}
    clean = {key: cuts for key, cuts in single.items() if key[0] == "no fault"}
    faulty = {key: cuts for key, cuts in single.items() if key[0] != "no fault"}
    groups = {
        "cut, scenes without flicker": steady,
        "cut, with a scene that flickers": {k: v for k, v in joined.items() if k not in steady},
        "one shot": clean,
        f"one shot, {len(FAULTS)} faults x 1, 2, 4": faulty,
    }
    rows = []
    for name, found in groups.items():
        exact = str(sum(c == [FRAMES] for c in found.values())) if "cut," in name else ""
        rows.append(f"| {name} | {len(found)} | {sum(map(bool, found.values()))} | {exact} |")

    lost = [pair for pair, cuts in joined.items() if cuts != [FRAMES]]
    often = Counter(name for pair in lost for name in set(pair)).most_common(1)
    missed = [f"cuts to or from {n}, {k} of {2 * len(clean) - 1}" for n, k in often if k > 1]
    missed += [f"{a} to {b}" for a, b in lost if not (missed and often[0][0] in (a, b))]
    false = [f"{fault} in {scene} (at {cuts})" for (fault, scene), cuts in single.items() if cuts]
    added = distances[:, 1]
    values = [
        f"| `{name}` | {np.median(distances[:, 0, i]):.5f} | {np.median(added[:, i]):.5f} "
        f"| {added[np.abs(added[:, i]).argmax(), i]:.5f} |"
        for i, name in enumerate(OF_SHOTS)
    ]
    return SECTION.format(
        pairs=len(joined),
        rows="\n".join(rows),
        missed="; ".join(missed) or "none",
        false="; ".join(false) or "none",
        near=len(distances),
        values="\n".join(values),
    )


if __name__ == "__main__":
    print(section())
