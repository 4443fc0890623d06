"""The pytest plugin: the fixture and marker `temporal_gate`, and `--vidcfg-record`.

Imports nothing but pytest until a test asks for the fixture.
"""

import pytest

MARKER = (
    "temporal_gate(policy=None, inconclusive='fail', name=None, fps=8.0, stride=4): settings of "
    "the fixture temporal_gate: a policy file or mapping, whether an inconclusive gate fails or "
    "warns, the baseline's name, frames per second, temporal stride of the VAE"
)
_LINES = pytest.StashKey[list]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vidcfg", "temporal regression of videos")
    group.addoption(
        "--vidcfg-record",
        action="store_true",
        help="renew the baselines of temporal_gate in place of comparing with them",
    )
    group.addoption(
        "--vidcfg-out",
        metavar="DIR",
        help="write a page, result.json and junit.xml for every temporal_gate",
    )
    parser.addini(
        "vidcfg_baselines",
        "folder of the baselines, relative to the test file (default: baselines)",
        default="baselines",
    )
    parser.addini("vidcfg_policy", "policy file, relative to the root folder", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    config.stash[_LINES] = []


def pytest_terminal_summary(terminalreporter, exitstatus, config: pytest.Config) -> None:
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("temporal gates")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def temporal_gate(request: pytest.FixtureRequest):
    """Compares clips with the baseline of this test: `temporal_gate({"prompt": frames, ...})`.

    A clip is an array [T, H, W, 3] (uint8, or floats in [0, 1]) or the path of a video; a key is
    a prompt or (prompt, seed). Fails the test on a regression. `pytest --vidcfg-record` renews
    the baseline.
    """
    from vidcfg.regress.temporal_gate import TemporalGate

    marker = request.node.get_closest_marker("temporal_gate")
    return TemporalGate.of(request, marker, lines=request.config.stash[_LINES])
