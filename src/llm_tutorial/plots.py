"""Figures with alternative text: static, colour-blind safe, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties

from llm_tutorial.decoding import Prediction
from llm_tutorial.figures import STYLE, Figure, drawable, picture, text_width, wrapped

__all__ = ["Figure", "bars", "lines", "panels", "prediction_bars"]

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), which all kinds of colour vision tell apart; the lines
# differ in dashes and markers too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D")


@rc_context(STYLE)
def bars(shares: Mapping[str, float], *, xlabel: str, caption: str, alt: str) -> Figure:
    """Draw one horizontal bar per entry, labelled with its value, first entry on top.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not shares:
        raise ValueError("There is nothing to draw: give at least one bar.")
    canvas, axes = _axes(height=0.9 + 0.38 * len(shares))
    drawn = axes.barh(range(len(shares)), list(shares.values()), tick_label=[drawable(name) for name in shares],
                      color=_COLOURS[0], height=0.7)
    axes.bar_label(drawn, fmt="%.3f", padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(shares.values()) or 1)
    axes.set_xlabel(xlabel)
    return picture(canvas, caption, alt)


def prediction_bars(predictions: Sequence[Prediction], *, caption: str) -> Figure:
    """Draw the probability of each predicted token, most probable first.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not predictions:
        raise ValueError("There is nothing to draw: give at least one prediction.")
    best = predictions[0]
    alt = (f"Bar chart of the {len(predictions)} most probable tokens: "
           f"{', '.join(repr(p.token.strip()) for p in predictions)}, in this order; the longest bar is "
           f"{best.token.strip()!r}.")
    texts = [p.token for p in predictions]
    # Parts of one character decode to the same text; their ids tell them apart.
    shares = {f"{p.token!r} ({p.id})" if texts.count(p.token) > 1 else f"{p.token!r}": p.probability
              for p in predictions}
    return bars(shares, xlabel="probability", caption=caption, alt=alt)


@rc_context(STYLE)
def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, xlabel: str, ylabel: str, caption: str, alt: str,
    logarithmic: bool = False,
) -> Figure:
    """Draw one line with markers per entry of ``curves``, a name with its x and y values.

    Args:
        logarithmic: equal distances are equal factors, of two on the x-axis and of ten on the y-axis; otherwise the
            y-axis begins at zero.

    Raises:
        ValueError: there is nothing to draw, more curves than can be told apart, or a value that is not above zero on
            a logarithmic axis.
    """
    if not 1 <= len(curves) <= len(_COLOURS):
        raise ValueError(f"{len(curves)} curves were given: draw between 1 and {len(_COLOURS)}.")
    if logarithmic and any(value <= 0 for x, y in curves.values() for value in (*x, *y)):
        raise ValueError("A logarithmic axis has no place for values that are not above 0: leave them out.")
    canvas, axes = _axes(height=3.4)
    for (name, (x, y)), colour, dash, marker in zip(curves.items(), _COLOURS, _DASHES, _MARKERS, strict=False):
        axes.plot(x, y, color=colour, linestyle=dash, marker=marker, markersize=4, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:,g}")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return picture(canvas, caption, alt)


@rc_context(STYLE)
def panels(charts: Mapping[str, Mapping[str, float]], *, xlabel: str, caption: str, alt: str) -> Figure:
    """Draw one chart of horizontal bars per entry, below each other on the same x-axis, each under its title.

    For instance how a prediction changes as context is removed: a text as title, tokens and probabilities as bars.

    Raises:
        ValueError: there is nothing to draw in one of the charts, or there is no chart.
    """
    if not charts or not all(charts.values()):
        empty = "".join(f" in {title!r}" for title, shares in charts.items() if not shares)
        raise ValueError(f"There is nothing to draw{empty}: give at least one chart, and at least one bar in each.")
    font = FontProperties(size=11, weight="bold")
    names = max(text_width(drawable(name), FontProperties(size=11)) for shares in charts.values() for name in shares)
    titles = {title: wrapped(drawable(title), font, 6.7 - names) for title in charts}  # above the bars
    # In inches; the space between the panels grows with the lines of the titles.
    rows = [len(shares) for shares in charts.values()]
    height = 0.9 + sum(0.25 * row + 0.25 for row in rows) + 0.2 * sum(text.count("\n") + 1 for text in titles.values())
    canvas = Canvas(figsize=(7, height), layout="constrained")
    grid = canvas.subplots(len(charts), sharex=True, squeeze=False, gridspec_kw={"height_ratios": rows})[:, 0]
    for axes, (title, shares) in zip(grid, charts.items(), strict=True):
        drawn = axes.barh(range(len(shares)), list(shares.values()), tick_label=[drawable(name) for name in shares],
                          color=_COLOURS[0], height=0.7)
        axes.bar_label(drawn, fmt="%.3f", padding=4, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.set_ylim(len(shares) - 0.5, -0.5)  # first entry on top, bars equally thick in all panels
        axes.set_title(titles[title], fontproperties=font, loc="left")
    grid[0].set_xlim(0, 1.15 * max(value for shares in charts.values() for value in shares.values()) or 1)
    grid[-1].set_xlabel(xlabel)
    return picture(canvas, caption, alt)


def _axes(height: float) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(7, height), layout="constrained")
    return canvas, canvas.add_subplot()
