"""From a result set to `index.html`, `report.json` and `report.md`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from vidcfg.files import write_json, write_text
from vidcfg.places import is_url, reach
from vidcfg.report.analyse import analyse
from vidcfg.report.formats import fill
from vidcfg.report.page import changes_by_cell, page
from vidcfg.report.players import embed
from vidcfg.results import read_results
from vidcfg.stored.read import ResultsError

MAX_MEGABYTES = 16.0


def write_report(
    store: str | Path,
    *,
    out: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    baseline: str | None = None,
    max_megabytes: float | int = MAX_MEGABYTES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str | Path:
    """Write the page of a store or evaluation and return its path.

    `out` is an HTML file (default: `report/index.html` in the store); report.json and report.md
    (or, for another name than index.html, files of that name) are written beside it. Existing
    ones are replaced, each whole or not at all. In a store such as `s3://bucket/store` they are
    put into its `report` folder, and the path is the address there.

    `metrics` limits what is shown, `baseline` names another cell to compare with,
    `max_megabytes` bounds the embedded videos.

    Raises:
        ResultsError: the results cannot be read, a name is unknown, or `out` is no place for a
            file.
        FileError: a file cannot be written.
    """
    if not 0 <= max_megabytes <= 1e6:
        raise ValueError(f"--max-mb is {max_megabytes}, it has to be from 0 to 1e6.")
    # Read and compare.
    results = read_results(store, traces=False)
    analysis = analyse(results, metrics=metrics, baseline=baseline)
    shared = [tuple(pair) for pair in analysis["pairs"]]

    # Embed the videos that fit, then write all three files.
    limit = int(max_megabytes * 1e6)
    players = embed(results, shared, max_bytes=limit, progress=progress)
    html = Path(out) if out is not None else results.root / "report" / "index.html"
    stem = "report" if html.stem == "index" else html.stem
    try:
        html.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"the report cannot be written: {error}") from error
    by_cell = changes_by_cell(analysis)
    files = [
        write_text(html, page(results, analysis, players)),
        write_json(html.with_name(f"{stem}.json"), analysis),
        write_text(html.with_name(f"{stem}.md"), fill("report.md", a=analysis, changes=by_cell)),
    ]
    if out is None and is_url(store):
        return _put(files, f"{str(store).rstrip('/')}/report")
    return html


def _put(files: Sequence[Path], url: str) -> str:
    """Copy files into the folder at `url`, replacing those of the same name; the first's URL."""
    system, root = reach(url, ResultsError)
    system.makedirs(root, exist_ok=True)
    for path in files:
        system.put_file(str(path), f"{root.rstrip('/')}/{path.name}")
    return f"{url}/{files[0].name}"
