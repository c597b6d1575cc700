"""Documents to rows of token ids: chunked one by one, packed end to end, or streamed."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from datasets import Dataset, DatasetDict, Features, IterableDataset, List, Value, load_dataset
from transformers import PreTrainedTokenizerBase

from llm_tutorial.corpus import title_key

__all__ = [
    "Chunks", "chunk_documents", "chunked_dataset", "pack_tokens", "packed_dataset", "packed_stream", "recut_dataset",
]


@dataclass(frozen=True)
class Chunks:
    """Chunks of equal length, each with the index of its document, and the number of tokens in incomplete last ones."""

    input_ids: list[list[int]]
    documents: list[int]
    dropped_tokens: int


def chunk_documents(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, context_length: int = 128) -> Chunks:
    """Return the full chunks of ``context_length`` tokens of each text; a shorter rest is dropped.

    No chunk spans two documents, and the tokenizer adds no special tokens. The method is that of the Hugging Face
    course (https://huggingface.co/learn/llm-course/chapter7/6).
    """
    _check(tokenizer, context_length)
    if isinstance(texts, str):
        raise TypeError("texts is one string, whose characters would be the documents: pass a list, [text].")
    rows, documents, dropped_tokens = [], [], 0
    for index, ids in enumerate(_token_ids(texts, tokenizer)):
        count = len(ids) // context_length
        rows += [ids[row * context_length:(row + 1) * context_length] for row in range(count)]
        documents += [index] * count
        dropped_tokens += len(ids) % context_length
    return Chunks(rows, documents, dropped_tokens)


def chunked_dataset(
    datasets: DatasetDict | Dataset, tokenizer: PreTrainedTokenizerBase, context_length: int = 128
) -> DatasetDict | Dataset:
    """Replace the column ``text`` (and all others) by ``input_ids``, one row per chunk of ``chunk_documents``."""
    return _by_split(datasets, lambda texts: chunk_documents(texts, tokenizer, context_length).input_ids,
                     ["input_ids"], context_length)


def pack_tokens(documents: Iterable[Sequence[int]], end: int, context_length: int) -> Iterator[list[int]]:
    """Yield chunks of ``context_length`` ids: each document, then ``end``, then the next document.

    Only the rest of the last chunk is lost, and no more than one document is in memory. GPT-2 was trained on such
    chunks (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"): attention reaches into the
    document before, and the model learns from the end-of-text token that another text follows.
    """
    waiting: list[int] = []
    for document in documents:
        waiting += [*document, end]
        whole = len(waiting) - len(waiting) % context_length
        for start in range(0, whole, context_length):
            yield waiting[start:start + context_length]
        del waiting[:whole]


def packed_dataset(
    datasets: DatasetDict | Dataset, tokenizer: PreTrainedTokenizerBase, context_length: int = 128
) -> DatasetDict | Dataset:
    """Replace the column ``text`` (and all others) by ``input_ids`` and equal ``labels``, one row per packed chunk.

    Batch the rows with ``transformers.default_data_collator``. ``DataCollatorForLanguageModeling`` removes the padding
    token from the labels; where that is the end-of-text token, as for GPT-2, no model would learn to end a text.
    Texts without a word are left out.
    """
    _check(tokenizer, context_length, packed=True)
    return _by_split(datasets, lambda texts: list(_packed(texts, tokenizer, context_length)),
                     ["input_ids", "labels"], context_length)


def recut_dataset(
    documents: Dataset, tokenizer: PreTrainedTokenizerBase, context_length: int = 128, *, passes: int, seed: int = 0
) -> Dataset:
    """Return ``passes`` passes over the column ``text`` in one dataset, each packed and cut from another random place.

    Train on it for one epoch. A model with learned positions that sees every text cut at the same places in all passes
    knows it from those places only.
    """
    _check(tokenizer, context_length, packed=True)
    ids = [index for document in _token_ids(documents["text"][:], tokenizer)
           for index in (*document, tokenizer.eos_token_id)]
    draw, rows = random.Random(seed), []
    for _ in range(passes):
        offset = draw.randrange(context_length)
        begins = range(offset, len(ids) - context_length + 1, context_length)
        rows += [ids[begin:begin + context_length] for begin in begins]
    return _dataset(rows, ["input_ids", "labels"], context_length)


def packed_stream(
    sources: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    context_length: int = 128,
    *,
    without_titles: Collection[str] = (),
    seed: int = 42,
    buffer_size: int = 2000,
) -> IterableDataset:
    """Return a stream of packed chunks (``input_ids`` and equal ``labels``) that starts over when it has ended.

    Each file is a shard: its documents are read, tokenized and packed while the stream is read, and the rest at the end
    of a file is dropped. The order of the files is shuffled, and so are their chunks, through a buffer. The stream has
    no end because processes with shares of different lengths would wait for each other forever.

    The Trainer splits the stream among processes by itself; give it ``accelerator_config={"dispatch_batches": False}``
    so that each process reads its own files.

    Args:
        sources: parquet files with the columns ``title`` and ``text``: paths or ``hf://`` addresses.
        without_titles: titles of documents to leave out, compared by ``corpus.title_key``.
        buffer_size: the number of chunks in the buffer.
    """
    _check(tokenizer, context_length, packed=True)
    features = Features({name: List(Value("int32")) for name in ("input_ids", "labels")})
    # The library takes the entries of a list, and of a list only, for shards.
    stream = IterableDataset.from_generator(_stream_rows, features=features, gen_kwargs={
        "files": list(sources), "tokenizer": tokenizer, "context_length": context_length,
        "without_keys": frozenset(map(title_key, without_titles))})
    return stream.shuffle(seed=seed, buffer_size=buffer_size).repeat(None)


def _check(tokenizer: PreTrainedTokenizerBase, context_length: int, *, packed: bool = False) -> None:
    if not 1 <= context_length <= tokenizer.model_max_length:
        raise ValueError(f"context_length={context_length} is not between 1 and {tokenizer.model_max_length:,}, the "
                         "limit of this tokenizer's model: choose a value in between.")
    if packed and tokenizer.eos_token_id is None:
        raise ValueError(f"{type(tokenizer).__name__} has no end-of-text token to put between documents: set its "
                         "eos_token.")


def _token_ids(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """Tokenize a few hundred texts at a time: fast tokenizers work in parallel, and a stream is never held whole."""
    remaining = iter(texts)
    while batch := list(islice(remaining, 256)):
        # verbose=False: it is no mistake that a document is longer than the model's context.
        yield from tokenizer(batch, add_special_tokens=False, return_attention_mask=False,
                             return_token_type_ids=False, verbose=False)["input_ids"]


def _packed(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, context_length: int) -> Iterator[list[int]]:
    worded = (text for text in texts if text.strip())
    return pack_tokens(_token_ids(worded, tokenizer), tokenizer.eos_token_id, context_length)


def _by_split(datasets: DatasetDict | Dataset, cut: Callable[[Sequence[str]], list[list[int]]], columns: list[str],
              context_length: int) -> DatasetDict | Dataset:
    if isinstance(datasets, DatasetDict):
        return DatasetDict({name: _dataset(cut(split["text"][:]), columns, context_length, f" of split {name!r}")
                            for name, split in datasets.items()})
    return _dataset(cut(datasets["text"][:]), columns, context_length)


def _dataset(rows: list[list[int]], columns: list[str], context_length: int, place: str = "") -> Dataset:
    """Return a dataset with the same rows in each of its columns."""
    if not rows:
        raise ValueError(f"The documents{place} give no chunk of context_length={context_length}: use more or longer "
                         "texts, or a shorter context.")
    return Dataset.from_dict(dict.fromkeys(columns, rows))


def _stream_rows(files: list[str], tokenizer: PreTrainedTokenizerBase, context_length: int,
                 without_keys: frozenset[str]) -> Iterator[dict[str, list[int]]]:
    for file in files:
        documents = load_dataset("parquet", data_files=[file], split="train", streaming=True,
                                 columns=["title", "text"], token=False)
        texts = (row["text"] for row in documents if title_key(row["title"]) not in without_keys)
        ids = None
        for ids in _packed(texts, tokenizer, context_length):
            yield {"input_ids": ids, "labels": ids}
        if ids is None:  # an endless stream would look for a chunk forever
            raise ValueError(f"{file} gives no chunk of {context_length} tokens: leave it out, or shorten the context.")
