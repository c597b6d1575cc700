"""Chunks in whole batches, so that the steps of one process and of several are the same."""

from __future__ import annotations

from collections.abc import Mapping

from datasets import Dataset, DatasetDict

from llm_tutorial.training import WATCHED_CHUNKS

__all__ = ["whole_batches", "whole_validation"]


def whole_batches(datasets: Mapping[str, Dataset], batch: int) -> DatasetDict:
    """Return the chunks so that every step has the same number of them, on one process as on several.

    Left alone, several processes fill the last batch of an epoch up with other chunks than a single one, which makes
    it smaller; then neither losses nor weights agree.  So ``train`` is filled up to whole batches from its beginning,
    and ``valid`` is cut to a multiple of 32 chunks, or, if there are fewer, to a power of two.

    Raises:
        ValueError: ``batch`` is below 1, or a split is empty.
    """
    train, valid = datasets["train"], datasets["valid"]
    if batch < 1 or not len(train) or not len(valid):
        raise ValueError(f"batch={batch}, {len(train)} chunks to train on, {len(valid)} to validate with: at least 1 "
                         "each is needed.")
    filled = [index % len(train) for index in range(-(-len(train) // batch) * batch)]
    return DatasetDict({"train": train.select(filled), "valid": whole_validation(valid)})


def whole_validation(valid: Dataset) -> Dataset:
    """Return the first chunks, a multiple of 32 of them, or, if there are fewer, a power of two."""
    chunks = len(valid)
    few = chunks < WATCHED_CHUNKS
    return valid.select(range(1 << chunks.bit_length() - 1 if few else chunks // WATCHED_CHUNKS * WATCHED_CHUNKS))
