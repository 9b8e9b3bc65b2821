"""What mkdocs has to know of this repository: pages of its root, links to code, drawings."""

import hashlib
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
HOME = "README.md"
PAGES = (HOME, "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")  # of the root
INDEX = "index.md"  # the passage index, which is not the site's first page
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
CODE = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DRAWINGS = Path(__file__).parent / "drawings"


def target(drawing: str) -> Path:
    """Where docs/drawings.py keeps the drawing of a mermaid text."""
    return DRAWINGS / f"{hashlib.sha256(drawing.encode()).hexdigest()[:16]}.svg"


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the pages of the root; the first page is the README."""
    from mkdocs.structure.files import File

    if (index := files.get_file_from_path(INDEX)) is not None:
        index.name, index.dest_uri = "passage-index", "passage-index/index.html"
    for name in PAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", **_: Any) -> str:
    """Point links where the site has the page, and show drawings."""
    folder = "" if page.file.src_uri in PAGES else "docs"

    def link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[3]))
        if path in PAGES:
            place = path
        elif path.startswith("docs/") and (ROOT / path).is_file():
            place = path.removeprefix("docs/")
        else:  # code, or a folder: the site has neither
            return match[2]
        return f"{match[1]}[{match[2]}]({place}{match[4] or ''})"

    def drawing(match: re.Match[str]) -> str:
        path = target(match[1])
        return f"![drawing](drawings/{path.name})" if path.is_file() else match[0]

    parts = CODE.split(FENCE.sub(drawing, markdown))
    return "".join(part if part.startswith("```") else LINK.sub(link, part) for part in parts)
