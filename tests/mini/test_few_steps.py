"""Low-rank updates of the embedded model, and the solver of its student."""

import pytest
import torch
from few_steps import SOLVER, save_updates
from safetensors.torch import load_file

from vidcfg.mini.pipeline import add_updates


def updates_of(model, rank=3, *, names):
    random = torch.Generator().manual_seed(2)
    sizes = {name: model.get_submodule(name).weight.shape for name in names}
    return {
        name: (
            torch.randn(rank, num_in, generator=random),
            torch.randn(num_out, rank, generator=random),
        )
        for name, (num_out, num_in) in sizes.items()
    }


NAMES = ("proj_in", "transformer_blocks.1.mlp.0", "transformer_blocks.0.attn2.to_k")


def test_updates_are_added_to_their_matrices_and_to_no_other_weight(tiny_transformer, tmp_path):
    before = {name: w.clone() for name, w in tiny_transformer.state_dict().items()}
    updates = updates_of(tiny_transformer, names=NAMES)
    save_updates(tmp_path / "updates.safetensors", updates)
    add_updates(tiny_transformer, tmp_path / "updates.safetensors")
    for name, weight in tiny_transformer.state_dict().items():
        if name.removesuffix(".weight") not in updates:
            assert torch.equal(weight, before[name]), name
            continue
        down, up = (part.half().double() for part in updates[name.removesuffix(".weight")])
        want = before[name].double() + up @ down
        torch.testing.assert_close(weight.double(), want, rtol=1e-5, atol=1e-5)
        assert (want - before[name]).abs().max() > 1


def test_the_names_in_the_file_are_those_of_lora_files(tiny_transformer, tmp_path):
    save_updates(tmp_path / "u.safetensors", updates_of(tiny_transformer, names=NAMES[:1]))
    found = {name: tuple(w.shape) for name, w in load_file(tmp_path / "u.safetensors").items()}
    assert found == {"proj_in.lora_A.weight": (3, 4), "proj_in.lora_B.weight": (24, 3)}


@pytest.mark.parametrize("what", ["none", "text", "other sizes", "other names", "half"])
def test_a_wrong_file_is_one_sentence(what, tiny_transformer, tmp_path):
    path = tmp_path / "u.safetensors"
    updates = updates_of(tiny_transformer, names=NAMES[:1])
    [(name, (down, up))] = updates.items()
    if what == "text":
        path.write_text("no weights")
    elif what == "other sizes":
        save_updates(path, {name: (down[:, :3], up)})
    elif what == "other names":
        save_updates(path, {"proj_nowhere": (down, up)})
    elif what == "half":
        from safetensors.torch import save_file

        save_file({f"{name}.lora_A.weight": down}, path)
    with pytest.raises(ValueError, match="holds no updates of this model .*scripts/few_steps.py"):
        add_updates(tiny_transformer, path)


@pytest.mark.parametrize("num_steps", [4, 7])
def test_the_solver_takes_euler_steps_at_the_noise_levels_of_unipc(num_steps):
    """Its levels are those of `unipc` with three times the steps, every third of them."""
    import diffusers

    kept = {name: value for name, value in SOLVER.items() if not name.startswith("_")}
    solver = diffusers.UniPCMultistepScheduler(**kept)
    flow = {name: kept[name] for name in ("prediction_type", "use_flow_sigmas", "flow_shift")}
    finer = diffusers.UniPCMultistepScheduler(**flow)
    solver.set_timesteps(num_steps)
    finer.set_timesteps(3 * num_steps)
    torch.testing.assert_close(solver.sigmas, finer.sigmas[::3])
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, generator=random)
    want = x.double()
    for k, t in enumerate(solver.timesteps):
        velocity = torch.randn(x.shape, generator=random)
        x = solver.step(velocity, t, x)[0]
        want = want + (solver.sigmas[k + 1] - solver.sigmas[k]).double() * velocity.double()
        torch.testing.assert_close(x.double(), want, rtol=1e-5, atol=1e-5)


def test_the_embedded_student_follows_its_prompts_in_four_passes():
    """8 prompts by the scorer; the plain model is right in .59 of what they say."""
    from evidence.make import draw_prompts, measure_clips

    from vidcfg.media.video import to_uint8
    from vidcfg.pipelines.load import MiniModel, load_pipeline

    prompts = draw_prompts(8, held_out=False)
    calls, right = [], {}
    for checkpoint in (None, "few_steps"):
        pipe = load_pipeline(MiniModel(checkpoint=checkpoint))
        pipe.set_progress_bar_config(disable=True)
        counter = pipe.transformer.register_forward_hook(lambda *given: calls.append(given))
        generators = [torch.Generator().manual_seed(i) for i in range(8)]
        frames = pipe(prompts, num_inference_steps=4, generator=generators).frames
        counter.remove()
        values = measure_clips(to_uint8(frames), prompts, 8.0).values
        right[checkpoint] = values["attribute_accuracy[mini]"].mean()
    assert len(calls) == 8
    assert right["few_steps"] > 0.85
    assert right["few_steps"] > right[None] + 0.1
