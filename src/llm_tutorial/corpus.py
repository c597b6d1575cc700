"""Texts to train on: Wikipedia from the hub or bundled, and a learner's own files; always ``id, url, title, text``."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict
from huggingface_hub import HfFileSystem

from llm_tutorial.checkpoints import Checkpoint
from llm_tutorial.sources import chosen_source, files, hub

__all__ = [
    "COLUMNS", "StreamSource", "load_introductions", "load_run", "load_texts", "load_wikipedia", "resolve_wikipedia",
    "split_by_title", "split_texts", "title_key", "wikipedia_files",
]

COLUMNS = ["id", "url", "title", "text"]
REPOSITORY = "wikimedia/wikipedia"
CONFIGURATION = "20231101.en"
REVISION = "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"
_PATTERN = f"datasets/{REPOSITORY}@{REVISION}/{CONFIGURATION}/train-*.parquet"
_HUB_ROWS = 400
_CHARACTERS = 2700  # of an article, which is cut at the end of a sentence
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")
_QUALIFIER = re.compile(r"\s*\([^()]*\)\s*$")  # as in "Python (programming language)"
_TABLES = {".csv", ".json", ".jsonl", ".ndjson", ".tsv"}
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x19\x1c-\x1f]")  # no white space, no escape code, no end-of-file mark
_IGNORED = {"M", "P", "Z", "C"}  # first letters of the Unicode categories: accents, punctuation, spaces, controls


@dataclass(frozen=True)
class StreamSource:
    """Parquet files to stream, local paths or ``hf://`` addresses; the other fields are those of a ``Checkpoint``."""

    files: tuple[str, ...]
    revision: str
    source: str
    reason: str
    name: str


def resolve_wikipedia(*, source: str | None = None) -> Checkpoint:
    """Return the parquet file of Wikipedia articles to draw from, and where it comes from.

    From the hub, the first 400 rows of ``wikimedia/wikipedia`` are downloaded, a few megabytes of its 20 GB, and kept
    in the cache. Offline, about a hundred full-length articles are bundled.
    """
    if chosen_source(source)[0] != "offline" and _is_readable(_kept_file()):
        return Checkpoint(_kept_file(), REVISION, "cache", "downloaded earlier", REPOSITORY)
    wanted, reason = hub.use_hub(REPOSITORY, REVISION, "dataset", source=source)
    if wanted:
        files.writable_folder(files.cache_folder())
        _download_rows(_kept_file())
        return Checkpoint(_kept_file(), REVISION, "hub", reason, REPOSITORY)
    path = files.verified(files.data_folder() / "wikipedia" / "articles.parquet")
    return Checkpoint(path, files.listed_sha256(path), "offline", reason, "bundled Wikipedia articles")


def wikipedia_files(*, source: str | None = None) -> StreamSource:
    """Return the files of the English Wikipedia on the hub (41 of them, 20 GB), or else the two bundled files."""
    wanted, reason = hub.use_hub(REPOSITORY, REVISION, "dataset", source=source)
    if wanted:
        paths = tuple(f"hf://{path}" for path in _hub_files())
        return StreamSource(paths, REVISION, "hub", reason, f"{REPOSITORY} {CONFIGURATION}")
    folder = files.data_folder() / "wikipedia"
    bundled = [files.verified(folder / name) for name in ("articles.parquet", "intros.parquet")]
    return StreamSource(tuple(map(str, bundled)), "+".join(files.listed_sha256(path)[:16] for path in bundled),
                        "offline", reason, "bundled Wikipedia articles and introductions")


def load_wikipedia(train: int = 50, valid: int = 50, seed: int = 42, *, source: str | None = None) -> DatasetDict:
    """Return ``train`` + ``valid`` shuffled Wikipedia articles with the columns ``id, url, title, text``.

    Disambiguation pages and lists are left out. Offline, that leaves 96 articles, and the four longest introductions
    complete the hundred. Each text ends with its last sentence within 2,700 characters.
    """
    if train < 1 or valid < 1:
        raise ValueError(f"train={train} and valid={valid}: both must be at least 1.")
    table = _usable_articles(resolve_wikipedia(source=source))
    if train + valid > len(table):
        raise ValueError(f"train={train} + valid={valid} articles were asked for, but there are {len(table)}: "
                         "ask for fewer.")
    table = table.assign(text=[_cut_at_sentence(text, _CHARACTERS) for text in table["text"]])
    shuffled = Dataset.from_pandas(table, preserve_index=False).shuffle(seed=seed)
    return DatasetDict({"train": shuffled.select(range(train)),
                        "valid": shuffled.select(range(train, train + valid))})


def load_introductions() -> Dataset:
    """Return 10,033 introductions of Wikipedia articles, columns ``id, url, title, text, description, topic``."""
    path = files.verified(files.data_folder() / "wikipedia" / "intros.parquet")
    return Dataset.from_pandas(pd.read_parquet(path), preserve_index=False)


def load_texts(paths: str | Path | Iterable[str | Path], *, column: str = "",
               report: Callable[[str], object] = print) -> Dataset:
    """Return a learner's own texts with the columns ``id, url, title, text``: one document for each file or row.

    Files are UTF-8 text of any kind, prose or source code; of a folder, all but hidden ones are read.

    Args:
        column: the column with the texts in CSV files, and in JSON (a list, or one object per line).
        report: gets a line for each kind of file in folders that is passed over, and for equal texts.

    Raises:
        ValueError: a file that is named is no text, empty, in another encoding, or a table without ``column``.
        OSError: a file that is named cannot be read, or there is no text at all.
    """
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    if "" in listed:
        raise ValueError("A path is empty: name a file or a folder, or '.' for the current one.")
    listed = [Path(path).expanduser() for path in listed]
    rows, passed_over = [], {}
    for path in listed:
        for file in _visible_files(path) if path.is_dir() else [path]:
            try:
                texts = _table_texts(file, column) if file.suffix.lower() in _TABLES else [_read_text(file)]
            except (OSError, ValueError) as error:
                if file == path:
                    raise
                passed_over.setdefault(_shown(file.suffix), []).append(str(error))
            else:
                rows += [{"url": _shown(file.name), "title": _shown(file.stem) + f" {number}" * (len(texts) > 1),
                          "text": text} for number, text in enumerate(texts)]
    for suffix, errors in passed_over.items():
        report(f"Passed over {len(errors)} {suffix or 'other'} file(s). The first: {errors[0]}")
    if not rows:
        raise FileNotFoundError(f"There is no text in {', '.join(map(_shown, listed)) or 'an empty list'}: name a text "
                                "file, or a folder with text files.")
    different = {row["text"]: row for row in reversed(rows)}  # a copy would validate what it trains
    if len(different) < len(rows):
        report(f"Passed over {len(rows) - len(different):,} text(s) equal to others.")
    return Dataset.from_list([{"id": str(number)} | row for number, row in enumerate(reversed(different.values()))])


def split_texts(documents: Dataset, seed: int = 42) -> DatasetDict:
    """Return ``train`` and ``valid``: a tenth of the documents validates, or else the last tenth of each.

    Each is cut if there are fewer than ten, or if the tenth drawn has most of the text; at a paragraph, or else at the
    end of a line, at a space, or anywhere.
    """
    if len(documents) >= 10:
        split = documents.train_test_split(test_size=0.1, seed=seed)
        if sum(map(len, split["test"]["text"])) < sum(map(len, split["train"]["text"])):
            return DatasetDict({"train": split["train"], "valid": split["test"]})
    texts, others = documents["text"][:], documents.remove_columns("text")
    cuts = [_last_tenth(text) for text in texts]
    return DatasetDict({
        "train": others.add_column("text", [text[:cut] for text, cut in zip(texts, cuts, strict=True)]),
        "valid": others.add_column("text", [text[cut:] for text, cut in zip(texts, cuts, strict=True)])})


def load_run(name: str) -> dict[str, Any]:
    """Return the record ``data/runs/<name>.json`` of a finished training; its losses are in nats per token."""
    path = files.verified(files.data_folder() / "runs" / f"{name}.json")
    return json.loads(path.read_text(encoding="utf-8"))


def split_by_title(documents: Dataset, valid: int, seed: int) -> DatasetDict:
    """Return ``train`` and ``valid``, shuffled; the latter has at least ``valid`` documents.

    Documents with the same ``title_key`` stay together, so that no text is in both splits under two titles.
    """
    rows_of: dict[str, list[int]] = {}
    for row, title in enumerate(documents["title"]):
        rows_of.setdefault(title_key(title), []).append(row)
    keys, held_out, kept = sorted(rows_of), [], []
    for index in np.random.default_rng(seed).permutation(len(keys)):
        (held_out if len(held_out) < valid else kept).extend(rows_of[keys[index]])
    return DatasetDict({"train": documents.select(kept), "valid": documents.select(held_out)})


def title_key(title: str) -> str:
    """Return what similar titles have in common: their letters, digits and symbols, without case and accents.

    A qualifier in parentheses at the end is ignored, so "Mercury (planet)" has the key of "Mercury": rather leave out
    one document too many than train on a document that also validates the model.
    """
    decomposed = unicodedata.normalize("NFKD", _QUALIFIER.sub("", title)).casefold()
    return "".join(sign for sign in decomposed if unicodedata.category(sign)[0] not in _IGNORED)


def _cut_at_sentence(text: str, limit: int) -> str:
    """Return ``text`` up to its last sentence end within ``limit`` characters; a longer first sentence is cut hard."""
    if len(text) <= limit:
        return text
    # One character beyond the limit tells a full stop from the point in "3.14".
    ends = [match.end() for match in _SENTENCE_END.finditer(text[:limit + 1])]
    return text[:max((end for end in ends if end <= limit), default=limit)]


def _usable_articles(wikipedia: Checkpoint) -> pd.DataFrame:
    """Return the pages that are prose; offline, four introductions complete a hundred."""
    table = pd.read_parquet(wikipedia.path)
    listing = table["title"].str.contains(r"\(disambiguation\)$|^List of ")
    prose = ~listing & ~table["text"].str.slice(0, 200).str.contains(r"\b(?:may|can) (?:also )?refer to\b")
    if wikipedia.source != "offline":
        return table.loc[prose, COLUMNS]
    articles = table.loc[prose & ~table["disambiguation"], COLUMNS]
    introductions = load_introductions().to_pandas()
    introductions = introductions[~introductions["title"].isin(table["title"])]
    longest = introductions["text"].str.len().nlargest(4).index
    return pd.concat([articles, introductions.loc[longest, COLUMNS]], ignore_index=True)


def _visible_files(folder: Path) -> list[Path]:
    """Return the files below a folder; hidden folders contain copies, such as ``.ipynb_checkpoints``."""
    return sorted(file for file in folder.rglob("*") if file.is_file()
                  and not any(part.startswith(".") for part in file.relative_to(folder).parts))


def _shown(name: str | Path) -> str:
    """Return a file name, whose bytes need not be UTF-8, as text that can be stored and printed."""
    return os.fsencode(name).decode("utf-8", "replace")


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        text, wrong = data.decode("utf-8-sig"), data.find(0)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{_shown(path)} does not exist (looked in {Path.cwd()}): correct the path.") from error
    except UnicodeDecodeError as error:
        text, wrong = "", error.start
    if wrong >= 0:
        kind, options = _not_utf8(data)
        remedy = "Leave it out, or save its text as a .txt file."
        if options:
            remedy = (f"To convert it, run once in Python: from pathlib import Path; p = Path({str(path)!a}); "
                      f"p.write_text(p.read_text({options}), encoding='utf-8')")
        raise ValueError(f"{_shown(path)} is no UTF-8 text but {kind}: byte {wrong} is {data[wrong]:#04x}. {remedy}")
    if not text.strip():
        raise ValueError(f"{_shown(path)} is empty: remove it from the list, or put text into it.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _not_utf8(data: bytes) -> tuple[str, str]:
    """Return what the bytes are instead of UTF-8, and the arguments of ``read_text`` that read them, if any do."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not data.startswith(codecs.BOM_UTF32_LE):
        return "UTF-16", "encoding='utf-16'"
    if _CONTROLS.search(data):
        return "binary", ""
    kept = data.decode("utf-8", "ignore")
    if not kept.isascii() and len(data) - len(kept.encode()) <= 6:  # a piece of a file may begin and end within one
        return "a piece with half a character", "encoding='utf-8', errors='ignore'"
    return "probably Latin-1 (or another old encoding: then name that one)", "encoding='cp1252'"


def _table_texts(path: Path, column: str) -> list[str]:
    content, kind = _read_text(path), path.suffix.lower()
    try:
        if kind in {".csv", ".tsv"}:
            head = content.partition("\n")[0]
            separator = max(",;\t", key=head.count)  # spreadsheets write semicolons where decimals have commas
            table = pd.read_csv(io.StringIO(content), sep=separator, dtype=str, keep_default_na=False,
                                skipinitialspace=f"{separator} " in head or f'{separator} "' in content)
            if not isinstance(table.index, pd.RangeIndex):  # pandas takes what is too much for names of rows
                raise ValueError(f"a row has more values than the header has names: quote texts with {separator!r}")
        else:
            lines = not content.lstrip().startswith("[")
            table = pd.read_json(io.StringIO(content), lines=lines, dtype=False).rename(columns=str)
    except ValueError as error:
        needed = "a header and rows" if kind.endswith("sv") else "a list of objects, or one object per line"
        reason = str(error).strip()
        raise ValueError(f"{_shown(path)} is no {kind[1:]} file with {needed} ({reason}): correct it.") from error
    if column not in table:
        trouble = f"has no column {column!r}" if column else "is a table"
        raise ValueError(f"{_shown(path)} {trouble}: name the column with the texts, by column= in Python or --column "
                         f"in a terminal, one of {', '.join(map(str, table.columns))}.")
    texts = [text for text in table[column] if isinstance(text, str) and text.strip()]
    if not texts:
        raise ValueError(f"Column {column!r} of {_shown(path)} holds no text: name another one.")
    return texts


def _last_tenth(text: str) -> int:
    """Return where the last tenth of a text begins."""
    end = len(text) * 9 // 10
    places = (text.rfind(mark, end // 2, end) for mark in ("\n\n", "\n", " "))
    return next((place for place in places if place > 0), end)


def _kept_file() -> Path:
    return files.cache_folder() / f"wikipedia-{CONFIGURATION}-{REVISION[:12]}-{_HUB_ROWS}.parquet"


def _is_readable(kept: Path) -> bool:
    try:
        pq.read_metadata(kept)
    except (pa.ArrowInvalid, OSError):  # it is missing or damaged
        return False
    return True


def _hub_files() -> list[str]:
    with hub.hub_errors(REPOSITORY):
        return sorted(HfFileSystem(token=False).glob(_PATTERN))


def _download_rows(target: Path) -> None:
    """Download the first rows of the first file on the hub; ``target`` is complete or absent."""
    first, content = _hub_files()[0], io.BytesIO()
    with hub.hub_errors(REPOSITORY):
        # Without a cache, which would read 5 MB at each seek.
        with HfFileSystem(token=False).open(first, cache_type="none") as file, \
                pq.ParquetFile(file, buffer_size=1 << 20, page_checksum_verification=True) as table:
            # One row group at a time: given all of them, pyarrow would read ahead to the end of the file.
            batches = (batch for group in range(table.num_row_groups)
                       for batch in table.iter_batches(100, row_groups=[group], columns=COLUMNS, use_threads=False))
            rows = list(islice((row for batch in batches for row in batch.to_pylist()), _HUB_ROWS))
        pq.write_table(pa.Table.from_pylist(rows).select(COLUMNS), content)
        files.replace_file(target, content.getvalue())
