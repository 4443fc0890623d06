"""Sweeps that are broken at random times lose nothing, and the script that breaks them sees it.

The script forks, which a process with threads, such as that of the tests, must not do.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

TOOLS = Path(__file__).parents[2] / "tools"

SPOILED = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tools!r})
import chaos

def spoil(kind, driver, chance):
    # Two units vanish behind the sweep's back and are made again; a file is left half written.
    assert driver.wait(chaos.ENOUGH)
    store = chaos.Store(str(driver.log.parent / "store"))
    for key in sorted(chaos.state(store))[:2]:
        store.fs.rm(store.path(store.unit(key)), recursive=True)
    (driver.log.parent / "store" / ".tmp-of-nobody").touch()
    return True

chaos.strike, said = spoil, []
chaos.quiet_threads()
found = chaos.Chaos(Path({folder!r}), said.append).round("spoiled", "spoiled", on_ray=False)
print(json.dumps([found, said, chaos.table({{"spoiled": found}})]))
"""


def output_of(*command):
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_whatever_goes_wrong_nothing_is_lost_made_twice_or_left():
    said = output_of(str(TOOLS / "chaos.py"), "--rounds", "10", "--ray", "0", "--seed", "1")
    cells = [cell.strip() for cell in said.strip().splitlines()[-1].strip("|").split("|")]
    assert cells[:2] == ["together", "10"]
    assert cells[3:] == ["0"] * 7


def test_what_is_lost_made_twice_or_left_is_seen(tmp_path):
    code = SPOILED.format(tools=str(TOOLS), folder=str(tmp_path))
    found, said, table = json.loads(output_of("-c", code).splitlines()[-1])
    assert found["twice"] == 2
    assert found["leftovers"] == 1
    assert not any(found.get(name) for name in ("differ", "hung", "stay", "unfinished"))
    assert said[0].startswith("spoiled: {'twice': 2, 'leftovers': 1}")
    assert "| spoiled | 1 | 1 | 0 | 2 |" in table
