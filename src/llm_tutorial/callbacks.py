"""What happens while a model trains: the curve that is shown, the stop when it recites, the stop at NaN."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm_tutorial.evaluation import recited_share
from llm_tutorial.plots import Figure, lines

__all__ = ["FiniteLoss", "StopWhenRecited", "TrainingProgress"]

LOSSES = {"loss": "training loss", "eval_loss": "validation loss"}
SECONDS_BETWEEN_PICTURES = 3.0  # a picture takes a tenth of a second that the training does not get


class TrainingProgress(TrainerCallback):
    """Show losses, speed and the time left while a model trains.

    In JupyterLab and Colab this is one figure that is drawn again as the training goes on; elsewhere, and where
    ``LLM_TUTORIAL_DISPLAY=plain``, a table that gets a line per step that is logged or evaluated.

    Args:
        tokens_per_step: tokens in the batches of one step, for the speed in tokens per second; None leaves it out.
        live: True for the figure, False for the table; None finds out.

    Attributes:
        seconds: from the first step of the last training to its end.  A stream that is resumed has been read up to
            its place before that.
    """

    def __init__(self, tokens_per_step: int | None = None, *, live: bool | None = None) -> None:
        self.tokens_per_step = tokens_per_step
        self.live = _in_notebook() if live is None else live
        self.seconds = 0.0
        self._began = 0.0
        self._shown = False
        self._first_step = 0
        self._row: dict[str, float] = {}
        self._handle = None
        self._drawn_at = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        """Start the clock, and the figure or the table."""
        self._row, self._handle, self._drawn_at, self.seconds = {}, None, 0.0, 0.0
        self._began, self._first_step = time.perf_counter(), state.global_step
        self._shown = state.is_world_process_zero  # one of several processes is enough
        if not self._shown:
            return
        start = f"training from step {state.global_step} to at most {state.max_steps}"
        if self.live:
            from IPython.display import display

            self._handle = display({"text/plain": start}, raw=True, display_id=True)
        else:
            print(start, f"{'step':>6}  {'training loss':>13}  {'validation loss':>15}  {'tokens/s':>8}  "
                  f"{'seconds':>7}  {'left':>5}", sep="\n", flush=True)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
               logs: dict[str, float] | None = None, **_) -> None:
        """Take note of the losses; ``evaluate()`` after the training logs too, which is no progress to show."""
        losses = {name: logs[key] for key, name in LOSSES.items() if key in (logs or {})}
        if not self._shown or not losses:
            return
        self._row |= losses
        if self.live and time.perf_counter() - self._drawn_at > SECONDS_BETWEEN_PICTURES:
            self._draw(state)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        """Print what was logged after the last step, its training and its validation loss in one line."""
        if state.global_step == self._first_step:
            self._began = time.perf_counter()
        if self._row and not self.live:
            self._print_row(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        """Show the last state."""
        self.seconds = time.perf_counter() - self._began
        if self._row and self.live:
            self._draw(state)
        elif self._row:
            self._print_row(state)
        self._shown = False

    def _speed(self, state: TrainerState) -> tuple[float, float, float | None]:
        """Seconds gone, seconds left if no callback ends the training earlier, tokens per second."""
        seconds, done = time.perf_counter() - self._began, state.global_step - self._first_step
        left = seconds / max(done, 1) * (state.max_steps - state.global_step)
        return seconds, left, self.tokens_per_step and done * self.tokens_per_step / seconds

    def _print_row(self, state: TrainerState) -> None:
        seconds, left, speed = self._speed(state)
        losses = [f"{self._row[name]:.3f}" if name in self._row else "" for name in LOSSES.values()]
        print(f"{state.global_step:>6}  {losses[0]:>13}  {losses[1]:>15}  "
              f"{f'{speed:,.0f}' if speed else '':>8}  {seconds:>7.0f}  {left:>5.0f}", flush=True)
        self._row = {}

    def _draw(self, state: TrainerState) -> None:
        self._handle.update(self._figure(state))
        self._drawn_at = time.perf_counter()

    def _figure(self, state: TrainerState) -> Figure:
        seconds, left, speed = self._speed(state)
        text = f"Step {state.global_step} of at most {state.max_steps}; {seconds:.0f} s gone, {left:.0f} s left"
        if speed:
            text += f"; {speed:,.0f} tokens/s"
        curves = {}  # from the log, which holds what was logged before an interruption too
        for key, name in LOSSES.items():
            if entries := [entry for entry in state.log_history if key in entry]:
                curves[name] = [entry["step"] for entry in entries], [entry[key] for entry in entries]
        values = ", ".join(f"{name} {losses[-1]:.2f}" for name, (_, losses) in curves.items())
        return lines(curves, xlabel="step", ylabel="cross-entropy (nats per token)", caption=text,
                     alt=f"Line chart of the losses during training. {text}; {values}.")


class StopWhenRecited(TrainerCallback):
    """End the training once the model continues this share of its training chunks word for word.

    The check costs a forward pass over the first 31 tokens of every chunk, so it is made only at steps that are
    logged, and only once the training loss is below ``loss_below``: above one nat per token, hardly any run of sixteen
    tokens is right.

    Args:
        chunks: token ids of the training chunks.
        share: share of the 16 -> 16 token continuations that must be exact, from 0 to 1.

    Attributes:
        shares: (step, share recited) for each check.

    Raises:
        ValueError: ``share`` is not above 0 and at most 1, or there is no chunk.
    """

    def __init__(self, chunks: Sequence[Sequence[int]], share: float = 0.95, *, loss_below: float = 1.0) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share={share}: give the share to be recited, above 0 and at most 1.")
        if len(chunks) == 0:
            raise ValueError("There is no chunk to recite: give at least one.")
        self.chunks, self.share, self.loss_below = chunks, share, loss_below
        self.shares: list[tuple[int, float]] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        """Forget the checks of an earlier training."""
        self.shares = []

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
               logs: dict[str, float] | None = None, model=None, **_) -> None:
        """Check, and ask the Trainer to stop."""
        if (logs or {}).get("loss", self.loss_below) < self.loss_below:
            self.shares.append((state.global_step, recited_share(model, self.chunks)))
            if self.shares[-1][1] >= self.share:
                control.should_training_stop = True


class FiniteLoss(TrainerCallback):
    """Stop a training whose weights or losses are not finite, before a checkpoint keeps them.

    Weights rather than gradients: with fp16 a step with infinite gradients is skipped and does no harm.
    """

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Raise ValueError if the Trainer hides losses that are not finite."""
        if args.logging_nan_inf_filter:
            raise ValueError("logging_nan_inf_filter=True, the library's default, logs the mean of earlier losses in "
                             "place of NaN: set it to False in the training arguments.")

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs) -> None:
        """Raise FloatingPointError if weights are not finite."""
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        if not (control.should_save or control.should_training_stop):
            # The last norm is downstream of all: it has a NaN gradient whenever the loss of a single token is NaN.
            weights = [weight for weight in weights if weight.ndim == 1][-1:] or weights
        if not all(weight.isfinite().all() for weight in weights):
            raise _not_finite("A weight", args, state, optimizer)

    on_epoch_end = on_step_end

    def on_log(self, args, state, control, logs=None, optimizer=None, **kwargs) -> None:
        """Raise FloatingPointError if a logged loss is not finite."""
        for name in ("loss", "eval_loss"):
            if not math.isfinite((logs or {}).get(name, 0.0)):
                raise _not_finite(f"{name}={logs[name]}", args, state, optimizer)


def _not_finite(what: str, args: TrainingArguments, state: Any, optimizer: Any) -> FloatingPointError:
    groups = optimizer.param_groups if optimizer else [{"lr": args.learning_rate}]
    rates = sorted({group.get("initial_lr", group["lr"]) for group in groups})
    precision = ", or in fp32 rather than fp16" if args.fp16 else ""
    return FloatingPointError(
        f"{what} is not finite at step {state.global_step} of {state.max_steps}, with the learning rate "
        f"{' and '.join(f'{rate:g}' for rate in rates)}. Train again in another output_dir with a third of it "
        f"({' and '.join(f'{rate / 3:.2g}' for rate in rates)}){precision}. Checkpoints in {args.output_dir} are from "
        "before this step.")


def _in_notebook() -> bool:
    if os.environ.get("LLM_TUTORIAL_DISPLAY") == "plain" or "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return hasattr(shell, "kernel")
