"""Decoded videos of 480p into files, against diffusers' video processor and `export_to_video`, one
video after the other, as its documents show it.

The sampling of a video is stood in for by matrix products, about as long as its encoding; what a
VAE returns is made once: a texture that pans. Ours is all of `vidcfg render` but the model: levels
in pieces, file, contact sheet, hashes and record, written beside the next video's sampling.
`export_to_video` takes imageio where it is installed (x264 on all cores, in a process of its own,
at a lower quality than ours), and OpenCV (MPEG-4) where not. Time is that on the clock. Peak
memory is that of a process that makes one video, beyond the decoded tensor and the uint8 frames.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import av
import cv2
import numpy as np
import torch
from diffusers.utils import export_to_video
from diffusers.utils.import_utils import is_imageio_available
from diffusers.video_processor import VideoProcessor
from harness import Row

from vidcfg.pipelines.load import load_pipeline
from vidcfg.render import job
from vidcfg.render.call import Levels, converted_in_pieces
from vidcfg.render.config import RenderConfig, units_of
from vidcfg.render.sampling import Batch, sample_units

HEIGHT, WIDTH, FPS = 480, 832, 16
NUM_FRAMES, NUM_VIDEOS = 49, 4
PRODUCTS = 60
"""Of two matrices of 1024 x 1024, in the place of sampling: some 1.2 s on one thread."""


def decoded(num_frames: int) -> torch.Tensor:
    """What a VAE returns: float32 [1, 3, T, H, W] in -1..1."""
    rng = np.random.default_rng(0)
    texture = np.zeros((HEIGHT + 100, WIDTH + 700, 3), dtype=np.float32)
    for size in (4, 16, 64):
        cells = rng.random((HEIGHT // size, WIDTH // size, 3), dtype=np.float32)
        texture += cv2.resize(cells, (WIDTH + 700, HEIGHT + 100), interpolation=cv2.INTER_CUBIC)
    texture = 2.2 * texture / texture.max() - 1.1
    video = torch.empty(1, 3, num_frames, HEIGHT, WIDTH)
    for t in range(num_frames):
        left, top = 3 * t, t // 2
        window = texture[top : top + HEIGHT, left : left + WIDTH]
        video[0, :, t] = torch.from_numpy(window).permute(2, 0, 1)
    return video


def sampled() -> None:
    matrix = torch.ones(1024, 1024)
    for _ in range(PRODUCTS):
        matrix @ matrix


def peer_of(video: torch.Tensor, folder: Path, count: int) -> Callable[[], None]:
    processor = VideoProcessor()

    def peer() -> None:
        for number in range(count):
            sampled()
            frames = processor.postprocess_video(video, output_type="np")[0]
            export_to_video(frames, str(folder / f"peer{number}.mp4"), fps=FPS)

    return peer


def ours_of(video: torch.Tensor, folder: Path, count: int) -> Callable[[], None]:
    """`render_units` with the model's part of sampling replaced; the trace is that of a run of the
    embedded model of as many frames."""
    num_frames = video.shape[2]

    def config(height: int, width: int) -> RenderConfig:
        return RenderConfig(
            schema=1,
            name="bench",
            model={"kind": "mini", "device": "cpu"},
            prompts=[{"text": "a red circle moving left over a navy background"}],
            seeds=list(range(count)),
            video={"num_frames": num_frames, "height": height, "width": width, "fps": FPS},
            sampling={"num_steps": 1, "scheduler": "flow_euler"},
            guidance={"scale": 4.0},
            output={"dir": str(folder), "video": "h264"},
        )

    small, large = config(32, 32), config(HEIGHT, WIDTH)
    mini, units = load_pipeline(small.model), units_of(large)
    (like,) = sample_units([small], mini, units[0]).videos
    stock = SimpleNamespace(video_processor=VideoProcessor())

    def sample(*_: object, **__: object) -> Batch:
        sampled()
        with converted_in_pieces(stock, what="the video"):
            output_type = Levels("np")
            frames = stock.video_processor.postprocess_video(video, output_type=output_type)
        return Batch((replace(like, frames_THWC=frames[0]),), like.trace)

    def ours() -> None:
        job.sample_units = sample
        try:
            job.render_units(large, mini, units, overwrite=True)
        finally:
            job.sample_units = sample_units

    return ours


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def rows() -> Iterator[Row]:
    video = decoded(NUM_FRAMES)
    with TemporaryDirectory() as folder:
        yield row(video, Path(folder))


def row(video: torch.Tensor, folder: Path) -> Row:
    peer, ours = (make(video, folder, NUM_VIDEOS) for make in (peer_of, ours_of))

    def check() -> str:
        # Files: each as near to the frames as its codec allows
        peer()
        ours()
        levels = (video[0] * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 3, 0).mul(255).round().numpy()
        names = ("peer0.mp4", next(folder.glob("a-*-s0.mp4")).name)
        errors = [np.square(frames_of(folder / name) - levels).mean() for name in names]
        first, second = (10 * np.log10(255**2 / error) for error in errors)
        assert min(first, second) > 30, (first, second)
        # Memory, each way and length in a process of its own
        lengths = (NUM_FRAMES, 4 * NUM_FRAMES + 1)
        peaks = {side: [peak_of(side, n) for n in lengths] for side in ("peer", "ours")}
        growth = {side: more / less for side, (less, more) in peaks.items()}
        assert growth["ours"] <= 1.25, peaks
        told = "; ".join(
            f"{side} {less:.0f} MB at {lengths[0]} frames, {more:.0f} at {lengths[1]} "
            f"({growth[side]:.2f} x)"
            for side, (less, more) in peaks.items()
        )
        return f"peer {first:.1f}, ours {second:.1f} dB; peak memory: {told}"

    name = f"{NUM_VIDEOS} videos of {NUM_FRAMES} frames"
    note = f"`export_to_video` by {'imageio' if is_imageio_available() else 'OpenCV'}"
    return Row(name, peer, ours, check, note, rounds=3, on_clock=True)


def peak_of(side: str, num_frames: int) -> float:
    """MB that one video needs at most, beyond what is there before and its levels."""
    command = [sys.executable, __file__, side, str(num_frames)]
    # What is freed goes back at once, so that the heap of earlier work has no part in it.
    plain = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    told = subprocess.run(command, env=plain, stdout=subprocess.PIPE, check=True).stdout
    return float(told.split()[-1])


def resident(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


if __name__ == "__main__":
    video = decoded(int(sys.argv[2]))
    with TemporaryDirectory() as folder:
        run = {"peer": peer_of, "ours": ours_of}[sys.argv[1]](video, Path(folder), 1)
        torch.set_num_threads(1)
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before = resident("VmRSS")
        run()
        print((resident("VmHWM") - before - video.numel()) / 1e6)
