"""Exercises on tokenizers; they are given the notebook's ``tokenizer``, a byte-level BPE."""

# ruff: noqa: ARG005  (what stands for a mistake takes all arguments of an answer)

from __future__ import annotations

import string as alphabet
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from transformers import BertTokenizer, PreTrainedTokenizerBase

from llm_tutorial.exercises.answers import call_with, compare, number, show, string
from llm_tutorial.exercises.checking import Exercise, Fault

__all__ = ["EXERCISES"]

_SHORTEST_TEXT = 10


def _costly(answer, *, tokenizer: PreTrainedTokenizerBase, **_) -> str | None:
    text = string(answer)
    if len(text) < _SHORTEST_TEXT:
        return f"Your text has a length of {len(text)}, but at least {_SHORTEST_TEXT} characters are needed."
    tokens = len(_tokens(tokenizer, text))
    if tokens > len(text):
        return None
    return f"Your text has {len(text)} characters and takes {tokens} tokens: those are no more than its characters."


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str, special: bool = False) -> list[int]:
    return tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]


def _fertility(answer, *, tokenizer: PreTrainedTokenizerBase, **_) -> str | None:
    """Any learner's tokenizer may add no special tokens, so that a small one that does is asked too."""
    texts = ["Tokenizers split unbelievably long words.", "one  box of\nchocolates ", "beach"]
    tokenizers = (tokenizer, _tokenizer_with_specials())
    return compare(
        answer, lambda which, text: _ratio(_tokens(tokenizers[which], text), text.split()),
        [(which, text) for which in range(len(tokenizers)) for text in texts], read=lambda value: float(number(value)),
        given=lambda which, text: f"For the text {text!r} and a {type(tokenizers[which]).__name__}",
        run=lambda answer, which, text: call_with(tokenizers[which])(answer, text),
        mistakes={
            "the special tokens that this tokenizer adds are counted too":
                lambda which, text: _ratio(_tokens(tokenizers[which], text, special=True), text.split()),
            "the characters are counted, not the words":
                lambda which, text: _ratio(_tokens(tokenizers[which], text), text),
            "the fraction stands upside down":
                lambda which, text: _ratio(text.split(), _tokens(tokenizers[which], text)),
            "the text is cut at each single space, but words may stand further apart or on two lines":
                lambda which, text: _ratio(_tokens(tokenizers[which], text), text.split(" ")),
            "each word is split alone, without the space before it, which changes its tokens":
                lambda which, text: sum(len(_tokens(tokenizers[which], word)) for word in text.split())
                / len(text.split()),
            "that is the number of tokens alone": lambda which, text: float(len(_tokens(tokenizers[which], text))),
        },
        otherwise=lambda *_: "that is not the fertility")


def _ratio(above: Sequence, below: Sequence) -> float:
    return len(above) / len(below)


@cache
def _tokenizer_with_specials() -> BertTokenizer:
    letters = alphabet.ascii_lowercase + alphabet.punctuation
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "box", *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(vocab={entry: index for index, entry in enumerate(entries)})


def _pair(answer, **_) -> str | None:
    """There are no ties, and another pair is the most frequent one if counts or repetitions are ignored."""
    cases = [({tuple(word): count for word, count in words.items()},) for words in (
        {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5},
        {"banana": 5, "ban": 3, "bat": 4, "cat": 1, "can": 1},
        {"low": 20, "ow": 3, "bed": 1, "red": 1, "fed": 1, "wed": 2, "x": 9},
    )]
    return compare(
        answer, _most_frequent, cases, read=_two_symbols,
        given=lambda words: f"For {({' '.join(word): count for word, count in words.items()})}",
        mistakes=_PAIR_MISTAKES, otherwise=_no_pair)


def _pair_counts(words: dict, weigh: bool = True, once: bool = False) -> Counter:
    counts: Counter = Counter()
    for word, count in words.items():
        pairs = list(pairwise(word))
        for pair in dict.fromkeys(pairs) if once else pairs:
            counts[pair] += count if weigh else 1
    return counts


def _most_frequent(words: dict, **options) -> tuple[str, str]:
    return _pair_counts(words, **options).most_common(1)[0][0]


def _two_symbols(value: Any) -> tuple[str, str]:
    if isinstance(value, tuple | list) and len(value) == 2:
        if isinstance(value[0], tuple | list) and isinstance(value[1], int):
            raise Fault(f"Your function returns {show(value)}: that is a pair together with its count.")
        if all(isinstance(part, str) for part in value):
            return tuple(value)
    raise Fault(f"Your function returns {show(value)}, but a pair of two symbols is needed.")


_PAIR_MISTAKES = {
    "that pair is the most frequent one only if it does not matter how often the words occur":
        lambda words: _most_frequent(words, weigh=False),
    "each pair is counted once per word, even where it occurs twice": lambda words: _most_frequent(words, once=True),
    "those are the first two symbols of the most frequent word":
        lambda words: max((word for word in words if len(word) > 1), key=words.get)[:2],
}


def _no_pair(found: tuple[str, str], words: dict) -> str:
    counts = _pair_counts(words)
    if found not in counts:
        return "in no word they are neighbours in this order"
    rarest = counts[found] == min(counts.values())
    return f"that pair occurs {counts[found]} times, {'as the rarest one' if rarest else 'and another one more often'}"


def _merge(answer, **_) -> str | None:
    cases = [(tuple(symbols.split()), tuple(pair.split())) for symbols, pair in (
        ("a b c a b", "a b"),
        ("a a a b a a a a", "a a"),
        ("b a b a", "a b"),
        ("ab c b c b cd", "b c"),
        ("lo w e r lo w", "lo w"),
        ("x y z", "a b"),
        ("x", "x y"),
        ("", "a b"),
    )]
    return compare(
        answer, _merged, cases, read=_symbols, given=lambda symbols, pair: f"For {symbols} and the pair {pair}",
        mistakes=_MERGE_MISTAKES, otherwise=_no_merge)


def _merged(symbols: Sequence[str], pair: tuple[str, str], once: bool = False, step: int = 2,
            ordered: bool = True) -> tuple[str, ...]:
    merged: list[str] = []
    place = count = 0
    while place < len(symbols):
        here = tuple(symbols[place:place + 2])
        fits = (here == pair or (not ordered and here == pair[::-1])) and not (once and count)
        merged.append("".join(here) if fits else symbols[place])
        place += step if fits else 1
        count += fits
    return tuple(merged)


def _symbols(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise Fault(f"Your function returns {show(value)}: that is one string, which hides where a symbol ends.")
    if not isinstance(value, tuple | list) or not all(isinstance(symbol, str) for symbol in value):
        raise Fault(f"Your function returns {show(value)}, but a list of symbols is needed.")
    return tuple(value)


def _overlapping(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Of each occurrence one symbol is left out, even if it is the first of the next occurrence."""
    rest = () if symbols[-2:] == pair else symbols[-1:]
    return tuple("".join(pair) if two == pair else two[0] for two in pairwise(symbols)) + rest


def _from_the_right(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The same of everything written backwards, back again."""
    backwards = _merged([symbol[::-1] for symbol in symbols[::-1]], tuple(part[::-1] for part in pair[::-1]))
    return tuple(symbol[::-1] for symbol in backwards[::-1])


_MERGE_MISTAKES: dict[str, Callable] = {
    "only the first occurrence is merged": lambda *given: _merged(*given, once=True),
    "merges overlap: the second symbol of a merged pair is used once more": lambda *given: _merged(*given, step=1),
    "merges overlap: a symbol takes part in two of them": _overlapping,
    "the two are merged in either order": lambda *given: _merged(*given, ordered=False),
    "a part of a symbol is merged, though only whole symbols are equal to those of the pair":
        lambda symbols, pair: tuple(" ".join(symbols).replace(" ".join(pair), "".join(pair)).split()),
    "it is merged from right to left": _from_the_right,
    "nothing is merged": lambda symbols, _: symbols,
}


def _no_merge(found: tuple[str, ...], symbols: tuple[str, ...], _) -> str:
    if "".join(found) != "".join(symbols):
        return "letters are lost or added"
    return "these are not the merged symbols"


def _encode(answer, **_) -> str | None:
    """The merges are such as training gives: each symbol is made before it takes part in a pair.

    For such merges one pass over all pairs by rank, which merges all occurrences of each, gives the same symbols, and
    so is right too: what a merge makes is only part of pairs of higher rank.
    """
    lists = {
        "chain": [("b", "c"), ("a", "b"), ("c", "d"), ("a", "bc"), ("ab", "cd")],
        "words": [("e", "s"), ("es", "t"), ("l", "o"), ("lo", "w"), ("n", "e"), ("ne", "w"), ("i", "n"), ("in", "g"),
                  ("w", "e"), ("o", "w")],
        "repeats": [("a", "n"), ("b", "an"), ("an", "an"), ("n", "a"), ("a", "a"), ("aa", "aa")],
    }
    words = [("chain", "abcd"), ("chain", "abc"), ("chain", "cdab"), ("chain", "xyz"), ("chain", ""), ("chain", "a"),
             ("words", "newest"), ("words", "lowest"), ("words", "lowing"), ("repeats", "banana"),
             ("repeats", "aaaaaaa"), ("repeats", "ananas")]
    cases = [(word, lists[name]) for name, word in words] + [("abc", [])]
    return compare(
        answer, _encoded, cases, read=_symbols, mistakes=_ENCODE_MISTAKES, otherwise=_no_encoding,
        given=lambda word, merges: f"For {word!r} and the merges {', '.join(map(' '.join, merges)) or '(none)'}")


def _encoded(word: str, merges: list, choose: Callable = min, rounds: int | None = None) -> tuple[str, ...]:
    """BPE; ``choose`` takes the next pair from the known ones, which stand in their order in the word."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    symbols = tuple(word)
    while rounds != 0 and (known := [pair for pair in pairwise(symbols) if pair in ranks]):
        symbols = _merged(symbols, choose(known, key=ranks.get))
        rounds = None if rounds is None else rounds - 1
    return symbols


def _leftmost(word: str, merges: list) -> tuple[str, ...]:
    symbols = tuple(word)
    while known := [pair for pair in pairwise(symbols) if pair in merges]:
        symbols = _merged(symbols, known[0], once=True)
    return symbols


def _single_merges(word: str, merges: list) -> tuple[str, ...]:
    symbols = tuple(word)
    for pair in merges:
        symbols = _merged(symbols, pair, once=True)
    return symbols


def _longest(word: str, merges: list) -> tuple[str, ...]:
    known, symbols = {"".join(pair) for pair in merges}, []
    while word:
        symbols.append(next((word[:end] for end in range(len(word), 1, -1) if word[:end] in known), word[0]))
        word = word[len(symbols[-1]):]
    return tuple(symbols)


_ENCODE_MISTAKES: dict[str, Callable] = {
    "the leftmost known pair is merged first, whatever its rank": _leftmost,
    "the leftmost known pair is merged first, wherever it occurs, whatever its rank":
        lambda *given: _encoded(*given, choose=lambda known, key: known[0]),
    "each pair gets one turn, and only its first occurrence is merged": _single_merges,
    "the longest known symbol is cut off each time, but BPE does not look for it": _longest,
    "pairs learnt last are merged first": lambda *given: _encoded(*given, choose=max),
    "it stops after one merge, though known pairs are left": lambda *given: _encoded(*given, rounds=1),
    "those are still single letters": lambda word, _: tuple(word),
}


def _no_encoding(found: tuple[str, ...], word: str, merges: list) -> str:
    if "".join(found) != word:
        return "letters are lost or added"
    left = next((pair for pair in pairwise(found) if pair in merges), None)
    return f"the known pair {left} is left" if left else "these are not the symbols of BPE"


EXERCISES = {
    "costly": Exercise(
        _costly,
        "Tokens are made of bytes, and pairs of them were merged where they are frequent: which writing was rare "
        "in the training text?"),
    "fertility": Exercise(
        _fertility,
        "Try a text of one word, and a tokenizer such as BERT's, and look at the tokens themselves before you "
        "count them."),
    "pair": Exercise(
        _pair,
        "Go through the neighbours in every word and keep a tally, in which a frequent word weighs more."),
    "merge": Exercise(
        _merge,
        "Go through the places from the left: how far do you move on after a merge, and how far otherwise?"),
    "encode": Exercise(
        _encode,
        "After each merge there are new neighbours: look at all of them again, and ask the list of merges which "
        "pair comes first."),
}
