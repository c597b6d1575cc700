"""Figures: the bytes, the text for those who cannot see them, and labels with awkward characters."""

import base64
import io
import math
from itertools import pairwise

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from llm_tutorial import figures, plots
from llm_tutorial.decoding import Prediction
from llm_tutorial.heatmaps import heat_map, heat_maps
from llm_tutorial.plots import bars, lines, panels, prediction_bars

TEXT = {"caption": "A caption.", "alt": "What it shows."}
DRAWINGS = {
    "bars": lambda: bars({"a": 0.75, "b": 0.25}, xlabel="share", **TEXT),
    "lines": lambda: lines({"train": ([1, 2], [3.0, 2.0]), "valid": ([1, 2], [3.5, 3.0])},
                           xlabel="step", ylabel="loss", **TEXT),
    "prediction_bars": lambda: prediction_bars([Prediction(" a", 7, 0.9), Prediction("b", 9, 0.1)], caption="Next."),
    "panels": lambda: panels({"long [MASK]": {"a": 0.9, "b": 0.1}, "[MASK]": {"c": 0.5}}, xlabel="share", **TEXT),
    "heat_map": lambda: table([[0.1, 0.9], [0.5, 0.0]], cells=[["a", "b"], ["c", "d"]]),
    "heat_maps": lambda: heat_maps({"1.1": np.eye(3), "1.2": np.ones((3, 3)) / 3}, colour_label="share", **TEXT),
}


def table(values, rows=None, columns=None, **options):
    rows = rows or [f"r{i}" for i in range(len(values))]
    columns = columns or [f"c{i}" for i in range(len(values[0]))]
    return heat_map(values, rows=rows, columns=columns, xlabel="to", ylabel="from", **{**TEXT, **options})


def contrast(one, other) -> float:
    """The contrast ratio of two colours as WCAG 2.2 defines it."""

    def luminance(colour):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


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


@pytest.fixture
def canvases(monkeypatch) -> list:
    """All figures as matplotlib drew them, to measure what is on them."""
    kept = []

    class Keeping(figures.FigureCanvasAgg):
        def __init__(self, figure):
            super().__init__(figure)
            kept.append(figure)

    monkeypatch.setattr(figures, "FigureCanvasAgg", Keeping)
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


def test_equal_factors_are_equal_distances_on_logarithmic_axes(canvases):
    lines({"a": ([1, 2, 64], [10, 1, 1000])}, xlabel="x", ylabel="y", logarithmic=True, **TEXT)
    lines({"a": ([1, 2, 64], [10, 1, 1000])}, xlabel="x", ylabel="y", **TEXT)
    (logarithmic,), (linear,) = (canvas.axes for canvas in canvases)
    for axes, distances in ((logarithmic, (1, 5, 1, 3)), (linear, (1, 62, 9, 999))):
        x = [axes.transData.transform((value, 1))[0] for value in (1, 2, 64)]
        y = [axes.transData.transform((1, value))[1] for value in (10, 1, 1000)]
        assert (x[2] - x[1]) / (x[1] - x[0]) == pytest.approx(distances[1] / distances[0])
        assert (y[2] - y[1]) / (y[0] - y[1]) == pytest.approx(distances[3] / distances[2])


@pytest.mark.parametrize(("draw", "message"), [
    (lambda: bars({}, xlabel="share", **TEXT), "There is nothing to draw: give at least one bar"),
    (lambda: prediction_bars([], caption=""), "There is nothing to draw: give at least one prediction"),
    (lambda: lines({}, xlabel="x", ylabel="y", **TEXT), "0 curves were given: draw between 1 and 4"),
    (lambda: panels({}, xlabel="x", **TEXT), "There is nothing to draw: give at least one chart"),
    (lambda: panels({"a": {"b": 1.0}, "c": {}}, xlabel="x", **TEXT), "There is nothing to draw in 'c'"),
    (lambda: table([[]], columns=[]), r"There is nothing to draw in values of shape \(1, 0\)"),
    (lambda: table([[1.0, float("nan")]]), r"The value at \(0, 1\) is nan: only finite numbers"),
    (lambda: table([[1.0, 2.0]], columns=["a"]), r"values have the shape \(1, 2\), the labels \(1, 1\)"),
    (lambda: table([[1.0, 2.0]], cells=[["a"]]), r"values have the shape \(1, 2\), the cells \(1, 1\)"),
    (lambda: table([[1.0], [2.0]], cells=[["a"]]), r"values have the shape \(2, 1\), the cells \(1, 1\)"),
    (lambda: table([[1.0], [2.0]], cells=[["a"], []]), r"values have the shape \(2, 1\), the cells \(2, 0 or 1\)"),
    (lambda: heat_maps({}, **TEXT), "There is nothing to draw: 0 matrices"),
    (lambda: heat_maps({"a": [[1.0]]}, columns=0, **TEXT), "1 matrices in 0 columns"),
    (lambda: heat_maps({"a": [[1.0]], "b": [[1.0, 2.0]]}, **TEXT), r"'a' has the shape \(1, 1\), 'b' \(1, 2\)"),
    (lambda: heat_maps({"a" * 20 + str(i): [[1.0]] for i in range(12)}, columns=12, **TEXT), "too long for 12 columns"),
    (lambda: lines({str(i): ([1], [1]) for i in range(5)}, xlabel="x", ylabel="y", **TEXT), "5 curves were given"),
    (lambda: lines({"a": ([1, 0], [1, 2])}, xlabel="x", ylabel="y", logarithmic=True, **TEXT), "logarithmic axis"),
    (lambda: lines({"a": ([1, 2], [1, 0])}, xlabel="x", ylabel="y", logarithmic=True, **TEXT), "not above 0"),
])
def test_bad_drawings_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_background_is_white_on_any_page(name):
    pixels = matplotlib.image.imread(io.BytesIO(DRAWINGS[name]().png))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (border == 1).all()  # opaque, too


@pytest.mark.parametrize("draw", [
    lambda caption: bars({"a": 1.0}, xlabel="share", caption=caption, alt="x"),
    lambda caption: table([[1.0]], caption=caption),
])
def test_dollar_signs_in_a_caption_that_is_wrapped_are_no_mathematics(draw, canvases):
    caption = "It costs $5 \\u6f22 or $x^_ in all. " * 6
    draw(caption)
    [text] = [text for text in canvases[0].texts if text.get_text()]
    assert text.get_text().count("\n") >= 1
    assert text.get_text().replace("\n", " ") == caption
    box = text.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= canvases[0].bbox.x1 + 1


def test_panels_share_their_axis_and_the_thickness_of_their_bars(canvases):
    panels({"one": {"a": 0.9, "b": 0.1, "c": 0.0}, "two": {"d": 0.5}}, xlabel="share", **TEXT)
    first, second = canvases[0].axes
    assert first.get_xlim() == second.get_xlim() == (0, pytest.approx(1.15 * 0.9))
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["one", "two"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b", "c"]
    assert first.yaxis_inverted()
    heights = [axes.patches[0].get_window_extent().height for axes in (first, second)]
    assert heights[0] == pytest.approx(heights[1], rel=0.1)
    assert [axes.get_xlabel() for axes in (first, second)] == ["", "share"]


@pytest.mark.parametrize("title", ["the first word of a long context " * 8, "$5 and $x^ 漢", "\n"])
def test_titles_of_panels_stay_on_the_canvas_and_apart(title, canvases):
    panels({"first": {"incomprehensible": 0.1}, title: {"b": 0.2}, "last": {"$": 0.0}}, xlabel="x", **TEXT)
    boxes = [axes._left_title.get_window_extent() for axes in canvases[0].axes]
    assert all(box.x1 <= canvases[0].bbox.x1 for box in boxes)
    for box, above in zip(boxes[1:], canvases[0].axes, strict=False):
        assert box.y1 <= above.get_window_extent().y0


def test_the_colours_follow_the_values_and_the_scale_begins_at_zero(canvases):
    table(torch.tensor([[0.25, 0.5], [1.0, 0.75]], dtype=torch.bfloat16, requires_grad=True))
    [image] = canvases[0].axes[0].images
    assert image.get_array().tolist() == [[0.25, 0.5], [1.0, 0.75]]
    assert image.get_clim() == (0, 1)
    shades = [contrast(image.cmap(image.norm(v))[:3], "white") for v in np.linspace(0, 1, 64)]
    assert all(a < b for a, b in pairwise(shades))  # darker with every step: no hue is needed


@pytest.mark.parametrize(("values", "limits"), [([[0.0]], (0, 1)), ([[-2.0]], (-2, 0)), ([[-1.0, 3.0]], (-1, 3))])
def test_the_scale_holds_zero_and_all_values(values, limits, canvases):
    table(values)
    assert canvases[0].axes[0].images[0].get_clim() == limits


def test_text_in_the_cells_can_be_read_on_every_colour(canvases):
    values = np.linspace(0, 1, 60).reshape(10, 6)
    table(values, cells=[[f"{v:.2f}" for v in row] for row in values])
    axes = canvases[0].axes[0]
    [image] = axes.images
    assert [text.get_text() for text in axes.texts] == [f"{v:.2f}" for v in values.ravel()]
    assert {text.get_color() for text in axes.texts} == {"black", "white"}
    for text, value in zip(axes.texts, values.ravel(), strict=True):
        assert contrast(text.get_color(), image.cmap(image.norm(value))[:3]) >= 4.5


@pytest.mark.parametrize(("words", "columns", "angle"), [("a", 6, 0), ("chocolate", 7, 0), ("chocolate", 14, 90),
                                                         ("incomprehensibility", 6, 90)])
def test_text_in_the_cells_stays_in_them_and_is_large_enough(words, columns, angle, canvases):
    table(np.ones((3, columns)), cells=[[words] * columns] * 3, rows=["first layer", "second", "third"])
    axes = canvases[0].axes[0]
    cell = axes.get_window_extent()
    for text in axes.texts:
        box = text.get_window_extent()
        assert text.get_rotation() == angle
        assert text.get_fontsize() >= 7.5
        assert box.width <= cell.width / columns
        assert box.height <= cell.height / 3


@pytest.mark.parametrize("label", ["a", "like", "chocolates", "incomprehensibilities"])
@pytest.mark.parametrize("count", [1, 5, 12, 20, 24, 30])
def test_column_labels_never_overlap(count, label, canvases):
    table(np.ones((2, count)), columns=[label] * count, rows=["a row with a label", "b"])
    [canvas] = canvases
    assert canvas.get_figwidth() <= 8
    labels = canvas.axes[0].get_xticklabels()
    step = canvas.axes[0].get_window_extent().width / count
    angle = math.radians(labels[0].get_rotation())
    for text in labels:
        text.set_rotation(0)
    box = labels[0].get_window_extent()
    # Parallel lines of text keep apart either along the line or across.
    assert box.width < step * max(math.cos(angle), 1e-9) or box.height <= step * math.sin(angle)


def test_row_labels_never_overlap(canvases):
    table(np.ones((40, 2)), rows=["a label"] * 40)
    boxes = [label.get_window_extent() for label in canvases[0].axes[0].get_yticklabels()]
    assert all(low.y1 < high.y0 for high, low in pairwise(boxes))


def test_awkward_characters_in_a_heat_map_are_escaped_and_drawn(canvases):
    table([[1.0, 2.0]], rows=["$x^$"], columns=["漢", "\n"], cells=[["$\\alpha$", "\x00🙂"]], colour_label="in $ 漢")
    axes, bar = canvases[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["\\u6f22", "\\n"]
    assert axes.texts[0].get_text() == "$\\alpha$"
    assert axes.texts[1].get_text().startswith("\\x00")
    assert bar.get_xlabel() == "in $ \\u6f22"


def test_many_heat_maps_stand_in_rows_on_one_scale(canvases):
    heat_maps({f"{i}": np.full((4, 4), i) for i in range(7)}, columns=3, **TEXT)
    axes = canvases[0].axes[0]
    assert {image.get_clim() for image in axes.images} == {(0, 6)}
    assert [image.get_array().max() for image in axes.images] == list(range(7))
    assert [text.get_text() for text in axes.texts] == [str(i) for i in range(7)]
    assert not axes.axison
    places = [image.get_extent()[0::3] for image in axes.images]  # left, top
    assert len({round(left, 3) for left, _ in places}) == 3
    assert len({round(top, 3) for _, top in places}) == 3
    assert places[1][0] > places[0][0]
    assert places[3][1] > places[0][1]
    corner = axes.transData.transform([(places[0]), (places[3])])
    assert corner[1][1] < corner[0][1]  # the later row is below


def test_titles_of_twelve_by_twelve_heat_maps_keep_apart(canvases):
    heat_maps({f"{i}.{j}": np.eye(6) for i in range(1, 13) for j in range(1, 13)}, columns=12, **TEXT)
    texts = canvases[0].axes[0].texts
    boxes = [text.get_window_extent() for text in texts[-12:]]
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))
    assert texts[0].get_fontsize() >= 6
    assert canvases[0].get_figwidth() <= 7.1
