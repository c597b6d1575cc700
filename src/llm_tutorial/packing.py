"""Pack documents end to end into chunks of equal length, with the end-of-text token after each document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

__all__ = ["collate_packed", "pack_tokens", "packed_chunks", "packed_dataset"]

_TEXTS_AT_ONCE = 256  # the fast tokenizer works on a batch in parallel


def pack_tokens(documents: Iterable[Sequence[int]], end: int, context_length: int) -> Iterator[list[int]]:
    """Return an iterator over chunks of ``context_length`` ids: each document, then ``end``, then the next document.

    Only the rest of the last chunk is lost, and no more than one document is kept in memory.  Radford et al. 2019,
    "Language Models are Unsupervised Multitask Learners", train like this: attention reaches over the ends, and the
    model learns from the end-of-text token that what follows is another text.

    Args:
        documents: token ids of each document, without end-of-text tokens.

    Raises:
        ValueError: ``context_length`` is below 1.
    """
    if context_length < 1:
        raise ValueError(f"context_length={context_length}: a chunk has at least 1 token.")
    return _packed(documents, end, context_length)


def packed_chunks(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, context_length: int = 128
) -> Iterator[list[int]]:
    """Return an iterator over the chunks of ``context_length`` ids of the packed texts, tokenised as they are needed.

    A few hundred texts are in memory at once, so ``texts`` may be an endless generator.

    Raises:
        TypeError: ``texts`` is one string instead of an iterable of strings.
        ValueError: ``context_length`` is below 1 or beyond the tokenizer's limit, or it has no end-of-text token.
    """
    if isinstance(texts, str):
        raise TypeError("texts is one string: pass a list of documents, [text].")
    if not 1 <= context_length <= tokenizer.model_max_length:
        raise ValueError(f"context_length={context_length} is not between 1 and {tokenizer.model_max_length:,}, the "
                         "most this tokenizer's model can read.")
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{type(tokenizer).__name__} has no end-of-text token to put between documents: set its "
                         "eos_token.")
    return pack_tokens(_token_ids(texts, tokenizer), tokenizer.eos_token_id, context_length)


def packed_dataset(
    datasets: DatasetDict | Dataset, tokenizer: PreTrainedTokenizerBase, context_length: int = 128
) -> DatasetDict | Dataset:
    """Replace the column ``text`` (and all others) by ``input_ids``, one row per packed chunk.

    Raises:
        ValueError: as ``packed_chunks``, there is no column ``text``, a text is empty, or all texts together give no
            chunk.
    """
    if isinstance(datasets, DatasetDict):
        return DatasetDict({name: _packed_split(name, split, tokenizer, context_length)
                            for name, split in datasets.items()})
    if "text" not in datasets.column_names:
        raise ValueError(f"The dataset has the columns {datasets.column_names}, but no column 'text' to pack.")
    texts = datasets["text"][:]
    empty = [index for index, text in enumerate(texts) if not text.strip()]
    if empty:
        raise ValueError(f"Documents {empty[:5]} of {len(texts)} are empty: remove them before packing.")
    rows = list(packed_chunks(texts, tokenizer, context_length))
    if not rows:
        raise ValueError(f"{len(texts)} documents give no chunk of context_length={context_length}: use more text or "
                         "a shorter context.")
    return Dataset.from_dict({"input_ids": rows})


def collate_packed(rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
    """Return a batch of chunks of equal length, ``labels`` being the ids themselves, end-of-text tokens included.

    ``DataCollatorForLanguageModeling`` takes every padding token out of the labels.  Where the end-of-text token lends
    itself as padding, as for GPT-2, no model would ever learn to end a text.  Chunks of equal length need no padding.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, integers of shape (rows, context_length).

    Raises:
        ValueError: the rows differ in length.
    """
    lengths = sorted({len(row["input_ids"]) for row in rows})
    if len(lengths) != 1:
        raise ValueError(f"Packed chunks have one length, but these have {lengths}: pack with packed_dataset, or use "
                         "a collator that pads.")
    ids = torch.tensor([list(row["input_ids"]) for row in rows])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def _packed(documents: Iterable[Sequence[int]], end: int, context_length: int) -> Iterator[list[int]]:
    waiting: list[int] = []
    for document in documents:
        waiting.extend(document)
        waiting.append(end)
        whole = len(waiting) - len(waiting) % context_length
        for start in range(0, whole, context_length):
            yield waiting[start:start + context_length]
        del waiting[:whole]


def _token_ids(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    remaining = iter(texts)
    while batch := list(islice(remaining, _TEXTS_AT_ONCE)):
        # Not verbose: a document longer than the model's context is no mistake here.
        yield from tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]


def _packed_split(name: str, split: Dataset, tokenizer: PreTrainedTokenizerBase, context_length: int) -> Dataset:
    try:
        return packed_dataset(split, tokenizer, context_length)
    except ValueError as error:
        raise ValueError(f"Split {name!r}: {error}") from error
