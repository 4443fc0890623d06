"""Which files are read, frame for frame as the ffmpeg program decodes them.

    python scripts/file_kinds.py --markdown docs/metrics.md

Writes one small clip as many kinds of file (with the ffmpeg program and Pillow), reads each, and
compares: the number of frames with ffprobe's count, every value with what the ffmpeg program
decodes, the rate with the times that ffprobe prints. The ffmpeg program reads no animated WebP;
those are compared with OpenCV. Takes two minutes.
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidcfg.files import write_text
from vidcfg.media.probe import VideoInfo, probe
from vidcfg.media.read import read_video

NUM_FRAMES, HEIGHT, WIDTH, RATE = 24, 64, 96, 24
TOLERANCE = 3.1
"""Levels of 255 by which two converters may differ; neighbouring frames are 30 apart and more."""

X264, X265 = "-c:v libx264", "-c:v libx265 -x265-params log-level=none"
INTERLACED = "-vf tinterlace=interleave_top"
TAGS = "-vf scale=out_color_matrix={0}:out_range={1} -colorspace {0} -color_range {1}"
MATRICES = {
    "turned 90": (0, 1, -1, 0),
    "turned 180": (-1, 0, 0, -1),
    "turned 270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
}


@dataclass(frozen=True)
class Kind:
    """A file: its name, the ffmpeg program's options, what is special, and a last touch."""

    name: str
    options: str
    special: str = ""
    touch: Callable[[Path], None] | None = None


def clip(num: int = NUM_FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Colours that move, smooth enough that chroma at half resolution changes little."""
    t, y, x = np.mgrid[0:num, 0:height, 0:width]
    red = np.sin(2 * np.pi * (x / 96 + t / 12))
    green = np.sin(2 * np.pi * (y / 80 - t / 10))
    blue = np.cos(2 * np.pi * ((x + y) / 128 + t / 8))
    return np.rint(127.5 + 100 * np.stack([red, green, blue], axis=-1)).astype(np.uint8)


def ffmpeg(*arguments: object, given: bytes | None = None) -> bytes:
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, input=given, check=True, stdout=subprocess.PIPE).stdout


def write(path: Path, options: str, *, frames: np.ndarray) -> None:
    raw = f"-f rawvideo -pix_fmt rgb24 -s {frames.shape[2]}x{frames.shape[1]} -r {RATE} -i -"
    ffmpeg(*raw.split(), *options.split(), path, given=frames.tobytes())


def with_matrix(matrix: tuple[int, int, int, int]) -> Callable[[Path], None]:
    """Sets the display matrix of an MP4 file, as phones write it."""

    def touch(path: Path) -> None:
        data = bytearray(path.read_bytes())
        # Behind the box's times, which its version 1 holds in 64 bits.
        at = data.find(b"tkhd")
        at += 24 + (32 if data[at + 4] == 1 else 20)
        a, b, c, d = (0x10000 * number for number in matrix)
        data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
        path.write_bytes(data)

    return touch


def copied(*before: str, after: tuple[str, ...] = ()) -> Callable[[Path], None]:
    """Copies the packets of the file, and takes the copy in its place."""

    def touch(path: Path) -> None:
        copy = path.with_name("copy" + path.suffix)
        ffmpeg(*before, "-i", path, "-c", "copy", *after, copy)
        copy.replace(path)

    return touch


def without_start(path: Path) -> None:
    """A broadcast that was tuned in to: whole transport packets are missing at the front."""
    data = path.read_bytes()
    path.write_bytes(data[188 * (len(data) // 188 // 3) :])


def with_wrong_count(path: Path) -> None:
    """The AVI header counts 99 frames."""
    data = bytearray(path.read_bytes())
    at = data.find(b"avih") + 8 + 16
    data[at : at + 4] = (99).to_bytes(4, "little")
    at = data.find(b"strh") + 8 + 32
    data[at : at + 4] = (99).to_bytes(4, "little")
    path.write_bytes(data)


def motion_jpeg_turned(path: Path) -> None:
    """Frames of Motion JPEG with an EXIF orientation each."""
    from PIL import Image

    for index, picture in enumerate(clip()):
        exif = Image.Exif()
        exif[0x0112] = 6
        image = Image.fromarray(picture)
        image.save(path.with_name(f"exif_{index:03}.jpg"), quality=98, subsampling=0, exif=exif)
    ffmpeg("-r", RATE, "-i", path.with_name("exif_%03d.jpg"), "-c", "copy", path)


def animated(**options: object) -> Callable[[Path], None]:
    def touch(path: Path) -> None:
        from PIL import Image

        frames = [Image.fromarray(frame) for frame in clip()]
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)

    return touch


KINDS = [
    Kind("mp4", f"{X264} -pix_fmt yuv420p", "B-frames"),
    Kind("mp4", f"{X264} -pix_fmt yuv420p {TAGS.format('bt709', 'tv')}", "BT.709"),
    Kind("mp4", f"{X264} -pix_fmt yuv420p {TAGS.format('bt709', 'pc')}", "BT.709, full range"),
    Kind("mp4", f"{X264} -pix_fmt yuvj420p", "full range"),
    Kind("mp4", f"{X264} -pix_fmt yuv444p -qp 0", "lossless"),
    Kind("mp4", "-c:v libx264rgb -qp 0", "lossless"),
    Kind("mp4", f"{X264} -pix_fmt yuv420p10le"),
    Kind("mp4", f"{X264} -pix_fmt yuv422p10le"),
    Kind("mp4", f"{X264} -pix_fmt yuv444p -s 95x63", "odd size"),
    Kind("mp4", f"{X264} -pix_fmt yuv420p {INTERLACED} -x264-params tff=1", "interlaced"),
    *(
        Kind("mp4", f"{X264} -pix_fmt yuv420p", text, with_matrix(matrix))
        for text, matrix in MATRICES.items()
    ),
    Kind("mp4", f"{X264} -pix_fmt yuv420p", "cut in front by an edit list", copied("-ss", "0.21")),
    Kind("mov", f"{X264} -pix_fmt yuv420p", "cut at its end", copied(after=("-t", "0.5"))),
    Kind("mp4", f"{X264} -pix_fmt yuv420p -r 24000/1001", "23.976"),
    Kind("mp4", f"{X264} -pix_fmt yuv420p -vf setpts=PTS*(1+N/24) -fps_mode vfr", "variable rate"),
    Kind("mp4", f"{X264} -pix_fmt yuv420p -frames:v 1", "one frame"),
    Kind("mp4", f"{X265} -pix_fmt yuv420p"),
    Kind("mp4", f"{X265} -pix_fmt yuv420p10le {TAGS.format('bt2020nc', 'tv')}", "BT.2020"),
    Kind("mkv", f"{X265} -pix_fmt yuv422p10le"),
    Kind("mkv", f"{X265} -pix_fmt yuv444p12le"),
    Kind("mp4", "-c:v mpeg4 -bf 2 -q:v 2"),
    Kind("mp4", "-c:v libsvtav1 -pix_fmt yuv420p"),
    Kind("mkv", "-c:v libsvtav1 -pix_fmt yuv420p10le"),
    Kind("webm", "-c:v libvpx -auto-alt-ref 1 -lag-in-frames 16", "hidden frames"),
    Kind("webm", "-c:v libvpx-vp9 -auto-alt-ref 1 -lag-in-frames 16", "hidden frames"),
    Kind("webm", "-c:v libvpx-vp9 -pix_fmt yuv420p10le"),
    Kind("webm", "-c:v libvpx-vp9 -pix_fmt yuv444p12le"),
    Kind("mkv", "-c:v ffv1 -pix_fmt bgr0", "lossless"),
    Kind("mkv", "-c:v ffv1 -pix_fmt bgra -vf colorchannelmixer=aa=0.5", "alpha"),
    Kind("mkv", "-c:v ffv1 -pix_fmt gray10le"),
    Kind("mkv", "-c:v ffv1 -pix_fmt gbrp12le"),
    Kind("mkv", "-c:v rawvideo -pix_fmt nv12"),
    Kind("mkv", "-c:v ffv1 -pix_fmt yuv420p -s 95x63", "odd size"),
    Kind("avi", "-c:v huffyuv"),
    Kind("avi", "-c:v utvideo"),
    Kind("avi", "-c:v mpeg4 -bf 2 -q:v 2", "packed B-frames"),
    Kind("avi", "-c:v mjpeg -q:v 2", "header counts 99", with_wrong_count),
    Kind("avi", "", "Motion JPEG, EXIF turned 90", motion_jpeg_turned),
    Kind("mov", "-c:v mjpeg -q:v 2 -pix_fmt yuvj422p", "full range"),
    Kind("mov", "-c:v prores_ks -profile:v hq -pix_fmt yuv422p10le"),
    Kind("mov", "-c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le", "alpha"),
    Kind("mov", "-c:v qtrle"),
    Kind("mov", "-c:v png -pix_fmt rgb48be"),
    Kind("mov", "-c:v v210 -pix_fmt yuv422p10le"),
    Kind("mov", "-c:v dvvideo -s 720x480 -r 30000/1001 -pix_fmt yuv411p", "interlaced"),
    Kind("mxf", "-c:v mpeg2video -bf 2 -q:v 2"),
    Kind("mxf", "-c:v dnxhd -profile:v dnxhr_hqx -pix_fmt yuv422p10le -s 256x128"),
    Kind("ts", "-c:v mpeg2video -bf 2 -q:v 2", "B-frames"),
    Kind("ts", f"{X264} -pix_fmt yuv420p"),
    Kind("ts", f"{X264} -pix_fmt yuv420p {INTERLACED} -x264-params tff=1", "interlaced"),
    Kind("ts", f"{X265} -pix_fmt yuv420p10le"),
    Kind("ts", f"{X264} -pix_fmt yuv420p -g 6", "starts between key frames", without_start),
    Kind("mpg", "-c:v mpeg1video -q:v 2"),
    Kind("mpg", f"-c:v mpeg2video {INTERLACED} -r 25 -flags +ildct+ilme -q:v 2", "interlaced"),
    Kind("flv", "-c:v flv -q:v 2"),
    Kind("flv", f"{X264} -pix_fmt yuv420p"),
    Kind("wmv", "-c:v wmv2 -q:v 2"),
    Kind("ogv", "-c:v libtheora -q:v 10"),
    Kind("3gp", "-c:v h263 -s 176x144 -q:v 2"),
    Kind("y4m", "-pix_fmt yuv420p"),
    Kind("y4m", "-pix_fmt yuv422p10le -strict -1"),
    Kind("gif", "", "animated", animated(duration=[40] * 12 + [90] * 12)),
    Kind("apng", "-f apng", "animated"),
    Kind("png", "", "animated, own times", animated(duration=[40] * 12 + [90] * 12)),
    Kind("webp", "", "animated, lossy", animated(duration=125, quality=95)),
    Kind("webp", "", "animated, lossless", animated(duration=41, lossless=True)),
]


def decoded(path: Path, info: VideoInfo) -> tuple[np.ndarray, float | None, int | None]:
    """Frames [T, 3, H, W] in 0..1, rate and count, by programs other than the reader."""
    if path.suffix == ".webp":
        return *by_opencv(path), None
    arguments = "-v error -select_streams V:0 -count_frames -of json -show_entries "
    arguments += "frame=best_effort_timestamp_time:stream=nb_read_frames,chroma_location"
    found = subprocess.run(
        ["ffprobe", *arguments.split(), path], check=True, capture_output=True, text=True
    )
    told = json.loads(found.stdout)
    times = [float(f.get("best_effort_timestamp_time", "nan")) for f in told["frames"]]
    rate = None
    if len(times) > 1 and np.isfinite(times).all():
        rate = (len(times) - 1) / (max(times) - min(times))
    # The program's own conversion of planes to RGB, told to mind fields and where chroma sits.
    deep = info.bit_depth > 8
    scale = "scale=interl=-1:flags=" + ("bilinear" if deep else "bicubic")
    if told["streams"][0].get("chroma_location") in ("left", "topleft"):
        scale += ":in_h_chr_pos=0"
    options = f"-map 0:V:0 -fps_mode passthrough -f rawvideo -vf {scale} -pix_fmt"
    raw = ffmpeg("-i", path, *options.split(), "gbrp16le" if deep else "rgb24", "-")
    shape = (-1, 3, info.height, info.width) if deep else (-1, info.height, info.width, 3)
    frames = np.frombuffer(raw, "<u2" if deep else np.uint8).reshape(shape)
    frames = frames[:, [2, 0, 1]] if deep else frames.transpose(0, 3, 1, 2)
    return frames / (65535 if deep else 255), rate, int(told["streams"][0]["nb_read_frames"])


def by_opencv(path: Path) -> tuple[np.ndarray, float]:
    import cv2

    done, animation = cv2.imreadanimation(str(path))
    if not done:
        raise ValueError(f"OpenCV cannot read {path}.")
    frames = np.stack(animation.frames)[..., 2::-1].transpose(0, 3, 1, 2)
    return frames / 255, 1000 / float(np.mean(animation.durations[:-1]))


def row_of(kind: Kind, folder: Path) -> tuple[str, bool]:
    """A row of the table, and whether all agrees."""
    # The file.
    path = folder / f"clip.{kind.name}"
    if kind.options:
        write(path, kind.options, frames=clip(48 if "tinterlace" in kind.options else NUM_FRAMES))
    if kind.touch:
        kind.touch(path)
    # Read, and compared.
    info = probe(path)
    frames = read_video(path).frames
    frames = frames / (255 if frames.dtype == np.uint8 else 1)
    expected, rate, count = decoded(path, info)
    is_same = len(frames) == info.num_frames == len(expected) and count in (None, len(frames))
    worst = 255 * np.abs(frames - expected).max() if is_same else np.inf
    is_good = is_same and worst <= TOLERANCE and (not rate or abs(info.fps / rate - 1) < 0.02)
    facts = (
        f".{kind.name}",
        info.codec,
        f"{info.bit_depth}",
        kind.special,
        f"{info.width} x {info.height}",
        f"{info.fps:.3f}".rstrip("0").rstrip(".") + (" variable" if info.is_variable_rate else ""),
        f"{len(frames)}",
        "–" if count is None else f"{count}",
        f"{worst:.1f}",
    )
    return f"| {' | '.join(facts)} |", is_good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", type=Path, help="replace the table between its markers here")
    options = parser.parse_args()
    rows, wrong = [], []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            row, is_good = row_of(kind, Path(folder))
        print(row if is_good else f"{row} DIFFERS", flush=True)
        rows.append(row)
        wrong += [] if is_good else [row]
    print(f"{len(rows)} kinds of file, {len(wrong)} differ")
    if options.markdown and not wrong:
        head = "| file | codec | bits | special | shown | fps | frames | ffprobe | differs by |"
        table = "\n".join([head, "|---" * 9 + "|", *rows])
        before, rest = options.markdown.read_text("utf-8").split("<!-- files -->")
        after = rest.split("<!-- /files -->")[1]
        text = f"{before}<!-- files -->\n{table}\n<!-- /files -->{after}"
        write_text(options.markdown, text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
