"""Figures with alternative text: static, safe for color blindness, readable on light and dark pages."""

from __future__ import annotations

import base64
import io
import json
import math
import textwrap
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
import torch
from matplotlib import colormaps, style
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from llm_tutorial.decoding import Prediction
from llm_tutorial.sources.files import data_folder, verified

__all__ = [
    "Figure", "SurprisalText", "bars", "drawable", "drawing", "heat_map", "line_panels", "lines",
    "panels", "prediction_bars", "surprisal_text", "token_names",
]

FONT = "DejaVu Sans"  # comes with matplotlib
STYLE = {
    "font.family": FONT, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "text.parse_math": False,  # tokens may hold dollar signs
}
Curve = tuple[Sequence[float], Sequence[float]]
WIDTH = 7  # inches: 700 pixels, about the width of a notebook's output
LETTERS = 12  # of 9 points that fit into an inch, on average

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), which people with any kind of color vision can tell
# apart; the lines differ in dashes and markers too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00")
DASHES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)), (0, (8, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P")
# ColorBrewer's YlGnBu (https://colorbrewer2.org), from light for little to dark for much: brightness alone carries the
# order, for any kind of color vision and in print.
MAP = colormaps["YlGnBu"].with_extremes(bad="white")


@dataclass(frozen=True)
class Figure:
    """A picture as PNG, and in words: ``alt`` with rounded numbers, ``text`` without those that may differ."""

    png: bytes = field(repr=False)
    alt: str
    text: str
    width: int = 0  # pixels of the page, if not those of the PNG

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": f"Figure: {self.text}"}
        return data, {"image/png": {"alt": self.alt, **({"width": self.width} if self.width else {})}}


def drawing(name: str) -> Figure:
    """Return one of the bundled drawings."""
    folder = data_folder() / "drawings"
    texts = json.loads(verified(folder / "drawings.json").read_text(encoding="utf-8"))
    if name not in texts:
        raise ValueError(f"There is no drawing {name!r}: choose one of {', '.join(texts)}.")
    return Figure(verified(folder / f"{name}.png").read_bytes(), texts[name], texts[name], 100 * WIDTH)


def bars(shares: Mapping[str, float], *, xlabel: str, title: str = "") -> Figure:
    """Draw one horizontal bar per entry, labeled with its value, first entry on top."""
    return panels({"": shares}, xlabel=xlabel, title=title)


def prediction_bars(predictions: Sequence[Prediction], *, title: str = "") -> Figure:
    """Draw the probability of each predicted token, most probable first."""
    shares = (p.probability for p in predictions)
    return bars(dict(zip(token_names(predictions), shares, strict=True)), xlabel="probability", title=title)


def token_names(predictions: Sequence[Prediction]) -> list[str]:
    """Return the tokens in quotes; parts of one character decode to the same text, so their ids tell them apart."""
    texts = [p.token for p in predictions]
    return [f"{p.token!r} ({p.id})" if texts.count(p.token) > 1 else repr(p.token) for p in predictions]


@style.context(STYLE, after_reset=True)
def panels(charts: Mapping[str, Mapping[str, float]], *, xlabel: str, title: str = "") -> Figure:
    """Draw one chart of horizontal bars per entry, below each other on the same x-axis, each under its own title."""
    if not charts or not all(charts.values()):
        raise ValueError(f"There is nothing to draw in {dict(charts)}: give at least one bar for each chart.")
    values = [value for shares in charts.values() for value in shares.values()]
    labels = [[_cut(name, 32) for name in shares] for shares in charts.values()]
    longest = max(len(label) for names in labels for label in names)
    titles = [_wrapped(name, 74 - longest) for name in charts]  # above the bars
    rows = [len(names) for names in labels]
    beside = 0.5 + sum(0.17 + 0.17 * (name.count("\n") + 1) if name else 0.07 for name in titles)
    inches = max(0.15, min(0.36 if len(charts) == 1 else 0.21, (5.4 - beside) / sum(rows)))  # for each row
    canvas = _canvas(WIDTH, beside + inches * sum(rows), title)
    grid = canvas.subplots(len(charts), sharex=True, squeeze=False, gridspec_kw={"height_ratios": rows})[:, 0]
    form, size = _format(values), min(10, 43 * inches)
    for axes, name, names, shares in zip(grid, titles, labels, charts.values(), strict=True):
        axes.bar_label(axes.barh(range(len(shares)), list(shares.values()), color=COLORS[0], height=0.7),
                       fmt=form, padding=4, fontsize=size)
        axes.set_yticks(range(len(shares)), names, fontsize=size)
        axes.set_ylim(len(shares) - 0.5, -0.5)  # first entry on top
        axes.set_title(name, loc="left", fontsize=9.5, weight="bold")
        axes.grid(axis="x", alpha=0.3)
    low, high = min(0, *values), max(0, *values)
    grid[0].set_xlim(1.15 * low, 1.15 * high or 1)  # room for the numbers beside the bars
    grid[-1].set_xlabel(drawable(xlabel))
    bar_names, bar_values = [], []
    for name, shares in charts.items():
        head = f"{name}: " if name else ""
        bar_names.append(f"{head}{_listed(shares)}.")
        bar_values.append(head + _listed(f"{bar} {form.format(value)}" for bar, value in shares.items()) + ".")
    return _figure(canvas, title, "Bar chart" if len(charts) == 1 else f"{len(charts)} bar charts",
                   f"The bars show {xlabel}.", " ".join(bar_names), " ".join(bar_values))


def lines(
    curves: Mapping[str, Curve], *, xlabel: str, ylabel: str, title: str = "", log: str = "",
) -> Figure:
    """Draw one line with markers per entry of ``curves``, a name with its x and y values.

    ``log`` names the logarithmic axes, "x", "y" or "xy". Another y-axis includes zero unless all of the curves would be
    in its upper half.
    """
    return line_panels({"": curves}, xlabels=[xlabel], ylabel=ylabel, title=title, log=log)


@style.context(STYLE, after_reset=True)
def line_panels(
    charts: Mapping[str, Mapping[str, Curve]], *, xlabels: Sequence[str], ylabel: str, title: str = "", log: str = "",
) -> Figure:
    """Draw charts of lines side by side, each under its own title, on one y-axis, and each on an x-axis of its own."""
    names = list(dict.fromkeys(name for curves in charts.values() for name in curves))
    if not 1 <= len(names) <= len(COLORS):
        raise ValueError(f"{len(names)} curves were given: draw between 1 and {len(COLORS)}.")
    canvas = _canvas(WIDTH, 3 + 0.2 * ((len(names) + 1) // 2), title)
    grid = canvas.subplots(1, len(charts), sharey=True, squeeze=False)[0]
    handles, courses, points = {}, [], []
    for axes, (head, curves), xlabel in zip(grid, charts.items(), xlabels, strict=True):
        for name, (x, y) in curves.items():
            x, y, look = _numbers(x), _numbers(y), names.index(name)
            [handles[name]] = axes.plot(x, y, color=COLORS[look], linestyle=DASHES[look], marker=MARKERS[look],
                                        markersize=4, markevery=max(1, len(x) // 25))
            courses.append((f"{head}, " if head else "") + f"{name}: {_course(x, y)}.")
            points.append((x, y))
        axes.set_xlabel(drawable(xlabel))
        axes.set_title(_wrapped(head, 36), loc="left", fontsize=9.5, weight="bold")
        axes.grid(alpha=0.3)
    grid[0].set_ylabel(drawable(ylabel))
    for letter, values in zip("xy", map(np.concatenate, zip(*points, strict=True)), strict=True):
        if letter in log and not (values > 0).all():
            raise ValueError("A logarithmic axis has no place for values that are not above 0: leave them out.")
        if letter == "y" and "y" not in log and 0 <= values.min() < values.max() / 2:  # else all is in the upper half
            grid[0].set_ylim(bottom=0)
        for axes in grid:
            axis = getattr(axes, f"{letter}axis")
            if letter in log:
                axes.set(**{f"{letter}scale": "log"})
                axis.set_minor_locator(NullLocator())
                axis.set_major_formatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}")  # the usual is mathematics
                doublings = letter == "x" and values.max() <= 256 * values.min()
                axis.get_major_locator().set_params(base=2 if doublings else 10, numticks=9 // len(grid))
            elif (values == np.round(values)).all():
                axis.get_major_locator().set_params(integer=True)
    canvas.legend(handles.values(), [_wrapped(name, 40) for name in handles], loc="outside lower center", ncols=2,
                  frameon=False, fontsize=9, handlelength=3)
    frame = f"x-axis: {' and '.join(xlabels)}; y-axis: {ylabel}"
    frame += {"": "", "xy": "; logarithmic"}.get(log, f"; {log}-axis logarithmic")
    return _figure(canvas, title, "Line chart" if len(charts) == 1 else f"{len(charts)} line charts", f"{frame}.",
                   f"Curves: {_listed(names)}.", " ".join(courses))


@style.context(STYLE, after_reset=True)
def heat_map(
    values: ArrayLike | torch.Tensor, *, rows: Sequence[str], columns: Sequence[str], xlabel: str, ylabel: str,
    color_label: str, title: str = "", cells: Sequence[Sequence[str]] = (),
) -> Figure:
    """Draw numbers of shape (rows, columns) as colors, those that are not finite white.

    ``cells`` are texts of the same shape, cut to fit; ``color_label`` says what the colors stand for, with its unit.
    """
    table = np.ma.masked_invalid(_numbers(values))
    texts = [[drawable(text) for text in row] for row in cells]
    if not table.count() or not table.shape == (len(rows), len(columns)) == (np.shape(texts) if texts else table.shape):
        raise ValueError(f"The values have the shape {table.shape}: give as many rows, columns and cells, and at least "
                         "one finite number.")
    row_labels, column_labels = ([_cut(name, 24) for name in names] for names in (rows, columns))

    # In letters: how many fit into a cell.  They can be somewhat smaller than the labels.
    left = max(map(len, row_labels)) + 5
    room = max(2, (WIDTH * LETTERS - left) / len(columns))
    longest = max((len(text) for row in texts for text in row), default=0)
    size = max(7, min(9, 9 * room / max(longest, 1)))
    row_height = max(0.17, min(0.3, 6 / len(rows)))
    label = max(map(len, column_labels))
    angle = 0 if label <= room else 45 if room >= 3 else 90
    below = 0.25 + label / LETTERS * math.sin(math.radians(angle))
    canvas = _canvas((left + room * len(columns)) / LETTERS, row_height * len(rows) + below + 0.7, title)

    axes = canvas.add_subplot()
    low, high = min(table.min(), 0), max(table.max(), 0)
    scale = Normalize(low, high if high > low else 1)
    axes.imshow(table, cmap=MAP, norm=scale, aspect="auto")
    axes.set_xticks(range(len(columns)), column_labels, fontsize=9, rotation=angle, rotation_mode="anchor",
                    ha="right" if angle else "center", va="center" if angle else "top")
    axes.set_yticks(range(len(rows)), row_labels, fontsize=min(9, 50 * row_height))
    axes.tick_params("x", pad=7 if angle else 4)
    axes.set(xlabel=drawable(xlabel), ylabel=drawable(ylabel))
    # White lines between the cells and no frame.
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    colors = MAP(scale(table))
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            axes.text(column, row, _cut(text, int(1.25 * room)), ha="center", va="center", fontsize=size,
                      in_layout=False, color=_readable_on(colors[row, column]))
    # The colors with their numbers, above the drawing, where they take no room from the columns.
    bar = canvas.colorbar(ScalarMappable(scale, MAP), ax=axes, location="top", aspect=30, shrink=0.6, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(drawable(color_label), fontsize=9)

    form = _format(table.compressed())
    peaks = "; ".join(
        f"{rows[row]}: {columns[best]} " + (f"with {str(cells[row][best])!r} " if texts else "")
        + form.format(table[row, best])
        for row, best in enumerate(table.argmax(axis=1)) if table[row].count())
    return _figure(canvas, title, f"Heat map of {len(rows)} rows and {len(columns)} columns",
                   f"Rows ({ylabel}): {_listed(rows)}. Columns ({xlabel}): {_listed(columns)}.", "",
                   f"The colors ({color_label}) stand for {form.format(table.min())} to {form.format(table.max())}. "
                   f"The largest of each row: {peaks}.")


def drawable(text: object) -> str:
    """Return the text with an escape such as ``\\u6f22`` for each character that is invisible or not in the font.

    Titles of charts are bold, and the bold face lacks some characters of the other.
    """
    faces = [get_font(findfont(FontProperties(family=FONT, style="normal", weight=weight)))
             for weight in ("normal", "bold")]
    return "".join(c if all(face.get_char_index(ord(c)) for face in faces) else c.encode("unicode_escape").decode()
                   for c in visible(text))


def visible(text: object) -> str:
    """Return the text with escapes for line breaks and other characters that leave no mark."""
    return "".join(c if c == " " or c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _wrapped(text: object, letters: int) -> str:
    return textwrap.fill(drawable(text), letters)


def _cut(text: object, letters: int) -> str:
    text = drawable(text)
    return text if len(text) <= letters else text[:letters - 1] + "…"


def _canvas(width: float, height: float, title: str) -> Canvas:
    """An empty picture of a size in inches, which the title above it makes higher."""
    words = _wrapped(title, int(width * LETTERS))
    above = 0.1 + 0.2 * (words.count("\n") + 1) if words else 0
    canvas = Canvas(figsize=(width, height + above), layout="constrained")
    if words:
        canvas.suptitle(words, x=0.01, ha="left", fontsize=11.5)
    return canvas


def _figure(canvas: Canvas, title: str, kind: str, frame: str, names: str, values: str) -> Figure:
    """The picture and its texts: kind, title and frame in both, then either the names or the values."""
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", metadata={"Software": None})
    head = f"{kind}: {title}" if title else kind
    head += f"{'' if head.endswith(('.', '?', '!', '…')) else '.'} {frame}"
    return Figure(buffer.getvalue(), visible(f"{head} {values}"), visible(f"{head} {names}".rstrip()))


def _numbers(values: ArrayLike | torch.Tensor) -> np.ndarray:
    return np.asarray(values.detach().double().cpu() if isinstance(values, torch.Tensor) else values, dtype=float)


def _readable_on(color: Sequence[float]) -> str:
    """Black or white, the one with the higher contrast to the color (WCAG 2.2: the two are equal at 0.179)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return "black" if np.dot(parts, (0.2126, 0.7152, 0.0722)) > 0.179 else "white"


def _format(values: Iterable[float]) -> str:
    """A format for the numbers of one chart: 0.123, 12.3 or 1,234, by the largest of them."""
    largest = max(map(abs, values), default=0)
    return "{:.3f}" if largest < 10 else "{:,.1f}" if largest < 1000 else "{:,.0f}"


def _listed(names: Iterable[object]) -> str:
    names = [str(name) for name in names]
    return "; ".join(names if len(names) <= 16 else [*names[:3], "…", names[-1]])


def _course(x: np.ndarray, y: np.ndarray) -> str:
    """First, lowest, highest and last finite value of a curve, each with its x."""
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if not len(y):
        return "no finite value"
    form = _format(y)
    places = {"first": 0, "lowest": y.argmin(), "highest": y.argmax(), "last": -1}
    return ", ".join(f"{role} {form.format(y[i])} at {x[i]:,g}" for role, i in places.items())


BOUNDS = 1, 2, 4, 8, 16  # each step begins at its number of bits
RANGES = "below 1", "1 to 2", "2 to 4", "4 to 8", "8 to 16", "16 and more"
# Background and text of each step, of YlGnBu, and of tokens without a number.
STEPS = (
    ("#ffffcc", "#000000"), ("#c7e9b4", "#000000"), ("#7fcdbb", "#000000"), ("#41b6c4", "#000000"),
    ("#2c7fb8", "#000000"), ("#253494", "#ffffff"), ("#ffffff", "#000000"),
)


@dataclass(frozen=True)
class SurprisalText:
    """Tokens on colored ground, each above its bits; in plain text, the bits in parentheses."""

    html: str
    text: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def surprisal_text(pairs: Sequence[tuple[str, float | None]], *, title: str) -> SurprisalText:
    """Return tokens and their bits, as ``token_surprisals`` or ``pseudo_surprisals`` give them, as colored text.

    It is readable in a dark theme; where all styles are removed, as on GitHub, the numbers remain.
    """
    # Without styles, a space keeps words apart where no token begins with one, as in BERT.
    gap = "" if any(token.startswith(" ") for token, _ in pairs) else " "
    boxes, words = [], []
    for token, bits in pairs:
        shown = visible(token.replace("\n", "↵").replace("\t", "⇥")) if token.strip(" ") else "␣" * len(token) or "∅"
        number = "–" if bits is None else f"{bits:.1f}"
        step = len(STEPS) - 1 if bits is None else bisect_right(BOUNDS, round(bits, 1))  # of the number as it is shown
        boxes.append(_box(shown, step, number) + gap + ("<br>" if "\n" in token else ""))
        words.append(f"{shown}({number})")
    legend = ", ".join(_box(name, step) for step, name in enumerate(RANGES))
    parts = " � is a part of a character." if any("�" in token for token, _ in pairs) else ""
    return SurprisalText(
        f'<div style="font-size:14px"><div><b>{escape(title)}</b></div>'
        f'<div style="line-height:1.3;margin:2px 0 6px 0">{"".join(boxes)}</div>'
        f"<small>Bits of surprisal: {legend}. One bit more halves the probability.{parts}</small></div>",
        f"{title}: {gap.join(words)}")


def _box(text: str, step: int, number: str = "") -> str:
    """HTML of one token: colored, underlined, with its number below."""
    background, color = STEPS[step]
    line = step % (len(STEPS) - 1)  # 0 to 5 pixels
    outer = ("display:inline-block;text-align:center;margin:1px;padding:1px 2px;"
             f"vertical-align:{'top' if number else 'baseline'};background-color:{background};color:{color}")
    inner = (f"display:block;white-space:pre;border-bottom:{line}px solid {color};"
             f"margin-bottom:{len(BOUNDS) - line}px")  # so that all are equally high
    below = "display:block;position:static;font-size:10px;line-height:1.3"  # notebooks shift <sub> down
    return (f'<span style="{outer}"><span style="{inner}">{escape(text)}</span>'
            + (f'<sub style="{below}">{number}</sub>' if number else "") + "</span>")
