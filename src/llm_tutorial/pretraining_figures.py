"""The figures of a pre-training, as ``llm-tutorial pretrain --json`` writes them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import IterableDataset
from transformers import Trainer

from llm_tutorial.presets import Preset
from llm_tutorial.resuming import chunks_sha256
from llm_tutorial.splits import TrainingData

__all__ = ["run_figures"]


def run_figures(
    trainer: Trainer, preset: Preset, prepared: TrainingData, processes: int, first_step: int, seconds: float,
    validation_loss: float,
) -> dict[str, Any]:
    """Return the recipe, the sizes, tokens and seconds from ``first_step`` on, and all losses, in nats per token.

    Args:
        trainer: after its training and a last ``evaluate``.
        seconds: that the steps from ``first_step`` on took.
        validation_loss: over all chunks held out.
    """
    train = prepared.datasets["train"]
    history, steps = trainer.state.log_history, trainer.state.global_step
    tokens = (steps - first_step) * preset.batch * preset.context_length
    precision = "bf16" if trainer.args.bf16 else "fp16" if trainer.args.fp16 else "fp32"
    return {
        "preset": asdict(preset), "data": prepared.description, "seed": trainer.args.seed,
        "left_out": prepared.left_out,
        "training_chunks": None if isinstance(train, IterableDataset) else len(train),
        "validation_chunks": len(prepared.datasets["valid"]),
        "validation_sha256": chunks_sha256(prepared.datasets["valid"]),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "device": trainer.args.device.type, "precision": precision, "world_size": processes,
        "batch_per_process": trainer.args.per_device_train_batch_size,
        "first_step": first_step, "steps": steps, "tokens": tokens, "seconds": seconds,
        "tokens_per_second": tokens / seconds if tokens else None,
        "losses": [{"step": entry["step"], "loss": entry["loss"]} for entry in history if "loss" in entry],
        "validation_losses": [{"step": entry["step"], "loss": entry["eval_loss"]} for entry in history[:-1]
                              if "eval_loss" in entry],
        "validation_loss": validation_loss,
        "model": str(Path(trainer.args.output_dir) / "model"),
    }
