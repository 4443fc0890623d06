"""On a CUDA device: parity in bfloat16, attention kernels, offloading, and the overhead tool."""

import importlib.util
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_dispatch import attention_backend
from guided_runs import in_bfloat16
from tiny_pipelines import BUILDERS, generators
from tiny_text import with_prompts

import vidcfg
from vidcfg.guidance.step import NonFiniteError
from vidcfg.pipelines.load import DiffusersModel, MiniModel, load_pipeline

pytestmark = pytest.mark.gpu

TOOL = Path(__file__).parents[2] / "tools" / "bench_overhead.py"
KERNELS = ("native", "_native_flash", "_native_efficient", "_native_math", "_native_cudnn")


def on_cuda(tiny):
    """The pipeline on the device, and its embeddings, which a pipeline takes as they are."""
    tiny.pipe.to("cuda")
    moved = {name: _moved(getattr(tiny, name)) for name in ("shape", "positive", "negative")}
    return replace(tiny, **moved)


def _moved(call: dict) -> dict:
    return {k: v.to("cuda") if isinstance(v, torch.Tensor) else v for k, v in call.items()}


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
    if attention == "xformers":
        pytest.importorskip("xformers.ops", exc_type=ImportError)
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


def waits(run) -> int:
    """How often the CPU waits for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in told)


@pytest.mark.parametrize("setting", [{}, {"rescale": 0.7}, {"method": "apg"}])
def test_a_guided_step_of_wan_waits_no_more_often_than_a_stock_one(setting):
    tiny = on_cuda(BUILDERS["wan"](batch=1))

    def stock(num_steps):
        tiny.stock(4.3, generator=generators(0), num_inference_steps=num_steps)

    def ours(num_steps):
        with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=4.3, **setting), **tiny.negative):
            tiny.unguided(generator=generators(0), num_inference_steps=num_steps)

    more = {}
    for run in (stock, ours):
        run(3)
        more[run.__name__] = waits(partial(run, 6)) - waits(partial(run, 3))
    assert more["ours"] <= more["stock"], more


def test_nan_is_named_when_the_run_ends():
    pipe = load_pipeline(MiniModel(device="cuda"))
    torch.nn.init.constant_(next(pipe.transformer.parameters()), float("nan"))
    told = r"step 0: a prediction of sample 0 holds NaN or Inf, first in latent frame 0"
    with (
        pytest.raises(NonFiniteError, match=told),
        vidcfg.guide(pipe, 4.0, negative_prompt="blurry"),
    ):
        pipe("a blue square", num_inference_steps=2, output_type="latent")


def test_every_rule_runs_in_the_mini_model_as_on_the_cpu():
    """In float32; what a model and three steps make of a rounding is far below a hundredth."""
    shape = {"num_frames": 5, "height": 32, "width": 32, "num_inference_steps": 3}
    call = {"prompt": ["a red circle", "a blue square"], "output_type": "latent"} | shape
    settings = [
        {"rescale": 0.7},
        {"method": "apg"},
        {"method": "zero_star"},
        {"method": "tcfg", "statistics": "clip"},
        {"method": "mambo"},
        {"threshold": {"percentile": 99.0}, "clamp": 4.0},
        {"frames": {"kind": "ramp", "first": 0.0, "last": 1.0}},
    ]
    pipes = [load_pipeline(MiniModel(device=device)) for device in ("cuda", "cpu")]
    for setting in settings:
        ours, want = (guided_latents(pipe, setting, call) for pipe in pipes)
        error = (ours.cpu() - want).abs().max() / want.std()
        assert error < 1e-2, f"{setting}: {error}"


def guided_latents(pipe, setting: dict, call: dict) -> torch.Tensor:
    guidance = vidcfg.Guidance(scale=4.0, **setting)
    with vidcfg.guide(pipe, guidance, negative_prompt="blurry"):
        return pipe(**call, generator=generators(0, 1)).frames


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
        except RuntimeError as error:
            # "No available kernel" of SDPA, "No execution plans" of cuDNN: all else is a failure
            if "No available kernel" not in str(error) and "execution plan" not in str(error):
                raise
            pytest.skip("this kernel does not take the 12 channels a head of this tiny model")
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
