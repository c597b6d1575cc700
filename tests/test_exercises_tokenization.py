"""Checks of the exercises on tokenizers: right answers pass, each typical mistake gets its message."""

# ruff: noqa: ARG005  (an answer takes all arguments, right or wrong)

from collections import Counter
from functools import cache
from itertools import combinations, pairwise

import pytest
from exercise_feedback import assert_named

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


def my_fewest(word, known):
    best = {0: []}
    for end in range(1, len(word) + 1):
        cuts = [[*best[start], word[start:end]] for start in best if word[start:end] in known]
        if cuts:
            best[end] = min(cuts, key=len)
    return best.get(len(word), ["[UNK]"])


def byte_table():
    """The byte that each character of GPT-2's pieces stands for."""
    itself = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in itself]
    return {chr(byte): byte for byte in itself} | {chr(256 + place): byte for place, byte in enumerate(others)}


def bytes_back(pieces):
    table = byte_table()
    return bytes(table[character] for piece in pieces for character in piece)


def my_text_back(pieces):
    return bytes_back(pieces).decode()


SOLUTIONS = {"costly": COSTLY, "fertility": my_fertility, "pair": my_pair, "fewest": my_fewest,
             "text_back": my_text_back}


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


def all_ways(word, known):
    for cuts in range(len(word)):
        for places in combinations(range(1, len(word)), cuts):
            cut = [word[start:end] for start, end in pairwise((0, *places, len(word)))]
            if all(piece in known for piece in cut):
                yield cut


def test_the_fewest_pieces_are_those_of_an_exhaustive_search_and_all_kinds_of_words_occur():
    kinds = Counter()
    for word, known in tokenization._fewest_cases():
        right = list(tokenization._shortest(word, known))
        cuts = [] if len(word) > 12 else list(all_ways(word, known))
        assert len(word) > 12 or right in (cuts or [["[UNK]"]])
        assert len(right) == min(map(len, cuts), default=1)
        kinds["unknown" if right == ["[UNK]"] else "stuck" if greedy(word, known) == ["[UNK]"] else
              "longer" if len(greedy(word, known)) > len(right) else "greedy"] += 1
        kinds["several"] += [len(cut) for cut in cuts].count(len(right)) > 1
    assert min(kinds[kind] for kind in ("unknown", "stuck", "longer", "greedy", "several")) >= 3


def test_the_bytes_are_those_of_the_library_and_all_of_them_occur(gpt2_tokenizer, causal_tokenizer):
    texts = tokenization._TEXTS
    assert {byte for text in texts for byte in text.encode()} >= {*range(0xC0), 0xC3, 0xE4, 0xF0}
    for tokenizer in (gpt2_tokenizer, causal_tokenizer):
        cut = [tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) for text in texts]
        assert [my_text_back(pieces) for pieces in cut] == [*texts]
        split = [text for text, pieces in zip(texts, cut, strict=True) if decoded_alone(pieces) != text]
        assert len(split) >= 3
        assert gpt2_tokenizer.convert_tokens_to_string(cut[0]) == texts[0]
    assert {character for character in gpt2_tokenizer.get_vocab() if len(character) == 1} == set(byte_table())


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


def greedy(word, known):
    cut = []
    while word:
        end = next((end for end in range(len(word), 0, -1) if word[:end] in known), None)
        if end is None:
            return ["[UNK]"]
        cut.append(word[:end])
        word = word[end:]
    return cut


def wordpiece(word, known):
    """The lesson's."""
    cut, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in known:
                break
        else:
            return ["[UNK]"]
        cut, start = [*cut, piece], end
    return cut


def greedy_from_the_right(word, known):
    cut = greedy(word[::-1], {piece[::-1] for piece in known})
    return cut if cut == ["[UNK]"] else [piece[::-1] for piece in cut[::-1]]


def greedy_else_letters(word, known):
    cut = []
    while word:
        cut.append(next((word[:end] for end in range(len(word), 0, -1) if word[:end] in known), word[0]))
        word = word[len(cut[-1]):]
    return cut


def greedy_else_nothing(word, known):
    cut = []
    while end := next((end for end in range(len(word), 0, -1) if word[:end] in known), 0):
        cut.append(word[:end])
        word = word[end:]
    return cut


def greedy_else_part(word, known):
    cut = greedy_else_nothing(word, known)
    return cut if "".join(cut) == word else [*cut, "[UNK]"]


def never_ending(word, known):
    cut, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            if word[start:end] in known:
                cut.append(word[start:end])
                start = end
                break
    return cut


def never_ending_over_pieces(word, known):
    cut = []
    while word:
        for piece in sorted(known, key=len, reverse=True):
            if word.startswith(piece):
                cut.append(piece)
                word = word[len(piece):]
                break
    return cut


def first_cut(word, known, longest):
    """With a memory, so that long words are no trouble."""
    stuck = set()

    def rest_of(start):
        if start == len(word):
            return []
        ends = range(start + 1, len(word) + 1)
        for end in reversed(ends) if longest else ends:
            if word[start:end] in known and end not in stuck:
                rest = rest_of(end)
                if rest is not None:
                    return [word[start:end], *rest]
                stuck.add(end)
        return None

    cut = rest_of(0)
    return ["[UNK]"] if cut is None else cut


def most(word, known):
    best = {0: []}
    for end in range(1, len(word) + 1):
        cuts = [[*best[start], word[start:end]] for start in best if word[start:end] in known]
        if cuts:
            best[end] = max(cuts, key=len)
    return best.get(len(word), ["[UNK]"])


def ways(word, known):
    """The lesson's."""
    heads = [word[:end] for end in range(1, len(word) + 1) if word[:end] in known]
    rests = [ways(word[len(head):], known) for head in heads]
    found = [[head, *tail] for head, tails in zip(heads, rests, strict=True) for tail in tails]
    return found if word else [[]]


def each_piece_once(word, known):
    cuts = [cut for cut in ways(word, known) if len(set(cut)) == len(cut)] if len(word) < 12 else []
    return min(cuts, key=len, default=["[UNK]"])


def right_number(word, known):
    cut = my_fewest(word, known)
    return [*word[:len(cut) - 1], word[len(cut) - 1:]] if len(cut) > 1 else cut


def emptied(word, known):
    cut = my_fewest(word, known)
    known.difference_update(cut)
    return cut


def extended(word, known):
    known |= {"[UNK]"}
    return my_fewest(word, known)


def without_unknown(word, known):
    cut = my_fewest(word, known)
    return None if cut == ["[UNK]"] else cut


def decoded_alone(pieces, errors="replace"):
    return "".join(bytes_back([piece]).decode(errors=errors) for piece in pieces)


def minus_256(pieces, errors="replace"):
    """Right for the bytes up to 32, and for all that stand for themselves."""
    return bytes(ord(character) % 256 for character in "".join(pieces)).decode(errors=errors)


def one_off(pieces):
    table = {character: byte for character, byte in byte_table().items() if ord(character) < 256}
    others = [byte for byte in range(256) if chr(byte) not in table]
    table |= {chr(257 + place): byte for place, byte in enumerate(others)}
    return bytes(table.get(character, 32) for character in "".join(pieces)).decode(errors="replace")


def others_ignored(pieces, errors="ignore"):
    return bytes(ord(character) for character in "".join(pieces).replace("Ġ", " ") if ord(character) < 256).decode(
        errors=errors)


def in_latin_1(pieces):
    return "".join(pieces).replace("Ġ", " ").encode("latin-1").decode()


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
    ("fewest", "the longest piece is taken each time", greedy),
    ("fewest", "there is a cut", greedy_from_the_right),
    ("fewest", "there is a cut", wordpiece),
    ("fewest", "'l' is not one of the known pieces", right_number),
    ("fewest", "'##est' is not one of the known pieces",
     lambda word, known: [piece if word.startswith(piece) else f"##{piece}" for piece in my_fewest(word, known)]),
    ("fewest", "is not one of the known pieces", greedy_else_letters),
    ("fewest", "joined, these pieces give 'lowe'", greedy_else_nothing),
    ("fewest", "'[UNK]' is not one of the known", greedy_else_part),
    ("fewest", "does not seem to come to an end", never_ending),
    ("fewest", "does not seem to come to an end", never_ending_over_pieces),
    ("fewest", "longest first piece", lambda word, known: first_cut(word, known, longest=True)),
    ("fewest", "shortest first piece", lambda word, known: first_cut(word, known, longest=False)),
    ("fewest", "as many pieces as possible", most),
    ("fewest", "single letters", lambda word, known: list(word)),
    ("fewest", "far too many cuts", lambda word, known: min(ways(word, known), key=len, default=["[UNK]"])),
    ("fewest", "far too many cuts", lambda word, known: next(all_ways(word, known), ["[UNK]"])),
    ("fewest", "('ba', 'n', 'a', 'na'): the word can be cut into fewer", each_piece_once),
    ("fewest", "there is a cut", lambda word, known: [word] if word in known else ["[UNK]"]),
    ("fewest", "('low', 'er'): the word can be cut into fewer", lambda word, known: my_fewest(word, known - {word})
     if my_fewest(word, known - {word}) != ["[UNK]"] else my_fewest(word, known)),
    ("fewest", "returns 2, but a list of pieces is needed", lambda word, known: len(my_fewest(word, known))),
    ("fewest", "which hides where a piece ends", lambda word, known: " ".join(my_fewest(word, known))),
    ("fewest", "but a list of pieces is needed", lambda word, known: {*my_fewest(word, known)}),
    ("fewest", "joined, these pieces give 'estlow'", lambda word, known: my_fewest(word, known)[::-1]),
    ("fewest", "For 'slow', which has no cut, your function returns None", without_unknown),
    ("fewest", "joined, these pieces give ''",
     lambda word, known: [piece for piece in my_fewest(word, known) if piece in known]),
    ("fewest", "changes known itself", emptied),
    ("fewest", "changes known itself", extended),
    ("text_back", "only the spaces are turned back", lambda pieces: "".join(pieces).replace("Ġ", " ")),
    ("text_back", "only spaces and line ends are turned back",
     lambda pieces: "".join(pieces).replace("Ġ", " ").replace("Ċ", "\n")),
    ("text_back", "nothing is turned back", "".join),
    ("text_back", "each piece is decoded alone", decoded_alone),
    ("text_back", "each piece is decoded alone", lambda pieces: decoded_alone(pieces, errors="ignore")),
    ("text_back", "read as one character each", lambda pieces: bytes_back(pieces).decode("latin-1")),
    ("text_back", "256 is taken from every character", minus_256),
    ("text_back", "the text holds �", lambda pieces: others_ignored(pieces, errors="replace")),
    ("text_back", "white space", one_off),
    ("text_back", "right up to character 9 and", others_ignored),
    ("text_back", "white space", lambda pieces: my_text_back(pieces).replace("\n", " ")),
    ("text_back", "white space", lambda pieces: my_text_back(pieces).strip()),
    ("text_back", "white space", lambda pieces: my_text_back(pieces).lstrip()),
    ("text_back", "white space", lambda pieces: " ".join(my_text_back(pieces).split())),
    ("text_back", "white space", lambda pieces: my_text_back(pieces).removesuffix("\n")),
    ("text_back", "'\\tone\\n\\n  two': the words are right", lambda pieces: my_text_back(pieces).replace("\r", "")),
    ("text_back", "right up to character 9 and",
     lambda pieces: my_text_back(pieces).encode("ascii", "ignore").decode()),
    ("text_back", "right up to character 20 and", lambda pieces: my_text_back(pieces) + "<|endoftext|>"),
    ("text_back", "even its first character", lambda pieces: "<s>" + my_text_back(pieces)),
    ("text_back", "an object of type bytes of length 20, but one text", bytes_back),
    ("text_back", "one text is needed", lambda pieces: [*my_text_back(pieces)]),
    ("text_back", "one text is needed", lambda pieces: [*bytes_back(pieces)]),
]


@pytest.mark.parametrize(("name", "fragment", "answer"), WRONG)
def test_typical_mistakes_are_named(gpt2_tokenizer, name, fragment, answer):
    assert_named(Exercises(tokenization.EXERCISES, tokenizer=gpt2_tokenizer).check(name, answer), fragment)


@pytest.mark.parametrize(("name", "message", "answer"), [
    ("fewest", "StopIteration", lambda word, known: next(
        [word[:end], word[end:]] for end in range(1, len(word)) if {word[:end], word[end:]} <= known)),
    ("fewest", "IndexError: list index out of range", lambda word, known: sorted(ways(word, known), key=len)[0]),
    ("text_back", "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xc3 in position 1: unexpected end of data",
     lambda pieces: decoded_alone(pieces, errors="strict")),
    ("text_back", "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xc3 in position 9: invalid continuation byte",
     lambda pieces: minus_256(pieces, errors="strict")),
    ("text_back", "UnicodeEncodeError: 'latin-1' codec can't encode character '\\u0141' in position 10: "
     "ordinal not in range(256)", in_latin_1),
    ("text_back", "KeyError: 'Ł'",
     lambda pieces: bytes({**{chr(byte): byte for byte in range(256)}, "Ġ": 32}[character]
                          for character in "".join(pieces)).decode()),
    ("text_back", "ValueError: bytes must be in range(0, 256)", lambda pieces: bytes(map(ord, "".join(pieces)))),
])
def test_mistakes_that_raise_are_named(gpt2_tokenizer, name, message, answer):
    feedback = Exercises(tokenization.EXERCISES, tokenizer=gpt2_tokenizer).check(name, answer)
    assert feedback.message == f"Your code raises {message}."


def test_no_tokenizer_may_give_the_text_back(gpt2_tokenizer):
    exercises = Exercises(tokenization.EXERCISES, tokenizer=gpt2_tokenizer)
    for answer in (lambda pieces: gpt2_tokenizer.convert_tokens_to_string(pieces),
                   gpt2_tokenizer.convert_tokens_to_string):
        assert "uses a tokenizer" in exercises.check("text_back", answer).message
    exec("def by_global(pieces): return gpt2.convert_tokens_to_string(pieces)", scope := {"gpt2": gpt2_tokenizer})
    assert "uses a tokenizer" in exercises.check("text_back", scope["by_global"]).message


def shortest_of_rests(word, known):
    """From the right, by recursion, with the last of several cuts that are equally short."""

    @cache
    def cut(start):
        if start == len(word):
            return ()
        rests = [(piece, *rest) for piece in known if word.startswith(piece, start)
                 if (rest := cut(start + len(piece))) is not None]
        return min(sorted(rests, reverse=True), key=len, default=None)

    return cut(0) or ("[UNK]",)


def by_breadth(word, known):
    """One piece more in each round."""
    reached = {"": []}
    while word not in reached:
        new = {begin + piece: [*cut, piece] for begin, cut in reached.items() for piece in known
               if word.startswith(begin + piece) and begin + piece not in reached}
        if not new:
            return ["[UNK]"]
        reached |= new
    return reached[word]


def by_one_translation(pieces):
    """Without a table from the numbers: the characters up to 256 + 32 first, then the gap before ¡, then the last."""
    numbers = [ord(character) for character in "".join(pieces)]
    found = bytearray()
    for number in numbers:
        found.append(number if number < 256 else number - 256 if number < 289 else 173 if number == 323
                     else number - 289 + 127)
    return str(found, "utf-8")


def test_other_correct_forms_are_right(exercises):
    assert exercises.check("pair", lambda words: list(my_pair(words))).correct
    for answer in (shortest_of_rests, by_breadth, lambda word, known: tuple(my_fewest(word, frozenset(known)))):
        assert exercises.check("fewest", answer).message == "That is right."
    assert exercises.check("text_back", by_one_translation).message == "That is right."
    assert exercises.check(
        "fertility", lambda tokenizer, text: len(tokenizer.tokenize(text)) / len(text.split())).correct


@pytest.mark.parametrize("options", [{}, {"weigh": False}, {"once": True}])
def test_neither_the_right_pair_nor_a_mistaken_one_depends_on_the_order(exercises, options):
    def first(words):
        return counted(words, **options).most_common(1)[0][0]

    def last(words):
        return max(reversed(counted(words, **options).items()), key=lambda item: item[1])[0]

    assert exercises.check("pair", first).message == exercises.check("pair", last).message.partition(" Hint:")[0]
