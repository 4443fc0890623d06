"""The embedded scorer as a feature net, and what it says about prompts."""

from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.files import remembered_sha256
from vidcfg.metrics.features.base import FeatureNet, area_to_side, check_clips
from vidcfg.metrics.metric import declare, measured
from vidcfg.metrics.record import Backend, Record
from vidcfg.metrics.weight_files import MissingWeightsError, refusing
from vidcfg.mini.shapes import ATTRIBUTES, asked, late_readings

NUM_FRAMES = 17
SIDE = 32

declare("align", "mini", "cos", "higher", "clip=first")
for _name in ("attribute_accuracy", "accuracy"):
    declare(_name, "mini", "0..1", "higher", "clip=first;attributes-in-prompt;every-4th-frame")


class MiniNet(FeatureNet):
    """Unit vectors of the scorer's video side, for clips of moving shapes."""

    name = "mini"
    protocol = f"clip=first-{NUM_FRAMES};side={SIDE}-area"
    num_frames = NUM_FRAMES
    min_frames = 4

    def __init__(self, scorer: Any, *, sha256: str | None, source: str) -> None:
        self.backend = Backend("mini-scorer", sha256, source)
        self.scorer = scorer.eval()
        self.device = next(scorer.parameters()).device

    def prepare(self, frames: np.ndarray) -> np.ndarray:
        return area_to_side(frames, SIDE)

    def encode(self, clip: Any) -> Any:
        return self.scorer.encode_video(clip[None])

    def judge(self, clip: np.ndarray, prompt: str | None) -> tuple[np.ndarray, list[Record]]:
        """The features of a prepared clip, and `align[mini]` and `attribute_accuracy[mini]`.

        It goes through the net once. Alignment is the cosine of video and prompt. Attributes that
        the prompt names are looked up in the scorer's own verdict on every fourth frame; `extra`
        has for each the share of frames on which it is right, of those that the prompt speaks of.
        """
        import torch

        check_clips(clip[None])
        scorer = self.scorer
        with torch.inference_mode():
            states = scorer.states(torch.from_numpy(np.clip(clip[None], 0, 1)).to(self.device))
            vector = scorer.unit(states)
            seen = {
                name: [ATTRIBUTES[name][i] for i in rows[0].argmax(-1)]
                for name, rows in scorer.read(states).items()
            }
            text = scorer.encode_text([prompt]) if prompt else None
            value = None if text is None else (vector * text).sum(-1).item()
        align = self._record("align[mini]", value, reason="the video has no prompt")
        right = shares_right(seen, prompt or "", len(clip))
        share = sum(right.values()) / len(right) if right else None
        reason = "the prompt names no attribute" if prompt else "the video has no prompt"
        accuracy = self._record("attribute_accuracy[mini]", share, reason=reason, extra=right)
        return vector[0].float().cpu().numpy(), [align, accuracy]

    def _record(self, name: str, value: float | None, **rest: Any) -> Record:
        rest |= {"n": 1} if value is not None else {"n": 0, "status": "skipped"}
        return measured(name, value, protocol=self.protocol, backend=self.backend, **rest)


def shares_right(seen: dict[str, list[str]], prompt: str, num_frames: int) -> dict[str, float]:
    """For each attribute that a prompt names, the share of readings that are as it says.

    `seen` has the value read at each reading. The prompt's word for the first half of the clip
    holds up to half time, its word for the second half from there on.
    """
    late = late_readings(num_frames)
    shares = {}
    for name, said in asked(prompt).items():
        pairs = [(value, said[is_late]) for value, is_late in zip(seen[name], late, strict=True)]
        judged = [value == wanted for value, wanted in pairs if wanted is not None]
        shares[name] = sum(judged) / len(judged)
    return shares


def load(path: str | Path | None, *, protocol: str, device: str) -> MiniNet:
    """The scorer in a folder, or that of the package."""
    import torch

    from vidcfg.mini.pipeline import MINI_PATH
    from vidcfg.mini.scorer import Scorer

    folder = MINI_PATH / "scorer" if path is None else Path(path)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise MissingWeightsError(
            f"there is no scorer in {folder}. Reinstall vidcfg, or train one with: "
            "python scripts/train_mini configs/train/mini.yaml"
        )
    with refusing(folder, "cannot be loaded as the scorer"):
        scorer = Scorer.from_pretrained(folder, torch_dtype=torch.float32).to(device)
    return MiniNet(scorer, sha256=remembered_sha256(files[0]), source=folder.name)
