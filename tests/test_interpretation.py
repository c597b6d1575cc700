"""Attention and the logit lens against what transformers computes, on tiny models of three families."""

import copy

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from llm_tutorial.interpretation import Attention, attention_to_the_right, attention_weights, layer_predictions

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


def cut(model, layers: int):
    """The same model without its last layers."""
    short = copy.deepcopy(model)
    short.config.num_hidden_layers = layers
    body = short.base_model
    if model.config.model_type == "bert":
        body.encoder.layer = body.encoder.layer[:layers]
    elif model.config.model_type == "gpt2":
        body.h = body.h[:layers]
    else:
        body.layers = body.layers[:layers]
    return short


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
    assert attention.weights.dtype == torch.float32
    assert torch.allclose(attention.weights.sum(dim=-1), torch.ones(()), atol=1e-5)
    assert attention.tokens == [tokenizer.decode([index]) for index in inputs["input_ids"][0]]


@pytest.mark.parametrize("before", ["sdpa", "eager"])
def test_the_model_gets_its_implementation_of_attention_back(before, pair):
    model, tokenizer = pair
    model.set_attn_implementation(before)
    model.train()
    with torch.no_grad():
        logits = model.eval()(**tokenizer(TEXT, return_tensors="pt")).logits
        model.train()
        attention_weights(model, tokenizer, TEXT)
        assert model.config._attn_implementation == before
        assert model.training
        assert torch.equal(model.eval()(**tokenizer(TEXT, return_tensors="pt")).logits, logits)


def test_the_model_gets_its_implementation_of_attention_back_after_an_error(pair, monkeypatch):
    model, tokenizer = pair

    def fail(**_):
        raise RuntimeError("out of memory")

    before = model.config._attn_implementation
    assert before == "sdpa"
    monkeypatch.setattr(model, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        attention_weights(model, tokenizer, TEXT)
    assert model.config._attn_implementation == before


def test_attention_of_a_model_in_half_precision_is_float32(pair):
    model, tokenizer = pair
    assert attention_weights(model.bfloat16(), tokenizer, TEXT).weights.dtype == torch.float32


def test_a_causal_model_has_no_attention_to_the_right_and_a_masked_one_has(pair):
    model, tokenizer = pair
    attention = attention_weights(model, tokenizer, TEXT)
    shares = torch.stack([attention_to_the_right(attention, i) for i in range(len(attention.tokens))])
    assert shares.shape == (len(attention.tokens), *attention.weights.shape[:2])
    if model.config.model_type == "bert":
        assert shares[:-1].min() > 0
    else:
        assert shares.max() == 0
    assert (shares[-1] == 0).all()  # nothing is later than the last token


def test_attention_to_the_right_counts_later_tokens_only():
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]).view(1, 1, 3, 3)
    attention = Attention(["a", "b", "c"], weights)
    assert [attention_to_the_right(attention, i).item() for i in range(3)] == pytest.approx([0.5, 0.7, 0.0])
    for position in (-1, 3):
        with pytest.raises(ValueError, match=f"position={position} must be between 0 and 2"):
            attention_to_the_right(attention, position)


def test_the_last_layer_predicts_what_the_model_predicts(pair):
    model, tokenizer = pair
    with torch.no_grad():
        logits = model(**tokenizer(TEXT, return_tensors="pt")).logits[0]
    values, indices = logits.softmax(dim=-1).topk(3)
    last = layer_predictions(model, tokenizer, TEXT, k=3)[-1]
    assert [[p.id for p in row] for row in last] == indices.tolist()
    assert torch.allclose(torch.tensor([[p.probability for p in row] for row in last]), values, atol=1e-6)


def test_every_layer_predicts_what_a_model_that_ends_there_predicts(pair):
    model, tokenizer = pair
    inputs = tokenizer(TEXT, return_tensors="pt")
    layers = layer_predictions(model, tokenizer, TEXT, k=2)
    assert len(layers) == model.config.num_hidden_layers + 1
    best = []
    for number, predictions in enumerate(layers):
        with torch.no_grad():
            values, indices = cut(model, number)(**inputs).logits[0].softmax(dim=-1).topk(2)
        assert [[p.id for p in row] for row in predictions] == indices.tolist()
        assert torch.allclose(torch.tensor([[p.probability for p in row] for row in predictions]), values, atol=1e-5)
        assert all(p.token == tokenizer.decode([p.id]) for row in predictions for p in row)
        best.append([(row[0].id, round(row[0].probability, 2)) for row in predictions])
    assert len(set(map(tuple, best))) == len(layers)  # otherwise the test could not tell layers apart


def test_attention_of_a_model_in_training_has_no_dropout(pair):
    model, tokenizer = pair
    for module in model.modules():  # wherever a family keeps its rate
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    expected = attention_weights(model, tokenizer, TEXT)
    assert torch.equal(attention_weights(model.train(), tokenizer, TEXT).weights, expected.weights)


def test_layer_predictions_of_a_model_in_training_have_no_dropout(pair):
    model, tokenizer = pair
    expected = layer_predictions(model, tokenizer, TEXT)
    assert layer_predictions(model.train(), tokenizer, TEXT) == expected
    assert model.training


@pytest.mark.parametrize("call", [attention_weights, layer_predictions])
def test_empty_and_long_texts_are_refused(call, pair):
    with pytest.raises(ValueError, match="The text is empty"):
        call(*pair, " ")
    with pytest.raises(ValueError, match="but the model reads at most"):
        call(*pair, TEXT * 20)


@pytest.mark.parametrize("k", [0, 10_000])
def test_k_out_of_range_is_refused(k, pair):
    with pytest.raises(ValueError, match=f"k={k} must be between 1 and the vocabulary size"):
        layer_predictions(*pair, TEXT, k=k)


@pytest.mark.parametrize("make", [
    lambda: BertForSequenceClassification(BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)),
    lambda: GPTNeoXForCausalLM(GPTNeoXConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)),
])
def test_models_without_a_known_head_are_refused(make, masked_tokenizer):
    with pytest.raises(ValueError, match="is not supported: give a BERT, GPT-2 or Llama"):
        layer_predictions(make(), masked_tokenizer, TEXT)
