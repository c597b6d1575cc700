"""Attention and surprisals against what transformers computes, on tiny models of three families."""

import copy
import math
import re

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    pipeline,
)
from transformers.modeling_outputs import CausalLMOutput

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
    """A model and its tokenizer; all norms have weights of their own, so that one too many or too few is seen."""
    model, tokenizer = {"bert": (masked_lm, masked_tokenizer), "gpt2": (causal_lm, causal_tokenizer),
                        "llama": (llama, causal_tokenizer)}[request.param]
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "norm" in name.lower() or "ln_" in name:
            nn.init.uniform_(parameter.data, 0.5, 2.0)
    return model, tokenizer


def with_dropout(model):
    """The model in training, with dropout wherever its family has it."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    return model.train()


def test_attention_equals_that_of_an_eager_model(pair):
    model, tokenizer = pair
    attention = attention_weights(model, tokenizer, TEXT)
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    inputs = tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        expected = torch.cat(eager(**inputs, output_attentions=True).attentions)
    assert torch.equal(attention.weights, expected)
    count = inputs["input_ids"].shape[1]
    config = model.config
    assert attention.weights.shape == (config.num_hidden_layers, config.num_attention_heads, count, count)
    assert torch.allclose(attention.weights.sum(dim=-1), torch.ones(()), atol=1e-5)
    assert attention.tokens == [tokenizer.decode([index]) for index in inputs["input_ids"][0]]
    future = attention.weights.triu(diagonal=1)
    assert (future.max() > 0) == (config.model_type == "bert"), "causal models do not look ahead"


@pytest.mark.parametrize("before", ["sdpa", "eager"])
def test_attention_leaves_the_model_as_it_was_and_copies_no_weights(before, pair, monkeypatch):
    def refuse(*_):
        raise AssertionError("a weight was copied")

    model, tokenizer = pair
    model.set_attn_implementation(before)
    with_dropout(model)
    settings = copy.deepcopy(vars(model.config))
    monkeypatch.setattr(nn.Parameter, "__deepcopy__", refuse)
    attention_weights(model, tokenizer, TEXT)
    assert vars(model.config) == settings


def test_a_model_in_training_is_read_without_dropout_and_stays_in_training(pair):
    model, tokenizer = pair
    surprisals = token_surprisals if model.can_generate() else pseudo_surprisals
    calls = (lambda *given: attention_weights(*given).weights.tolist(), surprisals)
    expected = [call(model, tokenizer, TEXT) for call in calls]
    with_dropout(model)
    assert [call(model, tokenizer, TEXT) for call in calls] == expected
    assert model.training


def test_token_surprisals_sum_to_the_loss(causal_lm, causal_tokenizer):
    pairs = token_surprisals(causal_lm, causal_tokenizer, TEXT)
    inputs = causal_tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        outputs = causal_lm(**inputs, labels=inputs["input_ids"])
    assert "".join(token for token, _ in pairs) == TEXT
    assert pairs[0] == ("l", None)
    bits = [bits for _, bits in pairs[1:]]
    assert sum(bits) * math.log(2) / len(bits) == pytest.approx(outputs.loss.item(), rel=1e-5)
    probabilities = outputs.logits[0].softmax(dim=-1)
    assert 2 ** -bits[3] == pytest.approx(probabilities[3, inputs["input_ids"][0, 4]].item(), rel=1e-4)


def test_a_certain_token_has_zero_bits_without_a_sign(causal_lm, causal_tokenizer):
    certain = torch.zeros(1, 2, len(causal_tokenizer))
    certain[..., causal_tokenizer.convert_tokens_to_ids("i")] = 1000.0
    causal_lm.register_forward_hook(lambda *_: CausalLMOutput(logits=certain))
    assert str(token_surprisals(causal_lm, causal_tokenizer, "xi")) == "[('x', None), ('i', 0.0)]"


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


def test_long_texts_are_read_in_batches_of_limited_size(masked_tokenizer):
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(
        vocab_size=len(masked_tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, max_position_embeddings=128, initializer_range=0.5)).eval()
    text, sizes = "a box of chocolates " * 25, []
    ids = masked_tokenizer(text, return_tensors="pt", verbose=False)["input_ids"][0]
    rows = ids.repeat(100, 1)
    rows[range(100), range(1, 101)] = masked_tokenizer.mask_token_id
    with torch.no_grad():
        losses = cross_entropy(model(rows).logits[range(100), range(1, 101)], ids[1:-1], reduction="none")
    model.register_forward_hook(lambda *arguments: sizes.append(len(arguments[-1].logits)))
    bits = [bits for _, bits in pseudo_surprisals(model, masked_tokenizer, text)]
    assert bits == pytest.approx((losses / math.log(2)).tolist(), rel=1e-4)
    assert sizes == [20] * 5, "2,048 tokens at once"


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
        eager = copy.deepcopy(model)
        eager.set_attn_implementation("eager")
        with torch.no_grad():
            weights = torch.stack(eager(ids, output_attentions=True).attentions)
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
        width = 32 // model.config.num_attention_heads
        for layer, head in heads:
            columns = slice(head * width, (head + 1) * width)
            if model is llama:
                without.model.layers[layer].self_attn.o_proj.weight.data[:, columns] = 0
            else:
                without.transformer.h[layer].attn.c_proj.weight.data[columns] = 0
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
    with pytest.raises(ValueError, match=r"no head \(0, 2\)"), heads_switched_off(causal_lm, [(0, 2)]):
        pass
    with pytest.raises(ValueError, match="use a Llama or a GPT-2"), heads_switched_off(masked_lm, [(0, 0)]):
        pass
