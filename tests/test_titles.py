"""Which titles are near-identical, and what leaves the training documents for that."""

import pytest
from datasets import Dataset

from llm_tutorial.titles import title_key, without_titles


@pytest.mark.parametrize(("one", "other"), [
    ("Abraham Lincoln", "abraham  lincoln"), ("Abraham Lincoln", "Abraham_Lincoln"), ("Cro-Magnon", "Cro–Magnon"),
    ("André-Marie Ampère", "Andre Marie Ampere"), ("Newfoundland (island)", "Newfoundland"), ("A.N.S.W.E.R.", "Answer"),
    ("Straße", "STRASSE"), ("Ångström", "Ångström"), ("ﬁsh", "fish"),
])
def test_near_identical_titles(one, other):
    assert title_key(one) == title_key(other)


@pytest.mark.parametrize(("one", "other"), [
    ("Albania", "Caucasian Albania"), ("Asia", "Asian"), ("Acid", "Acids"), ("C", "C++"), ("Apollo 11", "Apollo 8"),
    ("!!!", "???"), ("(I)", "(II)"), ("", "!"), ("A (b) c", "A"), ("数学", "物理"),
])
def test_other_titles(one, other):
    assert title_key(one) != title_key(other)


def test_documents_leave_with_the_titles_they_share():
    titles = ["Asia", "ASIA", "Acid (chemistry)", "Asian", "Zebra"]
    documents = Dataset.from_dict({"title": titles, "text": list("abcde")})
    kept = without_titles(documents, ["Asia", "acid", "Unknown"])
    assert (kept["title"][:], kept["text"][:]) == (["Asian", "Zebra"], ["d", "e"])
    assert without_titles(documents, [])["title"][:] == titles
    assert len(without_titles(documents, titles)) == 0
