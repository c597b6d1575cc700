"""The build script that turns wikitext into prose, and the two data sets it wrote."""

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wikipedia():
    """The build script as a module; it is run by path and belongs to no package."""
    build = ROOT / "data" / "build"
    specification = importlib.util.spec_from_file_location("build_wikipedia", build / "wikipedia.py")
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(build))  # the script imports its neighbor `download`
    try:
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(build))
    return module


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("'''Bold''' and ''italic'' in [[city|big city]].[[Category:Towns]]", "Bold and italic in big city."),
        ("It rose.<ref name=\"a\">{{cite web|url=x}}</ref> Then fell.<!-- hidden -->", "It rose. Then fell."),
        ("35&nbsp;mm &ndash; H<sub>2</sub>O, 10<sup>5</sup>", "35 mm – H2O, 10⁵"),
        ("It spans {{convert|1300|mi|km}} {{nowrap|of {{lang|fr|{{big|mots}}}}}}.", "It spans 1,300 miles of mots."),
        ("{{Infobox city|name={{nowrap|X}}|image=[[File:X.jpg|thumb]]}}\nX is a city.", "X is a city."),
        ("'''X''' ({{IPA-de|x|lang}}; born 1 May 1900, ) was a poet.", "X (born 1 May 1900) was a poet."),
        ("Known since J. Bell. The mean <math>\\mu</math> is small. It is used.", "Known since J. Bell. It is used."),
        ("One.\n{| class=\"wikitable\"\n| 1900 || {{flag|Spain}}\n|}\n<gallery>\nFile:B.jpg|C\n</gallery>\nTwo.",
         "One.\n\nTwo."),
        ("Lead.\n== History ==\nIt began.\n== Empty ==\n== See also ==\nNot this.", "Lead.\n\nHistory\n\nIt began."),
        ("It is old. Its towns are:\n* [[Here]]\n* [[There]]\nIt stands.", "It is old.\n\nIt stands."),
    ],
)  # fmt: skip
def test_markup_becomes_prose(wikipedia, wikitext, expected):
    assert wikipedia.plain_text(wikitext) == expected


DEBRIS = {
    "wiki brackets": r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}",
    "bold or italic quotes": r"'{2,}",
    "tag or comment": r"</?(?:ref|br|sub|sup|small|span|div|math|nowiki|blockquote|gallery|code)\b|<!--",
    "entity": r"&(?:[a-z]+|#\d+);",
    "empty bracket": r"\(\s*\)|\[\s*\](?! on him)",  # "call[] on him" is a quotation from a court's rules
    "bracket that starts or ends with punctuation": r"\(\s*[,;]|[,;]\s*\)",
    "namespace, option or magic word": r"\b(?:File|Image|Category):|\b\d+px\b|\bthumb\||__[A-Z]+__",
    "space too many": r"  |\t| [,;:.!?](?=\s|$)",
    "mark of a line or heading": r"(?m)^[*#;|!=]|={2,}",
    "web address or footnote": r"https?://|\[\d{1,3}\]",
}


@pytest.mark.parametrize(("name", "count"), [("articles", 106), ("intros", 10_033)])
def test_the_data_sets_are_whole_and_no_debris_is_left(name, count):
    documents = pd.read_parquet(ROOT / "data" / "wikipedia" / f"{name}.parquet")
    assert len(documents) == count
    assert list(documents.columns[:4]) == ["id", "url", "title", "text"]
    assert all(documents[column].is_unique for column in ("id", "url", "title"))
    assert documents["text"].str.strip().str.len().min() > 0
    found = {kind: documents["title"][documents["text"].str.contains(pattern)].tolist()
             for kind, pattern in DEBRIS.items()}
    assert not any(found.values()), found
