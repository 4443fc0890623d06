"""One worker: loads the model once, then renders, measures and stores the units of its jobs."""

import io
import json
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.evaluate.inputs import Item
from vidcfg.evaluate.run import evaluate_frames
from vidcfg.media.write import CODECS
from vidcfg.metrics.record import ClipInfo
from vidcfg.pipelines.load import load_pipeline
from vidcfg.pipelines.schedulers import make_scheduler
from vidcfg.render.config import RenderConfig, Unit
from vidcfg.render.identity import prompt_sources, what_changed
from vidcfg.render.record import cell_sources, make_record, model_record, to_json
from vidcfg.sweep.jobs import Job
from vidcfg.sweep.plan import Plan, read_plan
from vidcfg.sweep.store import Store, StoreError

OFFLOADS = ("none", "model", "sequential")
"""What a job that ran out of memory does next, on CUDA; the result stays the same."""

ANOTHER_PLAN = (
    "another sweep has put its plan in place of this one in {}. Run the same command with --store "
    "and another folder."
)

FILES = {"sheet": "sheet.png", "image": "image.png", "audio": "audio.wav"}
"""Names of a unit's files beside its video."""


class Worker:
    """Made from the address of a store, whose plan has all the rest; `load` reads a model.

    Units that are done are skipped. `on_step(done, total, what=...)` follows the steps of a run.
    """

    def __init__(self, store: str, *, on_step: Callable[..., None] | None = None):
        self.url, self.on_step = store, on_step
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._loaded: tuple[str, Any, dict[str, Any]] | None = None

    @cached_property
    def store(self) -> Store:
        return Store(self.url)

    @cached_property
    def plan(self) -> Plan:
        if (plan := self.store.read_json("plan.json")) is None:
            raise StoreError(
                f"{self.name} sees no plan.json in the store {self.url}. Use a folder that all "
                "machines share under this path, or a place such as s3://bucket/sweeps/kite."
            )
        return read_plan(plan)

    @cached_property
    def settings(self) -> Any:
        """What is measured."""
        device = getattr(self._loaded[1], "_execution_device", None)
        is_cuda = getattr(device, "type", "cpu") == "cuda"
        return self.plan.settings(device="cuda" if is_cuda else "cpu")

    def load(self, job: Job) -> None:
        """Load the model of a job; ModelError if it cannot be loaded."""
        import vidcfg.render.job  # noqa: F401 - what it lacks is said before the model is loaded

        if unit := self.plan.by_key.get(job.units[0]):
            self._load(self.plan.config_of(unit), level=job.level)

    def _load(self, config: RenderConfig, *, level: int) -> tuple[Any, dict[str, Any]]:
        """The pipeline of a configuration, kept until another is needed, and its record."""
        model = config.model
        if level and model.kind == "diffusers" and model.device != "cpu":
            offload = OFFLOADS[min(OFFLOADS.index(model.offload) + level, len(OFFLOADS) - 1)]
            model = model.replace(offload=offload)
        name = json.dumps(model.to_dict(), sort_keys=True)
        if self._loaded is None or self._loaded[0] != name:
            # Two models at once may not fit.
            self._loaded = None
            pipe = load_pipeline(model)
            pipe.set_progress_bar_config(disable=True)
            self._loaded = (name, pipe, model_record(config, pipe))
        return self._loaded[1:]

    def run(self, job: Job) -> Iterator[dict[str, Any]]:
        """Make all units of a job that are not done: one small dict for each as it is finished.

        Raises:
            StoreError: if the store is full or cannot be written.
            Exception: what rendering or measuring raises; finished units stay.
        """
        from vidcfg.render.job import mini_threads

        if not self.plan.by_key.keys() >= set(job.units):
            raise StoreError(ANOTHER_PLAN.format(self.url))
        todo = [key for key in job.units if not self.store.is_done(key)]
        yield from ({"key": key, "status": "cached"} for key in job.units if key not in todo)
        if not todo:
            return
        for key in todo:
            self._attempt(key, "start", job)
        try:
            with mini_threads(self.plan.config_of(self.plan.by_key[todo[0]])):
                yield from self._make(todo, job)
        except Exception as error:
            for key in todo:
                self._attempt(key, "error", job, message=f"{type(error).__name__}: {error}")
                self._log(key, traceback.format_exc())
            raise

    def _make(self, keys: list[str], job: Job) -> Iterator[dict[str, Any]]:
        from vidcfg.render.sampling import can_share, sample_units

        # One run for all, where the pipeline can
        begin = time.perf_counter()
        made = [(key, self.plan.config_of(self.plan.by_key[key])) for key in keys]
        first = made[0][1]
        (prompt,), (seed,) = first.prompts, first.seeds
        unit = Unit(prompt, seed, Path("video"), CODECS[first.output.video].extension)
        pipe, model = self._load(first, level=job.level)
        for key, config in made:
            self._check_sources(key, config, model)
        runs = [made] if can_share(pipe, first) else [[one] for one in made]

        # Each run, and its units into the store
        traces, own = [], pipe.scheduler
        try:
            pipe.scheduler = make_scheduler(pipe, first.sampling)
            for run in runs:
                what = f"{len(run)} of '{prompt.text}'"
                follow = self.on_step and partial(self.on_step, what=what)
                of = [config for _, config in run]
                batch = sample_units(of, pipe, unit, name=prompt.text, on_step=follow)
                traces.append(batch.trace)
                for (key, config), rendered in zip(run, batch.videos):
                    yield self._store_unit(key, config, unit, rendered, job)
        finally:
            pipe.scheduler = own

        # What the job took
        facts = {
            "units": keys,
            "planned": sum(trace.planned.total for trace in traces),
            "planned_is_upper_bound": any(trace.planned.is_upper_bound for trace in traces),
            "executed": sum(trace.total for trace in traces),
            "seconds": round(time.perf_counter() - begin, 3),
            "worker": self.name,
            "level": job.level,
        }
        self.store.write_json(f"jobs/{job.id}.json", facts)

    def _check_sources(self, key: str, config: RenderConfig, model: dict[str, Any]) -> None:
        """Raise StoreError where the files that are here are not those that were planned with."""
        planned = self.plan.sources_of(self.plan.by_key[key])
        here = cell_sources(config, model) | prompt_sources(config.prompts[0])
        if why := planned and what_changed(planned, here):
            raise StoreError(
                f"{self.name} does not have what this sweep was planned with: {why}. Run the same "
                "command again."
            )

    def _store_unit(
        self, key: str, config: RenderConfig, unit: Unit, rendered: Any, job: Job
    ) -> dict[str, Any]:
        """Measure, encode and commit one unit that the loaded model has made."""
        from vidcfg.render.job import encoded

        # Rows and features of the frames as they were sampled, beside their encoding
        _, pipe, model = self._loaded
        begin = time.perf_counter()
        with ThreadPoolExecutor(1) as beside:
            encoding = beside.submit(encoded, config, unit, rendered)
            rows, features = self._measured(key, config, unit, rendered)
            made = encoding.result()

        # The record, as render makes it, and what a sweep adds
        record = make_record(config, unit, rendered, pipe=pipe, model=model)
        names = {"video": unit.video.name} | FILES
        record["files"] = {what: names[what] for what in made}
        record |= {"unit": key, "cell": self.plan.by_key[key].cell}
        record["job"] = {"id": job.id, "units": len(job.units), "level": job.level}

        lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        files = {names[what]: data for what, data in made.items()}
        files |= {"record.json": to_json(record).encode(), "records.jsonl": lines.encode()}
        if features:
            packed = io.BytesIO()
            np.savez(packed, **features)
            files["features.npz"] = packed.getvalue()

        # Into the store, unless another worker was first
        status = "done" if self.store.commit(key, files) else "cached"
        seconds = rendered.seconds + time.perf_counter() - begin
        self._attempt(key, status, job, seconds=round(seconds, 3))
        self._log(key, f"{len(job.units)} units together, {seconds:.2f} s, worker {self.name}")
        return {"key": key, "status": status}

    def _measured(
        self, key: str, config: RenderConfig, unit: Any, rendered: Any
    ) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        frames = rendered.frames_THWC.transpose(0, 3, 1, 2)
        stride = len(rendered.pixels_of[1]) if len(rendered.pixels_of) > 1 else 1
        path = Path(f"{self.store.unit(key)}/{unit.video.name}")
        item = Item(path, key, unit.prompt.text, unit.seed, stride, unit_key=key)
        num, _, height, width = frames.shape
        clip = ClipInfo(num, height, width, float(config.video.fps), lossless=True, codec=None)
        # Networks round differently where channels lie beside each other in memory.
        each = (np.ascontiguousarray(frame) for frame in frames)
        return evaluate_frames(each, item, self.settings, clip=clip)

    def _attempt(self, key: str, what: str, job: Job, **more: Any) -> None:
        line = {"time": round(time.time(), 3), "what": what, "job": job.id, "worker": self.name}
        self.store.append(f"attempts/{key}.jsonl", json.dumps(line | more))

    def _log(self, key: str, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self.store.append(f"logs/{key}.log", f"{stamp} {text.rstrip()}")
