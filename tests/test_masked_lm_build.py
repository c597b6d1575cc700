"""The scripts behind the offline masked language model: it trains on no held-out text, and by BERT's masks.

A maintainer runs them once. A mistake would show in no lesson, only in numbers that are too good.
"""

import hashlib
import importlib
import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import BertTokenizer

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "data" / "build"
PROBES = json.loads((BUILD / "everyday_probes.json").read_text(encoding="utf-8"))
WORDS = 60


def build_module(name):
    """The build scripts import their neighbors by name and belong to no package."""
    sys.path.insert(0, str(BUILD))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BUILD))


trainer, corpora = map(build_module, ("masked_lm", "masked_lm_corpus"))


def words_of(text):
    return "".join(character if character.isalnum() else " " for character in text.lower()).split()


def held_out(title):
    """The twentieth of the titles whose sha256 begins with a byte below 12.8."""
    return int(hashlib.sha256(title.strip().casefold().encode()).hexdigest()[:2], 16) <= 12


def filled(probe):
    return [probe["text"].replace("[MASK]", answer) for answer in ("[MASK]", *probe["answers"])]


def test_probes_have_one_mask_and_answers_of_one_token_that_they_do_not_contain():
    vocabulary = set((ROOT / "data/models/minilm-mlm/vocab.txt").read_text(encoding="utf-8").splitlines())
    assert {part: len(probes) for part, probes in PROBES.items()} == {"tuning": 40, "earlier": 40, "final": 20}
    for probe in (probe for part in PROBES.values() for probe in part):
        assert probe["text"].count("[MASK]") == 1
        assert len(words_of(probe["text"])) >= 5, "shorter ones would slip through the search for five words in a row"
        assert vocabulary.issuperset(probe["answers"]), probe
        assert set(words_of(probe["text"])).isdisjoint(probe["answers"]), probe


@pytest.fixture
def small_corpus(tmp_path, monkeypatch):
    """A function that builds the corpus of introductions and articles (pairs of title and text) and other texts."""
    (tmp_path / "data/build").mkdir(parents=True)
    (tmp_path / "data/wikipedia").mkdir()
    shutil.copy(BUILD / "everyday_probes.json", tmp_path / "data/build")
    monkeypatch.setattr(corpora, "ROOT", tmp_path)

    def build(introductions=(), articles=(), everyday=(), wordnet=(), novels=()):
        pd.DataFrame(introductions, columns=["title", "text"]).to_parquet(tmp_path / "data/wikipedia/intros.parquet")
        frame = pd.DataFrame(articles, columns=["title", "text"]).assign(disambiguation=False)
        frame.to_parquet(tmp_path / "data/wikipedia/articles.parquet")
        pd.DataFrame({"text": list(everyday)}, dtype=object).to_parquet(tmp_path / "everyday.parquet")
        monkeypatch.setattr(corpora, "_wordnet_entries", lambda _: iter(wordnet))
        monkeypatch.setattr(corpora, "_novel_paragraphs", lambda _: iter(novels))
        return corpora.load_corpus(tmp_path / "no downloads", tmp_path / "everyday.parquet")

    return build


TITLES = [f"Title {number}" for number in range(400)]
OUTSIDE = [title for title in TITLES if held_out(title)]
INSIDE = [title for title in TITLES if not held_out(title)]
SOURCES = ["introductions", "articles", "everyday", "novels", "wordnet"]


def test_a_title_goes_the_same_way_in_introductions_and_articles(small_corpus):
    def text(kind, number):
        return " ".join(f"{kind}{number}x{index}" for index in range(20))  # words that occur in no other text

    introductions = [(title, text("i", number)) for number, title in enumerate(TITLES)]
    articles = [(f" {title.upper()}", text("a", number)) for number, title in enumerate(TITLES)]
    corpus = small_corpus(introductions, articles)
    assert len(OUTSIDE) > 10
    assert corpus.evaluation == [text for title, text in introductions if title in OUTSIDE]
    assert corpus.training["introductions"] == [text for title, text in introductions if title in INSIDE]
    assert corpus.training["articles"] == [text for title, text in articles if title.strip().title() in INSIDE]


def test_the_hash_of_a_corpus_is_that_of_its_training_texts(small_corpus):
    corpus = small_corpus([(INSIDE[2], " ")], [(INSIDE[0], "One.")], ["", "Two."], ["Three.", "Four.", "Three."],
                          ["Five."])
    assert corpus.texts() == ["One.", "Two.", "Two.", "Five.", "Three.", "Four."]
    assert corpus.digest() == hashlib.sha256(b"One.\0Two.\0Two.\0Five.\0Three.\0Four.").hexdigest()


@pytest.mark.parametrize("source", SOURCES)
def test_texts_that_share_words_with_a_held_out_text_or_a_probe_are_dropped(small_corpus, source):
    held = [f"h{index}" for index in range(29)]
    near = f"Other. {'; '.join(held[5:18]).upper()}, other"  # thirteen words in a row
    far = f"Other. {' '.join(held[5:17])} other {' '.join(held[17:])}"
    probed = ["She poured, a cup of something.",  # five words before the mask
              "They saw him poured a cup of TEA yesterday.",  # with an answer
              f"So {' '.join(words_of(filled(PROBES['final'][0])[1])[:5])} then.", "Fill in: two plus two [MASK] four."]
    kept = [far, "He poured a cup of soup.", "Two plus two gives four."]
    texts = [*kept, near, *probed]
    given = {source: list(zip(INSIDE, texts, strict=False)) if source in SOURCES[:2] else texts}
    given["introductions"] = [(OUTSIDE[0], " ".join(held)), *given.get("introductions", ())]
    corpus = small_corpus(**given)
    assert corpus.training[source] == kept
    assert corpus.removed[f"{source}, near-duplicates of held-out texts"] == 1
    assert corpus.removed[f"{source}, words of a probe"] == len(probed)


def test_no_bundled_training_text_belongs_to_a_held_out_title_or_contains_words_of_a_probe(monkeypatch):
    monkeypatch.setattr(corpora, "_wordnet_entries", lambda _: iter(()))
    monkeypatch.setattr(corpora, "_novel_paragraphs", lambda _: iter(()))
    bundled = corpora.load_corpus(ROOT / "no downloads", BUILD / "everyday.parquet")
    tables = [pd.read_parquet(ROOT / f"data/wikipedia/{name}.parquet", columns=["title", "text"])
              for name in ("intros", "articles")]
    outside = [table[table["title"].map(held_out)]["text"] for table in tables]
    assert bundled.evaluation == outside[0].tolist()
    assert len(outside[0]) / len(tables[0]) == pytest.approx(0.05, abs=0.01)
    assert {*outside[0], *outside[1]}.isdisjoint(bundled.texts())
    probed = {tuple(words[start : start + 5]) for part in PROBES.values() for probe in part for text in filled(probe)
              for words in [words_of(text)] for start in range(len(words) - 4)}
    assert len(probed) > 400
    for text in bundled.texts():
        words = words_of(text)
        assert probed.isdisjoint(zip(*(words[start:] for start in range(5)), strict=False)), text


@pytest.fixture(scope="module")
def tokenizer():
    """As in BERT's vocabulary, words begin at 1,000 and special tokens are below."""
    entries = [f"[unused{index}]" for index in range(1000)] + [f"w{index}" for index in range(WORDS)]
    entries[0] = "[PAD]"
    entries[100:104] = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return BertTokenizer(vocab={entry: index for index, entry in enumerate(entries)}, model_max_length=512)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_fifteen_percent_of_the_words_become_the_mask_or_a_random_word_or_stay(tokenizer):
    ids = torch.randint(1000, 1000 + WORDS, (2000, 128), generator=seeded(5))
    ids[:, 0], ids[:, 9], ids[:, 40], ids[:, 70], ids[:, 127] = 101, 102, 100, 103, 0
    corrupted, chosen = trainer.mask_tokens(ids, tokenizer, seeded(1))
    words = ids >= 1000
    assert not chosen[~words].any(), "no special token is chosen"
    assert chosen[words].float().mean().item() == pytest.approx(0.15, abs=0.003)
    assert torch.equal(corrupted[~chosen], ids[~chosen])
    before, after = ids[chosen], corrupted[chosen]
    by_chance = 0.1 / WORDS  # random, and the same word again
    assert (after == 103).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (after == before).float().mean().item() == pytest.approx(0.1 + by_chance, abs=0.01)
    assert after[after != 103].min() >= 1000
    again, _ = trainer.mask_tokens(ids, tokenizer, seeded(1))
    assert torch.equal(again, corrupted), "the same generator gives the same masks"
