"""The lessons' drawings: no text lies on another one, on a line, or out of its box, and all are bundled."""

import importlib.util
import io
import re
from itertools import combinations
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from llm_tutorial import plots
from llm_tutorial.sources.files import data_folder

NAMES = sorted(path.stem for path in (data_folder() / "drawings").glob("*.png"))


@pytest.fixture(scope="module")
def drawings():
    """The script that draws them."""
    path = Path(__file__).resolve().parents[1] / "data" / "build" / "drawings.py"
    spec = importlib.util.spec_from_file_location("drawings", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def faults(drawing) -> list[str]:
    """What is wrong with the places of the texts."""
    boxes = {text: text.get_window_extent() for text in drawing.homes}
    found = [f"{one} is on {other}" for one, other in combinations(boxes, 2) if boxes[one].overlaps(boxes[other])]
    along = np.linspace(0, 1, 101)
    strokes = drawing.axes.transData.transform(np.concatenate([
        np.column_stack([np.interp(along, np.linspace(0, 1, len(x)), places) for places in (x, y)])
        for x, y in drawing.strokes] or [np.empty((0, 2))]))
    for text, box in boxes.items():
        home = drawing.homes[text].get_window_extent()
        if not (home.contains(*box.min) and home.contains(*box.max)):
            found.append(f"{text} leaves its box")
        if any(box.contains(*point) for point in strokes):
            found.append(f"a line crosses {text}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_texts_of_a_drawing_can_be_read(name, drawings):
    drawing = drawings.draw(name)
    assert faults(drawing) == []
    assert min(text.get_fontsize() for text in drawing.homes) >= 0.72 * 12, "12 pixels"
    assert len(re.findall("[A-Za-z]{2,}", " ".join(text.get_text() for text in drawing.homes))) <= 40
    assert drawing.canvas.get_size_inches()[1] <= 6


def test_every_drawing_is_bundled_with_its_words(drawings):
    assert sorted(drawings.DRAWINGS) == NAMES
    for name in NAMES:
        figure = plots.drawing(name)
        assert 60 <= len(figure.alt) <= 600
        assert figure.alt == drawings.alternative_text(name), "as the script says it"
        assert len(figure.png) < 60_000
        pixels = matplotlib.image.imread(io.BytesIO(figure.png))
        assert pixels.shape[1] == 2 * figure.width, "sharp at twice the pixels of the page"
        assert (pixels[20:-20, 20:-20, 3] == 1).all(), "opaque on any page"


def test_a_drawing_is_shown_with_its_alternative_text_and_another_name_is_refused():
    data, metadata = plots.drawing("lora")._repr_mimebundle_()
    alt = metadata["image/png"].pop("alt")
    assert alt.startswith("LoRA beside a frozen matrix.")
    assert metadata == {"image/png": {"width": 700}}
    assert data["text/plain"] == f"Figure: {alt}"
    with pytest.raises(ValueError, match=r"There is no drawing 'laura': choose one of all_reduce, .*shift_by_one"):
        plots.drawing("laura")
