"""A site of the notebooks and their outputs, by MyST-NB and the Sphinx book theme, to be read without a network."""

from __future__ import annotations

import base64
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

__all__ = ["build_pages", "can_build_pages", "mathml"]

TITLE = "Language models, taken apart"
INTRODUCTION = """Hide a word and watch a model fill the hole, let another one write, train one of your own until it
recites Wikipedia, and open it. The lessons are notebooks that run on two CPU cores; here they are, with outputs."""
WIDGET = "application/vnd.jupyter.widget-view+json"
REMOTE_PICTURE = re.compile(r"!\[([^]]*)\]\((?:https?:)?//[^)]*\)")
DOCUMENT_LINK = re.compile(r"\]\((?=[\w-]+\.md\b)")
TITLE_AND_QUESTION = re.compile(r"# (.+)\s+\*\*Question\.\*\* (.+)")
NAME_BESIDE_TEXT = re.compile(r'(<summary|search-button-field[^>]*?) aria-label="[^"]*"')
TERM = re.compile(r"^\| \*\*(.+?)\*\*", re.M)
SETTINGS = {
    "project": TITLE, "extensions": ["myst_nb", __name__, "llm_tutorial.commands.live"],
    "nb_execution_mode": "off",
    "myst_enable_extensions": ["dollarmath"], "myst_update_mathjax": False, "html_math_renderer": "mathml",
    "myst_dmath_allow_space": False, "myst_dmath_allow_digits": False,  # "from $2 to $3" is money
    "html_theme": "sphinx_book_theme", "html_title": TITLE, "html_static_path": ["_static"], "html_use_index": False,
    "html_theme_options": {
        "home_page_in_toc": True, "navbar_persistent": [], "show_toc_level": 2, "use_fullscreen_button": False,
        "footer_content_items": [],  # it would say that no author is set
    },
    "html_context": {"default_mode": "auto"},  # light or dark, as the reader's system is
    "html_css_files": ["pages.css"], "html_sourcelink_suffix": "", "html_show_copyright": False,
    "html_show_search_summary": False,  # a page on a disk may not read another one to quote from it
}


def can_build_pages() -> bool:
    """Return whether the libraries of the extra ``site`` are installed."""
    return all(importlib.util.find_spec(name) for name in ("latex2mathml", "myst_nb", "sphinx_book_theme"))


def mathml(latex: str, *, block: bool) -> str:
    """Return a formula as MathML, which browsers show without a library."""
    from latex2mathml.converter import convert

    latex = latex.replace("{aligned}", "{align*}")  # which the converter does not know
    return convert(latex, display="block" if block else "inline")


def setup(app) -> None:
    """Let Sphinx write formulas as MathML, which browsers show without a library, and link terms to the glossary."""
    from docutils.nodes import SkipNode

    def write(translator, node) -> None:
        block = node.tagname == "math_block"
        formula = mathml(node.astext(), block=block)
        translator.body.append(f'<div tabindex="0">{formula}</div>' if block else formula)  # wide ones are scrolled
        raise SkipNode

    app.add_html_math_renderer("mathml", inline_renderers=(write, None), block_renderers=(write, None))
    app.connect("doctree-resolved", _link_terms)


def _link_terms(app, doctree, page: str) -> None:
    """Link each bold term to its row in the glossary, and let a search for it lead to the lesson that explains it."""
    from docutils import nodes
    from sphinx import addnodes

    if page.startswith("solutions/"):  # a search finds what they share with the lessons there
        app.env.metadata[page]["nosearch"] = True
    if "GLOSSARY" not in app.env.found_docs:
        return
    glossary = Path(app.srcdir, "GLOSSARY.md").read_text(encoding="utf-8")
    names = {term.lower(): nodes.make_id(f"term {term}") for term in TERM.findall(glossary)}
    for strong in list(doctree.findall(nodes.strong)):
        term = strong.astext().strip(".:,").lower()
        name = names.get(term) or names.get(term.removesuffix("s"))
        if name is None or isinstance(strong.parent, nodes.reference) or name in doctree.ids:
            continue
        strong["ids"], doctree.ids[name] = [name], strong
        if page != "GLOSSARY":
            address = f"{app.builder.get_relative_uri(page, 'GLOSSARY')}#{name}"
            linked = nodes.reference("", "", strong.deepcopy(), refuri=address, internal=True)
            strong.replace_self([addnodes.index(entries=[("single", term, name, "main", None)]), linked])


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
        shutil.copyfile(Path(__file__).with_suffix(".css"), source / "_static" / "pages.css")
        (source / "index.md").write_text(_contents(sections, source / "_static"), encoding="utf-8")
        Sphinx(source, None, built, doctrees, "html", copy.deepcopy(SETTINGS), status=None, warning=None).build()
        for name, path in (pair for pages in sections.values() for pair in pages.items()):
            shutil.copyfile(path, built / "_sources" / name)  # to download, without what was prepared for the page
        for page in built.rglob("*.html"):  # for screen readers: the text is the name, and an empty cell heads nothing
            text = page.read_text(encoding="utf-8").replace("<th></th>", "<td></td>")
            page.write_text(NAME_BESIDE_TEXT.sub(r"\1", text), encoding="utf-8")
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


def _contents(sections: Mapping[str, Mapping[str, Path]], static: Path) -> str:
    """Return the first page: a card for each lesson, with a picture in ``static``, and lists for the side bar."""
    cards = [card for path in sections.get("Lessons", {}).values() if (card := _card(path, static))]
    front = [INTRODUCTION, "\n".join(['<ul class="lessons">', *cards, "</ul>"])] if cards else []
    lists = ["\n".join(["```{toctree}", f":caption: {caption}", ":maxdepth: 1",
                        *([":hidden:"] if cards and caption == "Lessons" else []), "", *pages, "```"])
             for caption, pages in sections.items()]
    return "\n\n".join([f"# {TITLE}", *front, *lists]) + "\n"


def _card(path: Path, static: Path) -> str | None:
    """Return a lesson's title and question with its first drawing, or with its first figure; None for others."""
    cells = nbformat.read(path, as_version=4).cells
    about = TITLE_AND_QUESTION.match(cells[0].source) if cells else None
    pictures = [("plots.drawing(" not in cell.source, output.data["image/png"])
                for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    if not (about and pictures):
        return None
    (static / f"{path.stem}.png").write_bytes(base64.b64decode(min(pictures, key=lambda pair: pair[0])[1]))
    title, question = (html.escape(text.replace("*", "")) for text in about.groups())
    return (f'<li><a href="{path.stem}.html"><img alt="" class="dark-light" src="_static/{path.stem}.png">'
            f"<b>{title}</b><small>{question}</small></a></li>")


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
