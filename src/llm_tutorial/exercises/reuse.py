"""Exercises on reusing a pre-trained model: fine-tuning, embeddings and LoRA; they need nothing from the notebook."""

# ruff: noqa: ARG005  (a mistake takes all arguments of an answer)

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from llm_tutorial.exercises.answers import by_cases, items, real, show, tensor, whole
from llm_tutorial.exercises.checking import Exercise, Fault

__all__ = ["EXERCISES"]

_PAIRS, _WORDS, _CHARACTERS = 20, 30, 200  # that fit into the 128 tokens of a row, with the chat template


def _hits(predictions: torch.Tensor, labels: torch.Tensor) -> int:
    return int((predictions == labels).sum())


def _cosine(u: torch.Tensor, v: torch.Tensor, divide: Callable[..., torch.Tensor] | None = None) -> float:
    return (u @ v / (divide(u, v) if divide else u.norm() * v.norm())).item()


def _pooled(
    hidden: torch.Tensor, mask: torch.Tensor, *, summed: bool = True, counted: bool = True, over: int | tuple = 1,
) -> torch.Tensor:
    """The mean over an axis; padding may be left in the sum, in the number of tokens, or in both."""
    real_tokens = mask.to(hidden.dtype)[:, :, None]
    ones = torch.ones_like(real_tokens)
    return (hidden * (real_tokens if summed else ones)).sum(over) / (real_tokens if counted else ones).sum(over)


# Each mean over real tokens has at most three digits; padding is on either side and is not 0.
_POOLED = [(torch.tensor(hidden), torch.tensor(mask)) for hidden, mask in (
    ([[[1.0, 2.0], [4.0, -3.0], [9.0, 9.0]]], [[1, 1, 0]]),
    ([[[1.0, 2.0], [4.0, -3.0], [9.0, 7.0], [0.5, 5.0]], [[8.0, -6.0], [6.0, 7.0], [-1.0, 2.5], [3.5, 0.0]]],
     [[1, 1, 1, 1], [0, 0, 1, 1]]),
    ([[[0.5, 3.0, 2.0], [5.0, 5.0, 4.0]], [[1.5, -2.0, 0.0], [2.5, 1.0, 7.0]], [[6.0, 1.0, 3.0], [7.0, 8.0, -2.0]]],
     [[1, 0], [1, 1], [0, 1]]))]


def _weights(shapes: Mapping[str, tuple[int, int]], r: int, of=lambda rows, columns, r: r * (rows + columns)) -> int:
    return sum(of(*shape, r) for shape in shapes.values())


def _merged(
    W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float, *,
    scale: Callable[..., float] = lambda alpha, A: alpha / len(A),
    product: Callable[..., torch.Tensor] = lambda A, B: B @ A,
) -> torch.Tensor:
    return W + scale(alpha, A) * product(A, B)


# Small whole numbers, so that the sum is exact. The square ones come first: there the wrong order does not raise.
_MERGED = [(torch.tensor(W), torch.tensor(A), torch.tensor(B), alpha) for W, A, B, alpha in (
    ([[1.0, 0.0], [0.0, 2.0]], [[1.0, 2.0], [0.0, 3.0]], [[2.0, -1.0], [1.0, 4.0]], 8),
    ([[1.0, 2.0], [3.0, 5.0]], [[2.0, 1.0]], [[1.0], [-3.0]], 2),
    ([[1.0, 2.0, 0.5], [-3.0, 1.0, 2.0]], [[1.0, 2.0, 0.0], [3.0, -1.0, 1.0]], [[2.0, 1.0], [1.0, -2.0]], 1),
    (torch.ones(5, 3).tolist(), [[1.0, 0.0, 2.0], [0.0, 1.0, 3.0], [1.0, 1.0, 0.0], [2.0, 0.0, 1.0]],
     [[1.0, 2.0, 0.0, 1.0], [0.0, 1.0, 1.0, 2.0], [3.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 2.0, 5.0]],
     16))]


def _input_and_labels(value: Any) -> tuple[list, list]:
    """Two rows of ids, from a pair, or from a dictionary as a data collator reads it."""
    if isinstance(value, Mapping) and {"input_ids", "labels"} <= set(value):
        value = [value["input_ids"], value["labels"]]
    rows = [items(row, "token ids") for row in items(value, "input_ids and one of labels")]
    if len(rows) != 2:
        raise Fault(f"Your function returns {show(value)}, but two lists are needed: input_ids and labels.")
    rows = [items(row[0], "token ids") if len(row) == 1 and isinstance(row[0], list | tuple) else row for row in rows]
    return tuple([whole(token) for token in row] for row in rows)


def _asked(
    question_ids: list[int], answer_ids: list[int], labels: Callable[[list[int], list[int]], list[int]],
) -> tuple[list[int], list[int]]:
    return question_ids + answer_ids, labels(question_ids, answer_ids)


_LABELS = partial(_asked, labels=lambda question, answer: [-100] * len(question) + answer)


def _no_labels(found: tuple[list, list], question: list[int], answer: list[int]) -> str:
    ids, labels = found
    both = question + answer
    if found == _LABELS(question, answer)[::-1]:
        return "the two lists are right, but input_ids come first"
    if ids != both:
        strange = "-100 is no id, so that no model can read it" if -100 in ids else "they are not question and answer"
        return f"look at input_ids: {strange}"
    if len(labels) != len(ids):
        return f"there are {len(ids)} ids but {len(labels)} labels: each id needs a label, the question's too"
    first = {label for label in labels[:len(question)] if label != -100}
    if labels[len(question):] == answer and len(first) == 1:
        return f"the question has the label {first.pop()}, but the loss leaves out nothing but -100"
    return "those are not the labels"


def _own_pairs(answer: Any, **_) -> str | None:
    """Their form alone; nobody but the learner can judge what they say."""
    try:
        pairs = [_pair(place, pair) for place, pair in enumerate(items(answer, "pairs"))]
    except Fault as fault:
        raise Fault(str(fault).replace("Your function returns", "Your answer is")) from None
    if len(pairs) < _PAIRS:
        return f"Your list has {len(pairs)} pair{'s' * (len(pairs) != 1)}, but at least {_PAIRS} are needed."
    seen: dict[str, int] = {}  # question -> place
    for place, (question, reply) in enumerate(pairs):
        for name, text in (("question", question), ("answer", reply)):
            words = len(text.split())
            if words > _WORDS or len(text) > _CHARACTERS:
                return (f"The {name} at place {place} has {words} word{'s' * (words != 1)} and {len(text)} characters, "
                        f"but at most {_WORDS} and {_CHARACTERS} are allowed, so that both fit into a short row of "
                        "tokens.")
        if _plain(question) in seen:
            return f"The question {show(question)} is there twice, at the places {seen[_plain(question)]} and {place}."
        seen[_plain(question)] = place
    replies = [_plain(reply) for _, reply in pairs]
    [(common, times)] = Counter(replies).most_common(1)
    if times > len(pairs) / 2:
        shown = show(pairs[replies.index(common)][1])
        return (f"{times} of your {len(pairs)} answers are {shown}: a model that always says this is right for more "
                "than half of the questions, whatever they ask.")
    return None


def _pair(place: int, pair: Any) -> tuple[str, str]:
    """Question and answer; places are counted from 0."""
    where = f"At place {place} (counted from 0), your list has"
    if isinstance(pair, str):
        raise Fault(f"{where} the string {show(pair)}, but a pair is needed: parentheses around question and answer, "
                    "and a comma between them.")
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise Fault(f"{where} {show(pair)}, but a pair of two strings is needed, question and answer.")
    for name, text in zip(("question", "answer"), pair, strict=True):
        if not isinstance(text, str):
            raise Fault(f"{where} {'a' if name == 'question' else 'an'} {name} of type {type(text).__name__}, but a "
                        "string is needed.")
        if not text.strip():
            raise Fault(f"{where} an empty {name}.")
    return tuple(pair)


def _plain(text: str) -> str:
    """Without what does not make another question: spaces, a capital at the beginning, and the mark at the end."""
    words = " ".join(text.split())
    return (words[:1].lower() + words[1:]).rstrip("?.! ") or words


EXERCISES = {
    "accuracy": by_cases(
        ("Put the two rows below each other. At how many places do they agree?",
         "predictions == labels is a tensor of True and False, one for each text.",
         "Count the places where both are equal, and divide by the number of all places."),
        lambda *given: _hits(*given) / len(given[0]), "predictions labels",
        [(torch.tensor(predictions), torch.tensor(labels)) for predictions, labels in (
            ([1, 0, 2, 2], [1, 1, 2, 2]), ([0, 1, 2, 3, 4], [4, 1, 2, 0, 0]), ([3, 3], [3, 3]), ([1, 2], [2, 1]),
            ([0, 0, 1], [0, 1, 1]))],
        minutes=2, difficulty=1, read=real, otherwise="that is not the share of right predictions",
        without=("accuracy", "accuracy_score"), mistakes={
            "that is the number of right predictions, not their share": lambda *given: float(_hits(*given)),
            "that is in percent, but a share is needed": lambda *given: 100 * _hits(*given) / len(given[0]),
            "that is the share of wrong predictions": lambda *given: 1 - _hits(*given) / len(given[0]),
        }),
    "cosine": by_cases(
        ("The formula is in the task. Its upper part is the dot product: multiply place by place, and add up.",
         "The length of a vector is the root of the sum of its squares; v.norm() computes it.",
         "Divide the dot product by the length of the first vector and by the length of the second one."),
        _cosine, "u v", [(torch.tensor(u), torch.tensor(v)) for u, v in (
            ([3.0, 4.0], [4.0, 3.0]), ([1.0, 2.0, 2.0], [4.0, 2.0, 4.0]), ([0.5, -1.0], [-1.0, 2.0]),
            ([2.0, 0.0, 0.0, 0.0], [3.0, 3.0, -3.0, 3.0]))],
        minutes=4, difficulty=1, read=real, otherwise="that is not the cosine",
        without=("cosine_similarity", "cosine_embedding_loss", "cosine", "cos_sim"), mistakes={
            "that is the dot product alone, which grows with the length of the vectors":
                partial(_cosine, divide=lambda u, v: torch.ones(())),
            "the lengths are squared: the root is missing": partial(_cosine, divide=lambda u, v: (u @ u) * (v @ v)),
            "that is the distance of the two points": lambda u, v: (u - v).norm().item(),
            "that is the angle, not its cosine": lambda *given: math.acos(max(-1.0, min(1.0, _cosine(*given)))),
            "that is 1 minus the cosine, which is called the cosine distance": lambda *given: 1 - _cosine(*given),
        }),
    "mean_pool": by_cases(
        ("Take one text with one place of padding, and write down its mean on paper: what do you add, and what do you "
         "divide by?",
         "attention_mask[:, :, None] has the shape (batch, tokens, 1). Times this, the padding's states are 0.",
         "Multiply, add up along axis 1, and divide by the sum of the mask along the same axis; keepdim keeps the "
         "shape for the division."),
        _pooled, "hidden attention_mask", _POOLED, minutes=10, difficulty=2, read=tensor,
        otherwise="those are not the means over the real tokens", without=("mean_pool", "mean_pooling"), mistakes={
            "the padding is counted, in the sum and in the number of tokens":
                partial(_pooled, summed=False, counted=False),
            "the padding is in the sum: its hidden states are not 0": partial(_pooled, summed=False),
            "the sum is right, but the padding is counted in the number of tokens": partial(_pooled, counted=False),
            "that is the sum over the real tokens, which is not divided":
                lambda *given: _pooled(*given) * given[1].sum(dim=1, keepdim=True),
            "each sum is divided by the number of real tokens in all texts":
                lambda *given: _pooled(*given) * given[1].sum(dim=1, keepdim=True) / given[1].sum(),
            "the numbers of real tokens belong to the texts, but here they divide the columns":
                lambda hidden, mask: _pooled(hidden, mask) * mask.sum(dim=1, keepdim=True) / mask.sum(dim=1),
            "all texts are averaged into one vector, but each text needs its own": partial(_pooled, over=(0, 1)),
            "the mean is taken over the texts, not over the tokens": partial(_pooled, over=0),
            "that is the mean over the padding: the mask is 1 at the real tokens":
                lambda hidden, mask: _pooled(hidden, 1 - mask),
            "the mean is taken over the width, not over the tokens": lambda hidden, mask: hidden.mean(dim=2),
            "that is the first token of each text, not a mean": lambda hidden, mask: hidden[:, 0],
        }),
    "trainable_weights": by_cases(
        ("LoRA leaves the matrix as it is. Draw the two thin matrices beside it: which shapes do they have?",
         "With rank r, A has r rows and as many columns as the matrix; B has r columns and as many rows as the matrix.",
         "For each matrix, A has r times columns weights, and B has rows times r. Add up both, for all matrices."),
        _weights, "shapes r", [
            ({"q_proj": (6, 4)}, 2), ({"q_proj": (576, 576), "v_proj": (192, 576)}, 8),
            ({"c_attn": (768, 2304), "c_proj": (768, 768), "c_fc": (768, 3072)}, 4),
            ({"up": (12, 5), "down": (5, 12)}, 1)],
        minutes=5, difficulty=2, read=whole, otherwise="that is not the number of weights that LoRA trains", mistakes={
            "those are the weights of the matrices themselves, which LoRA leaves as they are":
                partial(_weights, of=lambda rows, columns, r: rows * columns),
            "the weights of the matrices themselves are counted too":
                partial(_weights, of=lambda rows, columns, r: rows * columns + r * (rows + columns)),
            "only A is counted": partial(_weights, of=lambda rows, columns, r: r * columns),
            "only B is counted": partial(_weights, of=lambda rows, columns, r: r * rows),
            "rows and columns are added, but the rank is missing":
                partial(_weights, of=lambda rows, columns, r: rows + columns),
            "rows and columns are multiplied, but each thin matrix has only one of them":
                partial(_weights, of=lambda rows, columns, r: r * rows * columns),
            "only the first matrix is counted": lambda shapes, r: _weights(dict([next(iter(shapes.items()))]), r),
        }),
    "merge_lora": by_cases(
        ("Both paths read the same input x: one gives W @ x, the other one goes through A and then through B. Write "
         "down their sum.",
         "(alpha / r) times B @ (A @ x) is a matrix times x too: which one?",
         "B @ A has the shape of W. Multiply it by alpha / r, where r is the number of rows of A, and add W."),
        _merged, "W A B alpha", _MERGED, minutes=10, difficulty=2, read=tensor,
        otherwise="this matrix does not give the same as both paths",
        without=("merge_lora", "merge_and_unload", "get_delta_weight"), mistakes={
            "alpha is not divided by r": partial(_merged, scale=lambda alpha, A: alpha),
            "the scale alpha / r is missing": partial(_merged, scale=lambda alpha, A: 1),
            "the scale is upside down": partial(_merged, scale=lambda alpha, A: len(A) / alpha),
            "alpha is divided by the number of columns of A, but r is the number of its rows":
                partial(_merged, scale=lambda alpha, A: alpha / A.shape[1]),
            "alpha // r drops the remainder": partial(_merged, scale=lambda alpha, A: alpha // len(A)),
            "that is A @ B, but x goes through A first": partial(_merged, product=torch.matmul),
            "that is the product number by number, but a product of matrices is needed":
                partial(_merged, product=torch.mul),
            "that is the second path alone: W is missing": lambda W, *rest: _merged(torch.zeros_like(W), *rest),
            "W is scaled too": lambda W, A, B, alpha: _merged(alpha / len(A) * W, A, B, alpha),
        }),
    "mask_question": by_cases(
        ("The model reads question and answer in one row. At which of its places should the loss count?",
         "labels are as long as input_ids. The model shifts them by itself, so each label stands at its own token.",
         "Put both lists one after the other for input_ids. The labels are the same row, with -100 as often as the "
         "question has tokens."),
        _LABELS, "question_ids answer_ids", [
            ([5, 6, 7], [8, 9]), ([3], [4, 4, 2]), ([11, 0, 12, 7], [7, 12, 0, 2]), ([9, 1, 2], [3])],
        minutes=6, difficulty=2, read=_input_and_labels, otherwise=_no_labels, mistakes={
            "the question has labels too, so that the model learns to ask":
                partial(_asked, labels=lambda question, answer: question + answer),
            "the question has the labels and the answer has none": partial(
                _asked, labels=lambda question, answer: question + [-100] * len(answer)),
            "-100 is left out, so that the lists have different lengths":
                partial(_asked, labels=lambda question, answer: answer),
            "the labels are shifted to the left, but the model shifts them by itself": partial(
                _asked, labels=lambda question, answer: [-100] * (len(question) - 1) + answer + [-100]),
            "the last token of the answer has no label": partial(
                _asked, labels=lambda question, answer: [-100] * len(question) + answer[:-1] + [-100]),
            "the first token of the answer has no label": partial(
                _asked, labels=lambda question, answer: [-100] * (len(question) + 1) + answer[1:]),
            "the model reads the question alone": lambda question, answer: (question, answer),
        }),
    "own_pairs": Exercise(
        _own_pairs,
        ("Choose a subject that you could talk about for ten minutes, and write down what people ask you about it.",
         "Keep the answers short and alike in form. Ask about another fact each time, in words that differ.",
         "Four questions each that begin with what, why, how, when and which make twenty. The list has parentheses "
         "around each pair and a comma behind it."),
        minutes=30, difficulty=3),
}
