"""Faults that models make, at fixed strengths, on clips [T, H, W, 3] of levels 0..255."""

import cv2
import numpy as np
from scenes import CLEAN, draw

LUMA = np.float32([0.299, 0.587, 0.114])


def along(curve):
    """A value for each frame, to be multiplied with a clip."""
    return np.asarray(curve, np.float32)[:, None, None, None]


def alternating(num_frames):
    return along(1 - 2 * (np.arange(num_frames) % 2))


def every(num_frames, period):
    return along(np.arange(num_frames) % period == 1)


def saturated(clip, rng):
    luma = (clip @ LUMA)[..., None]
    return luma + (clip - luma) * (1 + 0.12 * every(len(clip), 4))


def local(clip, rng):
    """A square of 5 % of the picture blinks by +-16 levels."""
    height, width = clip.shape[1:3]
    side = round((height * width * 0.05) ** 0.5)
    y, x = rng.integers(8, height - 8 - side), rng.integers(8, width - 8 - side)
    faulty = clip.copy()
    faulty[:, y : y + side, x : x + side] += 16 * alternating(len(clip))
    return faulty


def colour(clip, rng):
    """Red against green at equal luma."""
    shift = np.float32([6, -3.5, 0])
    return clip + alternating(len(clip)) * (shift - shift @ LUMA)


def boiling(clip, rng):
    noise = rng.standard_normal(clip.shape[:3]).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), 2.5) for frame in noise])
    return clip + 4 * (smooth / smooth.std(axis=(1, 2), keepdims=True))[..., None]


def soft(clip, rng):
    return np.stack(
        [cv2.GaussianBlur(f, (0, 0), 1.2) if t % 4 == 1 else f for t, f in enumerate(clip)]
    )


def popped(clip, rng):
    faulty = clip.copy()
    faulty[rng.integers(5, 12)] += 12
    return faulty


def ghosted(clip, rng):
    faulty = clip.copy()
    faulty[1:] = 0.65 * clip[1:] + 0.35 * clip[:-1]
    return faulty


def reordered(order):
    """Frames by the order that `order(k)` gives for a place k in the middle of the clip."""

    def fault(clip, rng):
        return clip[order(int(rng.integers(5, 11)), len(clip))]

    return fault


def frozen(clip, rng):
    faulty = clip.copy()
    faulty[12:] = clip[12]
    return faulty


def moved(clip, across, down):
    """Frames sampled at offsets [T, H, W] in pixels."""
    y, x = np.mgrid[: clip.shape[1], : clip.shape[2]].astype(np.float32)
    return np.stack(
        [
            cv2.remap(frame, x + dx, y + dy, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
            for frame, dx, dy in zip(clip, across.astype(np.float32), down.astype(np.float32))
        ]
    )


def melting(clip, rng):
    time, phase = np.arange(len(clip))[:, None, None], rng.uniform(0, 6, 2)
    y, x = np.mgrid[: clip.shape[1], : clip.shape[2]]
    strength = 3 * np.maximum(0, (time - 3) / 13)
    across = strength * np.sin(2 * np.pi * y / 37 + phase[0] + 0.7 * time)
    down = strength * np.sin(2 * np.pi * x / 31 + phase[1] + 0.6 * time)
    return moved(clip, across, down)


def wobbling(clip, rng):
    offsets = rng.normal(0, 0.7, (2, len(clip), 1, 1))
    return moved(clip, *np.broadcast_to(offsets, (2, *clip.shape[:3])))


def becoming_another(clip, rng):
    """Half of it is another picture at the end."""
    height, width = clip.shape[1:3]
    other = cv2.resize(draw("photograph, pan", int(rng.integers(1000, 2000)))[0], (width, height))
    share = along(np.linspace(0, 0.5, len(clip)))
    return clip * (1 - share) + other * share


def drifting_colour(clip, rng):
    return clip + along(np.linspace(0, 14, len(clip))) * np.float32([1, 0, -1])


def other_first(clip, rng):
    """The first latent frame, which is one frame, has more contrast and is brighter."""
    faulty = clip.copy()
    faulty[0] = (clip[0] - 128) * 1.1 + 133
    return faulty


def shifted(levels):
    return lambda clip, rng: clip + levels * alternating(len(clip))


def gained(curve):
    """Gain by a function of the time [T]."""
    return lambda clip, rng: clip * along(curve(np.arange(len(clip))))


def noisy(clip, rng):
    return clip + rng.normal(0, 2, clip.shape).astype(np.float32)


def swap(k, num):
    order = list(range(num))
    order[k], order[k + 1] = k + 1, k
    return order


FAULTS = {
    "all +-4 levels": (shifted(4), "mc_flicker"),
    "all +-2 levels": (shifted(2), "mc_flicker"),
    "all +-.5 level": (shifted(0.5), "mc_flicker"),
    "pump of period 8, 3 %": (gained(lambda t: 1 + 0.03 * np.sin(t * np.pi / 4)), "mc_flicker"),
    "colour at equal luma": (colour, "mc_flicker_colour"),
    "saturation pulse, 12 %": (saturated, "mc_flicker_colour"),
    "5 % of the area +-16": (local, "mc_flicker_p95"),
    "pulse of period 4, 5 %": (gained(lambda t: 1 + 0.05 * (t % 4 == 1)), "mc_flicker"),
    "pulse of period 8, 6 %": (gained(lambda t: 1 + 0.06 * (t % 8 == 1)), "mc_flicker"),
    "texture boil, 4 levels": (boiling, "mc_flicker"),
    "noise of 2 levels": (noisy, "mc_flicker"),
    "every 4th frame soft": (soft, "sharpness_pulse"),
    "one frame pops by 12": (popped, "mc_flicker"),
    "ghosting of 35 %": (ghosted, "ghosting"),
    "a frame repeated": (
        reordered(lambda k, n: [*range(k + 1), *range(k, n - 1)]),
        "freeze_share",
    ),
    "two frames swapped": (reordered(swap), "judder_peak"),
    "a frame dropped": (
        reordered(lambda k, n: [*range(k), *range(k + 1, n)]),
        "judder_peak",
    ),
    "frozen tail": (frozen, "freeze_share"),
    "melting": (melting, "content_drift"),
    "wobble of .7 px": (wobbling, "judder"),
    "content drifts, 50 %": (becoming_another, "content_drift"),
    "colour drifts, 14 levels": (drifting_colour, "colour_drift"),
    "first latent frame differs": (other_first, "mc_flicker"),
    "flicker in the last half": (
        lambda clip, rng: (
            clip + 3 * alternating(len(clip)) * along(np.arange(len(clip)) >= len(clip) // 2)
        ),
        "mc_flicker",
    ),
}
"""Name -> the fault, and the metric that is to see it."""

IMMOVABLE = ("standstill", "fade", "dissolve")
"""Scenes in which nothing moves: an echo of a fade is a fade, a frame later."""

assert set(IMMOVABLE) <= set(CLEAN)
