"""A sweep's store of drawn clips in which scale has known effects."""

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from vidcfg.media.video import Video
from vidcfg.media.write import CODECS, encode_video
from vidcfg.metrics.catalogue import measured
from vidcfg.metrics.meters import measure_video
from vidcfg.metrics.record import Backend, Record

MODES = {
    "uniform": np.ones(17),
    "keyframes": np.clip(1 - np.minimum(np.arange(17), 16 - np.arange(17)) / 8, 0.2, 1),
    "decay": np.linspace(1, 0.3, 17),
}
PROMPTS = [
    "a red circle moving left over a navy background",
    "a yellow triangle growing over a teal background",
    "a green square moving up over a black background",
    "a white star turning over a purple background",
    "a pink circle shrinking over a grey background",
    "an orange square moving right over a navy background",
    "a blue triangle moving down over a white background",
    "a teal star moving left over a black background",
]
STEPS = 6


def clip(
    prompt: int, seed: int, scale: float, mode: str, *, frames: int = 17, speed: float = 1.0
) -> np.ndarray:
    """[T, 32, 32, 3] uint8: a moving disc; noise and saturation grow with strength - 1."""
    random = np.random.default_rng([prompt, seed])
    y, x = np.mgrid[0:32, 0:32]
    colour = np.array([[0.8, 0.25, 0.2], [0.85, 0.8, 0.2], [0.2, 0.7, 0.3]])[prompt % 3]
    paper = np.array([[0.15, 0.18, 0.4], [0.15, 0.45, 0.45], [0.25, 0.2, 0.3]])[prompt % 3]
    noise = random.standard_normal((frames, 32, 32, 1))
    start = random.uniform(8, 14, 2)
    texture = 0.12 * (np.sin(0.9 * x + prompt) * np.sin(0.8 * y + seed))[..., None]
    made = []
    for t in range(frames):
        strength = (scale - 1) * MODES[mode][t % 17]
        disc = np.hypot(x - start[0] - 0.6 * speed * t, y - start[1] - 0.2 * speed * t)[..., None]
        inside = 1 / (1 + np.exp(2 * (disc - 6)))
        frame = paper + texture + inside * (colour - paper) * (1 + 0.08 * strength)
        frame = frame + (0.004 + 0.004 * (prompt % 4) / 3 + 0.003 * strength) * noise[t]
        made.append(frame)
    return np.rint(np.clip(made, 0, 1) * 255).astype(np.uint8)


def surface(scale: float, mode: str) -> dict:
    weights = MODES[mode]
    strength = 1 + (scale - 1) * weights
    latents = strength[[0, 4, 8, 12, 16]]
    return {
        "num_steps": STEPS,
        "num_frames": 17,
        "num_latent_frames": 5,
        "fps": 8.0,
        "progress": np.linspace(0, 1, STEPS).tolist(),
        "scale": [scale] * STEPS,
        "weights": [weights.tolist()],
        "strength": [strength.tolist()] * STEPS,
        "latent_weights": [weights[[0, 4, 8, 12, 16]].tolist()],
        "latent_strength": [latents.tolist()] * STEPS,
    }


def unit_key(cell: str, prompt: int, seed: int) -> str:
    return hashlib.sha256(f"{cell}/{prompt}/{seed}".encode()).hexdigest()


def alignment(prompt: int, seed: int, scale: float, mode: str) -> float:
    """Rises to scale 4 and falls again; prompts differ by far more than scales."""
    mean = MODES[mode].mean() * (scale - 1)
    own = np.random.default_rng([7, prompt, seed]).normal(0, 0.004)
    place = [8, prompt, seed, int(10 * scale), 0 if scale == 1 else list(MODES).index(mode)]
    effect = np.random.default_rng(place).normal(0, 0.0015)
    return float(0.33 + 0.01 * (prompt % 5) + own + effect + 0.02 * np.exp(-((mean - 3) ** 2) / 6))


def flicker(prompt: int, seed: int, scale: float, mode: str) -> float:
    """Motion-compensated flicker of `clip`: what it adds in noise, a little off by the seed."""
    strength = (scale - 1) * MODES[mode].mean()
    own = np.random.default_rng([9, prompt, seed]).normal(0, 0.02)
    place = [10, prompt, seed, int(10 * scale), 0 if scale == 1 else list(MODES).index(mode)]
    effect = np.random.default_rng(place).normal(0, 0.02)
    return float((0.004 + 0.0013 * (prompt % 4) + 0.003 * strength) * np.exp(own + effect))


def write_store(
    root: Path,
    *,
    modes=("uniform", "keyframes"),
    scales=(1.0, 3.0, 6.0),
    prompts=tuple(PROMPTS[:4]),
    seeds=(0, 1),
    codec: str = "ffv1",
    missing=(),
    failing=(),
    families=("flicker", "warp", "motion", "appearance"),
    speeds=(),
) -> Path:
    """`missing` and `failing` hold (cell id, prompt index, seed) of units without a result.

    `speeds` maps ids of cells to the speed of what moves in their clips, 1 for the others. Without
    it all scales move alike, and motion, which is slow to measure, is that of the clip at scale 1.
    """
    cells, units = [], []
    for mode in modes:
        for scale in scales:
            cells.append(
                {
                    "id": f"{mode}-{scale:g}",
                    "label": f"{mode}, scale {scale:g}",
                    "settings": {"guidance.frames": {"kind": mode}, "guidance.scale": scale},
                    "guidance": {"scale": scale, "frames": {"kind": mode}},
                    "surface": surface(scale, mode),
                    "evaluations": STEPS * (1 if scale == 1 else 2),
                }
            )
    for cell in cells:
        for prompt in range(len(prompts)):
            for seed in seeds:
                key = unit_key(cell["id"], prompt, seed)
                units.append({"key": key, "cell": cell["id"], "prompt": prompt, "seed": seed})
    _write_plan(root, cells, units, prompts, seeds)
    by_id = {cell["id"]: cell for cell in cells}
    for unit in units:
        place = unit["cell"], unit["prompt"], unit["seed"]
        if place in failing:
            _write_failure(root, unit)
        elif place not in missing:
            cell = by_id[unit["cell"]]
            scale, mode = cell["settings"]["guidance.scale"], place[0].rpartition("-")[0]
            frames = clip(place[1], place[2], scale, mode, speed=dict(speeds).get(place[0], 1.0))
            moving = frames if speeds else clip(place[1], place[2], 1.0, mode)
            _write_unit(
                root, unit, prompts[place[1]], scale, mode, frames, moving, codec, families
            )
    _write_tail(root, cells, units, failing, missing)
    return root


def _write_plan(root, cells, units, prompts, seeds) -> None:
    naive = 2 * STEPS * len(units)
    separate = sum(c["evaluations"] for c in cells) * len(prompts) * len(seeds)
    plan = {
        "kind": "vidcfg.sweep/1",
        "name": "fake",
        "baseline": next((c["id"] for c in cells if c["id"] == "uniform-3"), cells[0]["id"]),
        "self_check": None,
        "cells": cells,
        "prompts": [{"text": text, "negative": "", "image": None} for text in prompts],
        "seeds": list(seeds),
        "units": units,
        "metrics": ["flicker", "warp", "motion", "appearance", "mini"],
        "planned": {"naive": naive, "separate": separate, "shared": int(separate * 0.8)},
        "config": {},
    }
    write_json(root / "plan.json", plan)


def _write_unit(root, unit, text, scale, mode, frames, moving, codec, families) -> None:
    quick = tuple(f for f in families if f not in ("warp", "motion"))
    records = list(_measured(frames.tobytes(), quick))
    if "motion" in families:
        records += _measured(moving.tobytes(), ("motion",))
    if "warp" in families:
        clip = records[0].clip if records else None
        value = flicker(unit["prompt"], unit["seed"], scale, mode)
        facts = {"protocol": "made up", "unit": "intensity", "better": "lower", "clip": clip}
        records.append(Record("mc_flicker", value, 15, **facts))
    backend = Backend("mini-scorer", "ab" * 32)
    value = alignment(unit["prompt"], unit["seed"], scale, mode)
    records.append(
        measured(
            "align[mini]", value, n=1, backend=backend, clip=records[0].clip if records else None
        )
    )
    facts = {"path": "video", "prompt": text, "seed": unit["seed"], "unit_key": unit["key"]}
    rows = [facts | replace(r, subject=unit["key"]).to_dict() for r in records]
    record = {
        "kind": "vidcfg.render/1",
        "unit": unit["key"],
        "cell": unit["cell"],
        "prompt": {"text": text},
        "seed": unit["seed"],
        "seconds": 0.5 + 0.1 * scale,
        "model": {"pipeline": "FakePipeline", "checkpoint": "fake/video", "sha256": "cd" * 32},
        "versions": {"vidcfg": "0.9", "torch": "2.0", "diffusers": "0.3", "numpy": "1"},
        "video": {"num_frames": 17, "height": 32, "width": 32, "fps": 8.0, "enlarge": 1},
    }
    record["video"]["frames_sha256"] = hashlib.sha256(frames.tobytes()).hexdigest()
    extension = CODECS[codec].extension
    files = {
        f"video{extension}": encode_video(frames, fps=8, codec=codec),
        "record.json": json.dumps(record).encode(),
        "records.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
    }
    write_unit_files(root, unit["key"], files)


@cache
def _measured(frames: bytes, families: tuple[str, ...]) -> tuple[Record, ...]:
    """Cells of scale 1 have the same clips in every mode."""
    frames_THWC = np.frombuffer(frames, np.uint8).reshape(-1, 32, 32, 3)
    video = Video(frames_THWC.transpose(0, 3, 1, 2), 8.0, lossless=True)
    return tuple(measure_video(video, families=families))


def remeasure(unit, name: str, **changes) -> None:
    """Give a unit that was read another value; a value of None is an invalid measurement."""
    if changes.get("value", 0) is None:
        changes = {"status": "invalid", "skipped_reason": "flow", **changes}
    unit.records[name] = replace(unit.records[name], **changes)


def write_unit_files(root: Path, key: str, files: dict[str, bytes]) -> None:
    folder = root / "units" / key[:2] / key
    folder.mkdir(parents=True, exist_ok=True)
    done = {}
    for name, content in files.items():
        (folder / name).write_bytes(content)
        done[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_json(folder / "DONE", done)


def _write_failure(root, unit) -> None:
    entry = dict(unit) | {"kind": "oom", "message": "CUDA out of memory <b>", "attempts": 3}
    write_json(root / "failed" / f"{unit['key']}.json", entry | {"log": None})


def _write_tail(root, cells, units, failing, missing) -> None:
    per_unit = {c["id"]: c["evaluations"] for c in cells}
    done = [u for u in units if (u["cell"], u["prompt"], u["seed"]) not in {*failing, *missing}]
    total = 0
    for index, unit in enumerate(done):
        count = per_unit[unit["cell"]]
        total += count
        job = {"units": [unit["key"]], "planned": count, "executed": count, "seconds": 0.8}
        write_json(root / "jobs" / f"{index:05d}.json", job | {"worker": "0"})
    summary = {"done": len(done), "failed": len(failing), "cached": 0, "planned": total}
    summary |= {"executed": total, "wall_s": 0.8 * len(done), "workers": 1, "self_check": None}
    write_json(root / "summary.json", summary | {"versions": {}, "finished": not missing})


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
