"""Gate the embedded mini model against its committed baseline, one small render per frame mode.

    python scripts/mini_gate.py             compare with tests/baselines/mini
    python scripts/mini_gate.py --record    renew it after a wanted change; commit the files

Six prompts for each of uniform, keyframes and decay, four steps: half a minute on one core.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

BASELINE = Path(__file__).parents[1] / "tests" / "baselines" / "mini"
PROMPTS = (
    "a red circle moving left over a plain navy background",
    "a blue square moving right over a plain gray background",
    "a green triangle moving up over a plain black background",
    "a yellow square moving down over a plain teal background",
    "a pink cross moving left over a plain black background",
    "a white circle moving right over a plain teal background",
)
MODES = {
    "uniform": {"kind": "uniform"},
    "keyframes": {
        "kind": "keyframes",
        "at": ["first", "middle", "last"],
        "floor": 0.3,
        "reach": 4,
    },
    "decay": {"kind": "decay", "end": 0.2},
}


def load():
    """The embedded pipeline, without its progress bar."""
    from vidcfg.mini.pipeline import load_mini

    pipe = load_mini()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def render(pipe, prompt: str, *, frames: dict | None = None, num_frames: int = 17) -> np.ndarray:
    """Uint8 frames [T, 32, 32, 3] at scale 3, four steps, on one thread."""
    import torch

    from vidcfg.render.config import RenderConfig, units_of
    from vidcfg.render.sampling import sample_units

    config = RenderConfig(
        schema=1,
        name="gate",
        model="mini",
        prompts=[prompt],
        video={"num_frames": num_frames, "height": 32, "width": 32, "fps": 8.0},
        sampling={"num_steps": 4, "scheduler": "flow_euler"},
        guidance={"scale": 3.0, "frames": frames or MODES["uniform"]},
        output={"dir": "unused", "video": "ffv1"},
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return sample_units([config], pipe, units_of(config)[0]).videos[0].frames_THWC
    finally:
        torch.set_num_threads(before)


def render_all(pipe) -> dict[tuple[str, str], np.ndarray]:
    """(mode, prompt) -> frames."""
    return {
        (mode, prompt): render(pipe, prompt, frames=frames)
        for mode, frames in MODES.items()
        for prompt in PROMPTS
    }


def measured(renders: dict[tuple[str, str], np.ndarray]):
    """The renders, measured; the cell is the mode."""
    from vidcfg.regress.clips import as_set
    from vidcfg.regress.measure import measure_frames
    from vidcfg.results import Key

    clips = [measure_frames(f, Key(*names, 0), fps=8.0) for names, f in renders.items()]
    return as_set("the mini model", clips)


def main() -> int:
    from vidcfg.regress.check import check_clips
    from vidcfg.regress.clips import read_baseline, write_baseline
    from vidcfg.regress.output import table
    from vidcfg.regress.policy import Policy

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="renew the baseline")
    options = parser.parse_args()
    clips = measured(render_all(load()))
    if options.record:
        write_baseline(BASELINE, clips, metrics=list(Policy().metrics), overwrite=True)
        print(f"recorded in {BASELINE}")
        return 0
    outcome = check_clips(clips, read_baseline(BASELINE))
    print(table(outcome))
    return outcome.judgement.exit_code


if __name__ == "__main__":
    sys.exit(main())
