"""llm-tutorial bench throughput: operations counted as PyTorch counts them, a bare loop that equals the Trainer."""

import json
import os
import statistics
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from benchmark_results import THROUGHPUT
from datasets import Dataset, DatasetDict
from torch.autograd import DeviceType

from llm_tutorial.benchmarks import flops, profiling, throughput
from llm_tutorial.benchmarks.bare_loop import BareLoop, autocast_dtype
from llm_tutorial.benchmarks.flops import gemm_peak, gemm_shapes
from llm_tutorial.benchmarks.profiling import GROUPS, group_of, step_shares
from llm_tutorial.benchmarks.throughput import (
    bench_throughput,
    throughput_figure,
    throughput_table,
    train_alternately,
)
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.device import Device
from llm_tutorial.presets import PRESETS
from llm_tutorial.training import new_model, training_arguments

SMOKE = PRESETS["smoke"]
CPU = Device("cpu", False, "for a test")


@pytest.fixture
def batches(chunks, causal_tokenizer):
    """Two batches of the smoke preset's four chunks; one chunk holds the padding token, which is no label."""
    rows = chunks["train"]["input_ids"][:8]
    rows[5][3:6] = [causal_tokenizer.pad_token_id] * 3
    return DatasetDict(chunks | {"train": Dataset.from_dict({"input_ids": rows})})


def test_the_shapes_tried_are_the_models_and_squares(causal_lm):
    assert gemm_shapes(causal_lm, 48, squares=(7,)) == [
        (48, 32, 32), (48, 32, 96), (48, 32, 128), (48, 32, causal_lm.config.vocab_size), (48, 128, 32), (7, 7, 7)]


def test_the_peak_is_the_best_median(monkeypatch):
    # Seconds of a product: while the number of products is found, then for the median.
    seconds = {(2, 3, 4): [1.0, 0.03, 0.04, 0.08, 0.5, 0.08], (8, 8, 8): [9.0, 0.06, 0.03, 0.01]}
    counts = []

    def measured(_device, one, other, count):
        counts.append(count)
        return seconds[(*one.shape, other.shape[1])].pop(0)

    monkeypatch.setattr(flops, "_seconds_of_products", measured)
    peak = gemm_peak(CPU, torch.float32, [(2, 3, 4), (8, 8, 8)], repeats=3)
    assert counts == [1, 1, 2, 4, 4, 4, 1, 1, 1, 1]
    slow, fast = 2 * 24 * 4 / 0.08, 2 * 512 / 0.03
    assert peak == {"shape": [8, 8, 8], "flops_per_second": pytest.approx(fast), "dtype": "float32", "tried": [
        {"shape": [2, 3, 4], "flops_per_second": pytest.approx(slow)},
        {"shape": [8, 8, 8], "flops_per_second": pytest.approx(fast)}]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_real_products_are_measured(dtype):
    [found] = gemm_peak(CPU, dtype, [(32, 32, 32)], repeats=1)["tried"]
    assert 1e6 < found["flops_per_second"] < 1e13


@pytest.mark.parametrize("preset", [SMOKE, replace(SMOKE, muon_lr=None), replace(SMOKE, attention="eager", warmup=3)])
def test_the_bare_loop_has_the_losses_of_the_trainer_step_for_step(batches, causal_tokenizer, preset):
    seconds, losses, loop = train_alternately(preset, CPU, batches, causal_tokenizer, steps=9, seed=3, logging_steps=1)
    assert len(losses["bare"]) == len(losses["trainer"]) == len(seconds["bare"]) == len(seconds["trainer"]) == 9
    assert losses["bare"] == pytest.approx(losses["trainer"], rel=3e-6)
    assert losses["bare"][-1] < losses["bare"][0], "it learns"
    assert loop.schedule.get_last_lr()[0] == 0.0, "the schedule is at its end"


def test_losses_are_logged_as_means(batches, causal_tokenizer):
    _, each, _ = train_alternately(SMOKE, CPU, batches, causal_tokenizer, steps=6, seed=3, logging_steps=1)
    _, means, _ = train_alternately(SMOKE, CPU, batches, causal_tokenizer, steps=6, seed=3, logging_steps=3)
    expected = [statistics.mean(each["bare"][:3]), statistics.mean(each["bare"][3:])]
    assert means["bare"] == pytest.approx(expected)
    assert means["trainer"] == pytest.approx(expected, rel=3e-6)


def test_the_bare_loop_trains_in_the_trainers_half_precision(batches, causal_tokenizer):
    half = Device("cpu", True, "for a test")
    assert (autocast_dtype(half), autocast_dtype(CPU)) == (torch.bfloat16, None)
    _, exact, _ = train_alternately(SMOKE, CPU, batches, causal_tokenizer, steps=4, seed=3, logging_steps=1)
    _, losses, _ = train_alternately(SMOKE, half, batches, causal_tokenizer, steps=4, seed=3, logging_steps=1)
    assert losses["bare"] == pytest.approx(losses["trainer"], rel=3e-6)
    assert losses["bare"] != exact["bare"]


def test_the_bare_loop_stops_at_a_loss_that_is_not_finite(batches, causal_tokenizer, tmp_path):
    arguments = training_arguments(SMOKE, tmp_path, device=CPU, max_steps=4, logging_steps=2)
    loop = BareLoop(new_model(SMOKE, causal_tokenizer), batches["train"]["input_ids"][:], preset=SMOKE,
                    arguments=arguments, device=CPU)
    loop.step()
    loop.model.transformer.ln_f.bias.data[0] = torch.nan
    with pytest.raises(FloatingPointError, match="The bare loop's loss is nan at step 2"):
        loop.step()


def test_a_batch_that_does_not_divide_the_chunks_is_refused(chunks, causal_tokenizer, tmp_path):
    arguments = training_arguments(SMOKE, tmp_path, max_steps=4, logging_steps=1)
    with pytest.raises(ValueError, match="10 chunks make no whole number of batches of 4"):
        BareLoop(new_model(SMOKE, causal_tokenizer), chunks["train"]["input_ids"][:], preset=SMOKE,
                 arguments=arguments, device=CPU)


def test_the_clock_of_one_stands_still_while_the_other_works(monkeypatch):
    clock = iter([10.0, 12.0, 15.0, 15.5, 16.5, 18.5, 20.0])  # a line is printed from 15.0 to 15.5
    monkeypatch.setattr(throughput.time, "perf_counter", clock.__next__)
    said, steps = [], []
    turns = throughput._Turns(SimpleNamespace(device=CPU, step=lambda: steps.append(1)), said.append)
    state = SimpleNamespace(global_step=1, max_steps=2)
    turns.on_train_begin(None, state, None)
    turns.on_step_end(None, state, None)
    turns.on_step_end(None, state, None)
    assert (turns.own, turns.bare) == ([2.0, 1.0], [3.0, 2.0])
    assert len(steps) == 2
    assert said == ["  step 1 of 2", "  step 1 of 2"]


@pytest.mark.parametrize(("name", "group"), [
    ("aten::addmm", "matrix products"), ("aten::_scaled_dot_product_flash_attention_for_cpu", "matrix products"),
    ("aten::_flash_attention_forward", "matrix products"), ("aten::_efficient_attention_backward", "matrix products"),
    ("aten::_cudnn_attention_forward", "matrix products"),
    ("aten::_softmax", "softmax and loss"), ("aten::nll_loss_backward", "softmax and loss"),
    ("aten::_log_softmax_backward_data", "softmax and loss"), ("aten::add_", "other elementwise"),
    ("aten::mul", "other elementwise"), ("autograd::engine::evaluate_function: MmBackward0", "Python and idle"),
    ("own::softmax", "Python and idle")])
def test_operators_are_grouped_by_what_they_do(name, group):
    assert group_of(name) == group
    inner = SimpleNamespace(name=name, cpu_parent=SimpleNamespace(name="aten::matmul", cpu_parent=SimpleNamespace(
        name="Optimizer.step#MuonAdamW.step", cpu_parent=None)))
    assert profiling._group(inner) == "optimiser"


def test_the_profile_finds_every_group(batches, causal_tokenizer, capfd):
    _, _, loop = train_alternately(SMOKE, CPU, batches, causal_tokenizer, steps=2, seed=0, report=[].append)
    shares = step_shares(loop, steps=2)
    assert capfd.readouterr() == ("", ""), "the profiler's library writes nothing of its own"
    assert "KINETO_LOG_LEVEL" not in os.environ
    assert tuple(shares) == GROUPS
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0
    loop.device = Device("mps", False, "")
    assert step_shares(loop) is None
    with pytest.raises(ValueError, match="steps=0"):
        step_shares(loop, steps=0)


@pytest.mark.parametrize(("on", "milliseconds", "expected"), [
    ("cpu", 1.0, [0.4, 0.25, 0.1, 0.1, 0.15]),
    ("cuda", 2.0, [0.1, 0.4, 0.2, 0.1, 0.2]),
    ("cpu", 0.5, [40 / 85, 25 / 85, 10 / 85, 10 / 85, 0.0]),  # operators of several threads at once
])
def test_shares_follow_from_the_operators_own_time(monkeypatch, on, milliseconds, expected):
    def event(name, cpu, gpu, parent=None, device_type=DeviceType.CPU):
        return SimpleNamespace(name=name, cpu_parent=parent, device_type=device_type, self_cpu_time_total=cpu,
                               cpu_time_total=9999, self_device_time_total=gpu, device_time_total=9999)

    optimiser = event("Optimizer.step#MuonAdamW.step", 50, 0)
    events = [event("aten::mm", 400, 200), optimiser, event("aten::mul", 200, 800, optimiser),
              event("aten::_softmax", 100, 400), event("aten::add", 100, 200),
              event("autograd::engine", 7777, 7777), event("kernel", 9999, 9999, device_type=DeviceType.CUDA)]
    done = []

    @contextmanager
    def profile(activities):
        assert [activity.name for activity in activities] == (["CPU", "CUDA"] if on == "cuda" else ["CPU"])
        done.append("profile")
        yield SimpleNamespace(events=lambda: events)

    clock = iter([7.0, 7.0 + milliseconds / 1000])
    monkeypatch.setattr(profiling, "profile", profile)
    monkeypatch.setattr(profiling, "synchronize", lambda device: done.append(device.name))
    monkeypatch.setattr(profiling.time, "perf_counter", clock.__next__)
    loop = SimpleNamespace(device=Device(on, False, ""), step=lambda: done.append("step"))
    assert list(step_shares(loop, steps=2).values()) == pytest.approx(expected)
    assert done == ["step", on, "profile", "step", "step", on], "one to warm up, and the clock waits for the device"


def test_a_level_of_the_users_own_stays(monkeypatch):
    monkeypatch.setenv("KINETO_LOG_LEVEL", "2")
    with profiling._few_words():
        assert os.environ["KINETO_LOG_LEVEL"] == "2"
    assert os.environ["KINETO_LOG_LEVEL"] == "2"


@pytest.fixture
def few_texts(monkeypatch):
    monkeypatch.setattr(throughput, "load_wikipedia", lambda: load_wikipedia(6, 3))


@pytest.mark.usefixtures("few_texts")
def test_figures_follow_from_the_seconds_of_each_step(monkeypatch):
    warm_up = [99.0] * throughput.WARMUP_STEPS
    seconds = iter([{"trainer": [*warm_up, 0.5, 0.25, 1.0], "bare": [*warm_up, 0.4, 0.25, 0.5]},
                    {"trainer": [*warm_up, 1.0, 1.0, 1.0], "bare": [*warm_up, 1.0, 1.0, 1.0]}])
    monkeypatch.setattr(throughput, "train_alternately", lambda *_, **__: (next(seconds), {}, None))
    monkeypatch.setattr(throughput, "step_shares", lambda _: THROUGHPUT["shares"])
    monkeypatch.setattr(throughput, "gemm_peak", lambda *_: {"flops_per_second": 1e10, "tried": []})
    found = bench_throughput("smoke", repeats=2, steps=3, report=[].append)
    assert [run["tokens_per_second"] for run in found["trainer"]["runs"]] == [512 / 0.5, 512 / 1.0]
    assert [run["tokens_per_second"] for run in found["bare"]["runs"]] == [512 / 0.4, 512 / 1.0]
    assert found["trainer"]["tokens_per_second"] == (1024 + 512) / 2
    assert found["trainer"]["mfu"] == pytest.approx(768 * found["flops_per_token"] / 1e10)
    assert found["ratios"] == [0.8, 1.0], "medians of 0.8, 1.0 and 0.5, and of 1.0"
    assert found["ratio"] == pytest.approx(0.9)
    assert found["ratio_of_totals"] == pytest.approx((1.15 / 1.75 + 1) / 2)


@pytest.mark.usefixtures("few_texts")
def test_a_real_measurement_is_json_and_describes_its_setting():
    said = []
    found = json.loads(json.dumps(bench_throughput("smoke", repeats=1, steps=2, squares=(32,), report=said.append)))
    settings, [run] = found["settings"], found["trainer"]["runs"]
    assert (settings["tokens_per_step"], settings["precision"], settings["parameters"]) == (512, "fp32", 141_056)
    assert run["mfu"] == pytest.approx(run["tokens_per_second"] * found["flops_per_token"]
                                       / found["peak"]["flops_per_second"])
    assert len(found["peak"]["tried"]) == 6
    assert 0.05 < found["ratio"] < 20
    assert said[1] == "throughput: Trainer and bare loop in turn, 5 steps each, run 1 of 1"
    assert throughput_table(found).count("\n") >= 6


def test_the_table_names_both_and_what_n_is():
    table = throughput_table(THROUGHPUT).splitlines()
    assert table[2].split() == ["Trainer", "38,000", "0.013", "47.5%"]
    assert table[3].split() == ["bare", "PyTorch", "loop", "40,000", "0.013", "50.0%"]
    assert table[4].startswith("Trainer / bare: 0.950")
    assert "1.25 MFLOP per token (6 N + 12 L d T; N = 131,072 weights of linear layers" in table[5]
    assert "of 100 GFLOP/s, the best of 2 products in float32: 512 x 64 x 256" in table[5]
    assert "optimiser 25%" in table[6]


def test_the_figure_tells_the_shares():
    figure = throughput_figure(THROUGHPUT)
    assert figure.png.startswith(b"\x89PNG")
    assert "Model FLOPs utilisation: Trainer 0.47, bare PyTorch loop 0.50." in figure.alt
    assert "optimiser 0.25" in figure.alt
    assert "optimiser" not in throughput_figure(THROUGHPUT | {"shares": None}).alt


@pytest.mark.parametrize(("options", "message"), [
    ({"repeats": 0}, "repeats=0"), ({"steps": 0}, "steps=0"), ({"preset": "tpu"}, "Unknown preset 'tpu'")])
def test_impossible_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bench_throughput(**{"preset": "smoke", **options})


@pytest.mark.usefixtures("few_texts")
def test_too_few_chunks_for_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"There are \d+ training chunks, but a batch has 1000: use a smaller batch"):
        bench_throughput(replace(SMOKE, batch=1000), report=[].append)
