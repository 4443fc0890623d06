"""What a user types, for a type checker: mypy --strict --follow-imports=silent THIS_FILE.

`warn_unused_ignores` of strict makes the last lines an error wherever they are none to mypy.
"""

from pathlib import Path
from typing import Any

import numpy as np

import vidcfg
from vidcfg.pipelines.families import Family


def render(pipe: Any, prompt: str) -> Any:
    guidance = vidcfg.Guidance(
        6.0,
        method=["cfg", {"kind": "stg", "scale": 1.5}],
        frames={"kind": "decay", "end": 0.3},
        windows=[{"frames": [9, 16], "from": 0.0, "to": 0.6}],
        rescale=0.5,
    )
    vidcfg.Guidance([3.0, 2.0], frames=lambda frame: 1 / (frame + 1))
    vidcfg.Guidance([[6.0, 3.0], [2.0, 1.0]], frames=np.array([1.0, 1.5]))
    for given in (guidance, 6.0, {"scale": 6}, "my.yaml", Path("my.yaml")):
        with vidcfg.guide(pipe, given, negative_prompt=None) as trace:
            video = pipe(prompt, num_frames=81, guidance_scale=1.0).frames
        print(trace.total + 1, trace.evaluations["cond"])
    with vidcfg.guide(pipe, [guidance, 3.0], negative_prompt=["blurry", "dark"]):
        video = pipe([prompt, prompt], num_frames=81, guidance_scale=1.0).frames
    return video


def declare() -> None:
    vidcfg.register_family(Family(name="kite", pipelines=("KitePipeline",)))


def wrong() -> None:
    vidcfg.Guidance(scal=6)  # type: ignore[call-arg]
    vidcfg.Guidance(6.0, statistics="video")  # type: ignore[arg-type]
