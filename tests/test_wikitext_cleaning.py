"""The build script that turns wikitext into prose, and the two data sets it wrote."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data" / "wikipedia"


@pytest.fixture(scope="module")
def wikipedia() -> ModuleType:
    """The build script as a module; it is run by path and belongs to no package."""
    build = ROOT / "data" / "build"
    specification = importlib.util.spec_from_file_location("build_wikipedia", build / "wikipedia.py")
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(build))  # the script imports its neighbour `download`
    try:
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(build))
    return module


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        pytest.param("'''Bold''' and ''italic'' and '''''both'''''.", "Bold and italic and both.", id="quotes"),
        pytest.param(
            "''Unclosed italic with a note<ref>A.</ref> here.", "Unclosed italic with a note here.", id="unclosed"
        ),
        pytest.param("A [[city|big city]] in [[Spain]].", "A big city in Spain.", id="links"),
        pytest.param(
            "See [[:Category:Towns]] there.[[Category:Towns]][[de:Stadt]]", "See Towns there.", id="namespaces"
        ),
        pytest.param("The [http://example.org site] is up.", "The site is up.", id="external-link"),
        pytest.param(
            "It rose.<ref name=\"a\" group='b'>{{cite web|url=x}}</ref><ref name=a /> Then fell.",
            "It rose. Then fell.",
            id="references",
        ),
        pytest.param(
            "Here.<!-- hidden -->{{citation needed|date=May 2015}} There.", "Here. There.", id="comment-and-notice"
        ),
        pytest.param(
            "35&nbsp;mm &ndash; [[OS X|OS&nbsp;X]] and [[AT&amp;T]].", "35 mm – OS X and AT&T.", id="entities"
        ),
        pytest.param(
            "H<sub>2</sub>O, 10<sup>5</sup> in the 20<sup>th</sup> century.",
            "H2O, 10⁵ in the 20th century.",
            id="sub-sup",
        ),
        pytest.param("__NOTOC__Text.", "Text.", id="magic-word"),
    ],
)
def test_inline_markup(wikipedia: ModuleType, wikitext: str, expected: str) -> None:
    assert wikipedia.plain_text(wikitext) == expected


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("It spans {{convert|1300|mi|km}}.", "It spans 1,300 miles."),
        ("It is {{convert|5|to|10|km|mi|abbr=on}} away.", "It is 5 to 10 kilometres away."),
        ("A {{convert|5|mi|km|adj=on}} walk.", "A 5-mile walk."),
        ("From Latin ''{{lang|la|albedo}}'' it came.", "From Latin albedo it came."),
        ("Half is {{frac|1|2}} of it.", "Half is 1/2 of it."),
        ("Known {{as of|2011|8|lc=y}} by all.", "Known as of August 2011 by all."),
        ("About {{val|30000|ul=C}} flowed.", "About 30000 C flowed."),
        ("Nested {{nowrap|text with {{lang|fr|{{big|mots}}}}}} here.", "Nested text with mots here."),
        ("Peak ({{formatnum: 3003}} m) there.", "Peak (3,003 m) there."),
        (
            "He said:\n{{quote|Be brave, my friends.|Him}}\nThey were.",
            "He said:\n\nBe brave, my friends.\n\nThey were.",
        ),
        ("{{Infobox city|name={{nowrap|X}}|image=[[File:X.jpg|thumb]]}}\nX is a city.", "X is a city."),
    ],
)
def test_templates(wikipedia: ModuleType, wikitext: str, expected: str) -> None:
    assert wikipedia.plain_text(wikitext) == expected


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("'''A''' ({{IPAc-en|eɪ}}; [[plural]] ''As'') is a letter.", "A (plural As) is a letter."),
        ("'''Angola''' {{IPAc-en|æ}}, officially a republic, is here.", "Angola, officially a republic, is here."),
        ("'''X''' ({{IPA-de|x|lang}}, {{respell|X}}) is a town.", "X is a town."),
        ("'''X''' ({{lang-ar|ا}} (''b''); {{IPA-ar|c}}) is a town.", "X (ا (b)) is a town."),
        ("'''X''' (; born 1 May 1900, ) was a poet.", "X (born 1 May 1900) was a poet."),
        ("The sound {{IPA|/a/}} is open. The letter is old.", "The letter is old."),
    ],
)
def test_brackets_and_pronunciations(wikipedia: ModuleType, wikitext: str, expected: str) -> None:
    assert wikipedia.plain_text(wikitext) == expected


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        (
            "Known since J. Bell. The mean <math>\\mu</math> is small. It is used often.",
            "Known since J. Bell. It is used often.",
        ),
        (
            "Means are common. The mean is\n:<math>x = 1</math>\nwhere x is a number.\n\nIt is useful.",
            "Means are common.\n\nIt is useful.",
        ),
    ],
)
def test_sentences_around_formulas_are_dropped(wikipedia: ModuleType, wikitext: str, expected: str) -> None:
    assert wikipedia.plain_text(wikitext) == expected


def test_captions_galleries_and_tables_leave_nothing(wikipedia: ModuleType) -> None:
    wikitext = """[[File:A.jpg|thumb|left|A [[red]] caption with ''style'' and a note.<ref>B</ref>]]
First paragraph.
{| class="wikitable"
! Year !! [[Place]]
|-
| 1900 || {{flag|Spain}}
|}
<gallery>
File:B.jpg|Another caption
</gallery>
Second paragraph."""
    assert wikipedia.plain_text(wikitext) == "First paragraph.\n\nSecond paragraph."


def test_headings_stay_and_empty_or_trailing_sections_go(wikipedia: ModuleType) -> None:
    wikitext = """Lead.

== History ==
=== ''Early'' years ===
It began.
=== Tables ===
{| class="wikitable"
| x
|}
== See also ==
* [[Other]]
=== More ===
A sentence inside a dropped section.
== Legacy ==
It ended.
== References ==
{{reflist}}"""
    assert wikipedia.plain_text(wikitext) == "Lead.\n\nHistory\n\nEarly years\n\nIt began.\n\nLegacy\n\nIt ended."


def test_lists_of_prose_stay_and_lists_of_names_go_with_their_announcement(wikipedia: ModuleType) -> None:
    prose = "It has two parts:\n* The first part is the old one.\n* The second part was added later.\nIt stands."
    names = "It is old. Its towns are:\n* [[Here]]\n* [[There]]\nIt stands."
    assert wikipedia.plain_text(prose) == (
        "It has two parts:\n\nThe first part is the old one.\nThe second part was added later.\n\nIt stands."
    )
    assert wikipedia.plain_text(names) == "It is old.\n\nIt stands."
    assert wikipedia.plain_text(names, keep_bare_lists=True) == (
        "It is old. Its towns are:\n\nHere\nThere\n\nIt stands."
    )


@pytest.mark.parametrize(
    ("title", "wikitext", "expected"),
    [
        ("Ada", "'''Ada''' may refer to:\n{{Disambiguation|given name}}", True),
        ("Austin (disambiguation)", "", True),
        ("Alien", "{{disambig}}", True),
        ("Anarchism", "{{Use dmy dates}} [[Ada (disambiguation)]]", False),
    ],
)
def test_disambiguation_pages(wikipedia: ModuleType, title: str, wikitext: str, expected: bool) -> None:
    assert wikipedia.is_disambiguation(title, wikitext) is expected


@pytest.mark.parametrize(
    ("title", "path"),
    [
        ("Ayn Rand", "Ayn_Rand"),
        ("Alien (law)", "Alien_(law)"),
        ("Atatürk", "Atat%C3%BCrk"),
        ("What? 100%", "What%3F_100%25"),
        ("AC/DC", "AC/DC"),
        ("2001: A Space Odyssey", "2001:_A_Space_Odyssey"),
    ],
)
def test_article_url(wikipedia: ModuleType, title: str, path: str) -> None:
    assert wikipedia.article_url(title) == f"https://en.wikipedia.org/wiki/{path}"


@pytest.mark.parametrize(
    ("extract", "expected"),
    [
        ("Haiku  is a form of poetry.\nIt is short .", "Haiku is a form of poetry. It is short."),
        ("Kyoto (; Kyōto) is a city of 828\N{NO-BREAK SPACE}km2.", "Kyoto (Kyōto) is a city of 828 km2."),
        ("It is a number. It is denoted by .", "It is a number."),
        ("It is denoted by .", "It is denoted by."),
        ("Sets are common. For example:", "Sets are common."),
        ("Eurasia, is a continent.", "Eurasia is a continent."),
    ],
)
def test_introductions(wikipedia: ModuleType, extract: str, expected: str) -> None:
    assert wikipedia.tidy_intro(extract) == expected


DEBRIS = {
    "wiki brackets": r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}",
    "bold or italic quotes": r"'{2,}",
    "tag or comment": r"</?(?:ref|br|sub|sup|small|span|div|math|nowiki|blockquote|gallery|code)\b|<!--",
    "entity": r"&(?:[a-z]+|#\d+);",
    "empty bracket": r"\(\s*\)|\[\s*\](?! on him)",  # "call[] on him" is a quotation from a court's rules
    "bracket that starts or ends with punctuation": r"\(\s*[,;]|[,;]\s*\)",
    "placeholder": "[\N{OBJECT REPLACEMENT CHARACTER}\N{INTERLINEAR ANNOTATION ANCHOR}]",
    "magic word": r"__[A-Z]+__",
    "namespace": r"\b(?:File|Image|Category):",
    "image option": r"\b\d+px\b|\bthumb\|",
    "double space": r"  |\t",
    "space before punctuation": r" [,;:.!?](?=\s|$)",
    "line mark": r"(?m)^[*#;|!=]",
    "heading mark": r"={2,}",
    "web address": r"https?://",
    "footnote mark": r"\[\d{1,3}\]",
}


@pytest.fixture(scope="module", params=["articles", "intros"])
def documents(request: pytest.FixtureRequest) -> pd.DataFrame:
    return pd.read_parquet(DATA / f"{request.param}.parquet")


@pytest.mark.parametrize("pattern", DEBRIS.values(), ids=DEBRIS.keys())
def test_no_debris_is_left(documents: pd.DataFrame, pattern: str) -> None:
    found = {row.title: match[0] for row in documents.itertuples() if (match := re.search(pattern, row.text))}
    assert not found


def test_columns_ids_and_urls(documents: pd.DataFrame) -> None:
    assert list(documents.columns[:4]) == ["id", "url", "title", "text"]
    assert all(documents[column].is_unique for column in ("id", "url", "title"))
    assert documents["text"].str.strip().str.len().min() > 0


def test_counts() -> None:
    articles = pd.read_parquet(DATA / "articles.parquet")
    assert len(articles) == 106
    assert articles["disambiguation"].sum() == 8
    assert (articles.loc[~articles["disambiguation"], "text"].str.len() > 400).all()
    assert len(pd.read_parquet(DATA / "intros.parquet")) == 10_033
