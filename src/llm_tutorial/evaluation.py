"""Measure what a language model knows and what it has learnt by heart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.inference import evaluating

__all__ = ["Recitation", "bits_per_byte", "continuations", "longest_copies", "perplexity", "recitation",
           "recited_share"]


@dataclass(frozen=True)
class Recitation:
    """How well a model continues texts it may have seen.

    Attributes:
        token_accuracy: share of continuation tokens that equal the text's, from 0 to 1.
        exact_match: share of continuations that equal the text's in every token, from 0 to 1.
        character_accuracy: share of the text's characters that are recited before the first mistake, from 0 to 1;
            None if there was no tokenizer to decode with, and then it is missing from ``vars`` too.
    """

    token_accuracy: float
    exact_match: float
    character_accuracy: float | None = None

    def __post_init__(self) -> None:
        # Tables are made of vars(recitation): what was not measured gets no row there.  The attribute of the class,
        # which dataclass sets to the default, still answers None.
        if self.character_accuracy is None:
            vars(self).pop("character_accuracy")


def perplexity(loss: float) -> float:
    """Return e to the mean cross-entropy ``loss`` in nats per token: as unsure as among so many equal choices.

    Raises:
        ValueError: the loss is negative or not a number.
    """
    if not loss >= 0:
        raise ValueError(f"loss={loss} is no cross-entropy: it must be 0 or more.")
    return math.exp(loss) if loss < 700 else math.inf


def bits_per_byte(loss: float, tokens: int, text_bytes: int) -> float:
    """Return the information per byte of text, which compares models with different tokenizers.

    Args:
        loss: mean cross-entropy in nats per token.
        tokens: number of tokens the mean was taken over.
        text_bytes: length in UTF-8 bytes of the text that those tokens stand for.

    Raises:
        ValueError: the loss is negative or not a number, or a count is not positive.
    """
    if not loss >= 0 or tokens < 1 or text_bytes < 1:
        raise ValueError(f"loss={loss}, tokens={tokens}, text_bytes={text_bytes}: the loss must be 0 or more, "
                         "the counts 1 or more.")
    return loss / math.log(2) * tokens / text_bytes


def recitation(
    model: PreTrainedModel,
    chunks: Sequence[Sequence[int]],
    prompt: int = 16,
    continuation: int = 16,
    batch_size: int = 64,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Recitation:
    """Give the model the first ``prompt`` tokens of each chunk and compare its greedy continuation with the text.

    Extractable memorisation as in Carlini et al. 2023 (https://arxiv.org/abs/2202.07646), here with short prompts.

    Args:
        chunks: token ids; every chunk has at least ``prompt + continuation`` of them.
        tokenizer: counts characters as well, which compares models whose tokens differ in length (prompt and
            continuation still are numbers of tokens: choose them so that they stand for similar lengths of text).
            A character whose bytes are split between tokens belongs to the continuation if its last byte does; one
            that the text's continuation leaves incomplete at its end does not count.

    Raises:
        ValueError: no chunks, lengths below 1, a chunk too short, more tokens than the model has positions, or no
            complete character to count.
    """
    rows = _rows(model, chunks, prompt, continuation, batch_size)
    written = continuations(model, chunks, prompt, continuation, batch_size)
    hits = torch.tensor(written) == rows[:, prompt:]
    return Recitation(
        token_accuracy=hits.float().mean().item(),
        exact_match=hits.all(dim=1).float().mean().item(),
        character_accuracy=None if tokenizer is None else _character_accuracy(tokenizer, rows.tolist(), written))


def continuations(
    model: PreTrainedModel,
    chunks: Sequence[Sequence[int]],
    prompt: int = 16,
    continuation: int = 16,
    batch_size: int = 64,
) -> list[list[int]]:
    """Return, for each chunk, the ``continuation`` token ids that the model writes greedily after ``prompt`` of them.

    The end-of-text token is forbidden, so that all have the same length.

    Raises:
        ValueError: no chunks, lengths below 1, a chunk too short, or more tokens than the model has positions.
    """
    rows = _rows(model, chunks, prompt, continuation, batch_size)
    written = []
    with evaluating(model):
        for batch in rows[:, :prompt].split(batch_size):
            prompts = batch.to(model.device)
            output = model.generate(
                input_ids=prompts, attention_mask=torch.ones_like(prompts), do_sample=False,
                max_new_tokens=continuation, min_new_tokens=continuation,
                pad_token_id=0)  # never written, as all rows end together; but generate() warns if there is none
            written += output[:, prompt:].tolist()
    return written


def recited_share(
    model: PreTrainedModel,
    chunks: Sequence[Sequence[int]],
    prompt: int = 16,
    continuation: int = 16,
    batch_size: int = 64,
) -> float:
    """Return ``recitation(...).exact_match`` from one forward pass per batch instead of one per token.

    A greedy continuation equals the text in every token exactly if, given the text itself, the most probable token
    at every position is the text's next one.  Proof by induction: as long as all tokens so far are the text's, the
    model has read the same and so writes the same next token; the first one that differs ends both.

    The equality is exact but for ties and rounding, and for settings in ``model.generation_config`` that change
    logits, such as a repetition penalty, which only ``recitation`` heeds.

    Raises:
        ValueError: as ``continuations``.
    """
    rows = _rows(model, chunks, prompt, continuation, batch_size)
    exact = []
    with evaluating(model):
        for batch in rows.to(model.device).split(batch_size):
            inputs = batch[:, :-1]  # nothing is predicted after the last token
            logits = model(input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False,
                           logits_to_keep=continuation).logits
            best = _without_ends(model, logits).argmax(dim=-1)
            exact.append((best == batch[:, prompt:]).all(dim=1).cpu())
    return torch.cat(exact).float().mean().item()


def longest_copies(sequences: Sequence[Sequence[int]], source: Sequence[Sequence[int]]) -> list[int]:
    """Return, for each sequence, the length of its longest run of tokens that also stands within one row of ``source``.

    This is the longest common substring.  Lee et al. 2022 (https://arxiv.org/abs/2107.06499) look for such runs, of
    50 tokens or more, within the training data and in what a model generates.

    Runs of 1 token are looked for everywhere, longer ones only where the shorter one was found; so the time is that
    of a few passes over ``source``, and more only for text that repeats itself.

    Args:
        sequences: token ids, for instance what a model wrote; may differ in length.
        source: rows of token ids, for instance what the model was trained on; may differ in length.

    Raises:
        ValueError: ``source`` has no rows.
    """
    if len(source) == 0:
        raise ValueError("There is no row that could have been copied: give at least one as source.")
    # As strings, runs are cut and compared fastest.  Ids are numbered anew, because chr() ends at 1,114,111; number
    # 0 is left to the separator, which ends every row and so is in every run that reaches beyond its row.
    characters: dict[int, str] = {}
    rows = [_as_string(row, characters) for row in source]
    texts = [_as_string(sequence, characters) for sequence in sequences]
    source_text = "".join(row + chr(0) for row in rows)
    longest = [0] * len(texts)
    places: Sequence[int] = range(len(source_text))
    starts: list[Sequence[int]] = [range(len(text)) for text in texts]
    for length in range(1, max(map(len, texts), default=0) + 1):
        wanted = {text[start:start + length] for text, kept in zip(texts, starts, strict=True) for start in kept}
        places = [place for place in places if source_text[place:place + length] in wanted]
        found = {source_text[place:place + length] for place in places}
        starts = [[start for start in kept if text[start:start + length] in found]
                  for text, kept in zip(texts, starts, strict=True)]
        longest = [length if kept else best for kept, best in zip(starts, longest, strict=True)]
    return longest


def _rows(
    model: PreTrainedModel, chunks: Sequence[Sequence[int]], prompt: int, continuation: int, batch_size: int
) -> torch.Tensor:
    """Token ids of shape (chunks, prompt + continuation), on the CPU, once all arguments are in order."""
    needed = prompt + continuation
    if prompt < 1 or continuation < 1 or batch_size < 1:
        raise ValueError(f"prompt={prompt}, continuation={continuation}, batch_size={batch_size}: all must be >= 1.")
    if len(chunks) == 0:
        raise ValueError("There is no chunk to recite: give at least one.")
    shortest = min(map(len, chunks))
    if shortest < needed:
        raise ValueError(f"A chunk has {shortest} tokens, but prompt + continuation = {needed} are needed: ask for "
                         "fewer, or give longer chunks.")
    if needed > model.config.max_position_embeddings:
        raise ValueError(f"prompt + continuation = {needed} tokens, but the model has "
                         f"{model.config.max_position_embeddings} positions: ask for fewer.")
    return torch.tensor([list(chunk[:needed]) for chunk in chunks])


def _without_ends(model: PreTrainedModel, logits: torch.Tensor) -> torch.Tensor:
    """The same logits, changed in place: -inf for the tokens that ``continuations`` keeps the model from writing."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    vocabulary = torch.arange(logits.shape[-1], device=logits.device)  # which an end may lie beyond
    return logits.masked_fill_(torch.isin(vocabulary, torch.tensor(ends, dtype=torch.long, device=logits.device)),
                               -torch.inf)


def _character_accuracy(
    tokenizer: PreTrainedTokenizerBase, rows: list[list[int]], written: list[list[int]]
) -> float:
    """Recited characters per character of the continuations; ``rows`` are prompts and true continuations."""

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    recited = characters = 0
    for row, ids in zip(rows, written, strict=True):
        given = row[:-len(ids)]
        # Decoded with its prompt, a continuation keeps its first space and the character it may begin in the middle
        # of.  Bytes of an incomplete character are decoded as U+FFFD.
        text = decode(row).rstrip("\N{REPLACEMENT CHARACTER}")
        begin = _common_prefix(decode(given), text)
        characters += len(text) - begin
        recited += max(_common_prefix(decode(given + ids), text) - begin, 0)
    if characters == 0:
        raise ValueError(f"The continuations of {len(rows)} chunks hold no complete character to count: ask for "
                         "longer ones.")
    return recited / characters


def _common_prefix(one: str, other: str) -> int:
    differing = (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _as_string(ids: Sequence[int], characters: dict[int, str]) -> str:
    """One character per id: those in ``characters``, to which ids not met before are added, from number 1."""
    return "".join([characters.setdefault(int(index), chr(len(characters) + 1)) for index in ids])
