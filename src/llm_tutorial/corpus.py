"""Texts to train on: Wikipedia from the hub or bundled, and a learner's own files, always ``id, url, title, text``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from datasets import Dataset, DatasetDict

from llm_tutorial import files, hub, transfers
from llm_tutorial.checkpoints import Checkpoint, chosen_source

__all__ = [
    "COLUMNS",
    "CONFIGURATION",
    "REPOSITORY",
    "REVISION",
    "cut_at_sentence",
    "load_introductions",
    "load_texts",
    "load_wikipedia",
    "resolve_wikipedia",
]

COLUMNS = ["id", "url", "title", "text"]
REPOSITORY = "wikimedia/wikipedia"
CONFIGURATION = "20231101.en"
REVISION = "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"
_STREAMED_ROWS = 400
_LONGEST_INTRODUCTIONS = 4
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")


def resolve_wikipedia(*, source: str | None = None) -> Checkpoint:
    """Return the parquet file of Wikipedia articles to draw from, and where it comes from.

    On the hub the first rows of ``wikimedia/wikipedia`` (``20231101.en``) are streamed and kept in the cache: a few
    megabytes travel, not the 41 files (20 GB) of the whole.  Offline, about a hundred full-length articles are bundled.

    Raises:
        ValueError: unknown source.
        ConnectionError: the hub is wanted but does not answer, or the stream broke.
        OSError: the bundled file is missing or damaged; articles kept earlier were damaged, or cannot be stored.
    """
    chosen, origin = chosen_source(source)
    reason = origin
    if chosen != "offline":
        kept = _kept_rows()
        if kept is not None:
            return Checkpoint(kept, REVISION, "cache", "downloaded earlier", REPOSITORY)
        trouble = hub.why_unreachable(REPOSITORY, REVISION, "dataset")
        if trouble is None:
            kept = _kept_file()
            _stream_rows(kept)
            return Checkpoint(kept, REVISION, "hub", "the hub answered", REPOSITORY)
        if chosen == "hub":
            hub.forget_answers()  # the next attempt asks again
            raise ConnectionError(f"{REPOSITORY} is wanted from the hub ({origin}), but the hub cannot be reached: "
                                  f"{trouble}. Set LLM_TUTORIAL_SOURCE=auto or offline to use the bundled articles.")
        reason = f"hub not reachable: {trouble}"
    path = files.verified(files.data_folder() / "wikipedia" / "articles.parquet")
    return Checkpoint(path, files.listed_sha256(path), "offline", reason, "bundled Wikipedia articles")


def load_wikipedia(
    train: int = 50,
    valid: int = 50,
    seed: int = 42,
    max_characters: int | None = 2700,
    *,
    source: str | None = None,
) -> DatasetDict:
    """Return ``train`` + ``valid`` shuffled Wikipedia articles with the columns ``id, url, title, text``.

    Disambiguation pages and mere lists are left out; offline that leaves 96 articles, which the four longest
    introductions make a hundred.  Each text is cut at the last sentence that ends within ``max_characters`` (None: not
    at all).

    Raises:
        ValueError: a count is not positive, more articles are asked for than there are, or ``max_characters`` < 100.
        ConnectionError, OSError: as ``resolve_wikipedia``.
    """
    if train < 1 or valid < 1:
        raise ValueError(f"train={train} and valid={valid}: both must be at least 1.")
    if max_characters is not None and max_characters < 100:
        raise ValueError(f"max_characters={max_characters} leaves no text to learn from: use at least 100, or None.")
    table = _usable_articles(resolve_wikipedia(source=source))
    if train + valid > len(table):
        raise ValueError(f"train={train} + valid={valid} articles were asked for, but there are {len(table)}: "
                         "ask for fewer.")
    table = table.assign(text=[cut_at_sentence(text, max_characters) for text in table["text"]])
    shuffled = Dataset.from_pandas(table, preserve_index=False).shuffle(seed=seed)
    return DatasetDict({
        "train": shuffled.select(range(train)),
        "valid": shuffled.select(range(train, train + valid)),
    })


def load_introductions() -> Dataset:
    """Return 10,033 introductions of Wikipedia articles, columns ``id, url, title, text, description, topic``.

    They are short, so pack them with the end-of-text token between documents rather than chunking one by one.

    Raises:
        OSError: the bundled file is missing or damaged.
    """
    path = files.verified(files.data_folder() / "wikipedia" / "intros.parquet")
    return Dataset.from_pandas(pd.read_parquet(path), preserve_index=False)


def load_texts(paths: Iterable[str | Path]) -> Dataset:
    """Return a dataset of a learner's own text files, one document each, columns ``id, url, title, text``.

    Args:
        paths: UTF-8 text files, or folders of which every ``*.txt`` and ``*.md`` file is taken, hidden ones excepted.

    Raises:
        FileNotFoundError: a path does not exist, or no text file was found.
        ValueError: a file is empty or not UTF-8.
    """
    listed = [Path(path).expanduser() for path in ([paths] if isinstance(paths, str | Path) else paths)]
    found: list[Path] = []
    for path in listed:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist (looked in {Path.cwd()}).")
        found += _text_files(path) if path.is_dir() else [path]
    if not found:
        raise FileNotFoundError(f"No .txt or .md file in {[str(path) for path in listed]}: name at least one.")
    rows = [{"id": str(number), "url": path.name, "title": path.stem, "text": _read_text(path)}
            for number, path in enumerate(found)]
    return Dataset.from_list(rows)


def cut_at_sentence(text: str, max_characters: int | None) -> str:
    """Return ``text`` up to its last sentence end within ``max_characters``; a longer first sentence is cut hard."""
    if max_characters is None or len(text) <= max_characters:
        return text
    # One character beyond the limit tells a full stop from the point in "3.14".
    ends = [match.end() for match in _SENTENCE_END.finditer(text[: max_characters + 1])]
    return text[: max((end for end in ends if end <= max_characters), default=max_characters)]


def _usable_articles(wikipedia: Checkpoint) -> pd.DataFrame:
    """The pages that are prose; the bundled ones are four short of a hundred, which introductions make up."""
    table = pd.read_parquet(wikipedia.path)
    listing = table["title"].str.contains(r"\(disambiguation\)$|^List of ")
    prose = ~listing & ~table["text"].str.slice(0, 200).str.contains(r"\b(?:may|can) (?:also )?refer to\b")
    if wikipedia.source != "offline":
        return table.loc[prose, COLUMNS]
    articles = table.loc[prose & ~table["disambiguation"], COLUMNS]
    introductions = load_introductions().to_pandas()
    introductions = introductions[~introductions["title"].isin(table["title"])]
    longest = introductions["text"].str.len().nlargest(_LONGEST_INTRODUCTIONS).index
    return pd.concat([articles, introductions.loc[longest, COLUMNS]], ignore_index=True)


def _text_files(folder: Path) -> list[Path]:
    """Text files below a folder; hidden folders hold copies, such as Jupyter's ``.ipynb_checkpoints``."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in {".txt", ".md"} and file.is_file()
                  and not any(part.startswith(".") for part in file.relative_to(folder).parts))


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start} is {error.object[error.start]:#04x}): "
                         "save it as UTF-8 text and try again.") from error
    if not text.strip():
        raise ValueError(f"{path} is empty: remove it from the list, or put text into it.")
    return text


def _kept_file() -> Path:
    return files.cache_folder() / f"wikipedia-{CONFIGURATION}-{REVISION[:12]}-{_STREAMED_ROWS}.parquet"


def _recorded_hash(kept: Path) -> Path:
    return kept.with_name(f"{kept.name}.sha256")


def _kept_rows() -> Path | None:
    """Return the articles kept from the hub, or None if there are none, or none whose hash was recorded.

    Raises:
        OSError: they cannot be read, or are not what was stored; then they are removed, and the next attempt brings
            them anew.
    """
    kept = _kept_file()
    record = _recorded_hash(kept)
    if not (kept.is_file() and record.is_file()):
        return None
    try:
        intact = files.sha256_of(kept) == record.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:  # which says nothing about the content
        raise OSError(f"The articles in {kept} cannot be read ({error.strerror}). Repair that, for example the file's "
                      "permissions, or set LLM_TUTORIAL_SOURCE=offline.") from error
    if not intact:
        hub.refuse_damaged(kept, "its sha256 is not the recorded one", record)
    return kept


def _stream_rows(target: Path) -> None:
    """Read the first rows of the dataset's first file into a parquet file that appears whole or not at all."""
    try:
        transfers.fetch_rows(
            f"datasets/{REPOSITORY}@{REVISION}/{CONFIGURATION}/train-*.parquet", COLUMNS, _STREAMED_ROWS, target)
    except ConnectionError as error:
        raise ConnectionError(f"Streaming {REPOSITORY} from the hub broke off ({error}). "
                              "Run the cell again, or set LLM_TUTORIAL_SOURCE=offline.") from error
    files.replace_file(_recorded_hash(target), f"{files.sha256_of(target)}\n".encode())
