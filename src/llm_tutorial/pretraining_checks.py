"""What is checked before a pre-training begins: the recipe, the output folder, the device."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers.activations import ACT2FN
from transformers.utils import is_flash_attn_2_available

from llm_tutorial.device import Device, pick_device
from llm_tutorial.presets import Preset

__all__ = ["check_folder", "check_recipe", "training_device"]

_RECITED_TOKENS = 32  # what StopWhenRecited reads of a chunk


def check_recipe(preset: Preset, data: str | Sequence[str | Path]) -> None:
    """Check what would otherwise be found out late, or not at all.

    Raises:
        ValueError: a number is out of bounds, an activation or an attention is unknown, or the preset does not fit the
            data.
    """
    for name in ("layers", "width", "heads", "batch", "epochs", "context_length", "vocabulary", "max_steps"):
        value = getattr(preset, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: at least 1 is needed.")
    for name in ("learning_rate", "muon_lr", "embedding_std"):
        value = getattr(preset, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}={value}: give a number above 0.")
    for name in ("dropout", "warmup"):
        value = getattr(preset, name)
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value}: give a share, at least 0 and below 1.")
    if preset.stop_at is not None and not 0 < preset.stop_at <= 1:
        raise ValueError(f"stop_at={preset.stop_at}: give the share to be recited, above 0 and at most 1.")
    if preset.width % preset.heads:
        raise ValueError(f"width={preset.width} cannot be divided among heads={preset.heads}: choose a multiple.")
    if preset.activation not in ACT2FN:
        raise ValueError(f"activation={preset.activation!r} is unknown: use one of {', '.join(sorted(ACT2FN))}.")
    attentions = ["eager", "sdpa", *(["flash_attention_2"] if is_flash_attn_2_available() else [])]
    if preset.attention not in attentions:
        raise ValueError(f"attention={preset.attention!r} is unknown or not installed: use one of "
                         f"{', '.join(attentions)}.")
    if preset.context_length < 2:
        raise ValueError(f"context_length={preset.context_length}: at least 2 tokens are needed, one to predict the "
                         "next from.")
    if preset.stop_at is not None and preset.context_length < _RECITED_TOKENS:
        raise ValueError(f"stop_at={preset.stop_at} needs chunks of {_RECITED_TOKENS} tokens to recite, but "
                         f"context_length={preset.context_length}: raise it, or set stop_at to none.")
    if data == "stream" and preset.stop_at is not None:
        raise ValueError(f"stop_at={preset.stop_at} needs chunks that can be counted, and a stream has no end: set "
                         "stop_at to none.")
    if data == "stream" and preset.max_steps is None:
        raise ValueError(f"A stream has no end, and so no epochs (given: {preset.epochs}): set max_steps.")


def check_folder(folder: Path, *, resume: bool) -> None:
    """Check that a run can begin in an output folder, or go on in it.

    Raises:
        ValueError: its run is finished, or it holds checkpoints that are not to be resumed from.
    """
    if (folder / "model").exists():
        raise ValueError(f"{folder / 'model'} is there already, so the run in {folder} is finished; its "
                         f"figures are in {folder / 'model' / 'figures.json'}. Choose another --output-dir, or delete "
                         "that folder if nothing in it is needed.")
    checkpoints = sorted(path.name for path in folder.glob("checkpoint-*"))
    if checkpoints and not resume:
        raise ValueError(f"{folder} holds {', '.join(checkpoints)}, which a new run would overwrite. Leave out "
                         "--no-resume to go on from there, choose another --output-dir, or delete that folder.")


def training_device(precision: str, processes: int) -> Device:
    """Return the device to train on.

    Args:
        precision: ``"fp32"``, or ``"auto"`` for what is fast on the device.
        processes: of this launch, on all machines.

    Raises:
        ValueError: unknown precision, or the device cannot be used by so many processes.
    """
    if precision not in {"auto", "fp32"}:
        raise ValueError(f"precision={precision!r} is unknown: use auto or fp32.")
    device = pick_device()
    if precision == "fp32":
        device = replace(device, bf16=False, fp16=False, reason=f"{device.reason}; fp32 was asked for")
    if device.name == "mps" and processes > 1:
        raise ValueError(f"Apple's GPU cannot be shared by {processes} processes: use one, or set "
                         "LLM_TUTORIAL_DEVICE=cpu.")
    gpus = torch.cuda.device_count() if device.name == "cuda" else 0
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))  # of several machines, each has its share
    if gpus and here > gpus:
        raise ValueError(f"{here} processes on this machine, but it has {gpus} GPUs, and each needs its own: give "
                         f"--processes {gpus}, or set LLM_TUTORIAL_DEVICE=cpu.")
    if gpus > 1 and processes == 1:
        # The Trainer would split the model's batch among all of them in threads, and multiply it.
        raise ValueError(f"There are {gpus} GPUs: give --processes {gpus}, or choose one with CUDA_VISIBLE_DEVICES=0.")
    return device
