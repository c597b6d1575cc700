"""Predictions and decoding against the library's own pipeline, generate and logits processors."""

import pytest
import torch
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, pipeline

from llm_tutorial.decoding import filter_logits, greedy_decode, next_tokens, sample_decode, top_predictions

PROMPT = "the swimming pool at"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_top_predictions_equal_the_fill_mask_pipeline(masked_lm, masked_tokenizer):
    text = "[MASK] is like a [MASK] of chocolates."
    fill = pipeline("fill-mask", model=masked_lm, tokenizer=masked_tokenizer, device="cpu", trust_remote_code=False)
    ours = top_predictions(masked_lm, masked_tokenizer, text, k=5)
    for mine, theirs in zip(ours, fill(text, top_k=5), strict=True):
        assert [p.id for p in mine] == [answer["token"] for answer in theirs]
        assert [p.token for p in mine] == [answer["token_str"] for answer in theirs]
        assert [p.probability for p in mine] == pytest.approx([answer["score"] for answer in theirs], rel=1e-5)


def test_next_tokens_are_the_softmax_of_the_last_logits(causal_lm, causal_tokenizer):
    with torch.no_grad():
        logits = causal_lm(**causal_tokenizer(PROMPT, return_tensors="pt")).logits[0, -1]
    predictions = next_tokens(causal_lm, causal_tokenizer, PROMPT, k=3)
    assert [p.id for p in predictions] == logits.argsort(descending=True)[:3].tolist()
    assert [p.probability for p in predictions] == pytest.approx(
        [logits.softmax(-1)[p.id].item() for p in predictions], rel=1e-5)
    assert predictions[0].token == causal_tokenizer.decode([predictions[0].id])


def generated(model, tokenizer, tokens: int) -> list[int]:
    inputs = tokenizer(PROMPT, return_tensors="pt")
    return model.generate(**inputs, do_sample=False, max_new_tokens=tokens)[0].tolist()


def test_greedy_decode_equals_generate_and_stops_after_the_end_token_too(causal_lm, causal_tokenizer):
    prompt = len(causal_tokenizer(PROMPT).input_ids)
    free = generated(causal_lm, causal_tokenizer, 12)
    stop = next(index for index in range(prompt + 2, len(free)) if free[index] not in free[prompt:index])
    for ends, length in ((free[stop], stop + 1), ([0, free[stop]], stop + 1), (None, len(free))):
        causal_lm.generation_config.eos_token_id = ends
        ids = greedy_decode(causal_lm, causal_tokenizer, PROMPT, 12)[0].tolist()
        assert ids == free[:length] == generated(causal_lm, causal_tokenizer, 12)


def test_the_best_token_alone_is_greedy_and_otherwise_the_generators_seed_decides(causal_lm, causal_tokenizer):
    sampled = sample_decode(causal_lm, causal_tokenizer, PROMPT, 12, top_k=1, generator=generator())
    assert torch.equal(sampled, greedy_decode(causal_lm, causal_tokenizer, PROMPT, 12))
    with torch.no_grad():
        logits = causal_lm(**causal_tokenizer(PROMPT, return_tensors="pt")).logits[0, -1]
    for seed in range(3):
        sampled = sample_decode(causal_lm, causal_tokenizer, PROMPT, 1, temperature=2.0, generator=generator(seed))
        assert sampled[0, -1] == torch.multinomial((logits / 2).softmax(-1), 1, generator=generator(seed))


@pytest.mark.parametrize(("options", "warpers"), [
    ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
    ({"top_k": 40}, [TopKLogitsWarper(40)]),
    ({"top_p": 0.01}, [TopPLogitsWarper(0.01)]),
    ({"min_p": 0.1}, [MinPLogitsWarper(0.1)]),
    ({"temperature": 2.5, "top_k": 30, "top_p": 0.8, "min_p": 0.3},
     [TemperatureLogitsWarper(2.5), TopKLogitsWarper(30), TopPLogitsWarper(0.8), MinPLogitsWarper(0.3)]),
])
def test_filtered_logits_equal_the_librarys_warpers_and_the_input_stays_as_it_is(options, warpers):
    logits = 3 * torch.randn(320, generator=generator())
    before = logits.clone()
    expected = logits[None]
    for warper in warpers:
        expected = warper(None, expected)
    torch.testing.assert_close(filter_logits(logits, **options), expected[0])
    assert torch.equal(logits, before)


def test_a_share_of_one_and_a_filter_of_zero_keep_all():
    logits = 5 * torch.randn(50_257, generator=generator())
    assert torch.equal(filter_logits(logits, top_p=1.0, top_k=50_257), logits)
    assert torch.equal(filter_logits(logits, top_k=0, min_p=0), logits)


@pytest.mark.parametrize(("options", "message"), [
    ({"temperature": 0}, "temperature=0 must be above 0; for the most probable token use greedy_decode"),
    ({"top_k": 289}, "top_k=289 must be between 0, for all, and the vocabulary size, 288"),
    ({"top_p": 0}, "top_p=0 must be above 0 and at most 1"),
    ({"top_p": 1.1}, "top_p=1.1 must be above 0 and at most 1"),
    ({"min_p": 1.1}, "min_p=1.1 must be between 0 and 1"),
])
def test_bad_filters_are_named_with_a_remedy(causal_lm, causal_tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        sample_decode(causal_lm, causal_tokenizer, PROMPT, 2, generator=generator(), **options)


@pytest.mark.parametrize(("text", "k", "message"), [
    ("life is like a box.", 5, r"There is no \[MASK\] in 'life is like a box.': put one where"),
    (" \n", 5, "The text is empty: give the model at least one word"),
    ("a [MASK] \ud83d", 5, r"The text holds '\\ud83d', which is half of a character: write the whole character"),
    ("[MASK] " * 40, 5, "The text has 42 tokens, but the model reads at most 32: shorten it"),
    ("a [MASK]", 0, "k=0 must be between 1 and the vocabulary size"),
    ("a [MASK]", 10_000, r"k=10000 must be between 1 and the vocabulary size, \d+"),
])
def test_bad_requests_to_a_masked_model_are_named_with_a_remedy(masked_lm, masked_tokenizer, text, k, message):
    with pytest.raises(ValueError, match=message):
        top_predictions(masked_lm, masked_tokenizer, text, k)


def test_bad_requests_to_a_causal_model_are_named_with_a_remedy(causal_lm, causal_tokenizer):
    with pytest.raises(ValueError, match="has no mask token: this function needs a masked language model"):
        top_predictions(causal_lm, causal_tokenizer, "a [MASK]")
    with pytest.raises(ValueError, match=r"has \d+ tokens and 64 new ones, but the model reads at most 64: shorten it"):
        greedy_decode(causal_lm, causal_tokenizer, PROMPT, 64)


def test_models_in_training_are_used_without_dropout_and_stay_in_training(
    masked_lm, masked_tokenizer, causal_lm, causal_tokenizer
):
    causal_lm.transformer.drop.p = 0.5
    for call, model, tokenizer, text in ((top_predictions, masked_lm, masked_tokenizer, "a [MASK]"),
                                         (next_tokens, causal_lm, causal_tokenizer, PROMPT)):
        expected = call(model, tokenizer, text)
        assert call(model.train(), tokenizer, text) == expected
        assert model.training
    assert greedy_decode(causal_lm, causal_tokenizer, PROMPT, 1)[0, -1] == expected[0].id
