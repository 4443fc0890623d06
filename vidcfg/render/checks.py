"""What can be known to fail, or to be pointless, before time is spent on it."""

from inspect import signature
from pathlib import Path
from typing import Any

from vidcfg.guidance.perturbation import check_isolation
from vidcfg.media.write import check_size
from vidcfg.mini import SIZE_MULTIPLE
from vidcfg.render.call import check_multiple, check_prompt, check_shape, image_note
from vidcfg.render.config import RenderConfig
from vidcfg.render.forecast import forecast_of
from vidcfg.render.prompts import prompt_warnings, texts_of, tokenizer_of
from vidcfg.settings.errors import dotted


def check_before_loading(config: RenderConfig) -> None:
    """Raise ValueError for settings that no model can render, without loading one."""
    output, video = config.output, config.video
    for i, prompt in enumerate(config.prompts):
        if prompt.image and not Path(prompt.image).is_file():
            what = f"prompts.{i}.image is {prompt.image}, which is not a file"
            raise ValueError(f"{what}. Name one: --image FILE replaces the first.")
    if config.model.kind == "mini":
        if config.sampling.scheduler == "ddim":
            raise ValueError(
                "sampling.scheduler is ddim, but the mini model predicts a flow. "
                "Use one of: pipeline, flow_euler, unipc, dpm++, heun."
            )
        check_isolation(_changes(config), (), "mini")
        check_multiple(video, "mini", SIZE_MULTIPLE)
        config.model.frame_map.check(video.num_frames)
    elif (forecast := forecast_of(config)).pipe is not None:
        check_after_loading(config, forecast.pipe)
        forecast.facts.frame_map.check(video.num_frames)
    # What the model can make may still not go into a file.
    check_size(video.height, video.width, codec=output.video, enlarge=output.enlarge)


def check_after_loading(config: RenderConfig, pipe: Any) -> None:
    """Raise ValueError for what this pipeline cannot make, before anything is sampled."""
    from vidcfg.pipelines.families import family_of

    family = family_of(pipe)
    check_shape(config.video, family)
    check_isolation(_changes(config), family.blocks.own if family.blocks else (), family.name)
    experts = set(family.denoisers.values()) if family.expert_of else set()
    for term in config.guidance.terms:
        if isinstance(term.scale, dict) and (unknown := sorted(set(term.scale) - experts)):
            known = " and ".join(sorted(experts)) or "one model, without experts"
            raise ValueError(
                f"{dotted(('guidance', *term.at['scale']))} names the expert {unknown[0]}, but "
                f"{family.name} has {known}. Use one scale per expert, or a single scale."
            )
    for prompt in config.prompts:
        check_prompt(prompt, family, signature(type(pipe).__call__).parameters)


def _changes(config: RenderConfig) -> list[Any]:
    return [getattr(term, "change", None) for term in config.guidance.method.terms]


def image_warnings(config: RenderConfig) -> list[str]:
    """What is cut off of the images of the prompts, or blown up.

    Raises:
        MediaError: if an image cannot be read.
    """
    size, notes = {"height": config.video.height, "width": config.video.width}, {}
    for i, prompt in enumerate(config.prompts):
        if prompt.image and (note := image_note(prompt.image, **size)):
            notes.setdefault(note, f"prompts.{i}.image: {note}")
    return list(notes.values())


def late_warnings(config: RenderConfig, pipe: Any) -> list[str]:
    """Warnings on prompts that need the loaded pipeline.

    None on words for a model whose folder is at hand: those came before it was loaded.
    """
    from vidcfg.pipelines.families import family_of

    folder, family = config.model.folder, family_of(pipe)
    if not family.texts:
        return [f"{family.name} reads no prompt: prompts.*.text names the files alone."]
    if folder is not None and (folder / "tokenizer" / "tokenizer.json").is_file():
        return []
    found = tokenizer_of(pipe)
    return prompt_warnings(texts_of(config), *found) if found else []
