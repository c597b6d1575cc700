"""Turn a model's logits into predictions and text, one decision at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.inference import Prediction, best_tokens, model_inputs

__all__ = ["Prediction", "filter_logits", "greedy_decode", "next_tokens", "sample_decode", "top_predictions"]


def top_predictions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, k: int = 5
) -> list[list[Prediction]]:
    """Return the ``k`` most probable tokens for each mask in ``text``, most probable first.

    The method is that of Devlin et al. 2019 (https://arxiv.org/abs/1810.04805): softmax over the logits at the
    masked position.

    Raises:
        ValueError: empty text, no mask in it, more tokens than the model can read, or ``k`` out of range.
    """
    inputs = model_inputs(model, tokenizer, text, k=k)
    if tokenizer.mask_token_id is None:
        raise ValueError(f"{type(tokenizer).__name__} has no mask token: this function needs a masked language model.")
    positions = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0]
    if len(positions) == 0:
        raise ValueError(f"There is no {tokenizer.mask_token} in {text!r}: put one where a word is to be predicted.")
    with torch.no_grad():
        logits = model(**inputs).logits[0, positions]
    return [best_tokens(row, tokenizer, k) for row in logits]


def next_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, k: int = 5
) -> list[Prediction]:
    """Return the ``k`` most probable next tokens after ``text``, most probable first.

    Raises:
        ValueError: empty text, more tokens than the model can read, or ``k`` out of range.
    """
    inputs = model_inputs(model, tokenizer, text, k=k)
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    return best_tokens(logits, tokenizer, k)


def greedy_decode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, max_new_tokens: int = 20
) -> torch.Tensor:
    """Continue ``text`` with the most probable token each time.

    Stops early after the end-of-text token.  Equal to ``model.generate(do_sample=False)``.

    Returns:
        Token ids of prompt and continuation, int64 of shape (1, tokens), on the CPU.

    Raises:
        ValueError: empty text, ``max_new_tokens`` < 1, or more tokens than the model can read.
    """
    return _decode(model, tokenizer, text, max_new_tokens, lambda logits: logits.argmax(dim=-1, keepdim=True))


def sample_decode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    max_new_tokens: int = 20,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator,
) -> torch.Tensor:
    """Continue ``text`` with tokens drawn at random from the filtered distribution.

    Args:
        temperature, top_k, top_p: see ``filter_logits``.
        generator: the source of randomness, on the CPU; the same seed gives the same text.

    Returns:
        Token ids of prompt and continuation, int64 of shape (1, tokens), on the CPU.

    Raises:
        ValueError: as ``greedy_decode`` and ``filter_logits``.
    """

    def draw(logits: torch.Tensor) -> torch.Tensor:
        kept = filter_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p)
        return torch.multinomial(kept.softmax(dim=-1), 1, generator=generator)

    return _decode(model, tokenizer, text, max_new_tokens, draw)


def filter_logits(
    logits: torch.Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> torch.Tensor:
    """Return ``logits / temperature`` with ``-inf`` for every token that top-k or top-p rules out.

    Top-k keeps the k best tokens (Fan et al. 2018, https://arxiv.org/abs/1805.04833); top-p keeps the smallest set of
    best tokens whose probability reaches p (Holtzman et al. 2020, https://arxiv.org/abs/1904.09751).

    Args:
        logits: floats of shape (vocabulary,).

    Raises:
        ValueError: ``temperature`` <= 0, ``top_k`` not between 1 and the vocabulary size, ``top_p`` not in (0, 1].
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be above 0; for the most probable token use greedy_decode.")
    if top_k is not None and not 1 <= top_k <= logits.numel():
        raise ValueError(f"top_k={top_k} must be between 1 and the vocabulary size, {logits.numel():,}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1.")
    logits = logits / temperature
    if top_k is not None:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    if top_p is not None and top_p < 1:  # at 1, rounding of the running sum would rule tokens out
        ranked, order = logits.sort(descending=True)
        probabilities = ranked.softmax(dim=-1)
        # A token stays while those ranked before it have not reached p yet, so the best one always stays.
        beyond = probabilities.cumsum(dim=-1) - probabilities >= top_p
        logits = logits.masked_fill(torch.empty_like(beyond).scatter(0, order, beyond), -torch.inf)
    return logits


@torch.no_grad()
def _decode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    max_new_tokens: int,
    choose: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Append the token that ``choose`` takes from the last logits (CPU, float32), with a key-value cache."""
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1.")
    ids = model_inputs(model, tokenizer, text, max_new_tokens=max_new_tokens)["input_ids"]
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    step, past = ids, None
    for _ in range(max_new_tokens):
        output = model(input_ids=step, past_key_values=past, use_cache=True)
        step = choose(output.logits[0, -1].float().cpu())[None].to(ids.device)
        past = output.past_key_values
        ids = torch.cat([ids, step], dim=-1)
        if step.item() in ends:
            break
    return ids.cpu()
