"""One complete render: its model, prompts, seeds, length, guidance, output; and its videos."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vidcfg.files import digest
from vidcfg.guidance.setting import Guidance
from vidcfg.media.write import CODECS
from vidcfg.pipelines.load import DiffusersModel, MiniModel, PathText, Text, model_from
from vidcfg.pipelines.schedulers import Sampling
from vidcfg.settings.base import ConfigModel, Finding, Range, refuse
from vidcfg.settings.document import (
    ConfigDocument,
    apply_overrides,
    load_document,
    put_value,
    validate,
)
from vidcfg.settings.strict_yaml import dump_yaml, parse

MAX_SEED = 2**63 - 1
MAX_SEEDS = 100_000
MAX_SLUG = 60


def file_name(value: str) -> str:
    if not re.fullmatch(r"\w[\w .+-]{0,99}", value):
        raise refuse(
            "but it names files. Write at most 100 letters, digits, spaces, '_', '-', '.' or '+', "
            "starting with a letter or digit."
        )
    return value


class Prompt(ConfigModel):
    """What to show, what to steer away from, and an image to start from (image-to-video)."""

    text: Text = Field(description="the prompt")
    negative: str = ""
    image: PathText | None = None


def prompt_from(value: Any) -> Any:
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict | ConfigModel):
        raise refuse("but must be text or a mapping such as {text: ..., negative: ...}.")
    return value


def _prompts_from(value: Any) -> Any:
    if isinstance(value, str | dict | Prompt):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def seeds_from(value: Any) -> tuple[int, ...]:
    """`3`, `[3, 5]` or `"0-3"` (inclusive) as a tuple of different whole numbers."""
    allowed = "but must be a whole number, a list such as [0, 5], or a range such as 0-3."
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]{1,19})\s*-\s*([0-9]{1,19})\s*", value)
        if not match:
            raise refuse(allowed)
        first, last = int(match[1]), int(match[2])
        if first > last:
            raise refuse(f"but a range rises. Write {last}-{first}.")
        if last - first >= MAX_SEEDS:
            raise refuse(f"which is {last - first + 1} seeds. Use at most {MAX_SEEDS}.")
        return tuple(range(first, last + 1))
    seeds = tuple(value) if isinstance(value, list | tuple | range) else (value,)
    if not seeds or not all(isinstance(s, int) and not isinstance(s, bool) for s in seeds):
        raise refuse(allowed)
    if len(seeds) > MAX_SEEDS:
        raise refuse(f"which is {len(seeds)} seeds. Use at most {MAX_SEEDS}.")
    seen: set[int] = set()
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise refuse(f"but a seed must be from 0 to 2**63 - 1, which {seed} is not.")
        if seed in seen:
            raise refuse(f"but {seed} is there twice. Keep one: a seed is one video of a prompt.")
        seen.add(seed)
    return seeds


Pixels = Annotated[int, Range(1, 16_384)]
Count = Annotated[int, Range(1, 100_000)]
Rate = Annotated[float, Range(0, 1000, above=True)]


class VideoShape(ConfigModel):
    """The clip: pixel frames, their size, and how fast they are shown."""

    num_frames: Count = Field(description="a whole number")
    height: Pixels = Field(description="pixels")
    width: Pixels = Field(description="pixels")
    fps: Rate = Field(description="frames per second")


class Output(ConfigModel):
    """Where videos go and how they are encoded; `enlarge` repeats each pixel that many times."""

    dir: PathText = Field(description="a folder such as out/kite")
    video: Literal["h264", "h264_lossless", "ffv1"] = "h264"
    enlarge: Annotated[int, Range(1, 64)] = 1


class RenderConfig(ConfigModel):
    """All that `python -m vidcfg.render` needs.

    Raises:
        ConfigError: listing every value that is not allowed, alone or beside the others.
    """

    schema_version: Literal[1] = Field(alias="schema", description="1")
    name: Annotated[str, AfterValidator(file_name)] = Field(description="a short name for the run")
    model: Annotated[
        MiniModel | DiffusersModel, Field(discriminator="kind"), BeforeValidator(model_from)
    ] = Field(description="{kind: mini}, or a checkpoint")
    prompts: Annotated[
        tuple[Annotated[Prompt, BeforeValidator(prompt_from)], ...],
        Field(strict=False, min_length=1),
        BeforeValidator(_prompts_from),
    ] = Field(description="a list of texts")
    seeds: Annotated[tuple[int, ...], BeforeValidator(seeds_from)] = (0,)
    video: VideoShape = Field(description="num_frames, height, width and fps")
    sampling: Sampling = Field(description="num_steps and a scheduler")
    guidance: Guidance = Field(description="scale and what goes with it")
    output: Output = Field(description="dir and how to encode")

    def findings(self):
        # guidance beside the length and the solver
        video, sampling, guidance = self.video, self.sampling, self.guidance
        run = {"num_steps": sampling.num_steps, "num_frames": video.num_frames, "fps": video.fps}
        yield from (found.below("guidance") for found in guidance.check_run(**run))
        solver = sampling.scheduler
        for rule in guidance.method.terms:
            if rule.solvers and solver not in ("pipeline", *rule.solvers):
                needed = " or ".join(rule.solvers)
                message = f"is {solver}, but guidance.method {rule.kind} needs {needed}."
                yield Finding(("sampling", "scheduler"), message)
        # the model
        is_mini = isinstance(self.model, MiniModel)
        for term in guidance.terms:
            if is_mini and isinstance(term.scale, dict):
                message = "names experts, but the mini model is one network. Write one schedule."
                yield Finding(("guidance", *term.at["scale"]), message)
        # prompts
        for i, prompt in enumerate(self.prompts):
            if prompt in self.prompts[:i]:
                message = f"repeats prompts.{self.prompts.index(prompt)}. Delete it; more videos "
                yield Finding(("prompts", i), message + "come from more seeds.")
            if guidance.method.needs_negative and not prompt.negative.strip():
                message = f"is empty, but guidance.method {guidance.kind} steers away from it. "
                yield Finding(("prompts", i, "negative"), message + "Write what to avoid.")
            if guidance.is_off and prompt.negative:
                message = "has no effect: guidance.scale is off on every step."
                yield Finding(("prompts", i, "negative"), message, is_error=False)
            if prompt.image and is_mini:
                message = "is set, but the mini model starts from text alone. Delete it."
                yield Finding(("prompts", i, "image"), message)


def load_render_config(
    path: str | FilePath,
    overrides: Iterable[str] = (),
    *,
    seeds: int | str | Iterable[int] | None = None,
    prompt: str | None = None,
    image: str | None = None,
) -> RenderConfig:
    """The checked configuration of a file or preset, with what the command line says put in.

    `prompt` replaces all prompts by one, which keeps the negative side and image of the first;
    `image` is then that of the first.

    Raises:
        ConfigError: one line per problem: file, line, value, what is allowed and what to type.
    """
    document = load_document(path)
    for name, text in (("text", prompt), ("image", image)):
        if text is not None:
            document = _with_first_prompt(document, name, text)
    document = apply_overrides(document, overrides)
    if seeds is not None:
        plain = seeds if isinstance(seeds, int | str) else list(seeds)
        text = plain if isinstance(plain, str) else dump_yaml(plain)
        source = f"--seed {text.strip()}"
        value, _ = parse(text, source=source, has_lines=False)
        document = put_value(document, ("seeds",), value, source=source)
    return validate(document, RenderConfig)


def _with_first_prompt(document: ConfigDocument, name: str, text: str) -> ConfigDocument:
    """The document with a part of its first prompt replaced; another text leaves it alone."""
    written = document.data.get("prompts") or []
    first, *others = written if isinstance(written, list) and written else [written or {}]
    first = first if isinstance(first, dict) else {"text": first}
    is_text = name == "text"
    source = f"{'--prompt' if is_text else '--image'} {text}"
    parse(dump_yaml(text), source=source, has_lines=False)  # Refuses what no text may hold.
    value = [first | {name: text}, *([] if is_text else others)]
    return put_value(document, ("prompts",), value, source=source)


@dataclass(frozen=True)
class Unit:
    """One video: a prompt, a seed, and the files that it becomes."""

    prompt: Prompt
    seed: int
    stem: FilePath
    extension: str

    def path(self, ending: str) -> FilePath:
        return FilePath(f"{self.stem}{ending}")

    video = property(lambda self: self.path(self.extension))
    sheet = property(lambda self: self.path(".png"))
    # The picture at full size, of a clip of one frame alone.
    image = property(lambda self: self.path(".image.png"))
    # The sound, of pipelines that make one.
    audio = property(lambda self: self.path(".wav"))
    # Written last: while it is there, the others are complete.
    record = property(lambda self: self.path(".json"))
    files = property(lambda self: (self.video, self.sheet, self.record))


def units_of(config: RenderConfig) -> list[Unit]:
    """One unit per prompt and seed, the seeds of a prompt next to each other."""
    folder, extension = FilePath(config.output.dir), CODECS[config.output.video].extension
    names = prompt_names(config.prompts)
    return [
        Unit(prompt, seed, folder / f"{name}-s{seed}", extension)
        for prompt, name in zip(config.prompts, names, strict=True)
        for seed in config.seeds
    ]


def prompt_names(prompts: tuple[Prompt, ...]) -> list[str]:
    """A file name part for each prompt, all different: lower-case ASCII letters, digits and `-`.

    A name that says less than its prompt (cut, or letters of other scripts left out), and names
    of prompts that read the same, end in a short hash of the prompt.
    """
    slugs = [_slug(prompt.text) for prompt in prompts]
    count = Counter(slug for slug, _ in slugs)
    names = []
    for prompt, (slug, loses) in zip(prompts, slugs, strict=True):
        words = "\0".join((prompt.text, prompt.negative, prompt.image or ""))
        names.append(f"{slug}-{digest(words)[:8]}" if loses or count[slug] > 1 else slug)
    return names


def _slug(text: str) -> tuple[str, bool]:
    """The name part of a text, and whether letters or digits of it are missing."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    ascii_only = letters.encode("ascii", "ignore").decode()
    loses = sum(map(str.isalnum, ascii_only)) != sum(map(str.isalnum, letters))
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")
    if len(slug) > MAX_SLUG:
        slug, loses = slug[:MAX_SLUG].rsplit("-", 1)[0][:MAX_SLUG].strip("-"), True
    return slug or "prompt", loses or not slug


def describe(config: RenderConfig) -> str:
    """The guidance and sampling settings in one line, for the head of a picture."""
    guidance, windows = config.guidance, len(config.guidance.windows)
    threshold, clamp = guidance.threshold, guidance.clamp
    parts = [
        guidance.kind if guidance.kind != "cfg" else "",
        f"scale {_scale_words(guidance.scale)}",
        f"frames {guidance.frames.kind}",
        f"{windows} window{'s' * (windows > 1)}" if windows else "",
        f"rescale {guidance.rescale.amount:g}" if guidance.rescale.amount else "",
        f"threshold {threshold.percentile:g}" if threshold is not None else "",
        f"clamp {clamp:g}" if clamp is not None else "",
        f"{config.sampling.num_steps} steps {config.sampling.scheduler}",
    ]
    return " · ".join(part for part in parts if part)


def _scale_words(scale: Any) -> str:
    if isinstance(scale, dict):
        return ", ".join(f"{name}: {_scale_words(one)}" for name, one in scale.items())
    if scale.kind == "constant":
        return f"{scale.value:g}"
    start, end = getattr(scale, "start", None), getattr(scale, "end", None)
    return scale.kind if None in (start, end) else f"{scale.kind} {start:g} → {end:g}"
