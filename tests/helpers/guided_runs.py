"""What runs inside a guided pipeline, recorded for independent loops."""

import torch

LAYOUTS = {
    "BCFHW": (
        "wan mochi hunyuan_video wan_i2v wan22 wan_ti2v_5b skyreels_v2 hunyuan_video15 animatediff"
    ),
    "BFCHW": "cogvideox cogvideox15 cogvideox_i2v svd",
    "tokens": "ltx ltx2",
    "image": "sd15 sdxl sd3 flux",
}
"""Written by hand, beside the declarations of the families."""

LAYOUT_OF = {name: layout for layout, names in LAYOUTS.items() for name in names.split()}


def frame_of(tensor: torch.Tensor, name: str, frame: int, num_frames: int) -> torch.Tensor:
    """One frame of a latent, written by hand per layout."""
    layout = LAYOUT_OF[name]
    if layout == "image":
        return tensor
    if layout == "BCFHW":
        return tensor[:, :, frame]
    if layout == "BFCHW":
        return tensor[:, frame]
    tokens = tensor.shape[1] // num_frames
    return tensor[:, frame * tokens : (frame + 1) * tokens]


HOW = ("wrapped", "in place", "forward")
"""The ways in which a model is compiled as a whole."""


def compile_whole(pipe, name: str, how: str) -> list:
    """Compile a model of a pipeline without changing what it computes; it, and what holds it."""
    model = getattr(pipe, name)
    if how == "wrapped":
        setattr(pipe, name, torch.compile(model, backend="eager"))
    elif how == "in place":
        model.compile(backend="eager")
    else:
        model.forward = torch.compile(model.forward, backend="eager")
    return [model, getattr(pipe, name)]


def record_inside(tiny, generator):
    """Latents, denoiser outputs and what reached the scheduler in a guided, unguided-looking call.

    The denoiser outputs are those of single branches, in the order in which they ran.
    """
    session = type(tiny.pipe)._vidcfg_session
    outputs, used = [], []
    forward, step = session.forward, tiny.pipe.scheduler.step

    def spy(module, original, expert, arguments):
        def recorded(**kwargs):
            result = original(**kwargs)
            outputs.append(result[0].clone())
            return result

        return forward(module, recorded, expert, arguments)

    def recorded_step(prediction, *args, **kwargs):
        used.append(prediction.clone())
        return step(prediction, *args, **kwargs)

    session.forward, tiny.pipe.scheduler.step = spy, recorded_step
    try:
        latents = tiny.unguided(generator=generator)
    finally:
        del session.forward, tiny.pipe.scheduler.step
    return latents, outputs, used


def rows(tensors: dict, start: int, stop: int) -> dict:
    """The same inputs for the samples start .. stop - 1."""
    return {name: tensor[start:stop] for name, tensor in tensors.items()}


def in_bfloat16(tiny):
    """The same pipeline and inputs in bfloat16."""
    tiny.pipe.to(torch.bfloat16)
    for tensors in (tiny.positive, tiny.negative):
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name] = tensor.bfloat16()
    return tiny
