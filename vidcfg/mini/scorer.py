"""The mini scorer: a video-text dual encoder with one classifier per attribute of the shapes."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vidcfg.mini import MINI_PATH
from vidcfg.mini.parts import Part, keeps_arguments
from vidcfg.mini.shapes import ATTRIBUTES
from vidcfg.mini.text import TextEncoder, build_tokenizer, pooled, tokenize


class Scorer(Part):
    """Videos and prompts as unit vectors of one space, and logits per attribute and time.

    Videos are float [B, T, 3, H, W] in 0..1 of any length and size; a video does not see its
    batch neighbours. Attributes are read on frames 0, 4, 8, ..., K = 1 + (T - 1) // 4 times.
    """

    @keeps_arguments
    def __init__(self, width: int = 32, embed: int = 128, text_width: int = 64):
        super().__init__()
        w, state = width, 2 * embed
        self.frame = nn.Sequential(_conv(nn.Conv2d, 3, w), _conv(nn.Conv2d, w, 2 * w))
        self.motion = nn.Sequential(_conv(nn.Conv3d, 2 * w, 3 * w), _conv(nn.Conv3d, 3 * w, 4 * w))
        self.place = nn.Sequential(nn.Linear(16 * w, state), nn.SiLU(), nn.Linear(state, state))
        self.time = nn.ModuleList(nn.Conv1d(state, state, 3, padding=1) for _ in range(2))
        self.heads = nn.ModuleDict({n: nn.Linear(state, len(v)) for n, v in ATTRIBUTES.items()})
        self.project = nn.Linear(2 * state, embed)
        self.tokenizer = build_tokenizer()
        self.text_encoder = TextEncoder(self.tokenizer.get_vocab_size(), width=text_width)
        self.text_project = nn.Linear(text_width, embed)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.logit_bias = nn.Parameter(torch.tensor(-5.0))

    def states(self, video: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B K S"]:
        """What the heads and the embedding are made of, one state a reading.

        Raises:
            ValueError: if values lie outside 0..1.
        """
        low, high = float(video.min()), float(video.max())
        if low < -1e-3 or high > 1 + 1e-3:
            raise ValueError(
                f"video values lie in {low:.3g}..{high:.3g}, but the scorer takes 0..1. "
                "Divide uint8 by 255; turn -1..1 into (x + 1) / 2."
            )
        x = video.to(self.dtype) * 2 - 1
        x = self.frame(rearrange(x, "b t c h w -> (b t) c h w"))
        x = self.motion(rearrange(x, "(b t) c h w -> b c t h w", b=video.shape[0]))
        times = x.shape[2]
        x = nn.functional.adaptive_avg_pool2d(rearrange(x, "b c k h w -> (b k) c h w"), 2)
        x = rearrange(self.place(x.flatten(1)), "(b k) s -> b s k", k=times)
        for layer in self.time:
            x = x + layer(nn.functional.silu(x))
        return x.mT

    def embed(self, states: Float[Tensor, "B K S"]) -> Float[Tensor, "B D"]:
        """The video embedding before it is scaled to length 1, from both halves of the time."""
        x = nn.functional.adaptive_avg_pool1d(nn.functional.silu(states).mT, 2)
        return self.project(x.flatten(1))

    def read(self, states: Float[Tensor, "B K S"]) -> dict[str, Float[Tensor, "B K n"]]:
        """Logits per attribute at each reading, in the order of `ATTRIBUTES`."""
        states = nn.functional.silu(states)
        return {name: head(states) for name, head in self.heads.items()}

    def unit(self, states: Float[Tensor, "B K S"]) -> Float[Tensor, "B D"]:
        """The video embedding scaled to length 1."""
        return nn.functional.normalize(self.embed(states), dim=-1)

    def encode_video(self, video: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit vectors of videos."""
        return self.unit(self.states(video))

    def encode_text(self, prompts: list[str]) -> Float[Tensor, "B D"]:
        """Unit vectors of prompts."""
        ids, mask = (x.to(self.device) for x in tokenize(self.tokenizer, prompts))
        states = pooled(self.text_encoder(ids, mask), mask)
        return nn.functional.normalize(self.text_project(states), dim=-1)

    def alignment(
        self, video: Float[Tensor, "B T 3 H W"], prompts: list[str]
    ) -> Float[Tensor, " B"]:
        """Cosine between each video and its prompt, -1..1.

        Raises:
            ValueError: if there is not one prompt for each video.
        """
        if len(prompts) != video.shape[0]:
            raise ValueError(
                f"{len(prompts)} prompts for {video.shape[0]} videos. Give one for each."
            )
        return (self.encode_video(video) * self.encode_text(prompts)).sum(-1)


def load_scorer(device: str | torch.device = "cpu") -> Scorer:
    """The embedded scorer, read from the package with no network."""
    return Scorer.from_pretrained(MINI_PATH, subfolder="scorer", device=device)


def _conv(kind: type[nn.Module], inputs: int, outputs: int) -> nn.Sequential:
    conv = kind(inputs, outputs, 3, stride=2, padding=1)
    return nn.Sequential(conv, nn.GroupNorm(8, outputs), nn.SiLU())
