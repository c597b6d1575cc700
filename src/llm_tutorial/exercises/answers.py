"""Call a learner's function, read what it returns, and compare that with what is right and with typical mistakes."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.exercises.checking import Exercise, Fault, TimeUp, Unsolved, limited, raised, require_function

__all__ = ["by_cases", "by_value", "call", "compare", "draw", "items", "loss_errors", "no_softmax", "real", "same",
           "show", "string", "tensor", "whole", "with_infinities"]

_KIND = "is or returns something of another kind"  # than the exercise asks for


def by_cases(
    hints: tuple[str, str, str], right: Callable[..., Any], names: str, cases: Iterable[tuple], *,
    minutes: int, difficulty: int, **options: Any,
) -> Exercise:
    """Return an exercise that calls ``compare`` and needs nothing from the notebook, which may give ``more`` cases."""
    cases = list(cases)
    return Exercise(lambda answer, more=(), **_: compare(answer, right, names, [*cases, *more], **options),
                    hints, minutes, difficulty)


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
    without: Iterable[str] = (),
    atol: float = 1e-6,
) -> Fault | None:
    """Return None if ``answer`` gives what ``right`` gives in all cases, else a sentence on the first that differs.

    Args:
        names: of the arguments, for the message; "_" is not shown.
        read: turns what the answer returns into the type that ``right`` returns; may raise a Fault.
        mistakes: the end of the sentence -> a function that goes wrong in this way. The first that agrees with the
            answer in all cases is told.
        otherwise: the end of the sentence if no mistake fits, or a function of the value and the arguments.
        in_place: whether the answer may change its arguments.
        without: names of functions of the libraries that the answer must not call.
        atol: by how much the numbers of a tensor may differ, for those that a learner may round.
    """
    require_function(answer)
    results, wrong = [], None
    for case in cases:
        try:
            value = call(answer, *case, names=names, in_place=in_place, read=read, without=without)
        except Fault:
            if wrong is None:
                raise
            break  # the wrong value of an earlier case is easier to understand
        results.append((value, right(*case), case))
        if wrong is None and not same(*results[-1][:2], atol):
            wrong = results[-1]
    if wrong is None:
        return None
    value, expected, case = wrong
    clause = next((clause for clause, mistake in mistakes.items()
                   if all(same(found, mistake(*given), atol) for found, _, given in results)), None)
    if clause is None and any(all(_rounded(found, needed, digits) for found, needed, _ in results)
                              for digits in (None, 0, 1, 2, 3, 4)):
        clause = "it is near the right result, but not equal to it, as if it was rounded"
    mistake = clause or (otherwise if isinstance(otherwise, str) else "")
    if clause is None and isinstance(expected, torch.Tensor) and value.shape != expected.shape:
        clause = f"its shape is {tuple(value.shape)}, but {tuple(expected.shape)} is needed"
    if clause is None:
        clause = otherwise if isinstance(otherwise, str) else otherwise(value, *case)
    return Fault(f"{_given(names, case)} returns {show(value)}: {clause}.", mistake)


def call(
    function: Callable[..., Any], *arguments: Any, names: str = "", in_place: bool = False,
    read: Callable[[Any], Any] = lambda result: result, without: Iterable[str] = (),
) -> Any:
    """Return what a learner's function makes of copies of ``arguments``, or raise a Fault, or Unsolved for ``...``.

    The options are those of ``compare``; the result of ``read`` is returned, within the same limit of time.
    """
    require_function(function)
    given = _given(names, arguments)
    passed = [_copy(value) for value in arguments]
    with _told(given, function), _written_by_hand(without, given):
        result = function(*passed)
    if result is ...:
        raise Unsolved
    if result is None:
        raise Fault(f"{given} returns None: does each of its branches end with a return?", "returns None")
    for name, before, after in zip(names.split(), arguments, passed, strict=False):
        if not in_place and not _equal(before, after):
            raise Fault(f"{given} changes {name} itself, which its caller may still need.", f"changes {name} itself")
    try:
        with _told(given, function):  # what it returns may be an iterator
            return read(result)
    except Fault as fault:
        raise Fault(str(fault), fault.mistake or _KIND) from None


@contextmanager
def _told(given: str, function: Callable[..., Any]) -> Iterator[None]:
    """Turn what a learner's function raises in the block, or that it does not end, into a Fault."""
    try:
        with limited():
            yield
    except Fault:
        raise
    except TimeUp as limit:
        raise Fault(f"{given} does not end: it was stopped after {limit}.", "does not end") from None
    except (Exception, SystemExit) as error:
        raise Fault(f"{given} raises {raised(error, function)}.", f"raises {type(error).__name__}") from None


@contextmanager
def _written_by_hand(without: Iterable[str], given: str) -> Iterator[None]:
    """Raise a Fault where a function of a library with one of these names is called."""
    names = set(without)
    if not names:
        yield
        return

    def watch(frame: Any, event: str, called: Any) -> None:
        name = called.__name__ if event == "c_call" else frame.f_code.co_name
        module = frame.f_globals.get("__name__", "").partition(".")[0]
        if name in names and (event == "c_call" or (event == "call" and module in _LIBRARIES)):
            clause = f"calls {name} of a library, but here it is to be written by hand."
            raise Fault(f"{given} {clause}", clause)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)


_LIBRARIES = {"torch", "transformers", "llm_tutorial", "scipy", "sklearn", "sentence_transformers", "peft"}


def _rounded(found: Any, needed: Any, digits: int | None) -> bool:
    """Whether a value is the right one rounded to so many digits; without digits, a number within 1 % of it."""
    if isinstance(needed, torch.Tensor):
        return bool(digits) and needed.is_floating_point() and same(found, needed.round(decimals=digits))
    if not isinstance(needed, float) or not math.isfinite(needed):
        return False
    return math.isclose(found, needed, rel_tol=0.01) if digits is None else found == round(needed, digits)


def by_value(
    hints: tuple[str, str, str], right: Callable[..., Any], *, minutes: int, difficulty: int,
    read: Callable[[Any], Any], mistakes: Mapping[str, Callable[..., Any]], otherwise: Callable[..., str],
) -> Exercise:
    """Return an exercise whose answer is a value; the functions are as in ``compare``, and take the notebook's objects.

    ``otherwise`` takes the value first.
    """
    def find_fault(answer: Any, **given: Any) -> Fault | None:
        try:
            value = read(answer)
        except Fault as fault:
            raise Fault(str(fault).replace("Your function returns", "Your answer is"), _KIND) from None
        if same(value, right(**given)):
            return None
        clause = next((clause for clause, mistake in mistakes.items() if same(value, mistake(**given))), "")
        return Fault(f"Your answer is {show(value)}: {clause or otherwise(value, **given)}.", clause)

    return Exercise(find_fault, hints, minutes, difficulty)


def loss_errors(losses: Callable[..., torch.Tensor]) -> dict[str, Callable[..., float]]:
    """Return what may go wrong between the ``losses`` of single tokens, from the arguments, and their mean."""
    return {
        "it is the sum of the losses, or minus the logarithm of a product of probabilities, instead of a mean":
            lambda *given: losses(*given).sum().item(),
        "the logarithms have the wrong sign": lambda *given: -losses(*given).mean().item(),
        "that is the perplexity, not the loss": lambda *given: losses(*given).mean().exp().item(),
        "that is in bits, but a loss is in nats": lambda *given: losses(*given).mean().item() / math.log(2),
        "the softmax is taken twice": lambda logits, ids: losses(logits.softmax(dim=-1), ids).mean().item(),
        "that is minus a mean of probabilities: the logarithm is missing":
            lambda *given: -(-losses(*given)).exp().mean().item(),
        "the mean is taken of the probabilities, and then one logarithm":
            lambda *given: -(-losses(*given)).exp().mean().log().item(),
    }


def no_softmax(found: torch.Tensor, *_: Any) -> str:
    """Return what is wrong with a tensor whose last dimension has to be a softmax."""
    if not found.isfinite().all():
        return "not all of these are finite numbers"
    sums = found.double().sum(dim=-1).flatten()
    furthest = sums[(sums - 1).abs().argmax()].item()
    if abs(furthest - 1) > 1e-2:
        return f"the values along the last dimension add up to {furthest:.4g}, not to 1"
    return "the values add up to 1, but they are not those of the right softmax"


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return normally distributed numbers that are always the same and leave the global generator alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def string(value: Any) -> str:
    """Return ``value`` if it is a string, else raise a Fault."""
    if not isinstance(value, str):
        raise Fault(f"Your answer is of type {type(value).__name__}, but a string is needed.")
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, torch.Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise Fault(f"Your function returns {show(value)}, but one number is needed.")
    return value if isinstance(value, int) else float(value)


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


def with_infinities(value: Any) -> torch.Tensor:
    """Return a tensor as ``tensor`` does; a large negative number rules out as minus infinity does."""
    found = tensor(value).double()
    return found.masked_fill(found <= -1e4, -torch.inf)


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
        comma = "," * (isinstance(value, tuple) and len(value) == 1)  # a slip that has to be seen
        text = f"[{', '.join(parts)}]" if isinstance(value, list) else f"({', '.join(parts)}{comma})"
    if text and len(text) <= 160:
        return text
    size = f" of length {len(value)}" if isinstance(value, str | bytes | list | tuple | dict | set) else ""
    return f"an object of type {type(value).__name__}{size}"


def same(found: Any, expected: Any, atol: float = 1e-6) -> bool:
    """Whether two values agree but for rounding; ``atol`` is for the numbers of a tensor."""
    if isinstance(expected, torch.Tensor):
        return found.shape == expected.shape and torch.allclose(
            found.double(), expected.double(), rtol=1e-4, atol=atol, equal_nan=True)
    if isinstance(expected, float):
        beyond = math.inf if abs(expected) > torch.finfo(torch.float32).max else expected  # of single precision
        return math.isclose(found, expected, rel_tol=2e-3, abs_tol=1e-9) or found == beyond
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
