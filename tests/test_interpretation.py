"""Attention and surprisals against what transformers computes, on tiny models of three families."""

import copy
import math
import re

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, pipeline

from llm_tutorial import interpretation
from llm_tutorial.interpretation import (
    attention_weights,
    fillable,
    heads_switched_off,
    induction_scores,
    pseudo_perplexity,
    pseudo_surprisals,
    token_surprisals,
)

TEXT = "life is like a box of chocolates."


@pytest.fixture
def llama(causal_tokenizer):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(causal_tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.5,
        attention_dropout=0.5)).eval()


@pytest.fixture(params=["bert", "gpt2", "llama"])
def pair(request, masked_lm, masked_tokenizer, causal_lm, causal_tokenizer, llama):
    """A model and its tokenizer."""
    return {"bert": (masked_lm, masked_tokenizer), "gpt2": (causal_lm, causal_tokenizer),
            "llama": (llama, causal_tokenizer)}[request.param]


def eager_attentions(model, **inputs) -> tuple[torch.Tensor, ...]:
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        return eager(**inputs, output_attentions=True).attentions


def test_attention_equals_that_of_an_eager_model(pair):
    model, tokenizer = pair
    attention = attention_weights(model, tokenizer, TEXT)
    inputs = tokenizer(TEXT, return_tensors="pt")
    assert torch.equal(attention.weights, torch.cat(eager_attentions(model, **inputs)))
    assert attention.tokens == [tokenizer.decode([index]) for index in inputs["input_ids"][0]]
    future = attention.weights.triu(diagonal=1)
    assert (future.max() > 0) == (model.config.model_type == "bert"), "causal models do not look ahead"


def test_attention_leaves_the_model_as_it_was_and_copies_no_weights(causal_lm, causal_tokenizer, monkeypatch):
    settings = copy.deepcopy(vars(causal_lm.config))
    monkeypatch.setattr(nn.Parameter, "__deepcopy__", lambda *_: pytest.fail("a weight was copied"))
    attention_weights(causal_lm, causal_tokenizer, TEXT)
    assert vars(causal_lm.config) == settings


def test_token_surprisals_sum_to_the_loss(causal_lm, causal_tokenizer):
    pairs = token_surprisals(causal_lm, causal_tokenizer, TEXT)
    inputs = causal_tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        outputs = causal_lm(**inputs, labels=inputs["input_ids"])
    assert "".join(token for token, _ in pairs) == TEXT
    assert pairs[0] == ("l", None)
    bits = [bits for _, bits in pairs[1:]]
    assert sum(bits) * math.log(2) / len(bits) == pytest.approx(outputs.loss.item(), rel=1e-5)


def test_pseudo_surprisals_are_those_of_the_fill_mask_pipeline(masked_lm, masked_tokenizer):
    pairs = pseudo_surprisals(masked_lm, masked_tokenizer, TEXT)
    tokens = masked_tokenizer.tokenize(TEXT)
    assert [token for token, _ in pairs] == tokens
    fill = pipeline("fill-mask", model=masked_lm, tokenizer=masked_tokenizer, trust_remote_code=False)
    for i, (token, bits) in enumerate(pairs):
        text = masked_tokenizer.convert_tokens_to_string([*tokens[:i], "[MASK]", *tokens[i + 1:]])
        [best] = fill(text, targets=[token])
        assert bits == pytest.approx(-math.log2(best["score"]), rel=1e-4)
    losses = [bits * math.log(2) for _, bits in pairs]
    assert pseudo_perplexity(masked_lm, masked_tokenizer, TEXT) == pytest.approx(
        math.exp(sum(losses) / len(losses)), rel=1e-4)


def test_long_texts_are_read_in_batches_of_limited_size(masked_lm, masked_tokenizer, monkeypatch):
    expected, sizes = pseudo_surprisals(masked_lm, masked_tokenizer, TEXT), []
    monkeypatch.setattr(interpretation, "TOKENS_AT_ONCE", 3 * len(masked_tokenizer(TEXT)["input_ids"]))
    masked_lm.register_forward_hook(lambda *arguments: sizes.append(len(arguments[-1].logits)))
    batched = pseudo_surprisals(masked_lm, masked_tokenizer, TEXT)
    assert [bits for _, bits in batched] == pytest.approx([bits for _, bits in expected], rel=1e-4)
    assert sizes == [3, 3, 2]


def test_bad_texts_and_models_are_refused(causal_lm, causal_tokenizer, masked_lm, masked_tokenizer):
    with pytest.raises(ValueError, match="use pseudo_surprisals"):
        token_surprisals(masked_lm, masked_tokenizer, TEXT)
    with pytest.raises(ValueError, match="use token_surprisals"):
        pseudo_surprisals(causal_lm, causal_tokenizer, TEXT)
    with pytest.raises(ValueError, match=r"There is a \[MASK\] in"):
        pseudo_surprisals(masked_lm, masked_tokenizer, "life is [MASK]")


def test_a_text_that_cannot_be_filled_is_explained_and_replaced(masked_lm, masked_tokenizer, capsys, monkeypatch):
    monkeypatch.setattr(interpretation, "LONGEST", 8)
    for text, reason in {"a box of": r"no \[MASK\]", " ": "is empty", "[MASK] box box box box box box": "9 tokens",
                         "[MASK]" + " box" * 30: "33 tokens, but the model reads at most 32"}.items():
        assert fillable(masked_lm, masked_tokenizer, text) == "Life is like a [MASK] of chocolates."
        assert re.search(reason, capsys.readouterr().out)
    assert fillable(masked_lm, masked_tokenizer, "a [MASK] of [MASK]") == "a [MASK] of [MASK]"
    assert capsys.readouterr().out == ""


def test_induction_scores_are_the_mean_weights_at_the_token_after_the_earlier_occurrence(causal_lm, llama):
    ids = torch.randint(288, (3, 5)).repeat(1, 2)
    for model in (causal_lm, llama):
        scores = induction_scores(model, ids)
        weights = torch.stack(eager_attentions(model, input_ids=ids))
        looks = [weights[:, :, :, place, place - 5 + 1] for place in range(5, 10)]
        assert torch.allclose(scores, torch.stack(looks).mean(dim=(0, 2)), atol=1e-6)
        assert scores.shape == (model.config.num_hidden_layers, model.config.num_attention_heads)
    with pytest.raises(ValueError, match="does not repeat the first"):
        induction_scores(llama, torch.arange(6)[None])


def test_a_head_that_is_switched_off_is_one_whose_columns_of_the_output_matrix_are_zero(causal_lm, llama):
    ids = torch.randint(288, (2, 7))
    heads = [(1, 0), (0, 1), (1, 1)]
    for model in (causal_lm, llama):
        without = copy.deepcopy(model)
        for layer, head in heads:
            if model is llama:
                without.model.layers[layer].self_attn.o_proj.weight.data[:, 8 * head:8 * head + 8] = 0
            else:
                without.transformer.h[layer].attn.c_proj.weight.data[16 * head:16 * head + 16] = 0
        with torch.no_grad():
            before = model(ids).logits
            with heads_switched_off(model, heads):
                changed = model(ids).logits
            assert torch.allclose(changed, without(ids).logits, atol=1e-5)
            assert not torch.allclose(changed, before, atol=1e-2)
            assert torch.equal(model(ids).logits, before), "all heads are on again"


def test_the_heads_are_on_again_after_an_error_and_wrong_ones_are_named(causal_lm, masked_lm):
    ids = torch.randint(288, (1, 7))
    with torch.no_grad():
        before = causal_lm(ids).logits
        with pytest.raises(KeyError), heads_switched_off(causal_lm, [(0, 0)]):
            raise KeyError
        assert torch.equal(causal_lm(ids).logits, before)
    for model, head, layers in ((causal_lm, (0, 2), "GPT2LMHeadModel has 2"), (causal_lm, (-1, 0), "has 2"),
                                (causal_lm, (0, -1), "has 2"), (masked_lm, (0, 0), "BertForMaskedLM has 0")):
        message = f"There is no head {re.escape(str(head))}: .*{layers} layers of a Llama or a GPT-2 with 2 heads each"
        with pytest.raises(ValueError, match=message), heads_switched_off(model, [head]):
            pass
