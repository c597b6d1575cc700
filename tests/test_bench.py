"""llm-tutorial bench: figures that follow from a clock, a bare loop that equals the Trainer, one JSON object."""

import json
from argparse import Namespace
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import TrainerControl

from llm_tutorial.commands import bench
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.device import Device
from llm_tutorial.training import PRESETS, build_trainer

SMOKE = PRESETS["smoke"]
CPU = Device("cpu", False, "for a test")


@pytest.fixture
def setting(chunks, causal_tokenizer):
    """Two batches of four chunks, and two chunks too many; one chunk holds the padding token, which is no label."""
    rows = chunks["train"]["input_ids"][:]
    rows[5][3:6] = [causal_tokenizer.pad_token_id] * 3
    chunks = DatasetDict(chunks | {"train": Dataset.from_dict({"input_ids": rows})})
    return bench.Setting(replace(SMOKE, context_length=16), CPU, causal_tokenizer, chunks)


@pytest.fixture
def few_texts(monkeypatch):
    """Let ``main`` train for four steps on three articles."""
    monkeypatch.setattr(bench, "load_wikipedia", lambda: load_wikipedia(2, 1))
    monkeypatch.setitem(PRESETS, "smoke", replace(SMOKE, max_steps=4))
    monkeypatch.setattr(bench, "SQUARES", (7,))


@pytest.mark.parametrize(("recipe", "bf16"), [({}, False), ({"muon_lr": None}, False), ({}, True)])
def test_the_bare_loop_has_the_losses_of_the_trainer(setting, recipe, bf16):
    setting = replace(setting, preset=replace(setting.preset, **recipe), device=replace(CPU, bf16=bf16))
    loop, trainer = bench.train_in_turn(setting, 9, seed=3)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(loop.own) == len(loop.others) == len(logged) == 9
    assert torch.stack(loop.losses).tolist() == pytest.approx(logged, rel=3e-6)
    assert loop.losses[-1] < loop.losses[0], "it learns"


def test_the_clock_of_one_stands_still_while_the_other_works(setting, monkeypatch):
    clock = iter([10.0, 12.0, 15.0, 16.0, 18.0])
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    loop, _ = bench.train_in_turn(setting, 2, seed=0)
    assert (loop.others, loop.own) == ([2.0, 1.0], [3.0, 2.0])


def test_the_clock_waits_for_a_gpu(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: waited.append(True))
    for device in ("cpu", "cuda"):
        assert bench.BareLoop._now(SimpleNamespace(device=device)) > 0
    assert waited == [True]


def test_the_peak_is_that_of_the_fastest_product(monkeypatch):
    def timer(_, globals, **__):
        median = {512: 1e-3, 1024: 1e-3, 2048: 1e-1}[len(globals["matrix"])]
        return SimpleNamespace(blocked_autorange=lambda **_: SimpleNamespace(median=median))

    monkeypatch.setattr(bench, "Timer", timer)
    monkeypatch.setattr(bench, "SQUARES", (512, 1024, 2048))
    assert bench.matmul_peak(CPU) == pytest.approx(2 * 1024**3 / 1e-3)


def test_throughput_follows_from_the_seconds_of_each_step(setting, monkeypatch):
    warmup = [99.0] * bench.WARMUP_STEPS
    loops = iter([SimpleNamespace(others=[*warmup, 0.5, 0.25, 1.0], own=[*warmup, 0.4, 0.25, 0.5]),
                  SimpleNamespace(others=[*warmup, 1.0, 1.0, 1.0], own=[*warmup, 0.9, 0.9, 1.0])])
    monkeypatch.setattr(bench, "train_in_turn", lambda *_: (next(loops), None))
    monkeypatch.setattr(bench, "matmul_peak", lambda *_: 1e9)
    found = bench.bench_throughput(setting, repeats=2, steps=3)
    assert found["trainer"]["tokens_per_second"] == 96, "the median of 64 / 0.5 and 64 / 1.0"
    assert found["bare"]["seconds_per_step"] == pytest.approx(0.65), "the median of 0.4 and 0.9"
    assert found["ratio"] == pytest.approx(0.9), "of 0.8, 1.0, 0.5, 0.9, 0.9 and 1.0"
    # 6 N for two blocks of 12 d^2 weights and the output projection, and 12 L d T for attention.
    flops = 6 * (2 * 12 * 64**2 + 64 * len(setting.tokenizer)) + 12 * 2 * 64 * 16
    assert found["flops_per_token"] == flops
    assert found["trainer"]["mfu"] == pytest.approx(96 * flops / 1e9)


@pytest.mark.usefixtures("few_texts")
def test_recite_trains_until_95_percent_and_the_classic_recipe_as_long(monkeypatch, capsys):
    trained, ticks = [], count()

    def build(model, arguments, *given, preset, callbacks):
        trained.append((preset.stop_at, preset.muon_lr, arguments.learning_rate, arguments.train_batch_size))
        return build_trainer(model, arguments, *given, preset=preset, callbacks=callbacks)

    monkeypatch.setattr(bench, "build_trainer", build)
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    monkeypatch.setattr(bench, "recited_share", lambda *_: 0.96)
    assert bench.main(Namespace(kind="recite", preset="smoke", repeats=2, steps=None, json=True)) == 0
    found = json.loads(capsys.readouterr().out)
    assert trained == [(0.95, 5e-3, 2e-3, 4)] * 2 + [(None, None, 5e-5, 8)] * 2
    ours, classic = found["own"], found["classic"]
    assert (ours["seconds"], ours["steps"], ours["exact_match"]) == (1.0, 4, 0.96)
    assert classic["steps"] == 1, "the clock ticks at each step, and the preset took one second"
    assert ours["loss"] < classic["loss"]


def test_the_classic_learning_rate_falls_to_zero_over_time(monkeypatch):
    clock = iter([100.0, 102.5, 107.5, 110.0])
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=9.0)
    decay, control, rates = bench._DecayOverTime(2.0, 10.0), TrainerControl(), []
    decay.on_train_begin(None, None, control)
    for _ in range(3):
        assert not control.should_training_stop
        decay.on_step_end(None, None, control, optimizer=optimizer)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1.5, 0.5, 0.0]
    assert control.should_training_stop


@pytest.mark.usefixtures("few_texts")
@pytest.mark.parametrize(("kind", "text"), [
    ("recite", ["preset ", "classic recipe", "exact_match"]),
    ("throughput", ["Trainer", "bare PyTorch loop", "median over pairs of steps", "GFLOP/s"]),
])
def test_results_are_one_json_object_or_a_table(capsys, kind, text):
    arguments = Namespace(kind=kind, preset="smoke", repeats=1, steps=2, json=True)
    assert bench.main(arguments) == 0
    out, progress = capsys.readouterr()
    found = json.loads(out)
    assert (found["benchmark"], found["device"], found["preset"]["name"]) == (kind, "cpu", "smoke")
    assert progress
    report = bench._report(found)
    assert all(part in report for part in text)
    assert report.startswith("preset smoke on cpu (set by LLM_TUTORIAL_DEVICE")
