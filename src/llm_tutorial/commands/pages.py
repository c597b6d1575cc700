"""A site of the notebooks and their outputs, by MyST-NB and the Sphinx book theme, to be read without a network."""

from __future__ import annotations

import copy
import html
import importlib.util
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

__all__ = ["build_pages", "can_build_pages"]

TITLE = "Language models, taken apart"
WIDGET = "application/vnd.jupyter.widget-view+json"
REMOTE_PICTURE = re.compile(r"!\[([^]]*)\]\((?:https?:)?//[^)]*\)")
DOCUMENT_LINK = re.compile(r"\]\((?=[\w-]+\.md\b)")
SETTINGS = {
    "project": TITLE,
    "extensions": ["myst_nb", __name__],
    "nb_execution_mode": "off",
    "nb_merge_streams": True,
    "myst_enable_extensions": ["dollarmath"],
    "myst_dmath_allow_space": False, "myst_dmath_allow_digits": False,  # "from $2 to $3" is money
    "myst_update_mathjax": False,
    "html_math_renderer": "mathml",
    "html_theme": "sphinx_book_theme",
    "html_title": TITLE,
    "html_theme_options": {
        "home_page_in_toc": True, "navbar_persistent": [], "show_toc_level": 2,
        "use_download_button": False, "use_fullscreen_button": False,
    },
    "html_static_path": ["_static"], "html_css_files": ["pages.css"],
    "html_copy_source": False,
    "html_use_index": False,
    "html_show_copyright": False,
    "html_show_search_summary": False,  # a page on a disk may not read another one to quote from it
}

CSS = """
math { font-family: "Cambria Math", "STIX Two Math", "Latin Modern Math", "DejaVu Math TeX Gyre", math; }
div:has(> math[display=block]) { overflow-x: auto; padding: 0.2rem 0 0.8rem; }
html[data-theme=dark] .cell_output :is(.text_html:has(> img), img) {
  background: none !important; padding: 0 !important;
}
td code { overflow-wrap: anywhere; }
"""


def can_build_pages() -> bool:
    """Return whether the libraries of the extra ``site`` are installed."""
    return all(importlib.util.find_spec(name) for name in ("latex2mathml", "myst_nb", "sphinx_book_theme"))


def setup(app) -> None:
    """Let Sphinx write formulas as MathML, which browsers show without a library."""
    from docutils.nodes import SkipNode
    from latex2mathml.converter import convert

    def write(translator, node) -> None:
        block = node.tagname == "math_block"
        latex = node.astext().replace("{aligned}", "{align*}")  # which the converter does not know
        formula = convert(latex, display="block" if block else "inline")
        translator.body.append(f"<div>{formula}</div>" if block else formula)
        raise SkipNode

    app.add_html_math_renderer("mathml", inline_renderers=(write, None), block_renderers=(write, None))


def build_pages(folder: Path | None, output: Path, executed: Mapping[Path, NotebookNode]) -> Path:
    """Write the site of ``folder`` and of ``executed`` to the folder ``output`` and return its first page.

    ``executed`` maps the path of a notebook to the notebook after its execution. The other notebooks of ``folder`` and
    of ``folder/solutions`` are shown with the outputs that their files hold. The pages request nothing from a network.
    """
    from sphinx.application import Sphinx

    sections = _sections(folder, executed)
    with tempfile.TemporaryDirectory() as temporary:
        source, built, doctrees = (Path(temporary, name) for name in ("source", "html", "doctrees"))
        for pages in sections.values():
            for name, path in pages.items():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                if path.suffix == ".md":
                    shutil.copyfile(path, source / name)
                else:
                    notebook = executed.get(path) or nbformat.read(path, as_version=4)
                    nbformat.write(_prepared(notebook, solutions=name.startswith("solutions/")), source / name)
        (source / "_static").mkdir()
        (source / "_static" / "pages.css").write_text(CSS, encoding="utf-8")
        (source / "index.md").write_text(_contents(sections), encoding="utf-8")
        Sphinx(source, None, built, doctrees, "html", SETTINGS, status=None, warning=None).build()
        shutil.copytree(built, output, dirs_exist_ok=True)
    return output / "index.html"


def _sections(folder: Path | None, executed: Mapping[Path, NotebookNode]) -> dict[str, dict[str, Path]]:
    """Return the pages of each section: their names in the site, with the files that they show."""
    def found(pattern: str) -> dict[str, Path]:
        return {path.relative_to(folder).as_posix(): path for path in sorted(folder.glob(pattern))} if folder else {}

    sections = {
        "Lessons": found("*.ipynb"), "Beside the lessons": found("*.md"), "Solutions": found("solutions/*.ipynb"),
    }
    known = {path for pages in sections.values() for path in pages.values()}
    others = [path for path in executed if path not in known]
    sections["Other notebooks"] = {f"other/{number}/{path.name}": path for number, path in enumerate(others, start=1)}
    return {caption: pages for caption, pages in sections.items() if pages}


def _contents(sections: Mapping[str, Mapping[str, Path]]) -> str:
    """Return the first page: the sections with links to their pages, which also make the side bar."""
    lists = ["\n".join(["```{toctree}", f":caption: {caption}", ":maxdepth: 1", "", *pages, "```"])
             for caption, pages in sections.items()]
    return "\n\n".join([f"# {TITLE}", *lists]) + "\n"


def _prepared(notebook: NotebookNode, *, solutions: bool) -> NotebookNode:
    """Return a copy with all that a static page needs: pictures with their alternative text, and no live widgets."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict({"language_info": {"name": "python", "pygments_lexer": "ipython3"}})
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = REMOTE_PICTURE.sub(r"\1", cell.source)
            if solutions:  # the documents are pages of the folder above
                cell.source = DOCUMENT_LINK.sub("](../", cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(WIDGET, None)
            if "image/png" in data:  # MyST-NB would give the name of a file as the alternative text
                about = output.metadata.get("image/png", {})
                alt = html.escape(about.get("alt") or data.get("text/plain", ""))
                size = f' width="{about["width"]}"' if "width" in about else ""
                source = "data:image/png;base64," + "".join(data["image/png"].split())
                # The theme darkens pictures of another class.
                picture = f'<img class="dark-light" alt="{alt}"{size} src="{source}">'
                output.data = nbformat.from_dict({"text/html": picture})
    if solutions and notebook.cells:
        notebook.cells[0].source = re.sub(r"^(# .*)", r"\1 (solutions)", notebook.cells[0].source)
    return notebook
