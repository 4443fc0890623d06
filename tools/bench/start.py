"""What stands before the first denoising step of `vidcfg render` on the embedded model: processor
time of a fresh process up to the first call of the transformer. Nobody else does the same; what
`import torch` alone takes is beside it.
"""

import subprocess
import sys
from collections.abc import Iterator
from tempfile import TemporaryDirectory

from harness import Row

FIRST_STEP = """
import functools, os, sys
from vidcfg.mini.model import STDiT
from vidcfg.render.__main__ import main

@functools.wraps(STDiT.forward)
def forward(*arguments, **named):
    which = "with" if "diffusers" in sys.modules else "without"
    print(len(sys.modules), "modules,", which, "diffusers", flush=True)
    os._exit(0)

STDiT.forward = forward
main(sys.argv[1:])
sys.exit("no step was made")
"""


def rows() -> Iterator[Row]:
    with TemporaryDirectory() as folder:

        def told(code: str) -> str:
            command = [sys.executable, "-c", code, "quickstart", "--prompt", "a red circle"]
            command += ["--seed", "0", "--out", folder, "--quiet"]
            return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout

        def first_step() -> str:
            return told(FIRST_STEP).strip()

        def torch_alone() -> str:
            return told("import sys, torch; print(len(sys.modules), 'modules')").strip()

        for name, run, note in (
            ("quickstart to its first step", first_step, "to reach: 6 s"),
            ("import torch", torch_alone, ""),
        ):
            yield Row(name, None, run, run, note, rounds=3)
