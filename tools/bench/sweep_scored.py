"""The grid of `sweep_grid` as a user sweeps it, `vidcfg sweep` from its file to the last record,
against a script: a stock-like loop, and the same metrics by their definitions.

Ours is the command in this process, without the report at its end: plan, sampling, sheets, all
metrics that need no weights and the embedded scorer's, lossless videos, records, rows of cells,
and two videos more, its self-check. The peer takes two passes in every step and makes one video
after the other; each is written without loss and read back once by OpenCV, and measured in numpy
on the whole clip at once. Flow is OpenCV's preset, to the finest scale and at the size of ours, is
searched once for all metrics, and the scorer's net once. Neither has distances, which take more
than one video a cell, nor LPIPS and CLIP, whose weights are not here. Ours alone measures
`ghosting`, `echo_share`, `content_drift`, `colour_drift`, `held_share` and `cuts`, looks for cuts
before each frame, and searches in texture where the peer searches in plain luma.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from harness import Row
from scipy.signal import detrend
from sweep_grid import NUM_STEPS, PROMPT, BareLoop, config_of, grid, loaded, trie_count

from vidcfg.mini.scorer import load_scorer
from vidcfg.mini.shapes import ATTRIBUTES
from vidcfg.sweep import __main__ as cli

NUM_SCALES, NUM_CHECKED, FPS = 8, 2, 8
ASKED = {"shape": "circle", "colour": "red", "motion": "left", "background": "navy"}
FROM_FLOW = (
    *("mc_flicker", "mc_flicker_p95", "mc_flicker_peak", "mc_flicker_colour", "mc_noise"),
    *("mc_coverage", "judder", "judder_peak", "dynamic_degree", "motion_smoothness", "jump_share"),
)
"""Metrics that take plain luma for what flow is searched in, so that they are not the same."""


def rows() -> Iterator[Row]:
    schedules, scorer = grid(NUM_SCALES, NUM_STEPS), load_scorer()
    loop = BareLoop(loaded(config_of(schedules[0])))

    def peer(num_scales: int = NUM_SCALES) -> list[tuple[np.ndarray, dict[str, float]]]:
        made, each = [], len(schedules) // NUM_SCALES
        with TemporaryDirectory() as folder:
            for number, schedule in enumerate(schedules[: num_scales * each]):
                path = str(Path(folder) / f"{number}.mkv")
                write(path, loop.video(schedule, skips=False))
                frames = read(path)
                made.append((frames, scores(frames, scorer)))
            Path(folder, "scores.json").write_text(json.dumps([found for _, found in made]))
        return made

    def ours(num_scales: int = NUM_SCALES) -> list[tuple[np.ndarray, dict[str, float]]]:
        with TemporaryDirectory() as folder:
            path = sweep_file(Path(folder), num_scales)
            assert cli.main([str(path), "--no-report", "--quiet"]) == 0
            return stored(Path(folder) / "store") if num_scales < NUM_SCALES else []

    def check() -> str:
        return agreement(ours(NUM_CHECKED), peer(NUM_CHECKED))

    name = f"{len(schedules)} videos, sampled, scored and written"
    counts = 2 * NUM_STEPS * len(schedules), trie_count(schedules) + 2 * NUM_STEPS
    note = f"evaluations {counts[0]} : {counts[1]} = {counts[0] / counts[1]:.2f}; "
    note += f"checked on {len(schedules) * NUM_CHECKED // NUM_SCALES} videos"
    yield Row(name, peer, ours, check, note, 3.0, rounds=1)


def sweep_file(folder: Path, num_scales: int) -> Path:
    base = config_of([1.0] * NUM_STEPS).to_dict()
    scale = {"kind": "interval", "value": 1.5, "from": 0.0, "to": 1.0}
    sweep = {
        "schema": 1,
        "name": "bench",
        "base": base | {"guidance": {"scale": scale}},
        "grid": {
            "guidance.scale.value": [1.5 + i for i in range(num_scales)],
            "guidance.scale.from": [0.0, 0.1, 0.2, 0.3],
            "guidance.scale.to": [0.4, 0.6, 0.8, 1.0],
        },
        "workers": {"num": 0, "batch": 128},
        "store": str(folder / "store"),
    }
    path = folder / "sweep.yaml"
    path.write_text(json.dumps(sweep))
    return path


def stored(store: Path) -> list[tuple[np.ndarray, dict[str, float]]]:
    """Frames and values of each cell, in the order of the grid."""
    made = []
    for unit in json.loads((store / "plan.json").read_text())["units"]:
        folder = store / "units" / unit["key"][:2] / unit["key"]
        lines = (folder / "records.jsonl").read_text().splitlines()
        found = {row["name"]: row["value"] for row in map(json.loads, lines)}
        made.append((read(str(folder / "video.mkv")), found))
    return made


def agreement(ours: list, peer: list) -> str:
    """Levels that differ, and how far values of the same frames are from each other."""
    steps = [np.abs(mine.astype(int) - others) for (mine, _), (others, _) in zip(ours, peer)]
    assert len(ours) == len(peer)
    assert max(step.max() for step in steps) <= 1, "frames differ"
    share, exact, near = np.mean([(step > 0).mean() for step in steps]), 0.0, []
    scorer = load_scorer()
    for frames, found in ours:
        for name, value in scores(frames, scorer).items():
            error = abs(found[name] - value) / max(abs(value), 1e-3)
            if name in FROM_FLOW:
                near.append(error)
            else:
                exact = max(exact, error)
                assert error <= 1e-4, (name, found[name], value)
    return (
        f"{share:.0e} of the levels differ, by 1; {len(found)} records; values relative "
        f"{exact:.0e}, of flow (the median) {np.median(near):.2g}"
    )


# The peer: files, then metrics


def write(path: str, frames_THWC: np.ndarray) -> None:
    height, width = frames_THWC.shape[1:3]
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"FFV1"), FPS, (width, height))
    for frame in frames_THWC:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def read(path: str) -> np.ndarray:
    """uint8 frames [T, H, W, 3]."""
    video, frames = cv2.VideoCapture(path), []
    while (found := video.read())[0]:
        frames.append(cv2.cvtColor(found[1], cv2.COLOR_BGR2RGB))
    return np.stack(frames)


def scores(levels_THWC: np.ndarray, scorer: Any) -> dict[str, float]:
    """All metrics of a clip, by their names in docs/metrics.md."""
    x = levels_THWC / 255
    found = changes(x) | looks(levels_THWC, x) | moves(levels_THWC, x) | fits(x, scorer)
    return {name: float(value) for name, value in found.items()}


def changes(x: np.ndarray) -> dict[str, float]:
    steps, num_frames = np.diff(x, axis=0), len(x)
    change, energy = (v.mean(axis=(1, 2, 3)) for v in (np.abs(steps), steps**2))
    light = (x @ [0.2126, 0.7152, 0.0722]).mean(axis=(1, 2))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(num_frames) / num_frames)
    waves = np.fft.rfft((x - x.mean(axis=0)) * window[:, None, None, None], axis=0)
    power, frequency = (np.abs(waves) ** 2).sum(axis=(1, 2, 3)), np.fft.rfftfreq(num_frames)
    starts = range(0, len(energy), 4)
    around = [np.r_[energy[max(0, t - 3) : t], energy[t + 1 : t + 4]].mean() for t in starts]
    boundary, inner = energy[::4].mean(), np.mean(around)
    limit = max(1e-4, 0.1 * np.median(change[change > 1e-4]))
    return {
        "frame_diff": change.mean(),
        "second_diff": np.abs(np.diff(x, 2, axis=0)).mean(),
        "vbench_temporal_flickering": 1 - change.mean(),
        "luminance_flicker": detrend(light).std(),
        "hf_share": power[frequency >= 0.25].sum() / power[1:].sum(),
        "stride_pulse": (boundary - inner) / (boundary + inner),
        "freeze_share": (change < limit).mean(),
    }


def looks(levels: np.ndarray, x: np.ndarray) -> dict[str, float]:
    high, low, luma = x.max(axis=-1), x.min(axis=-1), x @ [0.2126, 0.7152, 0.0722]
    down, across = (np.diff(luma, axis=axis) for axis in (1, 2))
    sharpness = np.hypot(down[:, :, :-1], across[:, :-1]).mean(axis=(1, 2))
    logs, spread = np.log(sharpness + 0.5 / 255), luma.std(axis=(1, 2))

    def drift(values_T: np.ndarray) -> float:
        return np.polyfit(np.arange(len(values_T)), values_T, 1)[0] * (len(values_T) - 1)

    return {
        "saturation": ((high - low) / np.maximum(high, 1 / 255)).mean(),
        "clipped_share": ((levels == 0) | (levels == 255)).mean(),
        "contrast": spread.mean(),
        "sharpness": sharpness.mean(),
        "sharpness_pulse": np.abs(logs[1:-1] - (logs[:-2] + logs[2:]) / 2).mean(),
        "contrast_drift": drift(np.log(spread)),
        "brightness_drift": drift(luma.mean(axis=(1, 2))),
    }


def fits(x: np.ndarray, scorer: Any) -> dict[str, float]:
    with torch.inference_mode():
        video = torch.from_numpy(x.transpose(0, 3, 1, 2)[None]).float()
        states = scorer.states(video)
        vector = torch.nn.functional.normalize(scorer.embed(states), dim=-1)
        cosine = float((vector * scorer.encode_text([PROMPT])).sum())
        seen = {name: logits[0].argmax(-1).numpy() for name, logits in scorer.read(states).items()}
    right = [(seen[name] == ATTRIBUTES[name].index(word)).mean() for name, word in ASKED.items()]
    return {"align[mini]": cosine, "attribute_accuracy[mini]": np.mean(right)}


def moves(levels: np.ndarray, x: np.ndarray) -> dict[str, float]:
    side, found = x.shape[1], {}
    factor = -(-96 // side)
    size, cubic = (factor * side, factor * side), cv2.INTER_CUBIC
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in levels]
    large = [cv2.resize(frame, size, interpolation=cubic) for frame in gray]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)

    def small(flow: np.ndarray) -> np.ndarray:
        return cv2.resize(flow, (side, side), interpolation=cv2.INTER_AREA) / factor

    there = [dis.calc(a, b, None) for a, b in pairwise(large)]
    back = [dis.calc(b, a, None) for a, b in pairwise(large)]
    seen = [visible(f, b) >= 0.5 for f, b in zip(there, back)]
    there, back = ([small(flow) for flow in flows] for flows in (there, back))
    frames = x.astype(np.float32)
    found |= paths(frames, there, back)

    # Motion
    lengths = np.sort([np.linalg.norm(f, axis=-1).ravel() for f in there], axis=1)
    motion = lengths[:, -max(1, round(0.05 * side * side)) :].mean(axis=1) * 256 / side
    errors = []
    for t in range(0, len(x) - 2, 2):
        half = small(dis.calc(large[t], large[t + 2], None)) / 2
        ends = (frames[t], -half), (frames[t + 2], half)
        before, after = (warp(*end, cv2.INTER_LINEAR)[0] for end in ends)
        errors.append(np.abs((before + after) / 2 - frames[t + 1]).mean())
    change = np.abs(np.diff(x, axis=0)).mean(axis=(1, 2, 3))
    return found | {
        "dynamic_degree": motion.mean() * FPS / 8,
        "motion_smoothness": 1 - np.mean(errors),
        "jump_share": jumps(change, np.where(seen, motion, np.nan)).mean(),
    }


def warp(image: np.ndarray, flow_HW2: np.ndarray, how: int) -> tuple[np.ndarray, np.ndarray]:
    """The image at p + flow(p), and where that is inside of it."""
    rows, columns = np.indices(flow_HW2.shape[:2], dtype=np.float32)
    x, y = columns + flow_HW2[..., 0], rows + flow_HW2[..., 1]
    height, width = flow_HW2.shape[:2]
    is_inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return cv2.remap(image, x, y, how, borderMode=cv2.BORDER_REPLICATE), is_inside


def visible(there: np.ndarray, back: np.ndarray) -> float:
    """Share of pixels that both frames show."""
    returned, is_inside = warp(np.dstack([back, back[..., :1]]), there, cv2.INTER_LINEAR)
    squared, returned = (there**2).sum(axis=-1), returned[..., :2]
    size = squared + (returned**2).sum(axis=-1)
    is_occluded = ((there + returned) ** 2).sum(axis=-1) > 0.01 * size + 0.5
    edges = np.zeros_like(squared)
    edges[:, :-1] += (np.diff(there, axis=1) ** 2).sum(axis=-1)
    edges[:-1] += (np.diff(there, axis=0) ** 2).sum(axis=-1)
    return (is_inside & ~is_occluded & ~(edges > 0.01 * squared + 0.002)).mean()


def paths(frames: np.ndarray, there: Sequence, back: Sequence) -> dict[str, float]:
    """Second differences along the motion, of blocks of 8 x 8 pixels."""
    ycc = [cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb) for frame in frames]

    def rest(t: int, before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (a, is_a), (b, is_b) = (
            warp(ycc[s], flow, cv2.INTER_CUBIC) for s, flow in ((t - 1, before), (t + 1, after))
        )
        return ycc[t] - (a + b) / 2, is_a & is_b

    inner = range(1, len(frames) - 1)
    evens = [(there[t] - back[t - 1]) / 2 for t in inner]
    lacks, known = map(np.stack, zip(*(rest(t, back[t - 1], there[t]) for t in inner)))
    uneven, known_uneven = map(np.stack, zip(*(rest(t, -e, e) for t, e in zip(inner, evens))))
    blocks, judder = means(lacks, known), means(uneven, known_uneven)
    flicker, colour, judder = (
        np.linalg.norm(each, axis=-1) for each in (blocks, blocks[..., 1:], judder)
    )
    spread = means(lacks[..., :1] ** 2, known)[..., 0] - blocks[..., 0] ** 2
    calm = np.nanpercentile(spread, 25, axis=(1, 2))
    by_frame, judder = np.nanmean(flicker, axis=(1, 2)), np.nanmean(judder, axis=(1, 2))
    return {
        "mc_flicker": by_frame.mean(),
        "mc_flicker_p95": np.percentile(np.nanmean(flicker, axis=0), 95),
        "mc_flicker_peak": by_frame.max() - np.median(by_frame),
        "mc_flicker_colour": np.nanmean(colour, axis=(1, 2)).mean(),
        "mc_noise": np.sqrt(np.maximum(calm, 0) / 1.5).mean(),
        "mc_coverage": known.mean(),
        "judder": judder.mean(),
        "judder_peak": judder.max() - np.median(judder),
    }


def means(values_THWC: np.ndarray, known_THW: np.ndarray) -> np.ndarray:
    """Of blocks, over what is known; NaN where it is less than half."""
    num_frames, height, width, channels = values_THWC.shape
    shape = num_frames, height // 8, 8, width // 8, 8
    shares = known_THW.reshape(shape).mean(axis=(2, 4))[..., None]
    sums = (values_THWC * known_THW[..., None]).reshape(*shape, channels).mean(axis=(2, 4))
    return np.where(shares >= 0.5, sums / np.maximum(shares, 0.5), np.nan)


def jumps(change: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Pairs that change or move far more than the three on either side."""
    found = []
    for t in range(len(change)):
        near = np.r_[max(0, t - 3) : t, t + 1 : min(len(change), t + 4)]
        known = motion[near][~np.isnan(motion[near])]
        usual = np.quantile(known, 0.75) if len(known) >= 2 else np.inf
        popped = change[t] > max(3 * np.quantile(change[near], 0.75), 0.02)
        moved = motion[t] > 1.6 * max(usual, 0.5)
        found.append(popped or moved or (np.isnan(motion[t]) and len(known) == len(near) >= 2))
    return np.array(found)
