"""The plugin in a pytest of its own, and the example project that readers copy."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "flicker_gate"
HEAD = """
import numpy as np
import pytest

def clip(seed, brighter=0):
    rng = np.random.default_rng(seed)
    waves = rng.uniform(0.1, 0.6, (2, 5))
    y, x = np.mgrid[:24, :32]
    frames = []
    for t in range(9):
        texture = np.sin(waves[0, :, None, None] * (x + t) + waves[1, :, None, None] * y).sum(0)
        frames.append(120 + 15 * texture + rng.normal() + brighter * (t % 2))
    return np.clip(np.stack(frames)[..., None].repeat(3, -1), 0, 255).astype(np.uint8)

CLIPS = {(f"prompt {i}", 0): clip(i) for i in range(8)}
WORSE = {(f"prompt {i}", 0): clip(i, 4) for i in range(8)}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(test text, *options)`: writes test_video.py and runs pytest there.

    In this process, whose libraries are loaded, unless `alone` asks for one of its own.
    """
    found = entry_points(group="pytest11")
    is_installed = any(e.value == "vidcfg.regress.pytest_plugin" for e in found)
    plugin = [] if is_installed else ["-p", "vidcfg.regress.pytest_plugin"]

    def call(text=None, *options, folder=tmp_path, alone=False, is_terminal=False):
        if text is not None:
            (folder / "test_video.py").write_text(HEAD + text)
            (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
        arguments = ["-q", "-p", "no:cacheprovider", *plugin, *options]
        if alone:
            command = [sys.executable, "-m", "pytest", *arguments]
            return subprocess.run(command, cwd=folder, capture_output=True, text=True)
        shown = io.StringIO()
        shown.isatty = lambda: is_terminal
        with monkeypatch.context() as own, contextlib.redirect_stdout(shown):
            own.chdir(folder)
            own.setattr(sys, "path", [*sys.path])
            code = pytest.main([*arguments, "--rootdir", str(folder), str(folder)])
        # The next run may have other files of these names.
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
                del sys.modules[name]
        return subprocess.CompletedProcess(arguments, int(code), shown.getvalue())

    return call


def test_record_then_pass_then_fail(run, tmp_path, monkeypatch):
    gate = "def test_kite(temporal_gate):\n    temporal_gate(CLIPS)\n"
    first = run(gate)
    assert first.returncode == 1
    assert "there is no baseline" in first.stdout
    assert "pytest test_video.py::test_kite --vidcfg-record" in first.stdout
    recorded = run(gate, "--vidcfg-record")
    assert recorded.returncode == 0
    assert "nothing was compared" in recorded.stdout
    assert (tmp_path / "baselines" / "test_video.test_kite" / "baseline.json").is_file()
    assert "PASS" in run(gate).stdout
    worse = run(gate.replace("CLIPS", "WORSE"), "--vidcfg-out", "out")
    assert worse.returncode == 1
    assert "FAIL         mc_flicker" in worse.stdout
    assert "worst in 'prompt" in worse.stdout
    assert (tmp_path / "out" / "test_video.test_kite" / "index.html").is_file()
    head = "verdict      metric                 change  90 % interval         margin"
    assert f"{head}  tolerance" in worse.stdout
    monkeypatch.setenv("COLUMNS", "80")
    narrow = run(None, "--color=no", is_terminal=True)
    rows = narrow.stdout[narrow.stdout.index("verdict  ") :].splitlines()[:8]
    assert max(map(len, rows)) <= 80
    assert not rows[0].endswith("needs")
    assert rows[1].endswith("needs")


def test_renewing_a_baseline_says_that_its_calibrated_noise_goes(run, tmp_path):
    gate = "def test_kite(temporal_gate):\n    temporal_gate(CLIPS)\n"
    assert "loses" not in run(gate, "--vidcfg-record").stdout
    baseline = tmp_path / "baselines" / "test_video.test_kite"
    facts = json.loads((baseline / "baseline.json").read_text())
    facts["noise"] = {"mc_flicker": {"sd": 0.1, "n": 12}}
    (baseline / "baseline.json").write_text(json.dumps(facts))
    again = run(gate, "--vidcfg-record")
    assert again.returncode == 0
    assert f"warning: {baseline} loses its noise of repeats" in again.stdout
    assert f"vidcfg regress calibrate RENDERS REPEAT --save {baseline}" in again.stdout
    assert "noise" not in json.loads((baseline / "baseline.json").read_text())


def test_marker_sets_policy_name_and_leniency(run, tmp_path):
    gate = """
RULES = {"alpha": 0.01, "metrics": {"mc_flicker": {"margin": 0.02, "guard": None}}}
@pytest.mark.temporal_gate(policy=RULES, name="mine", inconclusive="warn")
def test_kite(temporal_gate):
    outcome = temporal_gate(GIVEN)
    assert outcome is None or outcome.policy.alpha == 0.01
"""
    four = "GIVEN = {(f'prompt {i}', 0): clip(i, BRIGHTER) for i in range(4)}"
    assert run(four.replace("BRIGHTER", "2") + gate, "--vidcfg-record").returncode == 0
    assert (tmp_path / "baselines" / "mine").is_dir()
    # Two prompts better and two worse: no sign of harm, and too few to be sure.
    unsure = four.replace("BRIGHTER", "1 + 2 * (i % 2)")
    lenient = run(unsure + gate)
    assert lenient.returncode == 0, lenient.stdout
    assert "InconclusiveWarning" in lenient.stdout
    strict = run(unsure + gate.replace("warn", "fail"))
    assert strict.returncode == 1
    assert "no sign of harm" in strict.stdout
    # What is worse is not waved through.
    worse = run(four.replace("BRIGHTER", "2 + 2 * (i % 2)") + gate)
    assert worse.returncode == 1
    assert "4 prompts cannot prove it" in worse.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def test_a(temporal_gate): temporal_gate([1, 2])", "give a mapping of prompts"),
        ("def test_a(temporal_gate): temporal_gate({3: clip(0)})", "is no prompt"),
        ("def test_a(temporal_gate): temporal_gate({})", "there are no clips"),
        (
            "def test_a(temporal_gate): temporal_gate({'x': clip(0)[0]})",
            "a clip is an array [T, H, W, 3]",
        ),
        (
            "@pytest.mark.temporal_gate(margin=1)\ndef test_a(temporal_gate): pass",
            "temporal_gate takes policy, inconclusive, name, fps, stride",
        ),
        (
            "@pytest.mark.temporal_gate(policy={'alpha': 2.0})\ndef test_a(temporal_gate): pass",
            "alpha is 2.0, but must be from",
        ),
    ],
)
def test_wrong_use_is_an_error_that_tells_the_fix(run, text, words):
    found = run(text + "\n", "--vidcfg-record")
    assert found.returncode == 1
    assert words in found.stdout


def test_folder_and_files_can_be_given(run, tmp_path, panning):
    from video_files import write_video

    (tmp_path / "renders").mkdir()
    for index in range(2):
        path = tmp_path / "renders" / f"{index}.mkv"
        write_video(path, panning(index), fps=8, codec="ffv1")
    gate = """
def test_kite(temporal_gate):
    temporal_gate("renders", name="folder")
    temporal_gate({f"p{i}": f"renders/{i}.mkv" for i in range(2)}, name="files")
"""
    assert run(gate, "--vidcfg-record").returncode == 0
    found = run(gate)
    assert found.returncode == 0, found.stdout
    assert "folder: PASS" in found.stdout
    assert "files: PASS" in found.stdout


def test_plugin_loads_nothing_heavy_and_a_gate_no_torch(run, tmp_path):
    text = """
import sys
def test_kite(temporal_gate):
    temporal_gate(dict(list(CLIPS.items())[:2]))
    assert "torch" not in sys.modules
"""
    assert run(text, "--vidcfg-record", alone=True).returncode == 0
    assert run(text, alone=True).returncode == 0
    code = (
        "import sys, vidcfg.regress.pytest_plugin as p;"
        "assert not {'numpy', 'cv2', 'torch', 'pydantic'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_example_project_passes_and_finds_two_levels_of_flicker(run, tmp_path):
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    passed = run(folder=folder)
    assert passed.returncode == 0, passed.stdout
    assert "discs: PASS" in passed.stdout
    # The fault that its README suggests.
    readme = (folder / "README.md").read_text()
    fault = "    frames[1::2] = [frame + 2 for frame in frames[1::2]]\n"
    assert fault in readme
    source = (folder / "generate.py").read_text()
    (folder / "generate.py").write_text(
        source.replace("    return np.clip", fault + "    return np.clip")
    )
    failed = run(folder=folder)
    assert failed.returncode == 1
    assert "discs: FAIL: mc_flicker" in failed.stdout
