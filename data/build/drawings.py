"""Draw the lessons' drawings: ``data/drawings/NAME.png``, and their alternative texts in ``drawings.json``.

    python data/build/drawings.py [NAME ...]
"""

from __future__ import annotations

import inspect
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Patch, Rectangle
from matplotlib.text import Text
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "drawings"
WIDTH = 700  # all lengths are pixels of the page; the file has twice as many
SMALL, NORMAL, LARGE = 12, 13, 15  # letters

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), which people with any kind of color vision can tell apart.
BLUE, ORANGE, GREEN, PURPLE, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
INK, GRAY, PALE, CARD = "#222222", "#666666", "#C9C6BE", "#FBFAF6"
DRAWINGS: dict[str, Callable[[], Drawing]] = {}


def drawing(function: Callable[[], Drawing]) -> Callable[[], Drawing]:
    """Add a function to the drawings; its docstring is the alternative text."""
    DRAWINGS[function.__name__] = function
    return function


def tint(color: str, strength: float = 0.18) -> tuple[float, ...]:
    """Return the color mixed with that of the card."""
    parts = [[int(c[i:i + 2], 16) / 255 for i in (1, 3, 5)] for c in (color, CARD)]
    return tuple(strength * one + (1 - strength) * other for one, other in zip(*parts, strict=True))


class Drawing:
    """A card to draw on, in pixels from its upper left corner. ``homes`` are the boxes that texts must stay in, and
    ``strokes`` the lines and arrows that they must not touch.
    """

    def __init__(self, height: int) -> None:
        self.canvas = Figure(figsize=(WIDTH / 100, height / 100), dpi=200, facecolor="none")
        self.axes = self.canvas.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
        self.axes.set_axis_off()
        self.homes: dict[Text, Patch] = {}
        self.strokes: list[tuple[Sequence[float], Sequence[float]]] = []
        self.card = self._add(FancyBboxPatch((7, 7), WIDTH - 14, height - 14, "round,pad=5,rounding_size=12",
                                             facecolor=CARD, edgecolor=PALE, linewidth=0.8))

    def _add(self, patch: Patch) -> Patch:
        return self.axes.add_patch(patch)

    def text(self, x: float, y: float, words: str, *, size: int = NORMAL, color: str = INK, bold: bool = False,
             align: str = "center", home: Patch | None = None) -> Text:
        """Write words, centered at a height; ``home`` is the box that they must stay in."""
        down = size * (0.36 + 0.7 * words.count("\n"))  # the (last) line's base, whether or not it has descenders
        text = self.axes.text(x, y + down, words, fontsize=0.72 * size, color=color, ha=align, va="baseline",
                              weight="bold" if bold else "normal", linespacing=1.2, zorder=5)
        self.homes[text] = home or self.card
        return text

    def box(self, x: float, y: float, width: float, height: float, words: str = "", *, color: str = BLUE,
            strength: float = 0.18, dashed: bool = False, size: int = NORMAL, bold: bool = False,
            below: bool = False) -> Patch:
        """Draw a box with rounded corners, its upper left corner at x and y, and words in it.

        ``below``: lines are drawn over it.
        """
        patch = self._add(FancyBboxPatch(
            (x + 4, y + 4), width - 8, height - 8, "round,pad=4,rounding_size=6", facecolor=tint(color, strength),
            edgecolor=color, linewidth=1.1, linestyle="--" if dashed else "-", zorder=1 if below else 3))
        if words:
            self.text(x + width / 2, y + height / 2, words, size=size, bold=bold, home=patch)
        return patch

    def cells(self, x: float, y: float, width: float, height: float, shades: Sequence[float], *, color: str = BLUE,
              upright: bool = False) -> None:
        """Draw a vector: a row (or column) of cells, each with its shade from 0 to 1."""
        for i, shade in enumerate(shades):
            step = (height if upright else width) / len(shades)
            place = (x, y + i * step) if upright else (x + i * step, y)
            size = (width, step) if upright else (step, height)
            self._add(Rectangle(place, *size, facecolor=tint(color, shade), edgecolor=color, linewidth=0.8, zorder=3))

    def bar(self, x: float, y: float, width: float, height: float, color: str | tuple[float, ...] = BLUE) -> None:
        """Draw a bar of a chart; width or height may be negative."""
        self._add(Rectangle((x, y), width, height, facecolor=color, linewidth=0, zorder=3))

    def line(self, x: Sequence[float], y: Sequence[float], color: str = GRAY, width: float = 1.2,
             dashed: bool = False) -> None:
        self.strokes.append((x, y))
        self.axes.plot(x, y, color=color, linewidth=width, linestyle="--" if dashed else "-", zorder=2,
                       solid_capstyle="round")

    def arrow(self, start: tuple[float, float], end: tuple[float, float], *, color: str = GRAY,
              width: float = 1.4) -> None:
        self.strokes.append(tuple(zip(start, end, strict=True)))
        self._add(FancyArrowPatch(
            start, end, arrowstyle="-|>,head_length=5,head_width=3", shrinkA=0, shrinkB=0, color=color,
            linewidth=width, zorder=4, joinstyle="miter", capstyle="butt"))

    def circle(self, x: float, y: float, words: str, *, color: str = ORANGE, radius: float = 13,
               strength: float = 0.18) -> None:
        patch = self._add(Circle((x, y), radius, facecolor=tint(color, strength), edgecolor=color, linewidth=1.2,
                                 zorder=4))
        self.text(x, y, words, size=NORMAL, bold=True, home=patch)

    def dot(self, x: float, y: float, color: str, radius: float = 4) -> None:
        self._add(Circle((x, y), radius, facecolor=color, linewidth=0, zorder=4))

    def half(self, x: float, y: float, width: float, height: float, row: int, *, whole: bool) -> None:
        """Draw a matrix of which a process has the upper half (row 0), the lower half (row 1), or the whole."""
        for part in (0, 1):
            kept, place = part == row, (x, y + part * height / 2)
            color = BLUE if kept else ORANGE if whole else PALE
            self._add(Rectangle(place, width, height / 2, edgecolor=color, linewidth=1.1, zorder=3 + kept,
                                facecolor=tint(color, 0.35 if kept or whole else 0),
                                linestyle="-" if kept or whole else "--"))

    def png(self) -> bytes:
        """The drawing as a PNG of its 255 most frequent colors, transparent beside the card."""
        drawn, packed = io.BytesIO(), io.BytesIO()
        self.canvas.savefig(drawn, format="png", metadata={"Software": None})
        pixels = np.asarray(Image.open(drawn).convert("RGBA"))
        found, places, counts = np.unique(pixels.reshape(-1, 4), axis=0, return_inverse=True, return_counts=True)
        palette = found[np.argsort(-counts, kind="stable")[:255]]
        distances = np.stack([((found.astype(int) - color) ** 2).sum(1) for color in palette.astype(int)])
        image = Image.fromarray(distances.argmin(0).astype(np.uint8)[places].reshape(pixels.shape[:2]), "P")
        image.putpalette(palette.tobytes(), "RGBA")
        image.save(packed, "png", optimize=True)
        return packed.getvalue()


@drawing
def hole_to_logits() -> Drawing:
    """How a masked model fills a hole. From top to bottom: the tokens "life is like a [MASK] of chocolate"; below each
    token its id, such as 103 for [MASK]; below each id its embedding, a column of numbers; then the layers, in which
    lines join every position with every other, to the left and to the right. From the position of [MASK] alone an
    arrow leads on to the logits: one bar, up or down, for each entry of the vocabulary, such as box, bag, piece and
    theorem. Softmax turns them into probabilities: bars that are all positive, the longest at box."""
    d = Drawing(560)
    ids = {"life": 2166, "is": 2003, "like": 2066, "a": 1037, "[MASK]": 103, "of": 1997, "chocolate": 7967}
    left, step, width, hole = 122, 80, 74, 4
    labels = {"tokens": 38, "ids": 87, "embeddings": 139, "layers": 227, "logits": 372, "probabilities": 480}
    for row, y in labels.items():
        d.text(20, y, row, align="left", bold=True)
    centers = [left + i * step + width / 2 for i in range(len(ids))]
    for i, (token, number) in enumerate(ids.items()):
        color = ORANGE if i == hole else BLUE
        d.box(left + i * step, 24, width, 28, token, color=color)
        d.box(left + i * step, 73, width, 28, str(number), color=color, strength=0.06)
        d.cells(centers[i] - 24, 130, 48, 18, [(i * 7 + k * k * 5) % 11 / 14 + 0.05 for k in range(4)], color=color)
        for start, end in ((53, 71), (102, 128), (150, 176)):
            d.arrow((centers[i], start), (centers[i], end), color=color)
        for other in centers:
            d.line((centers[i], other), (190, 264), PALE, 0.8)
    d.box(left, 178, 6 * step + width, 98, strength=0.05, below=True)
    d.text(left, 294, "every position looks left and right", size=SMALL, color=GRAY, align="left")
    d.text(left, 372, "one number for each\nentry of the vocabulary", size=SMALL, color=GRAY, align="left")
    for center in centers:
        d.line((center, centers[hole]), (190, 264), ORANGE)
        for y in (190, 264):
            d.dot(center, y, ORANGE if center == centers[hole] else BLUE)
    d.arrow((centers[hole], 278), (centers[hole], 322), color=ORANGE)
    words = {"…": (0.3, 0.1), "box": (1, 1), "bag": (0.75, 0.55), "piece": (0.6, 0.38), "theorem": (-0.7, 0.02)}
    places = [centers[hole] + (i - 2) * 72 for i in range(5)]
    d.line((places[0] - 36, places[-1] + 36), (382, 382), INK)
    d.line((places[0] - 36, places[-1] + 36), (504, 504), INK)
    for x, (word, (logit, share)) in zip(places, words.items(), strict=True):
        d.bar(x - 16, 382, 32, -44 * logit, GREEN)
        d.bar(x - 16, 504, 32, -62 * share, PURPLE)
        d.text(x, 524, word)
    d.arrow((places[2], 418), (places[2], 444), color=INK)
    d.text(places[2] + 12, 431, "softmax", align="left")
    return d


@drawing
def attention_lookup() -> Drawing:
    """Attention as a look-up, for the tokens box, of and chocolate. The query of box is compared with the keys of all
    three positions. Each comparison gives a score: a bar, to the left if it is negative. Softmax turns the three scores
    into weights: bars that are positive and add up to one, the longest at chocolate. Each weight multiplies the value
    of its position, and the sum of the three is the new vector of box. Queries, keys, values and the new vector are
    rows of colored cells."""
    d = Drawing(320)
    rows = {"box": (0.3, 0.3), "of": (-0.45, 0.13), "chocolate": (0.75, 0.57)}
    for x, word in {66: "query", 204: "keys", 312: "scores", 412: "weights", 522: "values", 648: "sum"}.items():
        d.text(x, 34, word, bold=True)
    vectors = [(0.2, 0.6, 0.1, 0.4), (0.5, 0.1, 0.3, 0.1), (0.1, 0.7, 0.2, 0.5)]
    mixed = [sum(w * v[k] for (_, w), v in zip(rows.values(), vectors[::-1], strict=True)) for k in range(4)]
    middle = 164
    for left, width, shades in ((22, 88, (0.1, 0.6, 0.3, 0.5)), (614, 68, mixed)):
        d.box(left, middle - 32, width, 64, color=ORANGE)
        d.text(left + width / 2, middle - 14, "box")
        d.cells(left + 10, middle + 4, width - 20, 18, shades, color=ORANGE)
    for i, (word, (score, weight)) in enumerate(rows.items()):
        y = middle + (i - 1) * 80
        for left, shades, color in ((158, vectors[i], BLUE), (476, vectors[2 - i], YELLOW)):
            d.box(left, y - 32, 92, 64, color=color)
            d.text(left + 46, y - 14, word)
            d.cells(left + 14, y + 4, 64, 18, shades, color=color)
        d.arrow((112, middle + (i - 1) * 10), (156, y), color=ORANGE)
        d.arrow((252, y), (280, y), color=BLUE)
        d.bar(310, y - 10, 44 * score, 20, GREEN)
        d.bar(384, y - 10, 100 * weight, 20, PURPLE)
        d.text(462, y, "×", size=LARGE)
        d.arrow((570, y), (612, middle + (i - 1) * 10), color=YELLOW)
    for x in (310, 384):
        d.line((x, x), (58, 270), INK)
    d.arrow((326, 290), (400, 290), color=INK)
    d.text(316, 290, "softmax", align="right")
    return d


@drawing
def causal_mask() -> Drawing:
    """Two squares of five rows and five columns for the tokens "life is like a box". A row is the position that looks,
    a column the position that is looked at. In the left square, of the causal model, only the diagonal and the cells
    below it are filled: each token sees itself and those on its left, and the upper triangle is masked. In the right
    square, of the masked model, all cells are filled: each token sees all."""
    d, tokens, size = Drawing(340), ["life", "is", "like", "a", "box"], 44
    for left, title, causal in ((76, "Causal model: looks left", True), (432, "Masked model: looks both ways", False)):
        middle = left + 2.5 * size
        d.text(middle - 18, 32, title, size=LARGE, bold=True)
        for i, token in enumerate(tokens):
            d.text(left + (i + 0.5) * size, 66, token)
            d.text(left - 10, 82 + (i + 0.5) * size, token, align="right")
            for j in range(len(tokens)):
                hidden = causal and j > i
                d.box(left + j * size + 1, 82 + i * size + 1, size - 2, size - 2, color=PALE if hidden else BLUE,
                      strength=0.15 if hidden else 0.75, dashed=hidden)
    d.box(232, 308, 20, 18, color=BLUE, strength=0.75)
    d.text(260, 317, "the row looks here", align="left", size=SMALL)
    d.box(400, 308, 20, 18, color=PALE, strength=0.15, dashed=True)
    d.text(428, 317, "masked", align="left", size=SMALL)
    return d


@drawing
def residual_stream() -> Drawing:
    """One vector per position runs through a transformer block on a straight lane from left to right. The first branch
    leaves the lane, goes through a norm and through attention, which also looks at the other positions, and is added
    to the lane. The second branch leaves it, goes through a norm and the feed-forward network, and is added too.
    Then the lane goes on to the next block: nothing replaces the vector, each part only adds to it."""
    d, lane = Drawing(304), 220
    d.box(112, 22, 472, 238, color=GRAY, strength=0.04, below=True)
    d.text(348, 42, "one block", size=SMALL, color=GRAY)
    d.bar(24, lane - 12, 652, 24, tint(BLUE, 0.18))
    for left, name, color in ((134, "attention", ORANGE), (368, "feed-\nforward", GREEN)):
        d.arrow((left + 32, lane - 14), (left + 32, 143), color=INK)
        d.box(left, 105, 64, 36, "norm", color=GRAY)
        d.arrow((left + 66, 123), (left + 88, 123), color=INK)
        d.box(left + 90, 95, 100, 56, name, color=color)
        d.arrow((left + 140, 153), (left + 140, lane - 15), color=color)
        d.circle(left + 140, lane, "+", color=color)
    d.arrow((274, 58), (274, 93), color=ORANGE)
    d.text(264, 74, "other positions", align="right", size=SMALL)
    for x, shades in ((66, (0.2, 0.4, 0.1, 0.3)), (338, (0.2, 0.6, 0.1, 0.5)), (630, (0.5, 0.6, 0.3, 0.7))):
        d.cells(x - 32, lane - 9, 64, 18, shades)
    d.text(24, 280, "the vector of one position", align="left", size=SMALL)
    d.text(676, 280, "to the next block", align="right", size=SMALL)
    return d


@drawing
def four_changes() -> Drawing:
    """Four parts of a block, in GPT-2 on the left and in Llama on the right. Norm: minus the mean, divided by the
    deviation, times g, plus b; against divided by the root mean square, times g. Positions: the vector of the position
    is added to that of the token; against an arrow that is turned further at positions 0, 1 and 2. Feed-forward: one
    wide vector through GELU; against two wide vectors, one of them through silu, which multiply each other. Heads: four
    queries with keys and values of their own; against two queries for each pair of keys and values."""
    d = Drawing(478)
    d.text(258, 32, "GPT-2", size=LARGE, bold=True)
    d.text(558, 32, "Llama", size=LARGE, bold=True)
    d.line((410, 410), (24, 454), PALE)
    for y, words in {88: "norm", 180: "positions", 290: "feed-\nforward", 408: "heads"}.items():
        d.text(20, y, words, align="left", bold=True)
    for y in (132, 224, 356):
        d.line((20, 680), (y, y), PALE)

    for x, width, words in ((122, 72, "− mean"), (212, 98, "÷ deviation"), (328, 64, "· g + b"),
                            (434, 168, "÷ root mean square"), (620, 50, "· g")):
        d.box(x, 72, width, 32, words, color=BLUE if x < 410 else ORANGE)
        if x not in (328, 620):
            d.arrow((x + width + 1, 88), (x + width + 17, 88))

    for x, color, words, shades in ((122, BLUE, "token", (0.1, 0.6, 0.2, 0.4)),
                                    (222, GREEN, "position", (0.5, 0.2, 0.6, 0.1)),
                                    (322, BLUE, "sum", (0.35, 0.5, 0.5, 0.3))):
        d.cells(x, 160, 70, 22, shades, color=color)
        d.text(x + 35, 198, words, size=SMALL, color=GRAY)
    d.text(207, 171, "+", size=LARGE)
    d.text(307, 171, "=", size=LARGE)
    for turn, x in enumerate((470, 552, 634)):
        angle = np.radians(-15 + 48 * turn)
        d.bar(x - 2, 170, 4, 4, GRAY)
        d.arrow((x, 172), (x + 30 * np.cos(angle), 172 - 30 * np.sin(angle)), color=ORANGE, width=2)
        d.text(x, 204, f"position {turn}", size=SMALL, color=GRAY)

    narrow, wide = (0.2, 0.6, 0.4), (0.5, 0.1, 0.7, 0.3, 0.6, 0.2)
    d.cells(126, 266, 20, 48, narrow, upright=True)
    d.arrow((148, 290), (188, 290))
    d.cells(190, 242, 20, 96, wide, upright=True)
    d.arrow((212, 290), (234, 290))
    d.box(236, 274, 66, 32, "GELU")
    d.arrow((304, 290), (366, 290))
    d.cells(368, 266, 20, 48, narrow[::-1], upright=True)
    d.cells(426, 266, 20, 48, narrow, upright=True, color=ORANGE)
    for y in (260, 320):
        d.arrow((448, 290), (484, y))
        d.cells(486, y - 22, 20, 44, wide[:4] if y < 290 else wide[2:], upright=True, color=ORANGE)
    d.arrow((508, 260), (526, 260))
    d.box(528, 246, 50, 28, "silu", color=ORANGE)
    d.arrow((580, 260), (602, 281), color=GRAY)
    d.arrow((508, 320), (602, 299), color=GRAY)
    d.circle(614, 290, "×")
    d.arrow((628, 290), (652, 290))
    d.cells(654, 266, 20, 48, narrow[::-1], upright=True, color=ORANGE)

    for left, color, own in ((150, BLUE, 1), (450, ORANGE, 2)):
        for head in range(4):
            x = left + 72 * head
            d.circle(x, 386, "q", color=color)
            pair = left + 72 * (head // own * own + (own - 1) / 2)
            d.line((x, pair), (400, 424), color)
            if head % own == 0:
                d.box(pair - 26, 424, 52, 28, "k, v", color=color)
    return d


@drawing
def decoding_loop() -> Drawing:
    """On the left a loop: the ids of the prompt, 10462, 27428, 379 and 262, go through the model; its last position
    gives the logits, a bar chart; one token is chosen and appended to the ids, and the loop begins again. On the right
    the key-value cache: for the old positions, keys and values are kept from earlier rounds, and only the newest token
    is fed, which adds one key and one value."""
    d = Drawing(330)
    d.text(205, 34, "The loop", size=LARGE, bold=True)
    for i, number in enumerate(("10462", "27428", "379", "262")):
        d.box(24 + i * 60, 60, 54, 30, number)
        d.arrow((51 + i * 60, 92), (51 + i * 60, 120))
    d.box(24, 122, 234, 48, "model", strength=0.3, bold=True)
    d.arrow((231, 172), (231, 210))
    d.text(220, 192, "last position", align="right", size=SMALL, color=GRAY)
    for i, height in enumerate((24, 10, 60, 34, 16, 42, 8)):
        d.bar(184 + i * 14, 276, 10, -height, ORANGE if i == 2 else GREEN)
    d.line((180, 282), (276, 276), INK)
    d.text(231, 296, "logits", bold=True)
    d.arrow((286, 250), (306, 250), color=ORANGE)
    d.box(308, 230, 88, 40, "choose", color=ORANGE)
    d.arrow((352, 228), (352, 92), color=ORANGE)
    d.box(325, 60, 54, 30, "new", color=ORANGE, dashed=True)
    d.text(342, 150, "append", align="right")
    d.line((416, 416), (28, 302), PALE)
    d.text(556, 34, "Its key-value cache", size=LARGE, bold=True)
    for name, y in {"keys": 66, "values": 134}.items():
        d.text(436, y + 23, name, align="left", bold=True)
        for i in range(5):
            shades = [(i * 5 + k * 7 + y) % 9 / 12 + 0.05 for k in range(3)]
            d.cells(506 + i * 37, y, 24, 46, shades, color=ORANGE if i == 4 else BLUE, upright=True)
    d.line((506, 506, 641, 641), (188, 194, 194, 188), BLUE)
    d.text(573, 211, "kept", color=BLUE)
    d.arrow((666, 242), (666, 184), color=ORANGE)
    d.box(632, 244, 54, 30, "new", color=ORANGE)
    d.text(620, 259, "only this token is fed", align="right", size=SMALL)
    return d


@drawing
def shift_by_one() -> Drawing:
    """The text "Swimming at the beach is a" in a row as inputs. Below each input stands its label, the next token of
    the text: at, the, beach, is, a. An arrow leads from each input down to its label, and dashed lines show that each
    label is the input of the column to the right. The last input has no label. Below each label a bar is its loss;
    the loss of the text is the mean of the bars."""
    d, words = Drawing(276), ["Swimming", "at", "the", "beach", "is", "a"]
    left, step, width = 106, 97, 83
    for row, y in {"inputs": 40, "labels": 142, "losses": 224}.items():
        d.text(20, y, row, align="left", bold=True)
    d.text(20, 91, "shifted\nby one", align="left", size=SMALL, color=GRAY)
    for i, word in enumerate(words):
        x = left + i * step
        d.box(x, 24, width, 32, word)
        if i + 1 < len(words):
            d.box(x, 126, width, 32, words[i + 1], color=GREEN)
            d.arrow((x + width / 2, 58), (x + width / 2, 124), color=INK)
            d.line((x + step + 20, x + width - 14), (57, 125), GRAY, dashed=True)
            height = (52, 30, 44, 18, 12)[i]
            d.bar(x + 20, 248 - height, width - 40, height, ORANGE)
        else:
            d.box(x, 126, width, 32, "no label", color=GRAY, dashed=True, strength=0.05)
    d.line((left, left + 5 * step - 14), (248, 248), INK)
    d.text(left + 5 * step + 4, 222, "their mean\nis the loss", align="left", color=ORANGE)
    return d


@drawing
def chunks() -> Drawing:
    """Two documents, as long bars, are cut into chunks of equal length. Document 0 gives three chunks, document 1 gives
    two. What is left at the end of each document is shorter than a chunk: it is drawn dashed and dropped. Below each
    chunk stands the document that it comes from: 0, 0, 0, 1, 1."""
    d, size, gap = Drawing(286), 84, 6
    for row, y in {"documents": 47, "chunks": 136, "mapping": 230}.items():
        d.text(20, y, row, align="left", bold=True)
    for start, count, rest, number, color in ((118, 3, 50, 0, BLUE), (462, 2, 34, 1, GREEN)):
        end = start + count * (size + gap) + rest
        d.box(start, 28, end - start, 38, f"document {number}", color=color, strength=0.3)
        for k in range(count + 1):
            x = start + k * (size + gap)
            width = size if k < count else rest
            d.arrow((x + width / 2, 70), (x + width / 2, 112), color=color if k < count else GRAY)
            if k < count:
                d.box(x, 116, size, 40, color=color)
                d.cells(x + 10, 129, size - 20, 14, [(k * 3 + m * 5 + number) % 7 / 14 for m in range(5)], color=color)
                d.arrow((x + size / 2, 160), (x + size / 2, 212), color=color)
                d.circle(x + size / 2, 230, str(number), color=color, radius=15)
            else:
                d.box(x, 116, width, 40, color=GRAY, strength=0.03, dashed=True)
                d.text(x + width / 2, 182, "rest,\ndropped", size=SMALL, color=GRAY)
    return d


@drawing
def checkpoint() -> Drawing:
    """A training run as a line from left to right: it saves a checkpoint, goes on for some steps, is stopped, and later
    goes on from the checkpoint. Below, the folder of the checkpoint holds the weights, the state of the optimizer, the
    schedule of the learning rate, the random state, and trainer_state.json with the step, and so the position in the
    data. This file is written last: a folder that has it is whole."""
    d = Drawing(332)
    d.line((40, 430), (74, 74), BLUE, 2.4)
    d.text(40, 50, "training", align="left")
    d.line((424, 440), (66, 82), ORANGE, 2.4)
    d.line((424, 440), (82, 66), ORANGE, 2.4)
    d.text(448, 74, "stopped", align="left", color=ORANGE)
    d.dot(230, 74, BLUE, 7)
    d.arrow((230, 84), (230, 136), color=BLUE)
    d.text(220, 106, "save", align="right")
    d.line((536, 536), (136, 74), GREEN, 2.4)
    d.arrow((536, 74), (664, 74), color=GREEN, width=2.4)
    d.text(548, 106, "go on from here", align="left")
    d.box(24, 138, 652, 172, color=GRAY, strength=0.05, below=True)
    d.text(44, 158, "checkpoint", align="left", bold=True)
    for i, name in enumerate(("weights", "optimizer state", "schedule", "random state")):
        d.box(44 + i % 3 * 208, 178 + i // 3 * 64, 196, 52, name)
    d.box(252, 242, 404, 52, "step, and so the position in the data:\ntrainer_state.json, written last", color=GREEN)
    return d


@drawing
def lora() -> Drawing:
    """LoRA beside a frozen matrix. The vector x takes two paths. On the first it is multiplied by the large square
    matrix W of d rows and d columns, which is frozen. On the second it is multiplied by the flat matrix A of r rows and
    d columns, then by the thin matrix B of d rows and r columns, and only these two are trained. The results of both
    paths are added."""
    d, shades = Drawing(340), (0.2, 0.6, 0.1, 0.4, 0.3, 0.5, 0.2, 0.1)
    for x, words, color in ((46, "x", INK), (620, "W x + B A x", GREEN)):
        d.cells(x, 94, 20, 128, shades[::1 if color == INK else -1], color=color, upright=True)
        d.text(x + 10, 246, words, bold=True)
    d.arrow((76, 140), (224, 92), color=BLUE)
    d.box(226, 24, 124, 124, strength=0.22)
    d.text(288, 66, "W", size=20, bold=True)
    d.text(288, 92, "d × d", size=SMALL)
    d.text(288, 118, "frozen", color=BLUE)
    d.arrow((354, 92), (518, 149), color=BLUE)
    d.arrow((76, 178), (184, 234), color=ORANGE)
    d.text(248, 204, "trained", color=ORANGE)
    d.box(186, 222, 124, 28, "A", color=ORANGE, strength=0.3, bold=True)
    d.text(248, 268, "r × d", size=SMALL)
    d.arrow((314, 236), (356, 236), color=ORANGE)
    d.box(358, 174, 28, 124, "B", color=ORANGE, strength=0.3, bold=True)
    d.text(372, 314, "d × r", size=SMALL)
    d.arrow((390, 236), (520, 170), color=ORANGE)
    d.circle(534, 158, "+", color=GREEN, radius=16)
    d.arrow((552, 158), (614, 158), color=GREEN)
    return d


@drawing
def merge_tree() -> Drawing:
    """The word lowest, cut by BPE. At the bottom stand its letters l, o, w, e, s, t. Four merges join them, numbered in
    the order in which they were learned: first e and s to es, second es and t to est, third l and o to lo, fourth lo
    and w to low. No merge was learned for low and est, so two tokens remain at the top."""
    d, base = Drawing(344), 278
    place = {letter: 122 + 92 * i for i, letter in enumerate("lowest")}
    for letter, x in place.items():
        d.box(x - 28, base, 56, 36, letter, color=GRAY, size=LARGE)
    middles = {}
    merges = (("es", place["e"], place["s"], base, 180, GREEN), ("est", "es", place["t"], 180, 82, GREEN),
              ("lo", place["l"], place["o"], base, 180, BLUE), ("low", "lo", place["w"], 180, 82, BLUE))
    for rank, (word, left, right, below, top, color) in enumerate(merges, start=1):
        left = middles.get(left, left)
        middles[word] = middle = (left + right) / 2
        d.line((left, left, middle - 14), (below, top + 62, top + 62), color)
        d.line((right, right, middle + 14), (base, top + 62, top + 62), color)
        d.line((middle, middle), (top + 48, top + 38), color)
        d.box(middle - 40, top, 80, 36, word, color=color, size=LARGE)
        d.circle(middle, top + 62, str(rank), color=color)
    low, est = middles["low"], middles["est"]
    d.line((low, low, est, est), (80, 56, 56, 80), GRAY, dashed=True)
    d.text((low + est) / 2, 38, "two tokens: no merge joins them")
    d.text(22, base + 18, "letters", align="left", bold=True)
    return d


@drawing
def all_reduce() -> Drawing:
    """Two processes side by side, from top to bottom. Each has half of the batch, and both have equal weights. From its
    half each process computes its own gradient. All-reduce, in the middle, averages the two gradients and gives the
    mean to both. Each process makes the same step with it, so the weights are equal again."""
    d = Drawing(380)
    for left, name, half, color, shades in (
            (24, "Process 0", "first half of the batch", BLUE, (0.1, 0.7, 0.1, 0.5)),
            (456, "Process 1", "second half of the batch", GREEN, (0.7, 0.3, 0.5, 0.1))):
        middle = left + 110
        d.text(middle, 34, name, size=LARGE, bold=True)
        d.box(left, 54, 220, 34, half, color=color)
        d.arrow((middle, 90), (middle, 112), color=color)
        d.box(left, 114, 220, 34, "equal weights", color=GRAY)
        d.arrow((middle, 150), (middle, 172), color=color)
        d.box(left, 174, 220, 50, color=color)
        d.text(left + 20, 199, "gradient", align="left")
        d.cells(left + 104, 188, 96, 22, shades, color=color)
        d.box(left, 272, 220, 34, "step with the mean", color=ORANGE)
        d.arrow((middle, 308), (middle, 326), color=GRAY)
        d.box(left, 328, 220, 34, "equal weights", color=GRAY)
    d.text(350, 140, "all-reduce", bold=True)
    d.box(290, 160, 120, 78, color=ORANGE)
    d.text(350, 180, "mean")
    d.cells(302, 200, 96, 22, (0.4, 0.5, 0.3, 0.3), color=ORANGE)
    d.line((350, 350), (239, 289), ORANGE)
    for start, end, edge, color in ((246, 288, 246, BLUE), (454, 412, 454, GREEN)):
        d.arrow((start, 199), (end, 199), color=color)
        d.arrow((350, 289), (edge, 289), color=ORANGE)
    return d


@drawing
def fsdp() -> Drawing:
    """Two ways to train with two processes. On the left, DDP: each process keeps all three matrices of the model. On
    the right, FSDP: process 0 keeps the upper half of each matrix and process 1 the lower half. Before a layer
    computes, the halves of its matrix are gathered so that both processes have it whole; after it has computed, the
    other half is dropped again."""
    d = Drawing(300)
    d.text(140, 34, "DDP: full copies", size=LARGE, bold=True)
    d.text(484, 34, "FSDP: half of each matrix", size=LARGE, bold=True)
    d.line((262, 262), (24, 276), PALE)
    states = {280: "before", 432: "layer 2 computes", 584: "after"}
    for row, y in enumerate((100, 190)):
        d.text(24, y + 24, f"process\n{row}", align="left")
        for k in range(3):
            d.box(96 + k * 50, y, 42, 48, strength=0.35)
            for x in states:
                d.half(x + k * 36, y, 28, 48, row, whole=k == 1 and x == 432)
        for x, word, color in ((386, "gather", ORANGE), (538, "drop", GRAY)):
            d.arrow((x, y + 24), (x + 40, y + 24), color=color)
            d.text(x + 20, y + 8, word, size=SMALL)
    for k in range(3):
        for x in (117 + k * 50, *(x + 14 + k * 36 for x in states)):
            d.text(x, 80, f"W{k + 1}", size=SMALL)
    for x, words in states.items():
        d.text(x + 50, 264, words, size=SMALL, color=GRAY)
    return d


def alternative_text(name: str) -> str:
    """Return what the drawing shows, in one line."""
    return " ".join(inspect.getdoc(DRAWINGS[name]).split())


def draw(name: str) -> Drawing:
    """Return a drawing, in matplotlib's own style whatever the reader's is."""
    with style.context({"font.family": "DejaVu Sans", "text.parse_math": False}, after_reset=True):
        return DRAWINGS[name]()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or DRAWINGS:
        png = draw(name).png()
        (FOLDER / f"{name}.png").write_bytes(png)
        print(f"{name}: {len(png) / 1024:.0f} KB")
    texts = {name: alternative_text(name) for name in sorted(DRAWINGS)}
    (FOLDER / "drawings.json").write_text(json.dumps(texts, indent=1) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
