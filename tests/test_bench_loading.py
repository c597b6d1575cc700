"""llm-tutorial bench load: stages of a fresh process, from which source."""

import json
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmark_results import LOAD

from llm_tutorial import checkpoints, decoding, offline
from llm_tutorial.benchmarks import loading
from llm_tutorial.benchmarks.children import run_child
from llm_tutorial.benchmarks.loading import STAGES, bench_load, first_prediction, load_figure, load_table
from llm_tutorial.checkpoints import Checkpoint


@pytest.fixture
def children(monkeypatch):
    """Processes that take no time; the list fills with the model and source of each, ``answers`` says what it used."""
    calls, answers = [], {}

    def call(function, *, label, report, model, source, started):
        assert function is first_prediction
        assert 0 <= time.time() - started < 5
        report(label)
        calls.append((model, source))
        used = answers.get((model, source), ["offline"])
        seconds = float(len(calls))
        return {**dict.fromkeys(STAGES, seconds), "total": 5 * seconds, "name": f"{model} model",
                "source": used.pop(0) if len(used) > 1 else used[0], "reason": "no network"}

    monkeypatch.setattr(loading, "run_child", call)
    monkeypatch.setattr(loading, "_import_seconds", lambda _: LOAD["import"])
    monkeypatch.setattr(offline, "fetch_causal_lm", lambda report: report("ready"))
    call.calls, call.answers = calls, answers
    return call


def test_a_fresh_process_is_measured_stage_by_stage(monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "hub")  # what is asked for goes before what is configured
    before = time.time()
    found = run_child(first_prediction, label="load", report=[].append, model="masked", source="offline",
                      started=before)
    assert 0 < found["total"] < time.time() - before
    assert sum(found[stage] for stage in STAGES) == pytest.approx(found["total"])
    assert min(found[stage] for stage in STAGES) > 0
    assert found["imports"] > 0.3, "PyTorch and transformers were not there before"
    assert (found["source"], found["name"]) == ("offline", "minilm-mlm")


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_the_clock_runs_from_the_start_to_the_first_prediction(
    model, masked_lm, masked_tokenizer, causal_lm, causal_tokenizer, monkeypatch
):
    now, done = [50.0], []

    def taking(seconds, what, result=None):
        def work(*arguments, **options):
            now[0] += seconds
            done.append((what, *arguments, *options.values()))
            return result
        return work

    pair = (masked_tokenizer, masked_lm) if model == "masked" else (causal_tokenizer, causal_lm)
    checkpoint = Checkpoint(Path("model"), "abc", "cache", "downloaded earlier", "a/model")
    monkeypatch.setattr(loading, "time", SimpleNamespace(time=lambda: now[0]))
    monkeypatch.setattr(checkpoints, "resolve_checkpoint", taking(3.0, "check", checkpoint))
    monkeypatch.setattr(checkpoints, "load_checkpoint", taking(5.0, "load", pair))
    monkeypatch.setattr(decoding, "top_predictions", taking(7.0, "masked"))
    monkeypatch.setattr(decoding, "next_tokens", taking(7.0, "causal"))
    found = first_prediction(model, "hub", 48.0)
    assert [found[stage] for stage in STAGES] == [2.0, 0.0, 3.0, 5.0, 7.0]
    assert (found["total"], found["source"], found["name"]) == (17.0, "cache", "a/model")
    assert done[0] == ("check", model, "hub")
    assert done[1][:2] == ("load", checkpoint)
    assert done[1][2].__name__ == {"masked": "AutoModelForMaskedLM", "causal": "AutoModelForCausalLM"}[model]
    assert done[2][:3] == (model, *reversed(pair))


def test_the_difference_is_what_the_package_adds(monkeypatch):
    monkeypatch.setattr(loading, "_python_seconds", {"pass": 0.25, "import llm_tutorial": 1.0}.__getitem__)
    found = loading._import_seconds(7)
    assert (found["empty_python"], found["with_package"], found["difference"]) == (0.25, 1.0, 0.75)
    assert len(found["runs"]) == 7


def test_a_python_that_fails_is_no_measurement():
    with pytest.raises(subprocess.CalledProcessError):
        loading._python_seconds("raise SystemExit(3)")


def test_both_models_are_measured_offline(children):
    said = []
    found = json.loads(json.dumps(bench_load(repeats=2, report=said.append)))
    assert children.calls == [("masked", "offline")] * 2 + [("causal", "offline")] * 2
    assert said[0] == "load: ready", "the model is fetched before the clock runs"
    masked, causal = found["first_prediction"]
    assert (masked["model"], masked["source"], masked["total"], masked["imports"]) == ("masked", "offline", 7.5, 1.5)
    assert (causal["name"], causal["total"]) == ("causal model", 17.5)
    assert found["notes"] == []


def test_the_hubs_model_is_measured_where_it_is_in_use(children, monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "auto")
    children.answers["masked", "auto"] = ["hub", "cache"]
    found = bench_load(repeats=3, report=[].append)
    assert [(row["model"], row["source"], len(row["runs"])) for row in found["first_prediction"]] == [
        ("masked", "offline", 3), ("masked", "hub", 1), ("masked", "cache", 2), ("causal", "offline", 3)]
    assert children.calls.count(("causal", "auto")) == 1, "once shows that it is not in use"
    assert found["notes"] == ["causal: the hub's model is not in use here (no network)"]


def test_a_hub_that_breaks_off_leaves_what_was_measured(children, monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "auto")

    def failing(function, *, source, **options):
        if source == "auto":
            raise OSError("the connection broke")
        return children(function, source=source, **options)

    monkeypatch.setattr(loading, "run_child", failing)
    found = bench_load(["masked"], repeats=2, report=[].append)
    assert [(row["source"], len(row["runs"])) for row in found["first_prediction"]] == [("offline", 2)]
    assert found["notes"] == ["masked: the hub's model could not be measured (the connection broke)"]
    monkeypatch.setattr(loading, "run_child", lambda *_, **__: (_ for _ in ()).throw(OSError("broken file")))
    with pytest.raises(OSError, match="broken file"):
        bench_load(["masked"], repeats=2, report=[].append)


def test_the_import_is_measured_beside_an_empty_python():
    found = loading._import_seconds(1)
    assert len(found["runs"]) == 5
    assert 0 < found["empty_python"] < 5
    for run in found["runs"]:
        assert run["difference"] == pytest.approx(run["with_package"] - run["empty_python"])


@pytest.mark.parametrize(("arguments", "message"), [
    ({"repeats": 0}, "repeats=0"), ({"models": ["gpt"]}, r"models=\('gpt',\).*masked, causal"),
    ({"models": []}, r"models=\(\)")])
def test_impossible_arguments_are_refused(children, arguments, message):
    with pytest.raises(ValueError, match=message):
        bench_load(**arguments)
    assert children.calls == []


def test_the_table_shows_stages_sources_and_the_import():
    table = load_table(LOAD).splitlines()
    assert table[1].split() == ["masked:", "minilm-mlm", "(offline)", "0.03", "1.50", "0.05", "0.25", "0.02", "1.85",
                                "1"]
    assert table[2] == "import llm_tutorial: 0.020 s, of which an empty Python takes 0.015 s"
    assert table[3] == LOAD["notes"][0]


def test_the_figure_tells_the_stages():
    figure = load_figure(LOAD)
    assert figure.png.startswith(b"\x89PNG")
    assert "masked: minilm-mlm (offline), 1.85 s: start 0.03, imports 1.50, checking 0.05" in figure.alt
