"""Make slides of the cells with the tag ``slide``: a deck for each lesson in ``build/slides``, with a local reveal.js.

    python tests/slides.py

A tagged cell is a slide, with its stored output; tagged code goes onto the slide of a tagged text directly above it.
Code that is longer, or that draws a picture, is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from assignments import NOTEBOOKS
from jinja2 import DictLoader
from nbconvert.exporters import SlidesExporter

from llm_tutorial.commands.live import npm_files
from llm_tutorial.commands.pages import mathml

FOLDER = NOTEBOOKS.parent / "build" / "slides"
VERSION, SHA512 = "5.2.1", "r7//6mIM5p34hFiDMvYfXgyjXqGRta+/psd9YtytsgRlrpRzFv4RbH76TXd2qD+7ZPZEbpBDhdRhJaFgfQ7zNQ=="
LONGEST = 12  # lines of code that a slide shows
# The exporter's own page asks other hosts for libraries that these slides do not need, and so does its theme for fonts.
PAGE = """{% extends 'reveal/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block footer_js %}<style>
.reveal .slides section { text-align: left; font-size: 24px; }
.reveal h1 { font-size: 1.9em; } .reveal h2 { font-size: 1.5em; } .reveal h3 { font-size: 1.25em; }
.reveal h1, .reveal h2, .reveal h3 { text-transform: none; margin-bottom: 0.5em; }
.reveal .jp-RenderedHTMLCommon table { font-size: 17px; } .reveal pre { width: auto; box-shadow: none; margin: 0; }
.reveal .jp-OutputArea img { width: 900px; max-height: 580px; object-fit: contain; object-position: left top; }
:root { --jp-code-font-size: 17px; } math { font-size: 1.2em; }
</style>
<script src="{{ resources.reveal.url_prefix }}/dist/reveal.js"></script>
<script>
Reveal.initialize({width: 1100, height: 720, margin: 0.06, center: false, hash: true, slideNumber: "c"});
</script>
{% endblock %}"""


def fetch_reveal(folder: Path) -> None:
    """Write the pinned reveal.js to ``folder``; OSError as from ``npm_files``."""
    for name, content in npm_files(f"reveal.js@{VERSION}", SHA512, "dist/").items():
        path = folder / "reveal.js" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def deck(notebook: nbformat.NotebookNode, title: str) -> str:
    """Return the page of a notebook's slides, which looks for reveal.js beside it."""
    chosen = nbformat.from_dict(notebook)
    tagged = [cell for cell in chosen.cells if "slide" in cell.metadata.get("tags", [])]
    for above, cell in zip([None, *chosen.cells], chosen.cells, strict=False):
        joined = cell.cell_type == "code" and above in tagged and above.cell_type == "markdown"
        cell.metadata.slideshow = {"slide_type": "-" if joined else "slide"}
    chosen.cells = tagged
    formulas: list[str] = []  # which Markdown must not touch

    def placeholder(found: re.Match) -> str:
        formulas.append(mathml(found[1] or found[2], block=bool(found[1])))
        return f"FORMULA{len(formulas) - 1}FORMULA"

    for cell in chosen.cells:
        if cell.cell_type == "markdown":
            heading = re.search(r"^#", cell.source, re.MULTILINE)  # what stands above it belongs to the part before
            cell.source = cell.source[heading.start() if heading else 0:]
            cell.source = re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", cell.source)  # no file beside
            cell.source = re.sub(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", placeholder, cell.source, flags=re.DOTALL)
        elif len(cell.source.splitlines()) > LONGEST or any("image/png" in out.get("data", {}) for out in cell.outputs):
            cell.metadata.transient = {"remove_source": True}
    exporter = SlidesExporter(
        extra_loaders=[DictLoader({"deck.html.j2": PAGE})], template_file="deck.html.j2",
        reveal_url_prefix="reveal.js", reveal_theme="white", exclude_input_prompt=True, exclude_output_prompt=True)
    page, _ = exporter.from_notebook_node(chosen, {"metadata": {"name": title}})
    return re.sub(r"FORMULA(\d+)FORMULA", lambda found: formulas[int(found[1])], page)


def write_slides(folder: Path) -> list[Path]:
    """Write a deck for each lesson with tagged cells to ``folder``, with reveal.js beside them; return the decks."""
    folder.mkdir(parents=True, exist_ok=True)
    fetch_reveal(folder)
    decks = []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if any("slide" in cell.metadata.get("tags", []) for cell in notebook.cells):
            decks.append(folder / f"{path.stem}.html")
            decks[-1].write_text(deck(notebook, path.stem), encoding="utf-8")
    return decks


if __name__ == "__main__":
    print(*write_slides(FOLDER), sep="\n")
