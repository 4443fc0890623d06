"""The videos of a render: which there are, and the names of their files."""

import hashlib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vidcfg.media.write import CODECS
from vidcfg.render.config import Prompt, RenderConfig

MAX_SLUG = 60


@dataclass(frozen=True)
class Unit:
    """One video: a prompt, a seed, and the three files that it becomes."""

    prompt: Prompt
    seed: int
    stem: Path
    extension: str

    @property
    def video(self) -> Path:
        return Path(f"{self.stem}{self.extension}")

    @property
    def sheet(self) -> Path:
        return Path(f"{self.stem}.png")

    @property
    def image(self) -> Path:
        """The picture at full size, of a clip of one frame alone."""
        return Path(f"{self.stem}.image.png")

    @property
    def audio(self) -> Path:
        """The sound, of pipelines that make one."""
        return Path(f"{self.stem}.wav")

    @property
    def record(self) -> Path:
        """Written last: while it is there, the others are complete."""
        return Path(f"{self.stem}.json")

    @property
    def files(self) -> tuple[Path, Path, Path]:
        return self.video, self.sheet, self.record


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
    # surrogatepass: a lone surrogate is a legal YAML escape and cannot be encoded otherwise.
    text = "\0".join((prompt.text, prompt.negative, prompt.image or ""))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def describe(config: RenderConfig) -> str:
    """The guidance and sampling settings in one line, for the head of a picture."""
    guidance = config.guidance
    parts = [_scale_words(guidance.scale)]
    if guidance.kind != "cfg":
        parts.insert(0, guidance.kind)
    parts.append(f"frames {guidance.frames.kind}")
    if guidance.windows:
        parts.append(f"{len(guidance.windows)} window{'s' * (len(guidance.windows) > 1)}")
    if guidance.rescale.amount:
        parts.append(f"rescale {guidance.rescale.amount:g}")
    if guidance.threshold is not None:
        parts.append(f"threshold {guidance.threshold.percentile:g}")
    if guidance.clamp is not None:
        parts.append(f"clamp {guidance.clamp:g}")
    parts.append(f"{config.sampling.num_steps} steps {config.sampling.scheduler}")
    return " · ".join(parts)


def _scale_words(scale) -> str:
    if isinstance(scale, dict):
        return "scale " + ", ".join(
            f"{name}: {_scale_words(one).removeprefix('scale ')}" for name, one in scale.items()
        )
    if scale.kind == "constant":
        return f"scale {scale.value:g}"
    start, end = getattr(scale, "start", None), getattr(scale, "end", None)
    if start is not None and end is not None:
        return f"scale {scale.kind} {start:g} → {end:g}"
    return f"scale {scale.kind}"
