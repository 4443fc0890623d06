"""Distilled guidance: an adapter that reads the strength of every frame, and how it is taught."""

import argparse
import dataclasses
import importlib.util
import itertools
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from guided_runs import record_inside
from rule_runs import plan_of
from tiny_pipelines import BUILDERS, generators

import vidcfg
from vidcfg.guidance.rules.distilled import Distilled
from vidcfg.guidance.rules.embedded import Embedded
from vidcfg.pipelines.changes.distilled import StrengthAdapter, adapted, of_strength

B, F, PLACES, WIDTH = 2, 3, 5, 8


def trained(num_layers: int, width: int, *, seed: int = 0) -> StrengthAdapter:
    """One whose weights are not those of a start."""
    torch.manual_seed(seed)
    adapter = StrengthAdapter(num_layers, width, rank=6)
    for weight in adapter.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return adapter.requires_grad_(False)


@pytest.fixture
def wan():
    return BUILDERS["wan"]()


def adapter_of(tiny, path, **how):
    config = tiny.pipe.transformer.config
    adapter = trained(
        config.num_layers, config.num_attention_heads * config.attention_head_dim, **how
    )
    adapter.save(path)
    return adapter


def test_tokens_of_frames_at_strength_1_stay_and_others_follow_the_formula():
    adapter = trained(2, WIDTH)
    tokens = torch.randn(B, F * PLACES, WIDTH, generator=torch.Generator().manual_seed(1))
    strength = torch.tensor([[1.0, 4.0, 0.5], [7.0, 1.0, 1.0]])
    made = adapter(1, tokens, strength).unflatten(1, (F, PLACES))
    before = tokens.unflatten(1, (F, PLACES))
    assert torch.equal(made[strength == 1], before[strength == 1])
    # In float64, frame by frame.
    adapter, before = adapter.double(), before.double()
    for b, f in [(0, 1), (0, 2), (1, 0)]:
        gate = adapter.gate[1](of_strength(strength[b : b + 1, f : f + 1]).double())[0, 0]
        x = before[b, f]
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        x = torch.nn.functional.silu(x @ adapter.down[1].weight.T + adapter.down[1].bias) * gate
        want = before[b, f] + x @ adapter.up[1].weight.T
        torch.testing.assert_close(made[b, f].double(), want, rtol=1e-4, atol=1e-4)
        assert (want - before[b, f]).abs().max() > 0.1


def test_a_power_is_that_of_the_strength_off_at_strength_1_and_kept_in_the_file(tmp_path):
    adapter = trained(2, WIDTH).half().float()  # as a file keeps them
    tokens = torch.randn(B, F * PLACES, WIDTH, generator=torch.Generator().manual_seed(1))
    strength = torch.tensor([[1.0, 4.0, 0.25], [9.0, -4.0, 0.0]])
    of_roots = adapter(0, tokens, torch.tensor([[1.0, 2.0, 0.5], [3.0, -2.0, 0.0]]))
    adapter.power = 0.5
    made = adapter(0, tokens, strength)
    torch.testing.assert_close(made, of_roots, rtol=1e-6, atol=1e-6)
    assert torch.equal(made.unflatten(1, (F, PLACES))[0, 0], tokens[0, :PLACES])
    adapter.save(tmp_path / "a.safetensors")
    assert torch.equal(StrengthAdapter.load(tmp_path / "a.safetensors")(0, tokens, strength), made)


def test_a_file_from_before_there_were_powers_has_none(tmp_path):
    from safetensors.torch import save_file

    adapter = trained(2, WIDTH)
    size = {name: str(value) for name, value in adapter.size.items()}
    save_file(adapter.state_dict(), tmp_path / "a.safetensors", size)
    assert StrengthAdapter.load(tmp_path / "a.safetensors").power == 1.0


SIZES = {
    "wan": (2, 24),
    "ltx": (1, 32),
    "cogvideox": (1, 32),
    "hunyuan_video": (2, 20),
    "sd3": (1, 32),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_new_adapter_is_the_plain_model_in_one_pass(name, tmp_path):
    tiny = BUILDERS[name]()
    path = tmp_path / "new.safetensors"
    adapter = StrengthAdapter(*SIZES[name], rank=4)
    adapter.save(path)
    plain = tiny.unguided(generator=generators(0, 1))
    guidance = vidcfg.Guidance(scale=6.0, method={"kind": "distilled", "adapter": str(path)})
    with vidcfg.guide(tiny.pipe, guidance) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, plain)
    assert list(trace.evaluations.values()) == [6]
    assert trace.evaluations == trace.planned.evaluations
    # One that adds something does reach the prediction.
    torch.nn.init.normal_(adapter.up[0].weight)
    adapter.save(path)
    with vidcfg.guide(tiny.pipe, guidance):
        assert not torch.equal(tiny.unguided(generator=generators(0, 1)), plain)


def test_models_whose_tokens_are_no_frames_are_refused(tmp_path):
    for name, part in (("cogvideox15", "for a grid (2, 1, 2)"), ("wan22", "several models")):
        tiny = BUILDERS[name]()
        size = (1, 64) if name == "cogvideox15" else SIZES["wan"]
        StrengthAdapter(*size).save(tmp_path / "a.safetensors")
        method = {"kind": "distilled", "adapter": str(tmp_path / "a.safetensors")}
        with (
            pytest.raises(ValueError, match=re.escape(part)),
            vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=6.0, method=method)),
        ):
            tiny.unguided(generator=generators(0, 1))


def test_frames_of_strength_1_are_the_plain_prediction_and_samples_have_their_own(wan, tmp_path):
    adapter_of(wan, tmp_path / "a.safetensors")
    method = {"kind": "distilled", "adapter": str(tmp_path / "a.safetensors")}
    frames = {"kind": "list", "values": [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]}
    both = [
        vidcfg.Guidance(scale=5.0, method=method, frames=frames),
        vidcfg.Guidance(scale=3.0, method=method),
    ]
    with vidcfg.guide(wan.pipe, both) as trace:
        _, outputs, used = record_inside(wan, generators(0, 1))
    assert {name.split(":")[0] for name in trace.evaluations} == {"cond", "distilled"}
    assert trace.evaluations == trace.planned.evaluations
    # On the first step cond runs for the first sample alone, the student for both.
    cond, student, guided = outputs[0], outputs[1], used[0]
    assert (len(cond), len(student)) == (1, 2)
    assert torch.equal(guided[1], student[1])
    is_off = trace.surfaces[0].strength_KF[0] == 1
    for f, off in enumerate(is_off):
        assert torch.equal(guided[0, :, f], (cond if off else student)[0, :, f])
    assert set(is_off) == {True, False}
    assert not torch.equal(cond[0], student[0])
    # The second sample gets what it gets beside another of its own strengths.
    with vidcfg.guide(wan.pipe, [both[1]] * 2):
        _, _, alike = record_inside(wan, generators(0, 1))
    assert torch.equal(alike[0][1], guided[1])
    assert not torch.equal(alike[0][0], guided[0])
    with vidcfg.guide(wan.pipe, [both[0], vidcfg.Guidance(scale=4.0, method=method)]):
        _, _, stronger = record_inside(wan, generators(0, 1))
    assert torch.equal(stronger[0][0], guided[0])
    assert not torch.equal(stronger[0][1], guided[1])


def test_the_plan_does_not_share_what_the_strength_tells_the_model():
    strength_BKF = np.broadcast_to(np.reshape([3.0, 5.0, 5.0], (3, 1, 1)), (3, 4, F))
    for rule in (Distilled(adapter="a"), Embedded()):
        assert plan_of(rule, strength_BKF).total == 2 * 4


def test_a_wrong_adapter_is_one_sentence(wan, tmp_path):
    def error(path):
        method = {"kind": "distilled", "adapter": str(path)}
        with (
            pytest.raises(ValueError) as told,
            vidcfg.guide(wan.pipe, vidcfg.Guidance(scale=6.0, method=method)),
        ):
            wan.unguided(generator=generators(0, 1))
        return str(told.value)

    assert "is no adapter of a distilled model" in error(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    assert "scripts/distill.py" in error(tmp_path / "text.safetensors")
    trained(5, WIDTH).save(tmp_path / "deep.safetensors")
    assert "the adapter is for 5 blocks, and this WanTransformer3DModel has 2" in error(
        tmp_path / "deep.safetensors"
    )
    trained(2, WIDTH + 1).save(tmp_path / "wide.safetensors")
    assert "the adapter takes 9 channels" in error(tmp_path / "wide.safetensors")


@pytest.fixture
def distill(monkeypatch):
    """The script as a module."""
    scripts = Path(__file__).parents[2] / "scripts"
    monkeypatch.syspath_prepend(str(scripts))
    spec = importlib.util.spec_from_file_location("distill", scripts / "distill.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "distill", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def teacher(wan, distill, monkeypatch):
    """Of a tiny Wan, three steps, two videos at once."""
    config = SimpleNamespace(sampling=SimpleNamespace(num_steps=3))
    call = wan.shape | wan.positive | {"guidance_scale": 1.0, "num_inference_steps": 3}
    monkeypatch.setattr(distill, "call_of", lambda pipe, config, prompts: call)
    return distill.Teacher(wan.pipe, config, ["a", "b"], batch=2, negative=wan.negative)


def test_half_of_the_batches_go_where_the_student_leads_and_learn_from_the_teacher(wan, teacher):
    seeds = {np.random.default_rng(seed).random() < 0.5: seed for seed in range(20)}
    width = width_of(wan)
    for leads, seed in seeds.items():
        alone = teacher.run(seed)
        teacher.student = trained(2, width)
        beside = teacher.run(seed)
        teacher.student = None
        # What is to be learned at the start does not depend on who leads.
        assert torch.equal(beside[0].guided, alone[0].guided)
        for before, after in itertools.pairwise(beside):
            given, step = before.arguments, after.arguments["hidden_states"]
            with (
                torch.no_grad(),
                adapted(
                    wan.pipe.transformer, teacher.family, trained(2, width), before.strength, given
                ),
            ):
                own = wan.pipe.transformer(**given)[0]
            went = step - given["hidden_states"]
            # Euler: the difference is a number times the prediction that led.
            of_student, of_teacher = (parallel(went, p) for p in (own, before.guided))
            assert (of_student > 0.9999) == leads
            assert (of_teacher > 0.9999) != leads


def parallel(x: torch.Tensor, y: torch.Tensor) -> float:
    """The cosine of their angle, but for the sign."""
    return abs(float(torch.cosine_similarity(x.flatten(), y.flatten(), dim=0)))


def test_a_step_counts_by_how_far_the_noise_level_falls_in_it(wan, distill, teacher):
    wan.pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    wan.pipe.scheduler.set_timesteps(sigmas=[1.0, 0.9, 0.6])
    lengths = distill.step_lengths(wan.pipe, teacher.family, 3)
    assert lengths == pytest.approx([0.3, 0.9, 1.8])
    # A scheduler that does not tell, as one of a model with no noise levels.
    silent = dataclasses.replace(teacher.family, has_levels=False)
    assert list(distill.step_lengths(wan.pipe, silent, 3)) == [1.0, 1.0, 1.0]
    # What was seen carries them, and the loss is their multiple.
    seen = teacher.run(3)
    assert np.mean([each.length for each in seen]) == pytest.approx(1.0)
    adapter, module = trained(2, width_of(wan)), wan.pipe.transformer
    with torch.no_grad():
        of_one, of_it = (
            distill.loss_of(adapter, module, teacher.family, each)
            for each in (seen[0]._replace(length=1.0), seen[0])
        )
    assert float(of_it) == pytest.approx(seen[0].length * float(of_one), rel=1e-6)
    assert seen[0].length != 1.0


def width_of(wan) -> int:
    return wan.pipe.transformer.config.num_attention_heads * 12


def test_drawn_captions_are_not_of_the_evidence_and_a_third_leave_parts_out(distill):
    captions = distill.drawn_captions(300)
    evidence = Path(__file__).parents[2] / "configs" / "evidence"
    used = {line for path in evidence.glob("*.txt") for line in path.read_text().splitlines()}
    whole = [text for text in captions if text.endswith("dot") and "light with" in text]
    whole = [text for text in whole if "over a" in text]
    assert not used & set(captions)
    assert 150 < len(whole) < 250
    assert captions == distill.drawn_captions(300)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--minutes", "-1"], "--minutes is -1.0, but must be above 0"),
        (["--drawn", "0"], "--drawn is 0, but must be at least 1"),
        (["--drawn", "8", "--prompts", "p.txt"], "Give --prompts or --drawn, not both."),
        (["--drawn", "8"], "--drawn has captions for the embedded model alone. Give --prompts."),
    ],
)
def test_wrong_options_say_what_to_type(given, told, distill):
    config = Path(__file__).parents[2] / "configs" / "wan" / "wan2.1-1.3b.yaml"
    arguments = distill.parser().parse_args([str(config), *given])
    with pytest.raises(ValueError, match=re.escape(told)):
        distill.run(arguments)


def test_a_tiny_wan_learns_from_its_own_guidance(wan, distill, teacher, tmp_path):
    held_out = teacher.run(99)
    assert [tuple(seen.strength.shape) for seen in held_out] == [(2, 3)] * 3
    module, family = wan.pipe.transformer, teacher.family
    plain = StrengthAdapter(*distill.width_of(module, family, held_out[0]), rank=8)

    def error(adapter):
        with torch.no_grad():
            return sum(float(distill.loss_of(adapter, module, family, s)) for s in held_out)

    given = argparse.Namespace(
        out=tmp_path / "a.safetensors", seed=0, rank=8, rate=1e-2, steps=150, minutes=0.0
    )
    log, stop = distill.Log(tmp_path / "log.jsonl"), distill.Stop("stopped")
    distill.teach(teacher, given, log, stop)
    assert error(StrengthAdapter.load(given.out)) < 0.9 * error(plain)
    # The table of the end: half of the passes, nearer to the teacher than the plain model.
    rows = distill.compare(teacher, given.out, count=2)[2:]
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in distill.HELD_OUT]
    assert all(row.endswith("| 6, 3 |") for row in rows)
    of_decay = [float(cell.split()[0]) for cell in rows[3].split(" | ")[1:3]]
    assert of_decay[0] > of_decay[1]


def test_strengths_are_calibrated_by_how_far_the_videos_go(distill, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    trained(2, WIDTH).save(path)
    away = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def videos(teacher, count, *, scale, method=None):
        """A student that goes as far at `scale` as its teacher at the 1.2th root of it."""
        assert (teacher, count) == ("teacher", 3)
        if method is not None:
            assert method["kind"] == "distilled"
            assert StrengthAdapter.load(path).power == 1.0  # what a stop would leave
            scale = scale ** (StrengthAdapter.load(method["adapter"]).power / 1.2)
        return 7.0 + (scale - 1) * away, 0

    monkeypatch.setattr(distill, "videos", videos)
    told = distill.calibrate("teacher", path, count=3)
    assert list(tmp_path.iterdir()) == [path]
    assert StrengthAdapter.load(path).power == 1.2
    assert told[0] == "strengths are read to the power 1.2"
    before = [((scale ** (1 / 1.2) - 1) / (scale - 1)) ** 2 for scale in (2.0, 3.0, 5.0, 8.0)]
    shown = [tuple(float(cell) for cell in row.strip("| ").split(" | ")) for row in told[3:]]
    assert [(scale, share) for scale, share, _ in shown] == [
        (s, 1.0) for s in (2.0, 3.0, 5.0, 8.0)
    ]
    assert [share for *_, share in shown] == pytest.approx(before, abs=0.005)


def test_the_embedded_adapter_comes_closer_to_its_teacher_than_the_plain_model():
    """Latents of 4 whole captions, as it was taught, at a strength per frame, 12 steps."""
    from evidence.make import draw_prompts

    from vidcfg.mini.pipeline import load_mini

    pipe = load_mini()
    pipe.set_progress_bar_config(disable=True)
    prompts, made = draw_prompts(4, held_out=False), {}
    taught = {"kind": "distilled", "adapter": "mini"}
    cases = {"cfg": ("cfg", 6.0), "taught": (taught, 6.0), "plain": ("cfg", 1.0)}
    for name, (method, scale) in cases.items():
        guidance = vidcfg.Guidance(scale, method=method, frames={"kind": "decay", "end": 0.3})
        with vidcfg.guide(pipe, guidance) as trace:
            made[name] = pipe(
                prompts,
                num_inference_steps=12,
                generator=generators(*range(4)),
                output_type="latent",
            ).frames
        passes = sum(trace.evaluations.values())
        assert passes == (96 if name == "cfg" else 48)
    error = {n: float((made[n] - made["cfg"]).square().mean()) for n in ("taught", "plain")}
    assert error["taught"] < 0.6 * error["plain"]
