"""What a model is trained on and what it is validated with: chunks of documents that share no title."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset
from transformers import PreTrainedTokenizerBase

from llm_tutorial.chunking import chunked_dataset
from llm_tutorial.corpus import load_introductions, load_texts, load_wikipedia
from llm_tutorial.packing import packed_dataset
from llm_tutorial.presets import Preset
from llm_tutorial.streams import first_documents, packed_stream, read_documents, wikipedia_files
from llm_tutorial.training import WATCHED_CHUNKS, preset_tokenizer

__all__ = ["NAMES", "TrainingData", "split_by_title", "training_data", "whole_batches"]

NAMES = ("articles", "introductions", "stream")
_VALIDATION_DOCUMENTS = {"articles": 50, "introductions": 500, "stream": 200}
_VALIDATION_SHARE = 0.1  # of texts of one's own
_TOKENIZER_DOCUMENTS = 2000  # of a stream, to train a small vocabulary on


@dataclass(frozen=True)
class TrainingData:
    """Chunks to train on and to validate with.

    Attributes:
        datasets: ``train`` and ``valid``, each with ``input_ids``; ``train`` may be an endless stream.
        tokenizer: the preset's, trained on documents of ``train`` where the preset wants one of its own.
        description: what was taken, in words.
        record: for a stream, what decides which chunks come in which order.
    """

    datasets: Mapping[str, Dataset | IterableDataset]
    tokenizer: PreTrainedTokenizerBase
    description: str
    record: dict[str, Any] = field(default_factory=dict)


def training_data(
    data: str | Sequence[str | Path],
    preset: Preset,
    *,
    documents: int | None = None,
    validation_documents: int | None = None,
    seed: int = 42,
    report: Callable[[str], object] = print,
) -> TrainingData:
    """Return the chunks of ``data`` for a preset, in whole batches.

    Args:
        data: ``"articles"``, the 50 + 50 documents of ``load_wikipedia``, each chunked by itself; ``"introductions"``
            of 10,033 articles, packed; ``"stream"``, all of Wikipedia, packed; or paths of text files, packed.
        documents: train on no more than so many; by default 50 articles, or all that there are.
        validation_documents: hold out so many; by default 50 articles, 500 introductions, 200 documents of a stream,
            or a tenth of one's own texts.
        seed: draws the documents, and shuffles a stream.
        report: gets a line before what takes a while.

    Raises:
        ValueError: unknown name, a number below 1, more documents than there are, or texts too few or too short.
        FileNotFoundError, ConnectionError, OSError: a text is missing, damaged or does not arrive.
    """
    for name, count in (("documents", documents), ("validation_documents", validation_documents)):
        if count is not None and count < 1:
            raise ValueError(f"{name}={count}: at least 1 is needed.")
    if isinstance(data, str) and data not in NAMES:
        raise ValueError(f"Unknown data {data!r}: use one of {', '.join(NAMES)}, or a list of paths of text files.")
    if data == "stream":
        return _streamed(preset, documents, validation_documents, seed, report)
    if data == "articles":
        wanted = validation_documents or _VALIDATION_DOCUMENTS[data]
        texts, cut = load_wikipedia(documents or 50, wanted, seed), chunked_dataset
    else:
        own = data != "introductions"
        texts, cut = _held_out(load_texts(data) if own else load_introductions(), documents, validation_documents,
                               None if own else _VALIDATION_DOCUMENTS[data], seed), packed_dataset
    report(f"{len(texts['train']):,} documents to train on, {len(texts['valid']):,} to validate with")
    tokenizer = preset_tokenizer(preset, texts["train"]["text"])
    datasets = whole_batches(cut(texts, tokenizer, preset.context_length), preset.batch)
    return TrainingData(datasets, tokenizer, data if isinstance(data, str) else "texts of one's own")


def split_by_title(documents: Dataset, valid: int, seed: int) -> DatasetDict:
    """Return ``train`` and ``valid``, shuffled, of which ``valid`` has at least so many documents.

    Documents of the same title stay together, so that no text is in both splits under one name.

    Raises:
        ValueError: ``valid`` is below 1, or nothing would be left to train on.
    """
    if valid < 1:
        raise ValueError(f"{valid} documents to validate with: at least 1 is needed.")
    rows_of: dict[str, list[int]] = {}
    for row, title in enumerate(documents["title"]):
        rows_of.setdefault(title, []).append(row)
    titles, held_out, kept = sorted(rows_of), [], []
    for index in np.random.default_rng(seed).permutation(len(titles)):
        (held_out if len(held_out) < valid else kept).extend(rows_of[titles[index]])
    if not kept:
        raise ValueError(f"{len(documents)} documents with {len(titles)} different titles leave none to train on when "
                         f"{valid} are held out to validate with: give more, or hold out fewer.")
    return DatasetDict({"train": documents.select(kept), "valid": documents.select(held_out)})


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
    return DatasetDict({"train": train.select(filled), "valid": _whole_validation(valid)})


def _whole_validation(valid: Dataset) -> Dataset:
    chunks = len(valid)
    few = chunks < WATCHED_CHUNKS
    return valid.select(range(1 << chunks.bit_length() - 1 if few else chunks // WATCHED_CHUNKS * WATCHED_CHUNKS))


def _held_out(
    texts: Dataset, documents: int | None, wanted: int | None, usual: int | None, seed: int
) -> DatasetDict:
    split = split_by_title(texts, wanted or usual or max(1, round(len(texts) * _VALIDATION_SHARE)), seed)
    if documents is not None:
        if documents > len(split["train"]):
            raise ValueError(f"{documents} documents to train on were asked for, but there are {len(split['train'])} "
                             f"besides the {len(split['valid'])} to validate with: ask for fewer.")
        split["train"] = split["train"].select(range(documents))
    return split


def _streamed(
    preset: Preset, documents: int | None, validation_documents: int | None, seed: int,
    report: Callable[[str], object],
) -> TrainingData:
    source = wikipedia_files()
    report(f"streaming {source.name}: {len(source.files)} files, source {source.source} ({source.reason})")
    valid = first_documents(source.files[-1], validation_documents or _VALIDATION_DOCUMENTS["stream"])
    titles = frozenset(valid["title"])
    texts = []
    if preset.vocabulary is not None:
        report(f"training a vocabulary of {preset.vocabulary:,} on the first documents")
        texts = list(islice((row["text"] for file in source.files for row in read_documents(file)
                             if row["title"] not in titles), _TOKENIZER_DOCUMENTS))
    tokenizer = preset_tokenizer(preset, texts)
    stream = packed_stream(source.files, tokenizer, preset.context_length, without_titles=titles,
                           documents=documents, seed=seed)
    datasets = {"train": stream, "valid": _whole_validation(packed_dataset(valid, tokenizer, preset.context_length))}
    record = {f"stream.{key}": value for key, value in asdict(source).items() if key in {"name", "revision"}}
    record |= {"stream.seed": seed, "stream.documents": documents, "stream.validation_documents": len(valid)}
    return TrainingData(datasets, tokenizer, source.name, record)
