"""The student of few steps: its teacher's latents, what it is shown, what it learns."""

import itertools

import few_steps
import numpy as np
import pytest
import torch
from tiny_sweep import save_tiny_model
from train_mini.loop import Clock

import vidcfg
from vidcfg.mini.pipeline import UPDATES, MiniVideoPipeline, to_few_steps
from vidcfg.mini.scheduler import load_scheduler

CONFIG = """\
schema: 1
name: tiny
model: {kind: mini, checkpoint: MODEL}
prompts: [a red circle]
video: {num_frames: 5, height: 8, width: 12, fps: 8}
sampling: {num_steps: 6, scheduler: unipc}
guidance: {scale: 4.0}
output: {dir: out}
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`command(folder, *options) -> exit code`, on a tiny random model of three videos."""
    model = save_tiny_model(tmp_path / "model")
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG.replace("MODEL", str(model)))
    monkeypatch.setattr(few_steps, "CHUNK", 2)
    monkeypatch.setattr(few_steps, "quicken", lambda pipe: None)
    fixed = ["--num-steps", "3", "--videos", "3", "--batch", "2", "--rank", "2"]

    def run(folder, *options):
        words = [str(path), "--out", str(folder), *fixed, *map(str, options)]
        return few_steps.cli.run(few_steps.parser(), few_steps.run, words)

    run.model = model
    return run


def test_latents_are_those_of_the_guided_teacher_at_the_levels_of_the_student(command, tmp_path):
    out = tmp_path / "student"
    assert command(out, "--steps", "1") == 0
    files = sorted((out / "trajectories").glob("*.npz"))
    assert [len(np.load(file)["latents"]) for file in files] == [2, 1]
    kept = np.load(files[1])
    assert kept["latents"].shape[1:3] == (4, 4)
    # The third video alone, by a run of its own.
    pipe = MiniVideoPipeline.from_pretrained(command.model)
    import diffusers

    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 2.0}
    pipe.scheduler = diffusers.UniPCMultistepScheduler(**flow)
    seen = []

    def keep(pipe, step, time, tensors):
        seen.append(tensors["latents"])
        return {}

    mixed = torch.autocast("cpu", torch.bfloat16)
    with vidcfg.guide(pipe, vidcfg.Guidance(scale=4.0)), mixed:
        pipe(
            list(kept["prompts"]),
            num_frames=5,
            height=8,
            width=12,
            num_inference_steps=6,
            generator=[torch.Generator().manual_seed(10**6 + 2)],
            output_type="latent",
            callback_on_step_end=keep,
        )
    want = torch.stack([seen[1], seen[3], seen[5]], dim=1).numpy()
    np.testing.assert_allclose(kept["latents"][:, 1:], want, atol=2e-3)  # kept in float16
    assert np.abs(want[0, 0] - want[0, 2]).max() > 0.5


def test_every_pair_is_shown_once_before_any_comes_again_and_a_resumed_run_goes_on(tmp_path):
    latents = np.arange(3 * 4, dtype=np.float16).reshape(3, 4, 1, 1, 1, 1)
    np.savez(tmp_path / "0.npz", latents=latents, prompts=np.array(["a", "b", "c"]))

    def shown(clock, num):
        batches = few_steps.lessons(tmp_path, clock, batch=2, seed=5)
        return list(itertools.islice(batches, num))

    whole = shown(Clock(0.0, 20), 9)
    pairs = []
    for prompts, step, before, after in whole:
        video = np.array(["abc".index(prompt) for prompt in prompts])
        assert np.array_equal(before.flatten(), 4 * video + step)
        assert np.array_equal(after.flatten(), 4 * video + step + 1)
        pairs += list(zip(video, step))
    assert len(set(pairs[:9])) == len(set(pairs[9:])) == 9
    assert pairs[:9] != pairs[9:]
    resumed = shown(Clock(0.0, 20, step=4), 5)
    for one, other in zip(whole[4:], resumed):
        assert one[0] == other[0]
        assert torch.equal(one[2], other[2])


def test_the_student_learns_the_way_to_the_next_level_and_its_file_gives_the_same(
    command, tmp_path
):
    out = tmp_path / "student"
    assert command(out, "--steps", "150", "--rate", "0.01") == 0
    pipe = MiniVideoPipeline.from_pretrained(command.model)
    taught = MiniVideoPipeline.from_pretrained(command.model)
    to_few_steps(taught, out)
    files = [np.load(file) for file in sorted((out / "trajectories").glob("*.npz"))]
    latents = torch.from_numpy(np.concatenate([file["latents"] for file in files])).float()
    prompts = list(np.concatenate([file["prompts"] for file in files]))

    def error(pipe):
        """Of whole videos in three steps from the teacher's noise, to the teacher's last."""
        pipe.scheduler = load_scheduler(out / "scheduler")
        how = {"num_frames": 5, "height": 8, "width": 12, "output_type": "latent"}
        made = pipe(prompts, latents=latents[:, 0], num_inference_steps=3, **how).frames
        return float((made - latents[:, -1]).square().mean())

    assert error(taught) < 0.25 * error(pipe)
    # The updates are of all matrices, and small files.
    assert (out / UPDATES).stat().st_size < 60_000


def test_the_file_has_the_largest_singular_values_of_an_update():
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(7, 5))
    student = few_steps.Student(layer, rank=4)
    with torch.no_grad():
        for weight in student.ways.parameters():
            weight.normal_()
        (way,) = student.ways.values()
        whole = (way.up @ way.down).double().numpy()
    for rank in (2, 4, 9):
        [(name, (down, up))] = student.updates(rank).items()
        assert name == "0"
        lost = np.linalg.svd(whole)[1][min(rank, 4) :]
        error = np.linalg.norm((up @ down).numpy() - whole)
        np.testing.assert_allclose(error, np.linalg.norm(lost), atol=1e-12)


def test_a_stopped_run_goes_on_and_another_teacher_is_refused(command, tmp_path, capsys):
    out, whole = tmp_path / "parts", tmp_path / "whole"
    assert command(out, "--steps", "2") == 0
    assert command(whole, "--steps", "2") == 0
    assert (out / UPDATES).read_bytes() == (whole / UPDATES).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in (out / "trajectories").glob("*.npz")}
    assert command(out, "--steps", "4") == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert command(out, "--steps", "4", "--set", "guidance.scale=5.0") == 2
    assert "holds videos of another teacher. Choose another --out." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num-steps", "4"], "--num-steps is 4, but the teacher's 6 must be a multiple of it"),
        (["--videos", "0"], "--videos is 0, but must be at least 1"),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_written(
    options, words, command, tmp_path, capsys
):
    assert command(tmp_path / "out", *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
