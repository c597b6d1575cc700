"""Texts to train on: Wikipedia from the hub or bundled, and a learner's own files; always ``id, url, title, text``."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
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
    "split_by_title", "title_key", "wikipedia_files",
]

COLUMNS = ["id", "url", "title", "text"]
REPOSITORY = "wikimedia/wikipedia"
CONFIGURATION = "20231101.en"
REVISION = "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"
_PATTERN = f"datasets/{REPOSITORY}@{REVISION}/{CONFIGURATION}/train-*.parquet"
_HUB_ROWS = 400
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")
_QUALIFIER = re.compile(r"\s*\([^()]*\)\s*$")  # as in "Python (programming language)"
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


def load_wikipedia(train: int = 50, valid: int = 50, seed: int = 42, max_characters: int | None = 2700, *,
                   source: str | None = None) -> DatasetDict:
    """Return ``train`` + ``valid`` shuffled Wikipedia articles with the columns ``id, url, title, text``.

    Disambiguation pages and lists are left out. Offline, that leaves 96 articles, and the four longest introductions
    complete the hundred. Each text ends with its last sentence within ``max_characters``; None keeps it whole.
    """
    if train < 1 or valid < 1:
        raise ValueError(f"train={train} and valid={valid}: both must be at least 1.")
    table = _usable_articles(resolve_wikipedia(source=source))
    if train + valid > len(table):
        raise ValueError(f"train={train} + valid={valid} articles were asked for, but there are {len(table)}: "
                         "ask for fewer.")
    table = table.assign(text=[_cut_at_sentence(text, max_characters) for text in table["text"]])
    shuffled = Dataset.from_pandas(table, preserve_index=False).shuffle(seed=seed)
    return DatasetDict({"train": shuffled.select(range(train)),
                        "valid": shuffled.select(range(train, train + valid))})


def load_introductions() -> Dataset:
    """Return 10,033 introductions of Wikipedia articles, columns ``id, url, title, text, description, topic``."""
    path = files.verified(files.data_folder() / "wikipedia" / "intros.parquet")
    return Dataset.from_pandas(pd.read_parquet(path), preserve_index=False)


def load_texts(paths: str | Path | Iterable[str | Path]) -> Dataset:
    """Return a learner's own UTF-8 text files, one document each, with the columns ``id, url, title, text``.

    Of a folder, all ``*.txt`` and ``*.md`` files are read, without those in hidden folders.
    """
    listed = [Path(path).expanduser() for path in ([paths] if isinstance(paths, str | Path) else paths)]
    found = [file for path in listed for file in (_text_files(path) if path.is_dir() else [path])]
    if not found:
        raise FileNotFoundError(f"No .txt or .md file in {[str(path) for path in listed]}: name at least one.")
    return Dataset.from_list([{"id": str(number), "url": path.name, "title": path.stem, "text": _read_text(path)}
                              for number, path in enumerate(found)])


def load_run(name: str) -> dict[str, Any]:
    """Return the record ``data/runs/<name>.json`` of a finished training; its losses are in nats per token."""
    runs = {path.stem: path for path in sorted((files.data_folder() / "runs").glob("*.json"))}
    if name not in runs:
        raise ValueError(f"No run {name!r} is bundled: use one of {', '.join(runs)}.")
    return json.loads(files.verified(runs[name]).read_text(encoding="utf-8"))


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
    if not kept:
        raise ValueError(f"{len(documents)} documents with {len(keys)} different titles leave none to train on when "
                         f"{valid} are held out: give more, or hold out fewer.")
    return DatasetDict({"train": documents.select(kept), "valid": documents.select(held_out)})


def title_key(title: str) -> str:
    """Return what similar titles have in common: their letters, digits and symbols, without case and accents.

    A qualifier in parentheses at the end is ignored, so "Mercury (planet)" has the key of "Mercury": rather leave out
    one document too many than train on a document that also validates the model.
    """
    for text in (_QUALIFIER.sub("", title), title):
        decomposed = unicodedata.normalize("NFKD", text).casefold()
        if key := "".join(sign for sign in decomposed if unicodedata.category(sign)[0] not in _IGNORED):
            return key
    return title


def _cut_at_sentence(text: str, max_characters: int | None) -> str:
    """Return ``text`` up to its last sentence end within ``max_characters``; a longer first sentence is cut hard."""
    if max_characters is None or len(text) <= max_characters:
        return text
    # One character beyond the limit tells a full stop from the point in "3.14".
    ends = [match.end() for match in _SENTENCE_END.finditer(text[: max_characters + 1])]
    return text[: max((end for end in ends if end <= max_characters), default=max_characters)]


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


def _text_files(folder: Path) -> list[Path]:
    """Return the text files below a folder; hidden folders contain copies, such as ``.ipynb_checkpoints``."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in {".txt", ".md"} and file.is_file()
                  and not any(part.startswith(".") for part in file.relative_to(folder).parts))


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist (looked in {Path.cwd()}): correct the path.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start} is {error.object[error.start]:#04x}): "
                         "save it as UTF-8 text and try again.") from error
    if not text.strip():
        raise ValueError(f"{path} is empty: remove it from the list, or put text into it.")
    return text


def _kept_file() -> Path:
    return files.cache_folder() / f"wikipedia-{CONFIGURATION}-{REVISION[:12]}-{_HUB_ROWS}.parquet"


def _is_readable(kept: Path) -> bool:
    try:
        pq.read_metadata(kept)
    except FileNotFoundError:
        return False
    except (pa.ArrowInvalid, OSError) as error:
        raise OSError(f"The articles in {kept} cannot be read ({error}). Delete the file and run the cell again, or "
                      "set LLM_TUTORIAL_SOURCE=offline.") from error
    return True


def _hub_files() -> list[str]:
    with hub.hub_errors(REPOSITORY):
        found = sorted(HfFileSystem(token=False).glob(_PATTERN))
        if not found:
            raise FileNotFoundError(f"there is no file {_PATTERN}")
    return found


def _download_rows(target: Path) -> None:
    """Download the first rows of the first file on the hub; ``target`` is complete or absent."""
    first, content = _hub_files()[0], pa.BufferOutputStream()
    with hub.hub_errors(REPOSITORY):
        # Without a cache, which would read 5 MB at each seek.
        with HfFileSystem(token=False).open(first, cache_type="none") as file, \
                pq.ParquetFile(file, buffer_size=1 << 20, page_checksum_verification=True) as table:
            # One row group at a time: given all of them, pyarrow would read ahead to the end of the file.
            batches = (batch for group in range(table.num_row_groups)
                       for batch in table.iter_batches(100, row_groups=[group], columns=COLUMNS, use_threads=False))
            rows = list(islice((row for batch in batches for row in batch.to_pylist()), _HUB_ROWS))
        pq.write_table(pa.Table.from_pylist(rows).select(COLUMNS), content)
        files.replace_file(target, content.getvalue().to_pybytes())
