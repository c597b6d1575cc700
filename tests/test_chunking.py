"""Chunks are the documents' own tokens, nothing more, and bad input is refused."""

from itertools import chain

import pytest
from datasets import Dataset, DatasetDict

from llm_tutorial import chunking
from llm_tutorial.chunking import chunk_documents, chunked_dataset

SENTENCE = "life is like a box of chocolates."
# Some rests are long, some short, and one document gives no chunk of 16.
TEXTS = [" ".join([SENTENCE] * repeat) for repeat in (3, 8, 13)] + ["a box", SENTENCE * 2]


@pytest.mark.parametrize("length", [1, 5, 16, 64])
def test_rejoined_chunks_are_each_documents_first_tokens(causal_tokenizer, length):
    chunks = chunk_documents(TEXTS, causal_tokenizer, length)
    kept = 0
    for index, text in enumerate(TEXTS):
        own = [ids for ids, document in zip(chunks.input_ids, chunks.documents, strict=True) if document == index]
        ids = causal_tokenizer(text, verbose=False).input_ids
        assert list(chain(*own)) == ids[: len(ids) // length * length]
        assert (index in chunks.dropped_documents) == (len(ids) < length)
        kept += len(ids)
    assert {len(ids) for ids in chunks.input_ids} == {length}
    assert chunks.documents == sorted(chunks.documents)
    assert chunks.dropped_tokens == kept - length * len(chunks.input_ids)


def test_batches_change_nothing_but_memory(causal_tokenizer, monkeypatch):
    at_once, sizes, encode = chunk_documents(TEXTS, causal_tokenizer, 16), [], type(causal_tokenizer).__call__

    def spied(self, texts, **options):
        sizes.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(type(causal_tokenizer), "__call__", spied)
    monkeypatch.setattr(chunking, "DOCUMENTS_AT_ONCE", 2)
    assert chunk_documents(TEXTS, causal_tokenizer, 16) == at_once
    assert sizes == [2, 2, 1]


def test_no_special_token_is_added(masked_tokenizer):
    chunks = chunk_documents([SENTENCE], masked_tokenizer, 4)
    assert chunks.input_ids == [masked_tokenizer.convert_tokens_to_ids(words)
                                for words in (["life", "is", "like", "a"], ["box", "of", "chocolates", "."])]


def test_a_dataset_keeps_only_the_ids(causal_tokenizer):
    split = Dataset.from_dict({"title": [str(i) for i in range(len(TEXTS))], "text": TEXTS})
    chunked = chunked_dataset(DatasetDict({"train": split, "valid": split.select([2])}), causal_tokenizer, 16)
    assert chunked["train"].column_names == ["input_ids"]
    assert chunked["train"]["input_ids"][:] == chunk_documents(TEXTS, causal_tokenizer, 16).input_ids
    assert chunked["valid"]["input_ids"][:] == chunk_documents(TEXTS[2:3], causal_tokenizer, 16).input_ids


@pytest.mark.parametrize(("texts", "length", "error", "message"), [
    (TEXTS[0], 16, TypeError, r"texts is one string: pass a list of documents, \[text\]"),
    (TEXTS, 0, ValueError, "context_length=0 is not between 1 and 64"),
    (TEXTS, -3, ValueError, "context_length=-3 is not between 1 and 64"),
    (TEXTS, 65, ValueError, "context_length=65 is not between 1 and 64"),
    (["a box", "", " \n"], 16, ValueError, r"Documents \[1, 2\] of 3 are empty: remove them"),
    (["a box"], 64, ValueError, r"1 documents with \d+ tokens give no chunk of context_length=64: use longer texts"),
    ([], 16, ValueError, "0 documents with 0 tokens give no chunk of context_length=16"),
])
def test_bad_input_is_named_with_a_remedy(causal_tokenizer, texts, length, error, message):
    with pytest.raises(error, match=message):
        chunk_documents(texts, causal_tokenizer, length)


def test_a_dataset_without_texts_is_refused(causal_tokenizer):
    with pytest.raises(ValueError, match=r"has the columns \['body'\], but no column 'text'"):
        chunked_dataset(Dataset.from_dict({"body": TEXTS}), causal_tokenizer, 16)


def test_a_sample_too_small_for_one_chunk_names_its_split(causal_tokenizer):
    splits = {"train": Dataset.from_dict({"text": TEXTS}), "valid": Dataset.from_dict({"text": ["a box"]})}
    with pytest.raises(ValueError, match=r"^Split 'valid': 1 documents .* give no chunk .*use longer texts"):
        chunked_dataset(DatasetDict(splits), causal_tokenizer, 16)
