"""Presets for pre-training a GPT-2 from scratch, and the Trainer set-up around them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import transformers
from datasets import DatasetDict
from transformers import (
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.device import Device, pick_device
from llm_tutorial.optimizers import MuonAdamW, muon_parameter_groups

__all__ = ["PRESETS", "Preset", "build_trainer", "gpt2_config", "pick_preset", "preset_tokenizer",
           "training_arguments"]


@dataclass(frozen=True)
class Preset:
    """One recipe: how large the model is and how it is trained.

    Attributes:
        vocabulary: entries of a tokenizer trained on the texts themselves; None for GPT-2's own 50,257.
        muon_lr: Muon's learning rate for the matrices inside the blocks; None trains everything with AdamW.
        dropout: GPT-2's default of 0.1 works against memorising.
        max_steps: stop after so many steps; None trains all ``epochs``.
    """

    name: str
    layers: int
    width: int
    heads: int
    batch: int
    epochs: int
    learning_rate: float
    vocabulary: int | None = None
    muon_lr: float | None = None
    dropout: float = 0.0
    warmup: float = 0.05
    context_length: int = 128
    max_steps: int | None = None


PRESETS = {preset.name: preset for preset in (
    # From 50 documents in a few minutes on two cores: shallow, wide, a small vocabulary, Muon.
    Preset("cpu", layers=2, width=384, heads=6, batch=8, epochs=8, learning_rate=3e-3, muon_lr=5e-3, vocabulary=4096),
    # The full GPT-2 (124 M parameters) with the library's optimiser.
    Preset("cuda", layers=12, width=768, heads=12, batch=8, epochs=60, learning_rate=1e-4),
    Preset("mps", layers=6, width=384, heads=6, batch=8, epochs=30, learning_rate=1e-3, vocabulary=8192),
    # For tests: it only has to run.
    Preset("smoke", layers=2, width=64, heads=2, batch=4, epochs=1, learning_rate=2e-3, muon_lr=5e-3, vocabulary=512,
           max_steps=20),
)}


def pick_preset(preset: str | Preset | Device) -> Preset:
    """Return the preset of this name, or the one made for this device; a ``Preset`` is returned as it is.

    Raises:
        ValueError: there is no preset of this name.
    """
    if isinstance(preset, Preset):
        return preset
    name = preset.name if isinstance(preset, Device) else preset
    if name not in PRESETS:
        raise ValueError(f"Unknown preset {name!r}: use one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def preset_tokenizer(preset: str | Preset, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """Return GPT-2's tokenizer, or a smaller byte-level BPE trained on ``texts`` where the preset wants one.

    Byte-level BPE (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners") starts from the 256
    bytes, so even the smallest vocabulary encodes any text.

    Raises:
        ValueError: unknown preset, or the texts are too few for the vocabulary wanted.
    """
    preset = pick_preset(preset)
    tokenizer = load_gpt2_tokenizer()
    if preset.vocabulary is not None:
        tokenizer = tokenizer.train_new_from_iterator(list(texts), preset.vocabulary, show_progress=False)
        if len(tokenizer) < preset.vocabulary:
            raise ValueError(f"The texts give only {len(tokenizer):,} of the {preset.vocabulary:,} entries that the "
                             f"preset {preset.name!r} wants: add texts.")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def gpt2_config(preset: str | Preset, tokenizer: PreTrainedTokenizerBase) -> GPT2Config:
    """Return the configuration of an untrained GPT-2 of the preset's size.

    Raises:
        ValueError: unknown preset.
    """
    preset = pick_preset(preset)
    return GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=preset.context_length,
        n_embd=preset.width,
        n_layer=preset.layers,
        n_head=preset.heads,
        resid_pdrop=preset.dropout,
        embd_pdrop=preset.dropout,
        attn_pdrop=preset.dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )


def training_arguments(
    preset: str | Preset, output_dir: str | os.PathLike[str], *, device: Device | None = None, **overrides: Any
) -> TrainingArguments:
    """Return the preset's ``TrainingArguments`` with the keys that the device needs.

    Args:
        device: the device to train on; by default the one ``pick_device()`` picks.
        overrides: any field of ``TrainingArguments``; it goes before the preset.

    Raises:
        ValueError: unknown preset.
        TypeError: an override is no field of ``TrainingArguments``.
    """
    preset = pick_preset(preset)
    arguments: dict[str, Any] = {
        "output_dir": str(output_dir),
        "num_train_epochs": preset.epochs,
        "max_steps": preset.max_steps or -1,
        "per_device_train_batch_size": preset.batch,
        "per_device_eval_batch_size": 4 * preset.batch,
        "learning_rate": preset.learning_rate,
        "warmup_steps": preset.warmup,
        "logging_steps": 0.05,  # of all steps
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    return TrainingArguments(**(arguments | _device_arguments(device or pick_device()) | overrides))


def build_trainer(
    model: GPT2LMHeadModel,
    arguments: TrainingArguments,
    datasets: DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    *,
    preset: str | Preset,
    callbacks: Iterable[TrainerCallback] = (),
) -> Trainer:
    """Return a Trainer for ``datasets["train"]`` and ``datasets["valid"]`` with the preset's optimiser.

    Raises:
        ValueError: unknown preset, no training chunk, chunks longer than the model's positions, or token ids beyond
            the model's vocabulary.
    """
    preset = pick_preset(preset)
    _check_chunks(model, datasets)
    # Without it the Trainer counts one position too many per row and reports losses that are too low.
    model.loss_type = "ForCausalLM"
    optimizer = None
    if preset.muon_lr is not None:
        groups = muon_parameter_groups(model, muon_lr=preset.muon_lr, adamw_lr=arguments.learning_rate,
                                       weight_decay=arguments.weight_decay)
        optimizer = MuonAdamW(groups, bf16=arguments.bf16)
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        train_dataset=datasets["train"],
        eval_dataset=datasets["valid"],
        processing_class=tokenizer,
        optimizers=(optimizer, None),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _device_arguments(device: Device) -> dict[str, Any]:
    if device.name == "cpu":
        return {"use_cpu": True, "bf16": device.bf16}
    if device.name == "cuda":
        return {"bf16": device.bf16, "fp16": device.fp16, "tf32": device.bf16}
    return {}


def _check_chunks(model: GPT2LMHeadModel, datasets: DatasetDict) -> None:
    for split in ("train", "valid"):
        if split not in datasets or len(datasets[split]) == 0:
            raise ValueError(f"There is no {split!r} chunk: give texts longer than the context length.")
        if "input_ids" not in datasets[split].column_names:
            raise ValueError(f"{split!r} has the columns {datasets[split].column_names}, but no 'input_ids': "
                             "chunk the texts first, with chunked_dataset.")
        longest = max(map(len, datasets[split]["input_ids"]))
        if longest > model.config.n_positions:
            raise ValueError(f"A {split!r} chunk has {longest} tokens, but the model has {model.config.n_positions} "
                             "positions: chunk with a shorter context_length, or raise n_positions.")
        largest = max(map(max, datasets[split]["input_ids"]))
        if largest >= model.config.vocab_size:
            raise ValueError(f"A {split!r} chunk has token id {largest}, but the model's vocabulary has "
                             f"{model.config.vocab_size:,} entries: use the same tokenizer for both.")
