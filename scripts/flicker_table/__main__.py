"""Which metric sees which fault: drawn scenes with and without it, as a table and a picture.

    python scripts/flicker_table --out runs/flicker_table --markdown docs/flicker_table.md
    python scripts/flicker_table --out runs/real --clips FOLDER --markdown docs/flicker_real.md

25 scenes that do not flicker and three that do, 24 faults, and cuts between scenes. Scored clips
are kept in the folder: a second run continues. With --clips the faults are put into the first 17
frames of videos.
"""

import argparse
import itertools
import json
import sys
import zlib
from pathlib import Path

import numpy as np
from cuts import section
from faults import FAULTS, IMMOVABLE
from held import section as held_section
from margins import margins
from scenes import CLEAN, FLICKERS, FRAMES, draw

from vidcfg import cli
from vidcfg.files import write_json, write_text
from vidcfg.media.read import read_video
from vidcfg.metrics.catalogue import METRICS
from vidcfg.metrics.meters import ClipMeasures, measure
from vidcfg.progress import Progress

NAMES = (
    *("mc_flicker", "mc_flicker_p95", "mc_flicker_peak", "mc_flicker_colour", "mc_noise"),
    *("judder", "judder_peak", "ghosting", "echo_share", "content_drift", "sharpness_pulse"),
    *("freeze_share", "stride_pulse", "colour_drift", "luminance_flicker", "hf_share"),
    *("second_diff", "frame_diff"),
)

IN_REAL_CLIPS = {
    "ghosting of 35 %": "echo_share",
    "content drifts, 50 %": "echo_share",
    "a frame dropped": "mc_flicker_p95",
    "two frames swapped": "judder",
    "noise of 2 levels": "mc_noise",
}
"""Faults that other metrics see where things move each in its own way."""


HEAD = """\
# Which metric sees which fault

`python scripts/flicker_table --seeds {seeds} --markdown docs/flicker_table.md`: {faults} faults in
{clean} drawn scenes without flicker and {flickering} that flicker by themselves, {seeds} seeds;
96 x 96 pixels, 17 frames.

*Same scene*: share of clips that score higher with the fault than without it (.5: blind), in
scenes without flicker; the picture has all. *Pooled*: the same for clips of different scenes.
VBench's temporal flickering is 1 less the frame difference, so it ranks as `frame_diff` does.

![Share of clips in which each metric rises with each fault](pictures/flicker_table.png)

| fault | seen by | same scene | pooled | `frame_diff`, same scene | pooled |
|---|---|---|---|---|---|"""
SCENES = """
Clips without a fault, the largest of the seeds in levels of 255. Alternation of the whole picture
by ±2 levels reads 4.

| scene | `mc_flicker` | `mc_flicker_p95` | `judder` | `frame_diff` |
|---|---|---|---|---|"""


REAL = """\
# Which metric sees which fault in clips of real models

`python scripts/flicker_table --clips FOLDER --out runs/real --markdown docs/flicker_real.md`: the
faults of [flicker_table.md](flicker_table.md) in the first 17 frames of {clips} published clips of
Wan, LTX-2, HunyuanVideo, Kling, Luma, Veo and others (350 x 350, lossy), of which {quiet} are
*quiet*: they read less than one level of `mc_flicker` by themselves. Where a clip reads more than
5 (water, in drawn scenes), flow fails: nothing weaker than that shows in it.

*Same clip*: share of clips that score higher with the fault than without it; *pooled*: the same
for different clips. VBench's temporal flickering ranks as `frame_diff` does.

Five faults are seen by other metrics than in drawn scenes, found by looking at these clips. In a
pan an echo is a blur along the motion, which `ghosting` tells; where things move each in its own
way it stands still, which `echo_share` tells, as it does another picture that fades in. Motion of
real clips has peaks of its own, so that swapped frames show in the mean of `judder` and not in its
peak, and a dropped one in neither: it hides and bares more at once than flow explains. Noise
is small in means over blocks, and these clips flicker more than drawn ones.

| fault | named for it | same clip | quiet | pooled | quiet | `frame_diff`, same clip | pooled |
|---|---|---|---|---|---|---|---|"""
CLEAN_VALUES = """
Clips without a fault, in levels of 255:

| metric | 10th percentile | median | 90th percentile |
|---|---|---|---|"""

QUIET = 1 / 255
"""Clips with less of `mc_flicker` do not flicker by themselves: film grain reads .7 level."""


def score(clip: np.ndarray) -> dict[str, float | None]:
    """Value by metric of a clip of levels [T, H, W, 3]."""
    meter = ClipMeasures([METRICS[name] for name in NAMES])
    frames = np.clip(np.rint(clip), 0, 255).astype(np.uint8).transpose(0, 3, 1, 2)
    measure(np.ascontiguousarray(frames), [meter])
    return {record.name: record.value for record in meter.finish()}


def read_frames(path: Path) -> np.ndarray:
    """The first frames of a video or an animated picture, [T, H, W, 3] in levels."""
    from PIL import Image, ImageSequence

    if path.suffix == ".webp":
        shown = itertools.islice(ImageSequence.Iterator(Image.open(path)), FRAMES)
        frames = np.stack([np.asarray(frame.convert("RGB")) for frame in shown])
    else:
        frames = read_video(path).frames[:FRAMES].transpose(0, 2, 3, 1)
    return frames.astype(np.float32)


def score_scene(scene: str, seed: int, clean: np.ndarray) -> dict[str, dict]:
    """Scores by fault, "" for none; faults that leave the clip as it is are left out."""
    scores = {"": score(clean)}
    for name, (fault, _) in FAULTS.items():
        rng = np.random.default_rng([zlib.crc32(f"{scene}, {name}".encode()), seed])
        faulty = fault(clean, rng)
        is_told = name != "ghosting of 35 %" or scene not in IMMOVABLE
        if is_told and not np.array_equal(np.rint(faulty), np.rint(clean)):
            scores[name] = score(faulty)
    return scores


def values(scored: dict, fault: str, metric: str, scenes: dict) -> np.ndarray:
    """Clean and faulty values [pairs, 2] where both are known."""
    pairs = [
        (scores[""][metric], scores[fault][metric])
        for (scene, _), scores in scored.items()
        if scene in scenes and fault in scores
    ]
    return np.array([pair for pair in pairs if None not in pair], dtype=float).reshape(-1, 2)


def paired(pairs: np.ndarray) -> float:
    """Share of scenes in which the faulty clip scores higher; a tie is half."""
    clean, faulty = pairs.T
    return float(np.mean((faulty > clean) + 0.5 * (faulty == clean)))


def pooled(pairs: np.ndarray) -> float:
    """The same over all pairs of a faulty and a clean clip, whatever their scenes: the AUC."""
    clean, faulty = pairs.T
    higher = (faulty[:, None] > clean) + 0.5 * (faulty[:, None] == clean)
    return float(np.mean(higher))


def table(scored: dict, num_seeds: int) -> str:
    """The Markdown page."""
    every = {**CLEAN, **FLICKERS}
    counts = {"seeds": num_seeds, "clean": len(CLEAN), "flickering": len(FLICKERS)}
    lines = [HEAD.format(**counts, faults=len(FAULTS))]
    for fault, (_, metric) in FAULTS.items():
        cells = []
        for name in (metric, "frame_diff"):
            cells.append(f"{paired(values(scored, fault, name, CLEAN)):.2f}")
            cells.append(f"{pooled(values(scored, fault, name, CLEAN)):.2f}")
        lines.append(f"| {fault} | `{metric}` | {' | '.join(cells)} |")
    lines.append(SCENES)
    for scene in every:
        of_scene = [scores[""] for (name, _), scores in scored.items() if name == scene]
        names = ("mc_flicker", "mc_flicker_p95", "judder", "frame_diff")
        worst = [max(scores[name] for scores in of_scene) * 255 for name in names]
        lines.append(f"| {scene} | " + " | ".join(f"{x:.2f}" for x in worst) + " |")
    return "\n".join(lines) + "\n"


def real_page(scored: dict) -> str:
    """The page of real clips: what the named metric and frame difference see."""
    scenes = {scene for scene, _ in scored}
    quiet = {scene for (scene, _), scores in scored.items() if scores[""]["mc_flicker"] < QUIET}
    lines = [REAL.format(clips=len(scored), quiet=len(quiet))]
    for fault, (_, named) in FAULTS.items():
        named = IN_REAL_CLIPS.get(fault, named)
        cells = [
            f"{share(values(scored, fault, name, of)):.2f}"
            for name, share, of in (
                (named, paired, scenes),
                (named, paired, quiet),
                (named, pooled, scenes),
                (named, pooled, quiet),
                ("frame_diff", paired, scenes),
                ("frame_diff", pooled, scenes),
            )
        ]
        lines.append(f"| {fault} | `{named}` | {' | '.join(cells)} |")
    lines.append(CLEAN_VALUES)
    for name in ("mc_flicker", "mc_flicker_p95", "judder", "frame_diff"):
        known = [s[""][name] for s in scored.values() if s[""][name] is not None]
        shown = (f"{255 * x:.2f}" for x in np.percentile(known, (10, 50, 90)))
        lines.append(f"| `{name}` | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def draw_picture(scored: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    every = {**CLEAN, **FLICKERS}
    shares = [[paired(values(scored, fault, name, every)) for name in NAMES] for fault in FAULTS]
    figure, axes = plt.subplots(figsize=(10.5, 9), layout="constrained")
    shown = axes.imshow(shares, vmin=0, vmax=1, cmap="RdYlBu_r", aspect="auto")
    axes.set_xticks(range(len(NAMES)), NAMES, rotation=40, ha="right")
    axes.set_yticks(range(len(FAULTS)), list(FAULTS))
    for row, (_, named) in enumerate(FAULTS.values()):
        for column, name in enumerate(NAMES):
            share = shares[row][column]
            weight = "bold" if name == named else "normal"
            shade = "white" if abs(share - 0.5) > 0.4 else "black"
            text = f"{share:.2f}".lstrip("0")
            axes.text(column, row, text, ha="center", va="center", weight=weight, color=shade)
    axes.set_title(
        "Share of clips that score higher with the fault than without; bold: named for it"
    )
    figure.colorbar(shown, ax=axes, shrink=0.5)
    figure.savefig(path, dpi=110)


def parser() -> argparse.ArgumentParser:
    made = cli.parser("flicker_table", __doc__.splitlines()[0])
    made.prog = "flicker_table"
    add = made.add_argument
    cli.add_out(made, "where scored clips are kept", default="runs/flicker_table")
    add("--seeds", type=int, default=4, help="clips of each scene (default: 4)")
    add("--clips", type=Path, help="a folder of videos in place of drawn scenes")
    add("--markdown", type=Path, help="write the page here, its picture beside it")
    return made


def run(options: argparse.Namespace) -> int:
    # what is asked for
    out, page = Path(options.out), options.markdown
    if options.clips and not options.clips.is_dir():
        raise ValueError(f"--clips is {options.clips}, which is no folder. Name one of videos.")
    if page and not page.parent.is_dir():
        raise ValueError(f"--markdown is {page}, but there is no folder {page.parent}. Create it.")
    out.mkdir(parents=True, exist_ok=True)
    todo = [(scene, seed) for seed in range(options.seeds) for scene in CLEAN | FLICKERS]
    if options.clips:
        todo = [(path, 0) for path in sorted(options.clips.iterdir()) if path.is_file()]
    # scored, or read where it is there
    scored = {}
    with Progress("scenes", len(todo)) as progress:
        for done, (scene, seed) in enumerate(todo, 1):
            name = scene.stem if options.clips else scene.replace(" ", "_").replace(",", "")
            path = out / f"{name}.{seed}.json"
            if not path.exists():
                clean = read_frames(scene) if options.clips else draw(scene, seed)
                write_json(path, score_scene(name, seed, clean))
            scored[scene, seed] = json.loads(path.read_text())
            progress.update(done)
    # told
    text = real_page(scored) if options.clips else drawn_page(scored, out, options.seeds)
    print(text)
    if page:
        write_text(page, text)
    if page and not options.clips:
        pictures = page.parent / "pictures"
        pictures.mkdir(exist_ok=True)
        draw_picture(scored, pictures / "flicker_table.png")
    return cli.DONE


def drawn_page(scored: dict, out: Path, seeds: int) -> str:
    """The page of drawn scenes; parts that stand still and cuts are scored once."""
    text = table(scored, seeds)
    for name, made in (("held", held_section), ("cuts", section)):
        path = out / f"{name}.md"
        if not path.exists():
            write_text(path, made())
        text += path.read_text(encoding="utf-8")
    return text + margins(
        {fault: name for fault, (_, name) in FAULTS.items()},
        lambda fault, name: values(scored, fault, name, CLEAN),
    )


if __name__ == "__main__":
    sys.exit(cli.run(parser(), run, None))
