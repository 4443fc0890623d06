"""The plan of a sweep of 100,000 units, and the report of a store of 10,000: nobody else makes
either, so there is no peer.

50 cells, 50 prompts and 4 seeds; the records of a unit are those of a drawn clip, with other
numbers in each. Memory is the peak of a process that makes the report and nothing else.
"""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from harness import Row

from vidcfg.files import write_text
from vidcfg.metrics.catalogue import METRICS
from vidcfg.metrics.meters import ClipMeasures, measure
from vidcfg.mini.shapes import sample_clip
from vidcfg.sweep.config import load_sweep_config
from vidcfg.sweep.plan import Plan, make_plan
from vidcfg.sweep.store import Store

SWEEP = """\
schema: 1
name: large
base:
  schema: 1
  name: large
  model: {{kind: mini}}
  prompts: [a red circle moving left over a navy background]
  video: {{num_frames: 17, height: 32, width: 32, fps: 8}}
  sampling: {{num_steps: 10, scheduler: flow_euler}}
  guidance: {{scale: 5.0}}
  output: {{dir: out, video: h264}}
grid:
  guidance.scale: {scales}
prompts: {prompts}
seeds: 0-{last}
store: {store}
"""

REPORT = """\
import sys
from pathlib import Path
from vidcfg.report.__main__ import main
if main([sys.argv[1], "--quiet", "--max-mb", "0"]):
    sys.exit("no report")
# What rusage says includes the process that started this one.
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def plan_of(folder: Path, *, prompts: int, seeds: int) -> Plan:
    """The plan of 50 cells, so many prompts, and so many seeds."""
    scales = [1 + number / 4 for number in range(50)]
    texts = [f"{sample_clip(number).caption}, take {number}" for number in range(prompts)]
    values = {"scales": scales, "prompts": json.dumps(texts), "last": seeds - 1}
    path = write_text(folder / "sweep.yaml", SWEEP.format(**values, store=folder / "store"))
    sweep, document = load_sweep_config(path, ())
    return make_plan(sweep, document=document)


def fill(plan: Plan) -> Store:
    """The store of a plan that is done, but for its videos."""
    frames = sample_clip(0).frames.transpose(0, 3, 1, 2).astype(np.float32) / 255
    meter = ClipMeasures([metric for metric in METRICS.values() if metric.outcome], fps=8.0)
    measure(frames, [meter])
    rows = [record.to_dict() for record in meter.finish()]
    store, chance = Store(plan.sweep.store), random.Random(0)
    store.write_json("plan.json", plan.to_dict())
    facts = {"video": {"frames_sha256": "0"}, "seconds": 1.0, "versions": {"vidcfg": "0"}}
    for unit in plan.units:
        for row in rows:
            row["value"] = row["value"] and row["value"] * (0.99 + 0.01 * chance.random())
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        files = {"video.mp4": b"", "record.json": json.dumps(facts).encode()}
        store.commit(unit.key, files | {"records.jsonl": lines.encode()})
    return store


def rows() -> Iterator[Row]:
    with TemporaryDirectory() as folder:
        large = {"prompts": 200, "seeds": 10}

        def planned() -> str:
            plan = plan_of(Path(folder), **large)
            return f"{len(plan.units)} units in {len(plan.jobs(plan.keys))} jobs"

        def plan() -> None:
            made = plan_of(Path(folder), **large)
            made.jobs(made.keys)
            made.to_dict()

        yield Row("plan, 100,000 units", None, plan, planned, "to reach: 10 s", rounds=2)

        store = fill(plan_of(Path(folder), prompts=50, seeds=4))

        def report() -> None:
            from vidcfg.report.write import write_report

            write_report(store.url, max_megabytes=0)

        def reported() -> str:
            command = [sys.executable, "-c", REPORT, store.url]
            told = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            return f"{int(told.split()[-1]) / 1e3:.0f} MB"

        note = "to reach: 10 s, 400 MB"
        yield Row("report, 10,000 units", None, report, reported, note, rounds=1)
