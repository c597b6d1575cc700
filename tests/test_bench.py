"""llm-tutorial bench: figures that follow from a clock, a bare loop that equals the Trainer, one JSON object."""

import json
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, DatasetDict

from llm_tutorial import training
from llm_tutorial.commands import bench
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.device import Device
from llm_tutorial.training import PRESETS

SMOKE = PRESETS["smoke"]
CPU = Device("cpu", False, "for a test")


@pytest.fixture
def setting(chunks, causal_tokenizer):
    """Two batches of four chunks; one chunk holds the padding token, which is no label."""
    rows = chunks["train"]["input_ids"][:8]
    rows[5][3:6] = [causal_tokenizer.pad_token_id] * 3
    chunks = DatasetDict(chunks | {"train": Dataset.from_dict({"input_ids": rows})})
    return bench.Setting(replace(SMOKE, context_length=16), CPU, causal_tokenizer, chunks)


@pytest.fixture
def few_texts(monkeypatch):
    """Let ``main`` train for four steps on three articles."""
    monkeypatch.setattr(bench, "load_wikipedia", lambda: load_wikipedia(2, 1))
    monkeypatch.setitem(PRESETS, "smoke", replace(SMOKE, max_steps=4))
    monkeypatch.setattr(bench, "SQUARES", (7,))


@pytest.mark.parametrize(("recipe", "bf16"), [({}, False), ({"muon_lr": None}, True), ({"at_once": 2}, False)])
def test_the_bare_loop_has_the_losses_of_the_trainer(setting, recipe, bf16):
    setting = replace(setting, preset=replace(setting.preset, **recipe), device=replace(CPU, bf16=bf16))
    (seconds, bare), (others, logged) = (
        train(setting, 9, seed=3) for train in (bench.train_with_bare_loop, bench.train_with_trainer))
    assert len(seconds) == len(others) == 9
    assert min(seconds + others) > 0
    assert bare == pytest.approx(logged, rel=3e-6)
    assert bare[-1] < bare[0], "it learns"


def test_the_peak_is_that_of_the_fastest_product(monkeypatch):
    def timer(_, globals, **__):
        median = {512: 1e-3, 1024: 1e-3, 2048: 1e-1}[len(globals["matrix"])]
        return SimpleNamespace(blocked_autorange=lambda **_: SimpleNamespace(median=median))

    monkeypatch.setattr(bench, "Timer", timer)
    monkeypatch.setattr(bench, "SQUARES", (512, 1024, 2048))
    assert bench.matmul_peak(CPU) == pytest.approx(2 * 1024**3 / 1e-3)


def test_throughput_follows_from_the_seconds_of_each_step(setting, monkeypatch):
    warmup = [99.0] * bench.WARMUP_STEPS
    for name, runs in {"trainer": [[0.5, 0.25, 1.0], [1.0, 1.0, 1.0]],
                       "bare_loop": [[0.4, 0.25, 0.5], [0.9, 0.9, 1.0]]}.items():
        monkeypatch.setattr(bench, f"train_with_{name}", lambda *given, runs=runs: ([*warmup, *runs[given[-1]]], []))
    monkeypatch.setattr(bench, "matmul_peak", lambda *_: 1e9)
    found = bench.bench_throughput(setting, repeats=2, steps=3)
    assert found["trainer"]["tokens_per_second"] == 96, "the median of 64 / 0.5 and 64 / 1.0"
    assert found["bare"]["seconds_per_step"] == pytest.approx(0.65), "the median of 0.4 and 0.9"
    assert found["ratio"] == pytest.approx(96 / found["bare"]["tokens_per_second"])
    # 6 N for two blocks of 12 d^2 weights and the output projection, and 12 L d T for attention.
    flops = 6 * (2 * 12 * 64**2 + 64 * len(setting.tokenizer)) + 12 * 2 * 64 * 16
    assert found["flops_per_token"] == flops
    assert found["trainer"]["mfu"] == pytest.approx(96 * flops / 1e9)


@pytest.mark.usefixtures("few_texts")
def test_a_batch_larger_than_the_text_is_filled_with_repeated_rows(monkeypatch):
    seen = []
    monkeypatch.setitem(PRESETS, "smoke", replace(SMOKE, batch=512, context_length=1024))
    monkeypatch.setattr(bench, "bench_throughput", lambda setting, **_: seen.append(setting) or {})
    assert bench.main(Namespace(kind="throughput", preset="smoke", repeats=1, steps=1, json=True)) == 0
    rows = seen[0].chunks["train"]
    assert (len(rows), {len(row) for row in rows["input_ids"]}, rows.column_names) == (512, {1024}, ["input_ids"])


@pytest.mark.usefixtures("few_texts")
@pytest.mark.parametrize(("kind", "text"), [
    ("recite", ["preset ", "exact_match", "96.0%"]),
    ("throughput", ["Trainer", "bare PyTorch loop", "Trainer / bare loop: ", "GFLOP/s"]),
])
def test_results_are_one_json_object_or_a_table(monkeypatch, capsys, kind, text):
    stops = []
    monkeypatch.setattr(bench, "recited_share", lambda *_: 0.96)
    monkeypatch.setattr(bench, "build_trainer", lambda *given, preset, **named: stops.append(preset.stop_at)
                        or training.build_trainer(*given, preset=preset, **named))
    assert bench.main(Namespace(kind=kind, preset="smoke", repeats=1, steps=2, json=True)) == 0
    out, progress = capsys.readouterr()
    found = json.loads(out)
    assert (found["benchmark"], found["device"], found["preset"]["name"]) == (kind, "cpu", "smoke")
    assert (set(stops), bool(progress)) == ({0.95 if kind == "recite" else None}, True)
    report = bench._report(found)
    assert all(part in report for part in text)
    assert report.startswith("preset smoke on cpu (set by LLM_TUTORIAL_DEVICE")


def test_the_clock_waits_for_a_gpu(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: waited.append(True))
    for name in ("cpu", "cuda"):
        assert bench._now(Device(name, False, "")) > 0
    assert waited == [True]
