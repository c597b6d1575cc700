"""``llm-tutorial bench``: how soon a model recites its text, and how fast it trains, on this machine."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
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

__all__ = ["BareLoop", "Setting", "bench_recite", "bench_throughput", "main", "matmul_peak", "train_in_turn"]

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
        count = len(chunks["train"])
        rows = math.ceil(count / preset.batch) * preset.batch
        chunks["train"] = chunks["train"].select([row % count for row in range(rows)])
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
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(preset, folder, device=setting.device, seed=seed)
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
    in FLOP per second, that the model's own operations take. ``ratio`` is the Trainer's speed over the bare loop's.
    """
    preset = replace(setting.preset, stop_at=None)
    setting, tokens = replace(setting, preset=preset), preset.batch * preset.context_length
    _say("peak of matrix products")
    peak = matmul_peak(setting.device)
    flops = training_flops(matmul_parameters(new_model(preset, setting.tokenizer)), 1) + attention_flops(
        preset.layers, preset.width, preset.context_length, 1)
    runs: dict[str, list[dict[str, float]]] = {"trainer": [], "bare": []}
    ratios = []
    for seed in range(repeats):
        _say(f"Trainer and bare loop in turn, {WARMUP_STEPS + steps} steps each, seed {seed}")
        loop, _ = train_in_turn(setting, WARMUP_STEPS + steps, seed)
        trainer, bare = loop.others[WARMUP_STEPS:], loop.own[WARMUP_STEPS:]
        for name, seconds in {"trainer": statistics.median(trainer), "bare": statistics.median(bare)}.items():
            runs[name].append({"tokens_per_second": tokens / seconds, "seconds_per_step": seconds,
                               "mfu": tokens / seconds * flops / peak})
        ratios += [one / other for one, other in zip(bare, trainer, strict=True)]
    return {"trainer": _medians(runs["trainer"]), "bare": _medians(runs["bare"]), "ratio": statistics.median(ratios),
            "flops_per_token": flops, "peak": peak}


def train_in_turn(setting: Setting, steps: int, seed: int) -> tuple[BareLoop, Trainer]:
    """Train a model with the Trainer and its twin with a bare loop, in turn, so that a busy machine slows down both."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(
            setting.preset, folder, device=setting.device, seed=seed, max_steps=steps, eval_strategy="no",
            train_sampling_strategy="sequential", dataloader_drop_last=True)

        def new_trainer(*callbacks: TrainerCallback) -> Trainer:
            set_seed(seed)
            return build_trainer(new_model(setting.preset, setting.tokenizer), arguments, setting.chunks,
                                 setting.tokenizer, preset=setting.preset, callbacks=callbacks)

        loop = BareLoop(new_trainer())
        trainer = new_trainer(loop)
        trainer.train()
    return loop, trainer


class BareLoop(TrainerCallback):
    """A step in plain PyTorch after each step of a Trainer, with the same batches, precision and clipping.

    The work that the Trainer does after its callbacks at the end of a step, such as logging, counts to its next step.

    Args:
        twin: a Trainer that is not run: its model, optimizer and schedule are used.

    Attributes:
        own, others: seconds of each step, of this loop and of the Trainer.
        losses: the loss of each step, in nats per token.
    """

    def __init__(self, twin: Trainer) -> None:
        twin.create_optimizer_and_scheduler(twin.args.max_steps)
        self.model, self.optimizer, self.schedule = twin.model.train(), twin.optimizer, twin.lr_scheduler
        self.device, self.dtype, self.norm = twin.args.device.type, _dtype(twin.args), twin.args.max_grad_norm
        self.scaler = torch.amp.GradScaler(self.device, enabled=twin.args.fp16)
        rows, self.at_once = torch.tensor(twin.train_dataset["input_ids"][:]), twin.args.per_device_train_batch_size
        size = self.at_once * twin.args.gradient_accumulation_steps
        self.batches = rows[:len(rows) // size * size].split(size)
        self.own, self.others, self.losses = [], [], []

    def step(self, number: int) -> torch.Tensor:
        """Train on the batch of this number and return its loss."""
        ids = self.batches[number % len(self.batches)].to(self.device)
        labels = ids.masked_fill(ids == self.model.config.pad_token_id, -100)
        predicted, total = (labels[:, 1:] != -100).sum(), torch.zeros((), device=self.device)
        for part, wanted in zip(ids.split(self.at_once), labels.split(self.at_once), strict=True):
            with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
                loss = self.model(input_ids=part, labels=wanted, use_cache=False, num_items_in_batch=predicted).loss
            self.scaler.scale(loss).backward()
            total += loss.detach()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad()
        return total

    def on_train_begin(self, args, state, control, **_) -> None:
        self._began = self._now()

    def on_step_end(self, args, state, control, **_) -> None:
        """Take a step; the Trainer's clock stands still meanwhile."""
        turn = self._now()
        self.others.append(turn - self._began)
        self.losses.append(self.step(state.global_step - 1))
        self._began = self._now()
        self.own.append(self._began - turn)

    def _now(self) -> float:
        if self.device != "cpu":
            torch.accelerator.synchronize()  # a GPU still works on its queue
        return time.perf_counter()


def matmul_peak(device: Device) -> float:
    """Return the most floating-point operations per second of square matrix products in the training's precision."""
    speeds = []
    for size in SQUARES:
        matrix = torch.randn(size, size).to(device.name, _dtype(device))
        timer = Timer("matrix @ matrix", globals={"matrix": matrix}, num_threads=torch.get_num_threads())
        speeds.append(2 * size**3 / timer.blocked_autorange(min_run_time=0.25).median)
    return max(speeds)


def _dtype(of: Any) -> torch.dtype:
    """Return the type that a ``Device`` or ``TrainingArguments`` compute in."""
    return torch.bfloat16 if of.bf16 else torch.float16 if of.fp16 else torch.float32


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def _report(found: dict[str, Any]) -> str:
    """Return the results as lines of text."""
    if found["benchmark"] == "recite":
        rows, notes = {"preset": found["own"]}, []
    else:
        rows = {"Trainer": found["trainer"], "bare PyTorch loop": found["bare"]}
        notes = [f"Trainer / bare loop: {found['ratio']:.3f}, the median over pairs of steps",
                 f"MFU: {found['flops_per_token'] / 1e6:.2f} MFLOP per token (6 N + 12 L d T) as a share of "
                 f"{found['peak'] / 1e9:,.0f} GFLOP/s"]
    head = f"preset {found['preset']['name']} on {found['device']} ({found['reason']}), runs: {found['repeats']}"
    table = pd.DataFrame({label: {name: FORMATS[name].format(value) for name, value in run.items()}
                          for label, run in rows.items()}).T
    return "\n".join([head, table.to_string(), *notes])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
