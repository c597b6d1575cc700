"""What a model is trained on and what it is validated with: chunks of documents that share no title."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset
from transformers import PreTrainedTokenizerBase

from llm_tutorial.batches import whole_batches, whole_validation
from llm_tutorial.corpus import load_introductions, load_texts, load_wikipedia
from llm_tutorial.presets import Preset
from llm_tutorial.saved_tokenizers import load_saved_tokenizer
from llm_tutorial.streams import first_documents, packed_stream, read_documents, wikipedia_files
from llm_tutorial.titles import title_key, without_titles
from llm_tutorial.training import preset_tokenizer
from llm_tutorial.validation import HELD_OUT, cutter, held_out_documents

__all__ = ["NAMES", "TrainingData", "split_by_title", "training_data"]

NAMES = ("articles", "introductions", "stream")
_ARTICLES = 50  # to train on
_VALIDATION_SHARE = 0.1  # of texts of one's own
_TOKENIZER_DOCUMENTS = 2000  # of a stream, to train a small vocabulary on


@dataclass(frozen=True)
class TrainingData:
    """Chunks to train on and to validate with.

    Attributes:
        datasets: ``train`` and ``valid``, each with ``input_ids``; ``train`` may be an endless stream.
        tokenizer: the one that was given, or else the preset's; where the preset wants one of its own, trained on the
            documents of ``train``, of a stream on those that its files begin with.
        description: what was taken, in words.
        left_out: documents that were not trained on because one of the same title is validated with; None where they
            are not counted.
        record: for a stream, what decides which chunks come in which order.
    """

    datasets: Mapping[str, Dataset | IterableDataset]
    tokenizer: PreTrainedTokenizerBase
    description: str
    left_out: int | None = None
    record: dict[str, Any] = field(default_factory=dict)


def training_data(
    data: str | Sequence[str | Path],
    preset: Preset,
    *,
    documents: int | None = None,
    validation_documents: int | None = None,
    validate_with: str | Sequence[str | Path] | None = None,
    tokenizer: str | Path | None = None,
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
        validate_with: hold out documents of other data instead, see ``validation.held_out_documents``; what has
            their titles is not trained on, so that runs on different data can share what they are validated with.
        tokenizer: folder of a saved tokenizer, to be taken instead of training one.
        seed: draws the documents, and shuffles a stream.
        report: gets a line before what takes a while.

    Raises:
        ValueError: unknown name, a number below 1, more documents than there are, texts too few or too short, or a
            tokenizer that does not fit the preset.
        FileNotFoundError, ConnectionError, OSError: a text or the tokenizer is missing, damaged or does not arrive.
    """
    for name, count in (("documents", documents), ("validation_documents", validation_documents)):
        if count is not None and count < 1:
            raise ValueError(f"{name}={count}: at least 1 is needed.")
    if isinstance(data, str) and data not in NAMES:
        raise ValueError(f"Unknown data {data!r}: use one of {', '.join(NAMES)}, or a list of paths of text files.")
    saved = None if tokenizer is None else load_saved_tokenizer(tokenizer, preset.vocabulary)
    elsewhere = None if validate_with is None else held_out_documents(validate_with, validation_documents, seed)
    cut = {"train": cutter(data), "valid": cutter(data if validate_with is None else validate_with)}
    if data == "stream":
        prepared = _streamed(preset, documents, elsewhere, validation_documents, cut["valid"], saved, seed, report)
    else:
        texts, left_out = _documents(data, documents, validation_documents, elsewhere, seed)
        report(f"{len(texts['train']):,} documents to train on, {len(texts['valid']):,} to validate with" + (
            f"; {left_out:,} left out, whose titles are among those to validate with" if left_out else ""))
        tokens = saved or preset_tokenizer(preset, texts["train"]["text"])
        chunks = {split: cut[split](DatasetDict({split: texts[split]}), tokens, preset.context_length)[split]
                  for split in texts}  # as dictionaries, so that errors name the split
        prepared = TrainingData(whole_batches(chunks, preset.batch), tokens,
                                data if isinstance(data, str) else "texts of one's own", left_out)
    if validate_with is None:
        return prepared
    other = validate_with if isinstance(validate_with, str) else "other texts"
    return replace(prepared, description=f"{prepared.description}, validated with {other}")


def split_by_title(documents: Dataset, valid: int, seed: int) -> DatasetDict:
    """Return ``train`` and ``valid``, shuffled, of which ``valid`` has at least so many documents.

    Documents of near-identical titles (``titles.title_key``) stay together, so that no text is in both splits under
    two spellings of its name.

    Raises:
        ValueError: ``valid`` is below 1, or nothing would be left to train on.
    """
    if valid < 1:
        raise ValueError(f"{valid} documents to validate with: at least 1 is needed.")
    rows_of: dict[str, list[int]] = {}
    for row, title in enumerate(documents["title"]):
        rows_of.setdefault(title_key(title), []).append(row)
    titles, held_out, kept = sorted(rows_of), [], []
    for index in np.random.default_rng(seed).permutation(len(titles)):
        (held_out if len(held_out) < valid else kept).extend(rows_of[titles[index]])
    if not kept:
        raise ValueError(f"{len(documents)} documents with {len(titles)} different titles leave none to train on when "
                         f"{valid} are held out to validate with: give more, or hold out fewer.")
    return DatasetDict({"train": documents.select(kept), "valid": documents.select(held_out)})


def _documents(
    data: str | Sequence[str | Path], documents: int | None, validation_documents: int | None,
    elsewhere: Dataset | None, seed: int,
) -> tuple[DatasetDict, int | None]:
    """Return the documents of both splits, and how many of the others were left out for their titles."""
    if data == "articles":
        wanted = validation_documents or HELD_OUT[data]
        split = load_wikipedia(documents or _ARTICLES, 1 if elsewhere is not None else wanted, seed)
        if elsewhere is None:
            return split, None
        texts, documents = split["train"], None
    else:
        texts = load_introductions() if data == "introductions" else load_texts(data)
        if elsewhere is None:
            usual = HELD_OUT[data] if data == "introductions" else max(1, round(len(texts) * _VALIDATION_SHARE))
            split = split_by_title(texts, validation_documents or usual, seed)
            return DatasetDict({**split, "train": _at_most(documents, split["train"], split["valid"])}), None
        texts = texts.shuffle(seed=seed)
    kept = without_titles(texts, elsewhere["title"])
    if not len(kept):
        raise ValueError(f"All {len(texts)} documents to train on have titles of those to validate with: give others.")
    return DatasetDict({"train": _at_most(documents, kept, elsewhere), "valid": elsewhere}), len(texts) - len(kept)


def _at_most(documents: int | None, train: Dataset, valid: Dataset) -> Dataset:
    if documents is None:
        return train
    if documents > len(train):
        raise ValueError(f"{documents} documents to train on were asked for, but there are {len(train)} besides the "
                         f"{len(valid)} to validate with: ask for fewer.")
    return train.select(range(documents))


def _streamed(
    preset: Preset, documents: int | None, valid: Dataset | None, validation_documents: int | None, cut: Any,
    saved: PreTrainedTokenizerBase | None, seed: int, report: Callable[[str], object],
) -> TrainingData:
    source = wikipedia_files()
    report(f"streaming {source.name}: {len(source.files)} files, source {source.source} ({source.reason})")
    if valid is None:
        valid = first_documents(source.files[-1], validation_documents or HELD_OUT["stream"])
    keys = {title_key(title) for title in valid["title"]}
    texts = []
    if saved is None and preset.vocabulary is not None:
        report(f"training a vocabulary of {preset.vocabulary:,} on the first documents")
        texts = list(islice((row["text"] for file in source.files for row in read_documents(file)
                             if title_key(row["title"]) not in keys), _TOKENIZER_DOCUMENTS))
    tokenizer = saved or preset_tokenizer(preset, texts)
    stream = packed_stream(source.files, tokenizer, preset.context_length, without_titles=valid["title"],
                           documents=documents, seed=seed)
    datasets = {"train": stream, "valid": whole_validation(cut(valid, tokenizer, preset.context_length))}
    record = {f"stream.{key}": value for key, value in asdict(source).items() if key in {"name", "revision"}}
    record |= {"stream.seed": seed, "stream.documents": documents, "stream.validation_documents": len(valid)}
    return TrainingData(datasets, tokenizer, source.name, record=record)
