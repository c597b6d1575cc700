"""llm-tutorial bench tokenise: three ways to the same chunks, in processes of their own."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
from benchmark_results import TOKENISE
from datasets import load_dataset

from llm_tutorial.benchmarks import tokenization
from llm_tutorial.benchmarks.children import run_child
from llm_tutorial.benchmarks.tokenization import (
    METHODS,
    bench_tokenise,
    chunks_of,
    measure_chunking,
    tokenise_figure,
    tokenise_table,
)
from llm_tutorial.chunking import chunk_documents

TEXTS = ["Life is like a box of chocolates. " * count for count in (3, 1, 7, 2)]


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.parquet"
    pd.DataFrame({"id": range(len(TEXTS)), "text": TEXTS}).to_parquet(path)
    return str(path)


@pytest.fixture
def in_process(monkeypatch):
    """Measure without new processes; the list fills with the arguments of the calls."""
    calls = []

    def call(function, *, label, report, **arguments):
        report(label)
        calls.append(arguments)
        return json.loads(json.dumps(function(**json.loads(json.dumps(arguments)))))

    monkeypatch.setattr(tokenization, "run_child", call)
    return calls


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("documents", [1, 3, 4, 11])
def test_every_method_gives_the_documents_own_tokens(parquet, causal_tokenizer, method, documents):
    expected = []
    for text in (TEXTS * 3)[:documents]:
        ids = causal_tokenizer(text).input_ids
        expected += [ids[start:start + 8] for start in range(0, len(ids), 8)][:len(ids) // 8]
    assert list(chunks_of(parquet, method, documents, causal_tokenizer, 8)) == expected


def test_only_the_stream_is_lazy(parquet, causal_tokenizer):
    assert not hasattr(chunks_of(parquet, "streaming", 4, causal_tokenizer, 8), "__len__")
    assert len(chunks_of(parquet, "batched", 4, causal_tokenizer, 8)) > 4


def test_no_more_rows_are_read_than_are_chunked(parquet, causal_tokenizer, monkeypatch):
    read = []

    class Parquet(tokenization.pq.ParquetFile):
        def iter_batches(self, **options):
            for batch in super().iter_batches(**options):
                read.append(batch.num_rows)
                yield batch

    monkeypatch.setattr(tokenization, "STREAMED_BATCH", 1)
    monkeypatch.setattr(tokenization.pq, "ParquetFile", Parquet)
    list(chunks_of(parquet, "batched", 2, causal_tokenizer, 8))
    list(chunks_of(parquet, "loop", 3, causal_tokenizer, 8))
    assert read == [1] * 5


def test_the_stream_holds_no_more_than_a_batch(parquet, causal_tokenizer, monkeypatch):
    opened, batches = [], []

    def load(*arguments, **options):
        opened.append(options["streaming"])
        return load_dataset(*arguments, **options)

    def chunk(texts, *arguments):
        batches.append(len(texts))
        return chunk_documents(texts, *arguments)

    monkeypatch.setattr(tokenization, "STREAMED_BATCH", 2)
    monkeypatch.setattr(tokenization, "load_dataset", load)
    monkeypatch.setattr(tokenization, "chunk_documents", chunk)
    stream = iter(chunks_of(parquet, "streaming", 5, causal_tokenizer, 8))
    assert batches == []
    next(stream)
    assert batches == [2]
    list(stream)
    assert batches == [2, 2, 1]
    assert opened == [True]


def test_the_clock_runs_until_the_last_chunk(parquet, monkeypatch):
    now, peaks = [100.0], iter([7, 9])

    def passing(count):
        now[0] += count

    def chunks(*_):
        passing(1)
        return (passing(2) or [0] for _ in range(3))

    monkeypatch.setattr(tokenization, "chunks_of", chunks)
    monkeypatch.setattr(tokenization, "peak_memory", peaks.__next__)
    monkeypatch.setattr(tokenization, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert measure_chunking(parquet, "streaming", 14, 5) == {
        "seconds": 7.0, "chunks": 3, "tokens": 15, "documents_per_second": 2.0, "tokens_per_second": 15 / 7,
        "memory_before_bytes": 7, "peak_memory_bytes": 9}


@pytest.mark.parametrize("method", METHODS)
def test_a_measurement_counts_chunks_tokens_and_speed(parquet, method):
    found = measure_chunking(parquet, method, 4, 8)
    assert found["tokens"] == 8 * found["chunks"] > 0
    assert found["documents_per_second"] == pytest.approx(4 / found["seconds"])
    assert found["tokens_per_second"] == pytest.approx(found["tokens"] / found["seconds"])
    assert 10**8 < found["memory_before_bytes"] <= found["peak_memory_bytes"]


def test_a_measurement_runs_in_a_process_of_its_own(parquet):
    found = run_child(measure_chunking, label="chunking", report=[].append, path=parquet, method="loop", documents=4,
                      context_length=8)
    assert found["chunks"] == measure_chunking(parquet, "loop", 4, 8)["chunks"]


def test_documents_without_a_chunk_are_refused(parquet):
    with pytest.raises(ValueError, match="1 documents give no chunk of 1000 tokens"):
        measure_chunking(parquet, "loop", 1, 1000)


def test_an_unknown_method_is_refused(parquet, causal_tokenizer):
    with pytest.raises(ValueError, match="Unknown method 'magic': use one of batched, loop, streaming"):
        chunks_of(parquet, "magic", 1, causal_tokenizer, 8)


def test_all_methods_are_measured_side_by_side(in_process):
    said = []
    found = json.loads(json.dumps(bench_tokenise((10, 30), repeats=2, report=said.append)))
    assert [(call["documents"], call["method"]) for call in in_process] == 2 * [
        (count, method) for count in (10, 30) for method in METHODS]
    assert {call["context_length"] for call in in_process} == {32}
    assert said[0] == "tokenise: chunk_documents, 10 documents, run 1 of 2"
    for growth in found["methods"].values():
        small, large = growth["sizes"]
        assert len(small["runs"]) == len(large["runs"]) == 2
        assert growth["time_ratio"] == pytest.approx(large["seconds"] / small["seconds"])
        assert growth["memory_growth_bytes"] == large["peak_memory_bytes"] - small["peak_memory_bytes"]
    assert len({growth["sizes"][1]["chunks"] for growth in found["methods"].values()}) == 1


def test_methods_that_disagree_are_no_result(monkeypatch):
    chunks = iter(range(100))
    monkeypatch.setattr(tokenization, "run_child", lambda *_, **__: {"chunks": next(chunks)})
    with pytest.raises(ValueError, match=r"disagree on the chunks of 10 documents: \{'batched': 0, 'loop': 1"):
        bench_tokenise((10, 30), repeats=1, report=[].append)


def test_a_damaged_file_is_not_measured(in_process, monkeypatch):
    def damaged(path):
        raise OSError(f"{path.name} is damaged")

    monkeypatch.setattr(tokenization.files, "verified", damaged)
    with pytest.raises(OSError, match=r"intros\.parquet is damaged"):
        bench_tokenise((10, 30), repeats=1, report=[].append)
    assert in_process == []


@pytest.mark.parametrize(("arguments", "message"), [
    ({"counts": (10,)}, "two numbers of documents"), ({"counts": (10, 10)}, "the smaller one first"),
    ({"counts": (0, 10)}, r"counts=\(0, 10\)"), ({"repeats": 0}, "repeats=0"),
    ({"context_length": 1025}, "context_length=1025")])
def test_impossible_arguments_are_refused(in_process, arguments, message):
    with pytest.raises(ValueError, match=message):
        bench_tokenise(**arguments)
    assert in_process == []


def test_the_table_shows_time_and_memory_and_says_how_it_was_chunked():
    table = tokenise_table(TOKENISE).splitlines()
    assert table[1].split() == ["chunk_documents", "1,000", "0.20", "5,000", "500,000", "504", "500"]
    assert table[2].split() == ["chunk_documents", "10,000", "2.00", "5,000", "500,000", "540", "500"]
    assert table[7] == "chunk_documents: 10.0 times the time for 10 times the documents, +36 MB"
    assert "chunks of 32 tokens by itself (not packed)" in table[-1]


def test_the_figure_tells_seconds_and_memory():
    figure = tokenise_figure(TOKENISE)
    assert figure.png.startswith(b"\x89PNG")
    assert "1,000 and 10,000 documents: chunk_documents 0.20 and 2.00 s; one call per text 0.20" in figure.alt
    assert "streaming, batched map +36 MB" in figure.alt
