"""One worker: loads the model once, then renders, measures and stores the units of its jobs."""

import io
import json
import time
import traceback
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.render.config import RenderConfig
from vidcfg.settings.document import ConfigDocument
from vidcfg.settings.validation import validate
from vidcfg.sweep.executor import Job
from vidcfg.sweep.store import Store, StoreError

OFFLOADS = ("none", "model", "sequential")
"""What a job that ran out of memory does next, on CUDA; the result stays the same."""


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker needs: the address of a store, whose plan has the rest."""

    store: str


class Worker:
    """Made cheaply; `load` reads the model. Units that are done are skipped."""

    def __init__(self, spec: WorkerSpec):
        self.spec = spec
        self._loaded: tuple[str, Any] | None = None
        self._models: dict[str, dict[str, Any]] = {}

    @cached_property
    def store(self) -> Store:
        return Store(self.spec.store)

    @cached_property
    def plan(self) -> dict[str, Any]:
        plan = self.store.read_json("plan.json")
        if plan is None:
            raise StoreError(f"the store {self.spec.store} has no plan.json.")
        return plan

    @cached_property
    def units(self) -> dict[str, dict[str, Any]]:
        return {unit["key"]: unit for unit in (*self.plan["units"], *self.plan["check"]["units"])}

    @cached_property
    def cells(self) -> dict[str, dict[str, Any]]:
        return {cell["id"]: cell for cell in (*self.plan["cells"], *self.plan["check"]["cells"])}

    def config(self, key: str) -> RenderConfig:
        """The render of one unit."""
        unit = self.units[key]
        data = self.cells[unit["cell"]]["render"]
        prompt = self.plan["prompts"][unit["prompt"]]
        data = data | {"prompts": [prompt], "seeds": [unit["seed"]]}
        return validate(ConfigDocument("plan.json", data, {}), RenderConfig)

    def load(self) -> None:
        """Load the model of the first cell.

        Raises:
            ModelError: if it cannot be loaded.
        """
        first = next(iter(self.units))
        self._pipe(self.config(first), level=0)

    def _pipe(self, config: RenderConfig, *, level: int) -> Any:
        """The pipeline of a configuration, kept until another one is needed."""
        from vidcfg.pipelines.load import load_pipeline

        model = config.model
        if level and model.kind == "diffusers" and model.device != "cpu":
            offload = OFFLOADS[min(OFFLOADS.index(model.offload) + level, len(OFFLOADS) - 1)]
            model = model.replace(offload=offload)
        name = json.dumps(model.to_dict(), sort_keys=True)
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = None
            pipe = load_pipeline(model)
            pipe.set_progress_bar_config(disable=True)
            self._loaded = (name, pipe)
        return self._loaded[1]

    def run(self, job: Job) -> tuple[dict[str, Any], ...]:
        """Make all units of a job that are not done: one small dict for each.

        Raises:
            StoreError: if the store is full or cannot be written.
            Exception: what rendering or measuring raises; finished units stay.
        """
        from vidcfg.render.job import mini_threads

        todo = [key for key in job.units if not self.store.is_done(key)]
        results = [{"key": key, "status": "cached"} for key in job.units if key not in todo]
        if not todo:
            return tuple(results)
        for key in todo:
            self._attempt(key, "start", job)
        try:
            with mini_threads(self.config(todo[0])):
                made = self._make(todo, job)
        except Exception as error:
            for key in todo:
                self._attempt(key, "error", job, message=f"{type(error).__name__}: {error}")
                self._log(key, traceback.format_exc())
            raise
        return (*results, *made)

    def _make(self, keys: list[str], job: Job) -> list[dict[str, Any]]:
        from vidcfg.pipelines.schedulers import make_scheduler
        from vidcfg.render.record import model_record
        from vidcfg.render.sampling import can_share, sample_units

        begin = time.perf_counter()
        configs = [self.config(key) for key in keys]
        pipe = self._pipe(configs[0], level=job.level)
        own = pipe.scheduler
        shared = can_share(pipe, configs[0])
        runs = [list(range(len(keys)))] if shared else [[i] for i in range(len(keys))]
        results, executed, planned, bounded = [], 0, 0, False
        try:
            pipe.scheduler = make_scheduler(pipe, configs[0].sampling)
            name = self._loaded[0]
            if name not in self._models:
                self._models[name] = model_record(configs[0], pipe)
            model = self._models[name]
            for members in runs:
                batch = sample_together([configs[i] for i in members], pipe)
                executed += batch.executed
                planned += batch.planned
                bounded |= batch.is_upper_bound
                for i, rendered in zip(members, batch.videos):
                    stored = self._store_unit(keys[i], configs[i], pipe, rendered, model, job)
                    results.append(stored)
        finally:
            pipe.scheduler = own
        self.store.write_json(
            f"jobs/{job.id}.json",
            {
                "units": keys,
                "planned": planned,
                "planned_is_upper_bound": bounded,
                "executed": executed,
                "seconds": round(time.perf_counter() - begin, 3),
                "worker": _name(),
                "level": job.level,
            },
        )
        return results

    def _store_unit(
        self,
        key: str,
        config: RenderConfig,
        pipe: Any,
        rendered: Any,
        model: dict[str, Any],
        job: Job,
    ) -> dict[str, Any]:
        begin = time.perf_counter()
        files, digest = self._files(key, config, pipe, rendered, model, job)
        is_new = self.store.commit(key, files)
        seconds = rendered.seconds + time.perf_counter() - begin
        self._attempt(key, "done" if is_new else "cached", job, seconds=round(seconds, 3))
        self._log(key, f"{len(job.units)} units together, {seconds:.2f} s, worker {_name()}")
        status = "done" if is_new else "cached"
        return {"key": key, "status": status, "seconds": seconds, "frames_sha256": digest}

    def _files(
        self,
        key: str,
        config: RenderConfig,
        pipe: Any,
        rendered: Any,
        model: dict[str, Any],
        job: Job,
    ) -> tuple[dict[str, bytes], str]:
        """The files of a unit's directory by name, and the sha256 of its frames."""
        from vidcfg.media.write import CODECS, encode_video
        from vidcfg.render.job import unit_sheet
        from vidcfg.render.record import make_record, to_json
        from vidcfg.render.units import Unit

        unit = self.units[key]
        (prompt,), (seed,) = config.prompts, config.seeds
        named = Unit(prompt, seed, Path("video"), CODECS[config.output.video].extension)
        record = make_record(
            config,
            named,
            pipe=pipe,
            frames_THWC=rendered.frames_THWC,
            trace=rendered.trace,
            seconds=rendered.seconds,
            model=model,
        )
        extras = _extras(rendered)
        record["files"] = {"video": named.video.name, "sheet": "sheet.png"}
        record["files"] |= {name.split(".")[0]: name for name in extras}
        record |= {"unit": key, "cell": unit["cell"]}
        record["job"] = {"id": job.id, "units": len(job.units), "level": job.level}
        rows, features = self._measured(key, config, rendered)
        video = encode_video(
            rendered.frames_THWC,
            fps=config.video.fps,
            codec=config.output.video,
            enlarge=config.output.enlarge,
        )
        sheet = io.BytesIO()
        unit_sheet(config, named, rendered).save(sheet, format="png")
        files = {
            named.video.name: video,
            "sheet.png": sheet.getvalue(),
            "record.json": to_json(record).encode(),
            "records.jsonl": "".join(json.dumps(r, allow_nan=False) + "\n" for r in rows).encode(),
        }
        files |= extras
        if features:
            packed = io.BytesIO()
            np.savez(packed, **features)
            files["features.npz"] = packed.getvalue()
        return files, record["video"]["frames_sha256"]

    def _measured(
        self, key: str, config: RenderConfig, rendered: Any
    ) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """Rows and features of the frames as they were sampled, before any encoding."""
        from vidcfg.evaluate.inputs import Item
        from vidcfg.evaluate.run import evaluate_frames
        from vidcfg.media.write import CODECS
        from vidcfg.metrics.record import ClipInfo

        (prompt,), (seed,) = config.prompts, config.seeds
        frames = rendered.frames_THWC.transpose(0, 3, 1, 2)
        stride = len(rendered.pixels_of[1]) if len(rendered.pixels_of) > 1 else 1
        extension = CODECS[config.output.video].extension
        path = Path(f"{self.store.unit(key)}/video{extension}")
        item = Item(path, key, prompt.text, seed, stride, unit_key=key)
        clip = ClipInfo(
            num_frames=len(frames),
            height=frames.shape[2],
            width=frames.shape[3],
            fps=float(config.video.fps),
            lossless=True,
            codec=None,
        )
        return evaluate_frames(iter(frames), item, self.settings, clip=clip)

    @cached_property
    def settings(self) -> Any:
        """What is measured."""
        from vidcfg.evaluate.settings import Settings

        return Settings(
            families=tuple(self.plan["metrics"]),
            reference=self.plan["config"]["reference"],
            device="cuda" if _on_cuda(self._loaded[1]) else "cpu",
        )

    def _attempt(self, key: str, what: str, job: Job, **more: Any) -> None:
        line = {"time": round(time.time(), 3), "what": what, "job": job.id, "worker": _name()}
        self.store.append(f"attempts/{key}.jsonl", json.dumps(line | more))

    def _log(self, key: str, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self.store.append(f"logs/{key}.log", f"{stamp} {text.rstrip()}")


def _on_cuda(pipe: Any) -> bool:
    return getattr(getattr(pipe, "_execution_device", None), "type", "cpu") == "cuda"


def _extras(rendered: Any) -> dict[str, bytes]:
    """The picture of a clip of one frame, and the sound of pipelines that make one."""
    from vidcfg.render.picture_and_sound import as_png, as_wav

    made = {}
    if len(rendered.frames_THWC) == 1:
        made["image.png"] = as_png(rendered.frames_THWC[0])
    if rendered.audio is not None:
        made["audio.wav"] = as_wav(*rendered.audio)
    return made


def _name() -> str:
    import os
    import socket

    return f"{socket.gethostname()}:{os.getpid()}"
