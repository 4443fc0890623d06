"""What all tests share: no hub, one thread per process, no deadline on slow machines."""

import gc
import logging
import os
import signal

import jaxtyping
import pytest
from hypothesis import settings
from shape_checks import checked

# Before anything of vidcfg is imported.
jaxtyping.jaxtyped = lambda typechecker: checked

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# A shell starts background jobs with Ctrl-C ignored; the tests of it must not depend on that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Files that take minutes come first, so that no process waits for another at the end."""
    items.sort(key=lambda item: item.path.parent.name not in ("ray", "sweep", "regress"))


def pytest_collection_finish():
    """Keeps modules and collected tests out of every later search for cycles."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _as_before():
    """A command that was interrupted leaves its process to the next Ctrl-C, and one that renders
    takes the notes for itself; a test does not.
    """
    handler, logger = signal.getsignal(signal.SIGINT), logging.getLogger("vidcfg")
    notes = logger.handlers, logger.propagate
    yield
    signal.signal(signal.SIGINT, handler)
    logger.handlers, logger.propagate = notes


@pytest.fixture
def wake():
    """Gives a model's zero weights a value (tests/helpers/waking.py)."""
    from waking import wake as give_values

    return give_values
