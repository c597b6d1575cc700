"""The site in Chromium, from a disk and without a network: search, accessibility by axe-core, and a narrow window."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from llm_tutorial.commands.live import npm_files
from llm_tutorial.commands.pages import build_pages

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")  # of Sphinx
ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
PAGES = ["index", "search", *LESSONS, "GLOSSARY", "OLDER_TUTORIALS", "PREREQUISITES", "TEACHING"]
AXE, AXE_SHA512 = "axe-core@4.14.1", (
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==")
FAULTS = """async () => (await axe.run({preload: false})).violations
    .filter(fault => ["serious", "critical"].includes(fault.impact))
    .map(fault => `${fault.id}: ${fault.nodes.map(node => node.html.slice(0, 200)).join(" | ")}`)"""
# A button's color takes a moment to change from light to dark.
AT_REST = "() => Promise.allSettled(document.getAnimations().map(change => change.finished)).then(() => null)"
# What is wider than its place, but for code, tables and formulas, which a reader can move sideways.
TOO_WIDE = """() => [document.documentElement, ...document.querySelectorAll("body *")]
    .filter(node => node.scrollWidth > node.clientWidth + 1 && node.clientWidth && node.checkVisibility())
    .filter(node => node.tagName === "HTML" || ["auto", "scroll"].includes(getComputedStyle(node).overflowX))
    .filter(node => node.tagName === "HTML" || !(node.matches("pre") || node.querySelector("table, math")))
    .map(node => node.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The pages of the lessons with their stored outputs."""
    return build_pages(ROOT / "notebooks", tmp_path_factory.mktemp("site"), {}).parent


@pytest.fixture(scope="session")
def axe():
    """The script of axe-core, from npm; without npm its tests are skipped."""
    if shutil.which("npm") is None:
        pytest.skip("axe-core comes by npm, which is not installed.")
    return npm_files(AXE, AXE_SHA512, "axe.min.js")["axe.min.js"].decode("utf-8")


@pytest.fixture
def open_page(browser, site):
    """A function that opens a page of the site in a browser without a network, as wide and as dark as wished."""
    contexts, problems = [], []

    def opened(name, width=1280, color_scheme="light"):
        contexts.append(browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=color_scheme, offline=True))
        page = contexts[-1].new_page()
        page.on("request", lambda request: problems.append(request.url)
                if not request.url.startswith(("file:", "data:")) else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        page.goto((site / f"{name}.html").as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def test_a_search_from_the_field_leads_to_the_lesson_that_explains_the_term(open_page):
    page = open_page("01_masked_lm")
    page.get_by_role("button", name="Search").first.click()
    page.get_by_role("searchbox").first.fill("perplexity")
    page.keyboard.press("Enter")
    first = page.locator("#search-results li a").first
    expect(first).to_have_text("2 · Causal language models: writing one token at a time")
    first.click()
    expect(page.locator("#term-perplexity")).to_be_in_viewport()


@pytest.mark.parametrize(("name", "scheme"), [
    *((name, "light") for name in PAGES), *((name, "dark") for name in ("index", "search", LESSONS[0], "GLOSSARY"))])
def test_axe_finds_no_serious_fault(open_page, axe, name, scheme):
    page = open_page(name, color_scheme=scheme)
    assert page.locator("html").get_attribute("data-theme") == scheme
    page.evaluate(AT_REST)
    page.evaluate(axe)
    assert page.evaluate(FAULTS) == []


@pytest.mark.parametrize("name", PAGES)
def test_in_a_narrow_window_only_tables_code_and_formulas_move_sideways(open_page, name):
    assert open_page(name, width=400).evaluate(TOO_WIDE) == []


def test_the_front_page_fits_into_one_window_and_code_is_folded(open_page):
    page = open_page("index")
    last = page.locator("ul.lessons li").last
    expect(page.locator("ul.lessons li")).to_have_count(len(LESSONS))
    assert last.bounding_box()["y"] + last.bounding_box()["height"] <= 800
    expect(open_page("01_masked_lm").get_by_text('if "google.colab" in sys.modules:')).to_be_hidden()
    page.screenshot(path=ROOT / "build" / "browser" / "site.png")
