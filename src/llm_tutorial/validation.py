"""Documents to validate with that do not come from the training data, so that several runs share them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from datasets import Dataset, DatasetDict

from llm_tutorial.chunking import chunked_dataset
from llm_tutorial.corpus import load_introductions, load_texts, load_wikipedia
from llm_tutorial.packing import packed_dataset

__all__ = ["HELD_OUT", "VALIDATION_NAMES", "cutter", "held_out_documents"]

VALIDATION_NAMES = ("articles", "introductions")
HELD_OUT = {"articles": 50, "introductions": 500, "stream": 200}  # documents, unless another number is asked for
_TRAINED_ON = 50  # articles that come before those held out, in the order of the shuffle


def held_out_documents(data: str | Sequence[str | Path], count: int | None = None, seed: int = 42) -> Dataset:
    """Return the documents that runs on other data are validated with.

    Args:
        data: ``"articles"``, those that the 50 articles of ``load_wikipedia`` are validated with; ``"introductions"``;
            or paths of text files.
        count: so many, drawn with the seed; by default 50 articles, 500 introductions, or all of one's own texts.

    Raises:
        ValueError: unknown name, ``count`` is below 1, or more than there are.
        FileNotFoundError, ConnectionError, OSError: a text is missing, damaged or does not arrive.
    """
    if count is not None and count < 1:
        raise ValueError(f"{count} documents to validate with: at least 1 is needed.")
    if isinstance(data, str) and data not in VALIDATION_NAMES:
        raise ValueError(f"Unknown data to validate with {data!r}: use one of {', '.join(VALIDATION_NAMES)}, or a list "
                         "of paths of text files.")
    if data == "articles":
        return load_wikipedia(_TRAINED_ON, count or HELD_OUT[data], seed)["valid"]
    texts = load_introductions() if data == "introductions" else load_texts(data)
    count = count or (HELD_OUT[data] if data == "introductions" else len(texts))
    if count > len(texts):
        raise ValueError(f"{count} documents to validate with were asked for, but there are {len(texts)}: ask for "
                         "fewer.")
    return texts.shuffle(seed=seed).select(range(count))


def cutter(data: str | Sequence[str | Path]) -> Callable[..., DatasetDict | Dataset]:
    """Return how documents of ``data`` become chunks: long articles each by itself, all others packed."""
    return chunked_dataset if data == "articles" else packed_dataset
