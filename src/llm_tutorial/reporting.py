"""What notebooks show in words and tables, and what they keep quiet."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import datasets
import pandas as pd
import transformers
from huggingface_hub.utils import disable_progress_bars
from torch import nn

from llm_tutorial.checkpoints import Checkpoint
from llm_tutorial.decoding import Prediction
from llm_tutorial.device import Device

__all__ = ["describe", "prediction_table", "quiet", "setup_table"]


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


def _table(facts: dict[str, object], name: str = "") -> pd.DataFrame:
    return pd.DataFrame({name: facts.values()}, index=list(facts))
