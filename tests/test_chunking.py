"""Chunks are the documents' own tokens, one by one, packed or streamed."""

import itertools
import tracemalloc

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from datasets.distributed import split_dataset_by_node
from transformers import PreTrainedTokenizerFast

from llm_tutorial import chunking
from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.chunking import (
    chunk_documents,
    chunked_dataset,
    pack_tokens,
    packed_dataset,
    packed_stream,
    recut_dataset,
)

SENTENCE = "life is like a box of chocolates."
# Some rests are long, some short, and one document gives no chunk of 16.
TEXTS = [" ".join([SENTENCE] * repeat) for repeat in (3, 8, 13)] + ["a box", SENTENCE * 2]
END = 9


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, verbose=False)["input_ids"]


@pytest.mark.parametrize("length", [5, 64])
def test_chunks_are_the_full_ones_of_the_tokenizers_truncation(causal_tokenizer, length):
    texts = TEXTS * 60  # more than are tokenized at once
    cut = causal_tokenizer(texts, truncation=True, max_length=length, return_overflowing_tokens=True,
                           return_length=True)
    full = [row for row, tokens in enumerate(cut["length"]) if tokens == length]
    chunks = chunk_documents(texts, causal_tokenizer, length)
    assert chunks.input_ids == [cut["input_ids"][row] for row in full]
    assert chunks.documents == [cut["overflow_to_sample_mapping"][row] for row in full]
    assert chunks.dropped_tokens == sum(tokens for tokens in cut["length"] if tokens < length)


def test_no_special_token_is_added(masked_tokenizer):
    chunks = chunk_documents([SENTENCE], masked_tokenizer, 4)
    assert chunks.input_ids == [masked_tokenizer.convert_tokens_to_ids(words)
                                for words in (["life", "is", "like", "a"], ["box", "of", "chocolates", "."])]


def test_a_chunked_dataset_keeps_only_the_ids(causal_tokenizer):
    split = Dataset.from_dict({"title": [str(i) for i in range(len(TEXTS))], "text": TEXTS})
    chunked = chunked_dataset(DatasetDict({"train": split, "valid": split.select([2])}), causal_tokenizer, 16)
    assert chunked["train"].column_names == ["input_ids"]
    assert chunked["train"]["input_ids"][:] == chunk_documents(TEXTS, causal_tokenizer, 16).input_ids
    assert chunked["valid"]["input_ids"][:] == chunk_documents(TEXTS[2:3], causal_tokenizer, 16).input_ids


def test_every_pass_is_cut_from_another_place_and_holds_all_tokens_but_the_rests(causal_tokenizer):
    texts = Dataset.from_dict({"text": TEXTS})
    joined = [index for text in TEXTS for index in (*ids_of(causal_tokenizer, text), causal_tokenizer.eos_token_id)]
    places = set()
    for seed in range(6):
        [first, *_] = rows = recut_dataset(texts, causal_tokenizer, 16, passes=1, seed=seed)["input_ids"][:]
        offset = next(at for at in range(16) if joined[at:at + 16] == first)
        assert list(itertools.chain(*rows)) == joined[offset:offset + 16 * len(rows)]
        assert len(joined) - offset - 16 * len(rows) < 16
        places.add(offset)
    assert len(places) > 2
    several = recut_dataset(texts, causal_tokenizer, 16, passes=3, seed=0)
    assert several["labels"][:] == several["input_ids"][:]
    assert several["input_ids"][:len(rows)] == recut_dataset(texts, causal_tokenizer, 16, passes=1)["input_ids"][:]
    assert several["input_ids"][len(rows) - 1:] != several["input_ids"][:len(rows) + 1]
    with pytest.raises(ValueError, match="give no chunk of context_length=64: use more"):
        recut_dataset(texts.select([3]), causal_tokenizer, 64, passes=1)


@pytest.mark.parametrize("make", [chunked_dataset, packed_dataset])
def test_a_split_too_small_for_one_chunk_is_named(make, causal_tokenizer):
    splits = {"train": Dataset.from_dict({"text": TEXTS}), "valid": Dataset.from_dict({"text": ["a box"]})}
    with pytest.raises(ValueError, match="The documents of split 'valid' give no chunk of context_length=16: use"):
        make(DatasetDict(splits), causal_tokenizer, 16)


@pytest.mark.parametrize("make", [chunk_documents, packed_dataset, packed_stream])
@pytest.mark.parametrize("length", [0, 65])
def test_a_context_that_the_tokenizer_does_not_allow_is_refused(make, causal_tokenizer, length):
    with pytest.raises(ValueError, match=f"context_length={length} is not between 1 and 64, the limit"):
        make(TEXTS, causal_tokenizer, length)


def test_one_string_is_no_list_of_documents(causal_tokenizer):
    with pytest.raises(TypeError, match=r"one string, whose characters would be the documents: pass a list, \[text\]"):
        chunk_documents(SENTENCE, causal_tokenizer, 1)


@pytest.mark.parametrize(("documents", "length", "chunks"), [
    ([[1, 2], [3], [4, 5]], 3, [[1, 2, 9], [3, 9, 4]]),
    ([[], [1, 2, 3, 4]], 2, [[9, 1], [2, 3], [4, 9]]),
    ([[1, 2]], 4, []),
])
def test_documents_follow_each_other_with_the_end_token_after_each(documents, length, chunks):
    assert list(pack_tokens(documents, END, length)) == chunks


def test_a_packed_dataset_is_the_tokens_of_the_joined_texts(causal_tokenizer):
    splits = DatasetDict({"train": Dataset.from_dict({"text": [*TEXTS, " \n"] * 60, "title": ["x"] * 360}),
                          "valid": Dataset.from_dict({"text": TEXTS[:2], "title": ["y"] * 2})})
    packed = packed_dataset(splits, causal_tokenizer, 32)
    for name, texts in (("train", TEXTS * 60), ("valid", TEXTS[:2])):
        ids = ids_of(causal_tokenizer, "".join(text + causal_tokenizer.eos_token for text in texts))
        rows = packed[name]["input_ids"][:]
        assert packed[name].column_names == ["input_ids", "labels"]
        assert list(itertools.chain(*rows)) == ids[:len(ids) // 32 * 32]
        assert {len(row) for row in rows} == {32}
        assert packed[name]["labels"][:] == rows


def test_a_long_document_is_no_reason_to_warn(caplog, capfd):
    texts = Dataset.from_dict({"text": ["a word " * 3000]})
    assert len(packed_dataset(texts, load_gpt2_tokenizer(), 1024)) == 5
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_packing_needs_an_end_token(causal_tokenizer):
    endless = PreTrainedTokenizerFast(tokenizer_object=causal_tokenizer.backend_tokenizer, model_max_length=64)
    with pytest.raises(ValueError, match="has no end-of-text token to put between documents: set its eos_token"):
        packed_dataset(Dataset.from_dict({"text": TEXTS}), endless, 8)


def rows_of(numbers):
    return [{"title": f"title {number}", "text": f"text {number} of a box at the beach."} for number in numbers]


@pytest.fixture
def two_files(tmp_path):
    """Files of 40 and 30 documents."""
    for name, numbers in (("a", range(40)), ("b", range(40, 70))):
        pd.DataFrame(rows_of(numbers)).assign(more=1).to_parquet(tmp_path / f"{name}.parquet", row_group_size=10)
    return [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]


def chunks_by_hand(tokenizer, *files):
    """The packed chunks of each file's documents, which are given by their numbers."""
    documents = [[ids_of(tokenizer, row["text"]) for row in rows_of(numbers)] for numbers in files]
    return [ids for file in documents for ids in pack_tokens(file, tokenizer.eos_token_id, 16)]


def taken(stream, count: int):
    return [row["input_ids"] for row in itertools.islice(stream, count)]


def test_one_pass_of_a_stream_is_every_chunk_of_every_file_once(two_files, causal_tokenizer):
    expected = chunks_by_hand(causal_tokenizer, range(40), range(40, 70))
    stream = packed_stream(two_files, causal_tokenizer, 16, buffer_size=20)
    chunks = taken(stream, 2 * len(expected))
    assert sorted(chunks[:len(expected)]) == sorted(expected)
    assert chunks[:len(expected)] != expected, "shuffled"
    assert chunks[len(expected):] == chunks[:len(expected)], "over and over"
    assert stream.column_names == ["input_ids", "labels"]
    assert all(row["labels"] == row["input_ids"] for row in stream.take(5))


def test_each_process_reads_files_of_its_own(two_files, causal_tokenizer):
    stream = packed_stream(two_files, causal_tokenizer, 16)
    expected = [sorted(chunks_by_hand(causal_tokenizer, numbers)) for numbers in (range(40), range(40, 70))]
    # Which rank gets which file depends on the seed.
    orders = [[sorted(taken(split_dataset_by_node(stream, rank, 2), len(file))) for rank, file in enumerate(files)]
              for files in (expected, expected[::-1])]
    assert expected in orders or expected[::-1] in orders


def test_a_stream_leaves_out_near_identical_titles(two_files, causal_tokenizer):
    stream = packed_stream(two_files, causal_tokenizer, 16, without_titles={"Title 3", "title-41 (beach)"})
    expected = chunks_by_hand(causal_tokenizer, [n for n in range(40) if n != 3], [40, *range(42, 70)])
    assert sorted(taken(stream, len(expected))) == sorted(expected)


def test_a_stream_holds_no_more_than_its_buffer(causal_tokenizer, monkeypatch):
    read = []

    def endless(*_, data_files, **options):
        assert options["streaming"]
        for number in itertools.count():
            assert number < 100_000, "read without being asked to"
            read.append(data_files)
            yield from rows_of([number])

    monkeypatch.setattr(chunking, "load_dataset", endless)
    stream = packed_stream(["a", "b"], causal_tokenizer, 16, buffer_size=50)
    assert read == [], "nothing before it is asked for"
    chunks = iter(stream)
    next(chunks)
    assert 0 < len(read) <= 2 * 256, "one batch of the tokenizer per file"
    tracemalloc.start()
    list(map(len, itertools.islice(chunks, 700)))
    before = tracemalloc.get_traced_memory()[0]
    list(map(len, itertools.islice(chunks, 1500)))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 250_000, "1,500 chunks would take several times as much"


def test_each_file_of_a_stream_needs_a_chunk(two_files, causal_tokenizer):
    without_titles = [row["title"] for row in rows_of(range(1, 40))]
    with pytest.raises(ValueError, match=r"a\.parquet gives no chunk of 64 tokens: leave it out, or shorten"):
        next(iter(packed_stream(two_files[:1], causal_tokenizer, 64, without_titles=without_titles)))
