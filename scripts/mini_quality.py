"""Quality of the embedded mini model: codec, scorer, generated clips by guidance scale.

    python scripts/mini_quality.py --bfloat16 --attention math --markdown docs/mini_quality.md

Writes the table to stdout, and to the markdown file when asked.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidcfg.mini.shapes import ATTRIBUTES, Scene, caption, draw, sample_scene

SCALES = (1.0, 8.0)
REAL_SEED = 987_654


def pick_scenes(count: int, *, held_out: bool) -> list[Scene]:
    """Scenes whose seeds no training clip has."""
    rngs = (np.random.default_rng((REAL_SEED, i)) for i in range(count))
    return [sample_scene(rng, held_out=held_out) for rng in rngs]


def real_clips(scenes: list[Scene], *, num_frames: int, side: int) -> Tensor:
    """Drawn clips [B, T, 3, H, W] in 0..1."""
    drawn = [draw(s, num_frames=num_frames, height=side, width=side) for s in scenes]
    return torch.from_numpy(np.stack(drawn)).permute(0, 1, 4, 2, 3).float() / 255


def accuracy(scorer, video: Tensor, scenes: list[Scene]) -> dict[str, float]:
    """Share of readings (every fourth frame) that are as asked, per attribute."""
    with torch.no_grad():
        logits = scorer.read(scorer.states(video))
    result = {}
    for name in ATTRIBUTES:
        wanted = torch.tensor([s.labels(video.shape[1])[name] for s in scenes])
        result[name] = (logits[name].argmax(-1).cpu() == wanted).float().mean().item()
    return result


def frame_difference(video: Tensor) -> float:
    """Mean absolute difference of neighbouring frames, 0..1."""
    return video.diff(dim=1).abs().mean().item()


def clipped(latents: Tensor, pipe) -> float:
    """Share of decoded values that lie more than 0.02 outside 0..1 and are cut off."""
    sample = (pipe.vae.decode(latents).sample + 1) / 2
    return ((sample < -0.02) | (sample > 1.02)).float().mean().item()


def generate(
    pipe, scenes: list[Scene], *, scale: float, options
) -> Iterator[tuple[Tensor, float]]:
    """Frames and clipped share, batch by batch; the seed of a clip is its place in the list."""
    for start in range(0, len(scenes), options.batch_size):
        part = scenes[start : start + options.batch_size]
        seeds = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        device = torch.device(options.device)
        with (
            torch.no_grad(),
            torch.autocast(device.type, torch.bfloat16, enabled=options.bfloat16),
        ):
            latents = pipe(
                [caption(s) for s in part],
                guidance_scale=scale,
                generator=seeds,
                num_inference_steps=options.num_steps,
                num_frames=options.num_frames,
                height=options.side,
                width=options.side,
                output_type="latent",
            ).frames
        with torch.no_grad():
            yield pipe.decode(latents), clipped(latents, pipe) * len(part)


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def measure(options) -> str:
    """All tables as markdown."""
    from vidcfg.mini.pipeline import load_mini
    from vidcfg.mini.scorer import load_scorer

    pipe = load_mini(options.device, weak=options.weak)
    pipe.transformer.set_attention_backend(options.attention)
    if options.compile:
        pipe.transformer.forward = torch.compile(pipe.transformer.forward, dynamic=False)
    pipe.set_progress_bar_config(disable=True)
    scorer = load_scorer(options.device).eval()
    sets = {
        "trained pairs": pick_scenes(options.num_prompts, held_out=False),
        "held-out pairs": pick_scenes(options.num_held_out, held_out=True),
    }
    size = {"num_frames": options.num_frames, "side": options.side}
    text, names = ["## Real clips", ""], list(ATTRIBUTES)
    rows = []
    for label, scenes in sets.items():
        real = real_clips(scenes, **size).to(options.device)
        hits = accuracy(scorer, real, scenes)
        with torch.no_grad():
            sample = pipe.vae(real.transpose(1, 2) * 2 - 1).sample.transpose(1, 2)
        decoded = ((sample + 1) / 2).clamp(0, 1)
        psnr = -10 * (decoded - real).square().mean((1, 2, 3, 4)).log10()
        rows.append(
            [label, str(len(scenes)), *(f"{hits[n]:.3f}" for n in names)]
            + [
                f"{psnr.mean():.1f} dB",
                f"{frame_difference(real):.4f}",
                f"{frame_difference(decoded):.4f}",
            ]
        )
    difference = "frame difference"
    text += [
        table(["clips", "n", *names, "codec PSNR", difference, "the same after the codec"], rows),
        "",
        f"## Generated clips, {'weak checkpoint' if options.weak else 'checkpoint'}, "
        f"{options.num_steps} steps",
        "",
    ]
    rows = []
    for label, scenes in sets.items():
        for scale in options.scales:
            started = time.monotonic()
            parts = list(generate(pipe, scenes, scale=scale, options=options))
            video = torch.cat([p[0] for p in parts])
            hits = accuracy(scorer, video, scenes)
            with torch.no_grad():
                alignment = scorer.alignment(video, [caption(s) for s in scenes]).mean().item()
            row = [label, f"{scale:g}", str(len(scenes)), *(f"{hits[n]:.3f}" for n in names)]
            row += [f"{alignment:.3f}", f"{frame_difference(video):.4f}"]
            row += [f"{100 * sum(p[1] for p in parts) / len(scenes):.2f} %"]
            rows.append(row)
            print("  ".join(row), f"  {time.monotonic() - started:.0f} s", flush=True)
    header = ["prompts", "scale", "n", *names, "alignment", difference, "clipped values"]
    return "\n".join([*text, table(header, rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-prompts", type=int, default=256)
    parser.add_argument("--num-held-out", type=int, default=128)
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES)
    parser.add_argument("--num-steps", type=int, default=12)
    parser.add_argument("--num-frames", type=int, default=17)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="autocast, faster on many CPUs")
    parser.add_argument("--attention", default="sdpa", help="math is faster on many CPUs")
    parser.add_argument("--compile", action="store_true", help="torch.compile the transformer")
    parser.add_argument("--weak", action="store_true", help="the weak checkpoint instead")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    text = measure(options)
    print(text)
    if options.markdown:
        command = " ".join(["python", "scripts/mini_quality.py", *sys.argv[1:]])
        intro = f"# Quality of the mini model\n\nWritten by `{command}`.\n"
        options.markdown.write_text(f"{intro}\n{text}\n")


if __name__ == "__main__":
    main()
