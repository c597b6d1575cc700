"""Wikipedia articles and introductions as bundled, a learner's own texts, titles, and the finished runs."""

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
    title_key,
    wikipedia_files,
)
from llm_tutorial.sources import files


@pytest.fixture(scope="module")
def articles() -> dict[str, str]:
    """All bundled texts by title; if an article and an introduction share a title, the article."""
    folder = files.data_folder() / "wikipedia"
    tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("intros", "articles")]
    return {title: text for table in tables for title, text in zip(table["title"], table["text"], strict=True)}


def test_a_hundred_different_articles_have_the_hubs_columns():
    datasets = load_wikipedia()
    assert {name: split.num_rows for name, split in datasets.items()} == {"train": 50, "valid": 50}
    assert all(split.column_names == ["id", "url", "title", "text"] for split in datasets.values())
    assert len({*datasets["train"]["title"], *datasets["valid"]["title"]}) == 100


def test_the_seed_decides_which_articles_are_drawn():
    first, again, other = load_wikipedia(), load_wikipedia(seed=42), load_wikipedia(seed=43)
    assert first["valid"].to_list() == again["valid"].to_list() != other["valid"].to_list()


def test_texts_are_cut_at_the_end_of_a_sentence_within_the_limit(articles):
    drawn = load_wikipedia(max_characters=500)
    pairs = [pair for split in drawn.values() for pair in zip(split["title"], split["text"], strict=True)]
    assert all(articles[title].startswith(text) and len(text) <= 500 for title, text in pairs)
    assert sum(text.rstrip("\"')]").endswith((".", "!", "?")) for _, text in pairs) >= 95, "few are cut hard"


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


@pytest.mark.parametrize(("options", "message"), [
    ({"train": 0}, "train=0 and valid=50: both must be at least 1"),
    ({"train": 5000}, r"train=5000 \+ valid=50 articles were asked for, but there are 100: ask for fewer"),
])
def test_bad_requests_are_named_with_a_remedy(options, message):
    with pytest.raises(ValueError, match=message):
        load_wikipedia(**options)


def test_all_introductions_are_loaded():
    introductions = load_introductions()
    assert introductions.num_rows == 10_033
    assert introductions.column_names[:4] == COLUMNS
    assert all(text.strip() for text in introductions["text"])


def test_the_bundled_files_can_be_streamed():
    found = wikipedia_files()
    assert (found.source, found.reason) == ("offline", "LLM_TUTORIAL_SOURCE=offline")
    assert [pd.read_parquet(path).columns[:4].tolist() for path in found.files] == [COLUMNS, COLUMNS]
    assert len(found.revision) == 33


@pytest.mark.parametrize(("text", "limit", "expected"), [
    ("One. Two.", None, "One. Two."), ("One. Two.", 9, "One. Two."), ("One. Two.", 8, "One."), ("One. Two.", 3, "One"),
    ("Go! Now? No.", 11, "Go! Now?"),
    ('He said "Go." Then he left.', 20, 'He said "Go."'),
    ("One. It costs 3.14 dollars.", 16, "One."),
    ("One.\n\nTwo is long.", 10, "One."),
    ("no end at all", 5, "no en"),
])
def test_a_text_is_cut_at_a_sentence(text, limit, expected):
    assert corpus._cut_at_sentence(text, limit) == expected


def test_texts_are_read_from_files_and_folders(tmp_path):
    folder = tmp_path / "notes"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.md").write_text("b", encoding="utf-8")
    (folder / "sub" / "c.TXT").write_text("c", encoding="utf-8")
    (folder / "ignored.png").write_bytes(b"\x89PNG")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "b-checkpoint.md").write_text("old b", encoding="utf-8")
    (folder / "a folder.txt").mkdir()
    single = tmp_path / "a.text"
    single.write_bytes("\ufeffzażółć".encode())
    loaded = load_texts([single, str(folder)])
    assert loaded.column_names == COLUMNS
    assert loaded["text"][:] == ["zażółć", "b", "c"]
    assert loaded["title"][:] == ["a", "b", "c"]
    assert load_texts(str(single))["text"][:] == ["zażółć"]


@pytest.mark.parametrize(("content", "message"), [
    (b" \n\t", r"bad\.txt is empty: remove it from the list"),
    ("Größe".encode("latin-1"), r"bad\.txt is not UTF-8 \(byte 2 is 0xf6\): save it as UTF-8"),
    ("Größe".encode("utf-16"), r"bad\.txt is not UTF-8 \(byte 0 is 0xff\)"),
])
def test_an_unreadable_text_file_is_named_with_a_remedy(tmp_path, content, message):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_texts([tmp_path])


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt does not exist \(looked in "):
        load_texts(["nowhere.txt"])
    with pytest.raises(FileNotFoundError, match=r"No \.txt or \.md file in .*name at least one"):
        load_texts([tmp_path])


@pytest.mark.parametrize(("one", "other"), [
    ("Abraham Lincoln", "abraham  lincoln"), ("Abraham Lincoln", "Abraham_Lincoln"), ("Cro-Magnon", "Cro–Magnon"),
    ("André-Marie Ampère", "Andre Marie Ampere"), ("Newfoundland (island)", "Newfoundland"), ("A.N.S.W.E.R.", "Answer"),
    ("Straße", "STRASSE"), ("Ångström", "Ångström"), ("ﬁsh", "fish"),
])
def test_similar_titles_have_one_key(one, other):
    assert title_key(one) == title_key(other)


@pytest.mark.parametrize(("one", "other"), [
    ("Albania", "Caucasian Albania"), ("Acid", "Acids"), ("C", "C++"), ("Apollo 11", "Apollo 8"), ("!!!", "???"),
    ("(I)", "(II)"), ("", "!"), ("A (b) c", "A"), ("数学", "物理"),
])
def test_different_titles_have_different_keys(one, other):
    assert title_key(one) != title_key(other)


def test_documents_of_similar_titles_are_in_one_split():
    titles = [f"Title {n}" for n in range(40)] + [f"TITLE-{n} (again)" for n in range(40)]
    documents = Dataset.from_dict({"title": titles, "text": titles})
    split = split_by_title(documents, valid=9, seed=1)
    assert sorted([*split["train"]["title"], *split["valid"]["title"]]) == sorted(titles)
    assert len(split["valid"]) == 10
    assert not set(map(title_key, split["train"]["title"])) & set(map(title_key, split["valid"]["title"]))
    assert split_by_title(documents, 9, seed=1)["valid"]["title"][:] == split["valid"]["title"][:]
    assert split_by_title(documents, 9, seed=2)["valid"]["title"][:] != split["valid"]["title"][:]
    with pytest.raises(ValueError, match="80 documents with 40 different titles leave none to train on when 79 are"):
        split_by_title(documents, 79, seed=1)


def test_a_finished_run_is_loaded_and_an_unknown_one_is_named():
    runs = load_run("more_data")["runs"]
    assert runs["fifty"]["best_validation_loss"] - runs["introductions"]["validation_loss"] > 1
    with pytest.raises(ValueError, match="No run 'less_data' is bundled: use one of levers, more_data, scaling"):
        load_run("less_data")
