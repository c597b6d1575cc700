"""Perplexity, recitation, copies and counting baselines against counts made another way."""

import math
import random

import pytest
import torch

from llm_tutorial import evaluation
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


def test_perplexity_counts_equal_choices():
    assert perplexity(math.log(512)) == pytest.approx(512)
    assert perplexity(1e4) == math.inf


def test_uniform_bytes_take_eight_bits_whatever_the_tokens():
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


@pytest.mark.parametrize("batch", [2, 64])
def test_a_text_known_by_heart_is_recited_and_each_wrong_token_counts(causal_lm, recited, batch, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH", batch)
    longer = [[*row, 0, 0] for row in recited]  # what follows the continuation does not count
    assert continuations(causal_lm, [row[:4] + [0] * 9 for row in recited], 4, 8) == [row[4:] for row in recited]
    assert recitation(causal_lm, longer, 4, 8) == Recitation(1.0, 1.0)
    assert recited_share(causal_lm, longer, 4, 8) == 1
    recited[0][-1] = (recited[0][-1] + 1) % 288
    recited[1][4] = (recited[1][4] + 1) % 288
    measured = recitation(causal_lm, recited, 4, 8)
    assert measured == Recitation(pytest.approx(38 / 40), pytest.approx(3 / 5))
    assert recited_share(causal_lm, recited, 4, 8) == measured.exact_match


def test_a_prompt_begins_where_it_is_told_to_or_anywhere(causal_lm, recited):
    later = [[7, 8, 9, *row] for row in recited]
    assert continuations(causal_lm, later, 4, 8, start=3) == [row[4:] for row in recited]
    assert recitation(causal_lm, later, 4, 8, start=3).exact_match == 1
    assert recited_share(causal_lm, later, 4, 8, start=3) == 1 > recited_share(causal_lm, later, 4, 8)
    prompts = []
    hook = causal_lm.register_forward_pre_hook(
        lambda *given: prompts.append(given[-1]["input_ids"].tolist()), with_kwargs=True)
    for _ in range(2):
        recited_share(causal_lm, [list(range(1, 41))] * 30, 4, 8, start=None)
    hook.remove()
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


def test_a_chunk_that_is_too_short_is_named(causal_lm, recited):
    for measure in (recitation, recited_share):
        with pytest.raises(ValueError, match=r"has 11 tokens, but prompt \+ continuation = 12 are needed: ask for"):
            measure(causal_lm, [*recited, recited[0][:11]], 4, 8)


def brute_force(sequence, source):
    return max((stop - start for row in source for start in range(len(row)) for stop in range(start + 1, len(row) + 1)
                if any(sequence[at:at + stop - start] == row[start:stop] for at in range(len(sequence)))), default=0)


def test_copies_are_those_that_a_search_of_all_runs_finds():
    draw = random.Random(0)
    for _ in range(150):
        source, sequences = ([draw.choices([0, 1, 2, 10**6], k=draw.randrange(9)) for _ in range(draw.randrange(1, 5))]
                             for _ in range(2))
        assert longest_copies(sequences, source) == [brute_force(sequence, source) for sequence in sequences]


def test_frequent_tokens_count_in_copies():
    assert longest_copies([[1, 7, 7, 7]], [[7] * 300]) == [3], "difflib calls them junk"


TRAIN = [[0, 1, 0, 1], [0, 2], [3]]  # predicted: 1, 0, 1 and 2; pairs: 01, 10, 01 and 02


def test_losses_by_hand():
    assert uniform_loss(8) == pytest.approx(3 * math.log(2))
    # Of 4 predicted tokens and 4 entries: 0 has (1 + 1) / 8, 1 has (2 + 1) / 8, 2 has (1 + 1) / 8, 3 has 1 / 8.
    assert unigram_loss(TRAIN, [[3, 1, 0], [0, 3]], 4) == pytest.approx(-math.log(3 / 8 * 2 / 8 * 1 / 8) / 3)
    # 0 is followed 3 times, twice by 1; 1 once, by 0; 3 never, so that the prior decides.
    assert bigram_loss(TRAIN, [[0, 1, 0], [3, 1]], 4) == pytest.approx(
        -math.log((2 + 3 / 8) / 4 * (1 + 2 / 8) / 2 * 3 / 8) / 3)
