"""The videos of a render: which there are, and the names of their files."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidcfg.media.write import CODECS
from vidcfg.render.config import Prompt, RenderConfig
from vidcfg.render.identity import digest

MAX_SLUG = 60


@dataclass(frozen=True)
class Unit:
    """One video: a prompt, a seed, and the files that it becomes."""

    prompt: Prompt
    seed: int
    stem: Path
    extension: str

    def path(self, ending: str) -> Path:
        return Path(f"{self.stem}{ending}")

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
    folder, extension = Path(config.output.dir), CODECS[config.output.video].extension
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
    return [
        f"{slug}-{_digest(prompt)}" if loses or count[slug] > 1 else slug
        for prompt, (slug, loses) in zip(prompts, slugs, strict=True)
    ]


def _slug(text: str) -> tuple[str, bool]:
    """The name part of a text, and whether letters or digits of it are missing."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    ascii_only = letters.encode("ascii", "ignore").decode()
    loses = sum(map(str.isalnum, ascii_only)) != sum(map(str.isalnum, letters))
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")
    if len(slug) > MAX_SLUG:
        slug, loses = slug[:MAX_SLUG].rsplit("-", 1)[0][:MAX_SLUG].strip("-"), True
    return slug or "prompt", loses or not slug


def _digest(prompt: Prompt) -> str:
    return digest("\0".join((prompt.text, prompt.negative, prompt.image or "")))[:8]


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
