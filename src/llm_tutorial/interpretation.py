"""Look inside a language model: attention, layers, and how much each token surprises it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.decoding import Prediction, best_tokens, evaluating, model_inputs
from llm_tutorial.evaluation import perplexity

__all__ = [
    "Attention", "attention_weights", "layer_predictions", "pseudo_perplexity", "pseudo_surprisals",
    "token_surprisals",
]

# From a layer's hidden states to logits: all that the model itself does after its last layer.
_HEADS: dict[str, Callable[[PreTrainedModel], nn.Module]] = {
    "bert": lambda model: model.cls,  # a transform (linear, activation, norm), then the decoder
    "gpt2": lambda model: nn.Sequential(model.transformer.ln_f, model.lm_head),
    "llama": lambda model: nn.Sequential(model.model.norm, model.lm_head),
}


@dataclass(frozen=True, eq=False)
class Attention:
    """Which tokens each token of a text, or added by the tokenizer, looks at.

    ``weights[layer, head, i, j]`` is the share of its attention that token ``i`` gives to token ``j``: float32 of shape
    (layers, heads, tokens, tokens) on the CPU.
    """

    tokens: list[str]
    weights: torch.Tensor


def attention_weights(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> Attention:
    """Return the attention weights of all layers and heads while the model reads ``text``.

    The weights are the softmax in equation 1 of Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762).
    """
    inputs = model_inputs(model, tokenizer, text)
    # Only eager attention computes the weights. It is set in a copy that shares all tensors with the model.
    tensors = [*model.parameters(), *model.buffers()]
    eager = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    eager.set_attn_implementation("eager")
    with evaluating(eager):
        attentions = eager(**inputs, output_attentions=True).attentions
    return Attention(_texts(tokenizer, inputs["input_ids"][0]), torch.cat(attentions).float().cpu())


def layer_predictions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, k: int = 1
) -> list[list[list[Prediction]]]:
    """Return what the model would predict if it ended after each of its layers.

    This is the logit lens (nostalgebraist 2020, https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru): a layer's hidden
    states go through the model's whole head, which was trained for those of the last layer only.

    ``predictions[layer][position]`` holds the ``k`` most probable tokens. Layer 0 is the embeddings; the last layer's
    predictions are the model's own. A masked model predicts the token at the position, a causal model the next one.
    """
    family = model.config.model_type
    if family not in _HEADS or model.get_output_embeddings() is None:
        raise ValueError(f"{type(model).__name__} (model type {family!r}) is not supported: give a BERT, GPT-2 or "
                         "Llama with a language modeling head.")
    inputs = model_inputs(model, tokenizer, text)
    head = _HEADS[family](model)
    with evaluating(model):
        output = model(**inputs, output_hidden_states=True)
        # GPT-2 and Llama return their last hidden states after the final norm: the head would apply it twice.
        logits = chain((head(states)[0] for states in output.hidden_states[:-1]), [output.logits[0]])
        return [[best_tokens(row, tokenizer, k) for row in layer] for layer in logits]


def token_surprisals(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> list[tuple[str, float | None]]:
    """Return each token of ``text`` with its surprisal in bits, given the tokens before it.

    The surprisal is -log2 of the token's probability (Shannon 1948,
    https://doi.org/10.1002/j.1538-7305.1948.tb01338.x). The first token has None, since no token precedes it. The mean
    of the others is the model's loss on the text, in bits instead of nats.
    """
    if not model.can_generate():
        raise ValueError(f"{type(model).__name__} sees the tokens it is to predict: use pseudo_surprisals.")
    inputs = model_inputs(model, tokenizer, text)
    ids = inputs["input_ids"][0]
    with evaluating(model):
        logits = model(**inputs).logits[0, :-1]
    return list(zip(_texts(tokenizer, ids), [None, *_bits(logits, ids[1:])], strict=True))


def pseudo_surprisals(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[str, float]]:
    """Return each token of ``text`` with its surprisal in bits, given all other tokens.

    Each token is masked in turn (Salazar et al. 2020, https://arxiv.org/abs/1910.14659). The tokens that the tokenizer
    adds are left out.
    """
    mask = tokenizer.mask_token_id
    if mask is None:
        raise ValueError(f"{type(tokenizer).__name__} has no mask token: use token_surprisals for a causal model.")
    inputs = model_inputs(model, tokenizer, text)
    ids = inputs["input_ids"][0]
    if mask in ids:
        raise ValueError(f"There is a {tokenizer.mask_token} in {text!r}: give the text with all of its words.")
    added = tokenizer(text, return_special_tokens_mask=True)["special_tokens_mask"]
    positions = (torch.tensor(added) == 0).nonzero()[:, 0].to(ids.device)
    bits = []
    with evaluating(model):
        # The logits of 2,048 tokens take 250 MB for BERT.
        for masked in positions.split(max(1, 2048 // len(ids))):
            rows = torch.arange(len(masked), device=ids.device)
            batch = {name: row.repeat(len(masked), 1) for name, row in inputs.items()}
            batch["input_ids"][rows, masked] = mask
            bits += _bits(model(**batch).logits[rows, masked], ids[masked])
    return list(zip(_texts(tokenizer, ids[positions]), bits, strict=True))


def pseudo_perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> float:
    """Return the perplexity that belongs to the mean of ``pseudo_surprisals``, 1 or more.

    Use it to compare masked models with the same tokenizer. It is not the perplexity of the text: probabilities that
    are each given all other tokens do not multiply to the text's probability (Salazar et al. 2020, section 2.3).
    """
    return perplexity(fmean(bits for _, bits in pseudo_surprisals(model, tokenizer, text)) * math.log(2))


def _bits(logits: torch.Tensor, ids: torch.Tensor) -> list[float]:
    """-log2 of the probability of each of ``ids``, shape (tokens,), in ``logits``, shape (tokens, vocabulary)."""
    return (cross_entropy(logits.float(), ids, reduction="none") / math.log(2)).abs().tolist()  # no -0.0


def _texts(tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor) -> list[str]:
    return [tokenizer.decode([index]) for index in ids.tolist()]
