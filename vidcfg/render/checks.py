"""What can be known to fail, or to be pointless, before time is spent on it."""

from pathlib import Path
from typing import Any

from vidcfg.config import RenderConfig
from vidcfg.media.write import check_size
from vidcfg.render.prompts import prompt_warnings, texts_of, tokenizer_of
from vidcfg.render.record import model_folder


def check_before_loading(config: RenderConfig) -> None:
    """Raise ValueError for settings that no model can render, without loading one."""
    output, video = config.output, config.video
    check_size(video.height, video.width, codec=output.video, enlarge=output.enlarge)
    for i, prompt in enumerate(config.prompts):
        if prompt.image and not Path(prompt.image).is_file():
            raise ValueError(f"prompts.{i}.image is {prompt.image}, which is not a file.")
    if config.model.kind != "mini":
        return
    if config.sampling.scheduler == "ddim":
        raise ValueError(
            "sampling.scheduler is ddim, but the mini model predicts a flow. "
            "Use one of: pipeline, flow_euler, unipc, dpm++, heun."
        )
    from vidcfg.guidance.frame_map import CausalMap

    CausalMap(4).check(video.num_frames)


def late_warnings(config: RenderConfig, pipe: Any) -> list[str]:
    """Warnings on prompts that need the loaded tokenizer.

    None for a model whose folder is at hand: those came before it was loaded.
    """
    folder = model_folder(config)
    if folder is not None and (folder / "tokenizer" / "tokenizer.json").is_file():
        return []
    found = tokenizer_of(pipe)
    return prompt_warnings(texts_of(config), *found) if found else []
