"""What is trained on and what is held out: never the same title, always whole batches."""

import dataclasses

import pytest
from datasets import Dataset

from llm_tutorial import splits, validation
from llm_tutorial.batches import whole_batches
from llm_tutorial.chunking import chunked_dataset
from llm_tutorial.corpus import load_introductions, load_wikipedia
from llm_tutorial.packing import packed_chunks, packed_dataset
from llm_tutorial.presets import PRESETS
from llm_tutorial.splits import split_by_title, training_data
from llm_tutorial.streams import first_documents, wikipedia_files
from llm_tutorial.titles import title_key

SMOKE = PRESETS["smoke"]


def documents(titles):
    return Dataset.from_list([{"title": title, "text": f"text {row}"} for row, title in enumerate(titles)])


def test_documents_of_one_title_stay_together():
    texts = documents(["a", "b", "a", "c", "d", "a", "e", "b"])
    for seed in range(20):
        split = split_by_title(texts, 2, seed)
        assert not set(split["train"]["title"]) & set(split["valid"]["title"])
        assert sorted([*split["train"]["text"], *split["valid"]["text"]]) == sorted(texts["text"])
        assert 2 <= len(split["valid"]) <= 4


def test_spellings_of_one_title_stay_together():
    texts = documents(["Asia", "asia", "Asia (continent)", "Africa", "Europe", "Oceania"])
    for seed in range(20):
        split = split_by_title(texts, 1, seed)
        assert not {*map(title_key, split["train"]["title"])} & {*map(title_key, split["valid"]["title"])}


def test_the_seed_draws_what_is_held_out():
    drawn = [split_by_title(documents("abcdefghij"), 3, seed)["valid"]["title"][:] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(("titles", "valid", "message"), [
    ("a", 1, "1 documents with 1 different titles leave none to train on when 1 are held out"),
    ("aaa", 1, "3 documents with 1 different titles leave none"),
    ("ab", 2, "leave none to train on when 2 are held out"),
    ("ab", 0, "0 documents to validate with: at least 1"),
])
def test_a_split_that_leaves_nothing_is_refused(titles, valid, message):
    with pytest.raises(ValueError, match=message):
        split_by_title(documents(titles), valid, 0)


def rows(count):
    return Dataset.from_dict({"input_ids": [[row] for row in range(count)]})


@pytest.mark.parametrize(("chunks", "batch", "expected"), [
    (8, 4, [*range(8)]), (6, 4, [*range(6), 0, 1]), (3, 8, [0, 1, 2, 0, 1, 2, 0, 1]), (5, 1, [*range(5)])])
def test_training_chunks_are_filled_up_to_whole_batches(chunks, batch, expected):
    filled = whole_batches({"train": rows(chunks), "valid": rows(1)}, batch)["train"]
    assert [row for [row] in filled["input_ids"]] == expected


@pytest.mark.parametrize(("chunks", "kept"), [(1, 1), (3, 2), (31, 16), (32, 32), (63, 32), (64, 64), (230, 224)])
def test_validation_chunks_are_cut_to_whole_batches(chunks, kept):
    valid = whole_batches({"train": rows(1), "valid": rows(chunks)}, 1)["valid"]
    assert [row for [row] in valid["input_ids"]] == list(range(kept))


@pytest.mark.parametrize(("train", "valid", "batch"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_nothing_to_make_batches_of_is_refused(train, valid, batch):
    with pytest.raises(ValueError, match=f"batch={batch}, {train} chunks to train on, {valid} to validate with"):
        whole_batches({"train": rows(train), "valid": rows(valid)}, batch)


def test_articles_are_those_of_the_lesson_chunked_one_by_one():
    told = []
    prepared = training_data("articles", SMOKE, report=told.append)
    texts = load_wikipedia(50, 50, 42)
    by_hand = chunked_dataset(texts, prepared.tokenizer, 128)
    count = len(by_hand["train"])
    ids = prepared.datasets["train"]["input_ids"][:]
    assert ids[:count] == by_hand["train"]["input_ids"][:]
    assert count <= len(ids) < count + SMOKE.batch
    assert len(prepared.tokenizer) == 512
    assert not set(texts["train"]["title"]) & set(texts["valid"]["title"])
    assert told == ["50 documents to train on, 50 to validate with"]
    assert prepared.record == {}
    assert prepared.left_out is None


def test_introductions_are_packed_and_share_no_title_with_those_held_out(monkeypatch):
    kept = []

    def packed(texts, *arguments):
        kept.append(texts)
        return packed_dataset(texts, *arguments)

    monkeypatch.setattr(validation, "packed_dataset", packed)
    introductions = load_introductions()
    monkeypatch.setattr(splits, "load_introductions", lambda: introductions.select(range(1200)))
    prepared = training_data("introductions", SMOKE, documents=300)
    train, valid = kept[0]["train"], kept[1]["valid"]
    assert (len(train), len(valid)) == (300, 500)
    assert not set(train["title"]) & set(valid["title"])
    end = prepared.tokenizer.eos_token_id
    ends = sum(row.count(end) for row in prepared.datasets["train"]["input_ids"])
    assert 295 <= ends <= 310, "an end after each document"


def test_texts_of_ones_own_are_packed_and_a_tenth_is_held_out(tmp_path):
    texts = load_wikipedia(20, 1)["train"]["text"]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    told = []
    prepared = training_data([tmp_path], SMOKE, report=told.append)
    assert told == ["18 documents to train on, 2 to validate with"]
    assert {len(row) for row in prepared.datasets["train"]["input_ids"]} == {128}
    assert training_data([tmp_path], SMOKE, documents=8, validation_documents=5, report=told.append)
    assert told[-1] == "8 documents to train on, 5 to validate with"


def test_a_stream_leaves_out_what_is_held_out():
    told = []
    prepared = training_data("stream", SMOKE, documents=400, validation_documents=40, report=told.append)
    source = wikipedia_files()
    introductions = first_documents(source.files[-1], 100)["text"][:]
    by_hand = list(packed_chunks(introductions[:40], prepared.tokenizer))
    kept = prepared.datasets["valid"]["input_ids"][:]
    assert kept == by_hand[:len(kept)]
    assert len(by_hand) - 32 < len(kept)
    # No chunk holds forty characters of what is held out, but most of what follows it is there.
    chunks = [row["input_ids"] for row in prepared.datasets["train"].take(4000)]
    train = "\n".join(map(prepared.tokenizer.decode, chunks))
    shares = []
    for texts in (introductions[:40], introductions[40:]):
        pieces = [text[start:start + 40] for text in texts for start in range(0, len(text) - 40, 40)]
        shares.append(sum(piece in train for piece in pieces) / len(pieces))
    assert shares[0] < 0.02 < 0.6 < shares[1]  # 0.7, and 0.69 with the oldest datasets, which shuffles otherwise
    assert prepared.record["stream.validation_documents"] == 40
    assert prepared.record["stream.revision"] == source.revision
    assert told[0].startswith("streaming bundled Wikipedia articles and introductions: 2 files, source offline")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The tokenizer of a run on the fifty articles."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_TUTORIAL_SOURCE", "offline")
        training_data("articles", SMOKE, report=lambda _: None).tokenizer.save_pretrained(folder)
    return folder


def decoded(prepared, split, chunks=None):
    rows = prepared.datasets[split]["input_ids"][:chunks]
    return prepared.tokenizer.decode([index for row in rows for index in row])


def test_runs_on_different_data_share_tokenizer_and_validation_set(saved, monkeypatch):
    told = []
    introductions, titles = load_introductions(), set(load_wikipedia(50, 50)["valid"]["title"])
    shared = [row for row, title in enumerate(introductions["title"]) if title in titles]
    kept = [row for row in range(800) if row not in shared]
    monkeypatch.setattr(splits, "load_introductions", lambda: introductions.select([*kept, *shared]))
    fifty = training_data("articles", SMOKE, report=told.append)
    many = training_data("introductions", SMOKE, validate_with="articles", tokenizer=saved, report=told.append)
    assert many.datasets["valid"]["input_ids"][:] == fifty.datasets["valid"]["input_ids"][:]
    assert many.tokenizer.get_vocab() == fifty.tokenizer.get_vocab()
    assert many.description == "introductions, validated with articles"
    assert many.left_out == len(shared) == 15
    assert told[1] == (f"{len(kept)} documents to train on, 50 to validate with; {len(shared)} left out, whose "
                       "titles are among those to validate with")
    text = decoded(many, "train")
    assert not any(beginning[:60] in text for beginning in introductions.select(shared)["text"])
    assert sum(beginning[:60] in text for beginning in introductions.select(kept)["text"]) > 0.95 * len(kept)


def test_without_a_shared_title_all_documents_are_trained_on(saved, tmp_path):
    texts = load_wikipedia(20, 1)["train"]
    for number, text in enumerate(texts["text"]):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    told = []
    prepared = training_data([tmp_path], SMOKE, validate_with="articles", tokenizer=saved, report=told.append)
    assert (prepared.left_out, told) == (0, ["20 documents to train on, 50 to validate with"])
    assert prepared.description == "texts of one's own, validated with articles"
    few = training_data([tmp_path], SMOKE, documents=3, validate_with="articles", validation_documents=4,
                        tokenizer=saved, report=told.append)
    assert told[-1] == "3 documents to train on, 4 to validate with"
    count = len(few.datasets["valid"])
    assert few.datasets["valid"]["input_ids"][:] == prepared.datasets["valid"]["input_ids"][:count]
    assert 0 < count < len(prepared.datasets["valid"]) / 5


def test_articles_can_be_validated_with_texts_of_ones_own(tmp_path, saved):
    articles = load_wikipedia(50, 1)["train"]
    for number, row in enumerate(articles.select([3, 4])):
        (tmp_path / f"{[row['title'].lower(), 'other'][number]}.txt").write_text(row["text"] * 3, encoding="utf-8")
    prepared = training_data("articles", SMOKE, validate_with=[tmp_path], tokenizer=saved)
    assert prepared.left_out == 1, "of the same title, but for the case"
    assert prepared.description == "articles, validated with other texts"
    assert articles[3]["text"][:60] not in decoded(prepared, "train")
    assert articles[3]["text"][:60] in decoded(prepared, "valid")
    assert any(prepared.tokenizer.eos_token_id in row for row in prepared.datasets["valid"]["input_ids"]), "packed"
    assert not any(prepared.tokenizer.eos_token_id in row for row in prepared.datasets["train"]["input_ids"])


def test_nothing_left_to_train_on_is_named(tmp_path, saved):
    (tmp_path / "same.txt").write_text("word " * 500, encoding="utf-8")
    with pytest.raises(ValueError, match="All 1 documents to train on have titles of those to validate with"):
        training_data([tmp_path], SMOKE, validate_with=[tmp_path / "same.txt"], tokenizer=saved)


def test_a_stream_can_be_validated_with_articles(saved):
    told = []
    fifty = training_data("articles", SMOKE, report=told.append)
    prepared = training_data("stream", SMOKE, validate_with="articles", tokenizer=saved, report=told.append)
    assert prepared.datasets["valid"]["input_ids"][:] == fifty.datasets["valid"]["input_ids"][:]
    assert not any("training a vocabulary" in line for line in told)
    held_out = load_wikipedia(50, 50)["valid"]["text"]
    train = "\n".join(prepared.tokenizer.decode(row["input_ids"]) for row in prepared.datasets["train"].take(2000))
    pieces = [text[start:start + 40] for text in held_out for start in range(0, len(text) - 40, 40)]
    assert sum(piece in train for piece in pieces) / len(pieces) < 0.02


def test_the_saved_tokenizer_has_to_fit_the_preset(saved):
    with pytest.raises(ValueError, match="has 512 entries, but vocabulary=600: set the vocabulary to 512, or name"):
        training_data("articles", dataclasses.replace(SMOKE, vocabulary=600), tokenizer=saved)
    assert len(training_data("articles", dataclasses.replace(SMOKE, vocabulary=None), tokenizer=saved).tokenizer) == 512


@pytest.mark.parametrize(("data", "options", "message"), [
    ("articles", {"validate_with": "stream"}, "Unknown data to validate with 'stream': use one of articles, introd"),
    ("introductions", {"validate_with": "articles", "documents": 10_020},
     "10020 documents to train on were asked for, but there are 10018 besides the 50"),
    ("news", {}, "Unknown data 'news': use one of articles, introductions, stream, or a list of paths"),
    ("articles", {"documents": 0}, "documents=0: at least 1"),
    ("articles", {"validation_documents": -1}, "validation_documents=-1: at least 1"),
    ("articles", {"documents": 500}, r"train=500 \+ valid=50 articles were asked for, but there are"),
    ("introductions", {"documents": 10_000}, "10000 documents to train on were asked for, but there are 9533 besides"),
])
def test_bad_requests_are_named(data, options, message):
    with pytest.raises(ValueError, match=message):
        training_data(data, SMOKE, **options)
