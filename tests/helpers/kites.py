"""A pipeline of somebody else, with names of its own; kite_family.py declares it."""

import hashlib
from types import SimpleNamespace

import torch
from diffusers import ConfigMixin, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class KiteDenoiser(ModelMixin, ConfigMixin):
    """Predicts a flow from the latents, the time and the mean of its context."""

    @register_to_config
    def __init__(self, channels: int = 5):
        super().__init__()
        self.mix = nn.Linear(channels, channels)

    def forward(self, x, t, context, scale_of_time=1.0):
        context_B = context.mean(dim=(1, 2)) + t / 1000 * scale_of_time
        return (self.mix(x.movedim(1, -1)).movedim(-1, 1) + context_B[:, None, None, None, None],)


class KitePipeline(DiffusionPipeline):
    """Takes embeddings of its prompts, or makes them of the words alone."""

    def __init__(self, denoiser, scheduler):
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler)
        self.text_encoder = "a hash of the words"
        self.set_progress_bar_config(disable=True)

    def encode_prompt(self, prompt):
        """(embeddings [B, 6, 7],)"""
        seeds = [int(hashlib.sha256(p.encode()).hexdigest()[:8], 16) for p in prompt]
        draw = [torch.randn(6, 7, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return (torch.stack(draw),)

    @torch.no_grad()
    def __call__(
        self,
        prompt_embeds=None,
        negative_prompt_embeds=None,
        guidance_scale=4.0,
        generator=None,
        prompt=None,
        num_frames=7,
        num_inference_steps=4,
        output_type="latent",
    ):
        if prompt_embeds is None:
            (prompt_embeds,) = self.encode_prompt([prompt])
        num_latents = 1 + (num_frames - 1) // 3
        x = torch.randn(len(prompt_embeds), 5, num_latents, 2, 4, generator=generator)
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            times = t.expand(len(x))
            flow = self.denoiser(x, times, context=prompt_embeds)[0]
            if guidance_scale > 1:
                other = self.denoiser(x, times, context=negative_prompt_embeds)[0]
                flow = other + guidance_scale * (flow - other)
            x = self.scheduler.step(flow, t, x, return_dict=False)[0]
        if output_type == "latent":
            return x
        # A frame for each pixel frame: [B, T, 16, 32, 3] in 0..1.
        pixels = x[:, :3].repeat_interleave(3, dim=2)[:, :, 2:].sigmoid()
        frames = nn.functional.interpolate(pixels, size=(num_frames, 16, 32))
        return SimpleNamespace(frames=frames.movedim(1, -1).numpy())


def kite() -> KitePipeline:
    torch.manual_seed(0)
    return KitePipeline(KiteDenoiser(), FlowMatchEulerDiscreteScheduler())
