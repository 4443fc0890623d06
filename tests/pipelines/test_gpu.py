"""On a CUDA device: parity in bfloat16, attention kernels, offloading, and the overhead tool."""

import importlib.util
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_dispatch import attention_backend
from guided_runs import in_bfloat16
from tiny_pipelines import BUILDERS, generators
from tiny_text import with_prompts

import vidcfg
from vidcfg.pipelines.load import DiffusersModel, MiniModel, load_pipeline

pytestmark = pytest.mark.gpu

TOOL = Path(__file__).parents[2] / "tools" / "bench_overhead.py"
KERNELS = ("native", "_native_flash", "_native_efficient", "_native_math", "_native_cudnn")


def on_cuda(tiny):
    tiny.pipe.to("cuda")
    return tiny


@pytest.mark.parametrize("name", list(BUILDERS))
def test_bfloat16_equals_the_stock_pipeline_bit_for_bit(name):
    tiny = on_cuda(in_bfloat16(BUILDERS[name]()))
    scale = 4.5 if name == "svd" else 4.3  # SVD rounds the scale itself to bfloat16
    stock = tiny.stock(scale, generator=generators(0, 1))
    guidance = vidcfg.Guidance(scale=scale)
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative):
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, stock)


@pytest.mark.parametrize("name", ["wan", "ltx", "cogvideox", "mochi", "hunyuan_video"])
def test_float32_equals_the_stock_pipeline_bit_for_bit(name):
    tiny = on_cuda(BUILDERS[name]())
    stock = tiny.stock(4.3, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, 4.3, **tiny.negative):
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, stock)


def mini_latents(attention: str, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of the mini pipeline with its own guidance, and with ours."""
    pipe = load_pipeline(MiniModel(device="cuda", dtype=dtype, attention=attention))
    call = {
        "prompt": ["a red circle moving left over a navy background", "a blue square"],
        "num_inference_steps": 4,
        "output_type": "latent",
    }
    negative = ["blurry", "blurry"]
    stock = pipe(
        **call, negative_prompt=negative, guidance_scale=4.0, generator=generators(0, 1)
    ).frames
    guidance = vidcfg.Guidance(scale=4.0)
    with vidcfg.guide(pipe, guidance, negative_prompt=negative):
        ours = pipe(**call, guidance_scale=1.0, generator=generators(0, 1)).frames
    return stock, ours


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["sdpa", "xformers"])
def test_kernels_of_the_mini_model_equal_its_own_guidance_bit_for_bit(attention, dtype):
    stock, ours = mini_latents(attention, dtype)
    assert torch.equal(ours, stock)


def test_xformers_and_sdpa_agree_to_the_rounding_of_bfloat16():
    sdpa, xformers = (mini_latents(kind, "bfloat16")[1] for kind in ("sdpa", "xformers"))
    # 2^-8 of a rounding, 8 layers, 4 steps at scale 4: as random walks about a tenth
    assert (sdpa - xformers).abs().mean() < 0.1 * sdpa.abs().mean()


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_of_torch_equal_the_stock_pipeline_with_the_same_kernel(kernel):
    tiny = on_cuda(in_bfloat16(BUILDERS["wan"]()))
    guidance = vidcfg.Guidance(scale=4.3)
    with attention_backend(kernel):
        try:
            stock = tiny.stock(4.3, generator=generators(0, 1))
        except RuntimeError:
            return  # not every kernel takes the 12 channels a head of this tiny model
        with vidcfg.guide(tiny.pipe, guidance, **tiny.negative):
            ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, stock)


@pytest.mark.parametrize("offload", ["model", "sequential"])
@pytest.mark.parametrize("name", ["wan", "ltx"])
def test_offloaded_checkpoint_equals_one_that_stays_on_the_device(tmp_path, name, offload):
    tiny = with_prompts(BUILDERS[name]())
    tiny.pipe.save_pretrained(tmp_path)
    made = []
    for kind in ("none", offload):
        model = DiffusersModel(
            checkpoint=str(tmp_path), device="cuda", dtype="float32", offload=kind
        )
        pipe = load_pipeline(model)
        for _ in range(2):
            with vidcfg.guide(pipe, 4.0, negative_prompt="blurry"):
                call = tiny.shape | tiny.positive | {"guidance_scale": 1.0}
                made.append(pipe(**call, generator=generators(0, 1))[0].cpu())
    assert all(torch.equal(latents, made[0]) for latents in made[1:])


@pytest.mark.parametrize("level", ["leaf", "block"])
def test_group_offloading_equals_a_denoiser_that_stays_on_the_device(level):
    tiny = on_cuda(BUILDERS["wan"]())
    stock = tiny.stock(3.0, generator=generators(0, 1))
    blocks = {"num_blocks_per_group": 1} if level == "block" else {}
    where = {"onload_device": torch.device("cuda"), "offload_device": torch.device("cpu")}
    tiny.denoiser.enable_group_offload(**where, offload_type=f"{level}_level", **blocks)
    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative):
        for _ in range(2):
            assert torch.equal(tiny.unguided(generator=generators(0, 1)), stock)


def test_overhead_tool_reports_every_row_beside_the_stock_pipeline(capsys):
    spec = importlib.util.spec_from_file_location("bench_overhead", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.main(["--device", "cuda", "--rounds", "2", "--steps", "2"]) == 0
    text = capsys.readouterr().out
    assert torch.cuda.get_device_name() in text
    assert text.count(" ms") == 6
