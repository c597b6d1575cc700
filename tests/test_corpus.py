"""Wikipedia articles and introductions as bundled, a learner's own texts, titles, and the finished runs."""

import os
import sys
from pathlib import Path

import pandas as pd
import pytest
from datasets import Dataset

from llm_tutorial import corpus
from llm_tutorial.corpus import (
    COLUMNS,
    load_introductions,
    load_run,
    load_texts,
    load_wikipedia,
    split_by_title,
    split_texts,
    title_key,
    wikipedia_files,
)


def test_a_hundred_different_articles_are_drawn_by_the_seed_and_cut_at_the_end_of_a_sentence():
    tables = [pd.read_parquet(path) for path in reversed(wikipedia_files().files)]  # introductions, articles
    bundled = {title: text for table in tables for title, text in zip(table["title"], table["text"], strict=True)}
    first, again, other = load_wikipedia(), load_wikipedia(seed=42), load_wikipedia(seed=43)
    assert first["valid"].to_list() == again["valid"].to_list() != other["valid"].to_list()
    assert {name: (len(split), split.column_names) for name, split in first.items()} == {
        "train": (50, COLUMNS), "valid": (50, COLUMNS)}
    texts = {title: text for split in first.values() for title, text in zip(split["title"], split["text"], strict=True)}
    assert len(texts) == 100
    assert all(bundled[title].startswith(text) and len(text) <= 2700 for title, text in texts.items())
    assert sum(text.rstrip("\"')]").endswith((".", "!", "?")) for text in texts.values()) >= 95, "few are cut hard"


def test_disambiguation_pages_and_lists_are_left_out(tmp_path, monkeypatch):
    rows = [("1", "Mercury (disambiguation)", "Planets and gods."), ("2", "Ram", "Ram may refer to:\nRam, a sheep."),
            ("3", "Rum", "RUM can also refer to a drink."), ("4", "Iron", "Iron is a metal."), ("5", "Tin", "A metal."),
            ("6", "List of metals", "Iron, tin.")]
    path = tmp_path / "articles.parquet"
    pd.DataFrame([(i, f"u/{i}", *rest) for i, *rest in rows], columns=COLUMNS).to_parquet(path)
    monkeypatch.setattr(corpus, "resolve_wikipedia", lambda **_: corpus.Checkpoint(path, "", "cache", "", ""))
    drawn = load_wikipedia(1, 1)
    assert {*drawn["train"]["title"], *drawn["valid"]["title"]} == {"Iron", "Tin"}
    with pytest.raises(ValueError, match=r"train=2 \+ valid=1 articles .* there are 2: ask for fewer"):
        load_wikipedia(2, 1)
    with pytest.raises(ValueError, match="train=0 and valid=50: both must be at least 1"):
        load_wikipedia(train=0)


def test_all_introductions_are_loaded_and_the_bundled_files_can_be_streamed():
    introductions = load_introductions()
    assert (len(introductions), introductions.column_names[:4]) == (10_033, COLUMNS)
    assert all(text.strip() for text in introductions["text"])
    found = wikipedia_files()
    assert (found.source, found.reason) == ("offline", "LLM_TUTORIAL_SOURCE=offline")
    assert [pd.read_parquet(path).columns[:4].tolist() for path in found.files] == [COLUMNS, COLUMNS]
    assert len(found.revision) == 33


@pytest.mark.parametrize(("text", "limit", "expected"), [
    ("One. Two.", 9, "One. Two."), ("One! Two.", 8, "One!"), ("One. Two.", 3, "One"), ("no end at all", 5, "no en"),
    ('He said "Go." Then he left.', 20, 'He said "Go."'), ("One. It costs 3.14 dollars.", 16, "One."),
])
def test_a_text_is_cut_at_a_sentence(text, limit, expected):
    assert corpus._cut_at_sentence(text, limit) == expected


def written(path: Path, content: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_texts_are_read_from_files_and_folders_and_what_is_passed_over_is_said(tmp_path):
    folder = tmp_path / "notes"
    for name, content in {"b.md": "b", "sub/c.TXT": "c", "d.py": "def d():\r\n    d()\r", "sub/Makefile": "all: e",
                          "picture.png": b"\x89PNG\0", "photo.png": b"\x89PNG\0", "old.txt": "Größe".encode("cp1252"),
                          "table.csv": "a,b\n1,2", "sub/__init__.py": "", ".ipynb_checkpoints/b.md": "old b"}.items():
        written(folder / name, content)
    (folder / "a folder.txt").mkdir()
    single, said = written(tmp_path / "a.text", "\ufeffzażółć".encode()), []
    loaded = load_texts([single, str(folder)], report=said.append)
    assert loaded.column_names == COLUMNS
    assert loaded["text"][:] == ["zażółć", "b", "def d():\n    d()\n", "all: e", "c"]
    assert loaded["title"][:] == ["a", "b", "d", "Makefile", "c"]
    assert [line.split(". The first: ")[0] for line in said] == [
        f"Passed over {file}" for file in ("1 .txt file(s)", "2 .png file(s)", "1 .py file(s)", "1 .csv file(s)")]
    assert "old.txt is no UTF-8 text but probably Latin-1" in said[0]
    assert load_texts(str(single))["text"][:] == ["zażółć"]


@pytest.mark.parametrize(("content", "kind", "options"), [
    ("Größe".encode("cp1252"), r"probably Latin-1 .*: byte 2 is 0xf6", "encoding='cp1252'"),
    ("Größe".encode("utf-16"), "UTF-16: byte 0 is 0xff", "encoding='utf-16'"),
    ("☕ Größe 😀".encode()[2:-1], "a piece with half a character: byte 0 is 0x95",
     "encoding='utf-8', errors='ignore'"),
])
def test_text_in_another_encoding_is_named_with_a_line_that_converts_it(tmp_path, content, kind, options):
    path = written(tmp_path / "bad.txt", content)
    with pytest.raises(ValueError, match=rf"bad\.txt is no UTF-8 text but {kind}\. To convert it, run") as error:
        load_texts(path)
    remedy = str(error.value).partition("in Python: ")[2]
    assert f"read_text({options})" in remedy
    exec(remedy, {})
    assert "Größe" in load_texts(path)["text"][0]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.txt", b" \n\t", r"a\.txt is empty: remove it from the list"), ("a.txt", b"text\0", "binary: byte 4 is 0x00"),
    ("a.txt", b"%PDF-1.4\n\xe2\x01", "is no UTF-8 text but binary: byte 9 is 0xe2. Leave it out, or save its text"),
    ("a.csv", 'text\n"open', r"a\.csv is no csv file with a header .* \(.*\): correct it"),
    ("a.csv", "id,text\n1,fine, and good\n", "a row has more values than the header has names: quote texts with ','"),
    ("a.json", '{"text": {\n"a": 1}}', r"a\.json is no json file with a list of objects, or one object per line"),
    ("a.jsonl", '{"text": "a"}\n{oops', r"a\.jsonl is no jsonl file with"), ("a.csv", "text,b\n,1", "holds no text"),
])
def test_a_file_without_texts_is_refused(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        load_texts(written(tmp_path / name, content), column="text")


@pytest.mark.parametrize(("name", "content"), [
    ("a.csv", 'id, review\n1,"Good, very\ngood"\n2,\n3,NA\n'), ("a.tsv", "id\treview\n1\tGood, very\\ngood\n3\tNA\n"),
    ("a.CSV", b'\xef\xbb\xbfreview;price\r\n"Good, very\r\ngood";1,5\r\nNA;2\r\n'),
    ("a.jsonl", '{"review": "Good, very\\ngood"}\n\n{"review": null}\n{"review": "NA"}\n'),
    ("a.json", '[{"review": "Good, very\\ngood"}, {"review": "NA", "more": [1]}]'),
])
def test_a_row_of_a_table_is_a_text_where_its_column_is_named(tmp_path, name, content):
    path = written(tmp_path / name, content)
    loaded = load_texts(path, column="review")
    assert [text.replace("\\n", "\n") for text in loaded["text"]] == ["Good, very\ngood", "NA"]
    assert loaded["title"][:] == ["a 0", "a 1"]
    with pytest.raises(ValueError, match=r"is a table: name the column .* by column= in Python or --column .*review"):
        load_texts(path)
    with pytest.raises(ValueError, match="has no column 'text': name the column"):
        load_texts(path, column="text")


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt does not exist \(looked in "):
        load_texts(["nowhere.txt"])
    with pytest.raises(ValueError, match="A path is empty: name a file or a folder"):
        load_texts("")
    with pytest.raises(FileNotFoundError, match=r"There is no text in .*: name a text file, or a folder"):
        load_texts([tmp_path])


@pytest.mark.skipif(sys.platform in {"darwin", "win32"}, reason="file names are Unicode there")
def test_file_names_need_not_be_utf8(tmp_path):
    path = written(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")), "Coffee.")
    assert load_texts(tmp_path)["title"][:] == ["caf\ufffd"]
    path.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="caf\ufffd\\.txt is no UTF-8"):
        load_texts(path)


def test_equal_names_are_different_texts_and_copies_are_one(tmp_path):
    said = []
    for number in range(12):
        written(tmp_path / str(number) / "text.txt", f"Text {number // 2 if number < 4 else number}.")
    loaded = load_texts(tmp_path, report=said.append)
    assert (len(loaded), said) == (10, ["Passed over 2 text(s) equal to others."])
    split = split_texts(loaded)
    assert (len(split["train"]), len(split["valid"])) == (9, 1)
    assert {*split["train"]["text"], *split["valid"]["text"]} == {*loaded["text"]}


@pytest.mark.parametrize(("text", "cut"), [
    ("one\n\n" * 20, 88), ("one\n" * 25, 87), ("x" * 100, 90), ("a\n\n" + "x y " * 25, 90),
])
def test_the_last_tenth_of_a_single_text_validates(text, cut):
    split = split_texts(Dataset.from_dict({"title": ["a"], "text": [text]}))
    assert split["train"].to_list() == [{"title": "a", "text": text[:cut]}]
    assert split["valid"].to_list() == [{"title": "a", "text": text[cut:]}]


@pytest.mark.parametrize(("one", "other"), [
    ("Abraham Lincoln", "abraham_lincoln"), ("Cro-Magnon", "Cro–Magnon"), ("André-Marie Ampère", "Andre Marie Ampere"),
    ("Newfoundland (island)", "Newfoundland"), ("A.N.S.W.E.R.", "Answer"), ("Straße", "STRASSE"),
])
def test_similar_titles_have_one_key(one, other):
    assert title_key(one) == title_key(other)


def test_different_titles_have_different_keys():
    titles = ["Albania", "Caucasian Albania", "Acid", "Acids", "C", "C++", "Apollo 11", "Apollo 8", "A (b) c", "数学"]
    assert len(set(map(title_key, titles))) == len(titles)


def test_documents_of_similar_titles_are_in_one_split():
    titles = [f"Title {n}" for n in range(40)] + [f"TITLE-{n} (again)" for n in range(40)]
    documents = Dataset.from_dict({"title": titles, "text": titles})
    split = split_by_title(documents, valid=9, seed=1)
    assert sorted([*split["train"]["title"], *split["valid"]["title"]]) == sorted(titles)
    assert len(split["valid"]) == 10
    assert not set(map(title_key, split["train"]["title"])) & set(map(title_key, split["valid"]["title"]))
    assert split_by_title(documents, 9, seed=1)["valid"]["title"][:] == split["valid"]["title"][:]
    assert split_by_title(documents, 9, seed=2)["valid"]["title"][:] != split["valid"]["title"][:]


def test_a_finished_run_is_loaded_and_an_unknown_one_is_named():
    runs = load_run("more_data")["runs"]
    assert runs["fifty"]["best_validation_loss"] - runs["introductions"]["validation_loss"] > 1
    with pytest.raises(ValueError, match=r"runs/less_data\.json is not listed in .*SHA256SUMS"):
        load_run("less_data")


def test_a_document_with_most_of_the_text_is_not_held_out():
    for book in range(12):  # wherever it stands, drawn to validate or not
        texts = ["word " * (2000 if number == book else 20) for number in range(12)]
        split = split_texts(Dataset.from_dict({"title": texts, "text": texts}))
        assert sum(map(len, split["train"]["text"])) > sum(map(len, split["valid"]["text"]))
