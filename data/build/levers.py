"""Train the plain recipe, the plain recipe with one lever of the CPU recipe, and the full one without each of them.

    python data/build/levers.py --time    (seconds per step, a few minutes on a quiet machine)
    python data/build/levers.py           (the trainings, about a quarter of an hour on two quiet cores)

The text is ten articles, so that even bad recipes see it several times; the small vocabulary is made from fifty.

Every training gets as many steps as fit into 15 seconds by its measured step, with the learning rate falling to zero
over them, and ends earlier once 95 % of the training chunks are recited. Three seeds, or one where the first ends far
from reciting anything. Trainings may run beside other work: what they give is losses by step. Seconds are steps times
the median seconds of a step, which ``--time`` measures apart; of two or more passes of it, the fastest counts. They are
those of the clock, or 1.3 times the processor's seconds per thread where those are less: then the machine was busy.
Checks of recitation are not part of them. The activation and the attention are the preset's in all trainings, since
they change seconds only; they are timed once the library's way.

State is kept in ``build/levers``, so an interrupted run goes on; the result is ``data/runs/levers.json``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from llm_tutorial.chunking import chunked_dataset
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.device import pick_device
from llm_tutorial.evaluation import recited_share
from llm_tutorial.optimizers import MuonAdamW, muon_parameter_groups
from llm_tutorial.reporting import quiet
from llm_tutorial.sources.files import replace_file
from llm_tutorial.training import PRESETS, Preset, new_model, preset_tokenizer

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / "build" / "levers"
RESULT = ROOT / "data" / "runs" / "levers.json"
ENVIRONMENT = {"LLM_TUTORIAL_SOURCE": "offline", "LLM_TUTORIAL_DEVICE": "cpu"}
SECONDS, SEEDS, RECITED = 15, (0, 1, 2), 0.95
ARTICLES = 10
EVERY = 3  # steps between two checks, and in a block of the curves
TIMED_STEPS, THREADS = 15, 2
QUIET = 1.3  # seconds of a step by the clock of a quiet machine, per second that its two threads compute
FULL = replace(PRESETS["cpu"], name="full")
PLAIN = replace(FULL, name="plain", vocabulary=None, layers=4, width=184, batch=8, embedding_std=None,
                learning_rate=1e-4, warmup=0.0, muon_lr=None)
HOPELESS = 3.0  # nats per token at the end: no further seeds, since nothing is recited by far
ADAMW_RATE = 1e-3  # where AdamW trains the matrices too
# Each lever: the fields of the preset that it changes, or the precision.
LEVERS = {
    "small vocabulary": ("vocabulary",),
    "two wide layers": ("layers", "width"),
    "larger batch": ("batch",),
    "spread-out start": ("embedding_std",),
    "higher rate, warm-up": ("learning_rate", "warmup"),
    "bf16": (),
    "Muon": ("muon_lr",),
}


def recipes() -> dict[str, tuple[Preset, bool]]:
    """Return each recipe's preset and whether it trains in bf16."""
    found = {"plain": (PLAIN, False), "full": (FULL, True)}
    for lever, fields in LEVERS.items():
        alone = replace(PLAIN, **{field: getattr(FULL, field) for field in fields})
        without = replace(FULL, **{field: getattr(PLAIN, field) for field in fields})
        if lever == "higher rate, warm-up":
            alone = replace(alone, learning_rate=ADAMW_RATE)
        if lever == "Muon":
            without = replace(without, learning_rate=ADAMW_RATE)
        found[f"plain + {lever}"] = alone, lever == "bf16"
        found[f"full - {lever}"] = without, lever != "bf16"
    return found


def rates() -> dict[str, tuple[Preset, bool]]:
    """Return the full recipe with other learning rates: of AdamW alone, and of Muon."""
    adamw = {f"AdamW {rate:g}": (replace(FULL, muon_lr=None, learning_rate=rate), True)
             for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)}
    return adamw | {f"Muon {rate:g}": (replace(FULL, muon_lr=rate), True)
                    for rate in (1.25e-3, 5e-3, 2e-2, 8e-2, 3.2e-1)}


class Texts:
    """The same articles for all recipes, cut with the tokenizer of each."""

    def __init__(self) -> None:
        self.articles = load_wikipedia(50, 50, 42)
        self._cut: dict[int | None, tuple[PreTrainedTokenizerBase, torch.Tensor]] = {}

    def of(self, preset: Preset) -> tuple[PreTrainedTokenizerBase, torch.Tensor]:
        """Return the preset's tokenizer, and the training chunks of shape (chunks, context length)."""
        if preset.vocabulary not in self._cut:
            tokenizer = preset_tokenizer(preset, self.articles["train"]["text"])
            chunks = chunked_dataset(self.articles["train"].select(range(ARTICLES)), tokenizer, preset.context_length)
            self._cut[preset.vocabulary] = tokenizer, torch.tensor(chunks["input_ids"][:])
        return self._cut[preset.vocabulary]


def optimizer_of(model: PreTrainedModel, preset: Preset, bf16: bool) -> torch.optim.Optimizer:
    """Return the preset's optimizer, without weight decay."""
    if preset.muon_lr is None:
        return torch.optim.AdamW(model.parameters(), lr=preset.learning_rate, weight_decay=0.0)
    return MuonAdamW(muon_parameter_groups(model, muon_lr=preset.muon_lr, adamw_lr=preset.learning_rate), bf16=bf16)


def scheduled(preset: Preset, steps: int) -> Callable[[int], float]:
    """Return the share of the learning rate at a step: up in a straight line, then down to zero."""
    warmup = math.ceil(preset.warmup * steps)
    return lambda step: (step + 1) / (warmup + 1) if step < warmup else (steps - step) / max(1, steps - warmup)


def shuffled(rows: torch.Tensor, batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield batches without end, in a new order in every pass."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from rows[torch.randperm(len(rows), generator=generator)].split(batch)


def steps_of(
    model: PreTrainedModel, preset: Preset, batches: Iterator[torch.Tensor], steps: int, *, bf16: bool
) -> Iterator[float]:
    """Train, and yield the loss of each batch before its step."""
    optimizer = optimizer_of(model, preset, bf16)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scheduled(preset, steps))
    model.train()
    for _, batch in zip(range(steps), batches, strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(input_ids=batch, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        yield loss.item()


def fresh(preset: Preset, tokenizer: PreTrainedTokenizerBase, seed: int) -> GPT2LMHeadModel:
    """Return the preset's untrained model."""
    set_seed(seed)
    return new_model(preset, tokenizer)


def timed(preset: Preset, bf16: bool, texts: Texts, count: int) -> dict[str, float]:
    """Return the median seconds of a step, by the clock and by this process's two threads."""
    torch.set_num_threads(THREADS)
    tokenizer, rows = texts.of(preset)
    losses = steps_of(fresh(preset, tokenizer, 0), preset, shuffled(rows, preset.batch, 0), 1000, bf16=bf16)
    for _ in range(3):  # these allocate memory and make the optimizer's state
        next(losses)
    clock, processor = [], []
    for _ in range(count):
        began, used = time.perf_counter(), time.process_time()
        next(losses)
        clock.append(time.perf_counter() - began)
        processor.append((time.process_time() - used) / THREADS)
    return {"seconds": statistics.median(clock), "threads": statistics.median(processor)}


def trained(preset: Preset, bf16: bool, steps: int, seed: int, texts: Texts) -> dict[str, Any]:
    """Return the losses by step of one training, and when it recited what share of its chunks."""
    tokenizer, rows = texts.of(preset)
    model = fresh(preset, tokenizer, seed)
    losses, recited = [], []
    for loss in steps_of(model, preset, shuffled(rows, preset.batch, seed), steps, bf16=bf16):
        losses.append(round(loss, 4))
        if len(losses) % EVERY == 0 and statistics.fmean(losses[-EVERY:]) < 1.2:
            recited.append((len(losses), recited_share(model, rows)))
            model.train()
            if recited[-1][1] >= RECITED:
                break
    if not recited or recited[-1][0] != len(losses):
        recited.append((len(losses), recited_share(model, rows)))
    passes = len(losses) * preset.batch / len(rows)
    return {"losses": losses, "recited": recited, "steps_planned": steps, "passes": passes}


def kept(name: str) -> dict[str, Any]:
    """Return what ``build/levers/<name>.json`` holds so far."""
    path = STATE / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def keep(name: str, state: dict[str, Any]) -> None:
    """Write ``build/levers/<name>.json``."""
    STATE.mkdir(parents=True, exist_ok=True)
    replace_file(STATE / f"{name}.json", json.dumps(state).encode())


def measure_time(texts: Texts, count: int, only: str) -> None:
    """Time every recipe once more; a result is kept if it is faster than the one before."""
    times = kept("times")
    usual = replace(FULL, activation="gelu_new", attention="sdpa")
    for name, (preset, bf16) in (recipes() | {"full, library's activation and attention": (usual, True)}).items():
        if only not in name:
            continue
        found = timed(preset, bf16, texts, count)
        times[name] = {key: min(value, times.get(name, found)[key]) for key, value in found.items()}
        print(f"{name}: {found}; best {times[name]['seconds']:.3f}", flush=True)
        keep("times", times)


def seconds_of(step: dict[str, float]) -> float:
    """Return the seconds of a step: by the clock, unless the processor's time shows that the machine was busy."""
    return min(step["seconds"], QUIET * step["threads"])


def bits(preset: Preset, texts: Texts) -> float:
    """Return the factor from nats per token to bits per byte of the training chunks."""
    tokenizer, rows = texts.of(preset)
    size = sum(len(tokenizer.decode(row[1:]).encode()) for row in rows)
    return rows[:, 1:].numel() / size / math.log(2)


def summary(runs: list[dict[str, Any]], step: float, factor: float) -> dict[str, Any]:
    """Return the medians over the seeds of a recipe; curves are block means, as long as the shortest training."""
    reached = [run["recited"][-1][0] * step if run["recited"][-1][1] >= RECITED else math.inf for run in runs]
    seconds, shortest = statistics.median(reached), min(len(run["losses"]) for run in runs)
    blocks = range(EVERY, shortest + 1, EVERY)
    loss = [statistics.median(statistics.fmean(run["losses"][end - EVERY:end]) for run in runs) for end in blocks]
    return {
        "seeds": len(runs), "seconds_per_step": round(step, 4),
        "steps": statistics.median(len(run["losses"]) for run in runs),
        "steps_planned": runs[0]["steps_planned"],
        "passes": round(statistics.median(run["passes"] for run in runs), 2),
        "seconds_to_95": None if math.isinf(seconds) else round(seconds, 1),
        "recited": round(statistics.median(run["recited"][-1][1] for run in runs), 4),
        "curve": {"steps": list(blocks), "seconds": [round(end * step, 2) for end in blocks],
                  "loss": [round(value, 3) for value in loss],
                  "bits_per_byte": [round(value * factor, 3) for value in loss]},
    }


def table(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each lever: the plain recipe with it, and the full one without it."""
    rows = []
    for lever in ("(none)", *LEVERS):
        alone = found.get("plain" if lever == "(none)" else f"plain + {lever}")
        without = found.get("full" if lever == "(none)" else f"full - {lever}")
        if alone and without:
            reached = without["seconds_to_95"]
            rows.append({
                "lever": lever, "plain + lever: bits per byte": alone["curve"]["bits_per_byte"][-1],
                "full - lever: seconds to 95 %": f"{reached:.0f}" if reached else "not reached",
                "full - lever: recited": f"{without['recited']:.0%}"})
    return rows


def write(texts: Texts) -> None:
    """Write the result of all trainings so far."""
    times, trainings = kept("times"), kept("trainings")
    found, swept = {}, []
    for name, (preset, bf16) in (recipes() | rates()).items():
        runs = [trainings[f"{name} / {seed}"] for seed in SEEDS if f"{name} / {seed}" in trainings]
        if runs and name in times:
            size = len(texts.of(preset)[0])
            found[name] = {"preset": asdict(preset), "precision": "bf16" if bf16 else "fp32", "vocabulary": size,
                           "chunks": len(texts.of(preset)[1])} | summary(
                               runs, seconds_of(times[name]), bits(preset, texts))
        elif runs:
            optimizer, _, rate = name.partition(" ")
            swept.append({"optimizer": optimizer, "rate": float(rate), "steps": len(runs[0]["losses"]),
                          "loss": round(statistics.fmean(runs[0]["losses"][-EVERY:]), 3),
                          "recited": round(runs[0]["recited"][-1][1], 4)})
    result = {
        "command": "python data/build/levers.py", "device": "cpu", "threads": THREADS,
        "seconds_are": f"steps x median seconds of a step ({TIMED_STEPS} steps, the fastest of several passes, "
                       f"measured apart from the trainings; at most {QUIET} x processor seconds per thread)",
        "articles": ARTICLES, "cap_seconds": SECONDS, "share_aimed_at": RECITED,
        "levers": list(LEVERS), "table": table(found), "recipes": found, "rates": swept,
        "step_seconds": times,
        "versions": {"python": platform.python_version(), "processor": platform.machine()} | {
            name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers", "datasets")},
    }
    replace_file(RESULT, (json.dumps(result, ensure_ascii=False) + "\n").encode())


def main() -> None:
    """Time the recipes, or train those that are missing, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--time", action="store_true", help="measure seconds per step instead of training")
    parser.add_argument("--write", action="store_true", help="only write the result of what is there")
    parser.add_argument("--steps", type=int, default=TIMED_STEPS, metavar="N", help="steps to time")
    parser.add_argument("--only", default="", metavar="TEXT", help="only recipes with this text in their names")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    quiet()
    texts = Texts()
    if options.time or options.write:
        if options.time:
            measure_time(texts, options.steps, options.only)
        write(texts)
        return
    print(pick_device(), flush=True)
    times, trainings = kept("times"), kept("trainings")
    queue = [(name, recipe, seed) for seed in SEEDS for name, recipe in recipes().items()]
    for name, (preset, bf16), seed in queue + [(name, recipe, 0) for name, recipe in rates().items()]:
        key = f"{name} / {seed}"
        if key in trainings or options.only not in name:
            continue
        if seed and trainings[f"{name} / 0"]["losses"][-1] > HOPELESS:
            continue
        planned = trainings.get(f"{name} / 0", {}).get("steps_planned")
        steps = planned or round(SECONDS / QUIET / times.get(name, times["full"])["threads"])
        began = time.perf_counter()
        trainings[key] = trained(preset, bf16, steps, seed, texts)
        keep("trainings", trainings)
        write(texts)
        print(f"{time.strftime('%H:%M:%S')} {key}: {len(trainings[key]['losses'])} of {steps} steps, recited "
              f"{trainings[key]['recited'][-1]}, last loss {trainings[key]['losses'][-1]}, "
              f"{time.perf_counter() - began:.0f} s by the clock", flush=True)


if __name__ == "__main__":
    main()
