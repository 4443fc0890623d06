import pytest
from fake_store import write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """6 cells, 4 prompts, 2 seeds, all there. Tests that change files copy it."""
    return write_store(tmp_path_factory.mktemp("sweep") / "store")
