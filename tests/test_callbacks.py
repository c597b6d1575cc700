"""What is shown while a model trains, and the stop when it recites."""

import sys
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import TrainerState

from llm_tutorial import callbacks
from llm_tutorial.callbacks import StopWhenRecited, TrainingProgress
from llm_tutorial.evaluation import recitation
from llm_tutorial.training import build_trainer, training_arguments


def train(model, chunks, tokenizer, folder, callback, **overrides):
    options = {"max_steps": 4, "logging_steps": 2, "eval_steps": 4, "per_device_train_batch_size": 4} | overrides
    arguments = training_arguments("smoke", folder, **options)
    trainer = build_trainer(model, arguments, chunks, tokenizer, preset="smoke", callbacks=[callback])
    trainer.train()
    return trainer


@pytest.fixture
def long_chunks(causal_tokenizer):
    """Eight chunks of 40 random ids, for training and for validation."""
    ids = torch.randint(1, len(causal_tokenizer), (8, 40), generator=torch.Generator().manual_seed(0)).tolist()
    return DatasetDict({split: Dataset.from_dict({"input_ids": ids}) for split in ("train", "valid")})


@pytest.mark.parametrize("tokens_per_step", [None, 64])
def test_the_table_has_a_line_per_logged_step(causal_lm, causal_tokenizer, chunks, tmp_path, capsys, tokens_per_step):
    trainer = train(causal_lm, chunks, causal_tokenizer, tmp_path, TrainingProgress(tokens_per_step, live=False))
    start, header, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert " ".join(start) == "training from step 0 to at most 4"
    assert header == ["step", "training", "loss", "validation", "loss", "tokens/s", "seconds", "left"]
    logged = trainer.state.log_history
    losses, valid = [e["loss"] for e in logged if "loss" in e], [e["eval_loss"] for e in logged if "eval_loss" in e]
    speed = int(tokens_per_step is not None)
    assert [len(row) for row in rows] == [4 + speed, 5 + speed]
    assert rows[0][:2] == ["2", f"{losses[0]:.3f}"]
    assert rows[1][:3] == ["4", f"{losses[1]:.3f}", f"{valid[0]:.3f}"], "both losses of a step share a line"
    assert rows[1][-1] == "0", "nothing is left"
    trainer.evaluate()
    assert capsys.readouterr().out == "", "an evaluation after the training is no progress"


@pytest.fixture
def shown(monkeypatch) -> list:
    """What a notebook's front end would be given: the first output and its updates."""
    kept = []

    def display(data, *, raw, display_id):
        assert raw
        assert display_id
        kept.append(data)
        return SimpleNamespace(update=kept.append)

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return kept


def test_the_live_figure_is_drawn_again_and_ends_with_the_last_step(
    causal_lm, causal_tokenizer, chunks, tmp_path, capsys, monkeypatch, shown
):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_PICTURES", 0.0)
    train(causal_lm, chunks, causal_tokenizer, tmp_path, TrainingProgress(64, live=True))
    start, *figures = shown
    assert start == {"text/plain": "training from step 0 to at most 4"}
    assert len(figures) == 4, "two training losses, one validation loss, the end"
    assert figures[0].alt.startswith("Line chart of the losses during training. Step 2 of at most 4; ")
    assert "training loss " in figures[0].alt
    assert "validation loss" not in figures[0].alt
    assert "Step 4 of at most 4; " in figures[-1].alt
    assert "tokens/s; training loss " in figures[-1].alt
    assert "validation loss " in figures[-1].alt
    assert capsys.readouterr().out == ""


def test_a_resumed_training_shows_the_whole_curve_in_one_process_only(monkeypatch, shown):
    drawn = []
    monkeypatch.setattr(callbacks, "lines", lambda curves, **_: drawn.append(curves))
    state = TrainerState(global_step=4, max_steps=8, log_history=[
        {"step": 2, "loss": 3.0}, {"step": 2, "eval_loss": 4.0}, {"step": 4, "loss": 2.0}])
    progress = TrainingProgress(live=True)
    state.is_world_process_zero = False
    progress.on_train_begin(None, state, None)
    progress.on_log(None, state, None, logs={"loss": 2.0})
    assert (shown, drawn) == ([], [])
    state.is_world_process_zero = True
    progress.on_train_begin(None, state, None)
    progress.on_log(None, state, None, logs={"loss": 2.0})
    assert drawn == [{"training loss": ([2, 4], [3.0, 2.0]), "validation loss": ([2], [4.0])}]
    progress.on_train_end(None, state, None)
    pictures = len(drawn)
    progress._drawn_at = 0.0
    progress.on_log(None, state, None, logs={"eval_loss": 2.0})
    assert len(drawn) == pictures, "evaluate() after the training is no progress"


def test_the_clock_starts_with_the_first_step(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now[0])
    progress, state = TrainingProgress(100, live=False), TrainerState(global_step=7, max_steps=9)
    progress.on_train_begin(None, state, None)
    now[0] = 60.0  # a stream is read up to its place
    for step in (7, 8):
        state.global_step = step
        progress.on_step_begin(None, state, None)
        now[0] += 2.0
    state.global_step = 9
    progress.on_log(None, state, None, logs={"loss": 2.0})
    progress.on_train_end(None, state, None)
    assert progress.seconds == 4.0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["9", "2.000", "50", "4", "0"]


def test_pictures_keep_their_distance(causal_lm, causal_tokenizer, chunks, tmp_path, monkeypatch, shown):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_PICTURES", 3600.0)
    monkeypatch.setattr(callbacks.time, "perf_counter", iter(range(1, 10_000)).__next__)
    train(causal_lm, chunks, causal_tokenizer, tmp_path, TrainingProgress(live=True))
    assert len(shown) == 2, "the start and the end"


@pytest.mark.parametrize(("display", "shell", "live"), [
    ("", SimpleNamespace(kernel=1), True), ("plain", SimpleNamespace(kernel=1), False),
    ("", SimpleNamespace(), False), ("", None, False),
])
def test_the_figure_is_for_notebooks_that_want_it(monkeypatch, display, shell, live):
    monkeypatch.setenv("LLM_TUTORIAL_DISPLAY", display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert TrainingProgress().live is live


def test_without_ipython_the_table_is_printed(monkeypatch):
    monkeypatch.delenv("LLM_TUTORIAL_DISPLAY", raising=False)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert TrainingProgress().live is False


def test_training_stops_at_the_first_check_that_recites_enough(causal_lm, causal_tokenizer, long_chunks, tmp_path):
    rows = long_chunks["train"]["input_ids"][:]
    stop = StopWhenRecited(rows, share=0.9, loss_below=5.0)
    trainer = train(causal_lm, long_chunks, causal_tokenizer, tmp_path, stop, max_steps=200, logging_steps=2,
                    eval_strategy="no", per_device_train_batch_size=8, learning_rate=2e-2,
                    lr_scheduler_type="constant")
    assert 0 < trainer.state.global_step < 200
    assert stop.shares[-1] == (trainer.state.global_step, recitation(causal_lm, rows).exact_match)
    assert stop.shares[-1][1] >= 0.9
    assert all(share < 0.9 for _, share in stop.shares[:-1])
    losses = {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
    assert [step for step, _ in stop.shares] == [step for step, loss in losses.items() if loss < 5.0]
    assert len(stop.shares) < len(losses), "no check while the loss is high"


def test_a_share_that_is_not_reached_stops_nothing(causal_lm, causal_tokenizer, long_chunks, tmp_path):
    stop = StopWhenRecited(long_chunks["train"]["input_ids"][:], loss_below=1e9)
    trainer = train(causal_lm, long_chunks, causal_tokenizer, tmp_path, stop)
    assert trainer.state.global_step == 4
    assert [step for step, _ in stop.shares] == [2, 4]


@pytest.mark.parametrize("share", [0, 1.5, -1])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(ValueError, match=f"share={share}: give the share to be recited, above 0 and at most 1"):
        StopWhenRecited([[1] * 32], share)


def test_nothing_to_recite_is_refused():
    with pytest.raises(ValueError, match="no chunk to recite"):
        StopWhenRecited([])
