"""Pre-training a GPT-2 from scratch: tokenizer, configuration, arguments and Trainer of a preset."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import transformers
from datasets import Dataset, IterableDataset
from transformers import (
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from llm_tutorial.callbacks import FiniteLoss, StopWhenRecited
from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.device import Device, pick_device
from llm_tutorial.optimizers import MuonAdamW, muon_parameter_groups
from llm_tutorial.presets import Preset, pick_preset
from llm_tutorial.resuming import CheckpointGuard, run_configuration

__all__ = ["build_trainer", "gpt2_config", "new_model", "preset_tokenizer", "training_arguments"]

WATCHED_CHUNKS = 32


def preset_tokenizer(preset: str | Preset, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """Return GPT-2's tokenizer, or a smaller byte-level BPE trained on ``texts`` where the preset wants one.

    Byte-level BPE (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners") starts from the 256
    bytes, so even the smallest vocabulary encodes any text.

    Raises:
        ValueError: unknown preset, a vocabulary below the 257 entries that all texts need, or texts too few for it.
    """
    preset = pick_preset(preset)
    tokenizer = load_gpt2_tokenizer()
    if preset.vocabulary is not None:
        tokenizer = tokenizer.train_new_from_iterator(list(texts), preset.vocabulary, show_progress=False)
        if len(tokenizer) > preset.vocabulary:
            raise ValueError(f"vocabulary={preset.vocabulary} is too small: the 256 bytes and the end-of-text token "
                             f"alone make {len(tokenizer)} entries.")
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
        activation_function=preset.activation,
        attn_implementation=preset.attention,
        resid_pdrop=preset.dropout,
        embd_pdrop=preset.dropout,
        attn_pdrop=preset.dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )


def new_model(preset: str | Preset, tokenizer: PreTrainedTokenizerBase) -> GPT2LMHeadModel:
    """Return an untrained GPT-2 of the preset's size, with random weights; seed before, to have the same again.

    Small models learn tokens by heart sooner when the embeddings of tokens and positions differ more from the start
    than GPT-2's do.

    Raises:
        ValueError: unknown preset.
    """
    preset = pick_preset(preset)
    model = GPT2LMHeadModel(gpt2_config(preset, tokenizer))
    if preset.embedding_std is not None:
        for embedding in (model.transformer.wte, model.transformer.wpe):
            torch.nn.init.normal_(embedding.weight, std=preset.embedding_std)
    return model


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
        "logging_nan_inf_filter": False,  # by default a loss of NaN is replaced by the mean of the others
        "eval_strategy": "steps",
        "eval_steps": 0.1,
        "save_strategy": "no",
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return TrainingArguments(**(arguments | _device_arguments(device or pick_device()) | overrides))


def build_trainer(
    model: GPT2LMHeadModel,
    arguments: TrainingArguments,
    datasets: Mapping[str, Dataset | IterableDataset],
    tokenizer: PreTrainedTokenizerBase,
    *,
    preset: str | Preset,
    callbacks: Iterable[TrainerCallback] = (),
    collator: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]] | None = None,
    record: Mapping[str, Any] | None = None,
    watched: int | None = WATCHED_CHUNKS,
) -> Trainer:
    """Return a Trainer for ``datasets["train"]`` and ``datasets["valid"]`` with the preset's optimiser.

    While it trains, the validation loss is taken on a few chunks spread over ``datasets["valid"]``.  It stops when
    the preset's share of the training chunks is recited, and raises FloatingPointError at the first step that makes
    weights or losses infinite or NaN.  If ``arguments`` save checkpoints, each gets a manifest, and ``train()`` raises
    ValueError where the output folder belongs to another run: see ``llm_tutorial.resuming``.

    Args:
        datasets: chunks, ``input_ids``; those to train on may be a stream, which is not checked in advance.
        collator: makes a batch of chunks; by default the library's for language models, which leaves padding, and so
            the end-of-text token, out of the labels.
        record: what else decides where the run ends, such as how a stream is read.
        watched: take the validation loss on no more than so many chunks; None takes all.

    Raises:
        ValueError: unknown preset, no training chunk, chunks longer than the model's positions, token ids beyond
            the model's vocabulary, or a preset with ``stop_at`` and a stream, of which nobody can say what share is
            recited.
    """
    preset = pick_preset(preset)
    streamed = isinstance(datasets.get("train"), IterableDataset)
    if streamed and preset.stop_at is not None:
        raise ValueError(f"stop_at={preset.stop_at} needs training chunks that can be counted, and a stream has no "
                         "end: set stop_at to None.")
    _check_chunks(model, datasets, ("valid",) if streamed else ("train", "valid"))
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
        data_collator=collator or DataCollatorForLanguageModeling(tokenizer, mlm=False),
        train_dataset=datasets["train"],
        eval_dataset=_spread(datasets["valid"], watched or len(datasets["valid"])),
        processing_class=tokenizer,
        compute_loss_func=_loss_of(model),
        optimizers=(optimizer, None),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    if preset.stop_at is not None:
        trainer.add_callback(StopWhenRecited(datasets["train"]["input_ids"][:], preset.stop_at))
    trainer.add_callback(FiniteLoss())
    if arguments.save_strategy != "no":
        configuration = run_configuration(model, arguments, datasets, tokenizer, optimizer)
        trainer.add_callback(CheckpointGuard(configuration | dict(record or {})))
    return trainer


def _loss_of(model: GPT2LMHeadModel) -> Callable[..., torch.Tensor]:
    """The model's own loss, taken outside its ``forward``.

    The loss converts half-precision logits to float32, and accelerate so converts all that ``forward`` returns.  Taken
    within ``forward``, the loss would have a copy of its own of what is by far the largest tensor of a step.
    """
    def loss(
        outputs: CausalLMOutputWithCrossAttentions, labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return model.loss_function(logits=outputs.logits, labels=labels, vocab_size=model.config.vocab_size,
                                   num_items_in_batch=num_items_in_batch)

    return loss


def _device_arguments(device: Device) -> dict[str, Any]:
    if device.name == "cpu":
        return {"use_cpu": True, "bf16": device.bf16}
    if device.name == "cuda":
        # tf32 exists from compute capability 8 on, as fast bf16 does; the batch is halved until it fits into memory.
        return {"bf16": device.bf16, "fp16": device.fp16, "tf32": device.bf16, "optim": "adamw_torch_fused",
                "auto_find_batch_size": True}
    return {}


def _spread(chunks: Dataset, at_most: int) -> Dataset:
    """At most so many of the chunks, evenly spaced."""
    step = -(-len(chunks) // at_most)
    return chunks.select(range(0, len(chunks), step))


def _check_chunks(
    model: GPT2LMHeadModel, datasets: Mapping[str, Dataset | IterableDataset], splits: Iterable[str]
) -> None:
    for split in splits:
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
