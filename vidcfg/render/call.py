"""One prompt of a configuration as the arguments of a pipeline call, and what the call returns."""

import contextlib
from collections.abc import Mapping
from inspect import Parameter
from typing import Any

import numpy as np

from vidcfg.media.video import PIECE, MediaError, check_range, to_uint8
from vidcfg.render.config import Prompt, VideoShape


class Levels(str):
    """ "np", the `output_type` of a call whose frames may come as uint8: `converted_in_pieces`."""

    __slots__ = ()


def call_arguments(
    prompt: Prompt,
    video: VideoShape,
    num_steps: int,
    family: Any,
    accepted: Mapping[str, Parameter],
) -> dict[str, Any]:
    """What a pipeline of `family` is called with for one prompt, its own guidance off.

    `accepted` are the parameters of the pipeline's `__call__`: what it does not take is left out.
    The negative prompt is not among the arguments (it belongs to `vidcfg.guide`), and neither is
    the generator.

    Raises:
        ValueError: if the pipeline cannot make what is asked for.
        MediaError: if the image of the prompt cannot be read.
    """
    check_prompt(prompt, family, accepted)
    call = {
        "prompt": prompt.text,
        **video.model_dump(exclude={"fps"}),
        "num_inference_steps": num_steps,
        "output_type": Levels("np"),
        **family.off(accepted),
    }
    if family.fps_is_whole and video.fps != round(video.fps):
        low = int(video.fps)
        raise ValueError(
            f"video.fps is {video.fps:g}, but {family.name} is conditioned on a whole number of "
            f"frames per second. Use {max(low, 1)} or {low + 1}."
        )
    if family.fps_argument:
        call[family.fps_argument] = round(video.fps) if family.fps_is_whole else video.fps
    if prompt.image:
        call["image"] = load_image(prompt.image, height=video.height, width=video.width)
    return {name: value for name, value in call.items() if name in accepted}


def check_prompt(prompt: Prompt, family: Any, accepted: Mapping[str, Parameter]) -> None:
    """Raise ValueError for an image too many or too few, or a negative prompt without effect.

    And for a pipeline that makes a video in several loops, of which a record tells one.
    """
    if family.part is not None:
        raise ValueError(
            f"a {family.pipelines[0]} makes a video in several loops, which is guided from Python "
            "alone: vidcfg.guide(pipe, vidcfg.Guidance(...)), see docs/families.md."
        )
    if prompt.image and "image" not in accepted:
        raise ValueError(
            f"the prompt '{prompt.text}' has an image, but this pipeline starts from "
            "text alone. Delete `image`, or use an image-to-video checkpoint."
        )
    if not prompt.image and "image" in accepted and accepted["image"].default is Parameter.empty:
        raise ValueError(
            f"the prompt '{prompt.text}' has no image, but this pipeline starts from one. "
            "Write `image: path` beside its text."
        )
    if prompt.negative and not family.texts:
        raise ValueError(
            f"the prompt '{prompt.text}' has a negative prompt, but a {family.pipelines[0]} is "
            "conditioned on an image alone. Delete `negative`."
        )


def check_shape(video: VideoShape, family: Any) -> None:
    """Raise ValueError for a size or a number of frames that the family cannot make."""
    if family.is_image and video.num_frames != 1:
        raise ValueError(
            f"video.num_frames is {video.num_frames}, but {family.name} makes one image. Use 1."
        )
    check_multiple(video, family.name, family.size_multiple)


def check_multiple(video: VideoShape, family: str, step: int) -> None:
    """Raise ValueError for a height or width that is no multiple of `step`."""
    for name, size in (("height", video.height), ("width", video.width)):
        if size % step:
            below = size // step * step
            use = f"{below} or {below + step}" if below else f"{step}"
            raise ValueError(
                f"video.{name} is {size}, but {family} makes multiples of {step}. Use {use}."
            )


def check_made(video: VideoShape, frames: np.ndarray, pipe: Any) -> None:
    """Raise ValueError if a pipeline made another number or size of frames than asked for."""
    asked, name = video.model_dump(exclude={"fps"}), type(pipe).__name__
    for (setting, wanted), made in zip(asked.items(), frames.shape):
        if made != wanted:
            raise ValueError(f"video.{setting} is {wanted}, but {name} made {made}. Use {made}.")


def load_image(path: str, *, height: int, width: int) -> Any:
    """The image as RGB, upright, cut from its centre to the aspect ratio of the video.

    An image of that ratio keeps every pixel; the pipeline scales it to the size of the video.

    Raises:
        MediaError: if it cannot be read.
    """
    image, kept = _opened(path, height, width)
    return image.crop(kept).convert("RGB")


def image_note(path: str, *, height: int, width: int, multiple: int = 16) -> str | None:
    """What is cut off or blown up of the image, and the size that would keep it; None if nothing.

    Raises:
        MediaError: if it cannot be read.
    """
    image, (left, top, right, bottom) = _opened(path, height, width)
    kept = (right - left) * (bottom - top) / (image.width * image.height)
    if kept < 0.99:
        # about the same area, with the aspect ratio of the image
        ratio = image.width / image.height
        rows = max(1, round((height * width / ratio) ** 0.5 / multiple))
        columns = max(1, round(rows * ratio))
        axis = "width" if right - left < image.width else "height"
        return (
            f"{path} is {image.width} x {image.height} and the video {width} x {height}: "
            f"{100 * (1 - kept):.0f} % of its {axis} is cut off. To keep it, write "
            f"video.width: {columns * multiple} and video.height: {rows * multiple}."
        )
    if right - left < width / 2:
        return (
            f"{path} is {image.width} x {image.height}, less than half of the video's "
            f"{width} x {height}: it is blown up."
        )
    return None


def _opened(path: str, height: int, width: int) -> tuple[Any, tuple[int, int, int, int]]:
    """The image, and the largest box in its centre of the aspect ratio of the video."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
    except Exception as error:  # of whatever kind a decoder raises, or Pillow on a huge size
        raise MediaError(f"the image {path} cannot be read: {error}") from None
    kept_width = min(image.width, max(1, round(image.height * width / height)))
    kept_height = min(image.height, max(1, round(image.width * height / width)))
    left, top = (image.width - kept_width) // 2, (image.height - kept_height) // 2
    return image, (left, top, left + kept_width, top + kept_height)


def converted_in_pieces(pipe: Any, *, what: str) -> contextlib.AbstractContextManager:
    """Within it a call with `output_type=Levels("np")` gives uint8 frames [B, T, H, W, 3].

    The video processor of the pipeline gets a few frames of the decoded video at a time: no copy
    of all of them is made in float, where they are decoded or here. The levels are those of
    `to_uint8` on the whole. A pipeline without a video processor gives float frames.

    Raises:
        ValueError: as `check_range`, for the video `what`.
    """
    from vidcfg.pipelines.changes.layers import swapped

    processor = getattr(pipe, "video_processor", None)
    if processor is None:
        return contextlib.nullcontext()
    original = processor.postprocess_video

    def postprocess(video: Any, output_type: str = "np", **options: Any) -> Any:
        if not isinstance(output_type, Levels):
            return original(video, output_type=output_type, **options)
        batch, channels, num_frames, height, width = video.shape
        levels_BTHWC = np.empty((batch, num_frames, height, width, channels), dtype=np.uint8)
        ends = []
        for levels_THWC, sample in zip(levels_BTHWC, video.split(1)):
            for first in range(0, num_frames, PIECE):
                part = slice(first, first + PIECE)
                (piece,) = original(sample[:, :, part], output_type="np", **options)
                ends += [piece.min(), piece.max()]
                with np.errstate(invalid="ignore"):
                    levels_THWC[part] = to_uint8(piece)
        check_range(np.array(ends), what=what)
        return levels_BTHWC

    return swapped(processor, "postprocess_video", postprocess)


def frames_of(output: Any, family: Any) -> list[np.ndarray]:
    """The frames [T, H, W, 3] of every sample of a call with `output_type="np"`: float32, or uint8
    of `converted_in_pieces`.

    An image is a video of one frame.
    """
    made = [[image] for image in output.images] if family.is_image else output.frames
    clips = [np.asarray(frames) for frames in made]
    return [c if c.dtype == np.uint8 else c.astype(np.float32, copy=False) for c in clips]


def audio_of(output: Any, pipe: Any) -> list[tuple[np.ndarray, int]]:
    """The audio of every sample: float32 [samples, channels] in -1..1, and its rate in Hz.

    Empty for a pipeline without a vocoder.
    """
    waves, vocoder = getattr(output, "audio", None), getattr(pipe, "vocoder", None)
    if waves is None or vocoder is None:
        return []
    rate = int(vocoder.config.output_sampling_rate)
    return [(np.atleast_2d(wave.detach().float().cpu().numpy()).T, rate) for wave in waves]
