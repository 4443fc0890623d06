"""CLIP: how well frames fit the prompt, and how steady their embeddings are."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.extras import explained, without_bars
from vidcfg.metrics.frames import to_unit
from vidcfg.metrics.meters import Meter
from vidcfg.metrics.metric import averaged, declare, measured, skipped
from vidcfg.metrics.record import Backend, Record
from vidcfg.metrics.weight_files import MissingWeightsError, backend_of, refusing

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
FRAMES_PER_SECOND = 8
WEIGHTS = ("model.safetensors", "model-*.safetensors", "pytorch_model.bin", "pytorch_model-*.bin")
"""What transformers takes of a folder: the first of these that it holds."""
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files of which transformers makes a tokenizer."""

_PROTOCOL = "up-to-8-fps;crop=torchvision"
declare("clip_score", "clip", "100*cos", "higher", f"raw-cosine;every-frame-{_PROTOCOL}")
declare(
    *("clip_consistency", "clip", "cos", "higher", f"adjacent-frames-{_PROTOCOL}"), group="look"
)


@dataclass(frozen=True, eq=False)
class ClipModel:
    """A CLIP as functions: normalised images to vectors, token ids to vectors, text to ids.

    `tokenize` gives all ids of a text without padding; the model reads `context_length` of them.
    """

    backend: Backend
    image_size: int
    context_length: int
    encode_images: Callable[[Any], Any]
    encode_ids: Callable[[list[int]], Any]
    tokenize: Callable[[str], list[int]]
    device: str = "cpu"

    def image_vectors(self, frames: np.ndarray) -> np.ndarray:
        """Unit vectors [B, D] of frames [B, 3, H, W], uint8 or float32 in [0, 1].

        Bicubic, antialiased resize of the shorter side, centre crop, CLIP's mean and spread.

        Raises:
            ValueError: another type, or values outside [0, 1].
        """
        import torch
        from torch.nn import functional

        images = torch.from_numpy(to_unit(frames)).to(self.device)
        # Resize, crop the middle, normalise.
        size = self.image_size
        shorter = min(images.shape[-2:])
        # As torchvision's Resize and CenterCrop, which open_clip uses: the longer side is cut off
        # to whole pixels, the offset is rounded half to even.
        height, width = (size * n // shorter for n in images.shape[-2:])
        images = functional.interpolate(
            images, (height, width), mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, 1)
        top, left = (round((n - size) / 2) for n in (height, width))
        images = images[:, :, top : top + size, left : left + size]
        mean, std = (torch.tensor(v, device=self.device).reshape(3, 1, 1) for v in (MEAN, STD))
        return _unit_vectors(self.encode_images, (images - mean) / std)

    def text_vector(self, text: str) -> tuple[np.ndarray, int]:
        """The unit vector [D] of a text, and how many tokens beyond the limit were cut off."""
        ids = self.tokenize(text)
        cut = max(0, len(ids) - self.context_length)
        if cut:
            # The last token marks the end of the text and has to stay.
            ids = [*ids[: self.context_length - 1], ids[-1]]
        return _unit_vectors(self.encode_ids, ids)[0], cut


def _unit_vectors(encode: Callable, what: Any) -> np.ndarray:
    import torch

    with torch.inference_mode():
        vectors = encode(what).float()
        return torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()


class ClipMeter(Meter):
    """Score against the prompt and consistency of neighbours, on up to 8 frames a second."""

    def __init__(
        self, model: ClipModel, prompt: str | None, *, fps: int | float, batch_size: int = 16
    ) -> None:
        self._model, self._prompt, self._batch_size = model, prompt, batch_size
        self.backend = model.backend
        self._every = max(1, math.ceil(fps / FRAMES_PER_SECOND))
        self._count = self._shot = 0
        self._shots: list[int] = []
        self._waiting: list[np.ndarray] = []
        self._vectors: list[np.ndarray] = []

    def start_shot(self, start: int) -> None:
        self._shot = start

    def add_frame(self, frame: np.ndarray) -> None:
        if self._count % self._every == 0:
            self._shots.append(self._shot)
            self._waiting.append(frame)
            if len(self._waiting) == self._batch_size:
                self._flush()
        self._count += 1

    def _flush(self) -> None:
        if self._waiting:
            self._vectors.append(self._model.image_vectors(np.stack(self._waiting)))
            self._waiting.clear()

    def finish(self) -> list[Record]:
        self._flush()
        vectors = np.concatenate(self._vectors)
        cosines = np.sum(vectors[:-1] * vectors[1:], axis=1).tolist()
        trace = [c if a == b else None for c, (a, b) in zip(cosines, pairwise(self._shots))]
        known = [cosine for cosine in trace if cosine is not None]
        steady = averaged(known, reason="the clip has fewer than 2 frames")
        steady |= {"trace": tuple(trace)} if known else {}
        made = {"clip_score": self._score(vectors), "clip_consistency": steady}
        name = self.backend.name
        return [measured(f"{n}[{name}]", backend=self.backend, **m) for n, m in made.items()]

    def _score(self, vectors: np.ndarray) -> dict[str, Any]:
        if not self._prompt:
            return skipped("the video has no prompt")
        text, cut = self._model.text_vector(self._prompt)
        made = averaged(vectors @ text)
        cosines = made["trace"]
        extra = {"lowest": min(cosines), "last_minus_first": cosines[-1] - cosines[0]}
        # CLIPScore as published, 2.5 max(cos, 0), in 0..2.5. It is clamped frame by frame, so that
        # one unrelated frame cannot cancel a related one. Hessel et al. 2021, arXiv:2104.08718.
        extra["hessel"] = float(np.mean([2.5 * max(cosine, 0.0) for cosine in cosines]))
        if cut:
            name, limit = self.backend.name, self._model.context_length
            extra["note"] = f"prompt cut: {limit + cut} tokens, {name} reads {limit}"
        return made | {"value": 100 * made["value"], "extra": extra}


def label(settings: Any) -> str:
    """What stands in the brackets of the records' names.

    The last part of a repository or folder, or the open_clip name.
    """
    model = settings.clip_model
    return model.partition("@")[0] if model.startswith("open_clip:") else Path(model).name


@explained("CLIP", "metrics", MissingWeightsError)
def load_meter(settings: Any, *, prompt: str | None, fps: float) -> ClipMeter:
    """The meter of one clip."""
    model = load_clip(settings.clip_model, device=settings.device)
    return ClipMeter(model, prompt, fps=fps, batch_size=settings.batch_size)


@lru_cache(maxsize=2)
def load_clip(model: str, *, device: str = "cpu") -> ClipModel:
    """A CLIP from this machine: a transformers folder or cached repository, or open_clip.

    `open_clip:NAME@FILE` takes the architecture from open_clip and the weights from FILE. Nothing
    is downloaded; a model is loaded once a process.

    Raises:
        MissingWeightsError: the model is not here; the message has the command.
    """
    if model.startswith("open_clip:"):
        return _open_clip(model, device=device)
    from huggingface_hub import snapshot_download

    folder = Path(model)
    try:
        if not folder.is_dir():
            folder = Path(snapshot_download(model, local_files_only=True))
    except Exception as error:
        raise MissingWeightsError(
            f"CLIP {model} is not on this machine, as a folder or in the hub's cache. "
            f"Get it with: hf download {model}"
        ) from error
    found = (sorted(folder.glob(kind)) for kind in WEIGHTS)
    if not (weights := next(filter(None, found), None)):
        raise MissingWeightsError(f"{folder} holds no weights ({', '.join(WEIGHTS)}).")
    return _transformers_clip(Path(model).name, folder, weights, device=device)


def _transformers_clip(
    name: str, folder: Path, weights: Sequence[Path], *, device: str
) -> ClipModel:
    import torch
    from transformers import AutoConfig, AutoTokenizer, CLIPModel

    with refusing(folder, "cannot be loaded as CLIP"):
        # What transformers would load with random weights, or without words.
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if kind != "clip":
            raise ValueError(f"its config.json says {kind}, not clip")
        if not any(all((folder / n).is_file() for n in names) for names in TOKENIZERS):
            raise ValueError("it has no tokenizer: tokenizer.json, or vocab.json and merges.txt")
        how = {"local_files_only": True, "output_loading_info": True}
        with without_bars("transformers"):
            net, found = CLIPModel.from_pretrained(folder, **how)
        if lacking := sorted(found["missing_keys"]):
            raise ValueError(f"its weights lack {', '.join(lacking[:3])}")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        made_ready = folder / "preprocessor_config.json"
        if made_ready.is_file():
            said = json.loads(made_ready.read_text("utf-8"))
            _check_pictures([{key.removeprefix("image_"): said[key] for key in said}])
    # In float32, whatever the file has: newer transformers keep half precision.
    net = net.float().eval().to(device)

    def pooled(output: Any) -> torch.Tensor:
        # Older transformers return the vectors, newer ones an output that holds them.
        return output if isinstance(output, torch.Tensor) else output.pooler_output

    return ClipModel(
        backend=backend_of(name, *weights),
        image_size=net.config.vision_config.image_size,
        context_length=net.config.text_config.max_position_embeddings,
        encode_images=lambda images: pooled(net.get_image_features(pixel_values=images)),
        encode_ids=lambda ids: pooled(
            net.get_text_features(input_ids=torch.tensor([ids], device=device))
        ),
        tokenize=lambda text: tokenizer(text, truncation=False)["input_ids"],
        device=device,
    )


def _check_pictures(ways: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError if pictures are to be prepared in some of these ways, and `image_vectors`
    does it in none of them."""
    own = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}

    def fits(way: Mapping[str, Any]) -> bool:
        words = all(way.get(key, own[key]) == own[key] for key in ("interpolation", "resize_mode"))
        return words and all(
            np.allclose(way.get(key, own[key]), own[key], atol=1e-3) for key in ("mean", "std")
        )

    if ways and not any(map(fits, ways)):
        raise ValueError("it wants pictures of another size, mean or spread than CLIP of OpenAI")


def _open_clip(model: str, *, device: str) -> ClipModel:
    import torch

    name, _, file = model.removeprefix("open_clip:").partition("@")
    if not file or not Path(file).is_file():
        raise MissingWeightsError(
            f"{model} names no weights that exist. Give them as open_clip:{name or 'NAME'}@FILE."
        )
    import open_clip

    with refusing(file, f"cannot be loaded as {name}"):
        # The file's own word, where it lies beside it, else that of all published ones.
        beside = Path(file).with_name("open_clip_config.json")
        if beside.is_file():
            _check_pictures([json.loads(beside.read_text("utf-8")).get("preprocess_cfg", {})])
        tags = open_clip.list_pretrained_tags_by_model(name)
        _check_pictures([open_clip.get_pretrained_cfg(name, tag) for tag in tags])
        net = open_clip.create_model(name, pretrained=file, device=device).eval()
        tokenizer, size = open_clip.get_tokenizer(name), net.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        if not isinstance(tokenizer, open_clip.SimpleTokenizer) or height != width:
            raise ValueError("only models with CLIP's tokenizer and square pictures are read")
    start, end, length = tokenizer.sot_token_id, tokenizer.eot_token_id, net.context_length

    def encode_ids(ids: list[int]) -> torch.Tensor:
        padded = torch.zeros(1, length, dtype=torch.long, device=device)
        padded[0, : len(ids)] = torch.tensor(ids)
        return net.encode_text(padded)

    return ClipModel(
        backend=backend_of(f"open_clip:{name}", Path(file)),
        image_size=height,
        context_length=length,
        encode_images=net.encode_image,
        encode_ids=encode_ids,
        tokenize=lambda text: [start, *tokenizer.encode(text), end],
        device=device,
    )
