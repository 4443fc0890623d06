"""`--dry-run`: what a render would do, told before any weight is loaded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidcfg.config import RenderConfig
from vidcfg.render.prompts import prompt_warnings, texts_of, tokenizer_in
from vidcfg.render.record import model_folder
from vidcfg.render.units import Unit, describe

MAX_FILES_LISTED = 12


def preview(config: RenderConfig, units: list[Unit], *, width: int, colour: bool) -> str:
    """The text of a dry run.

    Raises:
        ValueError: if the settings do not fit the clip.
    """
    parts = [config.to_yaml().rstrip(), _guidance_part(config, len(units), width, colour)]
    parts += [_memory_part(config), _files_part(units)]
    return "\n\n".join(parts)


def early_warnings(config: RenderConfig) -> list[str]:
    """Notes on settings without effect and, if the model's folder is here, on its prompts."""
    folder = model_folder(config)
    found = tokenizer_in(folder) if folder is not None else None
    return [*config.notes, *(prompt_warnings(texts_of(config), *found) if found else [])]


def _guidance_part(config: RenderConfig, num_units: int, width: int, colour: bool) -> str:
    from vidcfg.build.cost import plan_render, render_surface
    from vidcfg.guidance.surface import terminal_heat_map

    lines = [f"guidance: {describe(config)}"]
    frame_map = known_frame_map(config)
    if frame_map is None:
        why = "the checkpoint is not in a local folder, so its latent frames are not known"
        return "\n".join([*lines, f"surface and cost: told when the model is loaded ({why})."])
    if _needs_scheduler(config.guidance):
        why = "the scale follows the scheduler's noise levels or the model's experts"
        return "\n".join([*lines, f"surface and cost: told when the model is loaded ({why})."])
    surface = render_surface(config, frame_map)
    lines += ["", terminal_heat_map(surface, width=width, colour=colour), ""]
    plan = plan_render(config, frame_map=frame_map)
    by_branch = ", ".join(f"{count} {branch}" for branch, count in plan.evaluations.items())
    share = 100 * plan.total / plan.naive
    lines.append(
        f"model evaluations: {plan.total} ({by_branch}) for {num_units} videos, "
        f"{share:.0f} % of {plan.naive} at 2 per step"
    )
    return "\n".join(lines)


def _needs_scheduler(guidance: Any) -> bool:
    return isinstance(guidance.scale, dict) or guidance.scale.over == "sigma"


def known_frame_map(config: RenderConfig) -> Any:
    """The frame map of the mini model or of a checkpoint folder; None for a repository name."""
    from vidcfg.build.cost import MINI_FRAME_MAP

    if config.model.kind == "mini":
        return MINI_FRAME_MAP
    folder = model_folder(config)
    if folder is None or not (folder / "model_index.json").is_file():
        return None
    name = json.loads((folder / "model_index.json").read_text("utf-8")).get("_class_name", "")
    make = next((m for prefix, m in _FRAME_MAPS.items() if name.startswith(prefix)), None)
    return None if make is None else make(folder)


def _causal(ratio: int) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        from vidcfg.guidance.frame_map import CausalMap

        return CausalMap(ratio)

    return make


def _cogvideox(folder: Path) -> Any:
    from vidcfg.guidance.frame_map import CogVideoXMap

    vae, transformer = (_component(folder, name) for name in ("vae", "transformer"))
    ratio = vae.get("temporal_compression_ratio", 4)
    return CogVideoXMap(int(ratio), transformer.get("patch_size_t"))


def _component(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name / "config.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


_FRAME_MAPS: dict[str, Callable[[Path], Any]] = {
    "MiniVideo": _causal(4),
    "Wan": _causal(4),
    "HunyuanVideo": _causal(4),
    "LTX": _causal(8),
    "Mochi": _causal(6),
    "CogVideoX": _cogvideox,
}


def _memory_part(config: RenderConfig) -> str:
    shape = config.video
    video = shape.num_frames * shape.height * shape.width * 3 * 4
    folder = model_folder(config)
    if folder is None or not folder.is_dir():
        weights = "weights: not here yet"
    else:
        size = sum(p.stat().st_size for p in folder.rglob("*.safetensors"))
        weights = f"weights: {_size(size)} on disk"
    return f"memory: {weights}; one decoded video: {_size(video)}; activations come on top"


def _size(count: int) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _files_part(units: list[Unit]) -> str:
    from vidcfg.render.files import SURFACE_NAME

    folder = units[0].stem.parent
    lines = [f"writes {3 * len(units) + 1} files:", f"  {folder / SURFACE_NAME}"]
    for unit in units[:MAX_FILES_LISTED]:
        lines.append(f"  {unit.video} .png .json{'  (exists)' * unit.record.exists()}")
    if len(units) > MAX_FILES_LISTED:
        lines.append(f"  ... and {len(units) - MAX_FILES_LISTED} more videos")
    return "\n".join(lines)
