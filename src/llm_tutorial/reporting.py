"""What notebooks show in words, tables and curves, and what they keep quiet."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence

import datasets
import pandas as pd
import transformers
from huggingface_hub.utils import disable_progress_bars
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm_tutorial.checkpoints import Checkpoint
from llm_tutorial.decoding import Prediction
from llm_tutorial.device import Device
from llm_tutorial.plots import lines

__all__ = ["TrainingProgress", "describe", "loss_curves", "prediction_table", "quiet", "setup_table"]

LOSSES = {"loss": "training loss", "eval_loss": "validation loss"}
SECONDS_BETWEEN_PICTURES = 3.0  # drawing takes a tenth of a second from the training


def quiet() -> None:
    """Turn off the libraries' progress bars and notices, which differ from run to run, and show tables uncut."""
    pd.set_option("display.max_colwidth", None)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def setup_table(checkpoint: Checkpoint, device: Device) -> pd.DataFrame:
    """Return which checkpoint is used from which source on which device, and why."""
    return pd.Series({
        "checkpoint": checkpoint.name,
        "revision": checkpoint.revision[:12],
        "source": checkpoint.source,
        "why this source": checkpoint.reason,
        "device": device.name,
        "precision of training": "bf16" if device.bf16 else "fp16" if device.fp16 else "fp32",
        "why this device": device.reason,
    }).to_frame("")


def describe(model: nn.Module, name: str = "") -> pd.DataFrame:
    """Return a transformer's class, shape and size as a column ``name``; tied weights count once."""
    config, parameters = model.config, list(model.parameters())
    return pd.Series({
        "class": type(model).__name__,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "attention heads": config.num_attention_heads,
        "vocabulary": f"{config.vocab_size:,}",
        "positions": f"{config.max_position_embeddings:,}",
        "parameters": f"{sum(p.numel() for p in parameters):,}",
        "weights in memory": f"{sum(p.numel() * p.element_size() for p in parameters) / 1e6:,.0f} MB",
        "type": str(parameters[0].dtype).removeprefix("torch."),
    }).to_frame(name)


def prediction_table(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Return predictions as a table with token, id and rounded probability, numbered by rank."""
    rows = [(repr(p.token), p.id, round(p.probability, 3)) for p in predictions]
    return pd.DataFrame(rows, columns=["token", "id", "probability"], index=range(1, len(rows) + 1))


def loss_curves(trainer: Trainer, x: str = "step") -> dict[str, tuple[list[float], list[float]]]:
    """Return the losses that a Trainer has logged, each with its steps (or ``x="epoch"``), for ``plots.lines``."""
    return _curves(trainer.state.log_history, x)


class TrainingProgress(TrainerCallback):
    """Show losses, speed and the time left while a model trains, in notebooks as one figure that is drawn again.

    Elsewhere, where ``LLM_TUTORIAL_DISPLAY=plain``, and with ``live=False`` it is a table. ``seconds`` is the time from
    the first step of the last training to its end.
    """

    def __init__(self, tokens_per_step: int, *, live: bool | None = None) -> None:
        self.tokens_per_step = tokens_per_step
        self.live = _in_notebook() if live is None else live
        self.seconds = self._began = self._drawn_at = 0.0
        self._first_step = 0
        self._losses: dict[str, float] = {}  # since the last row of the table
        self._shown = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        self._losses, self._drawn_at, self.seconds = {}, 0.0, 0.0
        self._began, self._first_step = time.perf_counter(), state.global_step
        self._shown = state.is_world_process_zero  # one of several processes is enough
        start = f"training from step {state.global_step} to at most {state.max_steps}"
        if self._shown and self.live:
            from IPython.display import display

            self._handle = display({"text/plain": start}, raw=True, display_id=True)
        elif self._shown:
            print(start, f"{'step':>6}  {'training loss':>13}  {'validation loss':>15}  {'tokens/s':>8}  "
                  f"{'seconds':>7}  {'left':>5}", sep="\n", flush=True)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        if state.global_step == self._first_step:
            self._began = time.perf_counter()  # a training that is resumed has skipped the data it has already used
        if self._losses and not self.live:
            self._print_row(state)  # what was logged and evaluated after the step before

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
               logs: dict[str, float] | None = None, **_) -> None:
        if self._shown:  # not in an ``evaluate()`` after the training
            losses = {name: logs[key] for key, name in LOSSES.items() if key in (logs or {})}
            self._losses |= losses
            if losses and self.live and time.perf_counter() - self._drawn_at > SECONDS_BETWEEN_PICTURES:
                self._draw(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        self.seconds = time.perf_counter() - self._began
        if self._losses:
            self._draw(state) if self.live else self._print_row(state)
        self._shown = False

    def _speed(self, state: TrainerState) -> tuple[float, float, str]:
        """Seconds gone, seconds left if no callback ends the training earlier, tokens per second."""
        seconds, done = time.perf_counter() - self._began, state.global_step - self._first_step
        left = seconds / max(done, 1) * (state.max_steps - state.global_step)
        return seconds, left, f"{done * self.tokens_per_step / seconds:,.0f}"

    def _print_row(self, state: TrainerState) -> None:
        seconds, left, speed = self._speed(state)
        training, validation = (f"{self._losses[name]:.3f}" if name in self._losses else "" for name in LOSSES.values())
        print(f"{state.global_step:>6}  {training:>13}  {validation:>15}  {speed:>8}  {seconds:>7.0f}  {left:>5.0f}",
              flush=True)
        self._losses = {}

    def _draw(self, state: TrainerState) -> None:
        seconds, left, speed = self._speed(state)
        title = (f"Step {state.global_step} of at most {state.max_steps}; {seconds:.0f} s gone, {left:.0f} s left; "
                 f"{speed} tokens/s")
        # The log holds what was logged before an interruption too.
        self._handle.update(lines(_curves(state.log_history), xlabel="step", ylabel="cross-entropy (nats per token)",
                                  title=title))
        self._drawn_at = time.perf_counter()


def _curves(log_history: list[dict[str, float]], x: str = "step") -> dict[str, tuple[list[float], list[float]]]:
    logged = {name: [(entry[x], entry[key]) for entry in log_history if key in entry]
              for key, name in LOSSES.items()}
    return {name: tuple(map(list, zip(*points, strict=True))) for name, points in logged.items() if points}


def _in_notebook() -> bool:
    if os.environ.get("LLM_TUTORIAL_DISPLAY") == "plain" or "IPython" not in sys.modules:
        return False
    return hasattr(sys.modules["IPython"].get_ipython(), "kernel")
