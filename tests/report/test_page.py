import html.parser
import json
import re
import tempfile

import pytest
from fake_store import write_store

from vidcfg.files import content_of
from vidcfg.report.analyse import analyse
from vidcfg.report.write import write_report
from vidcfg.results import read_results

HOSTILE = (
    "<script>alert(1)</script>",
    "\"quotes\" and 'quotes' & &amp; {{ 7*7 }} {% raw %}",
    "</script><img src=x onerror=alert(2)>",
    "<!-- \u202eright to left \u05e9\u05dc\u05d5\u05dd \U0001f3ac \u2028 end",
)


class Reader(html.parser.HTMLParser):
    """Elements with their attributes, and text by element."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.scripts, self._in = [], "", [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1] += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def report(store, tmp_path_factory):
    return write_report(store, out=tmp_path_factory.mktemp("page") / "index.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    root = write_store(
        tmp_path_factory.mktemp("hostile"),
        scales=(1.0, 3.0),
        prompts=HOSTILE,
        families=("flicker",),
        failing=[("uniform-3", 2, 1)],
    )
    plan = json.loads((root / "plan.json").read_text())
    plan["name"] = HOSTILE[0]
    plan["cells"][0]["label"] = HOSTILE[2]
    (root / "plan.json").write_text(json.dumps(plan))
    return write_report(root)


def test_page_asks_for_nothing_outside(report):
    page = Reader(report.read_text())
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    style = re.search(r"<style>(.*?)</style>", report.read_text(), re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_hostile_text_makes_no_element_and_survives(hostile):
    page = Reader(hostile.read_text())
    assert [t for t, _ in page.tags].count("script") == 2
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert HOSTILE[0] in page.text
    assert HOSTILE[2] in page.text
    data = json.loads(page.scripts[0])
    assert {pair["prompt"] for pair in data["pairs"]} == set(HOSTILE)
    assert data["cells"][0]["label"] == HOSTILE[2]
    assert "CUDA out of memory <b>" in page.text


def test_hostile_text_stays_text_in_the_markdown_table(hostile):
    lines = hostile.with_name("report.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
    assert len(bars) == 1
    assert "<script" not in "\n".join(lines).replace("\\<", "")


def test_every_number_of_report_json_is_on_the_page_of_the_same_run(report, store):
    numbers = json.loads(report.with_name("report.json").read_text())
    assert numbers["kind"] == "vidcfg.report/1"
    text = report.read_text()
    for cell in numbers["cells"]:
        mean = cell["values"]["mc_flicker"]["mean"]
        assert f'data-value="{mean}"' in text
    assert len(numbers["changes"]) == 5 * 3
    assert {m["role"] for m in numbers["metrics"].values()} >= {"flicker", "alignment", "motion"}
    assert numbers["metrics"]["align[mini]"]["backend"]["sha256"] == "ab" * 32
    assert f"sha256 {('ab' * 32)[:16]}" in text


def test_data_of_the_players_holds_every_clip(report):
    data = json.loads(Reader(report.read_text()).scripts[0])
    assert len(data["strips"]) == 6 * 8
    assert data["cells"][2]["rows"] == [[6.0] * 17]
    assert len(data["cells"][4]["rows"][0]) == 17


def test_markdown_has_a_row_for_every_cell(report):
    text = report.with_name("report.md").read_text()
    assert sum(line.startswith(("| uniform", "| keyframes")) for line in text.splitlines()) == 6
    assert "baseline" in text


def test_metrics_limits_what_is_shown(store, tmp_path):
    path = write_report(store, out=tmp_path / "few.html", metrics=["align", "mc_flicker"])
    numbers = json.loads((tmp_path / "few.json").read_text())
    assert set(numbers["metrics"]) == {"align[mini]", "mc_flicker"}
    assert "stride_pulse" not in path.read_text()


def test_one_cell_with_one_prompt_still_makes_a_page(tmp_path):
    root = write_store(
        tmp_path,
        modes=("uniform",),
        scales=(1.0,),
        prompts=("a",),
        seeds=(0,),
        families=("flicker",),
    )
    text = write_report(root).read_text()
    assert "The page describes one setting." in text
    head = " ".join(re.search(r'class="facts">(.*?)</p>', text, flags=re.DOTALL)[1].split())
    assert head == "1 video · 1 setting · 1 prompt · compared on 1 clip each"
    assert "strength 1 (off) throughout" in text
    assert "NaN" not in text
    assert "inf" not in re.sub(r"<script.*?</script>|data:[^\"]*", "", text, flags=re.DOTALL)


def test_sweep_of_failures_alone_makes_a_page_with_their_errors(tmp_path):
    places = [("uniform-1", prompt, seed) for prompt in range(4) for seed in range(2)]
    root = write_store(tmp_path, modes=("uniform",), scales=(1.0,), failing=places)
    page = Reader(write_report(root).read_text())
    assert page.text.count("CUDA out of memory") == 8
    assert "No video can be shown." in page.text


def test_store_in_memory_is_read_and_gets_its_report(store, tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    fsspec.filesystem("memory").put(str(store), "/sweep", recursive=True)
    path = write_report("memory://sweep", max_megabytes=0)
    names = {
        name.rpartition("/")[2] for name in fsspec.filesystem("memory").ls("/sweep/report", False)
    }
    assert names == {"index.html", "report.json", "report.md"}
    assert path == "memory://sweep/report/index.html"
    assert not list(tmp_path.iterdir())


def test_output_of_evaluate_makes_a_page(store, tmp_path):
    rows = []
    for unit in read_results(store).units:
        if unit.cell == "uniform-3":
            path = {"path": str(unit.video), "prompt": unit.prompt, "seed": unit.seed}
            path |= {"subject": f"{unit.key}.mkv", "content": content_of(unit.video)}
            rows += [json.dumps(r.to_dict() | path) for r in unit.records.values()]
    (tmp_path / "records.jsonl").write_text("\n".join(rows))
    page = Reader(write_report(tmp_path).read_text())
    assert len(json.loads(page.scripts[0])["strips"]) == 8
    assert not any(attributes.get("id") == "cost" for _, attributes in page.tags)


def test_writing_again_replaces_and_leaves_no_other_file(store, tmp_path):
    for _ in range(2):
        write_report(store, out=tmp_path / "index.html", max_megabytes=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.html", "report.json", "report.md"]


def test_page_names_model_checkpoint_and_versions(report):
    text = Reader(report.read_text()).text
    assert f"Model: FakePipeline, fake/video, sha256 {('cd' * 32)[:16]}…" in text
    assert "Rendered with vidcfg 0.9, torch 2.0, diffusers 0.3" in text
    assert "FakePipeline" in report.with_name("report.md").read_text()


def test_page_without_a_record_of_the_model_says_so(store):
    results = read_results(store)
    for unit in results.units:
        unit.render.clear()
    assert analyse(results)["made_by"] == ["Model: not recorded beside these videos"]
