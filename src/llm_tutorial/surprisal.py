"""How much each token of a text surprises a model, in numbers and as coloured text."""

from __future__ import annotations

import html
import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.evaluation import perplexity
from llm_tutorial.inference import evaluating, model_inputs

__all__ = ["SurprisalText", "pseudo_perplexity", "pseudo_surprisals", "surprisal_text", "token_surprisals"]

_BATCH = 32, 2048  # at most so many rows, and so many tokens in them: the logits of 2,048 tokens take 250 MB for BERT

# Each step from its number of bits on, with its colours and the thickness of its line in pixels.  The backgrounds are
# ColorBrewer's YlGnBu (https://colorbrewer2.org), which all kinds of colour vision can order.
_BOUNDS = 1, 2, 4, 8, 16
_STEPS = (
    ("#ffffcc", "#000000"), ("#c7e9b4", "#000000"), ("#7fcdbb", "#000000"), ("#41b6c4", "#000000"),
    ("#2c7fb8", "#000000"), ("#253494", "#ffffff"),
)
_UNKNOWN = "#ffffff", "#000000"


def token_surprisals(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> list[tuple[str, float | None]]:
    """Return each token of ``text`` with its surprisal in bits, given the tokens before it.

    The surprisal is -log2 of the token's probability (Shannon 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x).
    The first token has None: nothing stands before it.  The mean of the others is the model's loss on the text, in
    bits instead of nats.

    Raises:
        ValueError: empty text, more tokens than the model can read, or a model that does not read from left to right.
    """
    if not model.can_generate():
        raise ValueError(f"{type(model).__name__} sees the tokens it is to predict: use pseudo_surprisals.")
    inputs = model_inputs(model, tokenizer, text)
    ids = inputs["input_ids"][0]
    with evaluating(model):
        logits = model(**inputs).logits[0, :-1]
    return list(zip(_texts(tokenizer, ids), [None, *_bits(logits, ids[1:])], strict=True))


def pseudo_surprisals(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> list[tuple[str, float]]:
    """Return each token of ``text`` with its surprisal in bits, given all other tokens.

    Each token is masked in turn (Salazar et al. 2020, https://arxiv.org/abs/1910.14659).  A word of several tokens
    surprises little once some of them are seen.  The tokens that the tokenizer adds are left out.

    Raises:
        ValueError: empty text, a mask in it, more tokens than the model can read, or no masked language model.
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
    if len(positions) == 0:
        raise ValueError(f"No token is left of {text!r}: give the model at least one word.")
    bits = []
    with evaluating(model):
        for masked in positions.split(min(_BATCH[0], max(1, _BATCH[1] // len(ids)))):
            rows = torch.arange(len(masked), device=ids.device)
            batch = {name: row.repeat(len(masked), 1) for name, row in inputs.items()}
            batch["input_ids"][rows, masked] = mask
            bits += _bits(model(**batch).logits[rows, masked], ids[masked])
    return list(zip(_texts(tokenizer, ids[positions]), bits, strict=True))


def pseudo_perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> float:
    """Return 2 to the mean of ``pseudo_surprisals``: as unsure as among so many equal choices, 1 or more.

    It is no perplexity: the probabilities, each given all other tokens, do not multiply to one of the text (Salazar
    et al. 2020, section 2.3).  It compares masked models with the same tokenizer.

    Raises:
        ValueError: as ``pseudo_surprisals``.
    """
    bits = [bits for _, bits in pseudo_surprisals(model, tokenizer, text)]
    return perplexity(sum(bits) / len(bits) * math.log(2))


@dataclass(frozen=True)
class SurprisalText:
    """Tokens on coloured ground, each above its bits; in plain text, the bits in brackets.

    The page of a notebook shows it without scripts or style sheets.  Each token brings its own text colour and
    background, so that it is readable in a dark theme; the line under it grows with its bits; and where all styles are
    removed, as on GitHub, the numbers remain.

    Attributes:
        pairs: tokens with their bits; None where there are none.
        caption: what the text is.
    """

    pairs: tuple[tuple[str, float | None], ...]
    caption: str = ""

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self._html(), "text/plain": str(self)}

    def __str__(self) -> str:
        line = self._gap().join(f"{_visible(token)}({_number(bits)})" for token, bits in self.pairs)
        return f"{self.caption}: {line}" if self.caption else line

    def _html(self) -> str:
        lines = [self._gap().join(_span(_visible(token), bits) for token, bits in line) for line in self._lines()]
        caption = f"<div><b>{html.escape(self.caption)}</b></div>" if self.caption else ""
        text = "".join(f'<div style="line-height:1.3;margin:2px 0">{line}</div>' for line in lines)
        return f'<div style="font-size:14px">{caption}{text}{self._legend()}</div>'

    def _gap(self) -> str:
        """A space where no token begins with one, as in BERT, to keep words apart without styles."""
        return "" if any(token.startswith(" ") for token, _ in self.pairs) else " "

    def _lines(self) -> Iterator[list[tuple[str, float | None]]]:
        """The pairs, ending a line after each token that ends one."""
        line = []
        for token, bits in self.pairs:
            line.append((token, bits))
            if "\n" in token:
                yield line
                line = []
        if line:
            yield line

    def _legend(self) -> str:
        names = ["below 1", *(f"{low} to {high}" for low, high in pairwise(_BOUNDS)),
                 f"{_BOUNDS[-1]} and more"]
        steps = ", ".join(_box(name, step) for step, name in enumerate(names))
        parts = " � is a part of a character." if any("\N{REPLACEMENT CHARACTER}" in t for t, _ in self.pairs) else ""
        return (f'<div style="margin:6px 0 0 0"><small>Bits of surprisal: {steps}. One bit more halves the probability.'
                f"{parts}</small></div>")


def surprisal_text(pairs: Sequence[tuple[str, float | None]], *, caption: str = "") -> SurprisalText:
    """Return tokens and their bits, as ``token_surprisals`` or ``pseudo_surprisals`` give them, as coloured text.

    Raises:
        ValueError: there are no tokens, or a number is no surprisal.
    """
    if not pairs:
        raise ValueError("There is nothing to show: give at least one token with its surprisal.")
    for token, bits in pairs:
        if bits is not None and not bits >= 0:
            raise ValueError(f"The token {token!r} has {bits} bits: a surprisal is 0 or more.")
    return SurprisalText(tuple((token, bits) for token, bits in pairs), caption)


def _bits(logits: torch.Tensor, ids: torch.Tensor) -> list[float]:
    """-log2 of the probability of each of ``ids``, shape (tokens,), in ``logits``, shape (tokens, vocabulary)."""
    return (cross_entropy(logits.float(), ids, reduction="none") / math.log(2)).abs().tolist()  # no -0.0


def _texts(tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor) -> list[str]:
    return [tokenizer.decode([index]) for index in ids.tolist()]


def _visible(token: str) -> str:
    """The token with a mark for line breaks, tabs, and spaces without a word, and escapes for what leaves no mark."""
    if not token.strip(" "):
        return "␣" * len(token) or "∅"
    marks = token.replace("\n", "↵").replace("\t", "⇥")
    return re.sub(r"[^ -~]", lambda c: c[0] if c[0].isprintable() else c[0].encode("unicode_escape").decode(), marks)


def _number(bits: float | None) -> str:
    return "–" if bits is None else f"{bits:.1f}"


def _span(text: str, bits: float | None) -> str:
    # By the number as it is shown: 0.96 is shown as 1.0 and has the colour of 1.
    step = None if bits is None else bisect_right(_BOUNDS, round(bits, 1))
    return _box(text, step, _number(bits))


def _box(text: str, step: int | None, number: str = "") -> str:
    """HTML of one token: coloured, underlined, with its number below."""
    background, colour = _UNKNOWN if step is None else _STEPS[step]
    line = step or 0
    outer = ("display:inline-block;text-align:center;margin:1px;padding:1px 2px;"
             f"vertical-align:{'top' if number else 'baseline'};background-color:{background};color:{colour}")
    inner = (f"display:block;white-space:pre;border-bottom:{line}px solid {colour};"
             f"margin-bottom:{len(_BOUNDS) - line}px")  # so that all are equally high
    below = "display:block;position:static;font-size:10px;line-height:1.3"  # notebooks shift <sub> down
    return (f'<span style="{outer}"><span style="{inner}">{html.escape(text)}</span>'
            + (f'<sub style="{below}">{number}</sub>' if number else "") + "</span>")
