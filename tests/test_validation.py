"""Documents to validate with that come from elsewhere than the training data."""

import pytest

from llm_tutorial.chunking import chunked_dataset
from llm_tutorial.corpus import load_introductions, load_wikipedia
from llm_tutorial.packing import packed_dataset
from llm_tutorial.validation import cutter, held_out_documents


def test_articles_are_those_that_fifty_articles_are_validated_with():
    lesson = load_wikipedia(50, 50, 42)["valid"]
    assert held_out_documents("articles")["text"][:] == lesson["text"][:]
    assert held_out_documents("articles", 7)["text"][:] == lesson["text"][:7]
    assert held_out_documents("articles", 7, 1)["text"][:] == load_wikipedia(50, 7, 1)["valid"]["text"][:]


def test_introductions_are_drawn_with_the_seed():
    drawn = held_out_documents("introductions")
    assert len(drawn) == 500
    assert set(drawn["title"]) < set(load_introductions()["title"])
    assert drawn["title"][:30] == held_out_documents("introductions", 30)["title"][:]
    assert drawn["title"][:30] != held_out_documents("introductions", 30, 1)["title"][:]


def test_of_ones_own_texts_all_are_taken(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name)
    assert sorted(held_out_documents([tmp_path])["title"]) == ["a", "b", "c"]
    assert len(held_out_documents([tmp_path], 2)) == 2
    with pytest.raises(ValueError, match="4 documents to validate with were asked for, but there are 3: ask for fewer"):
        held_out_documents([tmp_path], 4)


@pytest.mark.parametrize(("data", "count", "message"), [
    ("news", None, "Unknown data to validate with 'news': use one of articles, introductions, or a list of paths"),
    ("stream", None, "Unknown data to validate with 'stream'"),
    ("articles", 0, "0 documents to validate with: at least 1"),
    ("articles", 500, r"train=50 \+ valid=500 articles were asked for, but there are"),
])
def test_bad_requests_are_named(data, count, message):
    with pytest.raises(ValueError, match=message):
        held_out_documents(data, count)


def test_only_articles_are_chunked_one_by_one():
    assert cutter("articles") is chunked_dataset
    assert {cutter("introductions"), cutter("stream"), cutter(["articles"])} == {packed_dataset}
