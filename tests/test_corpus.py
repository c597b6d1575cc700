"""Wikipedia articles and introductions as bundled, and a learner's own texts."""

import re

import pandas as pd
import pytest

from llm_tutorial import corpus, files
from llm_tutorial.corpus import COLUMNS, cut_at_sentence, load_introductions, load_texts, load_wikipedia


@pytest.fixture(scope="module")
def articles() -> dict[str, str]:
    """All bundled texts by title; an article goes before the introduction of the same title."""
    folder = files.data_folder() / "wikipedia"
    tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("intros", "articles")]
    return {title: text for table in tables for title, text in zip(table["title"], table["text"], strict=True)}


def test_fifty_and_fifty_articles_with_the_hubs_columns():
    datasets = load_wikipedia()
    assert {name: split.num_rows for name, split in datasets.items()} == {"train": 50, "valid": 50}
    assert all(split.column_names == ["id", "url", "title", "text"] for split in datasets.values())
    assert len({*datasets["train"]["title"], *datasets["valid"]["title"]}) == 100


def test_the_seed_decides_which_articles_are_drawn():
    first, again, other = load_wikipedia(), load_wikipedia(seed=42), load_wikipedia(seed=43)
    assert first["train"].to_list() == again["train"].to_list()
    assert first["valid"].to_list() == again["valid"].to_list()
    assert first["train"]["title"][:] != other["train"]["title"][:]


@pytest.mark.parametrize("limit", [2700, 500])
def test_texts_are_cut_at_a_sentence_end_within_the_limit(articles, limit):
    for split in load_wikipedia(max_characters=limit).values():
        for title, text in zip(split["title"], split["text"], strict=True):
            whole = articles[title]
            assert whole.startswith(text)
            assert text == whole if len(whole) <= limit else len(text) <= limit
            if text != whole and len(text) < limit:
                assert re.search(r"[.!?][\"')\]]*$", text), title
                assert whole[len(text)].isspace(), title


def test_most_texts_are_cut_at_a_sentence_not_hard():
    texts = [text for split in load_wikipedia().values() for text in split["text"]]
    assert sum(len(text) == 2700 for text in texts) <= 2
    assert sum(text.rstrip("\"')]").endswith((".", "!", "?")) for text in texts) >= 95


def test_without_a_limit_articles_are_whole(articles):
    split = load_wikipedia(3, 3, max_characters=None)["train"]
    assert split["text"][:] == [articles[title] for title in split["title"]]


def test_no_disambiguation_page_is_drawn():
    drawn = load_wikipedia()
    for split in drawn.values():
        assert not any(title.endswith("(disambiguation)") for title in split["title"])
        assert not any(re.search(r"(may|can)( also)? refer to", text[:200]) for text in split["text"])


def test_disambiguation_pages_are_recognised_and_left_out(tmp_path, monkeypatch):
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


def test_all_introductions_are_loaded():
    introductions = load_introductions()
    assert introductions.num_rows == 10_033
    assert introductions.column_names[:4] == COLUMNS
    assert all(text.strip() for text in introductions["text"])
    assert all(url.startswith("https://en.wikipedia.org/wiki/") for url in introductions["url"])


@pytest.mark.parametrize(("options", "message"), [
    ({"train": 0}, "train=0 and valid=50: both must be at least 1"),
    ({"valid": -1}, "train=50 and valid=-1: both must be at least 1"),
    ({"train": 5000}, r"train=5000 \+ valid=50 articles were asked for, but there are \d+: ask for fewer"),
    ({"max_characters": 99}, "max_characters=99 .*use at least 100, or None"),
    ({"source": "usb"}, r"Unknown source 'usb' \(source='usb'\): use one of auto, hub, offline"),
])
def test_bad_requests_are_named_with_a_remedy(options, message):
    with pytest.raises(ValueError, match=message):
        load_wikipedia(**options)


def test_an_unknown_source_in_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "usb")
    with pytest.raises(ValueError, match=r"Unknown source 'usb' \(LLM_TUTORIAL_SOURCE=usb\)"):
        load_wikipedia()


@pytest.mark.parametrize(("text", "limit", "expected"), [
    ("One. Two.", None, "One. Two."),
    ("One. Two.", 9, "One. Two."),
    ("One. Two.", 8, "One."),
    ("One. Two.", 4, "One."),
    ("One. Two.", 3, "One"),
    ("Go! Now? No.", 11, "Go! Now?"),
    ('He said "Go." Then he left.', 20, 'He said "Go."'),
    ("It is so (really.) And more", 22, "It is so (really.)"),
    ("One. It costs 3.14 dollars.", 16, "One."),
    ("One. See example.org now.", 17, "One."),
    ("One.\n\nTwo is long.", 10, "One."),
    ("no end at all", 5, "no en"),
    ("", 5, ""),
])
def test_cut_at_sentence(text, limit, expected):
    assert cut_at_sentence(text, limit) == expected


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
    assert loaded["id"][:] == ["0", "1", "2"]
    assert load_texts(str(single))["text"][:] == ["zażółć"]


@pytest.mark.parametrize(("content", "message"), [
    (b"", r"bad\.txt is empty: remove it from the list"),
    (b" \n\t", r"bad\.txt is empty"),
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


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A file of articles as streamed from the hub, and its recorded hash."""
    def fetch(_pattern, columns, _rows, target):
        rows = [{name: f"{name} {number}" for name in columns} for number in range(99)]
        pd.DataFrame(rows).to_parquet(target, compression=None)

    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path))
    monkeypatch.setattr(corpus.transfers, "fetch_rows", fetch)
    monkeypatch.setattr(corpus.hub, "why_unreachable", lambda *_: None)
    found = corpus.resolve_wikipedia(source="hub")
    assert found.source == "hub"
    assert corpus.resolve_wikipedia(source="hub").source == "cache"
    return found.path


@pytest.mark.parametrize("damage", [lambda whole: whole[:-9], lambda whole: whole[:0], lambda whole: whole + b"x",
                                    lambda whole: whole[:40] + bytes(200) + whole[240:],
                                    lambda whole: whole.replace(b"text 42", b"text 43")])
def test_damaged_rows_of_the_hub_are_removed_and_named(damage, kept):
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert kept.read_bytes() != whole
    with pytest.raises(OSError, match=r"was damaged \(.*\) and has been removed\. Run the cell again"):
        corpus.resolve_wikipedia(source="hub")
    assert list(kept.parent.iterdir()) == []
    assert corpus.resolve_wikipedia(source="hub").source == "hub"
    assert kept.read_bytes() == whole


def test_rows_without_a_recorded_hash_come_anew(kept):
    [record] = set(kept.parent.iterdir()) - {kept}
    record.unlink()
    kept.write_bytes(b"of an earlier version, or of a process that was killed")
    assert corpus.resolve_wikipedia(source="hub").source == "hub"
    assert corpus.resolve_wikipedia(source="hub").source == "cache"
    assert pd.read_parquet(kept)["title"][42] == "title 42"


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), OSError(24, "Too many open files"),
                                   PermissionError(13, "Permission denied")])
def test_rows_that_cannot_be_read_are_not_taken_for_damaged(error, kept, monkeypatch):
    def refuse(_path):
        raise error

    whole = kept.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(files, "sha256_of", refuse)
        with pytest.raises(OSError, match=rf"cannot be read \({error.strerror}\)\. .* LLM_TUTORIAL_SOURCE=offline"):
            corpus.resolve_wikipedia(source="auto")
    assert kept.read_bytes() == whole
    assert corpus.resolve_wikipedia(source="hub").source == "cache"


def test_damaged_rows_in_a_folder_of_others_are_named(kept, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    kept.write_bytes(b"something else")
    monkeypatch.setattr(corpus.Path, "unlink", refuse)
    with pytest.raises(OSError, match=r"was damaged \(.*\) and cannot be removed\. Delete it, then run the cell again"):
        corpus.resolve_wikipedia(source="hub")


def test_other_users_of_the_cache_may_read_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus.transfers, "_fetch", lambda *_: None)
    corpus.transfers.fetch_rows("datasets/a/b@0/*.parquet", COLUMNS, 1, tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").stat().st_mode & 0o444 == 0o444
