"""Figures: what is drawn and where, the texts for readers who cannot see it, and tokens with awkward characters."""

import base64
import html
import io
import math
import re
from itertools import combinations, pairwise

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib import rc_context, rcParams
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from llm_tutorial import plots
from llm_tutorial.decoding import Prediction
from llm_tutorial.plots import bars, drawable, heat_map, line_panels, lines, panels, prediction_bars, surprisal_text

SENTENCE = ["[CLS]", "life", "is", "like", "a", "[MASK]", "of", "chocolate", "##s", ".", "[SEP]"]
WORDS = ["the", "variety", "chocolate", "incomprehensible", ".", "##s", "international"]
TITLE = "Life is like a [MASK] of chocolates: what a model with 135 million weights expects, for $5 or for $6_ "
NUMBERS = np.random.default_rng(0)


def table(values, **options):
    options = {"rows": [f"r{i}" for i in range(len(values))], "columns": [f"c{i}" for i in range(len(values[0]))],
               "xlabel": "to", "ylabel": "from", "color_label": "share"} | options
    return heat_map(values, **options)


def lens(columns: int):
    words = NUMBERS.choice(WORDS, size=(len(SENTENCE), columns)).tolist()
    return table(NUMBERS.random((len(SENTENCE), columns)), title=TITLE, rows=SENTENCE, cells=words,
                 columns=["embeddings", *(f"layer {i}" for i in range(1, columns))])


# Each with a factor for one of its values.
DRAWINGS = {
    "bars": lambda f: prediction_bars(
        [Prediction(" a", 7, 0.9 * f), Prediction("\n", 9, 0.1), Prediction("\n", 8, 0.0)], title="A title."),
    "panels": lambda f: panels({"long [MASK]": {"a": 0.9, "b": 0.1}, "[MASK]": {"c": 0.5 * f}}, xlabel="share"),
    "lines": lambda f: lines({"train": ([1, 2, 4], [3.0, 2.0 * f, 2.5]), "no": ([1, 2], [math.nan, math.inf]),
                              "gap": ([1, 2, 3], [math.nan, 2, 1])}, xlabel="step", ylabel="loss", title="Losses"),
    "heat_map": lambda f: table([[0.1, 0.9 * f], [0.5, 0.0]], cells=[["a", "b"], ["c", "d"]]),
}
TEXTS = {
    "bars": ("Bar chart: A title. The bars show probability.", " ' a' 0.900; '\\n' (9) 0.100; '\\n' (8) 0.000.",
             " ' a'; '\\n' (9); '\\n' (8)."),
    "panels": ("2 bar charts. The bars show share.", " long [MASK]: a 0.900; b 0.100. [MASK]: c 0.500.",
               " long [MASK]: a; b. [MASK]: c."),
    "lines": ("Line chart: Losses. x-axis: step; y-axis: loss.",
              " train: first 3.000 at 1, lowest 2.000 at 2, highest 3.000 at 1, last 2.500 at 4. no: no finite value."
              " gap: first 2.000 at 2, lowest 1.000 at 3, highest 2.000 at 2, last 1.000 at 3.",
              " Curves: train; no; gap."),
    "heat_map": ("Heat map of 2 rows and 2 columns. Rows (from): r0; r1. Columns (to): c0; c1.",
                 " The colors (share) stand for 0.000 to 0.900."
                 " The largest of each row: r0: c1 with 'b' 0.900; r1: c0 with 'c' 0.500.", ""),
}
POWERS = {"7 billion": (2 ** np.arange(8), 1120 / 2 ** np.arange(8))}
CROWDED = {
    "attention": lambda: table(NUMBERS.random((11, 11)), rows=SENTENCE, columns=SENTENCE, title=TITLE),
    "lens": lambda: lens(31),
    "four panels": lambda: panels({(TITLE + TITLE[:40])[i * 25:]: {WORDS[i + k]: 0.3 * k for k in range(4)}
                                   for i in range(4)}, xlabel="probability", title=TITLE),
    "bars": lambda: bars({TITLE: 12_345.6, "b": 8.2, "漢字": 0}, xlabel="perplexity", title=TITLE * 2),
    "six curves": lambda: lines({f"10,000 introductions, validation {i}": (range(100), np.arange(100) * i)
                                 for i in range(6)}, xlabel="step", ylabel="loss", title=TITLE * 2),
    "two panels of lines": lambda: line_panels(
        {"by step": POWERS, "by passes over the text": POWERS}, xlabels=["step", "passes over the text"],
        ylabel="gigabytes", log="xy", title=TITLE),
}


@pytest.fixture
def canvases(monkeypatch) -> list:
    """All figures as matplotlib drew them, to measure what is on them."""
    kept, make = [], plots._canvas

    def keep(*args):
        kept.append(make(*args))
        return kept[-1]

    monkeypatch.setattr(plots, "_canvas", keep)
    return kept


def outlines(canvas) -> dict:
    """The box around every text that is drawn."""
    absent = set()
    for axis in (axis for axes in canvas.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        absent |= {label for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high
                   for label in (tick.label1, tick.label2)}
        absent |= set() if axis.axes.axison else set(axis.findobj(Text))
    return {text: text.get_window_extent() for text in set(canvas.findobj(Text)) - absent
            if text.get_visible() and text.get_text().strip()}


@pytest.mark.parametrize("name", CROWDED)
def test_no_text_overlaps_another_or_leaves_a_figure_of_one_screen(name, canvases):
    CROWDED[name]()
    [canvas] = canvases
    width, height = canvas.get_size_inches()
    assert width <= 7.1
    assert height <= 6
    found = outlines(canvas)
    for text, box in found.items():
        assert min(box.x0, box.y0) >= 0, text
        assert (box.max <= canvas.bbox.max).all(), text
    for (one, first), (other, second) in combinations(found.items(), 2):
        both_slanted = one.get_rotation() % 90 and other.get_rotation() % 90  # parallel: their boxes say nothing
        assert both_slanted or not first.overlaps(second), (one, other)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_an_opaque_png_of_the_same_bytes_under_any_settings_of_matplotlib(name):
    figure = DRAWINGS[name](1)
    hostile = {"text.usetex": True, "font.family": "cursive", "font.size": 40, "figure.facecolor": "black",
               "axes.facecolor": "black", "text.color": "white", "savefig.transparent": True, "savefig.dpi": 5,
               "savefig.bbox": "tight", "path.sketch": (1, 100, 2), "figure.constrained_layout.h_pad": 3}
    with rc_context(hostile):
        assert DRAWINGS[name](1).png == figure.png
        assert rcParams["text.usetex"] is True, "the reader's settings are as before"
    pixels = matplotlib.image.imread(io.BytesIO(figure.png))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (border == 1).all()


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_says_what_it_shows_and_in_plain_text_no_number_that_may_differ(name):
    figure, (head, values, names) = DRAWINGS[name](1), TEXTS[name]
    data, metadata = figure._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == figure.png
    assert metadata == {"image/png": {"alt": head + values}}
    assert data["text/plain"] == f"Figure: {head}{names}"
    other = DRAWINGS[name](1.002)
    assert other.alt != figure.alt
    assert other.text == figure.text


@pytest.mark.parametrize(("token", "shown"), [
    ("a $x^$ \\alpha é\ufffdمرحبا", "a $x^$ \\alpha é\ufffdمرحبا"), ("漢🙂\n\xa0", "\\u6f22\\U0001f642\\n\\xa0"),
    ("\ud800ߊ \U0001ee00", "\\ud800ߊ \\U0001ee00"),  # half a character, one that the bold face lacks
])
def test_characters_that_cannot_be_seen_or_drawn_are_escaped_everywhere(token, shown, canvases):
    assert drawable(token) == shown
    labels = {"rows": [token], "columns": [token], "cells": [[token]], "xlabel": token, "ylabel": token,
              "color_label": token, "title": token}
    figures = [table([[1.0]], **labels), panels({token: {token: 1.0}}, xlabel=token, title=token),
               lines({token: ([1, 2], [1, 2])}, xlabel=token, ylabel=token, title=token, log="xy")]
    texts = {text.get_text() for canvas in canvases for text in outlines(canvas)}
    assert {text for text in texts if not re.fullmatch(r"[\d.,]*", text)} <= {shown}
    assert all((figure.alt + figure.text).isprintable() for figure in figures)


def test_the_first_bar_is_on_top_and_bars_are_equally_thick_in_all_panels(canvases):
    panels({"one": {"a": 0.9, "b": 0.1, "c": 0.0}, "two": {"d": -0.5}}, xlabel="share")
    first, second = canvases[0].axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b", "c"]
    assert first.yaxis_inverted()
    assert [text.get_text() for text in first.texts] == ["0.900", "0.100", "0.000"]
    assert first.get_xlim() == second.get_xlim() == pytest.approx((-0.575, 1.035))
    thick, other = (axes.patches[0].get_window_extent().height for axes in (first, second))
    assert thick == pytest.approx(other, rel=0.1)


def test_numbers_have_as_many_digits_as_their_size_needs():
    for largest, label in ((0, "0.000"), (9.8765, "9.877"), (98.765, "98.8"), (98_765, "98,765")):
        assert bars({"a": largest}, xlabel="x").alt.endswith(f" a {label}.")


def test_curves_differ_in_color_dashes_and_markers_and_keep_them_in_every_panel(canvases):
    curves = {str(i): ([1, 2], [-i, i]) for i in range(6)}
    line_panels({"all": curves, "last": {"5": curves["5"]}}, xlabels=["x", "y"], ylabel="z")
    first, second = (axes.get_lines() for axes in canvases[0].axes)
    assert len({c.get_color() for c in first}) == len({c.get_marker() for c in first}) == 6
    assert len({c.get_linestyle() for c in first[:4]}) == 4
    assert (second[0].get_color(), second[0].get_marker()) == (first[5].get_color(), first[5].get_marker())
    assert canvases[0].axes[0].get_ylim() == canvases[0].axes[1].get_ylim()
    assert canvases[0].axes[0].get_ylim()[0] < -5


def test_only_the_axis_that_is_named_is_logarithmic_and_another_y_axis_begins_at_zero(canvases):
    for log, scales in (("x", ("log", "linear")), ("y", ("linear", "log"))):
        lines({"a": ([1, 2, 64], torch.tensor([10, 1, 1000]))}, xlabel="x", ylabel="y", log=log)
        [axes] = canvases.pop().axes
        assert (axes.get_xscale(), axes.get_yscale()) == scales
        assert (axes.get_ylim()[0] == 0) == (log == "x")


def test_axes_of_integers_have_integers_as_labels(canvases):
    lines({"a": ([0, 1, 2, 3, 4, 5], [2, 1, 3, 1, 2, 2])}, xlabel="step", ylabel="pieces")
    labels = [text.get_text() for text in outlines(canvases[0])]
    assert {"1", "2", "3"} < set(labels)
    assert not any("." in label for label in labels)


@pytest.mark.parametrize(("draw", "message"), [
    (lambda: panels({"a": {"b": 1.0}, "c": {}}, xlabel="x"), r"nothing to draw in .*'c': \{\}"),
    (lambda: lines({}, xlabel="x", ylabel="y"), "0 curves were given: draw between 1 and 6"),
    (lambda: lines({"a": ([1, 2], [1, 0])}, xlabel="x", ylabel="y", log="y"), "not above 0: leave them out"),
    (lambda: table([[1.0, 2.0]], columns=["a"]), r"values have the shape \(1, 2\): give as many"),
    (lambda: table([[1.0, 2.0]], cells=[["a"], ["b"]]), r"values have the shape \(1, 2\): give as many"),
    (lambda: table([[math.nan]]), "at least one finite number"),
])
def test_what_would_be_drawn_wrongly_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def contrast(one, other) -> float:
    """The contrast ratio of two colors as WCAG 2.2 defines it."""
    def luminance(color):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return np.dot(parts, (0.2126, 0.7152, 0.0722))

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_a_heat_map_gets_darker_with_its_values_and_its_texts_can_be_read_on_every_color(canvases):
    values = np.append(np.linspace(0, 1, 59), -np.inf).reshape(10, 6)
    table(torch.tensor(values, dtype=torch.bfloat16, requires_grad=True), cells=[["word"] * 6] * 10)
    axes = canvases[0].axes[0]
    [image] = axes.images
    assert image.get_clim() == (0, 1)
    colors = [tuple(color[:3]) for color in image.cmap(image.norm(np.ma.masked_invalid(values))).reshape(-1, 4)]
    shades = [contrast(color, "white") for color in colors]
    assert all(a < b for a, b in pairwise(shades[:-1]))
    assert colors[-1] == (1, 1, 1), "what is not finite stays white"
    assert all(contrast(text.get_color(), color) >= 4.5 for text, color in zip(axes.texts, colors, strict=True))


def as_html(pairs) -> str:
    return surprisal_text(pairs, title="<i>")._repr_mimebundle_()["text/html"]


def test_surprisals_can_be_read_where_all_styles_are_removed():
    text = as_html([("Life", None), (" <b>&", 0.04), ("\n", 1.0), ("New", 4.0)])
    assert set(re.findall("<([a-z]+)", text)) <= {"div", "span", "sub", "small", "b", "br"}, "notebooks keep these"
    bare = html.unescape(re.sub("<[^>]*>", "", re.sub("</div>|<br>", "\n", text)))
    assert bare.strip().splitlines()[:3] == ["<i>", "Life– <b>&0.0↵1.0", "New4.0"]


def test_surprisals_can_be_read_on_light_and_dark_pages_and_without_colors():
    shades = [contrast(background, "white") for background, _ in plots.STEPS[:-1]]
    assert all(b > 1.2 * a for a, b in pairwise(shades)), "darker with every step"
    assert all(contrast(*step) >= 4.5 for step in plots.STEPS)
    text = as_html([("a", bits) for bits in (0.5, 1, 2, 4, 8, 16)])
    assert re.findall(r"border-bottom:(\d)px", text)[:6] == list("012345"), "thicker with every step"


def test_tokens_that_leave_no_mark_get_one():
    tokens = {" a": " a", "  ": "␣␣", "": "∅", "\n\n": "↵↵", "\t": "⇥", "\x00": "\\x00", "漢🙂é": "漢🙂é"}
    text = as_html([(token, 1.0) for token in tokens])
    assert re.findall(r"px\">([^<]*)</span>", text)[:len(tokens)] == list(tokens.values())
    assert "part of a character" not in text
    assert "� is a part of a character" in as_html([("\ufffd", 1.0)])
