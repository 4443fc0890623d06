"""`--log tensorboard|wandb|mlflow`: what a command makes, video by video, in a tracker of runs."""

import argparse
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from vidcfg.extras import explained

Log = Callable[[str, int, Mapping[str, float | None]], None]
"""Is told of a video: its name, its number in the run, and values by name."""
Parameters = Mapping[str, str | int | float | bool]

PROJECT = "vidcfg"


@contextmanager
def tensorboard(name: str, parameters: Parameters) -> Iterator[Log]:
    """Event files under runs/tensorboard; `tensorboard --logdir runs/tensorboard` shows them."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(f"runs/tensorboard/{name}-{time.strftime('%Y%m%d-%H%M%S')}") as writer:
        writer.add_hparams(dict(parameters), {}, run_name=".")

        def log(video: str, number: int, values: Mapping[str, float]) -> None:
            writer.add_text("video", video, number)
            for metric, value in values.items():
                writer.add_scalar(metric, value, number)

        yield log


@contextmanager
def wandb(name: str, parameters: Parameters) -> Iterator[Log]:
    """A run of the project `vidcfg`; WANDB_MODE=offline keeps it on this machine."""
    import wandb

    with wandb.init(project=PROJECT, name=name, config=dict(parameters)) as run:
        # Videos may end in another order than their numbers, which steps of wandb cannot.
        run.define_metric("*", step_metric="number")
        yield lambda video, number, values: run.log({"number": number, "video": video, **values})


@contextmanager
def mlflow(name: str, parameters: Parameters) -> Iterator[Log]:
    """A run of the experiment `vidcfg`, at MLFLOW_TRACKING_URI or where mlflow keeps its files."""
    import mlflow

    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=name):
        mlflow.log_params(parameters)

        def log(video: str, number: int, values: Mapping[str, float]) -> None:
            mlflow.set_tag(f"video {number}", video)
            # Names are letters, digits and some signs there: clip_score[b32] is clip_score.b32.
            named = {re.sub(r"[^\w\-./ ]+", ".", k).strip("."): v for k, v in values.items()}
            mlflow.log_metrics(named, step=number)

        yield log


TRACKERS = {
    "tensorboard": (tensorboard, "torch.utils.tensorboard"),
    "wandb": (wandb, "wandb"),
    "mlflow": (mlflow, "mlflow"),
}
"""What runs, and the module that it needs."""


def add_log(made: argparse.ArgumentParser) -> None:
    """`--log TRACKER`."""
    text = "send the values of each video, and the settings, to a tracker of runs"
    made.add_argument("--log", choices=TRACKERS, help=text)


@contextmanager
def tracked(kind: str | None, name: str, settings: Mapping[str, Any]) -> Iterator[Log]:
    """A run with these settings as its parameters; values that are None are left out.

    Raises:
        ValueError: if the tracker is not installed.
    """
    if kind is None:
        yield lambda video, number, values: None
        return
    tracker, module = TRACKERS[kind]
    with explained(f"--log {kind}", error=ValueError):
        import_module(module)
    plain = str | int | float | bool
    parameters = {k: v if isinstance(v, plain) else str(v) for k, v in settings.items()}
    with tracker(name, parameters) as log:

        def told(video: str, number: int, values: Mapping[str, float | None]) -> None:
            log(video, number, {k: v for k, v in values.items() if v is not None})

        yield told
