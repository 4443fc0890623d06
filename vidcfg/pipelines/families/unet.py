"""What pipelines around a UNet of Stable Diffusion have in common. No family by itself."""

from typing import Any

from torch import Tensor, zeros_like

from vidcfg.pipelines.family import Blocks, ImagePrompt, one_to_one


def _mid_grid(module: Any, arguments: Any, layer: int) -> tuple[int, int, int]:
    """The middle of a UNet sees each frame by itself, halved (rounding up) per level."""
    height, width = arguments["sample"].shape[-2:]
    for _ in module.config.block_out_channels[1:]:
        height, width = -(-height // 2), -(-width // 2)
    return 1, height, width


def _without_image(pipe: Any, call: Any, images: list[Tensor], num_samples: int) -> list[Tensor]:
    """The unconditional half of each adapter's embeddings, else what the pipeline makes for it.

    That is zeros; an adapter that sees the encoder's hidden states gets those of an empty image.
    """
    layers = pipe.unet.encoder_hid_proj.image_projection_layers
    if any(hasattr(layer, "clip_embeds") for layer in layers):
        raise ValueError(
            "IP-Adapter FaceID Plus keeps the embeddings of both branches in the model, so they "
            "cannot be dealt out to branches and samples. Use IP-Adapter FaceID or Plus."
        )
    is_zero = all(type(layer).__name__ == "ImageProjection" for layer in layers)
    in_halves = [len(image) == 2 * num_samples for image in images]
    given = [image[0] for image, is_half in zip(images, in_halves) if is_half]
    if is_zero and num_samples == 2 and any(half.any() for half in given):
        raise ValueError(
            "ip_adapter_image_embeds has two rows for two samples, and the first is no zeros: an "
            "unconditional half, or an image for each sample? Make a call for each sample."
        )
    if is_zero or all(in_halves):
        return [i[::2] if is_half else zeros_like(i) for i, is_half in zip(images, in_halves)]
    if call.get("ip_adapter_image") is None:
        raise ValueError(
            "the unconditional side of this IP-Adapter is no zeros, so ip_adapter_image_embeds "
            "must bring it: pass what pipe.prepare_ip_adapter_image_embeds(image, None, device, "
            "1, True) makes, or ip_adapter_image."
        )
    given = (call["ip_adapter_image"], None, pipe._execution_device, num_samples, True)
    return [each.chunk(2)[0] for each in pipe.prepare_ip_adapter_image_embeds(*given)]


UNET: dict[str, Any] = {
    "frame_map": one_to_one,
    "denoisers": {"unet": None},
    "hidden": "sample",
    "stock_passes": "batched",
    "prediction": None,
    "image_prompt": ImagePrompt("added_cond_kwargs.image_embeds", _without_image, in_halves=True),
    "constants": ("cross_attention_kwargs.ip_adapter_masks",),
    # The middle block, where perturbed attention guidance of images acts.
    "blocks": Blocks(
        lists=("mid_block.attentions.0.transformer_blocks",),
        layers={"stg": "all"},
        grid=_mid_grid,
    ),
    "size_multiple": 8,
}
