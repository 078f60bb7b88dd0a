"""Pages of the web site that lie outside of `docs`, and links to them; mkdocs calls both functions.

In the repository a link is relative to its file, as it is shown there. On the site, `docs` is the top folder,
and other folders have their own names below it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "slurm/container/README.md",
    "results/README.md",
    "results/*/README.md",
    "results/*/regions.md",
    "results/*/report.html",
    "results/*/*.png",
    "results/*/tables/*.csv",
)
LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """The files of `docs`, and those of OUTSIDE."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """The text with links of the site. A link to a file that the site does not have becomes plain text."""
    outside = any(Path(page.file.src_uri).match(pattern) for pattern in OUTSIDE)
    here = page.file.src_uri if outside else f"docs/{page.file.src_uri}"

    def of_site(link: re.Match[str]) -> str:
        target, mark, anchor = link[1].partition("#")
        if "://" in target or not target:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        name = re.sub(r"/report\.md$", "/report.html", path.removeprefix("docs/"))
        if files.get_file_from_path(name) is None:
            return "]"
        return f"]({posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or '.')}{mark}{anchor})"

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(of_site, part) for part in parts[::2]]
    return "".join(parts)
