"""A folder as people have it: clips of many kinds, some of them damaged or odd."""

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image
from video_files import encode

QUIET = {"libx265": {"x265-params": "log-level=none"}}
SIZES = {"h263": (96, 128), "libx265": (64, 96)}
"""Height and width of codecs that know few sizes, or whose encoder breaks on small ones."""

CONTAINERS = {
    "mp4": "libx264 yuv420p, libx264 yuv444p, libx264 yuv420p10le, libx265 yuv420p, mpeg4 yuv420p,"
    " libvpx-vp9 yuv420p, mjpeg yuvj420p",
    "mkv": "ffv1 bgr0, ffv1 yuv420p10le, ffv1 yuv444p, ffv1 gray, libx264 yuv420p,"
    " libx264 yuv422p, mjpeg yuvj420p, libvpx yuv420p, libvpx-vp9 yuv444p,"
    " mpeg2video yuv420p, prores_ks yuv422p10le",
    "mov": "libx264 yuv420p, libx264 yuv422p10le, prores_ks yuv422p10le, prores_ks yuva444p10le,"
    " qtrle rgb24,"
    " png rgb24, mjpeg yuvj444p, rawvideo rgb24",
    "avi": "mpeg4 yuv420p, msmpeg4 yuv420p, mjpeg yuvj420p, huffyuv rgb24, ffvhuff yuv444p,"
    " utvideo gbrp, rawvideo bgr24, ffv1 bgr0, zlib bgr24",
    "webm": "libvpx yuv420p, libvpx-vp9 yuv420p, libvpx-vp9 yuv444p",
    "ts": "libx264 yuv420p, mpeg2video yuv420p, mpeg2video yuv422p, libx265 yuv420p",
    "m2ts": "libx264 yuv420p",
    "mts": "libx264 yuv420p",
    "mpg": "mpeg2video yuv420p, mpeg1video yuv420p",
    "flv": "flv yuv420p, libx264 yuv420p",
    "wmv": "wmv2 yuv420p, wmv1 yuv420p",
    "asf": "msmpeg4 yuv420p",
    "mxf": "mpeg2video yuv420p",
    "m4v": "mpeg4 yuv420p, libx264 yuv420p",
    "3gp": "h263 yuv420p, mpeg4 yuv420p",
    "y4m": "wrapped_avframe yuv420p, wrapped_avframe yuv444p, wrapped_avframe gray",
    "gif": "gif rgb8",
}
PICTURES = {
    "a.webp": {"lossless": True},
    "b.webp": {"quality": 80},
    "a.apng": {},
    "b.png": {"duration": 40},
    "c.gif": {"duration": [40, 90, 200, 40, 40, 40, 40, 40, 40]},
}
FOLDERS = ("png", "jpg", "bmp", "tiff", "webp")


def clip(seed: int, *, num: int = 9, height: int = 32, width: int = 48) -> np.ndarray:
    """Colours that move, [T, H, W, 3]; another seed is another clip."""
    t, y, x = np.mgrid[0:num, 0:height, 0:width]
    phase = seed * 0.7
    waves = [np.sin((x + (c + 1) * y) / 7 + (t + c) / (2 + seed % 5) + phase) for c in range(3)]
    return np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def good_files(folder: Path) -> dict[str, Callable[[], object]]:
    """Name of each whole file -> what writes it."""
    made: dict[str, Callable[[], object]] = {}

    def add(name: str, write: Callable, *arguments: object, **options: object) -> None:
        made[name] = lambda: write(folder / name, *arguments, **options)

    for ending, codecs in CONTAINERS.items():
        for entry in codecs.split(","):
            codec, pixel_format = entry.split()
            height, width = SIZES.get(codec, (32, 48))
            frames = clip(len(made), height=height, width=width)
            rate = 25 if ending in ("mpg", "mxf", "3gp") else 24
            options = {"options": QUIET.get(codec), "rate": rate}
            name = f"{codec}-{pixel_format}.{ending}"
            add(name, encode, frames, codec=codec, pixel_format=pixel_format, **options)
    for name, options in PICTURES.items():
        add(name, animated, len(made), **options)
    for ending in FOLDERS:
        add(f"stills-{ending}", stills, ending, len(made))
    return made


def animated(path: Path, seed: int, *, num: int = 9, **options: object) -> None:
    first, *others = (Image.fromarray(frame) for frame in clip(seed, num=num))
    kind = {".apng": "PNG"}.get(path.suffix)
    first.save(path, kind, save_all=True, append_images=others, **options)


def stills(path: Path, ending: str, seed: int, *, numbers: range = range(9)) -> Path:
    path.mkdir()
    for number, frame in zip(numbers, clip(seed)):
        Image.fromarray(frame).save(path / f"{number:04}.{ending}")
    return path


FAILS, NOTED, SCORED = "fails", "noted", "scored"


def odd_files(folder: Path) -> dict[str, tuple[str, Callable[[], object]]]:
    """Name of each damaged or odd one -> what is to be said of it, and what writes it."""
    made: dict[str, tuple[str, Callable[[], object]]] = {}

    def odd(name: str, said: str) -> Callable[[Callable[[Path], object]], None]:
        def keep(write: Callable[[Path], object]) -> None:
            made[name] = said, lambda: write(folder / name)

        return keep

    def changed(
        name: str, said: str, change: Callable[[bytes], bytes], *, of: str = "", **options: object
    ) -> None:
        """A whole clip whose bytes are changed; `of` is its ending where that is another."""

        def write(path: Path) -> None:
            whole = path.with_name("whole" + (of or path.suffix))
            if options:
                encode(whole, clip(len(name)), rate=24, **options)
            else:
                animated(whole, len(name))
            path.write_bytes(change(whole.read_bytes()))
            whole.unlink()

        odd(name, said)(write)

    def half(data: bytes) -> bytes:
        return data[: len(data) * 6 // 10]

    h264 = {"codec": "libx264", "pixel_format": "yuv420p"}
    ffv1 = {"codec": "ffv1", "pixel_format": "bgr0"}
    # Cut short: a copy that broke off.
    changed("cut.mp4", FAILS, half, **h264)
    changed("cut.mov", FAILS, half, codec="prores_ks", pixel_format="yuv422p10le")
    changed("cut.mkv", FAILS, half, **ffv1)
    changed("cut.avi", FAILS, half, codec="huffyuv", pixel_format="rgb24")
    changed("cut.y4m", FAILS, half, codec="wrapped_avframe", pixel_format="yuv420p")
    changed("cut.gif", FAILS, half)
    changed("cut.apng", FAILS, half, of=".png")
    changed("cut.webp", FAILS, half)
    # Nothing, or nothing of a video, in it.
    for name, data in {
        "empty.mp4": b"",
        "zeros.mkv": bytes(5000),
        "noise.mov": np.random.default_rng(0).bytes(5000),
        "letter.mp4": b"This is no video.\n" * 99,
        "page.webm": b"<!doctype html><title>404</title>" * 50,
    }.items():
        odd(name, FAILS)(lambda path, data=data: path.write_bytes(data))

    @odd("archive.avi", FAILS)
    def _(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("kite.txt", "no video")

    @odd("gone.mp4", FAILS)
    def _(path: Path) -> None:
        path.symlink_to("nowhere.mp4")

    @odd("sound.m4v", FAILS)
    def _(path: Path) -> None:
        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream("aac", 8000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate = 8000
            container.mux(stream.encode(sound))
            container.mux(stream.encode(None))

    @odd("header.avi", FAILS)
    def _(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("huffyuv", rate=8)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "rgb24"
            container.start_encoding()

    # Damaged inside.
    def spoiled(data: bytes) -> bytes:
        at = len(data) // 2
        return data[:at] + bytes(byte ^ 0x5A for byte in data[at : at + 40]) + data[at + 40 :]

    changed("spoiled.mov", FAILS, spoiled, codec="png", pixel_format="rgb24")
    changed("spoiled.png", FAILS, spoiled)

    @odd("two-sizes.ts", FAILS)
    def _(path: Path) -> None:
        parts = []
        for seed, width in enumerate((48, 64)):
            part = path.with_name(f".part{seed}.ts")
            encode(part, clip(seed, width=width), rate=24, **h264)
            parts.append(part.read_bytes())
            part.unlink()
        path.write_bytes(b"".join(parts))

    @odd("stills-broken", FAILS)
    def _(path: Path) -> None:
        stills(path, "png", 3)
        (path / "0004.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    @odd("stills-nan", FAILS)
    def _(path: Path) -> None:
        path.mkdir()
        for number, frame in enumerate(clip(4)):
            pixels = np.where(frame[..., 0] > 200, np.nan, frame[..., 0] / 255)
            Image.fromarray(pixels.astype(np.float32)).save(path / f"{number}.tiff")

    # Odd, but whole: measured, and what is odd is said.
    def counts_99(data: bytes) -> bytes:
        data = bytearray(data)
        for box, at in ((b"avih", 16), (b"strh", 32)):
            at += data.find(box) + 8
            data[at : at + 4] = struct.pack("<I", 99)
        return bytes(data)

    changed("counts-99.avi", NOTED, counts_99, codec="huffyuv", pixel_format="rgb24")

    @odd("stills-with-a-gap", NOTED)
    def _(path: Path) -> None:
        stills(path, "png", 5, numbers=[0, 1, 2, 3, 5, 6, 7, 8, 9])

    @odd("turned.mp4", NOTED)
    def _(path: Path) -> None:
        matrix = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000]
        encode(path, clip(6), rate=24, matrix=matrix, **h264)

    changed("really-mkv.mp4", SCORED, bytes, of=".mkv", **ffv1)
    changed("really-mp4.avi", SCORED, bytes, of=".mp4", **h264)
    odd("one-frame.mp4", SCORED)(lambda path: encode(path, clip(7, num=1), rate=24, **h264))

    @odd("name\nwith a line.mkv", SCORED)
    def _(path: Path) -> None:
        encode(path, clip(8), rate=24, **ffv1)

    @odd(os.fsdecode(b"latin-\xe9.mkv"), SCORED)
    def _(path: Path) -> None:
        encode(path, clip(9), rate=24, **ffv1)

    return made
