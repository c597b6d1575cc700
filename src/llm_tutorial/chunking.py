"""Cut documents into equally long chunks of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

__all__ = ["Chunks", "chunk_documents", "chunked_dataset"]

DOCUMENTS_AT_ONCE = 256


@dataclass(frozen=True)
class Chunks:
    """Equally long chunks and what was left over.

    Attributes:
        input_ids: one list of ``context_length`` token ids per chunk.
        documents: for each chunk, the index of the document it comes from.
        dropped_tokens: how many tokens stood in incomplete last chunks, which are left out.
        dropped_documents: indices of the documents too short for a single chunk.
    """

    input_ids: list[list[int]]
    documents: list[int]
    dropped_tokens: int
    dropped_documents: list[int]


def chunk_documents(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, context_length: int = 128
) -> Chunks:
    """Return the full chunks of ``context_length`` tokens of each text; a shorter rest is dropped.

    No chunk spans two documents.  The method is that of the Hugging Face course, chapter 7.6: the tokenizer truncates
    and returns what overflows (https://huggingface.co/learn/llm-course/chapter7/6).

    Raises:
        ValueError: ``context_length`` is below 1 or beyond the tokenizer's limit, a text is empty, or all texts
            together give no chunk.
        TypeError: ``texts`` is one string instead of a sequence of strings.
    """
    if isinstance(texts, str):
        raise TypeError("texts is one string: pass a list of documents, [text].")
    if not 1 <= context_length <= tokenizer.model_max_length:
        raise ValueError(f"context_length={context_length} is not between 1 and {tokenizer.model_max_length:,}, the "
                         f"most this tokenizer's model can read.")
    empty = [index for index, text in enumerate(texts) if not text.strip()]
    if empty:
        raise ValueError(f"Documents {empty[:5]} of {len(texts)} are empty: remove them before chunking.")
    chunks = _full_chunks(list(texts), tokenizer, context_length)
    if not chunks.input_ids:
        raise ValueError(f"{len(texts)} documents with {chunks.dropped_tokens} tokens give no chunk of "
                         f"context_length={context_length}: use longer texts or a shorter context.")
    return chunks


def chunked_dataset(
    datasets: DatasetDict | Dataset, tokenizer: PreTrainedTokenizerBase, context_length: int = 128
) -> DatasetDict | Dataset:
    """Replace the column ``text`` (and all others) by ``input_ids``, one row per full chunk.

    Raises:
        ValueError: as ``chunk_documents``, or there is no column ``text``.
    """
    if isinstance(datasets, DatasetDict):
        return DatasetDict({name: _chunked_split(name, split, tokenizer, context_length)
                            for name, split in datasets.items()})
    if "text" not in datasets.column_names:
        raise ValueError(f"The dataset has the columns {datasets.column_names}, but no column 'text' to chunk.")
    chunks = chunk_documents(datasets["text"][:], tokenizer, context_length)
    return Dataset.from_dict({"input_ids": chunks.input_ids})


def _chunked_split(name: str, split: Dataset, tokenizer: PreTrainedTokenizerBase, context_length: int) -> Dataset:
    try:
        return chunked_dataset(split, tokenizer, context_length)
    except ValueError as error:
        raise ValueError(f"Split {name!r}: {error}") from error


def _full_chunks(texts: list[str], tokenizer: PreTrainedTokenizerBase, context_length: int) -> Chunks:
    rows, documents, dropped_tokens = [], [], 0
    # In batches: what the tokenizer returns beside the ids takes several times their memory.
    for start in range(0, len(texts), DOCUMENTS_AT_ONCE):
        encoded = tokenizer(
            texts[start:start + DOCUMENTS_AT_ONCE], truncation=True, max_length=context_length,
            return_overflowing_tokens=True, return_length=True, return_attention_mask=False,
            return_token_type_ids=False, add_special_tokens=False)
        for ids, length, document in zip(encoded["input_ids"], encoded["length"],
                                         encoded["overflow_to_sample_mapping"], strict=True):
            if length == context_length:
                rows.append(ids)
                documents.append(start + document)
            else:
                dropped_tokens += length
    return Chunks(rows, documents, dropped_tokens, sorted(set(range(len(texts))) - set(documents)))
