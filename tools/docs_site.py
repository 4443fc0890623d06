"""What `mkdocs build` is told: README.md is the first page and CHANGELOG.md the last, and a link
to a file or folder outside docs/ is its name alone."""

import os
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ADDED = {"index.md": ROOT / "README.md", "changes.md": ROOT / "CHANGELOG.md"}
PAGE_OF = {source: DOCS / name for name, source in ADDED.items()}


def on_files(files, config):
    for name, source in ADDED.items():
        files.append(File.generated(config, name, content=source.read_text("utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    name = page.file.src_uri
    written_in = ADDED.get(name, DOCS / name).parent
    shown_in = (DOCS / name).parent

    def shown(link):
        text, target, heading = link[1], link[2], link[3] or ""
        path = (written_in / target).resolve()
        if not target or not path.exists():
            return link[0]  # a heading, a URL, or a link that leads nowhere, which mkdocs refuses
        path = PAGE_OF.get(path, path)
        if path.is_dir() or not path.is_relative_to(DOCS):
            return f"{text.lstrip('![')} (`{path.relative_to(ROOT)}`)"
        return f"{text}]({os.path.relpath(path, shown_in)}{heading})"

    return re.sub(r"(!?\[[^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)", shown, markdown)
