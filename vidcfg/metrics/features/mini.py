"""The embedded scorer as a feature net, and what it says about prompts."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vidcfg.metrics.catalogue import measured
from vidcfg.metrics.features.base import FeatureNet, check_clips
from vidcfg.metrics.features.resize import area_to_side
from vidcfg.metrics.record import Backend, Record
from vidcfg.metrics.weight_files import MissingWeightsError, sha256_of
from vidcfg.mini.shapes import ATTRIBUTES

NUM_FRAMES = 17
SIDE = 32


class MiniNet(FeatureNet):
    """Unit vectors of the scorer's video side, for clips of moving shapes."""

    name = "mini"
    protocol = f"clip=first-{NUM_FRAMES};side={SIDE}-area"
    num_frames = NUM_FRAMES
    min_frames = 4

    def __init__(self, scorer: nn.Module, *, sha256: str | None, source: str) -> None:
        self.backend = Backend("mini-scorer", sha256, source)
        self._scorer = scorer.eval()
        self._device = next(scorer.parameters()).device

    def prepare(self, frames: np.ndarray) -> np.ndarray:
        return area_to_side(frames, SIDE)

    @torch.inference_mode()
    def features(self, clips: np.ndarray) -> np.ndarray:
        # One clip at a time: a convolution may round differently in another batch size.
        rows = [self._scorer.encode_video(clip[None]) for clip in self._video(clips)]
        return torch.cat(rows).float().cpu().numpy()

    @torch.inference_mode()
    def alignment_records(
        self, clips: np.ndarray, prompts: Sequence[str | None]
    ) -> list[list[Record]]:
        """`align[mini]` and `attribute_accuracy[mini]` of prepared clips, one list a clip.

        Alignment is the cosine of video and prompt. Attributes that the prompt names are looked up
        in the scorer's own verdict; `extra` has 1 or 0 for each.
        """
        video = self._video(clips)
        made = []
        for clip, prompt in zip(video, prompts):
            cosine = self._scorer.alignment(clip[None], [prompt or ""]).item()
            logits = self._scorer.classify(clip[None])
            seen = {name: ATTRIBUTES[name][int(row.argmax())] for name, row in logits.items()}
            made.append([self._align(cosine, prompt), self._accuracy(seen, prompt)])
        return made

    def _video(self, clips: np.ndarray) -> torch.Tensor:
        check_clips(clips)
        return torch.from_numpy(np.clip(clips, 0, 1)).to(self._device)

    def _align(self, cosine: float, prompt: str | None) -> Record:
        if not prompt:
            return self._record("align[mini]", None, reason="the video has no prompt")
        return self._record("align[mini]", cosine)

    def _accuracy(self, seen: dict[str, str], prompt: str | None) -> Record:
        said = attributes_in(prompt or "")
        if not said:
            reason = "the prompt names no attribute" if prompt else "the video has no prompt"
            return self._record("attribute_accuracy[mini]", None, reason=reason)
        right = {name: float(seen[name] == value) for name, value in said.items()}
        share = sum(right.values()) / len(right)
        return self._record("attribute_accuracy[mini]", share, extra=right)

    def _record(self, name: str, value: float | None, **rest) -> Record:
        rest |= {"protocol": self.protocol, "backend": self.backend}
        if value is None:
            return measured(name, None, n=0, status="skipped", **rest)
        return measured(name, value, n=1, **rest)


def attributes_in(prompt: str) -> dict[str, str]:
    """The attribute values that a prompt names, by attribute; those named twice are left out."""
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    found = {}
    for name, values in ATTRIBUTES.items():
        said = [value for value in values if value in words]
        if len(said) == 1:
            found[name] = said[0]
    return found


def load(*, protocol: str, paths: Mapping[str, str | Path] | None, device: str) -> MiniNet:
    """The scorer of the package, or the one in the folder `paths["mini"]`."""
    from vidcfg.mini.pipeline import MINI_PATH
    from vidcfg.mini.scorer import Scorer

    folder = Path((paths or {}).get("mini", MINI_PATH / "scorer"))
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise MissingWeightsError(
            f"there is no scorer in {folder}. Reinstall vidcfg, or train one with: "
            "python scripts/train_mini configs/train/mini.yaml"
        )
    scorer = Scorer.from_pretrained(folder, torch_dtype=torch.float32).to(device)
    return MiniNet(scorer, sha256=sha256_of(files[0]), source=str(folder.name))
