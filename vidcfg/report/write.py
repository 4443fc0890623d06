"""From a result set to `index.html`, `report.json` and `report.md`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from vidcfg.files import FileError, atomic_path
from vidcfg.report.analyse import analyse
from vidcfg.report.clips import embed
from vidcfg.report.markdown import markdown
from vidcfg.report.page import page
from vidcfg.report.remote import is_url, put
from vidcfg.report.results import ResultsError, read_results

MAX_MEGABYTES = 16.0


def write_report(
    store: str | Path,
    *,
    out: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    baseline: str | None = None,
    max_megabytes: float | int = MAX_MEGABYTES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the page of a store or evaluation and return its path.

    `out` is an HTML file (default: `report/index.html` in the store); report.json and report.md
    (or, for another name than index.html, files of that name) are written beside it. Existing
    ones are replaced, each whole or not at all. In a store such as `s3://bucket/store` they are
    copied to its `report` folder, and the path is that of the local copy.

    `metrics` limits what is shown, `baseline` names another cell to compare with,
    `max_megabytes` bounds the embedded videos.

    Raises:
        ResultsError: the results cannot be read, a name is unknown, or a file cannot be written.
    """
    results = read_results(store)
    analysis = analyse(results, metrics=metrics, baseline=baseline)
    limit = int(max_megabytes * 1e6)
    clips = embed(
        results, [tuple(p) for p in analysis["pairs"]], max_bytes=limit, progress=progress
    )
    html = Path(out) if out is not None else results.root / "report" / "index.html"
    is_remote = out is None and is_url(store)
    stem = "report" if html.stem == "index" else html.stem
    beside = [html.with_name(f"{stem}{ending}") for ending in (".json", ".md")]
    try:
        html.parent.mkdir(parents=True, exist_ok=True)
        for path, text in (
            (html, page(results, analysis, clips)),
            (beside[0], json.dumps(analysis, allow_nan=False, indent=1)),
            (beside[1], markdown(analysis)),
        ):
            with atomic_path(path, overwrite=True) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="replace")
        if is_remote:
            put([html, *beside], f"{str(store).rstrip('/')}/report")
    except (OSError, FileError) as error:
        raise ResultsError(f"the report cannot be written: {error}") from error
    return html
