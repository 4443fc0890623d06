"""What a pipeline call may ask for works inside `vidcfg.guide`, or is refused by name."""

import gc
import weakref

import pytest
import torch
from accelerate.hooks import CpuOffload, attach_align_device_hook
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.callbacks import SDCFGCutoffCallback
from guided_runs import HOW, compile_whole
from tiny_controls import animatediff_control
from tiny_pipelines import BUILDERS, generators, ltx2
from tiny_text import with_prompts

import vidcfg

families = pytest.mark.parametrize("name", list(BUILDERS))
PROMPTED = [name for name in BUILDERS if name != "svd"]


@pytest.mark.parametrize("name", PROMPTED)
def test_prompts_and_negative_prompts_equal_the_stock_pipeline_bit_for_bit(name):
    tiny = with_prompts(BUILDERS[name]())
    stock = tiny.stock(4.0, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, 4.0, negative_prompt="blurry"):
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, stock)


@pytest.mark.parametrize("name", ["wan", "ltx", "sd15"])
def test_several_samples_per_prompt_equal_the_stock_pipeline(name):
    tiny = with_prompts(BUILDERS[name]())
    argument = "num_images_per_prompt" if name == "sd15" else "num_videos_per_prompt"
    extra = {argument: 2}
    stock = tiny.stock(4.0, generator=generators(0, 1, 2, 3), **extra)
    with vidcfg.guide(tiny.pipe, 4.0, negative_prompt=["blurry", "blurry"]) as trace:
        ours = tiny.unguided(generator=generators(0, 1, 2, 3), **extra)
    assert torch.equal(ours, stock)
    assert trace.evaluations == {"cond": 12, "uncond": 12}


@pytest.mark.parametrize("name", ["cogvideox", "animatediff"])
def test_pipelines_that_make_one_video_of_a_prompt_say_so(name):
    """Whatever num_videos_per_prompt is: diffusers sets it to 1 on the way."""
    tiny = with_prompts(BUILDERS[name]())
    one = torch.Generator()
    assert len(tiny.unguided(generator=one, num_videos_per_prompt=2)) == 2
    with (
        vidcfg.guide(tiny.pipe, 6.0),
        pytest.raises(ValueError, match="2 samples of every prompt, but .* Give every prompt 2"),
    ):
        tiny.unguided(generator=one, num_videos_per_prompt=2)


def test_two_settings_for_two_prompts_serve_all_their_samples():
    tiny = with_prompts(BUILDERS["wan"]())
    settings = [vidcfg.Guidance(scale=2.0), vidcfg.Guidance(scale=5.0)]
    with vidcfg.guide(tiny.pipe, settings, negative_prompt="blurry") as trace:
        tiny.unguided(generator=generators(0, 1, 2, 3), num_videos_per_prompt=2)
    assert [s.strength_KF[0, 0] for s in trace.surfaces] == [2.0, 2.0, 5.0, 5.0]


def test_a_mapping_or_a_file_guides_as_the_setting_does(tmp_path):
    tiny = with_prompts(BUILDERS["wan"]())
    path = tmp_path / "my.yaml"
    path.write_text("guidance: {scale: 6, frames: {kind: ramp, first: 0.0, last: 1.0}}\n")
    words = {"scale": 6, "frames": {"kind": "ramp", "first": 0.0, "last": 1.0}}
    made = []
    for given, negative in ((vidcfg.Guidance(**words), ""), (words, None), (str(path), None)):
        with vidcfg.guide(tiny.pipe, given, negative_prompt=negative):
            made.append(tiny.unguided(generator=generators(0, 1)))
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])
    with (
        pytest.raises(ValueError, match="unknown key 'scal'. Did you mean 'scale'"),
        vidcfg.guide(tiny.pipe, {"scal": 6}),
    ):
        raise AssertionError("must not be entered")


def test_negative_embeddings_of_every_prompt_serve_all_their_samples():
    tiny = with_prompts(BUILDERS["wan"]())
    negative = BUILDERS["wan"]().negative["negative_prompt_embeds"]
    latents = []
    for given in (negative, negative.repeat_interleave(2, dim=0)):
        with vidcfg.guide(tiny.pipe, 4.0, negative_prompt_embeds=given):
            latents.append(
                tiny.unguided(num_videos_per_prompt=2, generator=generators(0, 1, 2, 3))
            )
    assert torch.equal(*latents)


@pytest.mark.parametrize(("name", "kinds"), [("wan", ("np", "pt", "pil")), ("svd", ("pt",))])
def test_every_output_type_equals_the_stock_pipelines(name, kinds):
    tiny = BUILDERS[name](num_steps=2)
    for kind in kinds:
        stock = tiny.stock(3.0, generator=generators(0, 1), output_type=kind)
        with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative):
            ours = tiny.unguided(generator=generators(0, 1), output_type=kind)
        same = {
            "pil": lambda a, b: (
                [[f.tobytes() for f in v] for v in a] == [[f.tobytes() for f in v] for v in b]
            ),
            "np": lambda a, b: (a == b).all(),
            "pt": torch.equal,
        }[kind]
        assert same(ours, stock)


def test_a_plain_tuple_and_one_generator_for_all_are_passed_through():
    tiny = BUILDERS["wan"]()
    call = {"return_dict": False, "generator": torch.Generator().manual_seed(3)}
    stock = tiny.stock(3.0, **call)
    call["generator"].manual_seed(3)
    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative):
        ours = tiny.unguided(**call)
    assert torch.equal(ours, stock)


@families
def test_callbacks_see_and_change_the_latents_of_every_step(name):
    tiny = BUILDERS[name](num_steps=3)
    if name == "hunyuan_video15":
        with (
            vidcfg.guide(tiny.pipe, 3.0, **tiny.negative),
            pytest.raises(TypeError, match="callback_on_step_end"),
        ):
            tiny.unguided(callback_on_step_end=lambda *a: {})
        return
    seen = []

    def halve(pipe, step, timestep, inputs):
        seen.append(step)
        return {"latents": inputs["latents"] / 2} if step == 0 else {}

    stock = tiny.stock(3.0, generator=generators(0, 1), callback_on_step_end=halve)
    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative):
        ours = tiny.unguided(generator=generators(0, 1), callback_on_step_end=halve)
    assert torch.equal(ours, stock)
    assert seen == [0, 1, 2] * 2


def test_a_callback_that_changes_the_prompt_is_followed():
    tiny = BUILDERS["wan"]()
    other = torch.roll(tiny.positive["prompt_embeds"], 1, dims=0)

    def swap(pipe, step, timestep, inputs):
        return {"prompt_embeds": other}

    names = ["latents", "prompt_embeds"]
    call = {"callback_on_step_end": swap, "callback_on_step_end_tensor_inputs": names}
    stock = tiny.stock(3.0, generator=generators(0, 1), **call)
    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative):
        ours = tiny.unguided(generator=generators(0, 1), **call)
    assert torch.equal(ours, stock)


def _own_scale(pipe, step, timestep, inputs):
    pipe._guidance_scale = 6.0
    return inputs


@pytest.mark.parametrize(
    ("name", "callback"),
    [("wan", _own_scale), ("sd15", SDCFGCutoffCallback(cutoff_step_ratio=0.4))],
)
def test_callback_that_changes_the_pipelines_own_guidance_is_refused(name, callback):
    tiny = BUILDERS[name]()
    with vidcfg.guide(tiny.pipe, 4.0, **tiny.negative) as trace:
        with pytest.raises(ValueError, match="callback set pipe._guidance_scale.*as a schedule"):
            tiny.unguided(generator=generators(0, 1), callback_on_step_end=callback)
        assert {step.step for step in trace.steps} == {0}
        tiny.unguided(generator=generators(0, 1))


def test_callback_that_changes_the_negative_side_is_refused():
    tiny = BUILDERS["wan"]()
    call = {"generator": generators(0, 1), "callback_on_step_end": lambda *args: {name: given}}
    name, given = "negative_prompt_embeds", tiny.positive["prompt_embeds"]
    with vidcfg.guide(tiny.pipe, 4.0, **tiny.negative):
        with pytest.raises(ValueError, match="callback changed negative_prompt_embeds"):
            tiny.unguided(**call)
        given = None  # as diffusers hands it to a callback that asks for it
        tiny.unguided(**call)


def test_an_interrupted_run_stops_and_the_next_one_starts_anew():
    tiny = BUILDERS["wan"](num_steps=4)

    def stop(pipe, step, timestep, inputs):
        pipe._interrupt = step == 1
        return {}

    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative) as trace:
        tiny.unguided(generator=generators(0, 1), callback_on_step_end=stop)
        assert [s.step for s in trace.steps] == [0, 1]
        again = tiny.unguided(generator=generators(0, 1))
        assert [s.step for s in trace.steps] == [0, 1, 2, 3]
    assert torch.equal(again, tiny.stock(3.0, generator=generators(0, 1)))


@pytest.mark.parametrize("kind", ["model", "submodules"])
def test_cpu_offload_hooks_stay_in_place_over_several_calls(kind):
    tiny = BUILDERS["ltx"]()
    stock = tiny.stock(3.0, generator=generators(0, 1))
    if kind == "model":
        tiny.pipe.enable_model_cpu_offload(device="cpu")
    else:
        # What sequential offload puts on every submodule; weights that are on the CPU stay there.
        attach_align_device_hook(tiny.pipe.transformer, execution_device=torch.device("cpu"))
    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative) as trace:
        for _ in range(3):
            assert torch.equal(tiny.unguided(generator=generators(0, 1)), stock)
            assert trace.evaluations == {"cond": 6, "uncond": 6}
    assert torch.equal(tiny.stock(3.0, generator=generators(0, 1)), stock)
    assert hasattr(tiny.pipe.transformer.proj_out, "_hf_hook") == (kind != "model")


@pytest.mark.parametrize("name", ["wan_i2v", "sdxl", "ltx2"])
def test_offloaded_models_take_the_device_in_the_order_of_the_stock_pipeline(name, monkeypatch):
    tiny = with_prompts(ltx2() if name == "ltx2" else BUILDERS[name]())
    tiny.pipe.enable_model_cpu_offload(device="cpu")
    order = []

    def taken(hook, module, *args, **kwargs):
        if order[-1:] != [type(module).__name__]:
            order.append(type(module).__name__)
        return args, kwargs

    monkeypatch.setattr(CpuOffload, "pre_forward", taken)
    tiny.stock(4.0, generator=generators(0, 1))
    stock, order[:] = list(order), []
    with vidcfg.guide(tiny.pipe, 4.0, negative_prompt="blurry"):
        tiny.unguided(generator=generators(0, 1))
    assert order == stock


@pytest.mark.parametrize("level", ["leaf", "block"])
@pytest.mark.parametrize("name", ["wan", "ltx", "animatediff"])
def test_group_offload_hooks_stay_in_place_over_several_calls(name, level):
    tiny = BUILDERS[name]()
    stock = tiny.stock(3.0, generator=generators(0, 1))
    where = {"onload_device": torch.device("cpu"), "offload_device": torch.device("cpu")}
    blocks = {"num_blocks_per_group": 1} if level == "block" else {}
    tiny.denoiser.enable_group_offload(**where, offload_type=f"{level}_level", **blocks)
    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative) as trace:
        for _ in range(2):
            assert torch.equal(tiny.unguided(generator=generators(0, 1)), stock)
            assert trace.evaluations == {"cond": 6, "uncond": 6}
    assert torch.equal(tiny.stock(3.0, generator=generators(0, 1)), stock)


def test_layerwise_casting_hooks_stay_in_place():
    tiny = BUILDERS["ltx"]()
    tiny.pipe.transformer.enable_layerwise_casting(
        storage_dtype=torch.float16, compute_dtype=torch.float32
    )
    stock = tiny.stock(3.0, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative):
        assert torch.equal(tiny.unguided(generator=generators(0, 1)), stock)
    assert torch.equal(tiny.stock(3.0, generator=generators(0, 1)), stock)


slow = pytest.mark.slow  # to compile takes long


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["ltx", *(pytest.param(n, marks=slow) for n in ("wan22", "svd"))])
def test_denoisers_that_are_compiled_as_a_whole_equal_the_stock_pipeline(name, how):
    check_compiled(BUILDERS[name](), how)


@slow
def test_a_controlnet_that_is_compiled_is_called_for_each_branch():
    check_compiled(animatediff_control().tiny, "wrapped")


def check_compiled(tiny, how):
    torch._dynamo.reset()
    parts = ("transformer", "transformer_2", "unet", "controlnet")
    parts = [part for part in parts if getattr(tiny.pipe, part, None) is not None]
    models = [part for name in parts for part in compile_whole(tiny.pipe, name, how)]
    names = ("forward", "_compiled_call_impl")
    before = [[vars(model).get(name) for name in names] for model in models]
    stock = tiny.stock(3.0, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, 3.0, **tiny.negative) as trace:
        for _ in range(2):
            assert torch.equal(tiny.unguided(generator=generators(0, 1)), stock)
            assert trace.evaluations == trace.planned.evaluations
            assert set(trace.evaluations) == {"cond", "uncond"}
    assert [[vars(model).get(name) for name in names] for model in models] == before
    assert torch.equal(tiny.stock(3.0, generator=generators(0, 1)), stock)


SCHEDULERS = {
    "unipc": lambda: UniPCMultistepScheduler(prediction_type="epsilon"),
    "dpm++": lambda: DPMSolverMultistepScheduler(solver_order=3, prediction_type="v_prediction"),
    "ancestral": lambda: EulerAncestralDiscreteScheduler(),
    "heun": lambda: HeunDiscreteScheduler(),
}


@pytest.mark.parametrize("kind", list(SCHEDULERS))
@pytest.mark.parametrize("name", ["sd15", "animatediff"])
def test_schedulers_with_history_equal_the_stock_pipeline_bit_for_bit(name, kind):
    tiny = BUILDERS[name](num_steps=4)
    tiny.pipe.scheduler = SCHEDULERS[kind]()
    steps = tiny.shape["num_inference_steps"]
    stock = tiny.stock(4.0, generator=generators(0, 1))
    with vidcfg.guide(tiny.pipe, 4.0, **tiny.negative) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, stock)
    want = list(range(steps))
    if kind == "heun":
        want = [k for k in range(steps - 1) for _ in (0, 1)] + [steps - 1]
    assert [s.step for s in trace.steps] == want
    assert trace.evaluations == trace.planned.evaluations


@families
def test_pipeline_is_as_before_afterwards_and_nothing_keeps_it_alive(name):
    tiny = BUILDERS[name](num_steps=2)
    parts = {key: id(value) for key, value in tiny.pipe.components.items()}
    before = tiny.stock(3.0, generator=generators(0, 1))
    cls = type(tiny.pipe)
    with vidcfg.guide(tiny.pipe, 2.0, **tiny.negative) as trace:
        tiny.unguided(generator=generators(0, 1))
    assert type(tiny.pipe) is cls
    assert "forward" not in vars(tiny.denoiser)
    after = tiny.stock(3.0, generator=generators(0, 1))
    assert torch.equal(after, before)
    if name != "hunyuan_video15":  # its stock call swaps the guider
        assert {key: id(value) for key, value in tiny.pipe.components.items()} == parts
    watch = weakref.ref(tiny.denoiser)
    del tiny
    gc.collect()
    assert watch() is None
    assert len(trace.steps) > 0
