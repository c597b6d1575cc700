"""Perplexity, bits per byte, recitation and copies against counts made another way."""

import dataclasses
import math
import random

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from llm_tutorial.evaluation import (
    Recitation,
    bits_per_byte,
    continuations,
    longest_copies,
    perplexity,
    recitation,
    recited_share,
)


@pytest.mark.parametrize(("loss", "expected"), [(0, 1), (math.log(512), 512), (math.inf, math.inf), (1e4, math.inf)])
def test_perplexity_counts_equal_choices(loss, expected):
    assert perplexity(loss) == pytest.approx(expected)


@pytest.mark.parametrize("loss", [-0.1, math.nan])
def test_a_loss_that_is_no_cross_entropy_is_named(loss):
    with pytest.raises(ValueError, match=f"loss={loss} is no cross-entropy: it must be 0 or more"):
        perplexity(loss)


def test_uniform_bytes_take_eight_bits_whatever_the_tokens():
    assert bits_per_byte(math.log(256), tokens=100, text_bytes=100) == pytest.approx(8)
    assert bits_per_byte(math.log(256**2), tokens=50, text_bytes=100) == pytest.approx(8)


@pytest.mark.parametrize("arguments", [(-1, 5, 5), (math.nan, 5, 5), (1, 0, 5), (1, 5, 0)])
def test_counts_below_one_are_named(arguments):
    loss, tokens, text_bytes = arguments
    with pytest.raises(ValueError, match=f"loss={loss}, tokens={tokens}, text_bytes={text_bytes}: the loss must"):
        bits_per_byte(*arguments)


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
    assert recitation(causal_lm, recited, 4, 8, batch_size) == Recitation(1.0, 1.0)
    recited[0][-1] = (recited[0][-1] + 1) % 288
    recited[1][4] = (recited[1][4] + 1) % 288
    measured = recitation(causal_lm, recited, 4, 8, batch_size)
    assert measured.token_accuracy == pytest.approx(38 / 40)
    assert measured.exact_match == pytest.approx(3 / 5)


def test_what_follows_the_continuation_does_not_count(causal_lm, recited):
    assert recitation(causal_lm, [[*row, 0, 0] for row in recited], 4, 8) == Recitation(1.0, 1.0)


def test_an_end_token_does_not_stop_the_recitation(causal_lm, recited):
    causal_lm.generation_config.eos_token_id = recited[0][6]
    measured = recitation(causal_lm, recited[:1], 4, 8)
    assert 2 / 8 <= measured.token_accuracy <= 1


@pytest.mark.parametrize("measure", [recitation, continuations, recited_share])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_was_in(causal_lm, recited, measure, training):
    causal_lm.train(training)
    measure(causal_lm, recited, 4, 8)
    assert causal_lm.training is training


@pytest.mark.parametrize("measure", [recitation, continuations, recited_share])
def test_the_model_is_left_in_the_mode_it_was_in_when_it_fails(causal_lm, recited, measure):
    causal_lm.train()

    def fail(*_):
        raise RuntimeError("out of memory")

    causal_lm.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        measure(causal_lm, recited, 4, 8)
    assert causal_lm.training


@pytest.mark.parametrize("measure", [recitation, continuations, recited_share])
@pytest.mark.parametrize(("chunks", "options", "message"), [
    ([], {}, "There is no chunk to recite: give at least one"),
    ([[1] * 40, [1] * 31], {}, r"A chunk has 31 tokens, but prompt \+ continuation = 32 are needed: ask for fewer"),
    ([[1] * 80], {"prompt": 40, "continuation": 40}, r"= 80 tokens, but the model has 64 positions: ask for fewer"),
    ([[1] * 40], {"prompt": 0}, "prompt=0, continuation=16, batch_size=64: all must be >= 1"),
    ([[1] * 40], {"continuation": -1}, "continuation=-1"),
    ([[1] * 40], {"batch_size": 0}, "batch_size=0"),
])
def test_bad_recitations_are_named_with_a_remedy(causal_lm, measure, chunks, options, message):
    with pytest.raises(ValueError, match=message):
        measure(causal_lm, chunks, **options)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_continuations_are_the_most_probable_tokens_one_by_one(causal_lm, recited, batch_size):
    spoilt = [row[:4] + [0] * 9 for row in recited]
    assert continuations(causal_lm, spoilt, 4, 8, batch_size) == [row[4:] for row in recited]


def test_what_was_not_measured_is_none_and_in_no_table():
    without, with_characters = Recitation(1.0, 0.5), Recitation(1.0, 0.5, 0.75)
    assert without.character_accuracy is None
    assert vars(without) == {"token_accuracy": 1.0, "exact_match": 0.5}
    assert vars(with_characters) == {"token_accuracy": 1.0, "exact_match": 0.5, "character_accuracy": 0.75}
    assert without == dataclasses.replace(with_characters, character_accuracy=None) != with_characters
    assert "character_accuracy=None" in repr(without)


@pytest.fixture(scope="module")
def byte_tokenizer():
    """One token per byte."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([], vocab_size=256, show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer)


def characters_recited(model, tokenizer, monkeypatch, texts, written, prompt, continuation):
    """Recitation of a model that continues the texts as in ``written``; all are lists of token ids."""
    output = torch.tensor([row[:prompt] + ids for row, ids in zip(texts, written, strict=True)])
    monkeypatch.setattr(model, "generate", lambda **_: output)
    return recitation(model, texts, prompt, continuation, tokenizer=tokenizer)


@pytest.mark.parametrize(("prompt", "text", "written", "expected"), [
    (2, "abcdef", "cdef", 1),
    (2, "abcdef", "cdxf", 2 / 4),
    (2, "abcdef", "xdef", 0),
    (2, "ab\N{REPLACEMENT CHARACTER}c", "\N{REPLACEMENT CHARACTER}x", 1 / 2),
    # Two bytes each: ñ is C3 B1, ò is C3 B2, ı is C4 B1.
    (1, "añb", "ñb", 1),
    (1, "añb", "òb", 0),
    (1, "añb", "ıb", 0),
])
def test_characters_before_the_first_mistake_count(
        causal_lm, byte_tokenizer, monkeypatch, prompt, text, written, expected):
    text, written = byte_tokenizer(text).input_ids, byte_tokenizer(written).input_ids
    measured = characters_recited(causal_lm, byte_tokenizer, monkeypatch, [text], [written], prompt, len(written))
    assert measured.character_accuracy == pytest.approx(expected)


def test_a_split_character_belongs_to_where_it_is_complete(causal_lm, byte_tokenizer, monkeypatch):
    def measure(text, written, prompt):
        measured = characters_recited(causal_lm, byte_tokenizer, monkeypatch, [text], [written], prompt, len(written))
        return measured.character_accuracy

    a, first, second, b = byte_tokenizer("añb").input_ids
    other = byte_tokenizer("ò").input_ids[1]
    assert measure([a, first, second, b], [second, b], 2) == 1
    assert measure([a, first, second, b], [other, b], 2) == 0
    assert measure([a, first, second, b], [second, a], 2) == 1 / 2
    # Only b is complete: the rest can be neither right nor wrong.
    assert measure([a, b, first], [b, first], 1) == 1
    assert measure([a, b, first], [b, a], 1) == 1
    assert measure([a, b, first], [a, first], 1) == 0
    with pytest.raises(ValueError, match="The continuations of 1 chunks hold no complete character"):
        measure([a, b, first], [first], 2)


def test_characters_are_counted_over_all_chunks(causal_lm, causal_tokenizer, monkeypatch):
    vocabulary = causal_tokenizer.get_vocab()
    long = next(token for token in vocabulary if len(token) == 3 and token.isalpha() and token.isascii())
    letters = [vocabulary[letter] for letter in long]
    texts = [[vocabulary["x"], vocabulary[long], vocabulary["y"]], [vocabulary["x"], vocabulary["y"], vocabulary["z"]]]
    written = [[vocabulary[long], vocabulary["z"]], [vocabulary["z"], vocabulary["z"]]]
    measured = characters_recited(causal_lm, causal_tokenizer, monkeypatch, texts, written, 1, 2)
    assert measured == Recitation(2 / 4, 0.0, pytest.approx(3 / 6))
    # The same characters in other tokens are recited too.
    measured = characters_recited(causal_lm, causal_tokenizer, monkeypatch, texts, [letters[:2], written[1]], 1, 2)
    assert measured == Recitation(1 / 4, 0.0, pytest.approx(2 / 6))


def test_with_a_tokenizer_the_other_numbers_stay(causal_lm, causal_tokenizer, recited):
    recited[0][-1] = (recited[0][-1] + 1) % 288
    measured = recitation(causal_lm, recited, 4, 8, tokenizer=causal_tokenizer)
    assert dataclasses.replace(measured, character_accuracy=None) == recitation(causal_lm, recited, 4, 8)
    assert 0 < measured.character_accuracy <= 1


def tiny_model(**settings) -> GPT2LMHeadModel:
    torch.manual_seed(1)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=50, n_positions=32, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5, **settings))


@pytest.mark.parametrize("settings", [{}, {"eos_token_id": None}, {"eos_token_id": 3}, {"eos_token_id": [3, 5]}])
def test_the_share_is_that_of_exact_matches_while_a_model_learns(settings):
    model = tiny_model(pad_token_id=0, bos_token_id=0, **settings)  # dropout is on
    rows = torch.randint(6, 50, (12, 14))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    shares = []
    for step in range(80):
        model.train()
        model(rows[:8], labels=rows[:8]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            chunks = rows.tolist()
            shares.append(recited_share(model, chunks, 4, 8, batch_size=5))
            assert model.training
            assert shares[-1] == recitation(model, chunks, 4, 8).exact_match
    assert shares[0] == 0
    assert any(0 < share < 1 for share in shares)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_share_falls_with_each_wrong_token_wherever_it_stands(causal_lm, recited, batch_size):
    assert recited_share(causal_lm, recited, 4, 8, batch_size) == 1
    assert recited_share(causal_lm, [[*row, 0, 0] for row in recited], 4, 8, batch_size) == 1
    for position in range(4, 12):
        spoilt = [list(row) for row in recited]
        spoilt[2][position] = (spoilt[2][position] + 1) % 288
        assert recited_share(causal_lm, spoilt, 4, 8, batch_size) == pytest.approx(4 / 5)


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


def test_the_share_takes_one_pass_per_batch_without_gradients_and_in_the_callers_precision(causal_lm, recited):
    seen = []
    causal_lm.register_forward_hook(lambda module, _, inputs, output: seen.append(
        (inputs["input_ids"].shape, output.logits.shape, output.logits.dtype, output.logits.requires_grad,
         module.training)), with_kwargs=True)
    causal_lm.train()
    with torch.autocast("cpu", torch.bfloat16):
        recited_share(causal_lm, recited, 4, 8, batch_size=3)
    assert seen == [((rows, 11), (rows, 8, 288), torch.bfloat16, False, False) for rows in (3, 2)]


def brute_force(sequence, source):
    return max((stop - start for row in source for start in range(len(row)) for stop in range(start + 1, len(row) + 1)
                if any(sequence[at:at + stop - start] == row[start:stop] for at in range(len(sequence)))), default=0)


@pytest.mark.parametrize("ids", [
    [0, 1, 2],
    [0, 0x7F, 0x80, 0xFF, 0x100],
    [0xD7FF, 0xD800, 0xDBFF, 0xDC00, 0xDFFF, 0xE000],
    [0, 0xFFFF, 0x10FFFF, 0x110000, 10**12],
])
def test_copies_are_those_that_a_search_of_all_runs_finds(ids):
    draw = random.Random(0)
    for _ in range(40):
        source, sequences = ([draw.choices(ids, k=draw.randrange(9)) for _ in range(draw.randrange(1, 5))]
                             for _ in range(2))
        sequences = [[*sequence, draw.choice([-1, *ids])] for sequence in sequences]
        assert longest_copies(sequences, source) == [brute_force(sequence, source) for sequence in sequences]


def test_copies_stay_within_a_row_and_may_stand_anywhere_in_it():
    source = [[1, 2, 3, 4], [5, 6, 7, 0]]
    assert longest_copies([[1, 2, 3, 4], [9, 2, 3, 9], [3, 4, 5, 6], [4, 0, 5], [7, 0, 0, 1], [9], []], source) == [
        4, 2, 2, 1, 2, 0, 0]
    assert longest_copies([], source) == []
    assert longest_copies(torch.tensor([[3, 4, 9]]), torch.tensor(source)) == [2]


def test_what_a_model_recites_is_found_as_a_copy(causal_lm, recited):
    assert longest_copies(continuations(causal_lm, recited, 4, 8), recited) == [8] * 5


def test_a_copy_needs_a_source():
    with pytest.raises(ValueError, match="There is no row that could have been copied: give at least one as source"):
        longest_copies([[1, 2]], [])
