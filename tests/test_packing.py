"""Documents packed end to end: what is kept, how lazily, and whether the end of a text is learnt."""

import itertools
import tracemalloc

import pytest
import torch
from datasets import Dataset, DatasetDict
from torch.nn.functional import cross_entropy
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.corpus import load_introductions
from llm_tutorial.packing import collate_packed, pack_tokens, packed_chunks, packed_dataset
from llm_tutorial.presets import PRESETS
from llm_tutorial.training import build_trainer, training_arguments

END = 9


@pytest.mark.parametrize(("documents", "length", "chunks"), [
    ([[1, 2], [3], [4, 5]], 3, [[1, 2, 9], [3, 9, 4]]),
    ([[1, 2], [3], [4, 5]], 4, [[1, 2, 9, 3], [9, 4, 5, 9]]),
    ([[1, 2, 3, 4, 5, 6]], 2, [[1, 2], [3, 4], [5, 6]]),
    ([[], [1]], 1, [[9], [1], [9]]),
    ([[1, 2]], 4, []),
    ([], 2, []),
])
def test_documents_follow_each_other_with_the_end_token_after_each(documents, length, chunks):
    assert list(pack_tokens(documents, END, length)) == chunks


@pytest.mark.parametrize("length", [1, 7, 64])
def test_no_token_is_lost_but_the_rest_of_the_last_chunk(length):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(0, 200, (50,), generator=generator).tolist()
    documents = [torch.randint(10, 99, (size,), generator=generator).tolist() for size in sizes]
    whole = list(itertools.chain.from_iterable([*document, END] for document in documents))
    chunks = list(pack_tokens(documents, END, length))
    assert {len(chunk) for chunk in chunks} == {length}
    assert list(itertools.chain.from_iterable(chunks)) == whole[:len(whole) // length * length]


def test_the_chunks_of_a_text_are_its_tokens(causal_tokenizer):
    texts = load_introductions()["text"][:600]  # more than are tokenised at once
    chunks = list(packed_chunks(texts, causal_tokenizer, 32))
    end = causal_tokenizer.eos_token
    ids = causal_tokenizer("".join(text + end for text in texts), verbose=False)["input_ids"]
    assert list(itertools.chain.from_iterable(chunks)) == ids[:len(chunks) * 32]
    assert len(ids) - len(chunks) * 32 < 32


def test_an_endless_generator_is_read_as_far_as_needed(causal_tokenizer):
    read = []

    def documents():
        for number in itertools.count():
            assert number < 100_000, "read without being asked to"
            read.append(number)
            yield "a language model reads the text from left to right."

    chunks = packed_chunks(documents(), causal_tokenizer, 16)
    assert read == []
    assert len(next(chunks)) == 16
    assert 0 < len(read) <= 256
    tracemalloc.start()
    for _ in itertools.islice(chunks, 1000):
        pass
    before = tracemalloc.get_traced_memory()[0]
    for _ in itertools.islice(chunks, 5000):
        pass
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 500_000, "five thousand chunks would take five times as much"


def test_a_long_document_is_no_reason_to_warn(caplog, capfd):
    tokenizer = load_gpt2_tokenizer()
    assert len(list(packed_chunks(["a word " * 3000], tokenizer, 1024))) == 5
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_a_dataset_is_packed_split_by_split(causal_tokenizer):
    texts = DatasetDict({"train": Dataset.from_dict({"text": ["a box at the beach."] * 9, "title": ["x"] * 9}),
                         "valid": Dataset.from_dict({"text": ["the pool."] * 9, "title": ["y"] * 9})})
    packed = packed_dataset(texts, causal_tokenizer, 8)
    assert {name: split.column_names for name, split in packed.items()} == {
        "train": ["input_ids"], "valid": ["input_ids"]}
    for name, split in packed.items():
        assert split["input_ids"][:] == list(packed_chunks(texts[name]["text"], causal_tokenizer, 8))


def loss_by_hand(model, rows):
    """Mean over all tokens that have a predecessor, ends of texts among them."""
    ids = torch.tensor(rows)
    with torch.no_grad():
        logits = model.eval()(ids).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()


@pytest.fixture
def packed(causal_tokenizer):
    """Six chunks of 16 ids, with a few end-of-text tokens in each."""
    rows = list(packed_chunks(["the box.", "a pool of text."] * 30, causal_tokenizer, 16))[:6]
    assert all(causal_tokenizer.eos_token_id in row[1:] for row in rows)
    return rows


def test_the_end_of_a_text_is_a_label_like_any_other(causal_lm, causal_tokenizer, packed):
    batch = collate_packed([{"input_ids": row} for row in packed])
    assert torch.equal(batch["labels"], torch.tensor(packed))
    assert batch["attention_mask"].tolist() == [[1] * 16] * 6
    with torch.no_grad():
        assert causal_lm(**batch).loss.item() == pytest.approx(loss_by_hand(causal_lm, packed), rel=1e-6)
    usual = DataCollatorForLanguageModeling(causal_tokenizer, mlm=False)([{"input_ids": row} for row in packed])
    ends = torch.tensor(packed) == causal_tokenizer.eos_token_id
    assert torch.equal(usual["labels"] == -100, ends), "what the library's collator leaves out"


def test_the_trainer_counts_the_ends_of_texts_too(causal_lm, causal_tokenizer, packed, tmp_path):
    datasets = DatasetDict({split: Dataset.from_dict({"input_ids": packed}) for split in ("train", "valid")})
    arguments = training_arguments("smoke", tmp_path, per_device_train_batch_size=6, max_steps=1, logging_steps=1)
    trainer = build_trainer(causal_lm, arguments, datasets, causal_tokenizer, preset=PRESETS["smoke"],
                            collator=collate_packed)
    expected = loss_by_hand(causal_lm, packed)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert trainer.train().training_loss == pytest.approx(expected, rel=1e-5)


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"one length, but these have \[2, 3\]: pack with packed_dataset"):
        collate_packed([{"input_ids": [1, 2]}, {"input_ids": [1, 2, 3]}])
    with pytest.raises(ValueError, match=r"these have \[\]"):
        collate_packed([])


def test_bad_requests_are_named_before_anything_is_read(causal_tokenizer):
    for length, message in ((0, "context_length=0 is not between 1 and 64"), (65, "context_length=65 is not between")):
        with pytest.raises(ValueError, match=message):
            packed_chunks(["a"], causal_tokenizer, length)
    with pytest.raises(ValueError, match="context_length=0: a chunk has at least 1 token"):
        pack_tokens([[1]], END, 0)
    with pytest.raises(TypeError, match="one string: pass a list"):
        packed_chunks("a", causal_tokenizer, 8)
    endless = PreTrainedTokenizerFast(tokenizer_object=causal_tokenizer.backend_tokenizer, model_max_length=64)
    with pytest.raises(ValueError, match="has no end-of-text token to put between documents"):
        packed_chunks(["a"], endless, 8)


@pytest.mark.parametrize(("columns", "message"), [
    ({"body": ["a"]}, r"Split 'train': The dataset has the columns \['body'\], but no column 'text' to pack"),
    ({"text": ["a", " "]}, r"Split 'train': Documents \[1\] of 2 are empty"),
    ({"text": ["a", "b"]}, "Split 'train': 2 documents give no chunk of context_length=64: use more text"),
])
def test_texts_that_cannot_be_packed_are_named(causal_tokenizer, columns, message):
    with pytest.raises(ValueError, match=message):
        packed_dataset(DatasetDict({"train": Dataset.from_dict(columns)}), causal_tokenizer, 64)
