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
from llm_tutorial.plots import bars, drawable, heat_map, line_panels, lines, panels, surprisal_text

SENTENCE = ["[CLS]", "life", "is", "like", "a", "[MASK]", "of", "chocolate", "##s", ".", "[SEP]"]
WORDS = ["the", "variety", "chocolate", "incomprehensible", ".", "##s", "international"]
TITLE = "Life is like a [MASK] of chocolates: what a model with 135 million weights expects, for $5 or for $6_ "
NUMBERS = np.random.default_rng(0)


def table(values, title="", **options):
    values = np.asarray(values) if not isinstance(values, torch.Tensor) else values
    options = {"rows": [f"r{i}" for i in range(len(values))], "columns": [f"c{i}" for i in range(values.shape[-1])],
               "xlabel": "to", "ylabel": "from"} | options
    return heat_map(values, title=title, **options)


def lens(columns: int):
    words = NUMBERS.choice(WORDS, size=(len(SENTENCE), columns)).tolist()
    return table(NUMBERS.random((len(SENTENCE), columns)), TITLE, rows=SENTENCE, cells=words, color_label="probability",
                 columns=["embeddings", *(f"layer {i}" for i in range(1, columns))], xlabel="if the model stopped here")


# Each with a factor for one of its values.
DRAWINGS = {
    "bars": lambda f: bars({"a": 0.75 * f, "b": 0.25}, xlabel="share", title="A title."),
    "prediction_bars": lambda f: plots.prediction_bars([Prediction(" a", 7, 0.9 * f), Prediction("b", 9, 0.1)]),
    "panels": lambda f: panels({"long [MASK]": {"a": 0.9, "b": 0.1}, "[MASK]": {"c": 0.5 * f}}, xlabel="share"),
    "lines": lambda f: lines({"train": ([1, 2, 4], [3.0, 2.0 * f, 2.5]), "valid": ([1, 4], [3.5, 3.0])},
                             xlabel="step", ylabel="loss", title="Losses"),
    "heat_map": lambda f: table([[0.1, 0.9 * f], [0.5, 0.0]], cells=[["a", "b"], ["c", "d"]], color_label="share"),
}
TEXTS = {
    "bars": ("Bar chart: A title. The bars show share.", " a 0.750; b 0.250.", " a; b."),
    "prediction_bars": ("Bar chart. The bars show probability.", " ' a' 0.900; 'b' 0.100.", " ' a'; 'b'."),
    "panels": ("2 bar charts. The bars show share.", " long [MASK]: a 0.900; b 0.100. [MASK]: c 0.500.",
               " long [MASK]: a; b. [MASK]: c."),
    "lines": ("Line chart: Losses. x-axis: step; y-axis: loss.",
              " train: first 3.000 at 1, lowest 2.000 at 2, highest 3.000 at 1, last 2.500 at 4."
              " valid: first 3.500 at 1, lowest 3.000 at 4, highest 3.500 at 1, last 3.000 at 4.",
              " Curves: train; valid."),
    "heat_map": ("Heat map of 2 rows and 2 columns. Rows (from): r0; r1. Columns (to): c0; c1.",
                 " The colors (share) stand for 0.000 to 0.900."
                 " The largest of each row: r0: c1 with 'b' 0.900; r1: c0 with 'c' 0.500.", ""),
}
POWERS = {"7 billion": (2 ** np.arange(8), 1120 / 2 ** np.arange(8))}
CROWDED = {
    "attention": lambda: table(NUMBERS.random((11, 11)), rows=SENTENCE, columns=SENTENCE, title=TITLE),
    "lens of 7": lambda: lens(7), "lens of 31": lambda: lens(31),
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


def test_curves_without_finite_values_and_with_gaps_are_said_to_be_so():
    figure = lines({"a": ([1, 2], [math.nan, math.inf]), "b": ([1, 2, 3], [math.nan, 2, 1])}, xlabel="x", ylabel="y")
    assert figure.alt.endswith(
        "a: no finite value. b: first 2.000 at 2, lowest 1.000 at 3, highest 2.000 at 2, last 1.000 at 3.")


@pytest.mark.parametrize(("token", "shown"), [
    ("a $x^$ \\alpha é", "a $x^$ \\alpha é"), ("漢🙂", "\\u6f22\\U0001f642"), ("\n\xa0", "\\n\\xa0"),
    ("\ufffd", "\ufffd"), ("\ud800", "\\ud800"), ("مرحبا", "مرحبا"), ("ߊ \U0001ee00", "ߊ \\U0001ee00"), ("", ""),
])
def test_characters_that_cannot_be_seen_or_drawn_are_escaped_everywhere(token, shown, canvases):
    assert drawable(token) == shown
    labels = {"rows": [token], "columns": [token], "cells": [[token]], "xlabel": token, "ylabel": token,
              "color_label": token, "title": token}
    table([[1.0]], **labels)
    lines({token: ([1, 2], [1, 2])}, xlabel=token, ylabel=token, title=token, log="xy")
    panels({token: {token: 1.0}}, xlabel=token, title=token)
    texts = {text.get_text() for canvas in canvases for text in outlines(canvas)}
    assert {text for text in texts if not re.fullmatch(r"[\d.,]*", text)} <= {shown}


def test_the_first_bar_is_on_top_and_bars_are_equally_thick_in_all_panels(canvases):
    panels({"one": {"a": 0.9, "b": 0.1, "c": 0.0}, "two": {"d": -0.5}}, xlabel="share")
    first, second = canvases[0].axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b", "c"]
    assert first.yaxis_inverted()
    assert [text.get_text() for text in first.texts] == ["0.900", "0.100", "0.000"]
    assert first.get_xlim() == second.get_xlim() == pytest.approx((-0.575, 1.035))
    thick, other = (axes.patches[0].get_window_extent().height for axes in (first, second))
    assert thick == pytest.approx(other, rel=0.1)


@pytest.mark.parametrize(("largest", "label"), [(0, "0.000"), (9.8765, "9.877"), (98.765, "98.8"), (98_765, "98,765")])
def test_numbers_have_as_many_digits_as_their_size_needs(largest, label, canvases):
    bars({"a": largest}, xlabel="x")
    assert canvases[0].axes[0].texts[0].get_text() == label


def test_curves_differ_in_color_dashes_and_markers_and_keep_them_in_every_panel(canvases):
    curves = {str(i): ([1, 2], [-i, i]) for i in range(6)}
    line_panels({"all": curves, "last": {"5": curves["5"]}}, xlabels=["x", "y"], ylabel="z")
    first, second = (axes.get_lines() for axes in canvases[0].axes)
    assert len({c.get_color() for c in first}) == len({c.get_marker() for c in first}) == 6
    assert len({c.get_linestyle() for c in first[:4]}) == 4
    assert (second[0].get_color(), second[0].get_marker()) == (first[5].get_color(), first[5].get_marker())
    assert canvases[0].axes[0].get_ylim() == canvases[0].axes[1].get_ylim()
    assert canvases[0].axes[0].get_ylim()[0] < -5


@pytest.mark.parametrize(("options", "ratios"), [
    ({}, (62, 111)), ({"log": "x"}, (5, 111)), ({"log": "y"}, (62, 3)), ({"log": "xy"}, (5, 3))])
def test_equal_factors_are_equal_distances_on_logarithmic_axes_only(options, ratios, canvases):
    lines({"a": ([1, 2, 64], torch.tensor([10, 1, 1000]))}, xlabel="x", ylabel="y", **options)
    [axes] = canvases[0].axes
    x, y = axes.transData.transform([(1, 10), (2, 1), (64, 1000)]).T
    assert ((x[2] - x[1]) / (x[1] - x[0]), (y[2] - y[1]) / (y[0] - y[1])) == pytest.approx(ratios)
    assert axes.get_ylim()[0] == 0 or ratios[1] == 3


def test_axes_of_integers_have_integers_as_labels(canvases):
    lines({"a": ([0, 1, 2, 3, 4, 5], [2, 1, 3, 1, 2, 2])}, xlabel="step", ylabel="pieces")
    labels = [text.get_text() for text in outlines(canvases[0])]
    assert {"1", "2", "3"} < set(labels)
    assert not any("." in label for label in labels)


@pytest.mark.parametrize(("draw", "message"), [
    (lambda: bars({}, xlabel="x"), "There is nothing to draw"),
    (lambda: panels({"a": {"b": 1.0}, "c": {}}, xlabel="x"), r"nothing to draw in .*'c': \{\}"),
    (lambda: lines({}, xlabel="x", ylabel="y"), "0 curves were given: draw between 1 and 6"),
    (lambda: lines({"a": ([1, 2], [1, 0])}, xlabel="x", ylabel="y", log="y"), "not above 0: leave them out"),
    (lambda: table([[1.0, 2.0]], columns=["a"]), r"values have the shape \(1, 2\): give as many"),
    (lambda: table([[1.0, 2.0]], cells=[["a"], ["b"]]), r"values have the shape \(1, 2\): give as many"),
    (lambda: table([[math.nan]]), "There is nothing to draw"),
])
def test_what_would_be_drawn_wrongly_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def contrast(one, other) -> float:
    """The contrast ratio of two colors as WCAG 2.2 defines it."""
    def luminance(color):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

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


PAIRS = [("Life", None), (" is", 3.21), (" <b>&", 0.0), (" ch", 8.1), ("ocol", 123.0), ("\n", 1.0), ("New", 4.0)]


def as_html(pairs, title="") -> str:
    return surprisal_text(pairs, title=title)._repr_mimebundle_()["text/html"]


def test_surprisals_in_plain_text_are_one_line_with_the_numbers():
    bundle = surprisal_text(PAIRS, title="A title")._repr_mimebundle_()
    assert bundle["text/plain"] == "A title: Life(–) is(3.2) <b>&(0.0) ch(8.1)ocol(123.0)↵(1.0)New(4.0)"
    assert surprisal_text([("box", 1.0), ("##s", 2.0)]).text == "box(1.0) ##s(2.0)"


@pytest.mark.parametrize(("pairs", "lines"), [
    (PAIRS, ["Life– is3.2 <b>&0.0 ch8.1ocol123.0↵1.0", "New4.0"]), ([("box", 1.0), ("##s", 2.04)], ["box1.0 ##s2.0"]),
])
def test_without_styles_words_numbers_lines_and_legend_of_surprisals_remain(pairs, lines):
    text = as_html(pairs, "<i>")
    assert set(re.findall("<([a-z]+)", text)) <= {"div", "span", "sub", "small", "b", "br"}, "notebooks keep these"
    assert set(re.findall(' ([a-z]+)="', text)) == {"style"}
    bare = html.unescape(re.sub("<[^>]*>", "", re.sub(" ?(</div>|<br>)", "\n", text)))
    assert bare.strip().splitlines() == ["<i>", *lines, "Bits of surprisal: below 1, 1 to 2, 2 to 4, 4 to 8, 8 to 16, "
                                         "16 and more. One bit more halves the probability."]


def test_surprisals_can_be_read_on_light_and_dark_pages_and_without_colors():
    shades = [contrast(background, "white") for background, _ in plots.STEPS[:-1]]
    assert all(b > 1.2 * a for a, b in pairwise(shades)), "darker with every step"
    assert all(contrast(*step) >= 4.5 for step in plots.STEPS)
    text = as_html([("a", bits) for bits in (0.5, 1, 2, 4, 8, 16)])
    assert re.findall(r"border-bottom:(\d)px", text)[:6] == list("012345"), "thicker with every step"


@pytest.mark.parametrize(("token", "shown"), [
    (" a", " a"), ("  ", "␣␣"), ("", "∅"), ("\n\n", "↵↵"), ("\t", "⇥"), ("\x00", "\\x00"), ("漢🙂é", "漢🙂é"),
    ("\ufffd", "\ufffd"),
])
def test_tokens_that_leave_no_mark_get_one(token, shown):
    assert f">{shown}</span>" in as_html([(token, 1.0)])
    assert ("part of a character" in as_html([(token, 1.0)])) is (token == "\ufffd")


@pytest.mark.parametrize("bits", [-0.5, math.nan])
def test_numbers_that_are_no_surprisal_are_refused(bits):
    with pytest.raises(ValueError, match=r"The token 'a' has .* bits: a surprisal is 0 or more"):
        surprisal_text([("b", None), ("a", bits)])
