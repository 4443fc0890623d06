"""One Ray for a file of tests, and executors on it."""

import pytest
import ray
from ray_driving import make_executor, worker_path

from vidcfg.sweep.ray_cluster import Need, join


@pytest.fixture(scope="module")
def ray_here():
    """One Ray for all tests of a file; executors find it and leave it running."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", worker_path())
        join(None, Need(cpus=1, gpus=0))
    yield
    ray.shutdown()


@pytest.fixture
def executor_of(tmp_path):
    """Makes executors, starts them, and closes them at the end."""
    made = []

    def make(num=2, **settings):
        executor = make_executor(tmp_path, num, **settings)
        made.append(executor)
        executor.start()
        return executor

    yield make
    for executor in made:
        executor.close()
