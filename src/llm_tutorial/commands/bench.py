"""``llm-tutorial bench``: how soon a model recites its text, and how fast it trains, on this machine."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import pandas as pd
import torch
from datasets import DatasetDict
from torch import nn
from torch.utils.benchmark import Timer
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, set_seed

from llm_tutorial.chunking import chunked_dataset, packed_dataset
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.costs import attention_flops, matmul_parameters, training_flops
from llm_tutorial.device import Device, pick_device
from llm_tutorial.evaluation import recited_share
from llm_tutorial.reporting import quiet
from llm_tutorial.training import (
    Preset,
    build_trainer,
    new_model,
    pick_preset,
    preset_tokenizer,
    training_arguments,
)

__all__ = ["RECITED", "Setting", "bench_recite", "bench_throughput", "flops_per_token", "main", "matmul_peak",
           "train_with_bare_loop", "train_with_trainer"]

RECITED = 0.95  # share of exact continuations at which a run stops
WARMUP_STEPS = 3  # the first steps allocate memory and make the optimizer's state
SQUARES = (1024, 2048, 4096)  # sizes of matrices that a device multiplies fast
FORMATS = {"seconds": "{:.1f}", "steps": "{:.0f}", "loss": "{:.3f}", "exact_match": "{:.1%}",
           "tokens_per_second": "{:,.0f}", "seconds_per_step": "{:.3f}", "mfu": "{:.1%}"}


@dataclass(frozen=True)
class Setting:
    """The common part of all runs; ``chunks`` has the splits ``train`` and ``valid``."""

    preset: Preset
    device: Device
    tokenizer: PreTrainedTokenizerBase
    chunks: DatasetDict


def main(arguments: argparse.Namespace) -> int:
    """Measure ``arguments.kind`` and print a table or one JSON object; progress goes to the standard error stream."""
    quiet()
    device = pick_device()
    preset, texts = pick_preset(arguments.preset or device), load_wikipedia()
    tokenizer = preset_tokenizer(preset, texts["train"]["text"])
    if arguments.kind == "recite":
        chunks = chunked_dataset(texts, tokenizer, preset.context_length)
    else:  # packed, since texts may be short, and repeated, since batches may be large
        chunks = packed_dataset(texts, tokenizer, preset.context_length).remove_columns("labels")
        rows = chunks["train"].repeat(1 + preset.batch // len(chunks["train"]))
        chunks["train"] = rows.select(range(len(rows) // preset.batch * preset.batch))
    setting = Setting(preset, device, tokenizer, chunks)
    found = {"benchmark": arguments.kind, "device": device.name, "reason": device.reason,
             "preset": asdict(preset), "repeats": arguments.repeats}
    if arguments.kind == "recite":
        found |= bench_recite(setting, repeats=arguments.repeats)
    else:
        found |= bench_throughput(setting, repeats=arguments.repeats, steps=arguments.steps or 20)
    print(json.dumps(found, indent=2) if arguments.json else _report(found))
    return 0


def bench_recite(setting: Setting, *, repeats: int) -> dict[str, Any]:
    """Measure the seconds of ``train()`` until the preset recites 95 % of the 16 -> 16 token continuations."""
    return {"own": _medians([_recite(setting, seed) for seed in range(repeats)])}


def _recite(setting: Setting, seed: int) -> dict[str, float]:
    preset = replace(setting.preset, stop_at=RECITED)
    _say(f"preset {preset.name}, seed {seed}")
    set_seed(seed)
    model = new_model(preset, setting.tokenizer)
    arguments = training_arguments(preset, tempfile.gettempdir(), device=setting.device, seed=seed)
    trainer = build_trainer(model, arguments, setting.chunks, setting.tokenizer, preset=preset)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    loss = trainer.evaluate(setting.chunks["train"])["eval_loss"]
    return {"seconds": seconds, "steps": trainer.state.global_step, "loss": loss,
            "exact_match": recited_share(model, setting.chunks["train"]["input_ids"][:])}


def bench_throughput(setting: Setting, *, repeats: int, steps: int) -> dict[str, Any]:
    """Measure training in tokens per second and in model FLOPs utilization (MFU), with the Trainer and without.

    MFU (Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311) is the share of the measured peak of matrix products,
    in FLOP per second, that the model's own operations take. ``ratio`` is the Trainer's speed over the bare loop's,
    which run one after the other: the machine has to be quiet.
    """
    setting = replace(setting, preset=replace(setting.preset, stop_at=None))
    tokens = setting.preset.batch * setting.preset.context_length
    _say("peak of matrix products")
    peak, flops = matmul_peak(setting.device), flops_per_token(setting.preset, setting.tokenizer)
    runs: dict[str, list[dict[str, float]]] = {"trainer": [], "bare": []}
    for seed in range(repeats):
        for name, train in (("trainer", train_with_trainer), ("bare", train_with_bare_loop)):
            _say(f"{name}, {WARMUP_STEPS + steps} steps, seed {seed}")
            seconds = statistics.median(train(setting, WARMUP_STEPS + steps, seed)[0][WARMUP_STEPS:])
            runs[name].append({"tokens_per_second": tokens / seconds, "seconds_per_step": seconds,
                               "mfu": tokens / seconds * flops / peak})
    trainer, bare = (_medians(run) for run in runs.values())
    return {"trainer": trainer, "bare": bare, "ratio": trainer["tokens_per_second"] / bare["tokens_per_second"],
            "flops_per_token": flops, "peak": peak}


def flops_per_token(preset: Preset, tokenizer: PreTrainedTokenizerBase) -> float:
    """Return the operations that training a preset's model spends on each token."""
    with torch.device("meta"):
        model = new_model(preset, tokenizer)
    return training_flops(matmul_parameters(model), 1) + attention_flops(
        preset.layers, preset.width, preset.context_length, 1)


def train_with_trainer(setting: Setting, steps: int, seed: int) -> tuple[list[float], list[float]]:
    """Return the seconds and the loss of each step."""
    times, clock = [], TrainerCallback()
    clock.on_train_begin = clock.on_step_end = lambda *_, **__: times.append(_now(setting.device))
    trainer = _new_trainer(setting, steps, seed, clock)
    trainer.train()
    return _between(times), [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def train_with_bare_loop(setting: Setting, steps: int, seed: int) -> tuple[list[float], list[float]]:
    """Do the same in plain PyTorch, with the batches, precision, clipping, optimizer and schedule of a Trainer."""
    twin = _new_trainer(setting, steps, seed)  # which is not run
    twin.create_optimizer_and_scheduler(steps)
    model, optimizer, device, dtype = twin.model.train(), twin.optimizer, setting.device.name, _dtype(setting.device)
    scaler = torch.amp.GradScaler(device, enabled=setting.device.fp16)
    batches = torch.tensor(twin.train_dataset["input_ids"][:]).split(setting.preset.batch)
    times, losses = [_now(setting.device)], []
    for step in range(steps):
        ids = batches[step % len(batches)].to(device)
        labels = ids.masked_fill(ids == model.config.pad_token_id, -100)
        predicted, total = (labels[:, 1:] != -100).sum(), torch.zeros((), device=device)
        at_once = twin.args.per_device_train_batch_size
        for part, wanted in zip(ids.split(at_once), labels.split(at_once), strict=True):
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                loss = model(input_ids=part, labels=wanted, use_cache=False, num_items_in_batch=predicted).loss
            scaler.scale(loss).backward()
            total += loss.detach()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), twin.args.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        twin.lr_scheduler.step()
        optimizer.zero_grad()
        losses.append(total)
        times.append(_now(setting.device))
    return _between(times), torch.stack(losses).tolist()


def _new_trainer(setting: Setting, steps: int, seed: int, *callbacks: TrainerCallback) -> Trainer:
    set_seed(seed)
    arguments = training_arguments(
        setting.preset, tempfile.gettempdir(), device=setting.device, seed=seed, max_steps=steps, eval_strategy="no",
        train_sampling_strategy="sequential")
    return build_trainer(new_model(setting.preset, setting.tokenizer), arguments, setting.chunks, setting.tokenizer,
                         preset=setting.preset, callbacks=callbacks)


def _now(device: Device) -> float:
    if device.name != "cpu":
        torch.accelerator.synchronize()  # a GPU still works on its queue
    return time.perf_counter()


def _between(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def matmul_peak(device: Device) -> float:
    """Return the most floating-point operations per second of square matrix products in the training's precision."""
    speeds = []
    for size in SQUARES:
        matrix = torch.randn(size, size).to(device.name, _dtype(device))
        timer = Timer("matrix @ matrix", globals={"matrix": matrix}, num_threads=torch.get_num_threads())
        speeds.append(2 * size**3 / timer.blocked_autorange(min_run_time=0.25).median)
    return max(speeds)


def _dtype(device: Device) -> torch.dtype:
    return torch.bfloat16 if device.bf16 else torch.float16 if device.fp16 else torch.float32


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def _report(found: dict[str, Any]) -> str:
    """Return the results as lines of text."""
    if found["benchmark"] == "recite":
        rows, notes = {"preset": found["own"]}, []
    else:
        rows = {"Trainer": found["trainer"], "bare PyTorch loop": found["bare"]}
        notes = [f"Trainer / bare loop: {found['ratio']:.3f}",
                 f"MFU: {found['flops_per_token'] / 1e6:.2f} MFLOP per token (6 N + 12 L d T) as a share of "
                 f"{found['peak'] / 1e9:,.0f} GFLOP/s"]
    head = f"preset {found['preset']['name']} on {found['device']} ({found['reason']}), runs: {found['repeats']}"
    table = pd.DataFrame({label: {name: FORMATS[name].format(value) for name, value in run.items()}
                          for label, run in rows.items()}).T
    return "\n".join([head, table.to_string(), *notes])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
