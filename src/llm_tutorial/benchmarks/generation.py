"""Writing text: tokens per second with and without the key-value cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from llm_tutorial.benchmarks.measuring import summary, synchronize, text_table
from llm_tutorial.checkpoints import load_checkpoint, resolve_checkpoint
from llm_tutorial.device import Device, pick_device
from llm_tutorial.inference import model_inputs
from llm_tutorial.plots import Figure, lines

__all__ = ["bench_generate", "generate_figure", "generate_table", "measure_generation"]

PROMPT = "Swimming at the beach is"
CACHES = {True: "with_cache", False: "without_cache"}
LABELS = {"with_cache": "with the cache", "without_cache": "without"}
SECONDS_BETWEEN_LINES = 5.0


def bench_generate(
    lengths: Sequence[int] = (64, 128, 256), *, repeats: int = 3, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure how fast the causal model of the source in use writes, with and without the key-value cache.

    Args:
        lengths: numbers of new tokens.
        repeats: measurements of each, of which medians are given.
        report: gets a line of text at each stage, for progress.

    Raises:
        ValueError, FloatingPointError: as ``measure_generation``.
        ConnectionError, OSError: as ``resolve_checkpoint``.
    """
    device = pick_device()
    report("generate: loading the causal model")
    checkpoint = resolve_checkpoint("causal")
    tokenizer, model = load_checkpoint(checkpoint, AutoModelForCausalLM)
    measured = measure_generation(model.to(device.name), tokenizer, lengths, device=device, repeats=repeats,
                                  report=report)
    measured["settings"] |= {"model": checkpoint.name, "source": checkpoint.source, "revision": checkpoint.revision}
    return measured


def measure_generation(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lengths: Sequence[int], *, device: Device,
    repeats: int = 3, prompt: str = PROMPT, report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Let the model write greedily with ``generate()``, with the cache and without in turn.

    Without the cache every new token costs a pass over the whole text so far.  The end-of-text token is forbidden, so
    that all texts have the length asked for.

    Raises:
        ValueError: ``repeats`` below 1, no length or one below 1, or more tokens than the model can read.
        FloatingPointError: the two texts differ, so one of them is not what the model's most probable tokens are.
    """
    if repeats < 1 or not lengths or min(lengths) < 1:
        raise ValueError(f"repeats={repeats}, lengths={tuple(lengths)}: at least 1 repeat and one length, and lengths "
                         "of at least 1, are needed.")
    inputs = model_inputs(model, tokenizer, prompt, max_new_tokens=max(lengths))
    _written(model, inputs, min(lengths), True, "", lambda _: None)  # what is done once is no part of the time
    runs: dict[int, dict[str, list[dict[str, float]]]] = {
        length: {name: [] for name in CACHES.values()} for length in lengths}
    texts = {}
    for number in range(repeats):
        for length in lengths:
            ids = {}
            for use_cache, name in CACHES.items():
                label = f"generate: {length} tokens {LABELS[name]}, run {number + 1} of {repeats}"
                report(label)
                synchronize(device)
                began = time.perf_counter()
                ids[name] = _written(model, inputs, length, use_cache, label, report)
                synchronize(device)
                seconds = time.perf_counter() - began
                runs[length][name].append({"seconds": seconds, "tokens_per_second": length / seconds})
            _check_equal(ids["with_cache"], ids["without_cache"])
            texts[length] = tokenizer.decode(ids["with_cache"])
    found = {length: {name: summary(of_length[name]) for name in CACHES.values()} for length, of_length in runs.items()}
    return {
        "benchmark": "generate",
        "settings": {"device": device.name, "prompt": prompt, "prompt_tokens": inputs["input_ids"].shape[1],
                     "parameters": sum(p.numel() for p in model.parameters()), "repeats": repeats,
                     "precision": str(model.dtype).removeprefix("torch.")},
        "lengths": [{"new_tokens": length, **of_length, "text": texts[length],
                     "speedup": of_length["without_cache"]["seconds"] / of_length["with_cache"]["seconds"]}
                    for length, of_length in found.items()],
    }


def _written(
    model: PreTrainedModel, inputs: Any, length: int, use_cache: bool, label: str, report: Callable[[str], None]
) -> torch.Tensor:
    """The ids of the new tokens, on the CPU."""
    prompt = inputs["input_ids"]
    written = model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, use_cache=use_cache,
        max_new_tokens=length, min_new_tokens=length, streamer=_Ticks(label, length, report),
        pad_token_id=0)  # never written, but generate() warns if there is none
    return written[0, prompt.shape[1]:].cpu()


def _check_equal(with_cache: torch.Tensor, without: torch.Tensor) -> None:
    if not torch.equal(with_cache, without):
        first = int((with_cache != without).nonzero()[0, 0])
        raise FloatingPointError(f"With and without the cache the texts differ, first in new token {first + 1} "
                                 f"({with_cache[first]} and {without[first]}): compare them in fp32 on the CPU, with "
                                 "LLM_TUTORIAL_DEVICE=cpu.")


class _Ticks(BaseStreamer):
    """Say every few seconds how many tokens are written."""

    def __init__(self, label: str, length: int, report: Callable[[str], None]) -> None:
        self.label, self.length, self.report = label, length, report
        self.count, self.said = -1, time.perf_counter()  # the prompt comes first, as a whole

    def put(self, value: torch.Tensor) -> None:
        self.count += 1
        if time.perf_counter() - self.said > SECONDS_BETWEEN_LINES:
            self.said = time.perf_counter()
            self.report(f"{self.label}: {self.count} of {self.length}")

    def end(self) -> None:
        """Nothing is left to say."""


def generate_table(results: dict[str, Any]) -> str:
    """Return the results of ``bench_generate`` as lines of text."""
    settings = results["settings"]
    rows = [("new tokens", "tokens/s with the cache", "without", "times faster")]
    rows += [(f"{found['new_tokens']}", f"{found['with_cache']['tokens_per_second']:.1f}",
              f"{found['without_cache']['tokens_per_second']:.1f}", f"{found['speedup']:.1f}")
             for found in results["lengths"]]
    return "\n".join([
        text_table(rows),
        f"{settings['model']} ({settings['source']}), {settings['parameters']:,} parameters in {settings['precision']} "
        f"on {settings['device']}, greedy, same text; medians of {settings['repeats']} runs"])


def generate_figure(results: dict[str, Any]) -> Figure:
    """Draw tokens per second over the number of new tokens, with and without the cache."""
    counts = [found["new_tokens"] for found in results["lengths"]]
    curves = {label: (counts, [found[name]["tokens_per_second"] for found in results["lengths"]])
              for name, label in LABELS.items()}
    speeds = "; ".join(f"{label} {', '.join(f'{value:.1f}' for value in values)}"
                       for label, (_, values) in curves.items())
    return lines(curves, xlabel="new tokens", ylabel="tokens per second", caption=(
        f"{results['settings']['model']} writes the same text with and without the key-value cache."), alt=(
        f"Line chart of tokens per second for {', '.join(map(str, counts))} new tokens: {speeds}."))
