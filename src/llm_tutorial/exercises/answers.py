"""Read what a learner's function returns, and compare it with what is right and with what typical mistakes give."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from llm_tutorial.exercises.checking import Fault, call, require_function

__all__ = ["call_guarded", "call_with", "compare", "draw", "number", "show", "string", "tensor"]


def compare(
    answer: Callable[..., Any],
    right: Callable[..., Any],
    cases: Iterable[tuple],
    *,
    read: Callable[[Any], Any],
    given: Callable[..., str],
    mistakes: Mapping[str, Callable[..., Any]],
    otherwise: Callable[..., str],
    run: Callable[..., Any] = call,
    shown: Callable[[Any, Any], str] = lambda found, _: show(found),
) -> str | None:
    """Return None if ``answer`` gives what ``right`` gives in all cases, else a sentence on the first that differs.

    Args:
        cases: the arguments of each call.
        read: turns what the answer returns into the type that ``right`` returns; may raise a Fault.
        given: called with the arguments of a case; begins the sentence, such as "For k = 3".
        mistakes: what went wrong, as the end of the sentence -> a function that goes wrong in this way.  The first that
            agrees with the answer in all cases is told.
        otherwise: called with what was found and the arguments; ends the sentence if no mistake fits.
        run: calls the answer with the arguments of a case.
        shown: called with what was found and what is right; the value in words.
    """
    require_function(answer)
    cases = list(cases)
    found = [read(run(answer, *case)) for case in cases]
    expected = [right(*case) for case in cases]
    wrong = [not _same(one, other) for one, other in zip(found, expected, strict=True)]
    if not any(wrong):
        return None
    fitting = (clause for clause, mistake in mistakes.items()
               if all(_same(one, mistake(*case)) for one, case in zip(found, cases, strict=True)))
    first = wrong.index(True)
    clause = next(fitting, None) or otherwise(found[first], *cases[first])
    return f"{given(*cases[first])} your function returns {shown(found[first], expected[first])}: {clause}."


def call_with(*large: Any) -> Callable[..., Any]:
    """Like ``call``, with ``large`` objects before the arguments, which are not copied."""
    return lambda answer, *arguments: call(partial(answer, *large), *arguments)


def call_guarded(*names: str) -> Callable[..., Any]:
    """Like ``call``, but it is a fault to change one of the tensors, called ``names``, that come first."""

    def run(answer: Callable[..., Any], *arguments: Any) -> Any:
        passed = copy.deepcopy(arguments)
        result = call(lambda: answer(*passed))
        for name, before, after in zip(names, arguments, passed, strict=False):
            if not torch.equal(before, after):
                raise Fault(f"Your function changes {name} itself, which its caller may still need.")
        return result

    return run


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return normally distributed numbers that are always the same and leave the global generator alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def string(answer: Any) -> str:
    """Return ``answer`` if it is a string.

    Raises:
        Fault: it is something else, or no tokenizer can read it.
    """
    if not isinstance(answer, str):
        raise Fault(f"Your answer is of type {type(answer).__name__}, but a string is needed.")
    if any("\ud800" <= character <= "\udfff" for character in answer):
        raise Fault("Your text holds half a character, a surrogate, which cannot be encoded.")
    return answer


def number(value: Any) -> int | float:
    """Return one number, be it Python's, numpy's or in a tensor.

    Raises:
        Fault: it is something else.
    """
    if isinstance(value, torch.Tensor | np.ndarray) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, np.integer | np.floating):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Fault(f"Your function returns {show(value)}, but one number is needed.")
    return value


def tensor(value: Any) -> torch.Tensor:
    """Return a tensor on the CPU, made of a tensor, an array, a number, or lists of them.

    Raises:
        Fault: it is something else.
    """
    if isinstance(value, tuple) and any(isinstance(part, torch.Tensor) and part.ndim for part in value):
        raise Fault(f"Your function returns a tuple of {len(value)} tensors, but one tensor is needed.")
    try:
        if isinstance(value, torch.Tensor):
            result = value.detach().cpu()
        elif isinstance(value, list) and any(isinstance(part, torch.Tensor) for part in value):
            result = torch.stack([tensor(part) for part in value])
        else:
            result = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Fault(f"Your function returns {show(value)}, but a tensor is needed.") from None
    if result.dtype is torch.bool or result.is_complex():
        raise Fault(f"Your function returns values of type {result.dtype}, but numbers are needed.")
    return result


def show(value: Any) -> str:
    """Return a value in words that are short enough for a sentence."""
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(value) if value.dtype.kind in "biuf" else value.tolist()
    if isinstance(value, torch.Tensor):
        return _rounded(value.tolist()) if value.numel() <= 8 else f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, bool):
        return repr(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.1f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
    if isinstance(value, str | list | tuple | dict) and len(repr(value)) <= 80:
        return repr(value)
    size = f" of length {len(value)}" if hasattr(value, "__len__") else ""
    return f"an object of type {type(value).__name__}{size}"


def _rounded(values: Any) -> str:
    if isinstance(values, list):
        return f"[{', '.join(map(_rounded, values))}]"
    return f"{values:.4g}" if isinstance(values, float) else str(values)


def _same(found: Any, expected: Any) -> bool:
    """Whether two values agree but for rounding."""
    if isinstance(expected, torch.Tensor):
        return found.shape == expected.shape and torch.allclose(
            found.double(), expected.double(), rtol=1e-4, atol=1e-6, equal_nan=True)
    if isinstance(expected, float):
        beyond = math.inf if abs(expected) > torch.finfo(torch.float32).max else expected  # of single precision
        return math.isclose(found, expected, rel_tol=1e-3, abs_tol=1e-9) or found == beyond
    if isinstance(expected, tuple) and isinstance(found, tuple):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return type(found) is type(expected) and found == expected
