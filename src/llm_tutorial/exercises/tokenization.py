"""Exercises on tokenizers; two of them need a byte-level BPE, which the notebook gives as ``tokenizer``."""

from __future__ import annotations

import string as alphabet
from collections import Counter
from collections.abc import Collection
from functools import cache, partial
from itertools import pairwise
from typing import Any

from transformers import BertTokenizer, PreTrainedTokenizerBase

from llm_tutorial.exercises.answers import by_cases, compare, items, real, show, string, whole
from llm_tutorial.exercises.checking import Exercise, Fault

__all__ = ["EXERCISES"]


def _pairs(word: str) -> list[str]:
    return list(map("".join, pairwise(word)))


def _joined(value: Any) -> list[str]:
    """Pairs as strings, be they strings, tuples or lists."""
    return ["".join(map(str, pair)) if isinstance(pair, tuple | list) else str(pair) for pair in items(value, "pairs")]


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


def _fertility(answer, *, tokenizer: PreTrainedTokenizerBase, **_) -> Fault | None:
    """The given tokenizer may add no special tokens, so that a small one that does is asked too."""
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


def _no_pair(found: tuple[str, str], words: dict) -> str:
    counts = _pair_counts(words)
    if found not in counts:
        return "in no word are they neighbors in this order"
    return f"that pair occurs {counts[found]} times, but another one occurs {max(counts.values())} times"


# Each word has one shortest cut; the last one has none, and more beginnings with a cut than can be tried.
_FEWEST = [(word, set(known.split())) for word, known in (case.split(": ") for case in (
    "lowest: est low lowe west", "newest: e est new newe s t w", "slow: er low lower", "lower: er low lower",
    "slower: er lower ow s sl", "banana: a an ba n na", "abcdefg: a b c d e f g", "aabbaab: aa aab b bba",
    "unlocked: ed k loc lock locked u un unl", f"{'a' * 50}b: a aa"))]


def _shortest(word: str, known: Collection[str]) -> list[str]:
    cuts: dict[int, list[str]] = {0: []}
    for end in range(1, len(word) + 1):
        new = [[*cuts[start], word[start:end]] for start in cuts if word[start:end] in known]
        if new:
            cuts[end] = min(new, key=len)
    return cuts.get(len(word), ["[UNK]"])


def _greedy(word: str, known: Collection[str]) -> list[str]:
    if not word:
        return []
    head = next((word[:end] for end in range(len(word), 0, -1) if word[:end] in known), None)
    rest = _greedy(word[len(head):], known) if head else ["[UNK]"]
    return rest if rest == ["[UNK]"] else [head, *rest]


def _no_fewest(found: list[str], word: str, known: Collection[str]) -> str:
    if found == ["[UNK]"]:
        return "there is a cut, so the word is not unknown"
    if strange := [piece for piece in found if piece not in known]:
        return f"{strange[0]!r} is not one of the known pieces"
    if "".join(found) != word:
        return f"joined, these pieces give {''.join(found)!r}"
    return "the word can be cut into fewer pieces"


_ITSELF = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES = dict(zip(map(chr, (*_ITSELF, *range(256, 324))), (*_ITSELF, *sorted({*range(256)} - {*_ITSELF})), strict=True))


def _pieces(data: bytes, size: int = 3) -> list[str]:
    """The bytes as GPT-2 writes them, cut without regard to words and characters."""
    letters = sorted(_BYTES, key=_BYTES.get)
    return ["".join(letters[byte] for byte in data[at:at + size]) for at in range(0, len(data), size)]


def _all_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray):
        raise Fault(f"Your function returns {show(value)}, but bytes are needed: a piece may end inside a character.")
    return bytes(value)


def _no_bytes(found: bytes, _: list[str]) -> str:
    replaced = "it holds the bytes of \ufffd, which stands for an incomplete character"
    return replaced if "\ufffd".encode() in found else "those are not the bytes"


def _bytes_back(pieces: list[str], byte=_BYTES.get) -> bytes:
    return bytes(byte(letter) for piece in pieces for letter in piece)


EXERCISES = {
    "utf8": by_cases(
        ("A string has a method that turns it into bytes.",
         "In Python, a string has the method encode, whose result is in UTF-8.",
         "Encode the character and take the length of the result."),
        lambda character: len(character.encode()), "character", [("a",), ("é",), ("€",), ("🦜",)],
        minutes=2, difficulty=1, read=whole, otherwise="that is not the number of bytes", mistakes={
            "that is its number in Unicode, not its bytes": ord,
            "characters are counted, not bytes": len,
        }),
    "neighbors": by_cases(
        ("Each letter but the last one begins a pair.",
         "The word has one pair less than letters, and pairs may overlap.",
         "Pair the word with itself without the first letter, or import pairwise from itertools."),
        _pairs, "word", [("banana",), ("low",), ("a",)],
        minutes=3, difficulty=1, read=_joined, otherwise="those are not the pairs of neighbors", mistakes={
            "the pairs do not overlap": lambda word: _pairs(word)[::2],
            "each pair is there once, even where it occurs twice": lambda word: list(dict.fromkeys(_pairs(word))),
        }),
    "costly": Exercise(
        _costly,
        ("Tokens are made of bytes, and frequent pairs of them were merged: which writing was rare in the training "
         "text?",
         "A character takes up to four bytes. Only where nothing was merged is each byte a token.",
         "Try emoji, or letters that only scholars write, such as runes or hieroglyphs."), minutes=3, difficulty=1),
    "fertility": Exercise(
        _fertility,
        ("Try a text of one word, and look at the tokens themselves before you count them.",
         "BERT's tokenizer adds [CLS] and [SEP]; an argument of the call switches them off.",
         "Divide the number of ids without special tokens by the number of words that split gives if it gets no "
         "argument."), minutes=8, difficulty=2),
    "pair": by_cases(
        ("Go through the neighbors in every word and keep a tally, in which a frequent word weighs more.",
         "A pair that occurs twice in a word that occurs five times counts ten times.",
         "Add the count of the word to the tally for each of its pairs, and return the pair with the highest number."),
        _most_frequent, "words", [(words,) for words in _WORDS], minutes=8, difficulty=2,
        read=lambda value: tuple(map(str, items(value, "two symbols"))), otherwise=_no_pair, mistakes={
            "that is a pair together with its count":
                lambda words: tuple(map(str, _pair_counts(words).most_common(1)[0])),
            "that pair is the most frequent one only if it does not matter how often the words occur":
                partial(_most_frequent, weigh=False),
            "each pair is counted once per word, even where it occurs twice": partial(_most_frequent, once=True),
        }),
    "fewest": by_cases(
        ("Suppose you knew the shortest cut of every shorter beginning of the word: what would be left to choose?",
         "Only the last piece. Its start is the end of a beginning that has a cut.",
         "Go from short beginnings to long ones and store the best cut of each. For each end, try every start whose "
         "piece is known, and keep the one with the fewest pieces."),
        _shortest, "word known", _FEWEST, minutes=20, difficulty=3,
        read=lambda value: list(map(str, items(value, "pieces"))), otherwise=_no_fewest, mistakes={
            "the longest piece is taken each time, whatever that leaves for the rest": _greedy,
        }),
    "bytes_back": by_cases(
        ("Make a dictionary from each of the 256 characters to its byte.",
         "188 characters stand for the byte with their own number. The space is the byte 32: which of the 68 others is "
         "it, counted from 0?",
         "List the bytes that are not in the three ranges in order: the first one is written as character 256, the "
         "next one as 257, and so on."),
        _bytes_back, "pieces",
        [(_pieces("Die Straße ".encode()),), (_pieces(bytes(range(256)), 64),), (_pieces("語🦜".encode()[:-2]),)],
        minutes=15, difficulty=3, read=_all_bytes, otherwise=_no_bytes, mistakes={
            "nothing is turned back": lambda pieces: "".join(pieces).encode(),
            "only the spaces are turned back": lambda pieces: "".join(pieces).replace("Ġ", " ").encode(),
            "256 is subtracted from every character beyond 255, which is right only for the first 33 of them":
                partial(_bytes_back, byte=lambda letter: ord(letter) % 256),
        }),
}
