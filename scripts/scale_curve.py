"""Metrics of the mini model over guidance scales: alignment, distances, flicker, saturation.

    python scripts/scale_curve.py --dry-run
    python scripts/scale_curve.py --out runs/scale_curve --clips 256

The same prompts and noise are used at every scale, so that points differ by guidance alone. Work
is cut into batches that are kept on disk: a second run continues, and with more --clips or
--scales it adds to what is there. Writes curves.json and scale_curve.png.
"""

import argparse
import json
import sys
import time
from pathlib import Path

SCALES = (
    1.0,
    1.5,
    2.0,
    2.5,
    3.0,
    4.0,
    5.0,
    6.0,
    7.0,
    8.0,
    9.0,
    10.0,
    11.0,
    12.0,
    13.0,
    14.0,
    15.0,
)
NUM_FRAMES, SIZE, FPS = 17, 32, 8.0
PER_CLIP = (
    "align[mini]",
    "attribute_accuracy[mini]",
    "frame_diff",
    "second_diff",
    "mc_flicker",
)
PER_CLIP += ("stride_pulse", "dynamic_degree", "saturation", "clipped_share", "contrast")
REAL_CLIPS = 1024


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    batches = -(-options.clips // options.batch)
    todo = [
        (scale, index)
        for scale in options.scales
        for index in range(batches)
        if not batch_path(options.out, scale, index).exists()
    ]
    print_cost(options, todo, batches)
    if options.dry_run:
        return 0
    check_settings(options)
    if todo:
        make_batches(options, todo)
    curves = summarise(options, batches)
    (options.out / "curves.json").write_text(json.dumps(curves, indent=1), encoding="utf-8")
    draw(curves, options.out / "scale_curve.png")
    print_findings(curves)
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/scale_curve"))
    parser.add_argument("--clips", type=int, default=256, help="clips a point")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--scales", type=float, nargs="+", default=list(SCALES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--checkpoint", default=None, help="folder, in place of the embedded one")
    parser.add_argument("--bfloat16", action="store_true", help="autocast, faster on many CPUs")
    parser.add_argument("--attention", default="sdpa", help="math is faster on many CPUs")
    parser.add_argument("--dry-run", action="store_true", help="print the cost and stop")
    return parser.parse_args(argv)


def print_cost(options: argparse.Namespace, todo: list, batches: int) -> None:
    passes = sum(options.batch * options.steps * (1 if scale == 1 else 2) for scale, _ in todo)
    done = len(options.scales) * batches - len(todo)
    print(
        f"{len(options.scales)} scales x {batches * options.batch} clips: {len(todo)} batches to "
        f"make, {done} done; {passes} model evaluations of one clip, "
        f"{len(todo) * options.batch} clips to score"
    )


def batch_path(out: Path, scale: float, index: int) -> Path:
    return out / "batches" / f"scale_{scale:g}_batch_{index}.npz"


def identity(options: argparse.Namespace) -> dict:
    """What all batches of a folder have in common."""
    from vidcfg.files import sha256_of
    from vidcfg.mini.pipeline import MINI_PATH

    folder = Path(options.checkpoint or MINI_PATH)
    names = ("transformer", "vae", "text_encoder", "scorer")
    files = {name: sorted((folder / name).glob("*.safetensors")) for name in names}
    hashes = {name: sha256_of(found[0]) for name, found in files.items() if found}
    numerics = {"attention": options.attention, "bfloat16": options.bfloat16}
    return {"steps": options.steps, "batch": options.batch, **numerics, "weights": hashes}


def check_settings(options: argparse.Namespace) -> None:
    """Exit if the folder holds batches of another model or of other settings."""
    options.out.mkdir(parents=True, exist_ok=True)
    path, mine = options.out / "settings.json", identity(options)
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != mine:
        sys.exit(f"{path} is of another model or setting. Choose another --out, or delete it.")
    path.write_text(json.dumps(mine, indent=1), encoding="utf-8")


def make_batches(options: argparse.Namespace, todo: list) -> None:
    from vidcfg.metrics.features.base import load_net
    from vidcfg.pipelines.load import MiniModel, load_pipeline

    pipe = load_pipeline(MiniModel(device=options.device, checkpoint=options.checkpoint))
    pipe.transformer.set_attention_backend(options.attention)
    paths = {"mini": str(Path(options.checkpoint) / "scorer")} if options.checkpoint else None
    net = load_net("mini", paths=paths, device=str(pipe.device))
    start = time.perf_counter()
    for count, (scale, index) in enumerate(todo, start=1):
        make_batch(pipe, net, scale, index, options)
        seconds = (time.perf_counter() - start) / count
        left = seconds * (len(todo) - count) / 60
        print(
            f"scale {scale:g} batch {index}: {seconds:.1f} s a batch, {left:.0f} min left",
            flush=True,
        )


def make_batch(pipe, net, scale: float, index: int, options: argparse.Namespace) -> None:
    import numpy as np
    import torch

    from vidcfg import Guidance, guide
    from vidcfg.files import atomic_path

    seeds = range(index * options.batch, (index + 1) * options.batch)
    prompts = [prompt_of(seed) for seed in seeds]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    mixed = torch.autocast(pipe.device.type, torch.bfloat16, enabled=options.bfloat16)
    with guide(pipe, Guidance(scale=scale)), mixed:
        video = pipe(
            prompts,
            num_frames=NUM_FRAMES,
            height=SIZE,
            width=SIZE,
            num_inference_steps=options.steps,
            generator=generators,
            guidance_scale=1.0,
        ).frames
    frames = np.ascontiguousarray(np.asarray(video, dtype=np.float32).transpose(0, 1, 4, 2, 3))
    clips = np.stack([net.prepare(clip) for clip in frames])
    scores = [
        score(clip, found) for clip, found in zip(frames, net.alignment_records(clips, prompts))
    ]
    path = batch_path(options.out, scale, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        table = np.array([[row[name] for name in PER_CLIP] for row in scores])
        np.savez(file, names=np.array(PER_CLIP), table=table, features=net.features(clips))


def prompt_of(seed: int) -> str:
    """The caption of a random scene among those that were trained on."""
    import numpy as np

    from vidcfg.mini.shapes import caption, sample_scene

    return caption(sample_scene(np.random.default_rng((77, seed))))


def score(frames, alignment) -> dict[str, float]:
    """Metric name -> value; NaN where a metric has none."""
    from vidcfg.metrics.catalogue import METRICS
    from vidcfg.metrics.meters import ClipMeasures, measure
    from vidcfg.metrics.record import ClipInfo

    chosen = [METRICS[n] for n in PER_CLIP if n in METRICS and METRICS[n].outcome]
    meter = ClipMeasures(chosen, fps=FPS)
    measure(frames, [meter])
    records = [*alignment, *meter.finish(ClipInfo(fps=FPS))]
    return {r.name: float("nan") if r.value is None else r.value for r in records}


def summarise(options: argparse.Namespace, batches: int) -> dict:
    """Per scale: mean and 95 % interval of each metric, and distances to drawn clips."""
    import numpy as np

    from vidcfg.metrics.distribution import Sets, distribution_records
    from vidcfg.metrics.features.base import load_net
    from vidcfg.metrics.record import mean_interval, mean_of

    paths = {"mini": str(Path(options.checkpoint) / "scorer")} if options.checkpoint else None
    net = load_net("mini", paths=paths)
    real, other = (real_features(net, seed) for seed in (91, 92))
    points = []
    for scale in options.scales:
        parts = [np.load(batch_path(options.out, scale, index)) for index in range(batches)]
        table = np.concatenate([part["table"] for part in parts])[: options.clips]
        features = np.concatenate([part["features"] for part in parts])[: options.clips]
        point = {"scale": scale, "n": len(table), "invalid": {}}
        for column, name in enumerate(PER_CLIP):
            values = [float(v) for v in table[:, column] if not np.isnan(v)]
            point["invalid"][name] = len(table) - len(values)
            if values:
                point[name] = {"value": mean_of(values), "interval": mean_interval(values)}
        for record in distribution_records(
            Sets(features, real, other[: len(features)]),
            net="mini",
            backend=net.backend,
            protocol=net.protocol,
        ):
            if record.value is not None:
                baseline = record.extra.get("real_against_real")
                entry = {"value": record.value, "interval": record.interval, "real": baseline}
                point[record.name] = entry
        points.append(point)
    return {"settings": identity(options), "real_clips": REAL_CLIPS, "points": points}


def real_features(net, seed: int):
    import numpy as np

    from vidcfg.mini.shapes import sample_clip

    size = {"num_frames": NUM_FRAMES, "height": SIZE, "width": SIZE}
    clips = (sample_clip((seed, i), **size).frames for i in range(REAL_CLIPS))
    return np.concatenate(
        [net.features(net.prepare(c.transpose(0, 3, 1, 2))[None]) for c in clips]
    )


PANELS = (
    ("alignment", ("align[mini]", "attribute_accuracy[mini]")),
    ("precision and recall", ("precision[mini]", "recall[mini]")),
    ("density and coverage", ("density[mini]", "coverage[mini]")),
    ("Frechet distance", ("fd[mini]", "fd_infinity[mini]")),
    ("kernel distance", ("kd[mini]",)),
    ("flicker", ("frame_diff", "mc_flicker")),
    ("dynamic degree", ("dynamic_degree",)),
    ("saturation and clipping", ("saturation", "clipped_share")),
    ("stride pulse", ("stride_pulse",)),
)


def draw(curves: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 3, figsize=(12, 9), constrained_layout=True)
    for axis, (title, names) in zip(axes.flat, PANELS):
        for name in names:
            points = [p for p in curves["points"] if name in p]
            scales = [p["scale"] for p in points]
            (line,) = axis.plot(scales, [p[name]["value"] for p in points], marker=".", label=name)
            bands = [p[name].get("interval") for p in points]
            if points and all(bands):
                axis.fill_between(scales, *zip(*bands), alpha=0.2, color=line.get_color())
            real = [p[name].get("real") for p in points]
            if points and real[0] is not None:
                axis.plot(scales, real, ls=":", color=line.get_color(), label=f"{name}, real")
        axis.set(title=title, xlabel="guidance scale")
        axis.legend(fontsize=7)
    figure.suptitle(
        f"{curves['points'][0]['n']} clips a point, {curves['settings']['steps']} steps"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def print_findings(curves: dict) -> None:
    """The expected signature of guidance, and whether it is there."""
    points = curves["points"]

    def curve(name: str) -> list[tuple[float, float]]:
        return [(p["scale"], p[name]["value"]) for p in points if name in p]

    for name in ("align[mini]", "attribute_accuracy[mini]", "frame_diff", "clipped_share"):
        values = curve(name)
        top = max(values, key=lambda item: item[1])
        print(f"{name}: {values[0][1]:.4g} at the first scale, highest {top[1]:.4g} at {top[0]:g}")
    recall = curve("recall[mini]")
    if recall:
        print(
            f"recall[mini]: {recall[0][1]:.3f} at the first scale, {recall[-1][1]:.3f} at the last"
        )
    for name in ("fd[mini]", "kd[mini]"):
        values = curve(name)
        best = min(values, key=lambda item: item[1])
        inside = best[0] not in (values[0][0], values[-1][0])
        where = "inside" if inside else "at an end"
        print(f"{name}: lowest {best[1]:.4g} at scale {best[0]:g} ({where})")


if __name__ == "__main__":
    sys.exit(main())
