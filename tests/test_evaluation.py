"""Perplexity, recitation, copies and counting baselines against counts made another way."""

import math
import random

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from llm_tutorial.evaluation import (
    Recitation,
    bigram_loss,
    bits_per_byte,
    continuations,
    longest_copies,
    perplexity,
    recitation,
    recited_share,
    uniform_loss,
    unigram_loss,
)


@pytest.mark.parametrize(("loss", "expected"), [(0, 1), (math.log(512), 512), (math.inf, math.inf), (1e4, math.inf)])
def test_perplexity_counts_equal_choices(loss, expected):
    assert perplexity(loss) == pytest.approx(expected)


def test_uniform_bytes_take_eight_bits_whatever_the_tokens():
    assert bits_per_byte(math.log(256), tokens=100, text_bytes=100) == pytest.approx(8)
    assert bits_per_byte(math.log(256**2), tokens=50, text_bytes=100) == pytest.approx(8)


@pytest.fixture
def recited(causal_lm) -> list[list[int]]:
    """Chunks of 12 tokens that the model continues greedily, each from a prompt of 4 tokens."""
    torch.manual_seed(0)
    rows = torch.randint(1, 288, (5, 4))
    with torch.no_grad():
        for _ in range(8):
            rows = torch.cat([rows, causal_lm(rows).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return rows.tolist()


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_text_known_by_heart_is_recited_and_each_wrong_token_counts(causal_lm, recited, batch_size):
    longer = [[*row, 0, 0] for row in recited]  # what follows the continuation does not count
    assert continuations(causal_lm, [row[:4] + [0] * 9 for row in recited], 4, 8, batch_size) == [
        row[4:] for row in recited]
    assert recitation(causal_lm, longer, 4, 8, batch_size) == Recitation(1.0, 1.0)
    assert recited_share(causal_lm, longer, 4, 8, batch_size) == 1
    recited[0][-1] = (recited[0][-1] + 1) % 288
    recited[1][4] = (recited[1][4] + 1) % 288
    measured = recitation(causal_lm, recited, 4, 8, batch_size)
    assert measured.token_accuracy == pytest.approx(38 / 40)
    assert measured.exact_match == pytest.approx(3 / 5)
    assert recited_share(causal_lm, recited, 4, 8, batch_size) == measured.exact_match


def test_a_prompt_begins_where_it_is_told_to_or_anywhere(causal_lm, recited):
    later = [[7, 8, 9, *row] for row in recited]
    assert continuations(causal_lm, later, 4, 8, start=3) == [row[4:] for row in recited]
    assert recitation(causal_lm, later, 4, 8, start=3).exact_match == 1
    assert recited_share(causal_lm, later, 4, 8, start=3) == 1 > recited_share(causal_lm, later, 4, 8)
    prompts = []
    hook = causal_lm.register_forward_pre_hook(
        lambda *given: prompts.append(given[-1]["input_ids"].tolist()), with_kwargs=True)
    chunk = list(range(1, 41))
    drawn = [recited_share(causal_lm, [chunk] * 30, 4, 8, start=None) for _ in range(2)]
    hook.remove()
    assert drawn[0] == drawn[1]
    assert prompts[0] == prompts[1], "the same places in every call"
    begins = {row[0] - 1 for row in prompts[0]}
    assert len(begins) > 10
    assert begins <= set(range(40 - 12 + 1))
    with pytest.raises(ValueError, match=r"has 15 tokens, but start \+ prompt \+ continuation = 16 are needed"):
        recitation(causal_lm, later, 4, 8, start=4)


@pytest.mark.parametrize("several", [False, True])
def test_the_end_token_is_never_written(causal_lm, recited, several):
    end = recited[0][6]
    causal_lm.generation_config.eos_token_id = [end, 0, 10**6] if several else end
    written = continuations(causal_lm, recited, 4, 8)
    assert written[0] != recited[0][4:]
    assert end not in written[0]
    chunks = [row[:4] + ids for row, ids in zip(recited, written, strict=True)]
    assert recitation(causal_lm, chunks, 4, 8).exact_match == recited_share(causal_lm, chunks, 4, 8) == 1
    assert recitation(causal_lm, recited, 4, 8).exact_match == recited_share(causal_lm, recited, 4, 8) < 1


@pytest.mark.parametrize("ends", [None, 3])
def test_the_share_is_that_of_exact_matches_while_a_model_learns(ends):
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(  # dropout is on
        vocab_size=50, n_positions=32, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5, bos_token_id=0,
        eos_token_id=ends))
    rows = torch.randint(0, 12, (12, 14))
    chunks, shares = rows.tolist(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for step in range(80):
        model.train()
        model(rows[:8], labels=rows[:8]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            shares.append(recited_share(model, chunks, 4, 8, batch_size=5))
            assert shares[-1] == recitation(model, chunks, 4, 8).exact_match
            assert model.training
    assert shares[0] == 0
    assert any(0 < share < 1 for share in shares)


def test_the_share_takes_one_pass_per_batch_and_only_the_logits_it_needs(causal_lm, recited):
    shapes = []
    causal_lm.register_forward_hook(lambda *arguments: shapes.append(tuple(arguments[-1].logits.shape)))
    recited_share(causal_lm, recited, 4, 8, batch_size=3)
    assert shapes == [(3, 8, 288), (2, 8, 288)]


@pytest.mark.parametrize("measure", [recitation, continuations, recited_share])
def test_a_chunk_that_is_too_short_is_named(causal_lm, recited, measure):
    with pytest.raises(ValueError, match=r"A chunk has 11 tokens, but prompt \+ continuation = 12 are needed: ask for"):
        measure(causal_lm, [*recited, recited[0][:11]], 4, 8)


@pytest.fixture(scope="module")
def byte_tokenizer():
    """One token per byte."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([], vocab_size=256, show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(bpe.to_str()))


@pytest.mark.parametrize(("prompt", "text", "written", "expected"), [
    (2, b"abcdef", b"cdef", 1),
    (2, b"abcdef", b"cdxf", 2 / 4),
    # Two bytes each: C3 B1 is ñ, C3 B2 is ò, C4 B1 is ı. A character belongs to where it is complete.
    (1, b"a\xc3\xb1b", b"\xc3\xb2b", 0),
    (1, b"a\xc3\xb1b", b"\xc4\xb1b", 0),
    (2, b"a\xc3\xb1b", b"\xb1b", 1),
    (2, b"a\xc3\xb1b", b"\xb2b", 0),
    (2, b"a\xc3\xb1b", b"\xb1a", 1 / 2),
    # Only b is complete: the rest can be neither right nor wrong.
    (1, b"ab\xc3", b"b\xc3", 1),
    (1, b"ab\xc3", b"a\xc3", 0),
])
def test_characters_before_the_first_mistake_count(
    causal_lm, byte_tokenizer, monkeypatch, prompt, text, written, expected
):
    letters = byte_tokenizer.get_vocab()  # these bytes stand for themselves in its alphabet
    text, written = ([letters[chr(byte)] for byte in part] for part in (text, written))
    monkeypatch.setattr(causal_lm, "generate", lambda **_: torch.tensor([text[:prompt] + written]))
    measured = recitation(causal_lm, [text], prompt, len(written), tokenizer=byte_tokenizer)
    assert measured.character_accuracy == pytest.approx(expected)


def test_characters_are_counted_over_all_chunks_however_they_are_cut(causal_lm, causal_tokenizer, monkeypatch):
    vocabulary = causal_tokenizer.get_vocab()
    long = next(token for token in vocabulary if len(token) == 3 and token.isalpha() and token.isascii())
    x, y, z = (vocabulary[letter] for letter in "xyz")
    texts = [[x, vocabulary[long], y], [x, y, z]]
    for first, tokens, characters in (([vocabulary[long], z], 2 / 4, 3 / 6),
                                      ([vocabulary[letter] for letter in long[:2]], 1 / 4, 2 / 6)):
        output = torch.tensor([[x, *first], [x, z, z]])
        monkeypatch.setattr(causal_lm, "generate", lambda output=output, **_: output)
        measured = recitation(causal_lm, texts, 1, 2, tokenizer=causal_tokenizer)
        assert measured == Recitation(tokens, 0.0, pytest.approx(characters))


def brute_force(sequence, source):
    return max((stop - start for row in source for start in range(len(row)) for stop in range(start + 1, len(row) + 1)
                if any(sequence[at:at + stop - start] == row[start:stop] for at in range(len(sequence)))), default=0)


def test_copies_are_those_that_a_search_of_all_runs_finds():
    draw = random.Random(0)
    for _ in range(150):
        source, sequences = ([draw.choices([0, 1, 2, 10**6], k=draw.randrange(9)) for _ in range(draw.randrange(1, 5))]
                             for _ in range(2))
        assert longest_copies(sequences, source) == [brute_force(sequence, source) for sequence in sequences]


def test_copies_stay_within_a_row_and_may_stand_anywhere_in_it():
    source = [[1, 2, 3, 4], [5, 6, 7, 0]]
    assert longest_copies([[9, 2, 3, 9], [3, 4, 5, 6], []], source) == [2, 2, 0]
    assert longest_copies(torch.tensor([[3, 4, 9]]), torch.tensor(source)) == [2]
    assert longest_copies([[1, 7, 7, 7]], [[7] * 300]) == [3], "frequent tokens are no junk"


TRAIN = [[0, 1, 0, 1], [0, 2], [3]]  # predicted: 1, 0, 1 and 2; pairs: 01, 10, 01 and 02


def test_losses_by_hand():
    assert uniform_loss(8) == pytest.approx(3 * math.log(2))
    # Of 4 predicted tokens and 4 entries: 0 has (1 + 1) / 8, 1 has (2 + 1) / 8, 2 has (1 + 1) / 8, 3 has 1 / 8.
    assert unigram_loss(TRAIN, [[3, 1, 0], [0, 3]], 4) == pytest.approx(-math.log(3 / 8 * 2 / 8 * 1 / 8) / 3)
    # 0 is followed 3 times, twice by 1 and never by 3; 3 is never followed, so that the prior decides.
    assert bigram_loss(TRAIN, [[0, 1]], 4) == pytest.approx(-math.log((2 + 3 / 8) / (3 + 1)))
    assert bigram_loss(TRAIN, [[0, 3]], 4, prior=2) == pytest.approx(-math.log((0 + 2 / 8) / (3 + 2)))
    assert bigram_loss(TRAIN, [[0, 1, 0], [3, 1]], 4) == pytest.approx(
        -math.log((2 + 3 / 8) / 4 * (1 + 2 / 8) / 2 * 3 / 8) / 3)
    rows = torch.tensor([[0, 1, 2], [2, 1, 0]])
    assert bigram_loss(rows, rows, 3) == bigram_loss(rows.tolist(), rows.tolist(), 3)


@pytest.mark.parametrize("context", [0, 1, 2, 3])
def test_probabilities_after_each_token_sum_to_one(context):
    for loss, *prior in ((unigram_loss,), (bigram_loss, 0.1), (bigram_loss, 10)):
        total = math.fsum(math.exp(-loss(TRAIN, [[context, token]], 4, *prior)) for token in range(4))
        assert total == pytest.approx(1)
