"""What notebooks show in words and tables, and what they keep quiet."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import datasets
import pandas as pd
import transformers
from huggingface_hub.utils import disable_progress_bars
from torch import nn
from transformers import TrainerCallback

from llm_tutorial.checkpoints import Checkpoint
from llm_tutorial.decoding import Prediction
from llm_tutorial.device import Device

__all__ = ["ProgressLog", "describe", "prediction_table", "quiet", "setup_table"]


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
    return _table({
        "data" if checkpoint.path.is_file() else "checkpoint": checkpoint.name,
        "revision": checkpoint.revision[:12],
        "source": checkpoint.source,
        "why this source": checkpoint.reason,
        "device": device.name,
        "precision of training": "bf16" if device.bf16 else "fp16" if device.fp16 else "fp32",
        "why this device": device.reason,
    })


def describe(model: nn.Module, name: str = "") -> pd.DataFrame:
    """Return a transformer's size as a column ``name``: class, layers, width, heads, vocabulary, positions, memory.

    Tied weights count once.  Memory is that of the weights alone, in units of 10**6 bytes.
    """
    config = model.config
    parameters = list(model.parameters())
    return _table({
        "class": type(model).__name__,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "attention heads": config.num_attention_heads,
        "vocabulary": f"{config.vocab_size:,}",
        "positions": f"{config.max_position_embeddings:,}",
        "parameters": f"{sum(parameter.numel() for parameter in parameters):,}",
        "weights in memory": f"{sum(p.numel() * p.element_size() for p in parameters) / 1e6:,.0f} MB",
        "type": str(parameters[0].dtype).removeprefix("torch."),
    }, name)


def prediction_table(predictions: Sequence[Prediction], digits: int = 3) -> pd.DataFrame:
    """Return predictions as a table with token, id and rounded probability, numbered by rank."""
    rows = [(repr(p.token), p.id, round(p.probability, digits)) for p in predictions]
    return pd.DataFrame(rows, columns=["token", "id", "probability"], index=range(1, len(rows) + 1))


class ProgressLog(TrainerCallback):
    """Print a line per step that is logged during training: losses, speed and the time left.

    Args:
        tokens_per_step: to report tokens per second as well; None leaves it out.
    """

    def __init__(self, tokens_per_step: int | None = None) -> None:
        self.tokens_per_step = tokens_per_step
        self._began = 0.0
        self._first_step = 0

    def on_train_begin(self, args, state, control, **kwargs) -> None:  # noqa: ARG002 - the Trainer's signature
        self._began, self._first_step = time.perf_counter(), state.global_step
        print(f"training for {state.max_steps} steps", flush=True)

    def on_train_end(self, args, state, control, **kwargs) -> None:  # noqa: ARG002
        self._began = 0.0

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # noqa: ARG002
        logs = logs or {}
        losses = [f"{label} {logs[key]:.3f}" for key, label in (("loss", "loss"), ("eval_loss", "validation loss"))
                  if key in logs]
        if not losses or not self._began:
            return
        seconds = time.perf_counter() - self._began
        done = state.global_step - self._first_step
        left = seconds / max(done, 1) * (state.max_steps - state.global_step)
        speed = f"  {done * self.tokens_per_step / seconds:,.0f} tokens/s" if self.tokens_per_step else ""
        print(f"step {state.global_step:>5} of {state.max_steps}  {'  '.join(losses)}{speed}  "
              f"{seconds:.0f} s, {left:.0f} s left", flush=True)


def _table(facts: dict[str, object], name: str = "") -> pd.DataFrame:
    return pd.DataFrame({name: facts.values()}, index=list(facts))
