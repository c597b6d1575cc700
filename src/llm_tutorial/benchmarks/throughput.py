"""Training: tokens per second and how much of the device they use, for the Trainer and for a bare loop beside it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

import torch
from datasets import DatasetDict
from transformers import PreTrainedTokenizerBase, TrainerCallback

from llm_tutorial.benchmarks.bare_loop import BareLoop, autocast_dtype
from llm_tutorial.benchmarks.flops import gemm_peak, gemm_shapes
from llm_tutorial.benchmarks.measuring import precision, summary, synchronize, text_table
from llm_tutorial.benchmarks.profiling import step_shares
from llm_tutorial.chunking import chunked_dataset
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.counts import matmul_parameters, training_flops_per_token
from llm_tutorial.device import Device, pick_device, set_seed
from llm_tutorial.plots import Figure, panels
from llm_tutorial.presets import Preset, pick_preset
from llm_tutorial.training import build_trainer, new_model, preset_tokenizer, training_arguments

__all__ = ["bench_throughput", "throughput_figure", "throughput_table", "train_alternately"]

WARMUP_STEPS = 3  # memory is allotted and the optimiser's state made in the first ones
SECONDS_BETWEEN_LINES = 2.0


def bench_throughput(
    preset: str | Preset | None = None, *, repeats: int = 3, steps: int = 20,
    squares: Iterable[int] = (512, 1024, 2048), report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure training in tokens per second and in model FLOPs utilisation (MFU), with the Trainer and without.

    Both train the same model on the same batches, a step of one after a step of the other, so that what slows the
    machine down slows down both.  MFU (Chowdhery et al. 2022) is the share of the device's peak that the model's own
    operations take; the peak is that of matrix products measured in this process in the precision of the training.

    Args:
        preset: a preset or its name; by default the one for the device.
        repeats: runs with a seed of their own, of which medians are given.
        steps: steps of each run, beside three to warm up.
        squares: sizes of square matrices to look for the peak with, beside the model's own.
        report: gets a line of text at each stage, for progress.

    Raises:
        ValueError: unknown preset, ``repeats`` or ``steps`` below 1, or too few chunks for one batch.
    """
    if repeats < 1 or steps < 1:
        raise ValueError(f"repeats={repeats}, steps={steps}: both must be at least 1.")
    device = pick_device()
    preset = replace(pick_preset(device if preset is None else preset), stop_at=None)
    texts = load_wikipedia()
    tokenizer = preset_tokenizer(preset, texts["train"]["text"])
    chunks = _whole_batches(chunked_dataset(texts, tokenizer, preset.context_length), preset.batch)
    tokens, model = preset.batch * preset.context_length, new_model(preset, tokenizer)
    report("throughput: peak of matrix products")
    peak = gemm_peak(device, autocast_dtype(device) or torch.float32, gemm_shapes(model, tokens, squares))
    flops = training_flops_per_token(model, preset.context_length)
    runs: dict[str, list[dict[str, float]]] = {"trainer": [], "bare": []}
    ratios, totals = [], []
    for seed in range(repeats):
        report(f"throughput: Trainer and bare loop in turn, {WARMUP_STEPS + steps} steps each, "
               f"run {seed + 1} of {repeats}")
        seconds, _, loop = train_alternately(preset, device, chunks, tokenizer, steps=WARMUP_STEPS + steps, seed=seed,
                                             report=report)
        measured = {name: times[WARMUP_STEPS:] for name, times in seconds.items()}
        for name, times in measured.items():
            speed = tokens / statistics.median(times)
            runs[name].append({"tokens_per_second": speed, "seconds_per_step": statistics.median(times),
                               "mfu": speed * flops / peak["flops_per_second"]})
        ratios.append(statistics.median(bare / own for own, bare in
                                        zip(measured["trainer"], measured["bare"], strict=True)))
        totals.append(sum(measured["bare"]) / sum(measured["trainer"]))
    report("throughput: profile of the bare loop")
    return {
        "benchmark": "throughput",
        "settings": asdict(preset) | {
            "precision": precision(device), "steps": steps, "repeats": repeats, "tokens_per_step": tokens,
            "parameters": sum(p.numel() for p in model.parameters()), "matmul_parameters": matmul_parameters(model)},
        "flops_per_token": flops, "peak": peak,
        "trainer": summary(runs["trainer"]), "bare": summary(runs["bare"]),
        "ratio": statistics.median(ratios), "ratios": ratios, "ratio_of_totals": statistics.median(totals),
        "shares": step_shares(loop),
    }


def train_alternately(
    preset: Preset, device: Device, chunks: DatasetDict, tokenizer: PreTrainedTokenizerBase, *, steps: int, seed: int,
    logging_steps: int | None = None, report: Callable[[str], None] = print,
) -> tuple[dict[str, list[float]], dict[str, list[float]], BareLoop]:
    """Train one model with the Trainer and its twin with a bare loop, in turn, a step each.

    Args:
        chunks: a number of training chunks that the preset's batch divides.
        logging_steps: steps between two logged losses; by default a twentieth of all.

    Returns:
        The seconds of each step and the logged losses, each for ``"trainer"`` and ``"bare"``, and the loop.  What the
        Trainer does after its callbacks at the end of a step, such as logging, counts to its next step.
    """
    models = []
    for _ in range(2):
        set_seed(seed)
        models.append(new_model(preset, tokenizer))
        models[-1].loss_type = "ForCausalLM"
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(
            preset, folder, device=device, seed=seed, max_steps=steps, eval_strategy="no",
            logging_steps=logging_steps or max(1, steps // 20), train_sampling_strategy="sequential",
            **({"auto_find_batch_size": False} if device.name == "cuda" else {}))  # else batches could differ
        loop = BareLoop(models[1], chunks["train"]["input_ids"][:], preset=preset, arguments=arguments, device=device)
        turns = _Turns(loop, report)
        trainer = build_trainer(models[0], arguments, chunks, tokenizer, preset=preset, callbacks=[turns])
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"trainer": turns.own, "bare": turns.bare}, {"trainer": losses, "bare": loop.losses}, loop


def throughput_table(results: dict[str, Any]) -> str:
    """Return the results of ``bench_throughput`` as lines of text."""
    settings, peak = results["settings"], results["peak"]
    rows = [("", "tokens/s", "s/step", "MFU")]
    for name, label in (("trainer", "Trainer"), ("bare", "bare PyTorch loop")):
        found = results[name]
        rows.append((label, f"{found['tokens_per_second']:,.0f}", f"{found['seconds_per_step']:.3f}",
                     f"{found['mfu']:.1%}"))
    lines = [
        f"preset {settings['name']}: {settings['layers']} x {settings['width']}, {settings['parameters']:,} "
        f"parameters, {settings['tokens_per_step']:,} tokens a step, {settings['precision']}",
        text_table(rows),
        f"Trainer / bare: {results['ratio']:.3f}, median of steps in pairs; {results['ratio_of_totals']:.3f} in total",
        f"MFU: {results['flops_per_token'] / 1e6:.2f} MFLOP per token (6 N + 12 L d T; N = "
        f"{settings['matmul_parameters']:,} weights of linear layers, output projection included, embeddings not), of "
        f"{peak['flops_per_second'] / 1e9:,.0f} GFLOP/s, the best of "
        f"{len(peak['tried'])} products in {peak['dtype']}: {' x '.join(map(str, peak['shape']))}",
    ]
    if results["shares"]:
        lines.append("a step of the bare loop: " + ", ".join(
            f"{group} {share:.0%}" for group, share in results["shares"].items()))
    lines.append(f"medians of {settings['repeats']} runs of {settings['steps']} steps")
    return "\n".join(lines)


def throughput_figure(results: dict[str, Any]) -> Figure:
    """Draw the utilisation of both loops, and what a step is spent on, as shares of 1."""
    name = results["settings"]["name"]
    charts = {"model FLOPs utilisation": {"Trainer": results["trainer"]["mfu"],
                                          "bare PyTorch loop": results["bare"]["mfu"]}}
    if results["shares"]:
        charts["time of a step of the bare loop"] = results["shares"]
    alt = "Bar charts, preset " + name + ". " + " ".join(
        f"{title[0].upper()}{title[1:]}: " + ", ".join(f"{bar} {value:.2f}" for bar, value in shares.items()) + "."
        for title, shares in charts.items())
    return panels(charts, xlabel="share", alt=alt, caption=(
        f"Training of the preset {name} in {results['settings']['precision']}: "
        f"{results['trainer']['tokens_per_second']:,.0f} tokens/s with the Trainer, "
        f"{results['bare']['tokens_per_second']:,.0f} without."))


class _Turns(TrainerCallback):
    """After each step of the Trainer take one of the bare loop; ``own`` and ``bare`` are the seconds of each step."""

    def __init__(self, loop: BareLoop, report: Callable[[str], None]) -> None:
        self.loop, self.report, self.own, self.bare = loop, report, [], []
        self._began = self._said = 0.0

    def on_train_begin(self, args, state, control, **_) -> None:
        self._began = self._said = time.perf_counter()

    def on_step_end(self, args, state, control, **_) -> None:
        synchronize(self.loop.device)
        turn = time.perf_counter()
        self.own.append(turn - self._began)
        self.loop.step()
        synchronize(self.loop.device)
        now = time.perf_counter()
        self.bare.append(now - turn)
        if now - self._said > SECONDS_BETWEEN_LINES:
            self.report(f"  step {state.global_step} of {state.max_steps}")
            self._said = now
        self._began = time.perf_counter()


def _whole_batches(chunks: DatasetDict, batch: int) -> DatasetDict:
    """Without the training chunks that would make a smaller last batch."""
    count = len(chunks["train"]) // batch * batch
    if count == 0:
        raise ValueError(f"There are {len(chunks['train'])} training chunks, but a batch has {batch}: use a smaller "
                         "batch or more texts.")
    return DatasetDict(chunks | {"train": chunks["train"].select(range(count))})
