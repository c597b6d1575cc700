"""Models and articles from a hub: the real client library in this process against ``hub_server``."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pandas as pd
import pytest
import transformers
from hub_server import OTHER_COMMIT, Entry, HubServer, Repository, use_server
from huggingface_hub import constants
from numpy.random import default_rng

import llm_tutorial
from llm_tutorial import checkpoints, corpus
from llm_tutorial.checkpoints import load_causal_lm, load_masked_lm, resolve_checkpoint
from llm_tutorial.corpus import COLUMNS, resolve_wikipedia, wikipedia_files
from llm_tutorial.sources import hub

MASKED, COMMIT, _ = checkpoints.HUB_CHECKPOINTS["masked"]
OWN, OWN_COMMIT = "someone/model", "a" * 40
WEIGHTS = default_rng(0).bytes(200_000)
FILES = {"config.json": b"{}", "tokenizer.json": b'{"model": "x"}', "model.safetensors": WEIGHTS,
         "pytorch_model.bin": b"not wanted", "onnx/config.json": b"not wanted"}
ROWS, ALL_ROWS = 30, 36


@pytest.fixture(scope="module")
def articles(tmp_path_factory) -> Repository:
    """Two files of articles named as on the hub; each begins with small row groups, and then is large."""
    letters, path = default_rng(0), tmp_path_factory.mktemp("articles") / "articles.parquet"
    texts = [letters.bytes(100 if number < ROWS else 500_000).hex() for number in range(ALL_ROWS)]
    rows = [{"id": str(n), "url": "", "title": f"Article {n}", "text": text} for n, text in enumerate(texts)]
    pd.DataFrame(rows)[COLUMNS].to_parquet(path, row_group_size=10, compression=None, write_page_checksum=True)
    names = [f"20231101.en/train-{number:05}-of-00002.parquet" for number in range(2)]
    return Repository.of(corpus.REPOSITORY, corpus.REVISION, dict.fromkeys(names, path.read_bytes()), "datasets")


@pytest.fixture
def server(articles, tmp_path, monkeypatch):
    """A hub with a small checkpoint, a model of the reader's own and articles; this process asks it, with no waits."""
    repositories = [Repository.of(MASKED, COMMIT, FILES), Repository.of(OWN, OWN_COMMIT, FILES), articles]
    monkeypatch.setitem(checkpoints.HUB_CHECKPOINTS, "masked", (MASKED, COMMIT, Entry("", WEIGHTS).sha256))
    monkeypatch.setattr(corpus, "_HUB_ROWS", ROWS)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # the library waits before it tries again
    with HubServer(repositories) as server:
        use_server(server.url, tmp_path, monkeypatch)
        hub._answer.cache_clear()
        yield server
    hub._answer.cache_clear()
    assert server.unknown == []


# The first question


QUESTIONS = {
    "silence": r"did not answer within 4 s|[Tt]imed? ?out", "forbidden": "403", "login page": r"JSON|Expecting value",
    "throttled": "429", "broken": "500",
    "other commit": f"answered with another commit, {OTHER_COMMIT}",
}


@pytest.mark.parametrize("fault", QUESTIONS)
def test_a_hub_that_does_not_answer_properly_is_passed_over_with_a_reason(fault, server):
    server.set_fault(fault)
    started = time.monotonic()
    found = resolve_checkpoint("masked")
    assert time.monotonic() - started < 20, "the library's own attempts take longer than a deadline of 4 s"
    assert found.source == "offline"
    assert re.search(rf"^hub not reachable: .*({QUESTIONS[fault]})", found.reason), found.reason
    with pytest.raises(ConnectionError, match=rf"{QUESTIONS[fault]}.*set LLM_TUTORIAL_SOURCE=auto or offline"):
        resolve_checkpoint("masked", source="hub")
    server.set_fault("none")
    assert resolve_checkpoint("masked", source="hub").source == "hub", "a hub that is wanted is asked again"


def test_the_deadline_covers_a_look_up_of_the_name_that_stalls(server, monkeypatch):
    look_up, released, started = socket.getaddrinfo, threading.Event(), time.monotonic()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *name, **options: released.wait(60) and look_up(*name, **options))
    monkeypatch.setattr(hub, "_DEADLINE", 1)
    assert hub.why_unreachable(MASKED, COMMIT) == f"{server.url} did not answer within 1 s"
    assert time.monotonic() - started < 20
    released.set()


@pytest.mark.parametrize("trouble", ["refused", "no name", "offline mode"])
def test_a_hub_that_cannot_be_asked_is_passed_over_with_a_reason(trouble, server, monkeypatch):
    if trouble == "refused":
        server.stop()
    elif trouble == "no name":
        monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(socket.gaierror(-2, "name")))
    else:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    words = {"refused": "refused", "no name": "name", "offline mode": "HF_HUB_OFFLINE is set"}[trouble]
    for resolve in (lambda **options: resolve_checkpoint("masked", **options), resolve_wikipedia, wikipedia_files):
        found = resolve()
        assert found.source == "offline"
        assert re.search(f"^hub not reachable: .*{words}", found.reason), found.reason
        with pytest.raises(ConnectionError, match=f"{words}.*set LLM_TUTORIAL_SOURCE=auto or offline"):
            resolve(source="hub")
    with pytest.raises(ConnectionError, match=f"{words}.*Check the name and the connection"):
        resolve_checkpoint(OWN)


def test_an_answer_holds_for_a_minute(monkeypatch):
    answers, clock = ["another", "b" * 40, COMMIT], SimpleNamespace(now=1020.0)
    ask = SimpleNamespace(repo_info=lambda *_, **__: SimpleNamespace(sha=answers.pop(0)))
    monkeypatch.setattr(hub, "HfApi", lambda: ask)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.time, "monotonic", lambda: clock.now)
    hub._answer.cache_clear()
    for seconds, expected in {0: "commit, another", 59: "commit, another", 2: "commit, bbbb", 61: None}.items():
        clock.now += seconds
        trouble = hub.why_unreachable(MASKED, COMMIT)
        assert expected in trouble if expected else trouble is None
    hub._answer.cache_clear()


# Downloads


def test_models_come_from_the_hub_once_and_then_from_the_cache(
        server, tmp_path, monkeypatch, masked_lm, masked_tokenizer, causal_lm, causal_tokenizer):
    for name, *parts in (("masked", masked_lm, masked_tokenizer), ("causal", causal_lm, causal_tokenizer)):
        for part in parts:
            part.save_pretrained(tmp_path / name)
        repository = Repository.of(*checkpoints.HUB_CHECKPOINTS[name][:2], {
            path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
        server.repositories["models", repository.name] = repository
        monkeypatch.setitem(checkpoints.HUB_CHECKPOINTS, name, (
            repository.name, repository.commit, repository.files["model.safetensors"].sha256))
    for source in ("hub", "cache"):
        assert [resolve_checkpoint(name).source for name in ("masked", "causal")] == [source, source]
        server.stop()
        (_, masked), (_, causal) = load_masked_lm(), load_causal_lm()
        assert masked.state_dict().keys() == masked_lm.state_dict().keys()
        assert (causal.transformer.wte.weight == causal_lm.transformer.wte.weight).all()
        assert (type(masked), masked.dtype) == (transformers.BertForMaskedLM, masked_lm.dtype)
    assert resolve_checkpoint("masked").revision == COMMIT


@pytest.mark.usefixtures("server")
def test_only_the_files_of_a_checkpoint_are_downloaded_and_their_progress_is_shown(monkeypatch):
    calls = []
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", None)
    for name in ("enable_progress_bars", "disable_progress_bars"):
        monkeypatch.setattr(hub, name, lambda name=name: calls.append(name))
    folder = resolve_checkpoint("masked").path
    assert calls == ["enable_progress_bars", "disable_progress_bars"], "lessons hide bars, but not this one"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "config.json", "tokenizer.json", "model.safetensors"}


def test_a_repository_of_the_readers_own_is_kept_with_its_commit(server):
    found = resolve_checkpoint(OWN)
    assert (found.source, found.revision, found.name) == ("hub", OWN_COMMIT, OWN)
    server.stop()
    for name in (OWN, f"{OWN}@{OWN_COMMIT}"):
        assert resolve_checkpoint(name) == checkpoints.Checkpoint(
            found.path, OWN_COMMIT, "cache", "downloaded earlier", OWN)


def test_a_repository_without_safetensors_is_refused(server):
    pickled = {"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"a pickle"}
    server.repositories["models", OWN] = Repository.of(OWN, OWN_COMMIT, pickled)
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors: choose a repository with a tokenizer"):
        resolve_checkpoint(OWN)
    assert not [path for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.suffix == ".bin"]


@pytest.mark.parametrize(("fault", "part", "words"), [
    ("cut", "model.safetensors", r"peer closed|[Ii]ncomplete|Consistency"),
    ("short", "model.safetensors", r"Consistency"),
    ("forbidden", "tree/", "403"),
    ("login page", "model.safetensors", "FileMetadataError"),
    ("hang", "model.safetensors", r"[Tt]imed? ?out"),
])
def test_a_failed_download_is_named_and_not_trusted_later(fault, part, words, server, monkeypatch):
    server.set_fault(fault, part)
    with monkeypatch.context() as patch:
        if fault == "hang":
            patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
        with pytest.raises(ConnectionError, match=rf"download of {MASKED} .*({words}).*Run the cell again, or set LLM"):
            resolve_checkpoint("masked")
    assert hub.cached_snapshot(MASKED, COMMIT) is None
    server.set_fault("none")
    assert (resolve_checkpoint("masked").path / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.usefixtures("server")
def test_files_that_another_program_downloaded_are_no_checkpoint():
    huggingface_hub.hf_hub_download(MASKED, "config.json", revision=COMMIT)
    assert hub.cached_snapshot(MASKED, COMMIT) is None
    assert resolve_checkpoint("masked").source == "hub"


@pytest.mark.parametrize("name", ["masked", OWN])
def test_damaged_weights_are_named_until_they_are_removed_by_the_remedy(name, server):
    server.set_fault("corrupt", "model.safetensors")
    server.answers.clear()
    for _ in range(2):  # after the download, and in the cache
        with pytest.raises(OSError, match=r"safetensors is damaged: its sha256 is not .*hf cache rm model/") as caught:
            resolve_checkpoint(name)
    server.set_fault("none")
    command = re.search(r"hf cache rm \S+", str(caught.value))[0].split()
    command[0] = str(Path(sys.executable).with_name("hf"))
    subprocess.run([*command, "--yes", "--cache-dir", constants.HF_HUB_CACHE], check=True, capture_output=True)
    assert (resolve_checkpoint(name).path / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.usefixtures("server")
def test_weights_that_decay_in_the_cache_are_noticed_also_without_links():
    weights = resolve_checkpoint("masked").path / "model.safetensors"
    weights.unlink()
    weights.write_bytes(WEIGHTS[:-1])  # a file in the place of the link, as on Windows
    with pytest.raises(OSError, match=r"is damaged"):
        resolve_checkpoint("masked", source="auto")


def test_a_killed_download_is_not_trusted(server, tmp_path):
    server.set_fault("hang", "model.safetensors")
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HUB_CACHE": constants.HF_HUB_CACHE,
                   "PYTHONPATH": str(Path(llm_tutorial.__file__).parents[1])}
    script = f"from llm_tutorial.sources import hub; hub.download_snapshot({MASKED!r}, {COMMIT!r})"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        while not any(answer.sent == len(WEIGHTS) // 2 for answer in server.answers):
            assert process.poll() is None, process.stderr.read().decode()[-2000:]
            server.stopped.wait(0.05)
        process.send_signal(signal.SIGKILL)
    assert hub.cached_snapshot(MASKED, COMMIT) is None
    server.set_fault("none")
    assert (resolve_checkpoint("masked").path / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_cache_that_takes_no_file_is_named(error, monkeypatch):
    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(OSError, match=rf"{MASKED} cannot be stored .*{error.strerror}.*HF_HOME"):
        hub.download_snapshot(MASKED, COMMIT)


# Articles


def test_the_first_rows_are_downloaded_once(server):
    found = resolve_wikipedia()
    assert (found.source, found.revision) == ("hub", corpus.REVISION)
    assert pd.read_parquet(found.path)["title"].tolist() == [f"Article {number}" for number in range(ROWS)]
    dataset = server.repositories["datasets", corpus.REPOSITORY].files["20231101.en/train-00000-of-00002.parquet"]
    sent = sum(answer.sent for answer in server.answers if dataset.sha256 in answer.path)
    assert sent < 2_000_000 < 6_000_000 < len(dataset.content), "only the pages with the first rows travel"
    server.stop()
    assert resolve_wikipedia().source == "cache"


@pytest.mark.parametrize(("fault", "part", "words"), [
    ("cut", "train-", r"peer closed|[Ii]ncomplete"), ("short", "train-", r"Parquet|[Rr]ange"),
    ("corrupt", "train-", "CRC"), ("forbidden", "tree/", "403"),
])
def test_rows_are_complete_or_absent(fault, part, words, server, monkeypatch):
    monkeypatch.setattr(corpus, "_HUB_ROWS", ALL_ROWS)  # so that the middle of the file is read
    server.set_fault(fault, part)
    with pytest.raises(ConnectionError, match=rf"({words}).*Run the cell again, or set LLM_TUTORIAL_SOURCE=offline"):
        resolve_wikipedia()
    assert list((Path(constants.HF_HUB_CACHE).parent / "ours").iterdir()) == []
    server.set_fault("none")
    assert len(pd.read_parquet(resolve_wikipedia().path)) == ALL_ROWS


@pytest.mark.usefixtures("server")
def test_rows_cut_short_in_the_cache_are_downloaded_again():
    kept = resolve_wikipedia().path
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-9])
    assert resolve_wikipedia().source == "hub"
    assert kept.read_bytes() == whole


@pytest.mark.usefixtures("server")
def test_the_files_to_stream_are_listed_in_order():
    found, folder = wikipedia_files(), f"hf://datasets/{corpus.REPOSITORY}@{corpus.REVISION}/20231101.en"
    assert found.source == "hub"
    assert found.files == tuple(f"{folder}/train-0000{number}-of-00002.parquet" for number in range(2))


# Passwords


@pytest.mark.parametrize(("fault", "part"), [("other commit", ""), ("broken", "model.safetensors")])
def test_no_password_of_a_mirror_is_in_a_message(fault, part, server, monkeypatch, caplog):
    mirror = server.url.replace("://", "://me:pass-w0rd@")
    monkeypatch.setattr(constants, "ENDPOINT", mirror)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", mirror + "/{repo_id}/resolve/{revision}/{filename}")
    server.set_fault(fault, part)
    with pytest.raises(ConnectionError, match=r"http://\*\*\*@127\.0\.0\.1") as caught:
        resolve_checkpoint("masked", source="hub")
    huggingface_hub.logging.set_verbosity_warning()
    assert "pass-w0rd" not in "".join(traceback.format_exception(caught.value)) + caplog.text


def test_a_token_is_not_in_a_message():
    assert hub.redacted("Bearer hf_" + "aB3" * 12 + " for https://me:p@ss@mirror/x") == "Bearer *** for https://***@mirror/x"
