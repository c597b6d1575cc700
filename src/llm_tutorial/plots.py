"""Figures with alternative text: static, colour-blind safe, readable on light and dark pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties, findfont, get_font

from llm_tutorial.decoding import Prediction

__all__ = ["Figure", "bars", "lines", "prediction_bars"]

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), which all kinds of colour vision tell apart; the lines
# differ in dashes and markers too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D")
_STYLE = {
    "font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "figure.facecolor": "white", "savefig.facecolor": "white", "savefig.dpi": 110,
    "text.parse_math": False,  # tokens may hold dollar signs
}


@dataclass(frozen=True)
class Figure:
    """A picture as PNG with a caption drawn below it and text for those who cannot see it.

    Attributes:
        png: the image's bytes.
        alt: what the picture shows, in words; screen readers and text-only viewers get it.
    """

    png: bytes
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": f"Figure: {self.alt}"}
        return data, {"image/png": {"alt": self.alt}}


@rc_context(_STYLE)
def bars(shares: Mapping[str, float], *, xlabel: str, caption: str, alt: str) -> Figure:
    """Draw one horizontal bar per entry, labelled with its value, first entry on top.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not shares:
        raise ValueError("There is nothing to draw: give at least one bar.")
    canvas, axes = _axes(height=0.9 + 0.38 * len(shares))
    drawn = axes.barh(range(len(shares)), list(shares.values()), tick_label=[_drawable(name) for name in shares],
                      color=_COLOURS[0], height=0.7)
    axes.bar_label(drawn, fmt="%.3f", padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(shares.values()) or 1)
    axes.set_xlabel(xlabel)
    return _picture(canvas, caption, alt)


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


@rc_context(_STYLE)
def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, xlabel: str, ylabel: str, caption: str, alt: str
) -> Figure:
    """Draw one line with markers per entry of ``curves``, a name with its x and y values.

    Raises:
        ValueError: there is nothing to draw, or more curves than can be told apart.
    """
    if not 1 <= len(curves) <= len(_COLOURS):
        raise ValueError(f"{len(curves)} curves were given: draw between 1 and {len(_COLOURS)}.")
    canvas, axes = _axes(height=3.4)
    for (name, (x, y)), colour, dash, marker in zip(curves.items(), _COLOURS, _DASHES, _MARKERS, strict=False):
        axes.plot(x, y, color=colour, linestyle=dash, marker=marker, markersize=4, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return _picture(canvas, caption, alt)


def _axes(height: float):
    canvas = Canvas(figsize=(7, height), layout="constrained")
    return canvas, canvas.add_subplot()


def _drawable(text: str) -> str:
    """The text with an escape such as ``\\u6f22`` for each character that the font lacks."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in text)


def _picture(canvas: Canvas, caption: str, alt: str) -> Figure:
    canvas.supxlabel(_drawable(caption), fontsize=10, x=0.01, ha="left", style="italic", wrap=True)
    buffer = io.BytesIO()
    FigureCanvasAgg(canvas).print_png(buffer, metadata={"Software": None})
    return Figure(buffer.getvalue(), alt)
