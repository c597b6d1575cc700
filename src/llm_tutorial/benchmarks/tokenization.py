"""Cutting documents into chunks: how fast, whether time grows in proportion, and what memory it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import pyarrow.parquet as pq
from datasets import load_dataset
from transformers import PreTrainedTokenizerBase

from llm_tutorial import files
from llm_tutorial.benchmarks.children import run_child
from llm_tutorial.benchmarks.measuring import summary, text_table
from llm_tutorial.benchmarks.memory import peak_memory
from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.chunking import chunk_documents
from llm_tutorial.plots import Figure, lines

__all__ = ["METHODS", "bench_tokenise", "chunks_of", "measure_chunking", "tokenise_figure", "tokenise_table"]

METHODS = {"batched": "chunk_documents", "loop": "one call per text", "streaming": "streaming, batched map"}
STREAMED_BATCH = 256  # documents tokenised at once


def bench_tokenise(
    counts: Sequence[int] = (1_000, 10_000), *, context_length: int = 32, repeats: int = 3,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure how long Wikipedia's introductions take from a parquet file to chunks, and the memory in use meanwhile.

    Three methods: ``chunk_documents``, a loop that calls the tokenizer once per text and slices lists, and a stream
    that never holds more than a batch.  Introductions have about a hundred tokens and are chunked each by itself,
    not packed; hence the short context.  Each measurement has a process of its own, so that memory is its alone.

    Args:
        counts: how many documents, smaller count first; beyond 10,033 they are repeated.
        repeats: measurements of each method and count, of which medians are given.
        report: gets a line of text at each stage, for progress.

    Raises:
        ValueError: not two counts that rise from 1, ``repeats`` or ``context_length`` out of range, or documents so
            few that they give no chunk.
        OSError: the bundled file is damaged, or a process failed.
    """
    if len(counts) != 2 or not 1 <= counts[0] < counts[1]:
        raise ValueError(f"counts={tuple(counts)}: give two numbers of documents, the smaller one first.")
    if repeats < 1 or not 1 <= context_length <= 1024:
        raise ValueError(f"repeats={repeats}, context_length={context_length}: at least 1 repeat and a context from 1 "
                         "to 1,024 tokens are needed.")
    path = str(files.verified(files.data_folder() / "wikipedia" / "intros.parquet"))
    runs: dict[str, dict[int, list[dict[str, float]]]] = {method: {count: [] for count in counts} for method in METHODS}
    for number in range(repeats):
        for count in counts:
            for method in METHODS:  # side by side, so that noise hits all
                label = f"tokenise: {METHODS[method]}, {count:,} documents, run {number + 1} of {repeats}"
                runs[method][count].append(run_child(measure_chunking, label=label, report=report, path=path,
                                                     method=method, documents=count, context_length=context_length))
    for count in counts:
        found = {method: runs[method][count][0]["chunks"] for method in METHODS}
        if len(set(found.values())) > 1:
            raise ValueError(f"The methods disagree on the chunks of {count:,} documents: {found}.")
    return {
        "benchmark": "tokenise",
        "settings": {"documents": list(counts), "context_length": context_length, "packed": False,
                     "tokenizer": "GPT-2", "streamed_batch": STREAMED_BATCH, "repeats": repeats},
        "methods": {method: _growth([summary(runs[method][count]) for count in counts]) for method in METHODS},
    }


def _growth(sizes: list[dict[str, Any]]) -> dict[str, Any]:
    small, large = sizes
    return {"sizes": sizes, "time_ratio": large["seconds"] / small["seconds"],
            "memory_growth_bytes": large["peak_memory_bytes"] - small["peak_memory_bytes"]}


def measure_chunking(path: str, method: str, documents: int, context_length: int) -> dict[str, float]:
    """Chunk documents of a parquet file with the column ``text`` in this process and return what it took.

    Returns:
        ``seconds``, ``chunks``, ``tokens`` in them, ``documents_per_second``, ``tokens_per_second``, and the process's
        ``peak_memory_bytes`` so far, of which ``memory_before_bytes`` were needed before the first document.

    Raises:
        ValueError: unknown method, or no chunk.
    """
    tokenizer = load_gpt2_tokenizer()
    tokenizer("What only happens once, happens here.")
    before, began = peak_memory(), time.perf_counter()
    chunks = 0
    kept = chunks_of(path, method, documents, tokenizer, context_length)
    for _ in kept:
        chunks += 1
    seconds = time.perf_counter() - began
    if chunks == 0:
        raise ValueError(f"{documents} documents give no chunk of {context_length} tokens: use more documents.")
    tokens = chunks * context_length
    return {"seconds": seconds, "chunks": chunks, "tokens": tokens, "documents_per_second": documents / seconds,
            "tokens_per_second": tokens / seconds, "memory_before_bytes": before, "peak_memory_bytes": peak_memory()}


def chunks_of(
    path: str, method: str, documents: int, tokenizer: PreTrainedTokenizerBase, context_length: int
) -> Sequence[list[int]] | Iterator[list[int]]:
    """Return the full chunks of the first documents of a parquet file, which is repeated if it has fewer.

    Args:
        method: a key of ``METHODS``; ``"streaming"`` gives an iterator, the others a list.

    Raises:
        ValueError: unknown method.
    """
    if method == "batched":
        return chunk_documents(_texts(path, documents), tokenizer, context_length).input_ids
    if method == "loop":
        return [ids[start:start + context_length]
                for ids in (tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
                            for text in _texts(path, documents))
                for start in range(0, len(ids) - context_length + 1, context_length)]
    if method == "streaming":
        return _streamed(path, documents, tokenizer, context_length)
    raise ValueError(f"Unknown method {method!r}: use one of {', '.join(METHODS)}.")


def _texts(path: str, documents: int) -> list[str]:
    batches = pq.ParquetFile(path).iter_batches(batch_size=STREAMED_BATCH, columns=["text"])  # no more than is needed
    texts = list(islice((text for batch in batches for text in batch["text"].to_pylist()), documents))
    return list(islice(cycle(texts), documents))


def _streamed(
    path: str, documents: int, tokenizer: PreTrainedTokenizerBase, context_length: int
) -> Iterator[list[int]]:
    def chunked(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"input_ids": chunk_documents(batch["text"], tokenizer, context_length).input_ids}

    stream = load_dataset("parquet", data_files=path, columns=["text"], split="train", streaming=True)
    stream = stream.repeat(-(-documents // pq.read_metadata(path).num_rows)).take(documents)
    chunks = stream.map(chunked, batched=True, batch_size=STREAMED_BATCH, remove_columns=["text"])
    return (row["input_ids"] for row in chunks)


def tokenise_table(results: dict[str, Any]) -> str:
    """Return the results of ``bench_tokenise`` as lines of text."""
    settings = results["settings"]
    counts = [f"{count:,}" for count in settings["documents"]]
    rows = [("", "documents", "seconds", "documents/s", "tokens/s", "peak MB", "before MB")]
    for method, found in results["methods"].items():
        for count, size in zip(counts, found["sizes"], strict=True):
            rows.append((METHODS[method], count, f"{size['seconds']:.2f}", f"{size['documents_per_second']:,.0f}",
                         f"{size['tokens_per_second']:,.0f}", f"{size['peak_memory_bytes'] / 1e6:,.0f}",
                         f"{size['memory_before_bytes'] / 1e6:,.0f}"))
    linear = settings["documents"][1] / settings["documents"][0]
    lines_ = [text_table(rows)]
    for method, found in results["methods"].items():
        lines_.append(f"{METHODS[method]}: {found['time_ratio']:.1f} times the time for {linear:g} times the "
                      f"documents, {found['memory_growth_bytes'] / 1e6:+,.0f} MB")
    lines_.append(f"medians of {settings['repeats']} runs, a process each; introductions from a parquet file, each cut "
                  f"into chunks of {settings['context_length']} tokens by itself (not packed), GPT-2's tokenizer")
    return "\n".join(lines_)


def tokenise_figure(results: dict[str, Any]) -> Figure:
    """Draw the seconds of each method over the number of documents."""
    counts = results["settings"]["documents"]
    curves = {METHODS[method]: (counts, [size["seconds"] for size in found["sizes"]])
              for method, found in results["methods"].items()}
    growth = "; ".join(f"{METHODS[method]} {found['memory_growth_bytes'] / 1e6:+,.0f} MB"
                       for method, found in results["methods"].items())
    times = "; ".join(f"{name} {' and '.join(f'{value:.2f}' for value in seconds)} s"
                      for name, (_, seconds) in curves.items())
    return lines(curves, xlabel="documents", ylabel="seconds", caption=f"Growth of peak memory: {growth}.", alt=(
        f"Line chart of the time to chunk {counts[0]:,} and {counts[1]:,} documents: {times}. Peak memory: {growth}."))
