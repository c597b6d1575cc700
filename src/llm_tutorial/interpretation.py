"""Look inside a language model: where its heads attend, and what its layers would predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.inference import Prediction, best_tokens, evaluating, model_inputs

__all__ = ["Attention", "attention_to_the_right", "attention_weights", "layer_predictions"]

# From a layer's hidden states to logits: all that the model itself does after its last layer.
_HEADS: dict[str, Callable[[PreTrainedModel], nn.Module]] = {
    "bert": lambda model: model.cls,  # a transform (linear, activation, norm), then the decoder
    "gpt2": lambda model: nn.Sequential(model.transformer.ln_f, model.lm_head),
    "llama": lambda model: nn.Sequential(model.model.norm, model.lm_head),
}


@dataclass(frozen=True, eq=False)
class Attention:
    """Which tokens each token of a text looks at.

    Attributes:
        tokens: the decoded text of each token, those that the tokenizer adds among them.
        weights: float32 of shape (layers, heads, tokens, tokens) on the CPU.  ``weights[layer, head, i, j]`` is the
            share of its attention that token ``i`` gives to token ``j``: every row sums to 1.
    """

    tokens: list[str]
    weights: torch.Tensor


def attention_weights(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> Attention:
    """Return the attention weights of all layers and heads while the model reads ``text``.

    The weights are the softmax of Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762), equation 1.  Only the eager
    implementation of attention computes them as such; the model gets back the one it had.

    Raises:
        ValueError: empty text, or more tokens than the model can read.
    """
    inputs = model_inputs(model, tokenizer, text)
    with evaluating(model), _eager(model):
        attentions = model(**inputs, output_attentions=True).attentions
    tokens = [tokenizer.decode([index]) for index in inputs["input_ids"][0].tolist()]
    return Attention(tokens, torch.cat(attentions).float().cpu())


def attention_to_the_right(attention: Attention, position: int) -> torch.Tensor:
    """Return the share of its attention that the token at ``position`` gives to later tokens, from 0 to 1.

    A causal model has none: its mask rules later tokens out.

    Returns:
        float32 of shape (layers, heads).

    Raises:
        ValueError: there is no such position.
    """
    if not 0 <= position < len(attention.tokens):
        raise ValueError(f"position={position} must be between 0 and {len(attention.tokens) - 1}, the last token's.")
    return attention.weights[:, :, position, position + 1:].sum(dim=-1)


def layer_predictions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, k: int = 1
) -> list[list[list[Prediction]]]:
    """Return what the model would predict if it ended after each of its layers.

    The logit lens (nostalgebraist 2020, https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru): the hidden states of a
    layer go through the whole head of the model, which was trained for those of the last layer only.

    Returns:
        ``predictions[layer][position]``, the ``k`` most probable tokens, most probable first.  Layer 0 are the
        embeddings; the last layer's predictions are the model's own.  A masked model predicts the token at the
        position, a causal one the next.

    Raises:
        ValueError: empty text, more tokens than the model can read, ``k`` out of range, or a model that is no BERT,
            GPT-2 or Llama with a language model's head.
    """
    family = model.config.model_type
    if family not in _HEADS or model.get_output_embeddings() is None:
        raise ValueError(f"{type(model).__name__} (model type {family!r}) is not supported: give a BERT, GPT-2 or "
                         "Llama with the head of a language model.")
    inputs = model_inputs(model, tokenizer, text, k=k)
    head = _HEADS[family](model)
    with evaluating(model):
        output = model(**inputs, output_hidden_states=True)
        # The last hidden states of GPT-2 and Llama have gone through the final norm already: a second time would
        # change them.  The model's logits are what comes of them.
        layers = [[best_tokens(row, tokenizer, k) for row in head(states)[0]] for states in output.hidden_states[:-1]]
    return [*layers, [best_tokens(row, tokenizer, k) for row in output.logits[0]]]


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Attention computed step by step, and afterwards the implementation from before."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
