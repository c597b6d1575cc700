"""Bundled files, their hashes, and the cache folder."""

import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest

from llm_tutorial import files
from llm_tutorial.checkpoints import load_gpt2_tokenizer, resolve_checkpoint
from llm_tutorial.corpus import load_introductions, load_wikipedia, resolve_wikipedia

GPT2_HASHES = {
    "vocab.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "merges.txt": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A copy of the bundled data (without models) that a test may damage."""
    copy = shutil.copytree(files.data_folder(), tmp_path / "data", ignore=shutil.ignore_patterns("models", "build"))
    monkeypatch.setattr(files, "data_folder", lambda: copy)
    return copy


def listed_files() -> list[str]:
    lines = (files.data_folder() / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return [line.split(maxsplit=1)[1] for line in lines]


@pytest.mark.parametrize("name", listed_files())
def test_every_bundled_file_has_the_hash_listed(name):
    assert files.verified(files.data_folder() / name).is_file()


@pytest.mark.parametrize("name", GPT2_HASHES)
def test_the_gpt2_tokenizer_is_openais_byte_for_byte(name):
    assert files.sha256_of(files.data_folder() / "tokenizers" / "gpt2" / name) == GPT2_HASHES[name]


def test_the_gpt2_tokenizer_gives_the_known_ids():
    tokenizer = load_gpt2_tokenizer()
    assert len(tokenizer) == 50_257
    assert tokenizer("Swimming at the beach is").input_ids == [10462, 27428, 379, 262, 10481, 318]
    assert (tokenizer.eos_token_id, tokenizer.model_max_length) == (50_256, 1024)


LOADERS = [
    ("wikipedia/articles.parquet", load_wikipedia),
    ("wikipedia/intros.parquet", load_introductions),
    ("tokenizers/gpt2/vocab.json", load_gpt2_tokenizer),
    ("tokenizers/gpt2/merges.txt", load_gpt2_tokenizer),
]


@pytest.mark.parametrize(("name", "load"), LOADERS)
@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_damaged_file_is_named_with_a_remedy(data, name, load, damage):
    path = data / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-100] if damage == "truncated" else b"\0" + content[1:])
    expected = "is missing" if damage == "missing" else "is damaged: its sha256 is [0-9a-f]{64}, expected"
    with pytest.raises(OSError, match=rf"{path.name} {expected}(.|\n)*git checkout -- data"):
        load()


@pytest.mark.parametrize("check", [files.verified, files.listed_sha256])
def test_a_file_that_is_not_listed_is_refused(data, check):
    (data / "new.txt").write_text("new", encoding="utf-8")
    with pytest.raises(ValueError, match=r"new\.txt is not listed in .*SHA256SUMS"):
        check(data / "new.txt")


def test_the_listed_hash_is_known_without_reading_the_file(data):
    expected = files.sha256_of(data / "tokenizers" / "gpt2" / "vocab.json")
    (data / "tokenizers" / "gpt2" / "vocab.json").unlink()
    assert files.listed_sha256(data / "tokenizers" / "gpt2" / "vocab.json") == expected


@pytest.mark.parametrize(("resolve", "name"), [
    (partial(resolve_checkpoint, "masked"), "models/minilm-mlm/model.safetensors"),
    (resolve_wikipedia, "wikipedia/articles.parquet")])
def test_a_source_is_read_once_to_be_checked(monkeypatch, resolve, name):
    read, sha256_of = [], files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda path: (read.append(path), sha256_of(path))[1])
    assert resolve().revision == sha256_of(files.data_folder() / name)
    assert read.count(files.data_folder() / name) == 1


def test_missing_data_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "__file__", str(tmp_path / "src" / "package" / "files.py"))
    with pytest.raises(FileNotFoundError, match="Install the package again"):
        files.data_folder()


def test_the_cache_folder_is_created_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path / "a" / "b"))
    assert files.cache_folder() == tmp_path / "a" / "b"
    assert list(files.cache_folder().iterdir()) == []


def test_the_cache_folder_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", os.path.join("~", "cache"))
    assert files.cache_folder() == tmp_path / "cache"


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_place_of_the_cache_folder_is_named_with_a_remedy(tmp_path, monkeypatch, below):
    (tmp_path / "taken").write_text("", encoding="utf-8")
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path / "taken" / below))
    with pytest.raises(PermissionError, match=r"taken.* cannot be written to .*Set LLM_TUTORIAL_CACHE"):
        files.cache_folder()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_cache_folder_that_cannot_be_written_to_is_named_with_a_remedy(tmp_path, monkeypatch, error):
    def refuse(**_options):
        raise error

    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match=rf"cannot be written to \({error.strerror}\).*Set LLM_TUTORIAL_CACHE"):
        files.cache_folder()


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path):
    target = tmp_path / "target"

    def break_off():
        with files.new_folder(target) as partial:
            (partial / "file").write_text("half", encoding="utf-8")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        break_off()
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(target) as partial:
        (partial / "file").write_text("whole", encoding="utf-8")
        assert not target.exists()
    assert list(tmp_path.iterdir()) == [target]
    assert (target / "file").read_text(encoding="utf-8") == "whole"


def test_a_new_folder_can_be_read_by_those_whom_the_umask_lets(tmp_path):
    before = os.umask(0o027)
    try:
        with files.new_folder(tmp_path / "new") as partial:
            os.close(tempfile.mkstemp(dir=partial)[0])
        (tmp_path / "usual").mkdir()
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode
    if os.name != "nt":
        assert [path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()] == [0o640]


def test_all_of_a_new_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    flushed, fsync, rename = [], os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda number: (flushed.append(os.fstat(number).st_ino), fsync(number)))
    monkeypatch.setattr(Path, "rename", lambda path, target: (flushed.append("renamed"), rename(path, target)))
    with files.new_folder(tmp_path / "new") as partial:
        (partial / "inner").mkdir()
        for name in ("file", "inner/file"):
            (partial / name).write_text(name, encoding="utf-8")
        (partial / "file").chmod(0o444)
    before, after = flushed[:flushed.index("renamed")], flushed[flushed.index("renamed"):]
    names = ["file", "inner/file", *([] if os.name == "nt" else ["inner", "."])]
    assert {(tmp_path / "new" / name).stat().st_ino for name in names} <= set(before)
    assert os.name == "nt" or tmp_path.stat().st_ino in after


def test_a_new_folder_leaves_the_one_that_another_process_made(tmp_path):
    target = tmp_path / "target"
    with files.new_folder(target) as partial:
        (partial / "file").write_text("second", encoding="utf-8")
        target.mkdir()
        (target / "file").write_text("first", encoding="utf-8")
    assert (target / "file").read_text(encoding="utf-8") == "first"
    assert list(tmp_path.iterdir()) == [target]
