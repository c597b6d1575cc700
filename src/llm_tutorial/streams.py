"""Wikipedia as an endless stream of packed chunks, of which only a buffer is ever in memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from datasets import Dataset, Features, IterableDataset, List, Value, load_dataset
from huggingface_hub import HfFileSystem
from transformers import PreTrainedTokenizerBase

from llm_tutorial import files, hub
from llm_tutorial.checkpoints import chosen_source
from llm_tutorial.corpus import COLUMNS, CONFIGURATION, REPOSITORY, REVISION
from llm_tutorial.packing import packed_chunks
from llm_tutorial.titles import title_key

__all__ = ["StreamSource", "first_documents", "packed_stream", "read_documents", "wikipedia_files"]

PAUSES = (1.0, 4.0, 15.0, 30.0)  # seconds before each new attempt; the datasets library tries several times by itself


@dataclass(frozen=True)
class StreamSource:
    """The parquet files to stream, and where they are.

    Attributes:
        files: local paths, or ``hf://`` addresses, in a fixed order.
        revision: the commit hash on the hub, or the content hash of the bundled files.
        source: ``"hub"`` or ``"offline"``.
        reason: why this source was chosen, in words.
        name: what a reader calls it.
    """

    files: tuple[str, ...]
    revision: str
    source: str
    reason: str
    name: str


def wikipedia_files(*, source: str | None = None) -> StreamSource:
    """Return the files of the English Wikipedia on the hub (41 of them, 20 GB in all), else the two bundled ones.

    Nothing of them is read yet, except that the bundled ones are checked against their hashes.

    Raises:
        ValueError: unknown source.
        ConnectionError: the hub is wanted but does not answer.
        OSError: a bundled file is missing or damaged.
    """
    chosen, origin = chosen_source(source)
    reason = origin
    if chosen != "offline":
        trouble = hub.why_unreachable(REPOSITORY, REVISION, "dataset")
        if trouble is None:
            return StreamSource(_hub_files(), REVISION, "hub", "the hub answered", f"{REPOSITORY} {CONFIGURATION}")
        if chosen == "hub":
            hub.forget_answers()  # the next attempt asks again
            raise ConnectionError(f"{REPOSITORY} is wanted from the hub ({origin}), but the hub cannot be reached: "
                                  f"{trouble}. Set LLM_TUTORIAL_SOURCE=auto or offline to stream the bundled articles.")
        reason = f"hub not reachable: {trouble}"
    folder = files.data_folder() / "wikipedia"
    paths = [files.verified(folder / name) for name in ("articles.parquet", "intros.parquet")]
    return StreamSource(tuple(map(str, paths)), "+".join(files.listed_sha256(path)[:16] for path in paths), "offline",
                        reason, "bundled Wikipedia articles and introductions")


def read_documents(file: str, *, report: Callable[[str], object] | None = None) -> Iterator[dict[str, str]]:
    """Yield the documents of a parquet file, columns ``id, url, title, text``, while it is being read.

    Where the stream breaks, it is opened again at the document reached, up to four times in a row, after pauses of 1,
    4, 15 and 30 seconds.

    Args:
        file: a local path or an ``hf://`` address.
        report: gets a line for each attempt that failed; by default it goes to the standard error.

    Raises:
        FileNotFoundError: there is no such file.
        ConnectionError: it broke five times without a document in between.
    """
    position: dict[str, Any] | None = None
    read = failures = 0
    while True:
        try:
            rows = load_dataset("parquet", data_files=[file], split="train", streaming=True, columns=COLUMNS,
                                token=False)
            if position is not None:
                rows.load_state_dict(position)
            for row in rows:
                position, failures, read = rows.state_dict(), 0, read + 1
                yield row
            return
        except FileNotFoundError:  # trying again would not bring it
            raise
        except Exception as error:  # the libraries' versions share no common type for a broken stream
            trouble = f"{type(error).__name__}: {error}"
            if failures == len(PAUSES):
                raise ConnectionError(
                    f"Streaming {file} broke off after {read:,} documents, and {failures} new attempts failed "
                    f"({trouble}). Check the connection and give the same command again: it resumes from the last "
                    "checkpoint.") from error
            (report or _report)(f"the stream of {file} broke after {read:,} documents ({trouble}); trying again in "
                                f"{PAUSES[failures]:.0f} s")
            time.sleep(PAUSES[failures])
            failures += 1


def first_documents(file: str, count: int) -> Dataset:
    """Return the first ``count`` documents of a file that are not empty and differ in title.

    Raises:
        ValueError: ``count`` is below 1, or the file has fewer.
        FileNotFoundError, ConnectionError: as ``read_documents``.
    """
    if count < 1:
        raise ValueError(f"{count} documents were asked for: at least 1 is needed.")
    found: dict[str, dict[str, str]] = {}
    for row in read_documents(file):
        if row["text"].strip():
            found.setdefault(row["title"], row)
        if len(found) == count:
            return Dataset.from_list(list(found.values()))
    raise ValueError(f"{count} documents were asked for, but {file} has {len(found)}: ask for fewer.")


def packed_stream(
    sources: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    context_length: int = 128,
    *,
    without_titles: Collection[str] = (),
    documents: int | None = None,
    seed: int = 42,
    buffer_size: int = 2000,
) -> IterableDataset:
    """Return packed chunks (``input_ids``) of the files' documents, shuffled, over and over in the same order.

    Each file is a shard: its documents are read, tokenised and packed when their turn comes, and what is left over at
    the end of a file is dropped.  Shuffled are the order of the files and, with a buffer, the chunks of several files.
    It has no end, because processes whose shares differ in length would otherwise wait for each other forever.

    Do not split it by process: accelerate does, once per process.  With the Trainer's default, the main process alone
    would read and hand out the examples, so under several processes give it
    ``accelerator_config={"dispatch_batches": False}``.  Then each process reads its own files, or, if there are fewer
    files than processes, all of them and keeps its share.

    Args:
        sources: parquet files, as in ``StreamSource.files``.
        without_titles: documents to leave out, those of the validation set, under near-identical titles too.
        documents: take no more than so many, as equal a number as possible of each file; None takes all.
        buffer_size: chunks that wait to be drawn from.

    Raises:
        ValueError: there is no file, ``documents`` is below the number of files, or a size is below 1; while it is
            read, also where a file gives no chunk.
        FileNotFoundError, ConnectionError: while it is read, as ``read_documents``.
    """
    if not sources:
        raise ValueError("There is no file to stream: give at least one.")
    if documents is not None and documents < len(sources):
        raise ValueError(f"documents={documents}, but there are {len(sources)} files and each needs one: ask for more.")
    if buffer_size < 1:
        raise ValueError(f"buffer_size={buffer_size}: at least 1 chunk has to wait.")
    packed_chunks([], tokenizer, context_length)  # refuses a wrong length now rather than when the stream begins
    limits = [None if documents is None else len(range(index, documents, len(sources)))
              for index in range(len(sources))]
    # The library takes lists, and only lists, for what is divided among shards.
    stream = IterableDataset.from_generator(
        _chunks_of_files, features=Features({"input_ids": List(Value("int32"))}),
        gen_kwargs={"sources": list(sources), "limits": limits, "tokenizer": tokenizer,
                    "context_length": context_length, "without_keys": frozenset(map(title_key, without_titles))})
    return stream.shuffle(seed=seed, buffer_size=buffer_size).repeat(None)


def _chunks_of_files(
    sources: list[str], limits: list[int | None], tokenizer: PreTrainedTokenizerBase, context_length: int,
    without_keys: frozenset[str],
) -> Iterator[dict[str, list[int]]]:
    for source, limit in zip(sources, limits, strict=True):
        texts = (row["text"] for row in read_documents(source)
                 if title_key(row["title"]) not in without_keys and row["text"].strip())
        found = False
        for ids in packed_chunks(islice(texts, limit), tokenizer, context_length):
            found = True
            yield {"input_ids": ids}
        if not found:
            raise ValueError(f"{source} gives no chunk of {context_length} tokens: take more documents, or a shorter "
                             "context.")


def _hub_files() -> tuple[str, ...]:
    pattern = f"datasets/{REPOSITORY}@{REVISION}/{CONFIGURATION}/train-*.parquet"
    try:
        found = sorted(HfFileSystem(token=False).glob(pattern))
    except Exception as error:  # as above: no common type over the library's versions
        raise ConnectionError(f"The hub does not list the files of {REPOSITORY} ({type(error).__name__}: {error}). "
                              "Try again, or set LLM_TUTORIAL_SOURCE=offline.") from error
    if not found:
        raise FileNotFoundError(f"No file on the hub is called {pattern}: set LLM_TUTORIAL_SOURCE=offline.")
    return tuple(f"hf://{path}" for path in found)


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
