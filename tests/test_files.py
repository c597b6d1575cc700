"""Bundled files, their hashes, the cache folder, and files that are complete or absent."""

import os
from contextlib import suppress

import pytest

from llm_tutorial.checkpoints import load_gpt2_tokenizer, resolve_checkpoint
from llm_tutorial.corpus import load_introductions, load_run, load_wikipedia, wikipedia_files
from llm_tutorial.sources import files

GPT2_HASHES = {
    "tokenizers/gpt2/vocab.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "tokenizers/gpt2/merges.txt": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


def test_every_bundled_file_has_the_listed_hash_and_those_of_gpt2_are_openais():
    folder = files.data_folder()
    assert len(files.listed_files()) >= 12
    assert files.verified_folder(folder) == folder
    assert {name: files.sha256_of(folder / name) for name in GPT2_HASHES} == GPT2_HASHES


@pytest.mark.parametrize(("damage", "words"), [
    (None, "is missing, expected [0-9a-f]{64}"), (b"contend", "is [0-9a-f]{64}, expected")])
def test_a_damaged_file_is_named_with_a_remedy(damage, words, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "data_folder", lambda: tmp_path)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    (tmp_path / "SHA256SUMS").write_text(f"{files.sha256_of(path)}  file\n")
    assert files.verified(path) == path
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(OSError, match=rf"file is damaged: its sha256 {words}.*git checkout -- data"):
        files.verified(path)


@pytest.mark.parametrize(("name", "load"), [
    ("articles.parquet", load_wikipedia), ("intros.parquet", load_introductions), ("intros.parquet", wikipedia_files),
    ("vocab.json", load_gpt2_tokenizer), ("merges.txt", load_gpt2_tokenizer),
    ("more_data.json", lambda: load_run("more_data")), ("vocab.txt", lambda: resolve_checkpoint("masked")),
    ("model.safetensors", lambda: resolve_checkpoint("masked")),
])
def test_every_bundled_file_is_checked_before_it_is_used(name, load, monkeypatch):
    sha256_of = files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda path: "0" * 64 if path.name == name else sha256_of(path))
    with pytest.raises(OSError, match=f"{name} is damaged"):
        load()


def test_a_folder_may_hold_a_file_of_the_system_but_must_not_lack_one_of_ours(tmp_path, monkeypatch):
    folder = tmp_path / "models" / "small"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"kept")
    (folder / ".DS_Store").touch()
    (tmp_path / "SHA256SUMS").write_text(f"{files.sha256_of(folder / 'weights')}  models/small/weights\n")
    monkeypatch.setattr(files, "data_folder", lambda: tmp_path)
    assert files.verified_folder(folder) == folder
    (folder / "weights").unlink()
    with pytest.raises(OSError, match="its sha256 is missing"):
        files.verified_folder(folder)


def test_the_cache_folder_is_where_the_variable_says(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", os.path.join("~", "a", "b"))
    assert files.cache_folder() == tmp_path / "a" / "b"
    assert list(files.writable_folder(files.cache_folder()).iterdir()) == []


def test_a_cache_folder_that_takes_no_file_is_named_with_a_remedy(tmp_path):
    (tmp_path / "folder").write_text("a file in its place")
    with pytest.raises(PermissionError, match=r"folder cannot be written to .*Set LLM_TUTORIAL_CACHE"):
        files.writable_folder(tmp_path / "folder")


def test_a_new_folder_is_complete_or_absent(tmp_path):
    target = tmp_path / "target"
    with suppress(KeyboardInterrupt), files.new_folder(target) as partial:
        (partial / "file").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(target) as partial:
        (partial / "file").write_text("first")
        assert not target.exists()
    with files.new_folder(target) as partial:  # another process was faster
        (partial / "file").write_text("second")
    assert list(tmp_path.iterdir()) == [target]
    assert (target / "file").read_text() == "first"


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.replace_file(path, b"old")
    files.replace_file(path, b"new")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        files.replace_file(path, b"newer")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
