"""Pre-train a GPT-2 from scratch: presets, tokenizer, configuration, arguments, Trainer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.device import Device, pick_device
from llm_tutorial.evaluation import recited_share
from llm_tutorial.optimizers import MuonAdamW, muon_parameter_groups

__all__ = [
    "PRESETS", "WATCHED_CHUNKS", "FiniteLoss", "Preset", "StopWhenRecited", "build_trainer", "gpt2_config", "new_model",
    "newest_checkpoint", "pick_preset", "preset_tokenizer", "training_arguments",
]

WATCHED_CHUNKS = 32  # for the validation loss during the training
LOGITS_AT_ONCE = 2**26  # when validating; a quarter of a gigabyte in fp32
# The training arguments that change the weights, bf16 aside: a run may go on with another precision.
_DECISIVE = ("learning_rate", "num_train_epochs", "max_steps", "lr_scheduler_type", "warmup_steps", "weight_decay",
             "max_grad_norm", "optim", "adam_beta1", "adam_beta2", "adam_epsilon", "label_smoothing_factor", "fp16",
             "seed", "data_seed")


@dataclass(frozen=True)
class Preset:
    """One recipe: how large the model is and how it is trained.

    Attributes:
        vocabulary: entries of a tokenizer trained on the texts themselves; None for GPT-2's own 50,257.
        muon_lr: Muon's learning rate for the matrices inside the blocks; None trains everything with AdamW.
        embedding_std: standard deviation of the embeddings before training; None leaves GPT-2's 0.02.
        activation, attention: the library's names; they change how a step is computed, not the result.
        dropout: GPT-2's default of 0.1 works against memorization.
        max_steps: stop after this many steps; None trains all ``epochs``.
        stop_at: stop earlier once this share of the training chunks is recited; None never checks.
        at_once: the most rows that a process computes at once; it accumulates the gradients of a larger batch.
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
    embedding_std: float | None = None
    activation: str = "gelu_new"
    attention: str = "sdpa"
    dropout: float = 0.0
    warmup: float = 0.05
    context_length: int = 128
    max_steps: int | None = None
    stop_at: float | None = None
    at_once: int | None = None


# 50 documents by heart in half a minute on two cores: a small model, and few steps that go far.
_CPU = Preset(
    "cpu", layers=2, width=256, heads=4, vocabulary=4096, embedding_std=0.1, activation="gelu_pytorch_tanh",
    attention="eager", batch=16, epochs=7, learning_rate=1e-2, muon_lr=2e-2, stop_at=0.95)
PRESETS = {preset.name: preset for preset in (
    _CPU,
    # The full GPT-2 (124 M parameters) with the library's optimizer.
    Preset("cuda", layers=12, width=768, heads=12, batch=8, epochs=100, learning_rate=1e-4, stop_at=0.95),
    # For streams: half a million tokens per step, about one pass over the English Wikipedia; at once, what 15 GB hold.
    # The learning rate is that of Brown et al. 2020 (https://arxiv.org/abs/2005.14165) for this size and batch.
    Preset("gpt2", layers=12, width=768, heads=12, activation="gelu_pytorch_tanh", batch=512, at_once=8, epochs=1,
           learning_rate=6e-4, context_length=1024, max_steps=8_200),
    replace(_CPU, name="mps"),
    # For tests: it only has to run.
    Preset("smoke", layers=2, width=64, heads=2, vocabulary=512, batch=4, epochs=1, learning_rate=2e-3, muon_lr=5e-3,
           max_steps=20),
)}


def pick_preset(preset: str | Preset | Device) -> Preset:
    """Return the preset of this name, or the one made for this device; a ``Preset`` is returned as it is.

    Raises:
        ValueError: there is no preset of this name.
    """
    if isinstance(preset, Preset):
        return preset
    name = preset if isinstance(preset, str) else preset.name
    if name not in PRESETS:
        raise ValueError(f"Unknown preset {name!r}: use one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def preset_tokenizer(preset: str | Preset, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """Return GPT-2's tokenizer, or a smaller byte-level BPE trained on ``texts`` where the preset wants one.

    Very little text gives fewer entries than the preset wants.
    """
    preset = pick_preset(preset)
    tokenizer = load_gpt2_tokenizer()
    if preset.vocabulary is not None:
        tokenizer = tokenizer.train_new_from_iterator(list(texts), preset.vocabulary, show_progress=False)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def gpt2_config(preset: str | Preset, tokenizer: PreTrainedTokenizerBase) -> GPT2Config:
    """Return the configuration of an untrained GPT-2 of the preset's size."""
    preset = pick_preset(preset)
    return GPT2Config(
        vocab_size=len(tokenizer), n_positions=preset.context_length,
        n_embd=preset.width, n_layer=preset.layers, n_head=preset.heads,
        activation_function=preset.activation, attn_implementation=preset.attention,
        resid_pdrop=preset.dropout, embd_pdrop=preset.dropout, attn_pdrop=preset.dropout,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id)


def new_model(preset: str | Preset, tokenizer: PreTrainedTokenizerBase) -> GPT2LMHeadModel:
    """Return an untrained GPT-2 of the preset's size; its weights are random, so set the seed before."""
    preset = pick_preset(preset)
    model = GPT2LMHeadModel(gpt2_config(preset, tokenizer))
    if preset.embedding_std is not None:  # small models memorize sooner when embeddings differ more from the start
        for embedding in (model.transformer.wte, model.transformer.wpe):
            torch.nn.init.normal_(embedding.weight, std=preset.embedding_std)
    return model


def training_arguments(
    preset: str | Preset, output_dir: str | os.PathLike[str], *, device: Device | None = None, **overrides: Any
) -> TrainingArguments:
    """Return the preset's ``TrainingArguments`` for one GPU or CPU.

    Args:
        device: the device to train on; by default the one ``pick_device()`` picks.
        overrides: any fields of ``TrainingArguments``, instead of the preset's values. Batches that would not fit are
            computed in equal parts: those to train on as ``at_once`` says, those to validate with for their logits.
    """
    preset, device = pick_preset(preset), device or pick_device()
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
        "use_cpu": device.name == "cpu",
        "bf16": device.bf16,
        "fp16": device.fp16,
    } | overrides
    rows, validated = arguments["per_device_train_batch_size"], arguments["per_device_eval_batch_size"]
    if preset.at_once is not None:
        part = _largest_divisor(rows, preset.at_once)
        arguments |= {"per_device_train_batch_size": part, "gradient_accumulation_steps": rows // part}
    most = LOGITS_AT_ONCE // (preset.context_length * (preset.vocabulary or GPT2Config().vocab_size))
    arguments["per_device_eval_batch_size"] = _largest_divisor(validated, most)
    return _OneGpuArguments(**arguments)


def _largest_divisor(rows: int, most: int) -> int:
    return next((part for part in range(min(rows, most), 0, -1) if rows % part == 0), 1)


class _OneGpuArguments(TrainingArguments):
    """With a second GPU in one process, the Trainer would double the batch, and count our loss twice."""

    @property
    def n_gpu(self) -> int:
        return min(1, super().n_gpu)


class _Trainer(Trainer):
    def train(self, *arguments: Any, **options: Any) -> Any:
        """Train, and say what to do when the memory of the GPU is full."""
        try:
            return super().train(*arguments, **options)
        except torch.OutOfMemoryError:
            rows = self.args.per_device_train_batch_size
            fewer = max(1, rows // 2)
            raise MemoryError(f"The GPU has too little memory for {rows} rows at once. Start again with batch={fewer} "
                              f"in the preset, or with at_once={fewer}, which computes the same batch in parts. "
                              "Restart a notebook's kernel first: it holds memory.") from None


def build_trainer(
    model: GPT2LMHeadModel,
    arguments: TrainingArguments,
    datasets: Mapping[str, Dataset | IterableDataset],
    tokenizer: PreTrainedTokenizerBase,
    *,
    preset: str | Preset,
    callbacks: Iterable[TrainerCallback] = (),
) -> Trainer:
    """Return a Trainer for ``datasets["train"]`` and ``datasets["valid"]`` with the preset's optimizer.

    The validation loss is that of 32 chunks spread over ``datasets["valid"]``. The training stops when the preset's
    share of the training chunks is recited, with FloatingPointError when weights or losses become infinite or NaN, and
    with MemoryError when the GPU is full. If ``arguments`` save checkpoints, the output folder is kept to one run.

    Args:
        arguments: those of ``training_arguments``.
        datasets: rows of ``input_ids``, and ``labels`` where the model has to learn the end-of-text token, which is
            also the padding. The training chunks may be a stream, which is not checked in advance.

    Raises:
        ValueError: chunks that the model cannot read, checkpoints of a different run in the output folder, or several
            GPUs in one process, which would double the loss.
    """
    preset = pick_preset(preset)
    train, valid = datasets["train"], datasets["valid"]
    if arguments.n_gpu > 1:
        raise ValueError(f"One process with {arguments.n_gpu} GPUs multiplies the batch by {arguments.n_gpu}. Take the "
                         "arguments from training_arguments(), which use one, or start one process per GPU with "
                         "torchrun.")
    if preset.stop_at is not None and isinstance(train, IterableDataset):
        raise ValueError(f"stop_at={preset.stop_at} needs training chunks that can be counted, and a stream has no "
                         "end: set stop_at to None.")
    for split in ("train", "valid"):
        if isinstance(datasets[split], Dataset):
            _check_chunks(model, split, datasets[split]["input_ids"][:])
    # Without it the Trainer counts one position too many per row and reports losses that are too low.
    model.loss_type = "ForCausalLM"
    optimizer = None
    if preset.muon_lr is not None:
        groups = muon_parameter_groups(model, muon_lr=preset.muon_lr, adamw_lr=arguments.learning_rate,
                                       weight_decay=arguments.weight_decay)
        optimizer = MuonAdamW(groups, bf16=arguments.bf16)
    if "labels" in (train.column_names or ()):
        collator = transformers.default_data_collator
    else:
        collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    trainer = _Trainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=train,
        eval_dataset=valid.select(range(0, len(valid), math.ceil(len(valid) / WATCHED_CHUNKS))),
        processing_class=tokenizer,
        compute_loss_func=_loss_of(model),
        optimizers=(optimizer, None),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    if preset.stop_at is not None:
        trainer.add_callback(StopWhenRecited(train["input_ids"][:], preset.stop_at))
    trainer.add_callback(FiniteLoss())
    if arguments.save_strategy != "no":
        trainer.add_callback(_RunFolder(Path(arguments.output_dir), _run_facts(preset, arguments, datasets)))
    return trainer


def _check_chunks(model: GPT2LMHeadModel, split: str, rows: Sequence[Sequence[int]]) -> None:
    """Refuse what would otherwise be an index error inside a kernel."""
    if not rows:
        raise ValueError(f"There is no {split!r} chunk: give texts longer than the context length.")
    longest, largest, positions = max(map(len, rows)), max(map(max, rows)), model.config.max_position_embeddings
    if longest > positions:
        raise ValueError(f"A {split!r} chunk has {longest} tokens, but the model has {positions} positions: chunk with "
                         "a shorter context_length.")
    if largest >= model.config.vocab_size:
        raise ValueError(f"A {split!r} chunk has token id {largest}, but the model's vocabulary has "
                         f"{model.config.vocab_size:,} entries: use the same tokenizer for both.")


def _loss_of(model: GPT2LMHeadModel) -> Callable[..., torch.Tensor]:
    """Return the model's own loss, to be taken outside ``forward``: inside, bf16 logits become float32 twice."""
    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
        return model.loss_function(logits=outputs.logits, labels=labels, vocab_size=model.config.vocab_size,
                                   num_items_in_batch=num_items_in_batch)

    return loss


def newest_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """Return the newest whole checkpoint in ``folder`` for ``train(resume_from_checkpoint=...)``, or None.

    The Trainer writes ``trainer_state.json`` last, so a checkpoint without it, or with a part of it, is not whole.
    """
    found: dict[int, str] = {}
    for file in Path(folder).glob("checkpoint-*/trainer_state.json"):
        with contextlib.suppress(ValueError):  # cut short
            found[json.loads(file.read_text(encoding="utf-8"))["global_step"]] = str(file.parent)
    return found[max(found)] if found else None


def _run_facts(
    preset: Preset, arguments: TrainingArguments, datasets: Mapping[str, Dataset | IterableDataset]
) -> dict[str, Any]:
    """Return what decides where a run ends, as it reads back from JSON."""
    facts = asdict(preset) | {name: getattr(arguments, name) for name in _DECISIVE} | {
        "batch": arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size}
    del facts["name"], facts["at_once"]  # they change no weights
    for split in ("train", "valid"):
        if isinstance(datasets[split], Dataset):
            rows = json.dumps(datasets[split]["input_ids"][:])
            facts[f"{split}_chunks"] = hashlib.sha256(rows.encode()).hexdigest()
        else:  # not read in advance, and each process reads its own share
            facts[f"{split}_chunks"] = f"stream, {arguments.world_size} readers"
    return json.loads(json.dumps(facts))


class _RunFolder(TrainerCallback):
    """Keep an output folder to one run; ``run.json`` in it holds what decides where that run ends."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.record, self.facts = folder / "run.json", facts
        self.check()  # before the Trainer loads weights from there, which need not even fit

    def check(self) -> None:
        """Raise ValueError if the checkpoints in the folder are those of a different run."""
        folder, facts = self.record.parent, self.facts
        if newest_checkpoint(folder) is None:
            return
        remedy = "Choose another output_dir, or delete that folder if nothing in it is needed."
        if not self.record.is_file():
            raise ValueError(f"{folder} has checkpoints but no run.json, which says what run they are of. {remedy}")
        there = json.loads(self.record.read_text(encoding="utf-8"))
        different = [f"{key} is {there.get(key)!s:.12} there and {facts.get(key)!s:.12} here"
                     for key in sorted(there.keys() | facts.keys()) if there.get(key) != facts.get(key)
                     and (key != "fp16" or there.get(key))]  # the state of its scaler needs one to go on
        if different:
            raise ValueError(f"{folder} belongs to a different run: {'; '.join(different[:4])}. {remedy}")

    def on_train_begin(self, args, state, control, **_) -> None:
        """Write ``run.json``, or raise ValueError where checkpoints would be overwritten or processes differ."""
        self.check()
        newest = newest_checkpoint(args.output_dir)
        if newest is not None and int(newest.rpartition("-")[2]) > state.global_step:
            raise ValueError(f"{newest} is beyond step {state.global_step}, where this training begins. Give train() "
                             f"resume_from_checkpoint=newest_checkpoint({args.output_dir!r}), or choose another "
                             "output_dir.")
        if any(facts != self.facts for facts in gather_object([self.facts])):
            raise ValueError("The processes of this run have different data or recipes. Give all of them the same "
                             "arguments and files, and LLM_TUTORIAL_SOURCE=hub or offline.")
        if newest is None and state.is_world_process_zero:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            self.record.write_text(json.dumps(self.facts, indent=1), encoding="utf-8")

    def on_step_end(self, args, state, control, **_) -> None:
        """Log with every checkpoint, which does not hold the mean loss since the last log."""
        control.should_log |= control.should_save

    on_epoch_end = on_step_end


class StopWhenRecited(TrainerCallback):
    """End the training once the model continues this share of its training chunks word for word.

    It is asked only when a logged loss is below one nat per token: above that, hardly any run of 16 tokens is right.

    Args:
        chunks: token ids of the training chunks, at least 32 in each.
        share: share of the 16 -> 16 token continuations that must be exact, from 0 to 1.
        start: where in the chunks the prompts begin, as in ``recitation``.

    ``shares`` holds (step, share recited) for each check.
    """

    def __init__(self, chunks: Sequence[Sequence[int]], share: float = 0.95, *, start: int | None = 0) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"stop_at={share} is not a share: give a number above 0 and at most 1, such as 0.95.")
        self.chunks, self.share, self.start = chunks, share, start
        self.shares: list[tuple[int, float]] = []

    def on_log(self, args, state, control, logs=None, model=None, **_) -> None:
        """Check, and ask the Trainer to stop."""
        if logs.get("loss", math.inf) < 1:
            self.shares.append((state.global_step, recited_share(model, self.chunks, start=self.start)))
            if self.shares[-1][1] >= self.share:
                control.should_training_stop = True


class FiniteLoss(TrainerCallback):
    """Stop a training with FloatingPointError when its weights or losses are not finite.

    It looks at each logged loss, and at all weights before a checkpoint. At other steps it reads nothing from the GPU,
    which would have to wait. Weights rather than gradients: with fp16 a step with infinite gradients is skipped.
    """

    def on_step_end(self, args, state, control, model=None, **_) -> None:
        """Raise FloatingPointError if a checkpoint is due and weights are not finite."""
        if control.should_save and not all(weight.isfinite().all() for weight in model.parameters()):
            self._stop("A weight", args, state)

    on_epoch_end = on_step_end

    def on_log(self, args, state, control, logs=None, **_) -> None:
        """Raise FloatingPointError if a logged loss is not finite."""
        for name in ("loss", "eval_loss"):
            if not math.isfinite(logs.get(name, 0.0)):
                self._stop(f"{name}={logs[name]}", args, state)

    def _stop(self, what: str, args: TrainingArguments, state: transformers.TrainerState) -> None:
        raise FloatingPointError(
            f"{what} is not finite at step {state.global_step} of {state.max_steps}. The learning rate is probably too "
            f"high: set learning_rate (now {args.learning_rate:g}), and muon_lr if the preset has one, to a third, and "
            f"train in another output_dir. Checkpoints in {args.output_dir} are from before this step.")
