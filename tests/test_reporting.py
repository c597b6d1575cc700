"""Tables of facts against independent counts, and what is shown while a model trains."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import PrinterCallback, Trainer, TrainerState, TrainingArguments

from llm_tutorial import reporting
from llm_tutorial.checkpoints import Checkpoint
from llm_tutorial.device import Device
from llm_tutorial.reporting import TrainingProgress, loss_curves, setup_table


@pytest.mark.parametrize(("device", "precision"), [
    (Device("cpu", True, "fast"), "bf16"), (Device("cpu", False, "safe"), "fp32"),
    (Device("cuda", False, "old", fp16=True), "fp16"),
])
def test_the_setup_table_says_what_is_used_and_why(device, precision):
    facts = setup_table(Checkpoint(Path("x"), "0123456789abcdef", "offline", "no network", "minilm"), device)[""]
    assert facts.tolist() == [
        "minilm", "0123456789ab", "offline", "no network", device.name, precision, device.reason]


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """The time in seconds, which the tests set."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(reporting.time, "perf_counter", lambda: now.seconds)
    return now


@pytest.fixture
def shown(monkeypatch) -> list:
    """What a notebook's front end would be given: the first output and its updates."""
    kept = []

    def display(data, **_):
        kept.append(data)
        return SimpleNamespace(update=kept.append)

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return kept


def train(progress, clock, steps=4, first=0, main=True):
    """Call a callback as the Trainer does: a step takes two seconds, every other is logged, the last is evaluated."""
    state = TrainerState(global_step=first, max_steps=steps, is_world_process_zero=main)
    progress.on_train_begin(None, state, None)
    clock.seconds += 60  # a resumed training skips the data it has used
    for step in range(first + 1, steps + 1):
        progress.on_step_begin(None, state, None)
        clock.seconds += 2
        state.global_step = step
        for logs in ([{"loss": 9.0 - step}] if step % 2 == 0 else []) + ([{"eval_loss": 7.0}] if step == steps else []):
            state.log_history.append(logs | {"step": step})
            progress.on_log(None, state, None, logs=logs)
    progress.on_train_end(None, state, None)
    clock.seconds += 60
    progress.on_log(None, state, None, logs={"eval_loss": 1.0})  # evaluate() after the training is no progress


def test_the_trainer_makes_the_table_as_it_trains(causal_lm, chunks, tmp_path, capsys):
    causal_lm.loss_type = "ForCausalLM"
    rows = chunks.map(lambda row: {"labels": row["input_ids"]})
    trainer = Trainer(causal_lm, TrainingArguments(
        tmp_path, max_steps=4, logging_steps=2, eval_strategy="steps", eval_steps=4, save_strategy="no", use_cpu=True,
        disable_tqdm=True), train_dataset=rows["train"], eval_dataset=rows["valid"],
        callbacks=[TrainingProgress(64, live=False)])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    losses = {(entry["step"], key): f"{entry[key]:.3f}" for entry in trainer.state.log_history
              for key in ("loss", "eval_loss") if key in entry}
    assert [row[:-3] for row in rows] == [["2", losses[2, "loss"]], ["4", losses[4, "loss"], losses[4, "eval_loss"]]]
    trainer.evaluate()
    assert capsys.readouterr().out == "", "an evaluation after the training is no progress"


def test_loss_curves_are_those_of_the_log():
    log = [{"step": 2, "loss": 3.0}, {"step": 2, "eval_loss": 4.0}, {"step": 4, "loss": 1.0}, {"step": 5, "runtime": 9}]
    trainer = SimpleNamespace(state=SimpleNamespace(log_history=log))
    assert loss_curves(trainer) == {"training loss": ([2, 4], [3.0, 1.0]), "validation loss": ([2], [4.0])}
    trainer.state.log_history = [{"step": 2, "loss": 3.0, "epoch": 0.5}]
    assert loss_curves(trainer, x="epoch") == {"training loss": ([0.5], [3.0])}


def test_the_table_has_a_line_per_logged_step(clock, capsys):
    progress = TrainingProgress(64, live=False)
    train(progress, clock, steps=6, first=2)
    assert capsys.readouterr().out.splitlines() == [
        "training from step 2 to at most 6",
        "  step  training loss  validation loss  tokens/s  seconds   left",
        "     4          5.000                         32        4      4",
        "     6          3.000            7.000        32        8      0"]
    assert progress.seconds == 8.0


def test_the_live_figure_is_drawn_again_at_a_distance_and_ends_with_the_last_step(clock, shown, capsys, monkeypatch):
    monkeypatch.setattr(reporting, "SECONDS_BETWEEN_PICTURES", 6.0)
    train(TrainingProgress(64, live=True), clock, steps=10)
    start, *figures = shown
    assert start == {"text/plain": "training from step 0 to at most 10"}
    assert [int(figure.text.split()[3]) for figure in figures] == [2, 6, 10, 10], "8 s apart, and the end"
    assert figures[0].text.startswith("Line chart: Step 2 of at most 10; 4 s gone, 16 s left; 32 tokens/s.")
    assert "validation loss" not in figures[0].alt
    assert "training loss: first 7.000 at 2, lowest -1.000 at 10, highest 7.000 at 2, last -1.000 at" in figures[-1].alt
    assert "validation loss: first 7.000 at 10" in figures[-1].alt
    assert capsys.readouterr().out == ""


def test_a_resumed_training_shows_the_whole_curve(shown):
    progress = TrainingProgress(64, live=True)
    state = TrainerState(global_step=4, max_steps=8, log_history=[{"step": 2, "loss": 3.0}, {"step": 4, "loss": 2.0}])
    progress.on_train_begin(None, state, None)
    progress.on_log(None, state, None, logs={"loss": 2.0})
    assert "first 3.000 at 2, lowest 2.000 at 4" in shown[-1].alt


@pytest.mark.parametrize("live", [True, False])
def test_one_of_several_processes_is_enough(clock, shown, capsys, live):
    train(TrainingProgress(64, live=live), clock, main=False)
    assert (shown, capsys.readouterr().out) == ([], "")


@pytest.mark.parametrize(("display", "shell", "live"), [
    ("", SimpleNamespace(kernel=1), True), ("plain", SimpleNamespace(kernel=1), False),
    ("", SimpleNamespace(), False), ("", None, False),
])
def test_the_figure_is_for_notebooks_that_want_it(monkeypatch, display, shell, live):
    monkeypatch.setenv("LLM_TUTORIAL_DISPLAY", display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert TrainingProgress(64).live is live
