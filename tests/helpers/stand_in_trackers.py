"""In place of tensorboard, wandb and mlflow: the part of each that `--log` calls, in memory."""

import sys
from collections import defaultdict
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace


class Seen:
    """What a tracker was told: its run, and values and names of videos by their numbers."""

    def __init__(self):
        self.name, self.parameters, self.is_closed = "", {}, False
        self.values, self.videos = defaultdict(dict), {}

    def close(self):
        self.is_closed = True


def stand_in(kind, monkeypatch) -> Seen:
    """Put the tracker where it is imported from; the result is what it is told."""
    seen = Seen()
    for name, module in MADE[kind](seen).items():
        monkeypatch.setitem(sys.modules, name, module)
    return seen


def _tensorboard(seen):
    class SummaryWriter:
        def __init__(self, folder):
            seen.name = folder

        def __enter__(self):
            return self

        def __exit__(self, *error):
            seen.close()

        def add_hparams(self, parameters, metrics, *, run_name):
            assert (metrics, run_name) == ({}, ".")
            seen.parameters = parameters

        def add_text(self, tag, text, step):
            seen.videos[step] = text

        def add_scalar(self, tag, value, step):
            seen.values[step][tag] = value

    return {"torch.utils.tensorboard": _module(SummaryWriter=SummaryWriter)}


def _wandb(seen):
    def log(values):
        values = dict(values)
        number = values.pop("number")
        seen.videos[number] = values.pop("video")
        seen.values[number].update(values)

    @contextmanager
    def init(*, project, name, config):
        assert project == "vidcfg"
        seen.name, seen.parameters = name, config
        yield SimpleNamespace(log=log, define_metric=lambda name, step_metric: None)
        seen.close()

    return {"wandb": _module(init=init)}


def _mlflow(seen):
    @contextmanager
    def start_run(*, run_name):
        seen.name = run_name
        yield
        seen.close()

    return {
        "mlflow": _module(
            set_experiment=lambda name: None,
            start_run=start_run,
            log_params=lambda parameters: seen.parameters.update(parameters),
            set_tag=lambda tag, video: seen.videos.update({int(tag.split()[1]): video}),
            log_metrics=lambda values, step: seen.values[step].update(values),
        )
    }


def _module(**parts):
    module = ModuleType("stand_in")
    vars(module).update(parts)
    return module


MADE = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
