"""The command as a user sees it: files, messages and exit codes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_in_trackers import stand_in

from vidcfg.media.read import read_video

STEMS = [
    f"a-{words}-background-s{seed}"
    for words in ("red-circle-moving-left-over-a-navy", "blue-square-growing-over-a-teal")
    for seed in (3, 4)
]


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_prompt_and_seed_gets_video_sheet_and_record_and_the_run_a_surface(render, tmp_path):
    assert render() == 0
    expected = [f"{stem}{end}" for stem in STEMS for end in (".mkv", ".png", ".json")]
    assert _names(tmp_path / "out") == sorted([*expected, "surface.png"])
    video = read_video(tmp_path / "out" / f"{STEMS[0]}.mkv")
    assert video.frames.shape == (9, 3, 8, 12)
    assert video.fps == 8
    with Image.open(tmp_path / "out" / f"{STEMS[0]}.png") as sheet:
        assert sheet.width > 9 * 100


def test_record_holds_what_is_needed_to_make_the_video_again(render, tmp_path):
    import diffusers
    import torch

    assert render("--seed", "3") == 0
    record = json.loads((tmp_path / "out" / f"{STEMS[2]}.json").read_text())
    assert record["prompt"]["negative"] == "blurry"
    assert record["seed"] == 3
    assert record["config"]["guidance"]["frames"] == {"kind": "ramp", "first": 0.0, "last": 1.0}
    assert record["config"]["seeds"] == [3]
    assert record["versions"]["torch"] == torch.__version__.split("+")[0] or (
        record["versions"]["torch"] == torch.__version__
    )
    assert record["versions"]["diffusers"] == diffusers.__version__
    assert record["scheduler"]["class"] == "FlowMatchEuler"
    assert len(record["model"]["sha256"]) == 64
    # Latents are guided by the mean of their pixels: the last has weights 5/8 to 8/8.
    assert record["surface"]["latent_strength"][0] == pytest.approx([1, 1 + 5 * 2.5 / 8, 5.0625])
    assert record["trace"]["evaluations"] == {"cond": 3, "uncond": 3}
    assert record["trace"]["naive"] == 6
    assert record["video"]["lossless"] is True


def test_record_of_a_solver_with_infinite_limits_is_valid_json(render, tmp_path):
    assert render("--seed", "3", "--set", "sampling.scheduler=dpm++") == 0

    def refuse(word):
        raise AssertionError(word)

    text = (tmp_path / "out" / f"{STEMS[0]}.json").read_text()
    record = json.loads(text, parse_constant=refuse)
    assert record["scheduler"]["class"] == "DPMSolverMultistepScheduler"


def test_recorded_hash_is_of_the_frames_in_a_lossless_video(render, tmp_path):
    import hashlib

    assert render("--seed", "3") == 0
    record = json.loads((tmp_path / "out" / f"{STEMS[0]}.json").read_text())
    frames = read_video(tmp_path / "out" / f"{STEMS[0]}.mkv").frames.transpose(0, 2, 3, 1)
    digest = hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
    assert record["video"]["frames_sha256"] == digest


def test_existing_outputs_are_listed_and_kept_before_a_model_is_loaded(
    render, tmp_path, monkeypatch, capsys
):
    assert render("--seed", "3") == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr("vidcfg.pipelines.load.load_pipeline", lambda model: pytest.fail("loaded"))
    assert render() == 2
    message = capsys.readouterr().err
    assert f"{STEMS[0]}.mkv" in message
    assert "--overwrite" in message
    assert "--skip-existing" in message
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_overwrite_replaces_what_is_there(render, tmp_path):
    assert render("--seed", "3") == 0
    path = tmp_path / "out" / f"{STEMS[0]}.mkv"
    first = path.read_bytes()
    assert render("--seed", "3", "--overwrite", "--set", "guidance.scale=1.5") == 0
    assert path.read_bytes() != first
    assert json.loads(path.with_suffix(".json").read_text())["settings"]["guidance"]["scale"] == {
        "kind": "constant",
        "value": 1.5,
        "over": "progress",
    }


def test_ctrl_c_keeps_finished_videos_and_leaves_no_partial_file(
    render, tmp_path, monkeypatch, capsys
):
    from vidcfg.progress import Progress

    steps = []

    def step(self, done, total, *, what):
        steps.append(done)
        if len(steps) == 8:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "step", step)
    assert render() == 130
    error = capsys.readouterr().err
    assert "2 of 4 videos are finished. Continue with: python -m vidcfg.render" in error
    assert error.rstrip().endswith("--skip-existing")
    expected = [f"{stem}{end}" for stem in STEMS[:2] for end in (".mkv", ".png", ".json")]
    assert _names(tmp_path / "out") == sorted([*expected, "surface.png"])


def test_ctrl_c_while_a_video_is_put_in_place_waits_for_its_last_file(
    render, tmp_path, monkeypatch
):
    rename = os.link

    def link(source, target):
        rename(source, target)
        if str(target).endswith(".mkv"):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "link", link)
    assert render() == 130
    expected = [f"{STEMS[0]}{end}" for end in (".mkv", ".png", ".json")]
    assert _names(tmp_path / "out") == sorted([*expected, "surface.png"])


def test_full_disk_is_one_line_and_leaves_no_partial_file(render, tmp_path, monkeypatch, capsys):
    write = Path.write_bytes

    def full(self, data):
        if self.suffix == ".mkv":
            raise OSError(28, "low level")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert render() == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{STEMS[0]}.mkv cannot be written: No space left on device." in error
    assert _names(tmp_path / "out") == ["surface.png"]


def test_folder_that_is_a_file_is_told_before_a_model_is_loaded(render, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert render() == 2
    assert "which is a file, not a folder" in capsys.readouterr().err
    assert render("--out", str(tmp_path / "out" / "deeper")) == 3
    assert "cannot be made: Not a directory" in capsys.readouterr().err


def test_nan_names_step_branch_and_frame_in_one_line(render, tiny_pipeline, monkeypatch, capsys):
    import torch

    weight = tiny_pipeline.transformer.proj_out.bias
    original = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    try:
        assert render("--seed", "3") == 3
    finally:
        with torch.no_grad():
            weight.copy_(original)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.strip().count("\n") == 0
    for word in ("step 0", "cond", "frame"):
        assert word in error


def test_debug_shows_where_an_error_comes_from(render, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert render("--debug") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("video.num_frames=8", "video.num_frames is 8.*4k \\+ 1 frames. Use 5 or 9"),
        ("video.height=10", "height is 10.*Use 8 or 12"),
        ("sampling.scheduler=ddim", "Use one of: pipeline, flow_euler, unipc"),
        ("output.video=vp9", "'vp9'.*h264"),
        ("guidance.frames={kind: keyframes, at: [44], floor: 0.2, reach: 2}", "44"),
    ],
)
def test_settings_that_cannot_be_rendered_have_exit_code_2(
    render, tmp_path, capsys, override, words
):
    import re

    assert render("--set", override) == 2
    error = capsys.readouterr().err
    assert re.search(words, error)
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists() or _names(tmp_path / "out") == []
    assert render("--set", override, "--dry-run") == 2
    assert re.search(words, capsys.readouterr().err)


def test_prompts_that_the_model_cannot_read_are_warned_about_by_name(render, capsys):
    long = "a red circle moving left over a navy background " * 3 + "the very end"
    assert render("--set", f"prompts=['a purple dragon, moving left', '{long}']") == 0
    error = capsys.readouterr().err
    assert "prompts.0.text: the model does not know 'purple', 'dragon'." in error
    assert "longer than the 28 tokens" in error
    assert "It does not see: 'the very end'" in error


def test_a_setting_without_effect_is_warned_about(render, capsys):
    overrides = ("--set", "guidance={scale: 1.0, rescale: 0.7}", "--seed", "3")
    assert render(*overrides) == 0
    assert "warning: guidance.rescale has no effect" in capsys.readouterr().err


def test_quiet_prints_nothing_and_plain_output_has_a_line_per_video(render, capsys):
    assert render("--quiet") == 0
    assert capsys.readouterr().out == ""
    assert render("--overwrite") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert "24 model evaluations (100 % of 2 per step)" in lines[-1]


def test_dry_run_prints_the_exact_cost_and_writes_nothing(render, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vidcfg.pipelines.load.load_pipeline", lambda model: pytest.fail("loaded"))
    interval = "guidance.scale={kind: interval, value: 5.0, from: 0.4, to: 0.6}"
    assert render("--dry-run", "--set", interval) == 0
    text = capsys.readouterr().out
    # Of three steps, one is guided: 4 videos x (3 cond + 1 uncond).
    assert "model evaluations: 16 (12 cond, 4 uncond) for 4 videos, 67 % of 24" in text
    assert "scale: {kind: interval, value: 5.0, from: 0.4, to: 0.6, over: progress}" in text
    assert f"{STEMS[3]}.mkv" in text
    assert "strength" in text
    assert not (tmp_path / "out").exists()


def test_dry_run_and_render_agree_on_the_evaluations(render, tmp_path, capsys):
    override = ("--set", "guidance.scale={kind: step, start: 4.0, end: 1.0, switch: 0.5}")
    assert render("--dry-run", *override) == 0
    planned = capsys.readouterr().out
    assert render(*override) == 0
    counts = [
        json.loads(p.read_text())["trace"]["evaluations"] for p in tmp_path.glob("out/*.json")
    ]
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    assert total == {"cond": 12, "uncond": 4}
    assert "(12 cond, 4 uncond)" in planned


def _python(*code, **options):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", *code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


def test_help_loads_no_library_and_a_config_error_neither_torch_nor_diffusers(config_path):
    code = """
import sys
from vidcfg.render.__main__ import main
heavy = {"torch", "diffusers", "av", "matplotlib", "rich", "transformers", "jaxtyping"}
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
assert not (heavy | {"numpy", "pydantic"}) & set(sys.modules)
assert main([sys.argv[1], "--set", "guidance.scal=3"]) == 2
assert main(["no-such.yaml"]) == 2
print(sorted(heavy & set(sys.modules)))
"""
    done = _python(code, str(config_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "130  interrupted" in done.stdout
    assert "Did you mean 'guidance.scale'?" in done.stderr


def test_shipped_model_renders_in_a_process_of_its_own(tmp_path):
    from vidcfg.mini.pipeline import MINI_PATH

    assert (MINI_PATH / "model_index.json").is_file()
    command = [sys.executable, "-m", "vidcfg", "render", "configs/quickstart.yaml", "--seed", "1"]
    command += ["--set", "sampling.num_steps=2", "--out", str(tmp_path)]
    command += ["--set", "prompts=[a red circle moving left over a navy background]"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(_names(tmp_path)) == 4
    assert "1 video in" in done.stdout
    assert "warning" not in done.stderr.lower()


@pytest.mark.parametrize("config", ["quickstart", "schedules", "autoguidance"])
def test_the_embedded_model_loads_no_library_that_it_does_not_run(tmp_path, config):
    code = """
import sys
from vidcfg.render.__main__ import main
assert main([*sys.argv[1:], "--seed", "1", "--set", "sampling.num_steps=2"]) == 0
heavy = {"diffusers", "transformers", "accelerate", "torchvision", "xformers", "sympy"}
heavy |= {"torch._dynamo", "torch._inductor", "numba", "scipy", "pandas", "huggingface_hub"}
assert "torch" in sys.modules
print(sorted(heavy & set(sys.modules)))
"""
    done = _python(code, config, "--prompt", "a red circle", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_log_tells_a_tracker_each_video_with_its_number_in_the_run(render, tmp_path, monkeypatch):
    seen = stand_in("wandb", monkeypatch)
    assert render("--seed", "5-6", "--log", "wandb") == 0
    assert seen.is_closed
    assert (seen.name, seen.parameters["guidance.scale.start"]) == ("tiny", 6.0)
    records = {
        n: json.loads((tmp_path / "out" / f"{v}.json").read_text()) for n, v in seen.videos.items()
    }
    assert [records[n]["seed"] for n in range(4)] == [5, 6, 5, 6]
    for number, record in records.items():
        values, steps = seen.values[number], record["trace"]["steps"]
        assert values["evaluations"] == sum(record["trace"]["evaluations"].values())
        strengths = np.array([step["strength"] for step in steps])
        assert values["strength"] == pytest.approx(strengths.mean())
        assert values["std_guided"] == pytest.approx(
            np.mean([s["std_guided"] for s in steps]), rel=1e-5
        )
