"""Exercises on tokenizers; they are given the notebook's ``tokenizer``, a byte-level BPE."""

from __future__ import annotations

import inspect
import random
import string as alphabet
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache, partial
from io import BytesIO
from itertools import pairwise
from typing import Any

from transformers import BertTokenizer, PreTrainedTokenizerBase

from llm_tutorial.exercises.answers import call_with, compare, number, show, string
from llm_tutorial.exercises.checking import Exercise, Fault, call

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


_UNKNOWN = ("[UNK]",)


def _fewest(answer, **_) -> str | None:
    return compare(
        answer, _shortest, _fewest_cases(), read=lambda cut: cut, run=_run_fewest, given=_given_word,
        mistakes={clause: partial(_accepted, mistake) for clause, mistake in _FEWEST_MISTAKES.items()},
        otherwise=_no_fewest)


def _given_word(word: str, known: Iterable[str]) -> str:
    return f"For {word!r} and the pieces {', '.join(known)}"


@cache
def _fewest_cases() -> list[tuple[str, tuple[str, ...]]]:
    """Words with the known pieces: some by hand, some drawn, and a long one that has no cut but thousands of starts."""
    cases = [tuple(case.split(": ")) for case in (
        "lowest: est low lowe west", "newest: e est new newe s t w", "slow: er low lower", "lower: er low lower",
        "slower: er lower ow s sl", "banana: a an ba n na", f"{'a' * 18}b: a aa")]
    drawn = random.Random(0)
    for _ in range(100):
        known = ["".join(drawn.choices("ab", k=drawn.randint(1, 5))) for _ in range(7)]
        cases.insert(-1, ("".join(drawn.choices(known, k=4))[:drawn.randint(4, 10)], " ".join(known)))
    return [(word, tuple(sorted({*known.split()}))) for word, known in cases]


class _Known(set):
    """Known pieces that break off an answer that asks for them again and again, and might never return."""

    fault, asked = "", 0

    def __contains__(self, piece: object) -> bool:
        self.asked += 1
        if self.asked > 15_000:
            raise Fault(self.fault)
        return super().__contains__(piece)

    def __iter__(self) -> Iterator[str]:
        return filter(self.__contains__, super().__iter__())


def _run_fewest(answer: Callable, word: str, pieces: tuple[str, ...]) -> tuple[str, ...]:
    known = _Known(pieces)
    known.fault = f"{_given_word(word, pieces)} your function " + (
        "does not seem to come to an end." if len(word) < 12 else "goes through far too many cuts, by the thousand.")

    def cut() -> Any:
        found = answer(word, known)
        if found is None and _shortest(word, pieces) == _UNKNOWN:
            raise Fault(f"For {word!r}, which has no cut, your function returns None, but a list is needed.")
        return found

    found = _accepted(lambda *_: _strings(call(cut)), word, pieces)
    if known != set(pieces):
        raise Fault("Your function changes known itself, which its caller may still need.")
    return found


def _accepted(function: Callable, word: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the function's cut, or the one that stands for all the shortest ones."""
    found, best = function(word, known), _shortest(word, known)
    as_good = len(found) == len(best) and "".join(found) == word and set(found) <= set(known)
    return best if as_good else found


def _strings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise Fault(f"Your function returns {show(value)}: that is one string, which hides where a piece ends.")
    if not isinstance(value, tuple | list) or not all(isinstance(piece, str) for piece in value):
        raise Fault(f"Your function returns {show(value)}, but a list of pieces is needed.")
    return tuple(value)


def _cut(choose: Callable, word: str, known: Collection[str]) -> tuple[str, ...]:
    """Cut the word; ``choose`` takes one cut for each rest of it, out of those whose first pieces differ."""
    cuts = {len(word): ()}
    for start in reversed(range(len(word))):
        ends = [end for end in range(start + 1, len(word) + 1) if end in cuts and word[start:end] in known]
        if ends:
            cuts[start] = choose([(word[start:end], *cuts[end]) for end in ends])
    return cuts.get(0, _UNKNOWN)


_shortest = partial(_cut, partial(min, key=len))


def _greedy(word: str, known: Collection[str]) -> tuple[str, ...]:
    if not word:
        return ()
    end = next((end for end in range(len(word), 0, -1) if word[:end] in known), None)
    rest = _UNKNOWN if end is None else _greedy(word[end:], known)
    return rest if rest == _UNKNOWN else (word[:end], *rest)


_FEWEST_MISTAKES: dict[str, Callable] = {
    "the longest piece is taken each time, whatever that leaves for the rest": _greedy,
    "of all cuts the one with the longest first piece is taken, whatever the number of its pieces":
        partial(_cut, lambda cuts: cuts[-1]),
    "of all cuts the one with the shortest first piece is taken, whatever the number of its pieces":
        partial(_cut, lambda cuts: cuts[0]),
    "that is a cut into as many pieces as possible": partial(_cut, partial(max, key=len)),
    "those are the single letters, whether they are known or not": lambda word, _: tuple(word),
}


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
    used = [getattr(answer, "__self__", None)]
    if inspect.isfunction(answer):
        names = inspect.getclosurevars(answer)
        used += [*names.globals.values(), *names.nonlocals.values()]
    if any(isinstance(value, PreTrainedTokenizerBase) for value in used):
        return "Your function uses a tokenizer, but the pieces alone have to be enough."
    return compare(
        answer, lambda text, _: text,
        [(text, tokenizer.convert_ids_to_tokens(_tokens(tokenizer, text))) for text in _TEXTS],
        given=lambda _, pieces: f"For the pieces {pieces[:12]}{' and so on,' if len(pieces) > 12 else ''}",
        read=_one_text, run=lambda answer, _, pieces: call(answer, pieces), mistakes=_TEXT_MISTAKES, otherwise=_no_text)


def _one_text(value: Any) -> str:
    if not isinstance(value, str):
        raise Fault(f"Your function returns {show(value)}, but one text is needed.")
    return value


def _alone(text: str, pieces: list[str], errors: str) -> str:
    """Decode the bytes of each piece by themselves; it has as many as characters."""
    encoded = BytesIO(text.encode())
    return "".join(encoded.read(len(piece)).decode(errors=errors) for piece in pieces)


_TEXT_MISTAKES: dict[str, Callable] = {
    "nothing is turned back": lambda _, pieces: "".join(pieces),
    "only the spaces are turned back": lambda _, pieces: "".join(pieces).replace("Ġ", " "),
    "only spaces and line ends are turned back":
        lambda _, pieces: "".join(pieces).replace("Ġ", " ").replace("Ċ", "\n"),
    "each piece is decoded alone, wherever the characters of the text end": partial(_alone, errors="replace"),
    "each piece is decoded alone, and what is no whole character is lost": partial(_alone, errors="ignore"),
    "the bytes are right, but they are read as one character each":
        lambda text, _: text.encode().decode("latin-1"),
    "256 is taken from every character beyond 255, which is right for the first 33 of them alone":
        lambda _, pieces: bytes(ord(character) % 256 for character in "".join(pieces)).decode(errors="replace"),
}


def _no_text(found: str, text: str, _) -> str:
    if "\ufffd" in found:
        return "the text holds \ufffd, which stands for bytes that are no UTF-8"
    if found.split() == text.split():
        return "the words are right, but the white space is not that of the text"
    right = next((place for place in range(len(text), 0, -1) if found.startswith(text[:place])), 0)
    return f"it is right up to character {right} and no further" if right else "even its first character is wrong"


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
    "fewest": Exercise(
        _fewest,
        "Suppose you knew the shortest cut of every shorter beginning of the word: what would be left to choose?"),
    "text_back": Exercise(
        _text_back,
        "Which byte does each character stand for, and how many such characters are there? And does a character of "
        "the text always end where a piece ends?"),
}
