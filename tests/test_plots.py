"""Figures: the bytes, the text for those who cannot see them, and labels with awkward characters."""

import base64

import pytest

from llm_tutorial import plots
from llm_tutorial.decoding import Prediction
from llm_tutorial.plots import bars, lines, prediction_bars

TEXT = {"caption": "A caption.", "alt": "What it shows."}
DRAWINGS = {
    "bars": lambda: bars({"a": 0.75, "b": 0.25}, xlabel="share", **TEXT),
    "lines": lambda: lines({"train": ([1, 2], [3.0, 2.0]), "valid": ([1, 2], [3.5, 3.0])},
                           xlabel="step", ylabel="loss", **TEXT),
    "prediction_bars": lambda: prediction_bars([Prediction(" a", 7, 0.9), Prediction("b", 9, 0.1)], caption="Next."),
}


@pytest.fixture
def drawn_axes(monkeypatch) -> list:
    """The axes of every figure drawn, to look at what is on them."""
    kept, make = [], plots._axes

    def keep(height):
        canvas, axes = make(height)
        kept.append(axes)
        return canvas, axes

    monkeypatch.setattr(plots, "_axes", keep)
    return kept


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_a_png_of_the_same_bytes_each_time(name):
    figure = DRAWINGS[name]()
    assert figure.png.startswith(b"\x89PNG\r\n\x1a\n")
    assert figure.png.rstrip().endswith(b"IEND\xaeB`\x82")
    assert DRAWINGS[name]().png == figure.png


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_alternative_text_is_in_the_metadata_and_in_plain_text(name):
    figure = DRAWINGS[name]()
    data, metadata = figure._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == figure.png
    assert figure.alt
    assert metadata == {"image/png": {"alt": figure.alt}}
    assert data["text/plain"] == f"Figure: {figure.alt}"


def test_the_alternative_text_of_predictions_names_them_in_order():
    assert "2 most probable tokens: 'a', 'b', in this order" in DRAWINGS["prediction_bars"]().alt


def test_other_values_give_other_bytes():
    assert bars({"a": 0.5, "b": 0.5}, xlabel="share", **TEXT).png != DRAWINGS["bars"]().png


def test_the_first_bar_is_on_top_and_each_has_its_value(drawn_axes):
    DRAWINGS["bars"]()
    [axes] = drawn_axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.yaxis_inverted()
    assert [text.get_text() for text in axes.texts] == ["0.750", "0.250"]


def test_tokens_with_the_same_text_keep_a_bar_each(drawn_axes):
    prediction_bars([Prediction("\ufffd", 1, 0.6), Prediction("\ufffd", 2, 0.3), Prediction("a", 3, 0.1)], caption="")
    assert [bar.get_width() for bar in drawn_axes[0].patches] == [0.6, 0.3, 0.1]


@pytest.mark.parametrize("token", ["$", "$$", "$x^$", "$\\alpha$", "\n", "", "漢", "🙂"])
def test_any_token_can_be_drawn(token, drawn_axes):
    prediction_bars([Prediction(token, 1, 0.6), Prediction("a$", 2, 0.3)], caption="It costs $5 to $6_.")
    assert drawn_axes[0].patches[0].get_width() == 0.6


def test_bars_of_nothing_but_zeros_can_be_drawn():
    assert bars({"a": 0.0, "b": 0.0}, xlabel="share", **TEXT).png


@pytest.mark.parametrize(("draw", "message"), [
    (lambda: bars({}, xlabel="share", **TEXT), "There is nothing to draw: give at least one bar"),
    (lambda: prediction_bars([], caption=""), "There is nothing to draw: give at least one prediction"),
    (lambda: lines({}, xlabel="x", ylabel="y", **TEXT), "0 curves were given: draw between 1 and 4"),
    (lambda: lines({str(i): ([1], [1]) for i in range(5)}, xlabel="x", ylabel="y", **TEXT), "5 curves were given"),
])
def test_bad_drawings_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
