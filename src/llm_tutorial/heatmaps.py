"""Tables of numbers as colours: one large with text in its cells, or many small ones on one scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from llm_tutorial.figures import STYLE, Figure, drawable, picture, text_width

__all__ = ["heat_map", "heat_maps"]

# ColorBrewer's YlGnBu (https://colorbrewer2.org), from light for little to dark for much, like ink: brightness alone
# carries the order, for all kinds of colour vision and in print.
_COLOURS = colormaps["YlGnBu"]
_WIDTH = 7  # inches: 700 pixels, about what pages have for a picture


@rc_context(STYLE)
def heat_map(
    values: ArrayLike | torch.Tensor,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    xlabel: str,
    ylabel: str,
    caption: str,
    alt: str,
    cells: Sequence[Sequence[str]] | None = None,
    colour_label: str = "",
) -> Figure:
    """Draw a table of numbers as colours; the scale begins at 0, or below if a number does.

    Text that is too wide for a column is written upwards: tables are easiest to read with the shorter side as columns.

    Args:
        values: numbers of shape (rows, columns), as an array, a tensor or lists.
        rows, columns: the labels at the left and below.
        cells: text to write into the cells, of the same shape.
        colour_label: what the colours stand for, with its unit.

    Raises:
        ValueError: there is nothing to draw, a number is not finite, or the shapes differ.
    """
    table = _numbers(values)
    if table.shape != (len(rows), len(columns)):
        raise ValueError(f"The values have the shape {table.shape}, the labels {(len(rows), len(columns))}: give one "
                         "label per row and one per column.")
    texts = None if cells is None else [[_printable(text) for text in row] for row in cells]
    if texts is not None and [len(row) for row in texts] != [len(columns)] * len(rows):
        widths = sorted({len(row) for row in texts})
        raise ValueError(f"The values have the shape {table.shape}, the cells ({len(texts)}, "
                         f"{' or '.join(map(str, widths))}): give one text per value.")
    row_labels, column_labels = [_printable(label) for label in rows], [_printable(label) for label in columns]

    # All in inches.  What the labels at the left leave is for the columns.
    left = _width_of(row_labels, 9.5) + 0.45
    widest = _width_of((text for row in texts or [] for text in row), 9)
    column_width = max(min(max(_WIDTH - left - 0.15, 2.5) / len(columns), max(widest + 0.1, 0.55)), 0.17)
    # Text in the cells shrinks a little to fit; if that is not enough, it is written upwards in higher rows.
    size = min(9, 9 * (column_width - 0.06) / widest) if widest else 9
    upwards = size < 7.5
    row_height = widest + 0.15 if upwards else 0.27
    # Slanted labels keep apart as long as a line of text fits between their parallel baselines.
    longest = _width_of(column_labels, 9.5)
    angle = 0 if longest + 0.05 <= column_width else 45 if column_width * math.sin(math.pi / 4) >= 0.165 else 90
    below = longest * math.sin(math.radians(angle)) + 0.2

    width, height = left + column_width * len(columns) + 0.15, row_height * len(rows) + below + 1.4
    canvas = Canvas(figsize=(max(width, 5), height), layout="constrained")
    axes = canvas.add_subplot()
    scale = _scale(table)
    axes.imshow(table, cmap=_COLOURS, norm=scale, aspect="auto")
    axes.set_xticks(range(len(columns)), column_labels, fontsize=9.5, rotation=angle, rotation_mode="anchor",
                    ha="center" if angle == 0 else "right", va="top" if angle == 0 else "center")
    axes.set_yticks(range(len(rows)), row_labels, fontsize=9.5)
    axes.tick_params("x", pad=4 if angle == 0 else 7)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    _as_grid(axes, table.shape)
    for row, line in enumerate(texts or []):
        for column, text in enumerate(line):
            colour = _readable_on(_COLOURS(scale(table[row, column])))
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9 if upwards else size,
                      rotation=90 if upwards else 0)
    _colour_bar(canvas, axes, scale, colour_label)
    return picture(canvas, caption, alt)


@rc_context(STYLE)
def heat_maps(
    matrices: Mapping[str, ArrayLike | torch.Tensor],
    *,
    caption: str,
    alt: str,
    columns: int = 6,
    colour_label: str = "",
) -> Figure:
    """Draw many small tables of equal shape on one colour scale, for instance one per attention head.

    Args:
        matrices: a short title, and numbers of shape (rows, columns), for each; drawn from left to right, then down.
        columns: how many stand side by side.
        colour_label: what the colours stand for, with its unit.

    Raises:
        ValueError: there is nothing to draw, a number is not finite, the shapes differ, or a title is too long for
            the number of columns.
    """
    if not matrices or columns < 1:
        raise ValueError(f"There is nothing to draw: {len(matrices)} matrices in {columns} columns.")
    tables = {title: _numbers(matrix) for title, matrix in matrices.items()}
    first, shape = next((title, table.shape) for title, table in tables.items())
    for title, table in tables.items():
        if table.shape != shape:
            raise ValueError(f"{first!r} has the shape {shape}, {title!r} {table.shape}: draw equal ones together.")
    columns = min(columns, len(tables))
    lines = math.ceil(len(tables) / columns)

    # In inches, from the top left corner: every matrix has a place with a title above it and a gap around.
    place = min((_WIDTH - 0.1) / columns, 1.8)
    side, gap = 0.9 * place, 0.1 * place
    height = side * min(max(shape[0] / shape[1], 0.25), 4)
    titles = {title: _printable(title) for title in tables}
    size = min(10.0, 10 * place / max(_width_of(titles.values(), 10) + 0.04, 0.01))
    if size < 6:
        longest = max(titles.values(), key=len)
        raise ValueError(f"The title {longest!r} is too long for {columns} columns: shorten it or draw fewer columns.")
    line = height + size / 72 * 1.4 + gap

    canvas = Canvas(figsize=(max(place * columns + 0.1, 5), line * lines + 1.0), layout="constrained")
    axes = canvas.add_subplot()
    scale = _scale(np.stack(list(tables.values())))
    for number, (title, table) in enumerate(tables.items()):
        x, y = number % columns * place, number // columns * line + size / 72 * 1.4
        axes.imshow(table, cmap=_COLOURS, norm=scale, extent=(x, x + side, y + height, y), interpolation="nearest")
        axes.add_patch(Rectangle((x, y), side, height, fill=False, edgecolor="0.6", linewidth=0.5))
        axes.text(x + side / 2, y - 0.03, titles[title], ha="center", va="bottom", fontsize=size)
    axes.set(xlim=(-0.02, columns * place), ylim=(lines * line, 0), aspect="equal")
    axes.set_axis_off()
    _colour_bar(canvas, axes, scale, colour_label)
    return picture(canvas, caption, alt)


def _numbers(values: ArrayLike | torch.Tensor) -> np.ndarray:
    """The values as float64 of shape (rows, columns)."""
    if isinstance(values, torch.Tensor):
        values = values.detach().double().cpu()
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"There is nothing to draw in values of shape {table.shape}: give at least one row and one "
                         "column of numbers.")
    if not np.isfinite(table).all():
        place = tuple(int(index) for index in np.argwhere(~np.isfinite(table))[0])
        raise ValueError(f"The value at {place} is {table[place]}: only finite numbers have a colour.")
    return table


def _scale(numbers: np.ndarray) -> Normalize:
    low, high = min(numbers.min(), 0), max(numbers.max(), 0)
    return Normalize(low, high if high > low else 1)


def _printable(text: str) -> str:
    """Like ``drawable``, with escapes for line breaks and other characters that leave no mark, too."""
    return drawable("".join(c if c == " " or c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def _width_of(texts: Iterable[str], size: float) -> float:
    """Width in inches of the widest text."""
    return max((text_width(text, FontProperties(size=size)) for text in texts), default=0)


def _readable_on(colour: Sequence[float]) -> str:
    """Black or white, whichever has the higher contrast to the colour (WCAG 2.2: the two are equal at 0.179)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return "black" if np.dot(parts, (0.2126, 0.7152, 0.0722)) > 0.179 else "white"


def _as_grid(axes: Axes, shape: tuple[int, int]) -> None:
    """White lines between the cells and no frame."""
    axes.set_xticks(np.arange(shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _colour_bar(canvas: Canvas, axes: Axes, scale: Normalize, label: str) -> None:
    """Above the drawing, where it takes no room from the columns."""
    bar = canvas.colorbar(ScalarMappable(scale, _COLOURS), ax=axes, location="top", aspect=30, shrink=0.6,
                          pad=0.12 / canvas.get_figheight())
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9)
    bar.set_label(drawable(label), fontsize=10)
