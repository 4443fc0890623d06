"""Sweeps on a real S3 server on the loopback: pip install 'vidcfg[test-s3]', pytest -m slow."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from tiny_sweep import plan_of, starts, write_sweep

pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

from ray_driving import wait_until  # noqa: E402

from vidcfg.evaluate.__main__ import main as evaluate  # noqa: E402
from vidcfg.regress.__main__ import main as regress  # noqa: E402
from vidcfg.sweep.__main__ import main  # noqa: E402
from vidcfg.sweep.store import Store  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def s3():
    """The address of an empty bucket."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # Workers that give way to everything else would make nothing on a busy machine.
        patch.setenv("RAY_worker_niceness", "0")
        Store("s3://sweeps").fs.mkdir("sweeps")
        yield "s3://sweeps"
    running.stop()


@pytest.fixture(scope="module")
def file(tmp_path_factory, tiny_model):
    return str(write_sweep(tmp_path_factory.mktemp("s3"), tiny_model))


@pytest.fixture(scope="module")
def url(s3, file):
    """A sweep made in this process, with its report."""
    assert main([file, "--store", f"{s3}/here"]) == 0
    return f"{s3}/here"


def test_a_sweep_on_s3_is_whole_reported_and_not_made_again(url, file, capsys):
    store = Store(url)
    keys = [unit["key"] for unit in plan_of(store)["units"]]
    assert store.done_keys(keys) == set(keys)
    assert store.names("report") == ["index.html", "report.json", "report.md"]
    assert b"left aside" not in store.read("report/index.html")
    made = starts(store)
    capsys.readouterr()
    assert main([file, "--store", url]) == 0
    assert starts(store) == made
    assert f"report: {url}/report/index.html" in capsys.readouterr().out
    assert main(["status", url]) == 0
    assert "16 of 16 units done" in capsys.readouterr().out


def test_the_gate_and_the_scores_read_addresses(url, tmp_path, capsys, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    base, rule = str(tmp_path / "base"), []
    for metric in ("mc_flicker", "dynamic_degree"):
        # The clips are too small for them.
        rule += ["--set", f"metrics.{metric}.required=false"]
    assert regress(["record", url, "-o", base, *rule]) == 0
    assert regress(["check", url, "--baseline", base, *rule]) in (0, 5)
    assert url in (tmp_path / "base" / "baseline.json").read_text()
    out = tmp_path / "scores"
    assert evaluate([url, "--metrics", "flicker", "-o", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert len({row["subject"] for row in rows if row["path"]}) == 16
    assert all(row["path"].startswith(f"{url}/units/") for row in rows if row["path"])
    assert not list((tmp_path / "t").iterdir())


def test_a_killed_driver_with_ray_resumes_on_s3(s3, file):
    store = Store(f"{s3}/ray")
    more = ["--workers", "2", "--set", "seeds=0-5", "--set", "workers.batch=2", "--no-report"]
    command = [sys.executable, "-m", "vidcfg.sweep", file, "--store", store.url, *more]

    def done():
        plan = store.read_json("plan.json")
        return store.done_keys([unit["key"] for unit in plan["units"]]) if plan else set()

    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: driver.poll() is not None or len(done()) >= 5, seconds=200)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    before, begun = done(), starts(store)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    units = plan_of(store)["units"]
    assert len(before) < len(units) == len(done()) == 48
    assert store.names("damaged") == []
    again = Counter(starts(store)) - Counter(begun)
    assert not before & set(again)


def test_a_server_that_is_away_is_one_sentence(s3, file, monkeypatch, capsys):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3fs.S3FileSystem.clear_instance_cache()
    url = f"{s3}/away"
    for command in (
        lambda: main([file, "--store", url, "--quiet"]),
        lambda: main(["status", url]),
        lambda: regress(["check", url, "--baseline", url]),
        lambda: evaluate([url]),
    ):
        assert command() in (2, 3)
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{url} cannot be reached: Could not connect to the endpoint" in line
    s3fs.S3FileSystem.clear_instance_cache()
    assert os.environ["AWS_ENDPOINT_URL"].endswith(":1")
