"""Frame maps: which pixel frames a latent frame makes. numpy only.

Video VAEs compress time, so a curve over pixel frames becomes one over latent frames by reducing
it over the pixel frames that each latent makes. The ranges are nominal: convolutions and attention
of a decoder leak into neighbours.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar

import numpy as np

from vidcfg.guidance.shapes import Float64


def _count(what: str, value: int) -> int:
    """`value`, which must be a whole number of at least 1."""
    if isinstance(value, bool) or value != int(value) or value < 1:
        raise ValueError(f"{what} is {value!r}, but must be a whole number of at least 1.")
    return int(value)


class FrameMap(ABC):
    """Which pixel frames each latent frame makes, for one family of VAEs.

    lengths   the lengths that the VAE makes, in words: "4k + 1"
    """

    lengths: str

    @abstractmethod
    def num_pixels(self, num_latents: int) -> int:
        """The pixel frames that come out when the denoiser sees `num_latents` latent frames."""

    @abstractmethod
    def latent_sizes(self, num_pixels: int) -> list[int]:
        """How many pixel frames each latent frame makes, 0 for one that is dropped (padding).

        They add up to `num_pixels` where the VAE makes so many, and to another number elsewhere.
        """

    def makes(self, num_pixels: int) -> bool:
        """Whether the VAE decodes to exactly this many frames (num_pixels >= 1)."""
        return sum(self.latent_sizes(num_pixels)) == num_pixels

    def pixels_of(self, num_pixels: int) -> list[range]:
        """The pixel frames of each latent frame that the denoiser sees, in order.

        Every pixel frame belongs to exactly one latent. A latent that is dropped before decoding
        (padding) has an empty range.

        Raises:
            ValueError: if the VAE cannot make `num_pixels` frames.
        """
        self.check(num_pixels, "num_frames")
        sizes = self.latent_sizes(num_pixels)
        ends = np.cumsum(sizes).tolist()
        return [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]

    def num_latents(self, num_pixels: int) -> int:
        """The latent frames that the denoiser sees, padding included.

        Raises:
            ValueError: if the VAE cannot make `num_pixels` frames.
        """
        return len(self.pixels_of(num_pixels))

    def check(self, num_pixels: int, what: str = "video.num_frames") -> None:
        """Raise a ValueError naming the nearest lengths unless the VAE makes this one exactly.

        Pipelines round such a length silently or with a log line; here it is an error, because
        every frame number of a surface would shift.
        """
        if num_pixels >= 1 and self.makes(num_pixels):
            return
        below = next((n for n in range(num_pixels - 1, 0, -1) if self.makes(n)), None)
        above = next(n for n in count(max(num_pixels + 1, 1)) if self.makes(n))
        choice = f"{above}" if below is None else f"{below} or {above}"
        raise ValueError(
            f"{what} is {num_pixels}, but this VAE makes {self.lengths} frames. Use {choice}."
        )

    def reduce(
        self, curve: Float64[np.ndarray, "*rows T"], reducer: str
    ) -> Float64[np.ndarray, "*rows F"]:
        """A curve over pixel frames as one over latent frames: the `mean` or `max` of each latent.

        The result stays within the range of its pixels to the last bit, so that a constant curve
        stays that constant. Padding latents in front take the value of the first latent that is
        decoded.

        Raises:
            ValueError: for another reducer, or a length that the VAE cannot make.
        """
        if reducer not in ("mean", "max"):
            raise ValueError(f"reduce is {reducer!r}. Use one of: mean, max.")
        ranges = self.pixels_of(curve.shape[-1])
        made = [k for k, pixels in enumerate(ranges) if len(pixels)]
        parts = [curve[..., ranges[k].start : ranges[k].stop] for k in made]
        highest = np.stack([part.max(axis=-1) for part in parts], axis=-1)
        reduced = highest
        if reducer == "mean":
            lowest = np.stack([part.min(axis=-1) for part in parts], axis=-1)
            mean = np.stack([part.mean(axis=-1) for part in parts], axis=-1)
            reduced = np.clip(mean, lowest, highest)
        before, after = made[0], len(ranges) - 1 - made[-1]
        pieces = [reduced[..., :1]] * before + [reduced] + [reduced[..., -1:]] * after
        return np.concatenate(pieces, axis=-1)


@dataclass(frozen=True)
class StridedMap(FrameMap):
    """Every latent makes `ratio` pixel frames, but for the first one, which makes `first`.

    words   the lengths, with {r} for the ratio and {rr} for twice that
    """

    ratio: int
    words: ClassVar[str]

    @property
    def lengths(self) -> str:
        return self.words.format(r=self.ratio, rr=2 * self.ratio)

    @abstractmethod
    def first(self, decoded: int) -> int:
        """What the first of so many latent frames makes."""

    def __post_init__(self):
        _count("frame map: ratio", self.ratio)

    def num_pixels(self, num_latents: int) -> int:
        decoded = _count("num_latents", num_latents)
        return self.first(decoded) + self.ratio * (decoded - 1)

    def latent_sizes(self, num_pixels: int) -> list[int]:
        decoded = (num_pixels - 1) // self.ratio + 1
        return [self.first(decoded)] + [self.ratio] * (decoded - 1)


class CausalMap(StridedMap):
    """Latent 0 makes pixel 0; latent k makes pixels ratio (k - 1) + 1 to ratio k.

    Lengths: ratio k + 1. Wan and HunyuanVideo have ratio 4, LTX 8, Mochi 6.
    """

    words = "{r}k + 1"

    def first(self, decoded: int) -> int:
        return 1


class BlockMap(StridedMap):
    """Every latent makes `ratio` pixel frames, the first one too. Lengths: ratio k. Allegro: 4."""

    words = "{r}k"

    def first(self, decoded: int) -> int:
        return self.ratio


@dataclass(frozen=True)
class OneToOneMap(BlockMap):
    """One latent per pixel frame, as in Stable Video Diffusion and AnimateDiff: any length."""

    ratio: int = field(default=1, init=False)
    words = "1 or more"


@dataclass(frozen=True)
class CogVideoXMap(StridedMap):
    """CogVideoX: L latents decode to ratio (L - 1) + 1 frames for odd L, to ratio L for even L.

    The decoder works on chunks of 2 latents (the first of 3 when L is odd). A chunk of 2 gives
    `ratio` pixels per latent; an odd first chunk gives 1 pixel to its first latent. Lengths: 2
    ratio k and 2 ratio k + 1.

    `patch_frames` is the denoiser's `patch_size_t` (2 in v1.5, None before): the pipeline pads the
    latents in front to a multiple of it and drops the padding before decoding. Padding takes the
    weight of the first decoded latent.
    """

    ratio: int = 4
    patch_frames: int | None = None
    words = "{rr}k or {rr}k + 1"

    def __post_init__(self):
        super().__post_init__()
        if self.patch_frames is not None:
            _count("frame map: patch_frames", self.patch_frames)

    def first(self, decoded: int) -> int:
        return 1 if decoded % 2 == 1 else self.ratio

    def num_pixels(self, num_latents: int) -> int:
        """The decoded length; where padding may be in front, the one with an odd latent count.

        A padded count does not tell how much of it is padding: with patch_frames = 2, 22 latents
        are 81 frames (1 padding, 21 decoded) or 88 (22 decoded). v1.5 is made for 16k + 1 frames
        (81, 161), whose decoded latents are odd in number, so 81 is the answer.

        Raises:
            ValueError: if `num_latents` is not a multiple of `patch_frames`.
        """
        _count("num_latents", num_latents)
        patch = self.patch_frames or 1
        if num_latents % patch != 0:
            raise ValueError(
                f"num_latents is {num_latents}, but this denoiser sees multiples of {patch} "
                f"latent frames. Use {num_latents - num_latents % patch + patch}."
            )
        decoded = range(max(1, num_latents - patch + 1), num_latents + 1)
        return super().num_pixels(max([n for n in decoded if n % 2] or decoded))

    def latent_sizes(self, num_pixels: int) -> list[int]:
        sizes = super().latent_sizes(num_pixels)
        return [0] * (-len(sizes) % (self.patch_frames or 1)) + sizes


@dataclass(frozen=True)
class BesideMap(FrameMap):
    """`video` beside latent frames that make no pixel frame, as reference images do.

    `before` of them stand in front of the video and take the weight of its first latent, `after`
    of them behind it and take that of its last.
    """

    video: FrameMap
    before: int = 0
    after: int = 0

    @property
    def lengths(self) -> str:
        return self.video.lengths

    def num_pixels(self, num_latents: int) -> int:
        return self.video.num_pixels(num_latents - self.before - self.after)

    def makes(self, num_pixels: int) -> bool:
        return self.video.makes(num_pixels)

    def latent_sizes(self, num_pixels: int) -> list[int]:
        return [0] * self.before + self.video.latent_sizes(num_pixels) + [0] * self.after
