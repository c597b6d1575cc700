"""Nothing in a committed notebook tells on whose machine it was executed, or lets anybody in.

Outputs are searched, whatever their type and wherever they are kept: in metadata, in attachments and in the text that
a PNG file carries.  ``test_security.py`` searches the sources, and the scripts, for tokens and home folders.
"""

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/solutions/*.ipynb")])

LEAKS = {
    "an absolute path": re.compile(
        r"(?<![\w.:/<-])/(?:home|root|Users|work|workspaces?|tmp|opt|usr|var|private|mnt|media|srv|content|kaggle|etc)"
        r"/[\w.]|\b[A-Za-z]:\\(?:Users|Windows|Program|Temp)\b|\bfile://|~/\w"),
    "a folder of installed packages": re.compile(r"\b(?:site|dist)-packages\b|\.(?:venv|conda|pyenv|cache)\b"),
    "the number of a process": re.compile(r"ipykernel_\d+|<ipython-input-\d+-[0-9a-f]{6,}>"),
    "an e-mail address": re.compile(r"\b[\w.+-]+@(?!example\.)[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b"),
    "a user at a host": re.compile(r"\b[a-z_][\w-]*@[\w.-]+:[~/]"),
    "a host": re.compile(r"\b[\w-]+\.(?:local|localdomain|lan|internal|intranet|corp)\b"),
    "an address in a network": re.compile(
        r"(?<![\d.])(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}(?![\d.])"),
    "a token": re.compile(
        r"\b(?:hf_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{8,}|github_pat_\w{8,}|sk-[\w-]{20,}|npm_[A-Za-z0-9]{20,}"
        r"|glpat-[\w-]{8,}|pypi-AgE[\w-]+|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}|xox[abprs]-[\w-]{8,}"
        r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,})|\b(?i:bearer|password|passwd|secret|api[_-]?key)\b\s*[=:]\s*['\"]?\S{8,}"),
}


def strings(value: object, kind: str = "") -> Iterator[str]:
    """Yield every text in a part of a notebook, kept under the key ``kind``; of a picture, the texts in its file."""
    if kind in ("image/png", "image/jpeg") and isinstance(value, str | list):  # in metadata, the key leads to a dict
        with Image.open(io.BytesIO(base64.b64decode("".join(value)))) as picture:
            yield from (text for text in picture.info.values() if isinstance(text, str))
            yield picture.info.get("comment", b"").decode("latin-1")
    elif isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(line, str) for line in value):
        yield "".join(value)  # a text is stored as a list of lines
    elif isinstance(value, list | dict):
        for key, item in value.items() if isinstance(value, dict) else [("", item) for item in value]:
            yield key
            yield from strings(item, key)


def leaks(text: str) -> list[str]:
    return [f"{what}: {hit.group()!r}" for what, pattern in LEAKS.items() if (hit := pattern.search(text))]


def leaks_of(notebook: dict) -> list[str]:
    """Return the leaks of a notebook, each with the cell; a source may name Colab's mounted drive."""
    found = leaks("\n".join(strings(notebook["metadata"])))
    for number, cell in enumerate(notebook["cells"]):
        parts = {key: part for key, part in cell.items() if key not in {"source", "id"}}
        found += [f"cell {number}: {leak}" for text in strings(parts) for leak in leaks(text)]
        found += [f"cell {number}, source: {leak}" for leak in leaks("".join(cell["source"]).replace("/content/", ""))]
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_leak(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert leaks_of(notebook) == []
    assert sum(bool(cell.get("outputs")) for cell in notebook["cells"]) > 15, "there are outputs to be searched"


def png(text: str) -> str:
    """Return a picture of one dot with a text in its file, as a notebook stores it."""
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("Source", text)
    Image.new("L", (1, 1)).save(file, "PNG", pnginfo=info)
    return base64.b64encode(file.getvalue()).decode()


# Put together here, so that the scan of the sources does not find them.
LEAKING = {
    "an absolute path: '/ho" + "me/m": "open('/ho" + "me/me/x')",
    "an absolute path: 'C:\\\\Use" + "rs": "C:\\Use" + "rs\\me",
    "an absolute path: '~/w": "~/" + "work",
    "a folder of installed packages: 'site-packages'": "python3.11/site-packages/torch",
    "the number of a process": "ipykernel_1234/99.py:1",
    "an e-mail address": "me" + "@somewhere.org",
    "a user at a host": "me@laptop:~$ ls",
    "a host: 'laptop.local'": "laptop.local",
    "an address in a network": "http://192.168.1.7:8888",
    "a token: 'hf_": "hf_" + "a1" * 12,
    "a token: 'password=": "password=" + "correct-horse",
}
PATH = "saved to /tmp" + "/run"
PLACES = {
    "stream": {"outputs": [{"output_type": "stream", "text": PATH}]},
    "lines": {"outputs": [{"output_type": "stream", "text": ["1\n", PATH[:12], PATH[12:]]}]},
    "table": {"outputs": [{"output_type": "execute_result", "data": {"text/html": f"<td>{PATH}"}}]},
    "alt text": {"outputs": [{"output_type": "display_data", "metadata": {"image/png": {"alt": PATH}}}]},
    "picture": {"outputs": [{"output_type": "display_data", "data": {"image/png": png(PATH)}}]},
    "error": {"outputs": [{"output_type": "error", "traceback": ["Traceback", f"  File {PATH}"]}]},
    "metadata": {"metadata": {"note": PATH}},
    "attachment": {"attachments": {PATH: {}}},
    "source": {"source": [f"open('{PATH[9:]}')"]},
}


@pytest.mark.parametrize("leak", LEAKING)
def test_a_leak_is_found(leak):
    [found] = leaks_of({"metadata": {"authors": [{"name": LEAKING[leak]}]}, "cells": []})
    assert leak in found


@pytest.mark.parametrize("place", PLACES)
def test_a_leak_is_found_wherever_it_is(place):
    [found] = leaks_of({"metadata": {}, "cells": [{"source": [], **PLACES[place]}]})
    assert "an absolute path" in found


@pytest.mark.parametrize("text", [
    "https://huggingface.co/google-bert/bert-base-uncased", "and/or 1/2", "text/html", "data/models/minilm-mlm",
    "</tmp>", "f(x) @ y", "a @property", "name@example.org", "10.1", "version 5.10.2", "the local model", "~ 3",
    "secret: the key", "input/output", "Wikipedia (/home page)", "notebooks/usr", "p = 10.25.3",
])  # fmt: skip
def test_an_ordinary_text_is_no_leak(text):
    assert leaks(text) == []


def test_a_source_may_name_the_mounted_drive_and_an_output_may_not():
    place = "'/con" + "tent/drive'"
    assert leaks_of({"metadata": {}, "cells": [{"source": [place]}]}) == []
    assert len(leaks_of({"metadata": {}, "cells": [{"source": [], "outputs": [{"text": place}]}]})) == 1
