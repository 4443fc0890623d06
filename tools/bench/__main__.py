"""Speed side by side with what others offer: the table of docs/performance.md.

    python tools/bench                                     # all of it
    python tools/bench frechet lpips_frames                # some files of this folder
    python tools/bench --markdown docs/performance.md      # and write it into the page
    python tools/bench --device cuda                       # what can run on a GPU, there

Peer and ours run in turns in one process on one thread, after both were found to make the same;
the least processor time of all rounds counts, on a GPU the least time of its own work. A file is
run in a process of its own, so that what one loads costs the next nothing.
"""

import argparse
import os
import subprocess
import sys
from importlib import import_module
from inspect import cleandoc
from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = sorted({path.stem for path in FOLDER.glob("*.py")} - {"__main__", "harness"})
ON_GPU = ("combine", "guided_call")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
HEAD = """# Performance

`python tools/bench [names] --markdown docs/performance.md` writes this page: a peer, without a
line of ours, and vidcfg in turns in one process on one thread. Nothing is timed before both were
found to make the same. Times are the least processor time of all rounds, and so is the ratio;
beside it stands the ratio on the clock, on which other work on the machine tells. With `--device
cuda` times are those of the GPU's work alone, its launches at hand; the clock counts launches too.
"""


def section(name: str, device: str) -> str:
    """What a file of this folder measures, and its table, in Markdown."""
    import cv2
    import torch
    from harness import machine, measured, table

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no CUDA device. Leave it out, or see doctor.")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    module = import_module(name)
    rows = []
    for row in module.rows(device) if name in ON_GPU else module.rows():
        try:
            rows.append(measured(row))
        except AssertionError as error:
            rows.append([row.name, *["–"] * 5, f"not the same: {error}", row.note])
        print(*rows[-1], sep=" | ", file=sys.stderr)
    title = name if device == "cpu" else f"{name} on {device}"
    return f"## {title}\n\n{cleandoc(module.__doc__)}\n\n{machine(device)}.\n\n{table(rows)}\n"


def in_page(page: str, made: list[str]) -> str:
    """The page with these sections in the place of those of the same name; others stay."""
    parts = [f"## {part}" for part in page.split("\n## ")[1:]] + made
    sections = {part.splitlines()[0]: part.rstrip() + "\n" for part in parts}
    return "\n".join([HEAD, *(sections[title] for title in sorted(sections))])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"no row is named {', '.join(unknown)}. There are {', '.join(NAMES)}.")
    names = options.names or (NAMES if options.device == "cpu" else list(ON_GPU))
    if options.device != "cpu" and (others := sorted(set(names) - set(ON_GPU))):
        parser.error(f"{', '.join(others)} runs on a CPU alone. Leave --device out.")
    if options.alone:
        print(section(*names, options.device))
        return 0

    # Threads have to be told before a library is loaded, and each row starts with no other's heap.
    environment = os.environ | dict.fromkeys(THREADS, "1")
    made, failed = [], []
    for name in names:
        command = [sys.executable, str(FOLDER), name, "--alone", "--device", options.device]
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        (failed if run.returncode else made).append(name if run.returncode else run.stdout)
        print(run.stdout)
    if options.markdown and made:
        from vidcfg.files import write_text

        old = options.markdown.read_text("utf-8") if options.markdown.exists() else ""
        write_text(options.markdown, in_page(old, made))
    if failed:
        print(f"no numbers of {', '.join(failed)}: see above.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
