"""The embedded text-to-video model as a pipeline, called as those of diffusers."""

import inspect
from collections import namedtuple
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from vidcfg.files import write_json
from vidcfg.mini import FEW_STEPS, MINI_PATH
from vidcfg.mini.codec import CausalVAE, check_length
from vidcfg.mini.model import STDiT
from vidcfg.mini.scheduler import load_scheduler
from vidcfg.mini.text import MAX_LENGTH, TextEncoder, tokenize
from vidcfg.progress import Progress

MODELS = {"transformer": STDiT, "vae": CausalVAE, "text_encoder": TextEncoder}
"""The modules of the pipeline; each has a folder of its name."""

UPDATES = "updates.safetensors"
"""What makes the model its student of few steps: low-rank updates of its matrices, by names of
LoRA files of diffusers. Made by `scripts/few_steps.py`."""

Videos = namedtuple("Videos", "frames")
"""What a call returns: a tuple of one."""


class MiniVideoPipeline:
    """Text to video with the ST-DiT: called like the diffusers Wan pipeline.

    `scheduler` is `FlowMatchEuler` or one of diffusers for flows.
    """

    def __init__(
        self,
        transformer: STDiT,
        vae: CausalVAE,
        text_encoder: TextEncoder,
        tokenizer: Tokenizer,
        scheduler: Any,
    ):
        self.transformer, self.vae, self.text_encoder = transformer, vae, text_encoder
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.vae_scale_factor_temporal = vae.config.stride
        self.vae_scale_factor_spatial = vae.config.patch
        self.guidance_scale, self.num_timesteps, self.shows_progress = 1.0, 0, True

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        torch_dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        **models: Any,
    ) -> "MiniVideoPipeline":
        """What `save_pretrained` wrote, but for the `models` that are given by name.

        The codec is small and stays in float32, so that its pixels are exact. On the device
        `meta` no weight is read.

        Raises:
            OSError, ValueError: for a file that is missing or damaged.
        """
        dtypes = dict.fromkeys(MODELS, torch_dtype) | {"vae": torch.float32}
        for name, kind in MODELS.items():
            how = {"subfolder": name, "torch_dtype": dtypes[name], "device": device}
            models[name] = models.get(name) or kind.from_pretrained(folder, **how)
        words = (Path(folder) / "tokenizer" / "tokenizer.json").read_text("utf-8")
        scheduler = load_scheduler(Path(folder) / "scheduler")
        return cls(tokenizer=Tokenizer.from_str(words), scheduler=scheduler, **models)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder for each part, in the layout of diffusers."""
        folder = Path(folder)
        for name in (*MODELS, "scheduler"):
            getattr(self, name).save_pretrained(folder / name)
        (folder / "tokenizer").mkdir(exist_ok=True)
        self.tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
        limit = {"model_max_length": MAX_LENGTH}
        write_json(folder / "tokenizer" / "tokenizer_config.json", limit)
        write_json(folder / "model_index.json", {"_class_name": type(self).__name__})

    @property
    def components(self) -> dict[str, Any]:
        """The parts by name: what another pipeline of this class can be made of."""
        return {name: getattr(self, name) for name in (*MODELS, "tokenizer", "scheduler")}

    device = _execution_device = property(lambda self: self.transformer.device)

    def to(self, *place: Any) -> "MiniVideoPipeline":
        """Move all models to a device, a dtype or both."""
        for name in MODELS:
            getattr(self, name).to(*place)
        return self

    def set_progress_bar_config(self, *, disable: bool = False) -> None:
        """Whether a call shows its steps."""
        self.shows_progress = not disable

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        negative_prompt: str | list[str] | None = None,
        do_classifier_free_guidance: bool = True,
        num_videos_per_prompt: int = 1,
        given: tuple[torch.Tensor | None, ...] = (None, None, None, None),
    ):
        """(prompt_embeds, mask, negative_prompt_embeds, negative mask), each repeated per video.

        The negative side is None without guidance; no negative prompt is the empty prompt. What
        is `given`, in the same order, is not encoded.
        """
        sides = [*self._encode(prompt, *given[:2]), None, None]
        if do_classifier_free_guidance:
            size = len(sides[0])
            negative = "" if negative_prompt is None else negative_prompt
            negative = [negative] * size if isinstance(negative, str) else list(negative)
            if given[2] is None and len(negative) != size:
                raise ValueError(
                    f"{len(negative)} negative prompts for {size} prompts. "
                    "Give one, or one for each prompt."
                )
            sides[2:] = self._encode(negative, *given[2:])
        count = num_videos_per_prompt
        return tuple(None if x is None else x.repeat_interleave(count, dim=0) for x in sides)

    def prepare_latents(
        self, batch_size, num_frames, height, width, *, device, generator=None, latents=None
    ) -> torch.Tensor:
        """Noise [B, C, F, h, w]; with one generator per sample it depends on (seed, shape) alone.

        Raises:
            ValueError: for sizes the codec cannot make, or a wrong number of generators.
        """
        if latents is not None:
            return latents.to(device=device, dtype=torch.float32)
        generators = generator if isinstance(generator, list) else [generator]
        if isinstance(generator, list) and len(generators) != batch_size:
            raise ValueError(
                f"{len(generators)} generators for {batch_size} videos. "
                "Give one, or one for each video."
            )
        stride, patch = self.vae_scale_factor_temporal, self.vae_scale_factor_spatial
        size = (1 + (num_frames - 1) // stride, height // patch, width // patch)
        shape = (batch_size // len(generators), self.transformer.config.in_channels, *size)
        drawn = [
            torch.randn(shape, generator=each, device=each.device if each else device)
            for each in generators
        ]
        return torch.cat(drawn).to(device, torch.float32)

    def check_inputs(self, prompt, prompt_embeds, num_frames, height, width, output_type) -> None:
        """Raise a ValueError that says what to type for arguments that do not fit."""
        if (prompt is None) == (prompt_embeds is None):
            raise ValueError("Give either prompt or prompt_embeds, not both and not neither.")
        check_length(num_frames, self.vae_scale_factor_temporal)
        patch = self.vae_scale_factor_spatial
        for name, value in (("height", height), ("width", width)):
            if value < patch or value % patch:
                near = max(patch, value // patch * patch)
                raise ValueError(
                    f"{name} is {value}, but it must be a multiple of {patch}. "
                    f"Use {near} or {near + patch}."
                )
        if output_type not in ("np", "pt", "latent"):
            raise ValueError(f"output_type is '{output_type}'. Use one of: np, pt, latent.")

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        num_frames: int = 17,
        height: int = 32,
        width: int = 32,
        num_inference_steps: int = 30,
        guidance_scale: float | int = 1.0,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        negative_prompt_attention_mask: torch.Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end=None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] = ("latents",),
    ):
        """Sample videos, `frames`: np [B, T, H, W, 3] or pt [B, T, 3, H, W] in 0..1, or latents
        [B, C, F, h, w]. Above a `guidance_scale` of 1 each step runs cond, then uncond:

            guided = uncond + guidance_scale * (cond - uncond)

        `callback_on_step_end(pipe, step, timestep, tensors)` may return changed tensors.

        Raises:
            ValueError: for arguments that do not fit, each with the value to use.
        """
        # inputs
        self.check_inputs(prompt, prompt_embeds, num_frames, height, width, output_type)
        self.guidance_scale, is_guided = guidance_scale, guidance_scale > 1.0
        device = self.device
        given = (prompt_embeds, prompt_attention_mask)
        given += (negative_prompt_embeds, negative_prompt_attention_mask)
        embeds, mask, negative_embeds, negative_mask = self.encode_prompt(
            prompt, negative_prompt, is_guided, num_videos_per_prompt, given
        )
        noise = {"device": device, "generator": generator, "latents": latents}
        latents = self.prepare_latents(len(embeds), num_frames, height, width, **noise)
        state = {"latents": latents, "prompt_embeds": embeds}
        state["negative_prompt_embeds"] = negative_embeds
        # the solver, with its noise where it draws some
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        self.num_timesteps = len(self.scheduler.timesteps)
        takes_noise = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if takes_noise else {}
        with Progress("steps", self.num_timesteps, quiet=not self.shows_progress) as bar:
            for i, t in enumerate(self.scheduler.timesteps):
                # one step
                latents = state["latents"]
                velocity = self._predict(latents, t, state["prompt_embeds"], mask)
                if is_guided:
                    negative = state["negative_prompt_embeds"]
                    uncond = self._predict(latents, t, negative, negative_mask)
                    velocity = uncond + guidance_scale * (velocity - uncond)
                state["latents"] = self.scheduler.step(velocity, t, latents, **extra)[0]
                # what a callback changes
                if callback_on_step_end is not None:
                    tensors = {k: state[k] for k in callback_on_step_end_tensor_inputs}
                    state |= callback_on_step_end(self, i, t, tensors) or {}
                bar.update(i + 1)
        # frames
        latents = state["latents"]
        frames = latents if output_type == "latent" else self.decode(latents, output_type)
        return Videos(frames) if return_dict else (frames,)

    def decode(self, latents: torch.Tensor, output_type: str = "pt"):
        """Latents [B, C, F, h, w] -> frames in 0..1, clamped."""
        video = self.vae.decode(latents.to(self.vae.dtype))[0].float()
        video = ((video + 1) / 2).clamp(0, 1).permute(0, 2, 1, 3, 4)
        return video if output_type == "pt" else video.permute(0, 1, 3, 4, 2).cpu().numpy()

    def _predict(self, latents, timestep, embeds, mask) -> torch.Tensor:
        return self.transformer(
            hidden_states=latents.to(self.transformer.dtype),
            timestep=timestep.expand(latents.shape[0]),
            encoder_hidden_states=embeds,
            encoder_attention_mask=mask,
            return_dict=False,
        )[0].float()

    def _encode(self, prompt, embeds, mask) -> tuple[torch.Tensor, torch.Tensor]:
        if embeds is not None:
            mask = torch.ones(embeds.shape[:2], dtype=torch.bool) if mask is None else mask
            return embeds.to(self.device), mask.to(self.device)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        ids, mask = (x.to(self.device) for x in tokenize(self.tokenizer, prompts))
        return self.text_encoder(ids, mask), mask


def load_mini(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, *, weak: bool = False
) -> MiniVideoPipeline:
    """The embedded checkpoint, read from the package with no network.

    `weak` takes the transformer of an early training step, for guidance by a weaker model.
    """
    how = {"torch_dtype": dtype, "device": device}
    part = "transformer_weak" if weak else "transformer"
    transformer = STDiT.from_pretrained(MINI_PATH, subfolder=part, **how)
    return MiniVideoPipeline.from_pretrained(MINI_PATH, transformer=transformer, **how)


@torch.no_grad()
def add_updates(model: torch.nn.Module, path: Path) -> None:
    """Add up [out, rank] @ down [rank, in] of a file to the matrices of a model that it names.

    Raises:
        ValueError: there is no such file, or it is of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = {name: value.float() for name, value in load_file(path).items()}
        for name in {name.rpartition(".lora_")[0] for name in found}:
            weight = model.get_submodule(name).weight
            update = found[f"{name}.lora_B.weight"] @ found[f"{name}.lora_A.weight"]
            weight.copy_(weight.float() + update.to(weight.device))
    except (OSError, SafetensorError, AttributeError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path} holds no updates of this model ({error}). Make them with: "
            "python scripts/few_steps.py"
        ) from None


def to_few_steps(pipe: Any, folder: Path = FEW_STEPS) -> None:
    """Make a pipeline of the embedded model the student: its weights and its scheduler."""
    if pipe.device.type != "meta":
        add_updates(pipe.transformer, folder / UPDATES)
    pipe.scheduler = load_scheduler(folder / "scheduler")
