"""llm-tutorial bench recite: what is measured, in what form, on a model small enough for a test."""

import json
import statistics
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl

from llm_tutorial import callbacks
from llm_tutorial.benchmarks import recite
from llm_tutorial.benchmarks.recite import bench_recite, recite_figure, recite_table
from llm_tutorial.callbacks import StopWhenRecited
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.device import pick_device
from llm_tutorial.presets import PRESETS
from llm_tutorial.training import build_trainer


@pytest.fixture(scope="module")
def measured():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_TUTORIAL_SOURCE", "offline")
        patch.setenv("LLM_TUTORIAL_DEVICE", "cpu")
        patch.setenv("LLM_TUTORIAL_PRECISION", "fp32")
        patch.setattr(recite, "load_wikipedia", lambda: load_wikipedia(6, 3))
        said = []
        patch.setattr(recite, "peak_memory", lambda: 1000 + sum("run" in line for line in said))
        return bench_recite("smoke", repeats=2, full_size_steps=0, report=said.append), said


def test_both_recipes_are_run_for_the_same_time_and_summed_up_in_medians(measured):
    results, said = measured
    ours, classic = results["preset"], results["classic_small"]
    assert ours["steps"] == 20
    assert ours["seconds_to_95"] is None, "twenty steps of the smallest model are not enough"
    assert len(ours["runs"]) == len(classic["runs"]) == 2
    for summary in (ours, classic):
        assert summary["seconds"] == statistics.median(run["seconds"] for run in summary["runs"])
        assert 0 < summary["loss"] < 10
        assert 0 <= summary["exact_match"] <= summary["token_accuracy"] <= 1
        assert "peak_memory_bytes" not in summary, "a process cannot tell what one of its runs needed"
    late = 2 + 10 * classic["seconds_per_step"]  # the step at work is finished, slowly on a busy machine
    assert ours["seconds"] <= classic["seconds"] < ours["seconds"] + late
    assert ours["runs"][0]["loss"] != ours["runs"][1]["loss"], "each run has a seed of its own"
    assert ours["loss"] < classic["loss"]
    assert results["peak_memory_bytes"] == 1002, "measured between the runs of the preset and those that follow"
    assert "preset smoke, run 2" in said
    assert any(line.startswith("  step 20: loss ") for line in said)


def test_the_time_to_recite_ends_with_the_first_check_that_finds_enough(monkeypatch):
    now, shares, stops = [0.0], iter([0.5, 0.96]), []

    def check(*_):
        now[0] += 10.0
        return next(shares)

    monkeypatch.setattr(recite, "load_wikipedia", lambda: load_wikipedia(6, 3))
    monkeypatch.setattr(recite, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(recite, "build_trainer", lambda *given, preset, **options: (
        stops.append(preset.stop_at) or build_trainer(*given, preset=preset, **options)))
    monkeypatch.setattr(recite, "_run_classic", lambda *_: {})  # which only the real clock would end
    monkeypatch.setattr(callbacks, "recited_share", check)
    monkeypatch.setattr(recite, "StopWhenRecited", partial(StopWhenRecited, loss_below=100.0))
    [run] = bench_recite("smoke", repeats=1, full_size_steps=0, report=[].append)["preset"]["runs"]
    assert run["steps"] == 2
    assert stops == [None], "one callback stops, the one whose checks are looked at"
    assert run["seconds_to_95"] == run["seconds"] == 20.0, "the check belongs to the time"


def test_the_classic_learning_rate_falls_to_zero_over_time(monkeypatch):
    clock = iter([100.0, 102.5, 107.5, 110.0])
    monkeypatch.setattr(recite.time, "perf_counter", clock.__next__)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=9.0)
    decay, control, rates = recite._DecayOverTime(2.0, 10.0), TrainerControl(), []
    decay.on_train_begin(None, None, control)
    for _ in range(3):
        assert not control.should_training_stop
        decay.on_step_end(None, None, control, optimizer=optimizer)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1.5, 0.5, 0.0]
    assert control.should_training_stop


def test_the_results_are_json_and_describe_the_setting(measured):
    results = json.loads(json.dumps(measured[0]))
    assert results["settings"]["precision"] == "fp32"
    assert (results["settings"]["layers"], results["settings"]["width"]) == (2, 64)
    assert results["settings"]["chunks"] > 10
    assert 1 < results["settings"]["characters_per_token"] < 5
    assert "classic_full" not in results


def test_the_full_size_is_marked_as_a_projection():
    full = recite._project_full_size(PRESETS["smoke"], load_wikipedia(6, 3), pick_device(), 2, [].append)
    assert full["projection"] is True
    assert full["steps"] == 2_800
    assert full["projected_hours"] == pytest.approx(2_800 * full["seconds_per_step"] / 3600)


def test_the_table_says_what_was_reached_and_what_is_projected(measured):
    results = measured[0] | {"classic_full": {"projection": True, "measured_steps": 2, "steps": 2_800,
                                              "seconds_per_step": 9.0, "projected_hours": 7.0}}
    results["classic_small"] = results["classic_small"] | {"seconds_to_95": None}
    table = recite_table(results).splitlines()
    assert table[1].startswith("preset smoke")
    assert " never " in table[2]
    assert "projected: 7.0 hours for 2,800 steps of 9.0 s" in table[3]
    assert table[-1].startswith("medians of 2 runs; ")


def test_the_figure_tells_shares_and_seconds(measured):
    alt = recite_figure(measured[0] | {"preset": measured[0]["preset"] | {"exact_match": 0.96, "seconds_to_95": 28.75}})
    assert "preset smoke 0.96, classic recipe 0.00; preset smoke recites 95 % after 29 s" in alt.alt
    assert "preset smoke never recites 95 %" in recite_figure(measured[0]).alt


@pytest.mark.parametrize(("options", "numbers"), [({"repeats": 0}, "repeats=0"), ({"full_size_steps": -1}, "steps=-1")])
def test_impossible_counts_are_refused(options, numbers):
    with pytest.raises(ValueError, match=numbers):
        bench_recite("smoke", **options)
