"""Weight files, with a local server in place of the net."""

import hashlib
import http.server
import subprocess
import threading
from dataclasses import replace

import pytest

import vidcfg
from vidcfg.metrics import weight_files as weights
from vidcfg.metrics.weight_files import MissingWeightsError, WeightFile, fetch, find_weights
from vidcfg.weights import main

CONTENT = b"not really a net " * 1000


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "net.pt").write_bytes(CONTENT)
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            requests.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/net.pt", requests
        running.shutdown()


@pytest.fixture
def net(server, tmp_path, monkeypatch):
    """A weight file named `net` with its right hashes, and an empty weights folder."""
    for name in ("VIDCFG_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VIDCFG_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    url, _ = server
    made = WeightFile(
        name="net",
        filename="net.pt",
        url=url,
        used_by="tests",
        licence="MIT",
        about=0.02,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        git_sha1=hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest(),
    )
    monkeypatch.setattr(weights, "WEIGHTS", {"net": made})
    monkeypatch.setattr("vidcfg.weights.WEIGHTS", {"net": made})
    return made


def redefine(monkeypatch, net, **changes):
    monkeypatch.setattr(weights, "WEIGHTS", {"net": replace(net, **changes)})


def test_fetched_file_is_checked_and_found(net, server, tmp_path):
    seen = []
    path = fetch("net", report=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "weights" / "net.pt"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert find_weights("net") == path
    fetch("net")
    assert len(server[1]) == 1


def test_download_with_another_hash_leaves_nothing(net, tmp_path, monkeypatch):
    redefine(monkeypatch, net, sha256="0" * 64)
    with pytest.raises(MissingWeightsError, match="its sha256 is"):
        fetch("net")
    assert list((tmp_path / "weights").iterdir()) == []


def test_download_that_fails_names_the_address_and_leaves_nothing(net, tmp_path, monkeypatch):
    redefine(monkeypatch, net, url=net.url + ".gone")
    with pytest.raises(MissingWeightsError, match=r"net\.pt\.gone cannot be fetched.*404"):
        fetch("net")
    assert list((tmp_path / "weights").iterdir()) == []


@pytest.mark.parametrize("variable", ["VIDCFG_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_requested(net, server, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(MissingWeightsError, match="by other means"):
        fetch("net")
    assert server[1] == []


def test_absent_weights_come_with_their_command(net):
    with pytest.raises(MissingWeightsError, match="vidcfg weights fetch net"):
        find_weights("net")


@pytest.mark.parametrize(
    ("known", "wrong"),
    [("sha256", "f" * 64), ("sha256", "ffff"), ("git_sha1", "f" * 40)],
)
def test_file_of_that_name_with_another_content_is_refused(
    net, tmp_path, monkeypatch, known, wrong
):
    fetch("net")
    none = dict.fromkeys(("sha256", "git_sha1"))
    redefine(monkeypatch, net, **none | {known: wrong})
    with pytest.raises(MissingWeightsError, match="is not net"):
        find_weights("net")


def test_damage_after_the_first_check_is_noticed(net):
    path = fetch("net")
    find_weights("net")
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(MissingWeightsError, match="is not net"):
        find_weights("net")


def test_local_path_is_taken_as_it_is(net, tmp_path):
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"my own net")
    assert find_weights("net", paths={"net": mine}) == mine
    with pytest.raises(MissingWeightsError, match="is no file"):
        find_weights("net", paths={"net": tmp_path / "gone.pt"})


def test_torch_hub_cache_is_looked_at(net, tmp_path):
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "net.pt"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    assert find_weights("net") == cached


def test_unknown_name_lists_the_known_ones(net, capsys):
    with pytest.raises(MissingWeightsError, match="Known: net"):
        find_weights("nets")
    assert main(["fetch", "nets"]) == 2
    assert "Known: net" in capsys.readouterr().err


def test_git_hash_is_that_of_git(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    done = subprocess.run(["git", "hash-object", str(path)], capture_output=True, text=True)
    assert weights.git_sha1_of(path) == done.stdout.strip()


def test_commands_list_fetch_and_verify(net, capsys):
    assert main(["verify", "net"]) == 1
    assert main(["verify"]) == 0
    assert main(["fetch", "net"]) == 0
    assert main(["verify"]) == 0
    assert "net: ok" in capsys.readouterr().out
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for part in (net.url, "MIT", "0.02 MB", "here:", net.sha256):
        assert part in text
    weights.weights_folder().joinpath("net.pt").write_bytes(b"damaged")
    assert main(["verify"]) == 1


def test_failed_download_is_one_line_and_exit_code_one(net, monkeypatch, capsys):
    redefine(monkeypatch, net, url=net.url + ".gone")
    assert main(["fetch", "net"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    address, line = shown.err.splitlines()
    assert address == f"net: {net.url}.gone"
    assert line.startswith("vidcfg weights: ")
    assert "net.pt.gone cannot be fetched" in line


def test_bytes_are_counted_unless_all_is_to_be_quiet(net, capsys):
    total = len(CONTENT)
    assert main(["fetch", "net"]) == 0
    assert f"{total} of {total} bytes of net" in capsys.readouterr().err
    weights.weights_folder().joinpath("net.pt").unlink()
    for arguments in (["fetch", "net", "--quiet"], ["--quiet", "verify"]):
        assert main(arguments) == 0
        assert capsys.readouterr() == ("", "")


def test_version_and_a_missing_command(capsys):
    for arguments, code in ((["--version"], 0), ([], 2), (["fetch"], 2)):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == code
    assert capsys.readouterr().out == f"vidcfg {vidcfg.__version__}\n"


def test_every_published_file_has_an_address_and_a_licence():
    for name, weight in weights.WEIGHTS.items():
        assert weight.name == name
        assert weight.url.startswith("https://")
        assert weight.licence
        assert weight.filename.endswith((".pt", ".pth", ".safetensors"))
