"""Pre-train a GPT-2 in one process or in several: the same recipe, batches and losses in each case."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from datasets import IterableDataset
from transformers import Trainer, TrainingArguments

from llm_tutorial.callbacks import TrainingProgress
from llm_tutorial.device import Device, set_seed
from llm_tutorial.interruptions import interruptible
from llm_tutorial.launching import is_main_process, locked_folder, per_process_batch, process_count
from llm_tutorial.packing import collate_packed
from llm_tutorial.presets import Preset
from llm_tutorial.pretraining_checks import check_folder, check_recipe, training_device
from llm_tutorial.pretraining_figures import run_figures
from llm_tutorial.pretraining_results import checkpoint_state, keep_model, take_last_weights, written
from llm_tutorial.resuming import CheckpointGuard, chunks_sha256, newest_checkpoint
from llm_tutorial.splits import TrainingData, training_data
from llm_tutorial.training import WATCHED_CHUNKS, build_trainer, new_model, training_arguments

__all__ = ["pretrain"]

_MOST_BETWEEN_SAVES = 1000  # steps, that a crash of a long run may cost


def pretrain(
    preset: Preset,
    output_dir: str | Path,
    *,
    data: str | Sequence[str | Path] = "articles",
    documents: int | None = None,
    validation_documents: int | None = None,
    validate_with: str | Sequence[str | Path] | None = None,
    tokenizer: str | Path | None = None,
    seed: int = 42,
    precision: str = "auto",
    save_every: int | None = None,
    log_every: int | None = None,
    validate_every: int | None = None,
    validate_on_all: bool = False,
    resume: bool = True,
    report: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Train a new GPT-2, and keep it with its tokenizer in ``output_dir/model``; return the figures of the run.

    Run as one process, or as one of several that ``torchrun`` or ``accelerate launch`` started, each with a share of
    the preset's batch.  In fp32 and without dropout, losses do not depend on the number of processes, beyond rounding,
    except for a stream, of which each process reads other files.

    Args:
        data, documents, validation_documents, validate_with, tokenizer: see ``splits.training_data``.
        seed: draws documents, weights, and the order of the batches.
        precision: ``"fp32"``, or ``"auto"`` for what is fast on the device.
        save_every, log_every, validate_every: steps between checkpoints, between logged losses, and between
            validation losses; by default a tenth (at most 1,000), a twentieth and a tenth of all.
        validate_on_all: take every validation loss on all chunks held out rather than on 32 of them.
        resume: go on from the newest whole checkpoint in the output folder.
        report: gets lines of text for progress, from the main process only.

    Returns:
        Losses in nats per token, by step; tokens and seconds of this call; validation loss over all held-out chunks.

    Raises:
        ValueError: the recipe, the data or the number of processes do not fit, the output folder belongs to another
            run, or that run is finished.
        BlockingIOError: another run is using the output folder.
        ConnectionError, OSError: data do not arrive, or files cannot be written.
        FloatingPointError: weights or losses are not finite.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once ``report`` was told how to go on.
    """
    processes, folder, main = process_count(), Path(output_dir), is_main_process()
    check_recipe(preset, data)
    set_seed(seed)  # refuses a wrong one before anything is read
    device = training_device(precision, processes)
    batch = per_process_batch(preset.batch, processes)
    tell = report if main else _keep_quiet
    with contextlib.ExitStack() as stack:
        if main:
            stack.enter_context(locked_folder(folder))
        stack.enter_context(interruptible(folder, tell))
        check_folder(folder, resume=resume)
        prepared = training_data(data, preset, documents=documents, validation_documents=validation_documents,
                                 validate_with=validate_with, tokenizer=tokenizer, seed=seed, report=tell)
        if processes > 1 and device.name == "cpu":
            # accelerate counts CPUs like GPUs, and older versions of transformers load no optimiser onto "cpu:0".
            os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
        arguments = _arguments(preset, folder, device, batch, processes, len(prepared.datasets["valid"]), seed=seed,
                               save_steps=save_every or _steps_between_saves(preset, prepared),
                               logging_steps=log_every or 0.05, eval_steps=validate_every or 0.1)
        trainer = _trainer(preset, prepared, arguments, processes, None if validate_on_all else WATCHED_CHUNKS)
        if main:  # before the Trainer takes weights from there that may not even have the same shapes
            _callback(trainer, CheckpointGuard).check_record(folder)
        checkpoint = _agreed_checkpoint(folder, resume, tell)
        first_step = 0 if checkpoint is None else checkpoint_state(checkpoint).global_step
        if checkpoint is None or not take_last_weights(trainer, checkpoint):
            if checkpoint is not None:
                tell(f"resuming from {checkpoint}" + (
                    ", once the stream has been read up to there" if _is_stream(prepared) else ""))
            _train(trainer, checkpoint, preset)
        seconds = _callback(trainer, TrainingProgress).seconds
        validation_loss = trainer.evaluate(prepared.datasets["valid"])["eval_loss"]
        figures = run_figures(trainer, preset, prepared, processes, first_step, seconds, validation_loss)
        keep_model(trainer, prepared.tokenizer, folder / "model", figures, main=main)
        return figures


def _steps_between_saves(preset: Preset, prepared: TrainingData) -> float:
    steps = preset.max_steps or preset.epochs * len(prepared.datasets["train"]) // preset.batch
    return 0.1 if steps <= 10 * _MOST_BETWEEN_SAVES else _MOST_BETWEEN_SAVES


def _evaluation_batch(valid: int, processes: int) -> int:
    """Chunks that a process validates at once, so that all of them count alike.

    Batches that do not come out even are filled up with chunks that then count twice in the mean of their batch; those
    of a single chunk are left out again.
    """
    watched = min(WATCHED_CHUNKS, valid)
    return 1 if watched % processes else watched // processes


def _arguments(
    preset: Preset, folder: Path, device: Device, batch: int, processes: int, valid: int, **changes: Any
) -> TrainingArguments:
    if processes > 1:
        # Every parameter of a GPT-2 has a gradient at every step: no need to look for those that have none.
        changes |= {"ddp_find_unused_parameters": False, "log_level_replica": "error"}
        changes |= {"ddp_backend": "gloo"} if device.name == "cpu" else {}
    return training_arguments(
        preset, folder, device=device, per_device_train_batch_size=batch,
        per_device_eval_batch_size=_evaluation_batch(valid, processes),
        save_strategy="steps",
        auto_find_batch_size=False,  # the batch is part of the recipe
        # By default the main process alone would read a stream, and send the others their share.
        accelerator_config={"dispatch_batches": False},
        **changes)


def _trainer(
    preset: Preset, prepared: TrainingData, arguments: TrainingArguments, processes: int,
    watched: int | None = WATCHED_CHUNKS,
) -> Trainer:
    set_seed(arguments.seed)
    record = prepared.record | {"embedding_std": preset.embedding_std, "stop_at": preset.stop_at}
    # Not trained on, but a run that went on with others would put two different curves into one.
    record |= {"validation_chunks": chunks_sha256(prepared.datasets["valid"]), "watched_chunks": watched}
    record |= {"stream.processes": processes} if _is_stream(prepared) else {}
    try:
        trainer = build_trainer(
            new_model(preset, prepared.tokenizer), arguments, prepared.datasets, prepared.tokenizer, preset=preset,
            callbacks=[TrainingProgress(preset.batch * preset.context_length, live=False)], collator=collate_packed,
            record=record, watched=watched)
    except RuntimeError as error:
        if preset.muon_lr is None or PartialState().distributed_type is not DistributedType.FSDP:
            raise
        raise ValueError(f"muon_lr={preset.muon_lr}: Muon needs whole matrices, of which FSDP leaves each process a "
                         "part. Give --muon-lr none, or start without FSDP.") from error
    ours = _callback(trainer, CheckpointGuard).configuration
    for index, theirs in enumerate(gather_object([ours])):
        different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if different:
            raise ValueError(f"Process {index} begins with other {', '.join(different[:4])} than process "
                             f"{arguments.process_index}: give all the same arguments, files and "
                             "LLM_TUTORIAL_SOURCE=hub or offline.")
    return trainer


def _callback(trainer: Trainer, kind: type) -> Any:
    return next(one for one in trainer.callback_handler.callbacks if isinstance(one, kind))


def _agreed_checkpoint(folder: Path, resume: bool, tell: Callable[[str], object]) -> str | None:
    """Return the checkpoint that the main process chose: damage can be noticed by one and not by the others."""
    chosen = [newest_checkpoint(folder, report=tell) if resume and is_main_process() else None]
    return broadcast_object_list(chosen)[0]


def _train(trainer: Trainer, checkpoint: str | None, preset: Preset) -> None:
    try:
        with written(lambda: Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"):
            trainer.train(resume_from_checkpoint=checkpoint)
    except torch.OutOfMemoryError as error:
        raise ValueError(f"A batch of {trainer.args.per_device_train_batch_size} chunks of {preset.context_length} "
                         "tokens does not fit into the memory of the GPU. Choose a smaller --batch or "
                         f"--context-length, or more processes. ({error})") from error


def _is_stream(prepared: TrainingData) -> bool:
    return isinstance(prepared.datasets["train"], IterableDataset)


def _keep_quiet(_line: str) -> None:
    """What processes other than the main one report."""
