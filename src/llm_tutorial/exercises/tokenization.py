"""Exercises on tokenizers; they are given the notebook's ``tokenizer``, a byte-level BPE."""

from __future__ import annotations

import string as alphabet
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache, wraps
from io import BytesIO
from itertools import pairwise
from typing import Any
from unittest.mock import patch

from transformers import BertTokenizer, PreTrainedTokenizerBase

from llm_tutorial.exercises.answers import by_cases, compare, real, show, string
from llm_tutorial.exercises.checking import Exercise, Fault, require_function

__all__ = ["EXERCISES"]


def _costly(answer, *, tokenizer: PreTrainedTokenizerBase, **_) -> str | None:
    text = string(answer)
    if len(text) < 10:
        return f"Your text has a length of {len(text)}, but at least 10 characters are needed."
    tokens = _count(tokenizer, text)
    if tokens > len(text):
        return None
    return f"Your text has {len(text)} characters and only {tokens} tokens, but more tokens than characters are needed."


def _count(tokenizer: PreTrainedTokenizerBase, text: str, special: bool = False) -> int:
    return len(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])


def _fertility(answer, *, tokenizer: PreTrainedTokenizerBase, **_) -> str | None:
    """The learner's tokenizer may add no special tokens, so that a small one that does is asked too."""
    texts = ["Tokenizers split unbelievably long words.", "one  box of\nchocolates ", "It's an e-mail."]
    return compare(
        answer, lambda tokenizer, text: _count(tokenizer, text) / len(text.split()), "tokenizer text",
        [(which, text) for which in (tokenizer, _tokenizer_with_specials()) for text in texts],
        read=real, otherwise="that is not the fertility", mistakes={
            "the special tokens that this tokenizer adds are counted too":
                lambda tokenizer, text: _count(tokenizer, text, special=True) / len(text.split()),
            "the characters are counted, not the words": lambda tokenizer, text: _count(tokenizer, text) / len(text),
            "the fraction is upside down": lambda tokenizer, text: len(text.split()) / _count(tokenizer, text),
            "the text is cut at each single space, but there may be more spaces or a line end between two words":
                lambda tokenizer, text: _count(tokenizer, text) / len(text.split(" ")),
            "each word is split alone, without the space before it, which changes its tokens":
                lambda tokenizer, text: sum(_count(tokenizer, word) for word in text.split()) / len(text.split()),
        })


@cache
def _tokenizer_with_specials() -> BertTokenizer:
    letters = alphabet.ascii_lowercase + alphabet.punctuation
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "box", *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(vocab={entry: index for index, entry in enumerate(entries)})


# Without ties. Each exposes a mistake: to ignore the counts, the repetitions, the first pair of a word, or symbols of
# several letters, or to take the last and the first symbol for a pair.
_WORDS = [{tuple(word.split()): count for word, count in words.items()} for words in (
    {"h u g": 10, "p u g": 5, "p u n": 12, "b u n": 4, "h u g s": 5},
    {"b a n a n a": 5, "b a n": 3, "b a t": 4, "c a t": 1, "c a n": 1},
    {"l o w": 20, "o w": 3, "b e d": 1, "r e d": 1, "f e d": 1, "w e d": 2, "x": 50},
    {"a b": 9, "x c d": 2, "c d": 1},
    {"lo w": 6, "lo w er": 3, "n e w er": 4, "w er": 1, "w i d er": 4},
)]


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
            return tuple(map(str, value))
    raise Fault(f"Your function returns {show(value)}, but a pair of two symbols is needed.")


def _no_pair(found: tuple[str, str], words: dict) -> str:
    counts = _pair_counts(words)
    if found not in counts:
        return "in no word are they neighbors in this order"
    return f"that pair occurs {counts[found]} times, but another one occurs {max(counts.values())} times"


_UNKNOWN = ("[UNK]",)


def _fewest(answer, **_) -> str | None:
    require_function(answer)

    @wraps(answer)
    def limited(word: str, pieces: tuple[str, ...]) -> Any:
        known = _Known(pieces)
        cut = answer(word, known)
        if known != set(pieces):
            raise Fault("changes known itself, which its caller may still need.")
        return _accepted(cut, word, pieces)

    return compare(
        limited, _shortest, "word known", _FEWEST_CASES, read=_strings, otherwise=_no_fewest, mistakes={
            "the longest piece is taken each time, whatever that leaves for the rest":
                lambda word, known: _accepted(_greedy(word, known), word, known),
        })


# The last word has no cut, but thousands of beginnings that have one.
_FEWEST_CASES = [(word, tuple(known.split())) for word, known in (case.split(": ") for case in (
    "lowest: est low lowe west", "newest: e est new newe s t w", "slow: er low lower", "lower: er low lower",
    "slower: er lower ow s sl", "banana: a an ba n na", "abab: a ab aba b bab", "abcdefg: a b c d e f g",
    "aabbaab: aa aab b bb bba", "unlocked: ed k loc lock locked u un unl", f"{'a' * 18}b: a aa"))]


class _Known(set):
    """Known pieces that break off an answer that asks for them again and again, and might never return."""

    asked = 0

    def __contains__(self, piece: object) -> bool:
        self.asked += 1
        if self.asked > 15_000:
            raise Fault("looks up more than 15,000 pieces: it tries far too many cuts, or never ends.")
        return super().__contains__(piece)

    def __iter__(self) -> Iterator[str]:
        return filter(self.__contains__, super().__iter__())


def _accepted(cut: Any, word: str, known: tuple[str, ...]) -> Any:
    """Return the cut, or the one that stands for all the shortest ones."""
    best = _shortest(word, known)
    as_good = (isinstance(cut, list | tuple) and len(cut) == len(best) and all(piece in known for piece in cut)
               and "".join(cut) == word)
    return best if as_good else cut


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, tuple | list) or not all(isinstance(piece, str) for piece in value):
        raise Fault(f"Your function returns {show(value)}, but a list of pieces is needed.")
    return tuple(value)


def _shortest(word: str, known: Collection[str]) -> tuple[str, ...]:
    cuts = {0: ()}
    for end in range(1, len(word) + 1):
        new = [(*cuts[start], word[start:end]) for start in cuts if word[start:end] in known]
        if new:
            cuts[end] = min(new, key=len)
    return cuts.get(len(word), _UNKNOWN)


def _greedy(word: str, known: Collection[str]) -> tuple[str, ...]:
    if not word:
        return ()
    end = next((end for end in range(len(word), 0, -1) if word[:end] in known), None)
    rest = _UNKNOWN if end is None else _greedy(word[end:], known)
    return rest if rest == _UNKNOWN else (word[:end], *rest)


def _no_fewest(found: tuple[str, ...], word: str, known: tuple[str, ...]) -> str:
    if found == _UNKNOWN:
        return "there is a cut, so the word is not unknown"
    if strange := [piece for piece in found if piece not in known]:
        return f"{strange[0]!r} is not one of the known pieces"
    if "".join(found) != word:
        return f"joined, these pieces give {''.join(found)!r}"
    return "the word can be cut into fewer pieces"


# Together they hold all bytes that one can be wrong about: those of ASCII, and those that continue a character.
_TEXTS = (
    "To be, or not to be?", " Die Straße führt zum Äquator. ", "aquí: 50 €", "语言模型很有趣。中文",
    "Well done 👩‍🚀🎉!", "for i in range(10):\n    print(i)\n", "\tone\r\n\r\n  two", "".join(map(chr, range(0x180))),
)


def _text_back(answer, *, tokenizer: PreTrainedTokenizerBase, **_) -> str | None:
    """The methods that would give the text back refuse meanwhile, wherever the answer has the tokenizer from."""
    def refuse(*_, **__) -> None:
        raise Fault("uses a tokenizer, but the pieces alone have to be enough.")

    if isinstance(getattr(answer, "__self__", None), PreTrainedTokenizerBase):
        return "Your function uses a tokenizer, but the pieces alone have to be enough."
    texts = {tuple(tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])): text
             for text in _TEXTS}
    methods = ("convert_tokens_to_string", "convert_tokens_to_ids", "decode")
    with patch.multiple(type(tokenizer), **dict.fromkeys(methods, refuse)):
        return compare(
            answer, lambda pieces: texts[tuple(pieces)], "pieces", [([*pieces],) for pieces in texts],
            read=lambda value: string(value, "What your function returns"),
            otherwise=lambda found, pieces: _no_text(found, texts[tuple(pieces)]), mistakes={
                "nothing is turned back": "".join,
                "only the spaces are turned back": lambda pieces: "".join(pieces).replace("Ġ", " "),
                "each piece is decoded alone, wherever the characters of the text end":
                    lambda pieces: _alone(texts[tuple(pieces)], pieces),
                "the bytes are right, but they are read as one character each":
                    lambda pieces: texts[tuple(pieces)].encode().decode("latin-1"),
                "256 is subtracted from every character beyond 255, which is right only for the first 33 of them":
                    lambda pieces: bytes(ord(letter) % 256 for letter in "".join(pieces)).decode(errors="replace"),
            })


def _alone(text: str, pieces: list[str]) -> str:
    """Decode the bytes of each piece by themselves; it has as many as characters."""
    encoded = BytesIO(text.encode())
    return "".join(encoded.read(len(piece)).decode(errors="replace") for piece in pieces)


def _no_text(found: str, text: str) -> str:
    if "\ufffd" in found:
        return "the text holds \ufffd, which stands for bytes that are no UTF-8"
    if found.split() == text.split():
        return "the words are right, but the whitespace differs from that of the text"
    right = max(place for place in range(len(text) + 1) if found.startswith(text[:place]))
    return f"it is right up to character {right} and no further"


EXERCISES = {
    "costly": Exercise(
        _costly,
        "Tokens are made of bytes, and frequent pairs of them were merged: which writing was rare in the training "
        "text?"),
    "fertility": Exercise(
        _fertility,
        "Try a text of one word, and a tokenizer such as BERT's, and look at the tokens themselves before you "
        "count them."),
    "pair": by_cases(
        "Go through the neighbors in every word and keep a tally, in which a frequent word weighs more.",
        _most_frequent, "words", [(words,) for words in _WORDS], read=_two_symbols, otherwise=_no_pair, mistakes={
            "that pair is the most frequent one only if it does not matter how often the words occur":
                lambda words: _most_frequent(words, weigh=False),
            "each pair is counted once per word, even where it occurs twice":
                lambda words: _most_frequent(words, once=True),
            "those are the first two symbols of the most frequent word":
                lambda words: max((word for word in words if len(word) > 1), key=words.get)[:2],
        }),
    "fewest": Exercise(
        _fewest,
        "Suppose you knew the shortest cut of every shorter beginning of the word: what would be left to choose?"),
    "text_back": Exercise(
        _text_back,
        "Which byte does each character stand for, and how many such characters are there? And does a character of "
        "the text always end where a piece ends?"),
}
