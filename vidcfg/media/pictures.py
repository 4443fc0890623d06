"""Pictures: stills, folders of numbered stills, and animated WebP and PNG files."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.media.video import MediaError
from vidcfg.progress import listed

VIDEO_SUFFIXES = frozenset(
    [".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif", ".ogv"]
    + [".y4m", ".flv", ".wmv", ".asf", ".mxf", ".mts", ".m2ts", ".3gp", ".apng"]
)
FRAME_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"])
LOSSLESS_FRAMES = frozenset([".png", ".bmp", ".tif", ".tiff"])

ORIENTATIONS = {
    (False, False, False): "upright",
    (False, True, False): "mirrored",
    (False, True, True): "turned by 180 degrees",
    (False, False, True): "turned by 180 degrees and mirrored",
    (True, False, False): "turned by 90 degrees clockwise and mirrored",
    (True, True, False): "turned by 90 degrees clockwise",
    (True, True, True): "turned by 90 degrees anticlockwise and mirrored",
    (True, False, True): "turned by 90 degrees anticlockwise",
}
"""What display does to a stored picture, in the order of EXIF's numbers 1 to 8.

Rows become columns, then columns are reversed (x), then rows (y).
"""

Orientation = tuple[bool, bool, bool]


def turned(frame_CHW: np.ndarray, orientation: Orientation) -> np.ndarray:
    """A stored frame as it is shown."""
    is_transposed, is_reversed_x, is_reversed_y = orientation
    if is_transposed:
        frame_CHW = frame_CHW.transpose(0, 2, 1)
    return frame_CHW[:, :: -1 if is_reversed_y else 1, :: -1 if is_reversed_x else 1]


def exif_orientation(picture: Path | BytesIO) -> Orientation:
    """What the EXIF data of a picture ask for; upright without any."""
    from PIL import Image

    try:
        with Image.open(picture) as image:
            number = image.getexif().get(0x0112, 1)
    except Exception:  # damaged data, or a size that Pillow takes for an attack: its own kinds
        number = 1
    return list(ORIENTATIONS)[number - 1 if number in range(1, 9) else 0]


def is_video(path: Path) -> bool:
    """A file that holds a video, by its ending or, for a WebP or PNG file, by what it holds."""
    # A link that leads nowhere is called a video too, so that it is told.
    is_one = path.is_file() or (path.is_symlink() and not path.exists())
    return is_one and (path.suffix.lower() in VIDEO_SUFFIXES or is_animated(path))


def is_still(path: Path) -> bool:
    """A picture that is one frame."""
    return path.suffix.lower() in FRAME_SUFFIXES and not is_animated(path)


def is_frame_folder(path: Path) -> bool:
    """A folder whose pictures are the frames of one video.

    Beside videos they are previews or sheets; beside animated pictures they have to be numbered,
    two or more.
    """
    if not path.is_dir():
        return False
    stills, animated = _pictures(path)
    if not animated:
        return bool(stills)
    return any(key and len(numbered) > 1 for key, numbered in _sequences(stills).items())


def frame_files(path: Path) -> tuple[list[Path], list[str]]:
    """The stills of a folder in the order of their numbers (2 before 10), and what is odd.

    Missing numbers and pictures outside the sequence are told. A still alone is its own list.

    Raises:
        MediaError: no pictures, several sequences, or a number that is there twice.
    """
    if not path.is_dir():
        return [path], []
    # The sequence: pictures whose names differ in one number only.
    stills, animated = _pictures(path)
    sequences = _sequences(stills)
    if not sequences:
        raise MediaError(f"{path} holds no pictures ({', '.join(sorted(FRAME_SUFFIXES))}).")
    unnumbered = sequences.pop((), [])
    first, *others = sorted(sequences.values(), key=len, reverse=True) or [unnumbered]
    if len(first) <= sum(map(len, others)):
        names = f"{first[0][1].name} and {others[0][0][1].name}"
        raise MediaError(
            f"{path} holds several sequences of pictures, such as those of {names}. "
            "Put each into a folder of its own."
        )
    numbered = sorted(first)
    files = [file for _, file in numbered]
    # What does not fit.
    if not sequences:
        return files, []
    notes = _gaps(numbered)
    if strays := [file.name for other in (*others, unnumbered) for _, file in other]:
        span = f"{files[0].name} to {files[-1].name}"
        notes.append(f"left out, not in the sequence {span}: {listed(strays, 3)}")
    if animated:
        notes.append(f"{len(files)} stills beside {len(animated)} animated pictures are one video")
    for (number, file), (following, other) in zip(numbered, numbered[1:]):
        if number == following:
            raise MediaError(
                f"{path} holds picture {number} twice: {file.name} and {other.name}. Number the "
                "frames by one counter, or put each sequence into a folder of its own."
            )
    return files, notes


def _pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """The stills and the animated pictures of a folder; beside other videos no stills count."""
    files = [p for p in folder.iterdir() if not p.name.startswith(".") and p.is_file()]
    animated = [p for p in files if is_video(p)]
    if any(p.suffix.lower() in VIDEO_SUFFIXES - {".gif", ".apng"} for p in animated):
        return [], animated
    # A still that is named as a video is a preview of it.
    names = {p.stem for p in animated}
    stills = [p for p in files if p.suffix.lower() in FRAME_SUFFIXES and p.stem not in names]
    return stills, animated


def _sequences(stills: list[Path]) -> dict[tuple, list[tuple[int | str, Path]]]:
    """Stills with their number, by the rest of their name; those without a number under ()."""
    # Names by their words: numbers in them stand in columns.
    by_words: dict[tuple[str, ...], list[tuple[list[int], Path]]] = defaultdict(list)
    for file in stills:
        numbers = [int(digits) for digits in re.findall(r"\d+", file.stem)]
        by_words[tuple(re.split(r"\d+", file.stem))].append((numbers, file))
    # The column with the most numbers counts the frames; the others tell sequences apart.
    found = defaultdict(list)
    for words, rows in by_words.items():
        columns = [len(set(column)) for column in zip(*(numbers for numbers, _ in rows))]
        counter = max(range(len(columns)), key=lambda c: (columns[c], c), default=None)
        for numbers, file in rows:
            if counter is None:
                found[()].append((file.name, file))
            else:
                rest = (*numbers[:counter], *numbers[counter + 1 :])
                found[words, counter, rest].append((numbers[counter], file))
    return found


def _gaps(numbered: list[tuple[int, Path]]) -> list[str]:
    """What is missing between the first and the last number, at the step that most are apart."""
    steps = [b - a for (a, _), (b, _) in zip(numbered, numbered[1:])]
    step = max(set(steps), key=lambda s: (steps.count(s), -s), default=1) or 1
    holes = [(a, b) for (a, _), (b, _) in zip(numbered, numbered[1:]) if b - a >= 2 * step]
    if not holes:
        return []
    texts = [f"{a + step}" if b - a < 3 * step else f"{a + step} to {b - step}" for a, b in holes]
    missing = sum((b - a - 1) // step for a, b in holes)
    return [f"pictures are missing ({missing}): {listed(texts, 3)}"]


def read_picture(path: Path) -> np.ndarray:
    """A still as [H, W, 3], RGB, uint8 or uint16, upright by its EXIF data; alpha is left out."""
    import cv2

    # Its own lines about damaged files are no answer that a command gives.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        data = _with_plain_colours(np.fromfile(path, dtype=np.uint8))
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except (cv2.error, OSError):
        picture = None
    if picture is None or picture.dtype not in (np.uint8, np.uint16):
        raise MediaError(f"{path} cannot be read as a picture.")
    return picture[..., ::-1]


def _with_plain_colours(data: np.ndarray) -> np.ndarray:
    """A TIFF file that says nothing of its alpha; other files as they are.

    Colours of 8 bits are otherwise multiplied by an alpha that is not in them yet (ExtraSamples is
    2) when they are read. Layout: TIFF 6.0, sections 2 and 18.
    """
    order: Any = {b"II*\0": "little", b"MM\0*": "big"}.get(bytes(data[:4]))
    if order is None:
        return data

    def number(at: int, size: int) -> int:
        return int.from_bytes(bytes(data[at : at + size]), order)

    begin = number(4, 4) + 2
    for entry in range(begin, begin + 12 * number(begin - 2, 2), 12):
        if (number(entry, 2), number(entry + 8, 2)) == (338, 2):
            data[entry + 8 : entry + 10] = 0
    return data


def is_animated(path: Path) -> bool:
    """A WebP or PNG file that says that it is animated; other files are not looked into."""
    return any(name in (b"ANIM", b"acTL") for name, *_ in _chunks(path))


def animation_facts(path: Path) -> tuple[list[int], bool]:
    """How long each frame is shown, in milliseconds, and whether all are stored without loss.

    As browsers do, 10 ms and less are taken as 100.

    Raises:
        MediaError: the file ends too early.
    """
    times, lossless, last, chunks = [], True, None, list(_chunks(path))
    for name, start, _ in chunks:
        if name == b"fcTL":
            numerator, denominator = (int.from_bytes(start[i : i + 2], "big") for i in (20, 22))
            times.append(1000 * numerator / (denominator or 100))
            last = b"IEND"
        if name == b"ANMF":
            times.append(int.from_bytes(start[12:15], "little"))
            # Alpha comes first where there is any; its codec is not that of the colours.
            lossless &= start[16:20] == b"VP8L"
    name, _, end = chunks[-1]
    if end > path.stat().st_size or not times or last not in (None, name):
        raise MediaError(f"{path} is cut short: it ends after {len(times)} frames.")
    return [round(time) if time > 10 else 100 for time in times], lossless


def _chunks(path: Path) -> Iterator[tuple[bytes, bytes, int]]:
    """Name, first bytes and end of each chunk of a PNG or WebP file; nothing of other files."""
    if path.suffix.lower() not in (".png", ".apng", ".webp") or not os.access(path, os.R_OK):
        return
    with open(path, "rb") as file:
        head = file.read(12)
        is_png = head[:8] == b"\x89PNG\r\n\x1a\n"
        if not is_png and not (head[:4] == b"RIFF" and head[8:] == b"WEBP"):
            return
        at = 8 if is_png else 12
        while len(header := (file.seek(at), file.read(8))[1]) == 8:
            size = int.from_bytes(
                header[:4] if is_png else header[4:], "big" if is_png else "little"
            )
            name = header[4:] if is_png else header[:4]
            yield name, file.read(min(size, 24)), at + 8 + size
            if name == b"IEND":
                return
            # A PNG chunk ends with a checksum; a RIFF chunk is padded to an even size.
            at += 8 + size + (4 if is_png else size % 2)


def animation_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of an animated WebP or PNG file as shown, [3, H, W], uint8; alpha is left out.

    Raises:
        MediaError: a frame is damaged.
    """
    from PIL import Image

    index = 0
    try:
        with Image.open(path) as image:
            # A PNG file may hold a picture for readers that know no animation: it is not shown.
            for index in range(int(image.info.get("default_image", False)), image.n_frames):
                image.seek(index)
                yield np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except Exception as error:  # of whatever kind a decoder raises, or Pillow on a huge size
        raise MediaError(f"{path} is damaged at frame {index}: {error}.") from error
