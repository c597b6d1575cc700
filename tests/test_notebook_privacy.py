"""Nothing in a committed notebook tells on whose machine it was executed, or lets anybody in.

Outputs are searched, whatever their type and wherever they are kept: in metadata, in attachments and in the text that
a PNG file carries.  ``test_security.py`` searches the sources, and the scripts, for tokens and home folders.
"""

import base64
import getpass
import io
import json
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/solutions/*.ipynb")])
BASE64 = ("image/png", "image/jpeg")

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
    """Yield every text in a part of a notebook; of a picture, the texts that its file carries.

    Args:
        kind: the key under which ``value`` is kept, which for a picture is its type.
    """
    if kind in BASE64 and isinstance(value, str | list):  # in metadata, a picture's type leads to its alt text
        content = base64.b64decode("".join(value))
        with Image.open(io.BytesIO(content)) as picture:
            yield from (text for text in picture.info.values() if isinstance(text, str))
            yield picture.info.get("comment", b"").decode("latin-1")
    elif isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(line, str) for line in value):
        yield "".join(value)  # a text is stored as a list of lines
    elif isinstance(value, list | dict):
        items = value.items() if isinstance(value, dict) else [("", item) for item in value]
        for key, item in items:
            yield key
            yield from strings(item, key)


def leaks(text: str) -> list[str]:
    """Return what a text gives away."""
    found = [f"{what}: {hit.group()!r}" for what, pattern in LEAKS.items() if (hit := pattern.search(text))]
    return found + [f"this machine: {name!r}" for name in own_names() if re.search(rf"\b{re.escape(name)}\b", text)]


def own_names() -> list[str]:
    """Return the names of this machine and its user, as far as they cannot be ordinary words of a text."""
    try:
        names = [platform.node(), getpass.getuser()]
    except (KeyError, OSError):  # a user without a name, as in some containers
        names = [platform.node()]
    return [name for name in names if re.search(r"\d|-|_", name) and len(name) >= 5]


def leaks_of(notebook: dict) -> list[str]:
    """Return the leaks of a notebook, each with the cell; a source may name a place, such as a mounted drive."""
    found = leaks("\n".join(strings(notebook["metadata"])))
    for number, cell in enumerate(notebook["cells"]):
        parts = {key: part for key, part in cell.items() if key not in {"source", "id"}}
        found += [f"cell {number}: {leak}" for text in strings(parts) for leak in leaks(text)]
        source = [leak for leak in leaks("".join(cell["source"])) if not leak.startswith("an absolute path")]
        found += [f"cell {number}, source: {leak}" for leak in source]
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_leak(path):
    assert leaks_of(json.loads(path.read_text(encoding="utf-8"))) == []


def test_outputs_are_there_to_be_searched():
    """Also pictures, in one notebook or another."""
    found = []
    for path in NOTEBOOKS:
        outputs = [output for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
                   for output in cell.get("outputs", [])]
        assert len(outputs) > 15, path.name
        found += outputs
    assert any("image/png" in output.get("data", {}) for output in found)


def png(**texts: str) -> str:
    """Return a picture of one dot with texts in its file, as a notebook stores it."""
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("L", (1, 1)).save(file, "PNG", pnginfo=info)
    return base64.b64encode(file.getvalue()).decode()


def with_output(output: dict, **metadata: object) -> dict:
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": ["1\n", "2"], "outputs": [output]}
    return {"metadata": metadata, "cells": [cell]}


# Put together here, so that the scan of the sources does not find them.
LEAKING = {
    "an absolute path: '/ho" + "me/m": "open('/ho" + "me/me/x')",
    "an absolute path: '/tmp/": "saved to /tmp" + "/run",
    "an absolute path: '/opt/": "in /opt" + "/python",
    "an absolute path: 'C:\\\\Use" + "rs": "C:\\Use" + "rs\\me",
    "an absolute path: 'file:": "file:" + "//x",
    "an absolute path: '~/w": "~/" + "work",
    "a folder of installed packages: 'site-packages'": "python3.11/site-packages/torch",
    "a folder of installed packages: '.cache'": "me/.cache/huggingface",
    "the number of a process": "ipykernel_1234/99.py:1",
    "an e-mail address": "me" + "@somewhere.org",
    "a user at a host": "me@laptop:~$ ls",
    "a host: 'laptop.local'": "laptop.local",
    "an address in a network": "http://192.168.1.7:8888",
    "a token: 'hf_": "hf_" + "a1" * 12,
    "a token: 'ghp_": "ghp_" + "a1" * 12,
    "a token: 'password=": "password=" + "correct-horse",
}


@pytest.mark.parametrize("leak", LEAKING)
@pytest.mark.parametrize("place", [
    "stream", "table", "metadata", "error", "lines", "picture", "notebook", "attachment"])  # fmt: skip
def test_a_leak_is_found_wherever_it_is(leak, place):
    text = LEAKING[leak]
    notebook = {
        "stream": lambda: with_output({"output_type": "stream", "text": text}),
        "table": lambda: with_output({"output_type": "execute_result", "data": {"text/html": f"<td>{text}"}}),
        "metadata": lambda: with_output({"output_type": "display_data", "metadata": {"image/png": {"alt": text}}}),
        "error": lambda: with_output({"output_type": "error", "traceback": ["Traceback", f"  File {text}"]}),
        "lines": lambda: with_output({"output_type": "stream", "text": ["1\n", text[:3], text[3:]]}),
        "picture": lambda: with_output({"data": {"image/png": png(Title="a", Source=text)}}),
        "notebook": lambda: with_output({}, authors=[{"name": text}]),
        "attachment": lambda: {"metadata": {}, "cells": [{"source": [], "attachments": {text: {}}}]},
    }[place]()
    [found] = leaks_of(notebook)
    assert leak in found


def test_the_names_of_this_machine_are_found(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "class-room-7")
    monkeypatch.setattr(getpass, "getuser", lambda: "student")  # which any text may say
    assert leaks("the student ran it on class-room-7") == ["this machine: 'class-room-7'"]
    assert leaks("the student ran it in class-room-71") == []


@pytest.mark.parametrize("text", [
    "https://huggingface.co/google-bert/bert-base-uncased", "and/or 1/2", "text/html", "data/models/minilm-mlm",
    "</tmp>", "f(x) @ y", "a @property", "name@example.org", "10.1", "version 5.10.2", "the local model", "~ 3",
    "secret: the key", "input/output", "Wikipedia (/home page)", "notebooks/usr", "p = 10.25.3",
])  # fmt: skip
def test_an_ordinary_text_is_no_leak(text):
    assert leaks(text) == []


def test_a_source_may_name_a_mounted_drive():
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "source": ["'/con" + "tent/drive'"]}
    assert leaks_of({"metadata": {}, "cells": [cell]}) == []
    cell["source"] = ["token = 'hf_" + "a1" * 12 + "'"]
    assert len(leaks_of({"metadata": {}, "cells": [cell]})) == 1
