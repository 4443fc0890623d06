"""Every guidance rule on the mini model at the same cost: a table and a picture.

    python scripts/guidance_rules.py --dry-run
    python scripts/guidance_rules.py --clips 24 --budget 32

Each rule gets the same number of model evaluations per video: the more passes it runs a step, the
fewer steps it takes. Prompts and noise are the same for all, so that rows differ by the rule
alone. Writes docs/guidance_rules.md and docs/pictures/guidance_rules.png. Finished rules are kept
in --out, and a second run continues.
"""

import argparse
import json
import sys
import time
from pathlib import Path

NUM_FRAMES, SIZE, FPS = 17, 32, 8.0
BLURRY = [{"name": "blurry", "prompt": "blurry", "scale": -1.0}]
RULES = {
    "none": (1.0, "cfg"),
    "cfg": (4.0, "cfg"),
    "dual": (4.0, {"kind": "dual", "negative_scale": 1.0}),
    "multi": (4.0, {"kind": "multi", "conditions": BLURRY}),
    "perp_neg": (4.0, {"kind": "perp_neg", "negative_scale": 1.0}),
    "apg": (4.0, "apg"),
    "zero_star": (4.0, "zero_star"),
    "tcfg": (4.0, "tcfg"),
    "mambo": (4.0, {"kind": "mambo", "alpha": 8.0}),
    "renorm": (4.0, "renorm"),
    "freq": (4.0, {"kind": "freq", "space_low": 0.5, "time_high": 0.5}),
    "cfg_pp": (0.6, "cfg_pp"),
    "adaptive_stop": (4.0, "adaptive_stop"),
    "delta_reuse": (4.0, "delta_reuse"),
    "pag": (1.5, "pag"),
    "slg": (1.5, "slg"),
    "stg residual": (1.5, {"kind": "stg", "mode": "residual"}),
    "stg block": (1.5, {"kind": "stg", "mode": "block"}),
    "seg": (1.5, "seg"),
    "sag": (2.0, "sag"),
    "autoguidance": (2.0, "autoguidance"),
    "autoguidance noise": (2.0, {"kind": "autoguidance", "noise": 0.2}),
    "cads": (4.0, "cads"),
    "classifier": (3.0, "classifier"),
    "cfg + pag": (3.0, ["cfg", {"kind": "pag", "scale": 1.5}]),
    "cfg + stg residual": (3.0, ["cfg", {"kind": "stg", "mode": "residual", "scale": 1.5}]),
    "apg + autoguidance": (3.0, ["apg", {"kind": "autoguidance", "scale": 1.5}]),
}
"""Label -> scale and method. `embedded` needs a guidance-distilled model, which mini is not."""
NEGATIVE = {"dual": "blurry", "perp_neg": "blurry"}
COLUMNS = {
    "align[mini]": "align[mini]",
    "attribute_accuracy[mini]": "attributes",
    "mc_flicker": "motion-compensated flicker",
    "dynamic_degree": "dynamic degree",
    "saturation": "saturation",
    "clipped_share": "clipped",
}


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    plans = {label: matched(label, options) for label in options.rules}
    total = sum(evaluations for _, evaluations, _ in plans.values())
    for label, (steps, evaluations, branches) in plans.items():
        told = ", ".join(f"{count} {name}" for name, count in branches.items())
        print(f"{label:20} {steps:3} steps, {evaluations:g} evaluations a video: {told}")
    print(f"{total * options.clips:g} evaluations of one clip")
    if options.dry_run:
        return 0
    results = {label: made(label, plans[label], options) for label in options.rules}
    write_page(results, options)
    draw(results, options.picture)
    print(f"wrote {options.page} and {options.picture}")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/guidance_rules"))
    parser.add_argument("--page", type=Path, default=Path("docs/guidance_rules.md"))
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/guidance_rules.png"))
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--budget", type=int, default=32, help="model evaluations a video")
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--dry-run", action="store_true", help="print the cost and stop")
    return parser.parse_args(argv)


def config_of(label: str, steps: int):
    """The settings of one rule, as a render would take them."""
    from vidcfg.render.config import RenderConfig

    scale, method = RULES[label]
    return RenderConfig(
        schema=1,
        name="rules",
        model={"kind": "mini"},
        prompts=[{"text": "a red circle", "negative": NEGATIVE.get(label, "")}],
        seeds=[0],
        video={"num_frames": NUM_FRAMES, "height": SIZE, "width": SIZE, "fps": 8},
        sampling={"num_steps": steps, "scheduler": "flow_euler"},
        guidance={"method": method, "scale": scale},
        output={"dir": "out/rules"},
    )


def matched(label: str, options: argparse.Namespace) -> tuple[int, int, dict[str, int]]:
    """The largest number of steps within the budget, its evaluations and their branches.

    The gradient of a classifier is not a model evaluation.
    """
    from vidcfg.render.forecast import forecast_of

    best = None
    for steps in range(2, options.budget + 1):
        branches = forecast_of(config_of(label, steps)).plan().evaluations
        count = sum(n for name, n in branches.items() if name != "classifier")
        if count <= options.budget:
            best = (steps, count, branches)
    return best


def made(label: str, plan: tuple, options: argparse.Namespace) -> dict:
    """The metrics and some frames of one rule, from disk where they are there."""
    import numpy as np

    stem = f"{label.replace(' ', '_')}_{options.clips}_{options.budget}"
    path = options.out / f"{stem}.npz"
    if not path.exists():
        started = time.perf_counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        frames, rows, evaluations = render(label, plan[0], options.clips)
        table = np.array([[row[name] for name in COLUMNS] for row in rows])
        kept = (frames[:4] * 255).round().astype(np.uint8)
        np.savez(path, table=table, frames=kept, evaluations=json.dumps(evaluations))
        seconds = time.perf_counter() - started
        print(f"{label}: {seconds:.0f} s, {evaluations}", flush=True)
    with np.load(path) as found:
        table, frames = found["table"], found["frames"]
        executed = json.loads(str(found["evaluations"]))
    means = dict(zip(COLUMNS, np.nanmean(table, axis=0).tolist()))
    return {
        "steps": plan[0],
        "planned": plan[1],
        "executed": sum(n for name, n in executed.items() if name != "classifier"),
        "branches": executed,
        "align": table[:, 0],
        "means": means,
        "frames": frames,
    }


def render(label: str, steps: int, clips: int):
    """Frames [N, T, 3, H, W] in 0..1, one row of metrics a clip, evaluations a video."""
    import numpy as np
    import torch

    from vidcfg import Guidance, guide
    from vidcfg.metrics.features.base import load_net
    from vidcfg.pipelines.load import MiniModel, load_pipeline

    torch.set_num_threads(1)
    pipe = load_pipeline(MiniModel(device="cpu"))
    pipe.transformer.set_attention_backend("math")
    net = load_net("mini", paths=None, device="cpu")
    prompts = [prompt_of(1000 + i) for i in range(clips)]
    scale, method = RULES[label]
    guided = guide(
        pipe,
        Guidance(scale=scale, method=method, share=False),
        negative_prompt=NEGATIVE.get(label, ""),
        classifier=background_of(prompts, pipe) if label == "classifier" else None,
    )
    with guided as trace, torch.autocast("cpu", torch.bfloat16):
        video = pipe(
            prompts,
            num_frames=NUM_FRAMES,
            height=SIZE,
            width=SIZE,
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(i) for i in range(clips)],
            guidance_scale=1.0,
        ).frames
    frames = np.ascontiguousarray(np.asarray(video, np.float32).transpose(0, 1, 4, 2, 3))
    found = [net.judge(net.prepare(clip), prompt)[1] for clip, prompt in zip(frames, prompts)]
    rows = [score(clip, records) for clip, records in zip(frames, found)]
    return frames, rows, {name: n / clips for name, n in trace.evaluations.items()}


def prompt_of(seed: int) -> str:
    """The caption of a random scene among those that were trained on."""
    import numpy as np

    from vidcfg.mini.shapes import caption, sample_scene

    return caption(sample_scene(np.random.default_rng((77, seed))))


def score(frames, alignment) -> dict[str, float]:
    """Metric name -> value; NaN where a metric has none."""
    from vidcfg.metrics.catalogue import METRICS
    from vidcfg.metrics.meters import ClipMeasures, measure

    chosen = [METRICS[n] for n in COLUMNS if n in METRICS and METRICS[n].outcome]
    meter = ClipMeasures(chosen, fps=FPS)
    measure(frames, [meter])
    records = [*alignment, *meter.finish()]
    return {r.name: float("nan") if r.value is None else r.value for r in records}


def background_of(prompts: list[str], pipe):
    """log p(background of the prompt | x_t), by a head fitted to drawn clips."""
    import numpy as np
    import torch
    from noisy_head import fit_noisy_head

    from vidcfg.mini.shapes import BACKGROUNDS, sample_clip

    names = list(BACKGROUNDS)
    drawn = [sample_clip((5, i)) for i in range(96)]
    video = torch.from_numpy(np.stack([clip.frames for clip in drawn])).permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        latents = pipe.vae.encode(video.float() / 127.5 - 1).latents
    labels = torch.tensor([names.index(clip.scene.background) for clip in drawn])
    head = fit_noisy_head(latents, labels, num_classes=len(names))
    wanted = [next(i for i, name in enumerate(names) if name in prompt) for prompt in prompts]
    return head.log_prob(torch.tensor(wanted))


def write_page(results: dict, options: argparse.Namespace) -> None:
    """The table of all rules, above the remarks that the page already holds."""
    import numpy as np

    head = ["rule", "scale", "steps", "passes", *COLUMNS.values(), "align against none"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for label, result in results.items():
        gain = result["align"] - results["none"]["align"] if "none" in results else [0.0]
        error = np.std(gain, ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else 0.0
        cells = [
            label,
            f"{RULES[label][0]:g}",
            str(result["steps"]),
            f"{result['executed']:g}",
            *(f"{result['means'][name]:.4f}" for name in COLUMNS),
            f"{np.mean(gain):+.4f} ± {error:.4f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    mark = "<!-- remarks -->"
    old = options.page.read_text(encoding="utf-8") if options.page.exists() else mark
    remarks = old.split(mark, 1)[-1].strip()
    page = f"""# All rules on the mini model at the same cost

```bash
python scripts/guidance_rules.py --clips {options.clips} --budget {options.budget}
```

{options.clips} clips a rule, the same prompts and noise for all, {options.budget} model
evaluations a video: a rule of three passes takes a third of the steps of `none`. "passes" are the
evaluations that ran; "align against none" is the mean difference over clips and its standard
error. One thread, bfloat16 autocast.

{chr(10).join(lines)}

![A clip of every rule, its alignment, flicker and clipping](pictures/{options.picture.name})

{mark}

{remarks}
"""
    options.page.parent.mkdir(parents=True, exist_ok=True)
    options.page.write_text(page.rstrip() + "\n", encoding="utf-8")


def draw(results: dict, path: Path) -> None:
    """One row a rule: five frames of two clips, and three metrics as dots."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    panels = ("align[mini]", "mc_flicker", "clipped_share")
    figure, axes = plt.subplots(
        1, 4, figsize=(13, 0.36 * len(results) + 1.2), width_ratios=(5, 2, 2, 2)
    )
    rows = []
    for result in results.values():
        strips = [clip[[0, 4, 8, 12, 16]] for clip in result["frames"][:2]]
        tiles = np.concatenate(strips).transpose(2, 0, 3, 1).reshape(SIZE, -1, 3)
        rows += [tiles, np.full((2, tiles.shape[1], 3), 255, np.uint8)]
    sheet = np.concatenate(rows[:-1])
    axes[0].imshow(sheet, interpolation="nearest", aspect="auto")
    places = [i * (SIZE + 2) + SIZE / 2 for i in range(len(results))]
    axes[0].set_yticks(places, list(results), fontsize=8)
    axes[0].set_xticks([])
    axes[0].set_title("frames 1, 5, 9, 13, 17 of two clips", fontsize=9)
    for axis, name in zip(axes[1:], panels):
        values = [result["means"][name] for result in results.values()]
        axis.plot(values, places, "o", color="#4878a8", ms=5)
        axis.grid(axis="x", lw=0.4)
        if "none" in results:
            axis.axvline(results["none"]["means"][name], color="black", lw=0.8, ls=":")
        axis.set_ylim(len(sheet), 0)
        axis.set_yticks([])
        axis.set_title(COLUMNS[name], fontsize=9)
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
