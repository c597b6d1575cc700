"""Call a learner's function, read what it returns, and compare that with what is right and with typical mistakes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.exercises.checking import Exercise, Fault, Unsolved, raised, require_function

__all__ = ["by_cases", "call", "compare", "draw", "items", "loss_errors", "real", "same", "show", "string", "tensor",
           "whole"]


def by_cases(hint: str, right: Callable[..., Any], names: str, cases: Iterable[tuple], **options: Any) -> Exercise:
    """Return an exercise that calls ``compare`` and needs nothing from the notebook."""
    cases = list(cases)
    return Exercise(lambda answer, **_: compare(answer, right, names, cases, **options), hint)


def compare(
    answer: Callable[..., Any],
    right: Callable[..., Any],
    names: str,
    cases: Iterable[tuple],
    *,
    read: Callable[[Any], Any],
    mistakes: Mapping[str, Callable[..., Any]],
    otherwise: str | Callable[..., str],
    in_place: bool = False,
) -> str | None:
    """Return None if ``answer`` gives what ``right`` gives in all cases, else a sentence on the first that differs.

    Args:
        names: of the arguments, for the message; "_" is not shown.
        read: turns what the answer returns into the type that ``right`` returns; may raise a Fault.
        mistakes: the end of the sentence -> a function that goes wrong in this way. The first that agrees with the
            answer in all cases is told.
        otherwise: the end of the sentence if no mistake fits, or a function of the value and the arguments.
        in_place: whether the answer may change its arguments.
    """
    require_function(answer)
    results, wrong = [], None
    for case in cases:
        try:
            value = read(call(answer, *case, names=names, in_place=in_place))
        except Fault:
            if wrong is None:
                raise
            break  # the wrong value of an earlier case is easier to understand
        results.append((value, right(*case), case))
        if wrong is None and not same(*results[-1][:2]):
            wrong = results[-1]
    if wrong is None:
        return None
    value, expected, case = wrong
    clause = next((clause for clause, mistake in mistakes.items()
                   if all(same(found, mistake(*given)) for found, _, given in results)), None)
    if clause is None and all(isinstance(needed, float) and math.isclose(found, needed, rel_tol=0.01)
                              for found, needed, _ in results):
        clause = "it is within 1 % of the right number, but not equal to it, as if it was rounded"
    if clause is None and isinstance(expected, torch.Tensor) and value.shape != expected.shape:
        clause = f"its shape is {tuple(value.shape)}, but {tuple(expected.shape)} is needed"
    if clause is None:
        clause = otherwise if isinstance(otherwise, str) else otherwise(value, *case)
    return f"{_given(names, case)} returns {show(value)}: {clause}."


def call(function: Callable[..., Any], *arguments: Any, names: str = "", in_place: bool = False) -> Any:
    """Return what a learner's function makes of copies of ``arguments``, or raise a Fault, or Unsolved for ``...``."""
    require_function(function)
    passed = [_copy(value) for value in arguments]
    try:
        result = function(*passed)
    except Fault as clause:
        raise Fault(f"{_given(names, arguments)} {clause}") from None
    except (Exception, SystemExit) as error:
        raise Fault(f"{_given(names, arguments)} raises {raised(error, function)}.") from None
    if result is ...:
        raise Unsolved
    if result is None:
        raise Fault(f"{_given(names, arguments)} returns None: does each of its branches end with a return?")
    for name, before, after in zip(names.split(), arguments, passed, strict=False):
        if not in_place and not _equal(before, after):
            raise Fault(f"{_given(names, arguments)} changes {name} itself, which its caller may still need.")
    return result


def loss_errors(losses: Callable[..., torch.Tensor]) -> dict[str, Callable[..., float]]:
    """Return what may go wrong between the ``losses`` of single tokens, from the arguments, and their mean."""
    return {
        "it is a sum instead of a mean": lambda *given: losses(*given).sum().item(),
        "the logarithms have the wrong sign": lambda *given: -losses(*given).mean().item(),
        "that is the perplexity, not the loss": lambda *given: losses(*given).mean().exp().item(),
        "that is in bits, but a loss is in nats": lambda *given: losses(*given).mean().item() / math.log(2),
        "the softmax is taken twice": lambda logits, ids: losses(logits.softmax(dim=-1), ids).mean().item(),
    }


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return normally distributed numbers that are always the same and leave the global generator alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def string(value: Any, name: str = "Your answer") -> str:
    """Return ``value`` if it is a string, else raise a Fault."""
    if not isinstance(value, str):
        raise Fault(f"{name} is of type {type(value).__name__}, but a string is needed.")
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, torch.Tensor | np.ndarray) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, np.integer | np.floating):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Fault(f"Your function returns {show(value)}, but one number is needed.")
    return value


def real(value: Any) -> float:
    """Return one number, from Python, numpy or a tensor, as a float; raise a Fault for anything else."""
    return float(_number(value))


def whole(value: Any) -> int | float:
    """Return one number as ``real`` does, but as an integer if it has no fraction."""
    found = _number(value)
    return int(found) if math.isfinite(found) and found == int(found) else found


def items(value: Any, what: str) -> list:
    """Return the items of a list, a tensor or an iterator, of which an endless one is cut; else raise a Fault."""
    if isinstance(value, torch.Tensor | np.ndarray):
        value = value.tolist()
    if isinstance(value, str | dict | set) or not isinstance(value, Iterable):
        raise Fault(f"Your function returns {show(value)}, but a list of {what} is needed.")
    return list(islice(value, 10_000))


def tensor(value: Any) -> torch.Tensor:
    """Return a tensor on the CPU, made of a tensor, an array, a number, or lists of them; else raise a Fault."""
    try:
        if isinstance(value, list) and any(isinstance(part, torch.Tensor) for part in value):
            return torch.stack([tensor(part) for part in value])
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Fault(f"Your function returns {show(value)}, but a tensor is needed.") from None


def show(value: Any) -> str:
    """Return a value in words that are short enough for a sentence."""
    if isinstance(value, torch.Tensor) and value.numel() > 8:
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, torch.Tensor | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:.1f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
    text = repr(value) if isinstance(value, int | str | dict | set) else ""
    if isinstance(value, list | tuple):
        parts = [*map(show, value[:12]), *["..."][:len(value) - 12]]
        text = f"[{', '.join(parts)}]" if isinstance(value, list) else f"({', '.join(parts)})"
    if text and len(text) <= 160:
        return text
    size = f" of length {len(value)}" if isinstance(value, str | bytes | list | tuple | dict | set) else ""
    return f"an object of type {type(value).__name__}{size}"


def same(found: Any, expected: Any) -> bool:
    """Whether two values agree but for rounding."""
    if isinstance(expected, torch.Tensor):
        return found.shape == expected.shape and torch.allclose(
            found.double(), expected.double(), rtol=1e-4, atol=1e-6, equal_nan=True)
    if isinstance(expected, float):
        beyond = math.inf if abs(expected) > torch.finfo(torch.float32).max else expected  # of single precision
        return math.isclose(found, expected, rel_tol=1e-3, abs_tol=1e-9) or found == beyond
    if isinstance(expected, tuple) and isinstance(found, tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    return type(found) is type(expected) and found == expected


def _copy(value: Any) -> Any:
    if isinstance(value, PreTrainedModel | PreTrainedTokenizerBase | torch.Generator):
        return value
    return value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)  # ten times as fast


def _given(names: str, arguments: tuple) -> str:
    """The beginning of a sentence on the learner's function, such as "For k = 3, your function"."""
    shown = [f"{name} = {show(value)}" for name, value in zip(names.split(), arguments, strict=False) if name != "_"]
    return f"For {', '.join(shown)}, your function" if shown else "Your function"


def _equal(before: Any, after: Any) -> bool:
    if isinstance(before, torch.Tensor):
        return torch.equal(before, after)
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(_equal, before, after))
    return before == after
