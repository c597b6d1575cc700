"""The site: what a page shows, where its links lead, and that it asks nothing of a network."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

pytest.importorskip("sphinx_book_theme", reason="the extra site is not installed")
from llm_tutorial.commands.pages import build_pages

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")  # of Sphinx
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/plain": "IntSlider(value=0)"}


class Page(HTMLParser):
    """The text of a page, and all its start tags."""

    def __init__(self, path):
        super().__init__()
        self.path, self.text, self.tags = path, "", []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    def links(self, text=""):
        return [link["href"] for link in self.all("a") if text in link.get("href", "")]

    def ids(self):
        return {attributes["id"] for _, attributes in self.tags if attributes.get("id")}

    def pictures(self):
        return [picture["alt"] for picture in self.all("img") if picture["src"].startswith("data:image/png;base64,")]


def output(data, **metadata):
    return new_output("display_data", data=data, metadata=metadata)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of a folder like ours, in which one notebook has just been executed."""
    folder, built = tmp_path_factory.mktemp("checkout") / "notebooks", tmp_path_factory.mktemp("site")
    folder.mkdir()
    (folder / "solutions").mkdir()
    (folder / "TERMS.md").write_text("# Terms\n\nBack to [one](01_a.ipynb).", encoding="utf-8")
    for name in ("01_a.ipynb", "solutions/01_a.ipynb", "02_b.ipynb"):
        text = f"# Title of {name[:4]}\n\n[terms](TERMS.md), [![badge](https://example.org/badge.svg)](https://a.org/b)"
        nbformat.write(new_notebook(cells=[new_markdown_cell(text), new_code_cell("'stored ' + 'source'", outputs=[
            output({"text/plain": "stored output"})])]), folder / name)
    first = ("# First\n\n[next](02_b.ipynb), from $2 to $3, \\$4 for $N$\n\n"
             r"$$\begin{aligned} p &= \frac{1}{N} \\ q &= 1 \end{aligned}$$")
    folded = new_code_cell("'folded'", metadata={"tags": ["hide-input"]})
    cells = [new_markdown_cell(first), folded, new_code_cell("1 + 1", outputs=[
        output({"image/png": PIXEL, "text/plain": "Figure"}, **{"image/png": {"alt": 'bars: "a" < b', "width": 70}}),
        output({"image/png": PIXEL, **WIDGET}, **{"image/png": {"alt": "a playground"}}), output(WIDGET),
        new_output("error", ename="E", evalue="e", traceback=["\x1b[31mTraceback: e\x1b[0m"])])]
    own = new_notebook(cells=[new_markdown_cell("# Elsewhere")])
    nbformat.write(own, folder.parent / "own.ipynb")
    executed = {folder / "01_a.ipynb": new_notebook(cells=cells, metadata={"widgets": {"state": {}}}),
                folder.parent / "own.ipynb": own}
    assert build_pages(folder, built, executed) == built / "index.html"
    return built


def test_an_executed_notebook_is_shown_with_its_new_outputs_and_others_with_those_stored(site):
    executed, stored = Page(site / "01_a.html"), Page(site / "02_b.html")
    assert "Traceback: e" in executed.text
    assert "stored output" not in executed.text
    assert "stored output" in stored.text
    assert "Elsewhere" in Page(site / "other" / "1" / "own.html").text


def test_figures_have_their_alternative_text_and_a_playground_its_picture(site):
    page = Page(site / "01_a.html")
    assert page.pictures() == ['bars: "a" < b', "a playground"]
    assert "IntSlider(value=0)" in page.text, "where there is no picture"
    assert [picture.get("width") for picture in page.all("img") if picture["alt"].startswith("bars")] == ["70"]


def test_formulas_are_mathml_and_money_is_not_and_hidden_code_is_folded(site):
    page = Page(site / "01_a.html")
    assert "from $2 to $3, $4 for N" in page.text
    assert [formula["display"] for formula in page.all("math")] == ["inline", "block"]
    assert len(page.all("mtr")) == 2, "the lines of an aligned formula"
    source = (site / "01_a.html").read_text(encoding="utf-8")
    assert "MathJax" not in source
    assert "folded" in source.partition("<details")[2].partition("</details>")[0]


def test_the_side_bar_has_sections_and_pages_lead_to_the_next(site):
    page = Page(site / "01_a.html")
    for text in ("Lessons", "Beside the lessons", "Solutions", "Other notebooks", "Title of solu (solutions)"):
        assert text in page.text
    assert [link["href"] for link in page.all("a") if link.get("title") == "next page"] == ["02_b.html"]
    assert "badge" in Page(site / "02_b.html").text, "a badge is shown as its text"
    assert "https://a.org/b" in Page(site / "02_b.html").links()


def test_a_notebook_can_be_downloaded_as_it_is(site):
    page = Page(site / "solutions" / "01_a.html")
    [name] = [name for name in page.links("_sources/") if name.endswith("solutions/01_a.ipynb")]
    assert [cell.source for cell in nbformat.read(site / "solutions" / name, 4).cells][1:] == ["'stored ' + 'source'"]
    assert "![badge](https" in (site / "_sources" / "02_b.ipynb").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lessons(tmp_path_factory):
    """The pages of our own lessons, with their stored outputs."""
    built = tmp_path_factory.mktemp("lessons")
    build_pages(NOTEBOOKS, built, {})
    return built


@pytest.mark.parametrize("name", ["site", "lessons"])
def test_no_page_asks_another_host_and_all_links_lead_to_a_file_and_a_place_in_it(name, request):
    folder, found = request.getfixturevalue(name), {}
    for path in (*folder.glob("*.html"), *folder.glob("solutions/*.html"), *folder.glob("other/*/*.html")):
        page = Page(path)
        loaded = [attributes.get("src") or attributes.get("href") or "" for tag, attributes in page.tags
                  if tag in {"script", "img", "link", "iframe", "source", "audio", "video", "object"}]
        for address in map(urlsplit, loaded):
            assert (address.scheme in {"", "data"}, address.netloc) == (True, ""), path
        assert "xref myst" not in [span.get("class") for span in page.all("span")], f"a link to no page in {path}"
        for address in map(urlsplit, loaded + page.links()):
            target = (path.parent / unquote(address.path)) if address.path else path
            if not address.scheme:
                assert target.is_file(), f"{address.geturl()} in {path}"
            if not address.scheme and address.fragment and target.suffix == ".html":
                ids = found.setdefault(target.resolve(), set()) or Page(target).ids()
                assert unquote(address.fragment) in ids, f"{address.geturl()} in {path}"
                found[target.resolve()] = ids


def test_all_figures_of_the_lessons_are_on_their_pages(lessons):
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        stored = [found["metadata"]["image/png"]["alt"] for cell in nbformat.read(path, 4).cells
                  for found in cell.get("outputs", []) if "image/png" in found.get("data", {})]
        assert stored
        assert Page(lessons / f"{path.stem}.html").pictures() == stored


def test_the_front_page_has_a_picture_and_the_question_of_each_lesson(lessons):
    page = Page(lessons / "index.html")
    for path in NOTEBOOKS.glob("*.ipynb"):
        question = nbformat.read(path, 4).cells[0].source.partition("**Question.** ")[2].splitlines()[0]
        assert question.replace("*", "") in page.text
        assert f"_static/{path.stem}.png" in [picture["src"] for picture in page.all("img")]
        assert f"{path.stem}.html" in page.links()


def test_a_bold_term_leads_to_its_row_in_the_glossary(lessons):
    assert "GLOSSARY.html#term-perplexity" in Page(lessons / "02_causal_lm.html").links()
    assert "../GLOSSARY.html#term-perplexity" in Page(lessons / "solutions" / "02_causal_lm.html").links()
    assert "term-perplexity" in Page(lessons / "GLOSSARY.html").ids()
