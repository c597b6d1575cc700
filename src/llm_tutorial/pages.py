"""Turn executed notebooks into HTML pages that can be read without a network, and list them on one page."""

from __future__ import annotations

import base64
import copy
import html
import mimetypes
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import jinja2
from bs4 import BeautifulSoup, Tag
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

__all__ = ["as_notebook", "title_of", "write_contents", "write_page"]

TEMPLATES = Path(__file__).resolve().parent / "templates"
GENERATOR = "llm-tutorial"
CONTENTS = "index.html"


def as_notebook(document: Path) -> NotebookNode:
    """Return a Markdown file as a notebook of one cell, so that it becomes a page like the others.

    Raises:
        OSError: the file cannot be read.
    """
    return new_notebook(cells=[new_markdown_cell(document.read_text(encoding="utf-8"))])


def title_of(notebook: NotebookNode, default: str) -> str:
    """Return the notebook's first Markdown heading as plain text, or ``default`` if it has none."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = re.search(r"^#{1,6}\s+(.+?)\s*#*$", cell.source, re.MULTILINE)
            if heading:
                return re.sub(r"[*`]|\[([^]]*)\]\([^)]*\)", lambda found: found[1] or "", heading[1])
    return default


def write_page(executed: NotebookNode, notebook: Path, output: Path, pages: Mapping[Path, str]) -> Path:
    """Write an executed notebook to its page below ``output`` and return the page.

    ``pages`` maps the absolute path of each notebook, this one among them, to its page relative to ``output``
    (``02_causal_lm.html``): links between these notebooks become links between their pages. The page loads nothing
    from the network. Local pictures are embedded, remote ones are replaced by their alt text, scripts are left out.

    Raises:
        OSError: the page cannot be written.
    """
    notebook = notebook.resolve()
    page = output / pages[notebook]
    titled = copy.deepcopy(executed)
    titled.metadata["title"] = title_of(executed, notebook.stem)
    titled.metadata.pop("widgets", None)  # live widgets need scripts from the network: their text form is shown
    exporter = HTMLExporter(extra_template_basedirs=[str(TEMPLATES)], template_name="tutorial")
    resources = {
        "metadata": {"name": notebook.stem, "path": str(notebook.parent)},
        "generator": GENERATOR,
        "contents": quote(_relative(output / CONTENTS, page)),
    }
    text, _ = exporter.from_notebook_node(titled, resources=resources)
    soup = BeautifulSoup(text, "html.parser")
    _stay_local(soup, notebook.parent)
    _link_pages(soup, notebook.parent, page, {source: output / name for source, name in pages.items()})
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(str(soup), encoding="utf-8")
    return page


def write_contents(output: Path) -> Path:
    """Write the list of all pages below ``output``, those of earlier runs among them, and return it.

    Raises:
        OSError: ``output`` cannot be read or written.
    """
    titles = {page.relative_to(output).as_posix(): _page_title(page) for page in sorted(output.rglob("*.html"))}
    entries = [(name, title) for name, title in titles.items() if title is not None]
    template = (TEMPLATES / "contents.html.j2").read_text(encoding="utf-8")
    contents = output / CONTENTS
    contents.write_text(jinja2.Environment(autoescape=True).from_string(template).render(pages=entries), "utf-8")
    return contents


def _page_title(page: Path) -> str | None:
    """Return the title of a page written here; None for a file of other origin."""
    with page.open(encoding="utf-8", errors="replace") as file:
        head = file.read(4000)  # both come before the style sheets
    title = re.search(r"<title>(.*?)</title>", head, re.DOTALL)
    return html.unescape(title[1]) if title and f'content="{GENERATOR}"' in head else None


def _relative(target: Path, page: Path) -> str:
    return Path(os.path.relpath(target, page.parent)).as_posix()


def _is_remote(address: str) -> bool:
    return address.startswith("//") or urlsplit(address).scheme not in ("", "data")


def _stay_local(soup: BeautifulSoup, folder: Path) -> None:
    """Take out of a page what would be loaded from elsewhere; ``folder`` is where its pictures lie."""
    for element in soup.select("script, iframe, object, embed, link[href]"):
        element.decompose()
    for picture in soup.select("img"):
        address = picture.get("src", "")
        if _is_remote(address):
            picture.replace_with(picture.get("alt") or address)
        elif not address.startswith("data:"):
            _embed(picture, folder / unquote(urlsplit(address).path))


def _embed(picture: Tag, file: Path) -> None:
    # nbconvert's own embed_images drops the closing tags of HTML inside Markdown, such as H<sub>2</sub>O.
    if file.is_file():
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        picture["src"] = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"


def _link_pages(soup: BeautifulSoup, folder: Path, page: Path, pages: Mapping[Path, Path]) -> None:
    """Point the links from a notebook in ``folder`` to other notebooks and documents at their pages."""
    for link in soup.select("a[href]"):
        address = urlsplit(link["href"])
        if address.scheme or address.netloc or not address.path.endswith((".ipynb", ".md")):
            continue
        target = pages.get((folder / unquote(address.path)).resolve())
        if target is not None:
            link["href"] = quote(_relative(target, page)) + (f"#{address.fragment}" if address.fragment else "")
