"""Windows: frames that are guided in a part of the steps only."""

from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import Field

from vidcfg.guidance.frames import outside
from vidcfg.guidance.schedule import Steps, ends_in_order, holds_a_step, within
from vidcfg.settings.base import ConfigModel, Finding, Fraction, Pair


class Window(ConfigModel):
    """Frames `[first, last]`, both included, that are guided only from progress `from` to `to`.

    Negative frames count from the end.
    """

    frames: Pair[int, int] = Field(description="[first, last], both included")
    start: Fraction = Field(default=0.0, alias="from")
    stop: Fraction = Field(default=1.0, alias="to")

    def findings(self):
        yield from ends_in_order(self.start, self.stop)
        first, last = self.frames
        if (first < 0) == (last < 0) and first > last:
            what = "but the first frame must not be after the last. Swap them."
            yield Finding(("frames",), f"is [{first}, {last}], {what}")
        if (self.start, self.stop) == (0.0, 1.0):
            yield Finding((), "covers every step, so it has no effect.", is_error=False)

    def holds(self, progress_K: Steps) -> np.ndarray:
        """Which of the steps are inside (K)."""
        return within(self.start, self.stop, progress_K)

    def check_run(
        self, progress_K: Steps, num_frames: int, active_K: np.ndarray
    ) -> Iterator[Finding]:
        """What cannot work on these steps, of which the scale guides the active ones, in a clip of
        this length."""
        yield from holds_a_step(self.start, self.stop, progress_K)
        inside_K = self.holds(progress_K)
        if inside_K.any() and active_K.any() and not (inside_K & active_K).any():
            what = f"the scale is off from {self.start:g} to {self.stop:g}. Let both overlap."
            yield Finding((), f"guides no step: {what}")
        told = f"is [{self.frames[0]}, {self.frames[1]}], but"
        wrong = next(filter(None, (outside(frame, num_frames) for frame in self.frames)), None)
        first, last = (frame % num_frames for frame in self.frames)
        if wrong:
            yield Finding(("frames",), f"{told} {wrong}")
        elif first > last:
            yield Finding(("frames",), f"{told} frame {first} is after frame {last}. Swap them.")


def window_mask(windows: Sequence[Window], progress_K: Steps, num_frames: int) -> np.ndarray:
    """Whether pixel frame f is guided at step k (K, T), as far as windows decide.

    A frame in no window is always guided. A frame in several is guided while any of them includes
    the step.
    """
    in_a_window_T = np.zeros(num_frames, dtype=bool)
    guided_KT = np.zeros((len(progress_K), num_frames), dtype=bool)
    for window in windows:
        first, last = (frame % num_frames for frame in window.frames)
        in_a_window_T[first : last + 1] = True
        guided_KT[:, first : last + 1] |= window.holds(progress_K)[:, None]
    return guided_KT | ~in_a_window_T
