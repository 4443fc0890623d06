"""One prompt and seed in one run of a pipeline: one video, or several of different guidance.

What several videos have in common is evaluated once. Each is bit for bit that of a run of its own:
rows of the model are evaluated one at a time, as a run of one video does, texts are encoded once
and repeated, noise is drawn per sample, and decoding goes sample by sample.
"""

import contextlib
import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidcfg.guidance.trace import Trace
from vidcfg.media.sheet import spread_over_pixels
from vidcfg.media.video import check_range, to_uint8
from vidcfg.render.call import (
    audio_of,
    call_arguments,
    check_made,
    check_shape,
    converted_in_pieces,
    frames_of,
)
from vidcfg.render.config import RenderConfig, Unit

_COUNTS = ("num_videos_per_prompt", "num_images_per_prompt")


@dataclass(frozen=True, eq=False)
class Rendered:
    """One sampled video before it is written: uint8 frames [T, H, W, 3], and how they came.

    `audio` is what a pipeline made beside it: float32 [samples, channels], and their rate in Hz.
    """

    frames_THWC: np.ndarray
    trace: Any
    pixels_of: list[range]
    seconds: float
    audio: tuple[np.ndarray, int] | None = None

    @property
    def strength_KT(self) -> np.ndarray:
        """The strength that each pixel frame's latent frame was guided with, step by step."""
        strength_KF = self.trace.surfaces[0].strength_KF
        return spread_over_pixels(strength_KF, self.pixels_of, num_frames=len(self.frames_THWC))


@dataclass(frozen=True, eq=False)
class Batch:
    """The videos of one run, in the order of the configurations, and the trace of all of it."""

    videos: tuple[Rendered, ...]
    trace: Trace


def can_share(pipe: Any, config: RenderConfig) -> bool:
    """Whether several videos like this one can be made in one run, to the same bits.

    Not where a run of one video puts two branches into one model call: rows of another batch size
    may differ in the last bit. `guidance.passes: sequential` or `micro_batch: 1` allow it.
    """
    from vidcfg.pipelines.families import family_of

    family, guidance = family_of(pipe), config.guidance
    accepted = inspect.signature(type(pipe).__call__).parameters
    passes = family.stock_passes if guidance.passes == "pipeline" else guidance.passes
    by_row = passes == "sequential" or guidance.micro_batch == 1
    by_sample = not family.decodes_together and family.second_stream is None
    has_image = config.prompts[0].image is not None
    return by_row and by_sample and not has_image and any(name in accepted for name in _COUNTS)


def sample_units(
    configs: Sequence[RenderConfig],
    pipe: Any,
    unit: Unit,
    *,
    name: str = "",
    on_step: Callable[[int, int], None] | None = None,
) -> Batch:
    """Sample the prompt and seed of `unit` once for each configuration.

    The configurations differ in `guidance` alone, and `pipe` has their scheduler. `on_step(done,
    total)` is called after every step of the solver; `name` stands for the video in errors.

    Raises:
        ValueError: if model and settings do not fit each other.
        NonFiniteError: if a prediction holds NaN or Inf.
    """
    import torch

    import vidcfg
    from vidcfg.pipelines.families import family_of

    # The call of the pipeline
    first, count = configs[0], len(configs)
    assert count == 1 or all(can_share(pipe, config) for config in configs)
    family, video = family_of(pipe), first.video
    accepted = inspect.signature(type(pipe).__call__).parameters
    check_shape(video, family)
    call = call_arguments(unit.prompt, video, first.sampling.num_steps, family, accepted)
    guidance = [config.guidance for config in configs]
    generators = [torch.Generator("cpu").manual_seed(unit.seed) for _ in configs]
    if count > 1:
        call[next(name for name in _COUNTS if name in accepted)] = count
        guidance = [one.replace(micro_batch=1) for one in guidance]
    if on_step is not None and "callback_on_step_end" in accepted:

        def after_step(pipe: Any, index: int, timestep: Any, tensors: dict) -> dict:
            on_step(index + 1, len(pipe.scheduler.timesteps))
            return {}

        call["callback_on_step_end"] = after_step

    # The run, with all guidance in it
    begin = time.perf_counter()
    negative, what = unit.prompt.negative, f"the decoded video of '{name or unit.stem.name}'"
    guided = vidcfg.guide(pipe, guidance, negative_prompt=negative, fps=video.fps)
    with guided as trace, _decoding_alone(pipe, count), converted_in_pieces(pipe, what=what):
        output = pipe(**call, generator=generators if count > 1 else generators[0])
    clips, sounds = frames_of(output, family), audio_of(output, pipe)
    assert len(clips) == count, "one video for each configuration"

    # What became of each sample
    seconds = (time.perf_counter() - begin) / count
    videos = []
    for index, frames in enumerate(clips):
        check_range(frames, what=what)
        check_made(video, frames, pipe)
        pixels_of = family.frame_map(pipe).pixels_of(len(frames))
        audio = sounds[index] if sounds else None
        mine = trace if count == 1 else _of_sample(trace, index)
        videos.append(Rendered(to_uint8(frames), mine, pixels_of, seconds, audio))
    return Batch(tuple(videos), trace)


def _decoding_alone(pipe: Any, count: int) -> contextlib.AbstractContextManager:
    """Within it the VAE decodes one sample at a time: fixed memory, and bits that do not depend
    on the others."""
    from vidcfg.pipelines.changes.layers import swapped

    vae = getattr(pipe, "vae", None)
    if count == 1 or vae is None:
        return contextlib.nullcontext()
    original = vae.decode

    def decode(latents: Any, *args: Any, **kwargs: Any) -> Any:
        assert len(latents) == count, "the VAE is given one row for each sample"
        return _joined([original(row, *args, **kwargs) for row in latents.split(1)])

    return swapped(vae, "decode", decode)


def _joined(outputs: list[Any]) -> Any:
    import torch

    if isinstance(outputs[0], torch.Tensor):
        return torch.cat(outputs)
    joined = torch.cat([output[0] for output in outputs])
    return (joined,) if isinstance(outputs[0], tuple) else type(outputs[0])(sample=joined)


def _of_sample(trace: Trace, index: int) -> Trace:
    """What a trace says of one sample; its evaluations stay those of the whole run."""
    rows = ("terms", "strength_BF", "std_cond_BF", "std_guided_BF")
    mine = slice(index, index + 1)
    steps = [replace(s, **{name: getattr(s, name)[mine] for name in rows}) for s in trace.steps]
    return Trace(steps, [trace.surfaces[index]], trace.planned, trace.order, trace.num_runs)
