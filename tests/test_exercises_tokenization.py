"""Checks of the exercises on tokenizers: right answers pass, each typical mistake gets its message."""

# ruff: noqa: ARG005  (an answer takes all arguments, right or wrong)

import json
from collections import Counter
from itertools import pairwise

import pytest

from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.exercises import Exercises, tokenization

COSTLY = "ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ"


def my_fertility(tokenizer, text):
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    return len(tokens) / len(text.split())


def my_pair(words):
    counts = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    return counts.most_common(1)[0][0]


def my_merge(symbols, pair):
    merged, place = [], 0
    while place < len(symbols):
        if tuple(symbols[place:place + 2]) == tuple(pair):
            merged.append(pair[0] + pair[1])
            place += 2
        else:
            merged.append(symbols[place])
            place += 1
    return merged


def my_encode(word, merges):
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    symbols = list(word)
    while known := [pair for pair in pairwise(symbols) if pair in ranks]:
        symbols = my_merge(symbols, min(known, key=ranks.get))
    return symbols


SOLUTIONS = {"costly": COSTLY, "fertility": my_fertility, "pair": my_pair, "merge": my_merge, "encode": my_encode}


@pytest.fixture
def exercises(causal_tokenizer):
    return Exercises(tokenization.EXERCISES, tokenizer=causal_tokenizer)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_solutions_are_right(exercises, name):
    assert exercises.check(name, SOLUTIONS[name]).message == "That is right."


@pytest.fixture(scope="module")
def gpt2_tokenizer():
    return load_gpt2_tokenizer()


@pytest.mark.parametrize("name", SOLUTIONS)
def test_solutions_are_right_for_the_tokenizer_of_the_notebook(gpt2_tokenizer, name):
    assert Exercises(tokenization.EXERCISES, tokenizer=gpt2_tokenizer).check(name, SOLUTIONS[name]).correct


def test_fertility_is_checked_with_a_given_tokenizer_that_adds_special_tokens(masked_tokenizer):
    exercises = Exercises(tokenization.EXERCISES, tokenizer=masked_tokenizer)
    assert exercises.check("fertility", my_fertility).correct
    assert "special tokens" in exercises.check("fertility", with_specials).message


def test_the_encoding_is_that_of_the_library(gpt2_tokenizer):
    merges = [tuple(pair) for pair in json.loads(gpt2_tokenizer.backend_tokenizer.to_str())["model"]["merges"]]
    for word in ("chocolates", "tokenization", "mississippi", "Swimming", "banana", "aaaaaaa", "unbelievably"):
        assert my_encode(word, merges) == gpt2_tokenizer.tokenize(word)


@pytest.mark.parametrize(("text", "fragment"), [
    ("ᚠᛇᚻ", "a length of 3, but at least 10"),
    (" ", "a length of 1, but"),
    ("the box at the beach is like a pool", "35 characters and takes "),
    ("ZYXWVUTSRQ", "10 characters and takes 10 tokens"),
    (None, "of type NoneType, but a string"),
    (list(COSTLY), "of type list, but a string"),
])
def test_texts_that_do_not_count_are_named(exercises, text, fragment):
    feedback = exercises.check("costly", text)
    assert not feedback.correct
    assert fragment in feedback.message


def with_specials(tokenizer, text):
    return len(tokenizer(text).input_ids) / len(text.split())


def counted(words, weigh=True, once=False):
    counts = Counter()
    for word, count in words.items():
        pairs = list(pairwise(word))
        for pair in dict.fromkeys(pairs) if once else pairs:
            counts[pair] += count if weigh else 1
    return counts


def first_only(symbols, pair):
    for place, found in enumerate(pairwise(symbols)):
        if found == pair:
            return (*symbols[:place], "".join(pair), *symbols[place + 2:])
    return symbols


def overlapping(symbols, pair):
    merged, place = [], 0
    while place < len(symbols):
        fits = tuple(symbols[place:place + 2]) == pair
        merged.append("".join(pair) if fits else symbols[place])
        place += 1
    return merged


def overlapping_pairs(symbols, pair):
    merged = ["".join(pair) if found == pair else found[0] for found in pairwise(symbols)]
    if symbols and tuple(symbols[-2:]) != pair:
        merged.append(symbols[-1])
    return merged


def any_order(symbols, pair):
    merged, place = [], 0
    while place < len(symbols):
        fits = len(symbols) > place + 1 and {*symbols[place:place + 2]} == {*pair}
        merged.append("".join(symbols[place:place + 2]) if fits else symbols[place])
        place += 1 + fits
    return merged


def by_text(symbols, pair):
    return tuple(" ".join(symbols).replace(" ".join(pair), "".join(pair)).split())


def from_the_right(symbols, pair):
    return my_merge([part[::-1] for part in symbols[::-1]], [part[::-1] for part in pair[::-1]])[::-1]


def reversed_text(symbols, pair):
    return [part[::-1] for part in from_the_right(symbols, pair)]


def leftmost_first(word, merges):
    symbols = tuple(word)
    while known := [pair for pair in pairwise(symbols) if pair in merges]:
        symbols = tuple(first_only(symbols, known[0]))
    return list(symbols)


def one_pass_of_single_merges(word, merges):
    symbols = tuple(word)
    for pair in merges:
        symbols = first_only(symbols, pair)
    return list(symbols)


def longest_match(word, merges):
    known, symbols = {"".join(pair) for pair in merges} | set(word), []
    while word:
        symbols.append(next(word[:end] for end in range(len(word), 0, -1) if word[:end] in known))
        word = word[len(symbols[-1]):]
    return symbols


def worst_first(word, merges):
    symbols = list(word)
    while known := [pair for pair in pairwise(symbols) if pair in merges]:
        symbols = my_merge(symbols, max(known, key=merges.index))
    return symbols


def best_merge_only(word, merges):
    known = [pair for pair in pairwise(word) if pair in merges]
    return my_merge(list(word), min(known, key=merges.index)) if known else list(word)


WRONG = [
    ("fertility", "special tokens", with_specials),
    ("fertility", "characters", lambda tokenizer, text: len(tokenizer.tokenize(text)) / len(text)),
    ("fertility", "upside down", lambda tokenizer, text: len(text.split()) / len(tokenizer.tokenize(text))),
    ("fertility", "each single space", lambda tokenizer, text: len(tokenizer.tokenize(text)) / len(text.split(" "))),
    ("fertility", "split alone",
     lambda tokenizer, text: sum(len(tokenizer.tokenize(word)) for word in text.split()) / len(text.split())),
    ("fertility", "number of tokens", lambda tokenizer, text: len(tokenizer.tokenize(text))),
    ("fertility", "one number is needed", lambda tokenizer, text: tokenizer.tokenize(text)),
    ("fertility", "not the fertility", lambda tokenizer, text: 1.0),
    ("pair", "how often the words occur", lambda words: counted(words, weigh=False).most_common(1)[0][0]),
    ("pair", "once per word", lambda words: counted(words, once=True).most_common(1)[0][0]),
    ("pair", "rarest", lambda words: counted(words).most_common()[-1][0]),
    ("pair", "together with its count", lambda words: counted(words).most_common(1)[0]),
    ("pair", "'ug', but a pair", lambda words: "".join(my_pair(words))),
    ("pair", "of the most frequent word", lambda words: max(words, key=words.get)[:2]),
    ("pair", "in no word", lambda words: my_pair(words)[::-1]),
    ("pair", "a pair of two symbols is needed", lambda words: 7),
    ("merge", "first occurrence", first_only),
    ("merge", "overlap", overlapping),
    ("merge", "overlap", overlapping_pairs),
    ("merge", "in either order", any_order),
    ("merge", "part of a symbol", by_text),
    ("merge", "right to left", reversed_text),
    ("merge", "nothing is merged", lambda symbols, pair: symbols),
    ("merge", "one string", lambda symbols, pair: "".join(symbols)),
    ("merge", "list of symbols is needed", lambda symbols, pair: 3),
    ("merge", "letters are lost or added", lambda symbols, pair: [symbol for symbol in symbols if symbol not in pair]),
    ("merge", "not the merged symbols", lambda symbols, pair: ["".join(symbols)]),
    ("encode", "leftmost", leftmost_first),
    ("encode", "only its first occurrence", one_pass_of_single_merges),
    ("encode", "longest", longest_match),
    ("encode", "learnt last", worst_first),
    ("encode", "after one merge", best_merge_only),
    ("encode", "single letters", lambda word, merges: list(word)),
    ("encode", "one string", lambda word, merges: " ".join(my_encode(word, merges))),
    ("encode", "letters are lost or added", lambda word, merges: [*my_encode(word, merges), "</w>"]),
    ("encode", "not the symbols of BPE", lambda word, merges: [word] if word else []),
]


@pytest.mark.parametrize(("name", "fragment", "answer"), WRONG)
def test_typical_mistakes_are_named(exercises, name, fragment, answer):
    feedback = exercises.check(name, answer)
    assert not feedback.correct
    assert fragment in feedback.message
    assert "Your code raises" not in feedback.message


def in_one_pass(word, merges):
    """For learnt merges the same: what a merge makes is only part of pairs learnt after it."""
    symbols = tuple(word)
    for pair in merges:
        symbols = tuple(my_merge(symbols, pair))
    return symbols


def test_other_correct_forms_are_right(exercises):
    assert exercises.check("pair", lambda words: list(my_pair(words))).correct
    assert exercises.check("merge", lambda *given: tuple(my_merge(*given))).correct
    assert exercises.check("encode", lambda *given: tuple(my_encode(*given))).correct
    assert exercises.check("encode", in_one_pass).correct
    assert exercises.check(
        "fertility", lambda tokenizer, text: len(tokenizer.tokenize(text)) / len(text.split())).correct


@pytest.mark.parametrize("options", [{}, {"weigh": False}, {"once": True}])
def test_neither_the_right_pair_nor_a_mistaken_one_depends_on_the_order(exercises, options):
    def first(words):
        return counted(words, **options).most_common(1)[0][0]

    def last(words):
        return max(reversed(counted(words, **options).items()), key=lambda item: item[1])[0]

    assert exercises.check("pair", first).message == exercises.check("pair", last).message.partition(" Hint:")[0]
