"""Whether a part of the picture that stands still is told, and what stands still rightly is not.

    python scripts/flicker_table/held.py

Prints the section that `scripts/flicker_table` puts into its page. A few minutes.
"""

import zlib
from collections import defaultdict

import numpy as np
from cuts import frames_of
from scenes import CLEAN, FLICKERS, SIZE, TIME, disc, draw, panning, photograph, seen, texture

from vidcfg.metrics.catalogue import METRICS
from vidcfg.metrics.meters import ClipMeasures, measure
from vidcfg.progress import Progress

PARTS = {
    "half": np.s_[:, : SIZE // 2],
    "third": np.s_[:, SIZE // 3 : 2 * SIZE // 3],
    "quadrant": np.s_[: SIZE // 2, : SIZE // 2],
    "tile of a ninth": np.s_[SIZE // 3 : 2 * SIZE // 3, SIZE // 3 : 2 * SIZE // 3],
}
"""Name -> what of a frame [H, W] stands still."""

BARS = np.s_[SIZE // 8 : -SIZE // 8]

SECTION = """
## Parts that stand still

A part of the picture keeps what it shows in frame 0, or in frame 6, while the rest goes on.
*Seen*: the share of clips that `held_share` is above 0 in; *reads*: its mean where it is, beside
the share of the picture and of the pairs that is held. A part is told where something moves along
most of its border and has texture.

| stands still | from frame | seen, no flicker | seen, with flicker | reads | held |
|---|---|---|---|---|---|
{rows}

Scenes in which the half is never told: {blind}.

Not 0 without such a part: {false} of {clips} clips, {scenes} of the scenes above and {rightly} in
which something stands still rightly ({kinds}).
"""


def pan(rng, way):
    return panning(photograph(rng), way, 1.6)


def over(frame, picture, top, left, height, width):
    """The frame with a piece of another picture at a place, which may lie outside in part."""
    made = frame.copy()
    rows, columns = max(top, 0), max(left, 0)
    seen_part = picture[rows - top : height, columns - left : width]
    shown = made[rows : top + height, columns : left + width]
    shown[...] = seen_part[: shown.shape[0], : shown.shape[1]]
    return made


def barred(frames):
    """Black bars above and below."""
    made = [np.zeros_like(frame) for frame in frames]
    for new, frame in zip(made, frames):
        new[BARS] = frame[BARS]
    return made


def logo(rng, way):
    picture = seen(photograph(rng))
    return [over(frame, picture, 6, 40, 40, 50) for frame in pan(rng, way)]


def split(rng, way):
    picture = seen(photograph(rng))
    return [over(frame, picture, 0, 0, SIZE, SIZE // 2) for frame in pan(rng, way)]


def followed(rng, way):
    inside = texture(rng)
    return [disc(frame, 48, 48, 28, inside) for frame in pan(rng, way)]


def small_object(rng, way):
    back, inside = seen(photograph(rng)), texture(rng, mean=170)
    return [disc(back, 20 + 2 * t, 30 + t, 5, inside) for t in TIME]


def passing(speed, width):
    """Something wide that comes in from the left, before a still background."""

    def scene(rng, way):
        back, train = seen(photograph(rng)), photograph(rng)
        return [over(back, train, 40, -width + speed * t, 30, width) for t in TIME]

    return scene


def stopping(rng, way):
    """A pan that stops while an object goes on."""
    picture, inside = photograph(rng), texture(rng, mean=170)
    frames = [seen(picture, *(128 + 1.6 * way * min(6, t))) for t in TIME]
    return [disc(frame, 10 + 4 * t, 48, 14, inside) for t, frame in zip(TIME, frames)]


RIGHTLY = {
    "bars": lambda rng, way: barred(pan(rng, way)),
    "bars, fade from black": lambda rng, way: barred(
        [frame * min(1, t / 8) for t, frame in zip(TIME, pan(rng, way))]
    ),
    "an overlay": logo,
    "a split screen": split,
    "an object that the camera follows": followed,
    "a still camera with a small object": small_object,
    "with one that comes in": passing(5, 36),
    "with a train": passing(10, 250),
    "a pan that stops": stopping,
}
"""Name -> a scene of a random generator and a direction in which something may stand still."""


def drawn(name, seed):
    """A scene of CLEAN, FLICKERS or RIGHTLY."""
    if name not in RIGHTLY:
        return draw(name, seed)
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    angle = rng.uniform(0, 2 * np.pi)
    return np.stack(RIGHTLY[name](rng, np.array([np.cos(angle), np.sin(angle)])))


def held(clip, part, start):
    """The clip with a part that keeps what it shows in frame `start`."""
    made = clip.copy()
    made[(slice(start, None), *part)] = clip[(start, *part)]
    return made


def share_of(clip) -> float:
    meter = ClipMeasures([METRICS["held_share"]])
    measure(frames_of(clip), [meter])
    return meter.finish()[0].value


def section(seeds: int = 4) -> str:
    """The Markdown section."""
    found, false, scenes = defaultdict(list), 0, [*CLEAN, *FLICKERS, *RIGHTLY]
    with Progress("parts that stand still", len(scenes)) as progress:
        for done, name in enumerate(scenes, 1):
            for clip in (drawn(name, seed) for seed in range(seeds)):
                false += share_of(clip) > 0
                for key in ((part, start) for part in PARTS for start in (0, 6)):
                    if name not in RIGHTLY:
                        found[key, name].append(share_of(held(clip, PARTS[key[0]], key[1])))
            progress.update(done)

    rows, area = [], {part: draw("fade", 0)[0][PARTS[part]][..., 0].size for part in PARTS}
    for part, start in ((part, start) for part in PARTS for start in (0, 6)):
        clean, flickering = (
            np.array([found[(part, start), name] for name in of]) for of in (CLEAN, FLICKERS)
        )
        every = np.concatenate([clean, flickering])
        is_held = area[part] / SIZE**2 * (len(TIME) - 1 - start) / (len(TIME) - 1)
        shown = (clean > 0).mean(), (flickering > 0).mean(), every[every > 0].mean(), is_held
        rows.append(f"| {part} | {start} | " + " | ".join(f"{x:.2f}" for x in shown) + " |")
    blind = [name for name in CLEAN if not any(found[("half", 0), name])]
    facts = {"rows": "\n".join(rows), "blind": ", ".join(blind), "kinds": ", ".join(RIGHTLY)}
    counts = {"scenes": seeds * (len(CLEAN) + len(FLICKERS)), "rightly": seeds * len(RIGHTLY)}
    return SECTION.format(**facts, **counts, false=false, clips=sum(counts.values()))


if __name__ == "__main__":
    print(section())
