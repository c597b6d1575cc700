"""Wikipedia as a stream: what it yields, in which order, to which process, and what happens when it breaks."""

import json
import os
import subprocess
import sys
from itertools import count, islice
from pathlib import Path

import pandas as pd
import pytest
from hub_server import HubServer, Repository
from two_processes import BATCH, DOCUMENTS, results

import llm_tutorial
from llm_tutorial import streams
from llm_tutorial.corpus import COLUMNS, REPOSITORY, REVISION
from llm_tutorial.packing import packed_chunks
from llm_tutorial.streams import first_documents, packed_stream, read_documents, wikipedia_files


def rows_of(numbers):
    return [{"id": str(number), "url": f"https://en.wikipedia.org/wiki/{number}", "title": f"title {number}",
             "text": f"text {number} of a box at the beach, and of the swimming pool."} for number in numbers]


def write(path, rows):
    pd.DataFrame(rows).assign(more=1).to_parquet(path, row_group_size=10)
    return str(path)


@pytest.fixture
def two_files(tmp_path):
    return [write(tmp_path / f"{name}.parquet", rows_of(numbers))
            for name, numbers in (("a", range(40)), ("b", range(40, 70)))]


@pytest.fixture
def pauses(monkeypatch):
    """Keep the pauses instead of making them."""
    kept = []
    monkeypatch.setattr(streams.time, "sleep", kept.append)
    return kept


def break_after(monkeypatch, counts):
    """Let the streams that are opened, one after the other, break after so many documents; later ones are whole."""
    opened, real = [], streams.load_dataset

    def load(*arguments, **options):
        stream = real(*arguments, **options)
        limit = counts[len(opened)] if len(opened) < len(counts) else None
        opened.append(options)
        real_iterator = type(stream).__iter__

        class Breaking(type(stream)):
            def __iter__(self):
                yield from islice(real_iterator(self), limit)
                if limit is not None:
                    raise OSError("peer closed connection")

        stream.__class__ = Breaking
        return stream

    monkeypatch.setattr(streams, "load_dataset", load)
    return opened


def test_the_bundled_files_are_streamed_like_the_hubs():
    source = wikipedia_files()
    assert [Path(file).name for file in source.files] == ["articles.parquet", "intros.parquet"]
    assert (source.source, source.reason) == ("offline", "LLM_TUTORIAL_SOURCE=offline")
    rows = list(islice(read_documents(source.files[1]), 3))
    assert [list(row) for row in rows] == [COLUMNS] * 3
    assert [row["title"] for row in rows] == pd.read_parquet(source.files[1])["title"][:3].tolist()


def test_without_a_hub_the_bundled_files_are_taken_unless_the_hub_is_wanted(monkeypatch):
    monkeypatch.setattr(streams.hub, "why_unreachable", lambda *_: "ConnectError: no route")
    assert wikipedia_files(source="auto").reason == "hub not reachable: ConnectError: no route"
    with pytest.raises(ConnectionError, match=r"cannot be reached: ConnectError: no route\. Set LLM_TUTORIAL_SOURCE="):
        wikipedia_files(source="hub")
    with pytest.raises(ValueError, match="Unknown source 'usb'"):
        wikipedia_files(source="usb")


def test_a_stream_that_breaks_goes_on_at_the_document_reached(two_files, monkeypatch, pauses):
    opened = break_after(monkeypatch, [7, 0, 0, 12, 0])
    lines = []
    rows = list(read_documents(two_files[0], report=lines.append))
    assert rows == rows_of(range(40)), "none is lost, none comes twice"
    assert len(opened) == 6
    assert pauses == [1, 4, 15, 1, 4], "the pauses grow until a document comes"
    assert lines[0].endswith("a.parquet broke after 7 documents (OSError: peer closed connection); trying again in 1 s")
    assert [line.split("after ")[1].split()[0] for line in lines] == ["7", "7", "7", "19", "19"]


def test_a_stream_that_stays_broken_tells_how_to_go_on(two_files, monkeypatch, pauses, capsys):
    break_after(monkeypatch, [7, 0, 0, 0, 0])
    stream = read_documents(two_files[0])
    assert list(islice(stream, 7)) == rows_of(range(7))
    with pytest.raises(ConnectionError, match=r"a\.parquet broke off after 7 documents, and 4 new attempts failed "
                                              r"\(OSError: peer closed connection\).*resumes from the last checkpoint"):
        next(stream)
    assert pauses == [1, 4, 15, 30]
    assert capsys.readouterr().err.count("trying again") == 4


def test_a_file_that_is_not_there_is_not_asked_for_again(tmp_path, pauses):
    with pytest.raises(FileNotFoundError):
        next(read_documents(str(tmp_path / "missing.parquet")))
    assert pauses == []


@pytest.fixture
def hub_server(tmp_path):
    """The hub's repository with two files of 400 kB."""
    folder = tmp_path / "repository" / "20231101.en"
    folder.mkdir(parents=True)
    for file in range(2):
        rows = [row | {"text": row["text"] + os.urandom(500).hex()}
                for row in rows_of(range(400 * file, 400 * file + 400))]
        pd.DataFrame(rows).to_parquet(folder / f"train-{file:05}-of-00002.parquet", row_group_size=50)
    repository = Repository.of_folder(REPOSITORY, REVISION, tmp_path / "repository", "datasets")
    with HubServer([repository]) as server:
        yield server
    assert server.unknown == []


HUB_SCRIPT = """
import json, time
from urllib.request import urlopen
from huggingface_hub import constants
from llm_tutorial.streams import read_documents, wikipedia_files

pauses = []

def fault(name):
    urlopen(f"{constants.ENDPOINT}/-/fault/{name}?file=train-00000", timeout=5).read()

def sleep(seconds):
    pauses.append(seconds)
    if seconds == 15:  # the third pause of ours: the libraries' own are shorter
        fault("none")

time.sleep = sleep
source = wikipedia_files()
fault("cut")
lines = []
titles = [row["title"] for row in read_documents(source.files[0], report=lines.append)]
print(json.dumps({"files": source.files, "source": source.source, "revision": source.revision, "titles": titles,
                  "lines": lines}))
"""


def test_the_hubs_files_are_streamed_and_go_on_after_a_cut(hub_server, tmp_path):
    foreign = ("HF_", "HUGGING", "LLM_TUTORIAL_", "TRANSFORMERS_", "DATASETS_")
    inherited = {name: value for name, value in os.environ.items()
                 if not name.startswith(foreign) and not name.lower().endswith("_proxy")}
    settings = {"HF_ENDPOINT": hub_server.url, "HF_HOME": str(tmp_path / "hf"), "LLM_TUTORIAL_SOURCE": "hub",
                "PYTHONPATH": str(Path(llm_tutorial.__file__).parents[1]), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([sys.executable, "-c", HUB_SCRIPT], env=inherited | settings, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["files"] == [f"hf://datasets/{REPOSITORY}@{REVISION}/20231101.en/train-{number:05}-of-00002.parquet"
                              for number in range(2)]
    assert (found["source"], found["revision"]) == ("hub", REVISION)
    assert found["titles"] == [f"title {number}" for number in range(400)]
    assert [line.rpartition("trying again in ")[2] for line in found["lines"]] == ["1 s", "4 s", "15 s"]


def test_first_documents_differ_in_title_and_are_not_empty(tmp_path):
    rows = rows_of([1, 2, 2, 3, 4])
    rows[0]["text"] = " \n"
    file = write(tmp_path / "a.parquet", rows)
    assert first_documents(file, 2)["title"][:] == ["title 2", "title 3"]
    with pytest.raises(ValueError, match=r"4 documents were asked for, but .*a\.parquet has 3: ask for fewer"):
        first_documents(file, 4)
    with pytest.raises(ValueError, match="0 documents were asked for: at least 1"):
        first_documents(file, 0)


def chunks_by_hand(tokenizer, numbers):
    return list(packed_chunks([row["text"] for row in rows_of(numbers)], tokenizer, 16))


def test_one_pass_is_every_chunk_of_every_file_once(two_files, causal_tokenizer):
    expected = [*chunks_by_hand(causal_tokenizer, range(40)), *chunks_by_hand(causal_tokenizer, range(40, 70))]
    stream = packed_stream(two_files, causal_tokenizer, 16, buffer_size=20)
    taken = [row["input_ids"] for row in stream.take(2 * len(expected))]
    assert sorted(taken[:len(expected)]) == sorted(expected)
    assert taken[:len(expected)] != expected, "shuffled"
    assert taken[len(expected):] == taken[:len(expected)], "over and over"
    assert (stream.num_shards, stream.column_names) == (2, ["input_ids"])


def test_the_seed_decides_the_order(two_files, causal_tokenizer):
    first, again, other = (
        [row["input_ids"] for row in packed_stream(two_files, causal_tokenizer, 16, seed=seed).take(30)]
        for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("options", "first", "second"), [
    ({"without_titles": {"title 3", "title 41"}}, [n for n in range(40) if n != 3], [40, *range(42, 70)]),
    ({"documents": 21}, range(11), range(40, 50)),
    ({"documents": 1000}, range(40), range(40, 70)),
])
def test_documents_can_be_left_out_or_limited(two_files, causal_tokenizer, options, first, second):
    expected = chunks_by_hand(causal_tokenizer, first) + chunks_by_hand(causal_tokenizer, second)
    stream = packed_stream(two_files, causal_tokenizer, 16, **options)
    assert sorted(row["input_ids"] for row in stream.take(len(expected))) == sorted(expected)


def test_a_stream_is_read_only_as_far_as_its_buffer(two_files, causal_tokenizer, monkeypatch):
    read = []

    def documents(file):
        for number in count():
            assert number < 10_000, "read without being asked to"
            read.append((file, number))
            yield from rows_of([number])

    monkeypatch.setattr(streams, "read_documents", documents)
    stream = packed_stream(two_files, causal_tokenizer, 16, buffer_size=50)
    assert read == [], "nothing before it is asked for"
    next(iter(stream))
    assert 0 < len(read) <= 2 * 256, "one batch of the tokenizer per file"


@pytest.mark.parametrize(("files", "options", "message"), [
    ([], {}, "There is no file to stream"),
    (["a", "b"], {"documents": 1}, "documents=1, but there are 2 files and each needs one"),
    (["a"], {"buffer_size": 0}, "buffer_size=0: at least 1 chunk has to wait"),
    (["a"], {"context_length": 65}, "context_length=65 is not between 1 and 64"),
])
def test_bad_requests_are_named_before_anything_is_read(causal_tokenizer, files, options, message):
    with pytest.raises(ValueError, match=message):
        packed_stream(files, causal_tokenizer, **{"context_length": 16} | options)


def test_a_file_without_a_single_chunk_is_named(tmp_path, causal_tokenizer):
    file = write(tmp_path / "short.parquet", rows_of([1]))
    with pytest.raises(ValueError, match=r"short\.parquet gives no chunk of 64 tokens"):
        next(iter(packed_stream([file], causal_tokenizer, 64)))


@pytest.mark.parametrize("name", ["two files", "one file"])
def test_under_two_processes_each_example_is_seen_by_one_of_them_and_the_batch_is_what_was_asked_for(name):
    by_process = [found[name] for found in results()]
    assert [[len(step) for step in steps] for steps in by_process] == [[BATCH // 2] * 8] * 2
    seen = [{number for step in steps for number in step} for steps in by_process]
    assert [len(numbers) for numbers in seen] == [DOCUMENTS, DOCUMENTS], "each process sees its examples once"
    assert seen[0].isdisjoint(seen[1])
    assert seen[0] | seen[1] == set(range(2 * DOCUMENTS)), "none is left out"
    if name == "two files":  # then each process reads only its own
        assert sorted(map(sorted, seen)) == [list(range(DOCUMENTS)), list(range(DOCUMENTS, 2 * DOCUMENTS))]
