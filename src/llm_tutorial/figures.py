"""Pictures with alternative text, and the style, white on any page, that all of them share."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties, findfont, get_font

__all__ = ["STYLE", "Figure", "drawable", "picture", "text_width", "wrapped"]

STYLE = {
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


def drawable(text: str) -> str:
    """Return the text with an escape such as ``\\u6f22`` for each character that the font lacks."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in text)


def text_width(text: str, font: FontProperties, dpi: float = 100) -> float:
    """Return the width in inches of one line of text, dollar signs as they are."""
    return RendererAgg(1, 1, dpi).get_text_width_height_descent(text, font, False)[0] / dpi


def wrapped(text: str, font: FontProperties, width: float, dpi: float = 100) -> str:
    """Return the text with line breaks between words, so that lines keep within the width in inches if their words do.

    Matplotlib's own ``wrap=True`` reads what is between dollar signs as mathematics, whatever ``text.parse_math`` says
    (version 3.11).
    """
    lines = []
    for paragraph in text.split("\n"):
        line, *words = paragraph.split(" ")
        for word in words:
            if text_width(f"{line} {word}", font, dpi) <= width:
                line += f" {word}"
            else:
                lines.append(line)
                line = word
        lines.append(line)
    return "\n".join(lines)


def picture(canvas: Canvas, caption: str, alt: str) -> Figure:
    """Write the caption below what is drawn and return both as a ``Figure``; call it within ``rc_context(STYLE)``."""
    font = FontProperties(size=10, style="italic")
    lines = wrapped(drawable(caption), font, 0.99 * canvas.get_figwidth(), canvas.dpi)
    canvas.supxlabel(lines, fontproperties=font, x=0.01, ha="left")
    buffer = io.BytesIO()
    FigureCanvasAgg(canvas).print_png(buffer, metadata={"Software": None})
    return Figure(buffer.getvalue(), alt)
