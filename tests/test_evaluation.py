"""Perplexity, bits per byte and recitation against counts made another way."""

import math

import pytest
import torch

from llm_tutorial.evaluation import Recitation, bits_per_byte, perplexity, recitation


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


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_was_in(causal_lm, recited, training):
    causal_lm.train(training)
    recitation(causal_lm, recited, 4, 8)
    assert causal_lm.training is training


@pytest.mark.parametrize(("chunks", "options", "message"), [
    ([], {}, "There is no chunk to recite: give at least one"),
    ([[1] * 40, [1] * 31], {}, r"A chunk has 31 tokens, but prompt \+ continuation = 32 are needed: ask for fewer"),
    ([[1] * 80], {"prompt": 40, "continuation": 40}, r"= 80 tokens, but the model has 64 positions: ask for fewer"),
    ([[1] * 40], {"prompt": 0}, "prompt=0, continuation=16, batch_size=64: all must be >= 1"),
    ([[1] * 40], {"continuation": -1}, "continuation=-1"),
    ([[1] * 40], {"batch_size": 0}, "batch_size=0"),
])
def test_bad_recitations_are_named_with_a_remedy(causal_lm, chunks, options, message):
    with pytest.raises(ValueError, match=message):
        recitation(causal_lm, chunks, **options)
