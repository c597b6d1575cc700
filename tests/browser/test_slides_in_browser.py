"""The slides in Chromium, from a disk and without a network: the cells of a lesson, one on each slide, that fit."""

import shutil
from pathlib import Path

import pytest
from slides import NOTEBOOKS, write_slides

# The name of each slide that is higher than its place. Only the current slide has a size.
TOO_HIGH = """() => Reveal.getSlides().filter(slide => {
    const {h, v} = Reveal.getIndices(slide);
    Reveal.slide(h, v);
    return slide.scrollHeight > Reveal.getConfig().height + 1;
}).map(slide => slide.innerText.slice(0, 60))"""


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    if shutil.which("npm") is None:
        pytest.skip("reveal.js comes by npm, which is not installed.")
    return {path.stem: path for path in write_slides(tmp_path_factory.mktemp("slides"))}


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_a_deck_has_slides_that_fit_and_asks_no_other_host(browser, decks, name):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    problems = []
    page.on("request", lambda request: problems.append(request.url)
            if not request.url.startswith(("file:", "data:")) else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(decks[name].as_uri())
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    slides = page.evaluate("Reveal.getTotalSlides()")
    too_high = page.evaluate(TOO_HIGH)
    page.screenshot(path=Path(NOTEBOOKS.parent, "build", "browser", f"slides-{name[:2]}.png"))
    page.close()
    assert problems == []
    assert slides > 8
    assert len(too_high) <= 2, too_high
