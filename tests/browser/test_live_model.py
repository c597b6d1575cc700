"""The masked model on lesson 1's page of the site, in Chromium, against PyTorch; no host but this one is asked."""

import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import expect

from llm_tutorial.checkpoints import load_masked_lm
from llm_tutorial.commands.live import can_build_live
from llm_tutorial.commands.pages import build_pages
from llm_tutorial.decoding import top_predictions

if not can_build_live():
    pytest.skip("the extra live is not installed, or npm is missing", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")  # of Sphinx
PROBES = Path(__file__).resolve().parents[2] / "data" / "build" / "everyday_probes.json"
SENTENCES = [probe["text"] for part in json.loads(PROBES.read_text(encoding="utf-8")).values() for probe in part]
ODD = [
    "The CAFÉ's naïve [MASK], isn't [MASK]?", "Ａ full-width 你好[MASK]世界 \U0001f600\t$5.00 «quoted»\u200b.",
    f"{'a' * 101} is [MASK] [UNK] [mask] n\u0303o.", "[MASK]",
]
LOADING_MS = 120_000  # on a busy machine


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    cells = [new_markdown_cell("# Holes"), new_code_cell("widgets.mask_playground(model, tokenizer, text)")]
    nbformat.write(new_notebook(cells=cells), folder / "01_masked_lm.ipynb")
    return build_pages(folder, tmp_path_factory.mktemp("site"), {}).parent


@pytest.fixture
def page(browser, site):
    """Lesson 1's page from a static file server, and what it asks for."""
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(f"http://127.0.0.1:{server.server_port}/01_masked_lm.html")
        yield page
        page.close()
        server.shutdown()


def fill(page, sentence):
    """Type a sentence, press Enter, and return the rows of all tables: tokens with their probabilities."""
    field, button = page.get_by_label("Sentence"), page.get_by_role("button", name="Fill the mask")
    field.fill(sentence)
    field.press("Enter")
    expect(button).not_to_have_attribute("aria-disabled", "true", timeout=LOADING_MS)
    cells = page.locator(".live-model tbody tr").evaluate_all("rows => rows.map(row => row.innerText)")
    return [(token, float(share.removesuffix("%")) / 100) for token, share in map(str.split, map(spaced, cells))]


def spaced(cells):
    return cells.replace(" %", "%")


def test_the_browser_fills_masks_as_pytorch_does(page):
    """The same five tokens in the same order for every sentence; a click loads the model, and nothing else does."""
    tokenizer, model = load_masked_lm(source="offline")
    before = [url for url in page.asked if "/live/" in url]
    for sentence in SENTENCES + ODD:
        found = fill(page, sentence)
        expected = [prediction for row in top_predictions(model, tokenizer, sentence) for prediction in row]
        assert [token for token, _ in found] == [prediction.token for prediction in expected], sentence
        assert [share for _, share in found] == pytest.approx([one.probability for one in expected], abs=0.001)
    assert before == []
    assert {url.split("/")[2].split(":")[0] for url in page.asked} == {"127.0.0.1"}


def test_a_sentence_without_a_mask_is_answered_in_words(page):
    assert fill(page, "There is no hole.") == []
    expect(page.get_by_role("status").last).to_contain_text("There is no [MASK] in the sentence")


def test_a_page_opened_from_a_disk_says_what_to_do(browser, site):
    page = browser.new_page()
    page.goto((site / "01_masked_lm.html").as_uri())
    assert fill(page, "A [MASK].") == []
    expect(page.locator(".live-model [role=status]")).to_contain_text("python -m http.server")
    page.close()
