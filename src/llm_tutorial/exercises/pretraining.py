"""Exercises on pre-training; they need nothing from the notebook."""

# ruff: noqa: ARG005  (a mistake takes all arguments of an answer)

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from llm_tutorial.exercises.answers import by_cases, items, real, show, whole
from llm_tutorial.exercises.checking import Fault

__all__ = ["EXERCISES", "chunk_rows", "full_chunks", "pieces"]


def pieces(ids: list[int], length: int) -> list[list[int]]:
    """Cut ``ids`` every ``length`` tokens; the last piece may be short."""
    return [ids[start:start + length] for start in range(0, len(ids), length)]


def full_chunks(ids: list[int], length: int) -> list[list[int]]:
    """Return the pieces without a short last one."""
    return [chunk for chunk in pieces(ids, length) if len(chunk) == length]


def chunk_rows(value: Any) -> list[list]:
    """Return chunks, be they lists, tensors or an iterator, as lists; else raise a Fault."""
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in items(value, "chunks")]
    if any(not isinstance(row, list | tuple) for row in rows):
        raise Fault(f"Your function returns {show(rows)}: that is a list of single values, not of chunks.")
    return [list(row) for row in rows]


def _bits_per_byte(loss: float, tokens: int, text: str) -> float:
    return loss / math.log(2) * tokens / len(text.encode())


def _parameters(v: int, p: int, d: int, n: int, *, heads=1, positions=1, biases=1, norms=1, final=1) -> int:
    """Those of a GPT-2, or with a part left out or counted twice."""
    return d * (v * heads + p * positions + 2 * final) + n * (12 * d * d + 9 * d * biases + 4 * d * norms)


def _recited(written: Sequence[list], chunks: Sequence[list], prompt: int, share=all) -> float:
    """The mean of the ``share`` of the hits in each row."""
    return sum(share([one == other for one, other in zip(row, chunk[prompt:], strict=False)])
               for row, chunk in zip(written, chunks, strict=True)) / len(chunks)


EXERCISES = {
    "chunk_count": by_cases(
        ("Two chunks of 3 take 6 of 8 tokens.", "A chunk counts only if it is full.", "Divide, and round down."),
        lambda tokens, length: tokens // length, "tokens length", [(1000, 128), (256, 128), (100, 128)],
        minutes=2, difficulty=1, read=whole, otherwise="that is not the number of full chunks", mistakes={
            "the last chunk counts, although it is not full": lambda tokens, length: math.ceil(tokens / length),
            "there is no fraction of a chunk": lambda tokens, length: tokens / length,
        }),
    "dropped": by_cases(
        ("Mark the chunks of 3 in [5, 3, 9, 2, 7, 4, 8, 1]: which ids are in none of them?",
         "All full chunks together end at a multiple of the length.",
         "Compute how many tokens the full chunks hold, and return everything after that place."),
        lambda ids, length: ids[len(ids) // length * length:], "ids length",
        [([5, 3, 9, 2, 7, 4, 8, 1], 3), ([7, 6], 4), ([5, 3, 9, 2], 2)], minutes=3, difficulty=1,
        read=partial(items, what="token ids"), otherwise="those are not the dropped tokens", mistakes={
            "where nothing is dropped, everything is returned: ids[-0:] is the whole list":
                lambda ids, length: ids[-(len(ids) % length):],
        }),
    "chunks": by_cases(
        ("Where does the last full chunk begin if there are 6 ids and chunks of 3, and where if there are 8?",
         "The chunks begin at 0, length, 2 * length and so on; each is a slice of ids.",
         "Go through these places with a range that stops where fewer than length ids are left."),
        full_chunks, "ids length", [(list(range(10, 20)), 3), (list(range(30, 36)), 3), ([5, 6, 7], 1), ([8, 9], 5)],
        minutes=8, difficulty=2, read=chunk_rows, otherwise="those are not the chunks", mistakes={
            "the short rest is still there": pieces,
            "the short rest is padded, but it has to be dropped": lambda ids, length: [
                (piece + [0] * length)[:length] for piece in pieces(ids, length)],
            "the chunks overlap": lambda ids, length: [ids[at:at + length] for at in range(len(ids) - length + 1)],
            "the last chunk is missing, although it is full":
                lambda ids, length: [ids[at:at + length] for at in range(0, len(ids) - length, length)],
        }),
    "steps": by_cases(
        ("Write down the batches of one epoch for 10 chunks in batches of 4.",
         "A small batch at the end of an epoch is a step too, and the next epoch begins with a new batch.",
         "Round the number of batches of one epoch up to a whole number, and only then multiply."),
        lambda chunks, batch, epochs: math.ceil(chunks / batch) * epochs, "chunks batch epochs",
        [(10, 4, 3), (200, 8, 2), (7, 8, 5), (9, 2, 4), (17, 4, 1)],
        minutes=5, difficulty=2, read=whole, otherwise="that is not the number of steps", mistakes={
            "the smaller batch at the end of each epoch does not count": lambda n, batch, epochs: n // batch * epochs,
            "batches reach across the end of an epoch": lambda n, batch, epochs: math.ceil(n * epochs / batch),
            "those are the steps of one epoch": lambda n, batch, _: math.ceil(n / batch),
            "there is no fraction of a step": lambda n, batch, epochs: n / batch * epochs,
            "one step too many is counted if all batches are full": lambda n, batch, epochs: (n // batch + 1) * epochs,
        }),
    "bits_per_byte": by_cases(
        ("The loss is in nats per token. How many nats does the whole text cost?",
         "A bit is log(2) nats, and a text has as many bytes as it takes in a UTF-8 file.",
         "Multiply by the tokens, divide by log(2), and divide by the length of the encoded text."),
        _bits_per_byte, "loss tokens text",
        [(2.0, 5, "Life is like a box."), (3.5, 7, "naïve café, 10 €"), (1.2, 9, "東京 🗼")],
        minutes=8, difficulty=2, read=real, without=("bits_per_byte",),
        otherwise="that is not the number of bits per byte", mistakes={
            "the characters are counted, not the bytes": lambda loss, n, text: loss / math.log(2) * n / len(text),
            "it is still in nats": lambda *given: _bits_per_byte(*given) * math.log(2),
            "those are the bits per token": lambda loss, *_: loss / math.log(2),
            "those are the bits of the whole text": lambda loss, n, _: loss / math.log(2) * n,
        }),
    "parameters": by_cases(
        ("Print the names and shapes of a small model's parameters, and look for the part that you count otherwise.",
         "A block has two layer norms, and four linear layers from width to 3, 1 and 4 times the width, and back.",
         "For each layer, add 12 times the squared width for weights, 9 times the width for biases and 4 times the "
         "width for norms. Then come both embeddings and one more layer norm."),
        _parameters, "vocabulary positions width layers", [(1000, 64, 32, 3), (50257, 1024, 768, 12), (7, 5, 4, 1)],
        minutes=15, difficulty=3, read=whole,
        otherwise=lambda found, *sizes: f"its difference from the right number is {found - _parameters(*sizes):+,}",
        mistakes={
            "it counts all layers together as one": lambda v, p, d, n: _parameters(v, p, d, 1),
            "it counts the weights of the head a second time, though the model has them only once":
                partial(_parameters, heads=2),
            "it leaves out the position embeddings": partial(_parameters, positions=0),
            "it leaves out the biases of the linear layers": partial(_parameters, biases=0),
            "it leaves out the final layer norm": partial(_parameters, final=0),
            "it leaves out the layer norms": partial(_parameters, norms=0, final=0),
        }),
    "recited": by_cases(
        ("The first written token belongs beside the chunk's token number prompt, counted from 0.",
         "A chunk is recited if each of its written tokens is right. The chunk may go on after them.",
         "Compare each written list with an equally long slice of its chunk that starts at prompt. Count the matches."),
        _recited, "written chunks prompt",
        [([[3, 4], [8, 0]], [[1, 2, 3, 4, 5], [6, 7, 8, 9, 9]], 2), ([[5, 1], [2, 3]], [[9, 5, 1, 7], [9, 8, 2, 3]], 1),
         ([[1, 2], [1, 2], [3, 9], [9, 4]], [[0, 1, 2], [0, 2, 1], [0, 3, 4], [0, 3, 4]], 1)],
        minutes=10, difficulty=2, read=real, otherwise="that is not the share of recited chunks", mistakes={
            "that is the share of right tokens": partial(_recited, share=lambda hits: sum(hits) / len(hits)),
            "that is a number of chunks, not a share": lambda *given: _recited(*given) * len(given[1]),
            "that is in percent, but a share from 0 to 1 is needed": lambda *given: 100 * _recited(*given),
            "one right token is enough there, but all have to be right": partial(_recited, share=any),
            "the written tokens are compared with the beginning of the chunk, which is the prompt":
                lambda written, chunks, prompt: _recited(written, chunks, 0),
            "the whole rest of the chunk is compared, but the model wrote fewer tokens":
                lambda written, chunks, prompt: sum(
                    row == chunk[prompt:] for row, chunk in zip(written, chunks, strict=True)) / len(chunks),
        }),
}
