"""Look inside a language model: where it looks, and how much each token surprises it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import fmean

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.decoding import evaluating, model_inputs, top_predictions
from llm_tutorial.evaluation import perplexity

__all__ = [
    "Attention", "attention_weights", "fillable", "heads_switched_off", "induction_scores", "pseudo_perplexity",
    "pseudo_surprisals", "token_surprisals",
]

FILM = "Life is like a [MASK] of chocolates."
LONGEST = 40  # tokens of a sentence of the reader's own: its pictures still fit one screen
TOKENS_AT_ONCE = 2048  # their logits take 250 MB for BERT


@dataclass(frozen=True, eq=False)
class Attention:
    """Which tokens each token of a text looks at, those included that the tokenizer adds.

    ``weights[layer, head, i, j]`` is the share of its attention that token ``i`` gives to token ``j``: float32 of shape
    (layers, heads, tokens, tokens) on the CPU.
    """

    tokens: list[str]
    weights: torch.Tensor


def fillable(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Return ``text`` if the model can fill a mask in it; else say what is wrong, and return a line of a film."""
    try:
        top_predictions(model, tokenizer, text, k=1)
        if (count := len(tokenizer(text)["input_ids"])) > LONGEST:
            raise ValueError(f"The text has {count} tokens, but the pictures have room for {LONGEST}: shorten it.")
    except ValueError as error:
        print(f"{error}\nUntil then, the cells below go on with: {FILM}")
        return FILM
    return text


def attention_weights(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> Attention:
    """Return the attention weights of all layers and heads while the model reads ``text``.

    The weights are the softmax in equation 1 of Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762).
    """
    inputs = model_inputs(model, tokenizer, text)
    return Attention(_texts(tokenizer, inputs["input_ids"][0]), torch.cat(_attentions(model, inputs)).float().cpu())


def induction_scores(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return how strongly each head of a causal model looks at what followed a token when it stood there before.

    ``ids`` are texts of which the second half repeats the first, int64 of shape (texts, tokens), on the model's device.
    A score is the mean weight, over texts and positions of the second half, that goes to the token after the earlier
    occurrence: float32 of shape (layers, heads), on the CPU (Olsson et al. 2022, https://arxiv.org/abs/2209.11895).
    """
    half = ids.shape[1] // 2
    if ids.shape[1] < 4 or not torch.equal(ids[:, :half], ids[:, half:]):
        raise ValueError(f"The second half of the {ids.shape[1]} tokens does not repeat the first: give ids that were "
                         "made with ids.repeat(1, 2), at least two of them.")
    weights = torch.stack(_attentions(model, {"input_ids": ids}))  # (layers, texts, heads, tokens, tokens)
    return weights.diagonal(1 - half, -2, -1)[..., 1:].float().mean(dim=(1, 3)).cpu()


@contextmanager
def heads_switched_off(model: PreTrainedModel, heads: Iterable[tuple[int, int]]) -> Iterator[None]:
    """Inside the block, give zeros in place of what these heads, pairs of layer and head, have looked up.

    The zeros are put in where the vectors of all heads enter their common output matrix: ``o_proj`` in Llama,
    ``c_proj`` in GPT-2.
    """
    outputs = [module for name, module in model.named_modules() if name.endswith(("self_attn.o_proj", "attn.c_proj"))]
    count = model.config.num_attention_heads
    with ExitStack() as hooks:
        for layer, head in heads:
            if not (0 <= layer < len(outputs) and 0 <= head < count):
                raise ValueError(f"There is no head {layer, head}: {type(model).__name__} has {len(outputs)} layers of "
                                 f"a Llama or a GPT-2 with {count} heads each, counted from 0.")

            def without(_module, given, head=head):
                mixed = given[0].clone()
                mixed.unflatten(-1, (count, -1))[..., head, :] = 0
                return (mixed,)

            hooks.callback(outputs[layer].register_forward_pre_hook(without).remove)
        yield


def token_surprisals(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> list[tuple[str, float | None]]:
    """Return each token of ``text`` with its surprisal in bits, given the tokens before it.

    It is -log2 of the token's probability (Shannon 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x). The first
    token has None, since no token precedes it. The mean of the others is the model's loss on the text, in bits.
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
        for masked in positions.split(max(1, TOKENS_AT_ONCE // len(ids))):
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


def _attentions(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The weights of each layer, of shape (texts, heads, tokens, tokens)."""
    # Only eager attention computes the weights. It is set in a copy that shares all tensors with the model.
    tensors = [*model.parameters(), *model.buffers()]
    eager = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    eager.set_attn_implementation("eager")
    with evaluating(eager):
        return eager(**inputs, output_attentions=True).attentions


def _bits(logits: torch.Tensor, ids: torch.Tensor) -> list[float]:
    """-log2 of the probability of each of ``ids``, shape (tokens,), in ``logits``, shape (tokens, vocabulary)."""
    return (cross_entropy(logits.float(), ids, reduction="none") / math.log(2)).abs().tolist()  # no -0.0


def _texts(tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor) -> list[str]:
    return [tokenizer.decode([index]) for index in ids.tolist()]
