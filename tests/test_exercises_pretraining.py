"""Checks of the exercises on pre-training: right answers pass, each typical mistake gets its message."""

# ruff: noqa: ARG005  (an answer takes all arguments, right or wrong)

import math

import pytest
import torch
from exercise_feedback import assert_named
from transformers import GPT2Config, GPT2LMHeadModel

from llm_tutorial.exercises import Exercises, pretraining


def my_chunks(ids, length):
    return [ids[start:start + length] for start in range(0, len(ids) - length + 1, length)]


def my_steps(chunks, batch, epochs):
    return math.ceil(chunks / batch) * epochs


def my_bits_per_byte(loss_nats_per_token, tokens, text):
    bits = loss_nats_per_token / math.log(2) * tokens
    return bits / len(text.encode("utf-8"))


def my_parameters(vocabulary, positions, width, layers):
    norm = 2 * width
    attention = (width + 1) * 3 * width + (width + 1) * width
    feed_forward = (width + 1) * 4 * width + (4 * width + 1) * width
    return (vocabulary + positions) * width + layers * (norm + attention + norm + feed_forward) + norm


def my_adamw(weight, gradient, m, v, step, lr, betas, eps, weight_decay):
    m = betas[0] * m + (1 - betas[0]) * gradient
    v = betas[1] * v + (1 - betas[1]) * gradient**2
    m_hat, v_hat = m / (1 - betas[0]**step), v / (1 - betas[1]**step)
    return weight - lr * (m_hat / (v_hat.sqrt() + eps) + weight_decay * weight), m, v


SOLUTIONS = {"chunks": my_chunks, "steps": my_steps, "bits_per_byte": my_bits_per_byte, "parameters": my_parameters,
             "adamw": my_adamw}  # fmt: skip


@pytest.fixture
def exercises():
    return Exercises(pretraining.EXERCISES)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_solutions_are_right(exercises, name):
    assert exercises.check(name, SOLUTIONS[name]).message == "That is right."


def test_the_solutions_need_no_given_object_but_take_any(causal_tokenizer):
    exercises = Exercises(pretraining.EXERCISES, tokenizer=causal_tokenizer, model=None)
    assert all(exercises.check(name, solution).correct for name, solution in SOLUTIONS.items())


def adamw(weight, gradient, m, v, step, lr, betas, eps, weight_decay, *, inside=False, corrected=True, decoupled=True,
          swapped=False, squared=True, times_lr=True):  # fmt: skip
    first, second = betas
    if not decoupled:
        gradient = gradient + weight_decay * weight
    kept = 1 - first if swapped else first
    m = kept * m + (1 - kept) * gradient
    v = second * v + (1 - second) * (gradient**2 if squared else gradient)
    m_hat, v_hat = (m / (1 - first**step), v / (1 - second**step)) if corrected else (m, v)
    update = m_hat / (torch.sqrt(v_hat + eps) if inside else v_hat.sqrt() + eps)
    decay = weight_decay * weight * (lr if times_lr else 1) if decoupled else 0
    return weight - lr * update - decay, m, v


def counted_from_zero(weight, gradient, m, v, step, *rest):
    return my_adamw(weight, gradient, m, v, step - 1, *rest)


def counted_from_two(weight, gradient, m, v, step, *rest):
    return my_adamw(weight, gradient, m, v, step + 1, *rest)


def corrected_moments(weight, gradient, m, v, step, lr, betas, *rest):
    new, m, v = my_adamw(weight, gradient, m, v, step, lr, betas, *rest)
    return new, m / (1 - betas[0]**step), v / (1 - betas[1]**step)


def parameters(vocabulary, positions, width, layers, head=0, position=1, bias=1, final=1, norms=1):
    return (width * (vocabulary * (1 + head) + positions * position)
            + layers * (12 * width**2 + 9 * width * bias + 4 * width * norms) + 2 * width * final)  # fmt: skip


WRONG = [
    ("chunks", "the short rest", lambda ids, length: [ids[at:at + length] for at in range(0, len(ids), length)]),
    ("chunks", "overlap", lambda ids, length: [ids[at:at + length] for at in range(len(ids) - length + 1)]),
    ("chunks", "the last chunk is missing", lambda ids, length: [
        ids[at:at + length] for at in range(0, len(ids) - length, length)]),
    ("chunks", "filled up", lambda ids, length: [
        (ids[at:at + length] + [0] * length)[:length] for at in range(0, len(ids), length)]),
    ("chunks", "filled up", lambda ids, length: [
        (ids[at:at + length] + [-7] * length)[:length] for at in range(0, len(ids), length)]),
    ("chunks", "numbers, not of chunks", lambda ids, length: ids[:length]),
    ("chunks", "only the first chunk", lambda ids, length: [ids[:length]] if len(ids) >= length else []),
    ("chunks", "'chunks', but a list of chunks", lambda ids, length: "chunks"),
    ("chunks", "3, but a list of chunks", lambda ids, length: len(ids) // length),
    ("chunks", "not the chunks", lambda ids, length: [chunk[::-1] for chunk in my_chunks(ids, length)]),
    ("steps", "smaller batch", lambda chunks, batch, epochs: chunks // batch * epochs),
    ("steps", "across the end of an epoch", lambda chunks, batch, epochs: math.ceil(chunks * epochs / batch)),
    ("steps", "across the end of an epoch", lambda chunks, batch, epochs: chunks * epochs // batch),
    ("steps", "one epoch", lambda chunks, batch, epochs: math.ceil(chunks / batch)),
    ("steps", "a float", lambda *given: float(my_steps(*given))),
    ("steps", "parts of steps", lambda chunks, batch, epochs: chunks / batch * epochs),
    ("steps", "chunks that are read", lambda chunks, batch, epochs: chunks * epochs),
    ("steps", "batches are full", lambda chunks, batch, epochs: (chunks // batch + 1) * epochs),
    ("steps", "one number is needed", lambda *given: [my_steps(*given)] * 2),
    ("steps", "returns True, but one number", lambda *given: True),
    ("steps", "not the number of steps", lambda *given: 1),
    ("bits_per_byte", "characters", lambda loss, tokens, text: loss / math.log(2) * tokens / len(text)),
    ("bits_per_byte", "nats", lambda loss, tokens, text: loss * tokens / len(text.encode())),
    ("bits_per_byte", "bits per token", lambda loss, tokens, text: loss / math.log(2)),
    ("bits_per_byte", "decimal", lambda loss, tokens, text: loss / math.log(10) * tokens / len(text.encode())),
    ("bits_per_byte", "decimal", lambda loss, tokens, text: loss / math.log10(2) * tokens / len(text.encode())),
    ("bits_per_byte", "bits per token", lambda loss, tokens, text: math.log2(math.exp(loss))),
    ("bits_per_byte", "into nats", lambda loss, tokens, text: loss * math.log(2) * tokens / len(text.encode())),
    ("bits_per_byte", "whole text", lambda loss, tokens, text: loss / math.log(2) * tokens),
    ("bits_per_byte", "upside down", lambda loss, tokens, text: loss / math.log(2) * len(text.encode()) / tokens),
    ("bits_per_byte", "one token", lambda loss, tokens, text: loss / math.log(2) / len(text.encode())),
    ("bits_per_byte", "one number is needed", lambda *given: "2.5"),
    ("bits_per_byte", "not the bits per byte", lambda *given: 0.1),
    ("parameters", "head are counted a second time", lambda *sizes: parameters(*sizes, head=1)),
    ("parameters", "the biases of the linear layers", lambda *sizes: parameters(*sizes, bias=0)),
    ("parameters", "the position embeddings", lambda *sizes: parameters(*sizes, position=0)),
    ("parameters", "the final layer norm", lambda *sizes: parameters(*sizes, final=0)),
    ("parameters", "the layer norms of the blocks and the final layer norm are missing",
     lambda *sizes: parameters(*sizes, norms=0, final=0)),
    ("parameters", "head are counted a second time, and the final layer norm is missing",
     lambda *sizes: parameters(*sizes, head=1, final=0)),
    ("parameters", "all layers together", lambda *sizes: parameters(*sizes[:3], 1)),
    ("parameters", "too many", lambda *sizes: 10**12),
    ("parameters", "too few", lambda *sizes: 12),
    ("parameters", "one number is needed", lambda *sizes: sizes),
    ("adamw", "inside the root", lambda *given: adamw(*given, inside=True)),
    ("adamw", "correction", lambda *given: adamw(*given, corrected=False)),
    ("adamw", "passes through the averages", lambda *given: adamw(*given, decoupled=False)),
    ("adamw", "counted from 0", counted_from_zero),
    ("adamw", "one step ahead", counted_from_two),
    ("adamw", "wrong way round", lambda *given: adamw(*given, swapped=True)),
    ("adamw", "not squared", lambda *given: adamw(*given, squared=False)),
    ("adamw", "learning rate", lambda *given: adamw(*given, times_lr=False)),
    ("adamw", "does not shrink", lambda *given: adamw(*given[:-1], 0.0)),
    ("adamw", "uphill", lambda weight, gradient, *rest: (2 * weight - my_adamw(weight, gradient, *rest)[0],
                                                         *my_adamw(weight, gradient, *rest)[1:])),
    ("adamw", "already corrected", corrected_moments),
    ("adamw", "not kept", lambda weight, gradient, m, v, *rest: (my_adamw(weight, gradient, m, v, *rest)[0], m, v)),
    ("adamw", "3 tensors", lambda *given: my_adamw(*given)[0]),
    ("adamw", "3 tensors", lambda *given: my_adamw(*given)[:2]),
    ("adamw", "new_v", lambda *given: (*my_adamw(*given)[:2], 0.0)),
    ("adamw", "new_m", lambda *given: (my_adamw(*given)[0], "m", "v")),
]


@pytest.mark.parametrize(("name", "fragment", "answer"), WRONG)
def test_typical_mistakes_are_named(exercises, name, fragment, answer):
    assert_named(exercises.check(name, answer), fragment)


def test_other_correct_forms_are_right(exercises):
    assert exercises.check("chunks", lambda ids, length: torch.tensor(
        ids[:len(ids) // length * length], dtype=torch.long).view(-1, length)).correct
    assert exercises.check("chunks", lambda *given: tuple(map(tuple, my_chunks(*given)))).correct
    assert exercises.check("steps", lambda chunks, batch, epochs: -(-chunks // batch) * epochs).correct
    assert exercises.check("steps", lambda *given: torch.tensor(my_steps(*given))).correct
    assert exercises.check("bits_per_byte", lambda *given: torch.tensor(my_bits_per_byte(*given))).correct
    assert exercises.check("adamw", lambda *given: list(my_adamw(*given))).correct


def by_the_library(vocabulary, positions, width, layers):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=positions, n_embd=width, n_layer=layers,
                                       n_head=2, bos_token_id=None, eos_token_id=None))  # fmt: skip
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_libraries_pass_their_own_checks(exercises):
    assert by_the_library(11, 7, 6, 2) == my_parameters(11, 7, 6, 2)

    def by_torch(weight, gradient, m, v, step, lr, betas, eps, weight_decay):
        parameter = torch.nn.Parameter(weight.clone())
        parameter.grad = gradient.clone()
        optimizer = torch.optim.AdamW([parameter], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        optimizer.state[parameter] = {
            "step": torch.tensor(step - 1.0), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
        optimizer.step()
        state = optimizer.state[parameter]
        return parameter, state["exp_avg"], state["exp_avg_sq"]

    assert exercises.check("adamw", by_torch).message == "That is right."
