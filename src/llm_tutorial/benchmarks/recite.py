"""How long a recipe needs until the model knows its text by heart."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from datasets import DatasetDict
from transformers import PreTrainedTokenizerBase, TrainerCallback

from llm_tutorial.benchmarks.measuring import precision, summary
from llm_tutorial.benchmarks.memory import peak_memory
from llm_tutorial.callbacks import StopWhenRecited
from llm_tutorial.chunking import chunked_dataset
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.device import Device, pick_device, set_seed
from llm_tutorial.evaluation import Recitation, recitation
from llm_tutorial.plots import Figure, bars
from llm_tutorial.presets import PRESETS, Preset, pick_preset
from llm_tutorial.training import build_trainer, new_model, preset_tokenizer, training_arguments

__all__ = ["bench_recite", "recite_figure", "recite_table"]

RECITED = 0.95  # share of exact recitations that a run has to reach
# The library's defaults, with which a hundred epochs of such a text take 2,800 steps.
CLASSIC = {"learning_rate": 5e-5, "warmup_steps": 0, "bf16": False, "fp16": False, "eval_strategy": "no",
           "logging_steps": 20}
CLASSIC_STEPS = 2_800
CLASSIC_BATCH = 8


@dataclass(frozen=True)
class _Setting:
    """What all runs of one size share."""

    preset: Preset
    device: Device
    tokenizer: PreTrainedTokenizerBase
    chunks: DatasetDict
    report: Callable[[str], None]


def bench_recite(
    preset: str | Preset | None = None, *, repeats: int = 3, full_size_steps: int = 3,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure how soon the preset recites, beside the classic recipe on the same model and on the full GPT-2.

    Three measurements, the first two repeated with other seeds:

    - ``preset``: seconds from the call of ``train()``, with every check in it, until 95 % of the 16 -> 16 token
      recitations are exact, then the loss and the share recited at the end;
    - ``classic_small``: AdamW at 5e-5 with linear decay, batch 8, fp32, on the same model for the same wall time;
    - ``classic_full``: the same recipe on the 124 M GPT-2 with its own tokenizer: a few steps are measured, and the
      hours of all 2,800 are a projection, marked as such.

    ``peak_memory_bytes`` is the most that this process ever had in use until the runs of the preset ended; of a GPU's
    memory it says nothing.

    Args:
        preset: a preset or its name; by default the one for the device.
        repeats: runs of each of the first two measurements, of which medians are given.
        full_size_steps: steps to measure at full size, after one to warm up; 0 leaves that measurement out.
        report: gets a line of text at each stage, for progress.

    Raises:
        ValueError: unknown preset, ``repeats`` below 1 or ``full_size_steps`` below 0.
    """
    if repeats < 1 or full_size_steps < 0:
        raise ValueError(f"repeats={repeats}, full_size_steps={full_size_steps}: at least 1 and 0 are needed.")
    device = pick_device()
    preset = pick_preset(device if preset is None else preset)
    texts = load_wikipedia()
    tokenizer = preset_tokenizer(preset, texts["train"]["text"])
    setting = _Setting(preset, device, tokenizer, chunked_dataset(texts, tokenizer, preset.context_length), report)
    own = [_run_preset(setting, seed) for seed in range(repeats)]
    peak = peak_memory()  # later runs could not be told from these
    seconds = statistics.median(run["seconds"] for run in own)
    classic = [_run_classic(setting, seed, seconds) for seed in range(repeats)]
    rows = setting.chunks["train"]["input_ids"][:]
    results = {
        "benchmark": "recite",
        "settings": asdict(preset) | {
            "precision": precision(device), "chunks": len(rows),
            "parameters": sum(p.numel() for p in new_model(preset, tokenizer).parameters()),
            "characters_per_token": round(_characters_per_token(texts["train"]["text"][:], tokenizer), 2)},
        "peak_memory_bytes": peak,
        "preset": summary(own), "classic_small": summary(classic),
    }
    if full_size_steps:
        results["classic_full"] = _project_full_size(PRESETS["cuda"], texts, device, full_size_steps, report)
    return results


def recite_table(results: dict[str, Any]) -> str:
    """Return the results of ``bench_recite`` as lines of text."""
    name, settings, full = results["settings"]["name"], results["settings"], results.get("classic_full")
    rows = [(f"preset {name}", results["preset"]), (f"classic recipe, same model, {settings['layers']} x "
                                                    f"{settings['width']}", results["classic_small"])]
    lines = [f"{'':40} {'s to 95 %':>9}  {'seconds':>7}  {'steps':>5}  {'loss':>6}  {'exact':>6}  {'tokens/s':>8}"]
    for label, found in rows:
        reached = "never" if found["seconds_to_95"] is None else f"{found['seconds_to_95']:.1f}"
        lines.append(f"{label:40} {reached:>9}  {found['seconds']:>7.1f}  {found['steps']:>5.0f}  "
                     f"{found['loss']:>6.3f}  {found['exact_match']:>6.1%}  {found['tokens_per_second']:>8,.0f}")
    if full:
        lines.append(f"{'classic recipe, GPT-2 with 124 M':40} projected: {full['projected_hours']:.1f} hours for "
                     f"{full['steps']:,} steps of {full['seconds_per_step']:.1f} s")
    lines.append(f"medians of {len(results['preset']['runs'])} runs; {settings['chunks']} chunks of "
                 f"{settings['context_length']} tokens; peak memory of the preset "
                 f"{results['peak_memory_bytes'] / 1e9:.2f} GB")
    return "\n".join(lines)


def recite_figure(results: dict[str, Any]) -> Figure:
    """Draw the share of continuations recited at the end of each recipe; the seconds are told in words."""
    name = f"preset {results['settings']['name']}"
    shares = {name: results["preset"]["exact_match"], "classic recipe": results["classic_small"]["exact_match"]}
    reached = results["preset"]["seconds_to_95"]
    when = f"{name} recites 95 % after {reached:.0f} s" if reached is not None else f"{name} never recites 95 %"
    return bars(shares, xlabel="share of continuations recited", caption=f"After the same time; {when}.", alt=(
        f"Bar chart of the share recited after {results['classic_small']['seconds']:.0f} s: "
        + ", ".join(f"{recipe} {share:.2f}" for recipe, share in shares.items()) + f"; {when}."))


def _run_preset(setting: _Setting, seed: int) -> dict[str, Any]:
    preset = setting.preset
    setting.report(f"preset {preset.name}, run {seed + 1}")
    checks = StopWhenRecited(setting.chunks["train"]["input_ids"][:], preset.stop_at or RECITED)
    return _trained(setting, seed, {}, replace(preset, stop_at=None), [checks, _Lines(setting.report)], checks)


def _run_classic(setting: _Setting, seed: int, seconds: float) -> dict[str, Any]:
    # Time, not a number of steps, ends this run.
    preset = replace(setting.preset, batch=CLASSIC_BATCH, muon_lr=None, embedding_std=None, max_steps=1_000_000,
                     stop_at=None)
    setting.report(f"classic recipe on the same model, run {seed + 1}: {seconds:.0f} s")
    decay = _DecayOverTime(CLASSIC["learning_rate"], seconds)
    return _trained(setting, seed, CLASSIC | {"lr_scheduler_type": "constant"}, preset,
                    [decay, _Lines(setting.report)], None)


def _trained(
    setting: _Setting, seed: int, overrides: dict[str, Any], preset: Preset, callbacks: list[TrainerCallback],
    checks: StopWhenRecited | None,
) -> dict[str, Any]:
    """Train a new model and measure it; the clock runs from the call of ``train()`` to its return."""
    set_seed(seed)
    model, clock = new_model(preset, setting.tokenizer), _Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(preset, folder, device=setting.device, seed=seed, **overrides)
        trainer = build_trainer(model, arguments, setting.chunks, setting.tokenizer, preset=preset,
                                callbacks=[*callbacks, clock])
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        loss = trainer.evaluate(setting.chunks["train"])["eval_loss"]
    recited = recitation(model, setting.chunks["train"]["input_ids"][:], tokenizer=setting.tokenizer)
    reached = [clock.logged[step] - began for step, share in (checks.shares if checks else []) if share >= RECITED]
    if checks is None and recited.exact_match >= RECITED:
        reached = [seconds]
    return _record(trainer, clock, recited, seconds, loss, min(reached, default=None))


def _record(trainer, clock: _Clock, recited: Recitation, seconds: float, loss: float, reached: float | None) -> dict:
    steps, batch = trainer.state.global_step, trainer.args.train_batch_size
    times = list(clock.ends.values())
    return {
        "seconds_to_95": reached, "seconds": seconds, "steps": steps, "loss": loss, **asdict(recited),
        "tokens_per_second": steps * batch * len(trainer.train_dataset[0]["input_ids"]) / seconds,
        "seconds_per_step": statistics.median(after - before for before, after in pairwise(times)),
    }


def _project_full_size(
    preset: Preset, texts: DatasetDict, device: Device, steps: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """Measure a few steps of the classic recipe on a large model, and project all of them."""
    report(f"classic recipe, {preset.layers} x {preset.width}: {steps} steps after one to warm up")
    preset = replace(preset, batch=CLASSIC_BATCH, max_steps=steps + 1, dropout=0.1, stop_at=None)
    tokenizer = preset_tokenizer(preset, texts["train"]["text"])
    chunks = chunked_dataset(texts, tokenizer, preset.context_length)
    set_seed(0)
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(preset, folder, device=device, **CLASSIC)
        build_trainer(new_model(preset, tokenizer), arguments, chunks, tokenizer, preset=preset,
                      callbacks=[clock, _Lines(report)]).train()
    ends = list(clock.ends.values())
    seconds = statistics.median(after - before for before, after in pairwise(ends))
    return {"projection": True, "measured_steps": steps, "steps": CLASSIC_STEPS, "seconds_per_step": seconds,
            "projected_hours": CLASSIC_STEPS * seconds / 3600}


class _DecayOverTime(TrainerCallback):
    """Let the learning rate fall in a straight line to zero within so many seconds, and stop there."""

    def __init__(self, learning_rate: float, seconds: float) -> None:
        self.learning_rate, self.seconds, self.began = learning_rate, seconds, 0.0

    def on_train_begin(self, args, state, control, **_) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, optimizer=None, **_) -> None:
        left = 1 - (time.perf_counter() - self.began) / self.seconds
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate * max(left, 0.0)
        control.should_training_stop |= left <= 0


class _Clock(TrainerCallback):
    """When each step ended, and when all was done that is done after a training loss is logged."""

    def __init__(self) -> None:
        self.ends: dict[int, float] = {}
        self.logged: dict[int, float] = {}

    def on_step_end(self, args, state, control, **_) -> None:
        self.ends[state.global_step] = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **_) -> None:
        if "loss" in (logs or {}):  # other logs follow, those of evaluations
            self.logged[state.global_step] = time.perf_counter()


class _Lines(TrainerCallback):
    """A line per logged step."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report

    def on_log(self, args, state, control, logs=None, **_) -> None:
        if "loss" in (logs or {}):
            self.report(f"  step {state.global_step}: loss {logs['loss']:.3f}")


def _characters_per_token(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> float:
    return sum(map(len, texts)) / sum(map(len, tokenizer(texts)["input_ids"]))
