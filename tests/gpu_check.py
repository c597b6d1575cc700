"""Checks that need a GPU: each passes or fails with figures; at the end come a table and a JSON file. See docs/GPU.md.

    python tests/gpu_check.py --json gpu.json    # one CUDA GPU of 15 GB or more, about eight minutes; needs no checkout
    python tests/gpu_check.py --smallest         # the same in miniature on a CPU, which tests this script
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import torch
from torch.nn.utils import parameters_to_vector
from torch.utils.benchmark import timer  # which waits for a GPU
from transformers import TrainerCallback, set_seed

from llm_tutorial import checkpoints, chunking, corpus, decoding, reporting, training
from llm_tutorial.commands import bench, run
from llm_tutorial.device import Device, pick_device

PROMPTS = ("The capital of France is", "Once upon a time there was a", "Water boils at a temperature of")
HOLES = ("Paris is the [MASK] of France.", "life is like a box of [MASK].", "She plays the [MASK] in an orchestra.")
CPU, CUDA, GPT2 = (training.PRESETS[name] for name in ("cpu", "cuda", "gpt2"))
TINY = replace(CPU, width=64, vocabulary=512, batch=4, epochs=60)
TINY_GPT2 = replace(GPT2, layers=2, width=64, heads=2, vocabulary=512, context_length=64, batch=8, at_once=4)


def setting_of(preset, device, cut=chunking.packed_dataset):
    texts = corpus.load_wikipedia(2, 2) if device.name == "cpu" else corpus.load_wikipedia()
    tokenizer = training.preset_tokenizer(preset, texts["train"]["text"])
    chunks = cut(texts, tokenizer, preset.context_length)
    chunks["train"] = chunks["train"].repeat(1 + 8 * preset.batch // len(chunks["train"]))  # eight batches
    return bench.Setting(replace(preset, stop_at=None), device, tokenizer, chunks)


def train(setting, *, folder=None, checkpoint=None, error=None, fail_at=0, **overrides):
    """Train from the same start on the same batches; return losses and seconds of steps, and the weights' way."""
    def after_step(_args, state, _control, **_):
        times.append(timer())
        if state.global_step == fail_at:
            raise error

    set_seed(0)
    model, callback, times = training.new_model(setting.preset, setting.tokenizer), TrainerCallback(), [timer()]
    callback.on_step_end = after_step
    start = parameters_to_vector(model.parameters()).detach()
    with tempfile.TemporaryDirectory() as other:
        arguments = training.training_arguments(setting.preset, folder or other, device=setting.device, **{
            "eval_strategy": "no", "logging_steps": 1, "max_steps": 24, "dataloader_drop_last": True} | overrides)
        trainer = training.build_trainer(model, arguments, setting.chunks, setting.tokenizer, preset=setting.preset,
                                         callbacks=[callback])
        trainer.train(resume_from_checkpoint=checkpoint)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, np.diff(times), parameters_to_vector(model.parameters()).detach().cpu() - start


def agree(device, small):
    """Each model says on the GPU, in fp32, what it says on the CPU; in miniature, fp64 plays the GPU."""
    torch.set_float32_matmul_precision("highest")  # no tf32
    for name in ("masked", "gpt2" if small else "causal"):
        (tokenizer, model), best, written = getattr(checkpoints, f"load_{name}_lm")(), [], []
        for place, dtype in (("cpu", torch.float32), (device.name, torch.float64 if small else torch.float32)):
            model.to(place, dtype)
            if name == "masked":
                best.append([one for text in HOLES for one in decoding.top_predictions(model, tokenizer, text)[0]])
            else:
                best.append([one for text in PROMPTS for one in decoding.next_tokens(model, tokenizer, text)])
                written += [[decoding.greedy_decode(model, tokenizer, text).tolist() for text in PROMPTS]]
        pairs = list(zip(*best, strict=True))
        top, greedy = sum(one.id == two.id for one, two in pairs), written[:1] == written[1:]
        yield name, top == len(pairs) and greedy, {
            "equal among the top five": f"{top} of {len(pairs)}", "equal greedy texts": greedy if written else "-",
            "largest difference": max(abs(one.probability - two.probability) for one, two in pairs)}


def recite(device, small):
    """The preset of lesson 3 trains until it recites."""
    own = bench.bench_recite(setting_of(TINY if small else CUDA, device, chunking.chunked_dataset), repeats=1)["own"]
    yield "lesson 3", own["exact_match"] >= bench.RECITED, own


def precisions(device, small):
    """A few steps in half precision, with either optimizer: the losses are finite and fall."""
    setting = setting_of(TINY if small else CPU, device)
    for half, there in {"fp16": True, "bf16": small or torch.cuda.is_bf16_supported(including_emulation=False)}.items():
        if not there:
            yield half, None, {"reason": "this GPU has no units for it"}
        for optimizer, muon_lr in (("Muon", CPU.muon_lr), ("fused AdamW", None)) if there else ():
            own = replace(setting, preset=replace(setting.preset, muon_lr=muon_lr),
                          device=Device(device.name, half == "bf16", "", fp16=half == "fp16"))
            losses, *_ = train(own, optim="adamw_torch_fused")
            yield f"{half}, {optimizer}", all(loss < losses[0] - 0.3 for loss in losses[-3:]), {
                "first loss": losses[0], "last loss": losses[-1]}


def resume(device, _small):
    """A training that is interrupted and resumed from a checkpoint ends where one ends that was not."""
    setting, save = setting_of(TINY, device), {"save_strategy": "steps", "save_steps": 8}
    *_, whole = train(setting, **save)
    with tempfile.TemporaryDirectory() as folder:
        with suppress(InterruptedError):
            train(setting, folder=folder, error=InterruptedError(), fail_at=13, **save)
        _, steps, resumed = train(setting, folder=folder, checkpoint=training.newest_checkpoint(folder), **save)
    share = ((resumed - whole).norm() / whole.norm()).item()  # rounding alone gives 0.01 in bf16
    yield "step 13 of 24", share < 0.05 and len(steps) == 16, {"distance / way": share, "steps from 8 on": len(steps)}


def memory(device, small):
    """A GPU that is full ends a training with an error that says what to change; in miniature, by imitation."""
    setting, said = setting_of(replace(TINY if small else CUDA, batch=64), device), "nothing"
    if not small:  # room for the weights, and for a quarter of a gigabyte more
        room, (_, total) = torch.cuda.memory_reserved() + 0.75e9, torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        train(setting, error=torch.OutOfMemoryError("imitated"), fail_at=int(small))
    except MemoryError as error:
        said = str(error)
    yield "imitated" if small else "limited", "batch=32 " in said, {"error": f"{said[:88]} ..."}


def throughput(device, small):
    """Speed and memory of the preset for streams, plain and compiled, with equal losses; the batch is a smaller one."""
    setting, ends = setting_of(TINY_GPT2 if small else replace(GPT2, batch=48), device), []
    preset, peak = setting.preset, bench.matmul_peak(device)
    flops = bench.flops_per_token(preset, setting.tokenizer)
    compiled = {"torch_compile": True, "torch_compile_backend": "eager" if small else None}  # which needs no C compiler
    for kind, choice in {"plain": {}, "compiled": compiled}.items():
        losses, seconds, _ = train(setting, max_steps=8, **choice)
        speed = preset.batch * preset.context_length / np.median(seconds[3:])  # the first steps allocate and compile
        ends.append(losses[-1])
        yield kind, abs(ends[-1] / ends[0] - 1) < 0.03, {
            "tokens/s": speed, "share of the peak": speed * flops / peak, "TFLOP/s of the peak": peak / 1e12,
            "seconds until the first step": seconds[0], "last loss": ends[-1]}


def lessons(_device, small):
    """Lessons 1 to 6 from the first cell to the last; in miniature, a notebook of one cell."""
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")]), f"{folder}/00_tiny.ipynb")
        for path in [path for path in run.chosen_notebooks([folder] if small else []) if path.name < "07"]:
            done = run.execute_notebook(path, timeout=600)
            yield path.stem, done.error is None, {"cells": done.cells, "error": (done.error or "none")[-150:]}


CHECKS = {check.__name__: check for check in (agree, recite, precisions, resume, memory, throughput, lessons)}


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"some of {', '.join(CHECKS)}; by default all")
    parser.add_argument("--smallest", action="store_true")
    parser.add_argument("--json", type=Path, default=os.devnull)
    options, rows, lines = parser.parse_args(words), [], []
    reporting.quiet()
    os.environ["LLM_TUTORIAL_DEVICE"] = "cpu" if options.smallest else "cuda"  # also for the lessons
    device = pick_device()  # an error where there is no such GPU
    about = {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "device": f"{device.name} ({device.reason})",
             "python": sys.version, **run.library_versions()}
    if device.name == "cuda":
        about |= {"gpu": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability(),
                  "memory_gb": torch.cuda.mem_get_info()[1] / 1e9, "cuda": torch.version.cuda or torch.version.hip}

    def add(check, seconds, passed, figures):
        result, gpu_gb = {True: "pass", False: "FAIL", None: "not run"}[passed], torch.cuda.max_memory_allocated() / 1e9
        rows.append({"result": result, "check": check, "seconds": seconds, "gpu_gb": gpu_gb, "figures": figures})
        shown = ", ".join(f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}"
                          for key, value in figures.items())
        lines.append(f"| {result} | {check} | {seconds:.1f} | {gpu_gb:.1f} | {' '.join(shown.split())} |")
        print(lines[-1], flush=True)
        gc.collect()
        if not options.smallest:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.set_per_process_memory_fraction(1.0)

    for name in options.checks or CHECKS:
        began = timer()
        try:
            for what, *found in CHECKS[name](device, options.smallest):
                add(f"{name}: {what}", timer() - began, *found)
                began = timer()
        except Exception as error:  # the other checks go on
            add(name, timer() - began, False, {"error": f"{type(error).__name__}: {error}"[:300]})
    print("", *(f"{key}: {value}" for key, value in about.items()), "",
          "| result | check | seconds | GPU memory, GB | figures |", "|---|---|---|---|---|", *lines, sep="\n")
    options.json.write_text(json.dumps(about | {"checks": rows}, indent=1), encoding="utf-8")
    return int(any(row["result"] == "FAIL" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
