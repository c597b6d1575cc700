"""Pre-train a GPT-2 in one process or in several: the same recipe, batches and losses in each case."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import IterableDataset
from transformers import GPT2LMHeadModel, Trainer, TrainerState, TrainingArguments

from llm_tutorial.callbacks import TrainingProgress
from llm_tutorial.device import Device, set_seed
from llm_tutorial.files import new_folder
from llm_tutorial.launching import is_main_process, locked_folder, per_process_batch, process_count
from llm_tutorial.packing import collate_packed
from llm_tutorial.presets import Preset
from llm_tutorial.pretraining_checks import check_folder, check_recipe, training_device
from llm_tutorial.resuming import CheckpointGuard, newest_checkpoint
from llm_tutorial.splits import TrainingData, training_data
from llm_tutorial.training import WATCHED_CHUNKS, build_trainer, new_model, training_arguments

__all__ = ["pretrain"]


def pretrain(
    preset: Preset,
    output_dir: str | Path,
    *,
    data: str | Sequence[str | Path] = "articles",
    documents: int | None = None,
    validation_documents: int | None = None,
    seed: int = 42,
    precision: str = "auto",
    save_every: int | None = None,
    log_every: int | None = None,
    resume: bool = True,
    report: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Train a new GPT-2, and keep it with its tokenizer in ``output_dir/model``; return the figures of the run.

    Run as one process, or as one of several that ``torchrun`` or ``accelerate launch`` started, each with a share of
    the preset's batch.  In fp32 and without dropout, losses do not depend on the number of processes, beyond rounding,
    except for a stream, of which each process reads other files.

    Args:
        data, documents, validation_documents: see ``splits.training_data``.
        seed: draws documents, weights, and the order of the batches.
        precision: ``"fp32"``, or ``"auto"`` for what is fast on the device.
        save_every, log_every: steps between checkpoints and between logged losses; by default a tenth and a
            twentieth of all.
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
        stack.enter_context(_interruptible(folder, tell))
        check_folder(folder, resume=resume)
        prepared = training_data(data, preset, documents=documents, validation_documents=validation_documents,
                                 seed=seed, report=tell)
        arguments = _arguments(preset, folder, device, batch, processes, len(prepared.datasets["valid"]), seed=seed,
                               save_steps=save_every or 0.1, logging_steps=log_every or 0.05)
        trainer = _trainer(preset, prepared, arguments, processes)
        checkpoint = _agreed_checkpoint(folder, resume, tell)
        began, first_step = time.perf_counter(), 0
        if checkpoint is None or not _finish(trainer, checkpoint):
            if checkpoint is not None:
                first_step = _state(checkpoint).global_step
                tell(f"resuming from {checkpoint}" + (
                    ", once the stream has been read up to there" if prepared.record else ""))
            _train(trainer, checkpoint, preset)
        else:
            first_step = trainer.state.global_step
        seconds = time.perf_counter() - began
        validation_loss = trainer.evaluate(prepared.datasets["valid"])["eval_loss"]
        if main:
            with new_folder(folder / "model") as whole:
                trainer.model.save_pretrained(whole)
                prepared.tokenizer.save_pretrained(whole)
        PartialState().wait_for_everyone()
        return _figures(trainer, preset, prepared, processes, first_step, seconds, validation_loss)


def _arguments(
    preset: Preset, folder: Path, device: Device, batch: int, processes: int, valid: int, **changes: Any
) -> TrainingArguments:
    if processes > 1:
        # Every parameter of a GPT-2 has a gradient at every step: no need to look for those that have none.
        changes |= {"ddp_find_unused_parameters": False, "log_level_replica": "error"}
        changes |= {"ddp_backend": "gloo"} if device.name == "cpu" else {}
    return training_arguments(
        preset, folder, device=device, per_device_train_batch_size=batch,
        # Whole batches of the validation chunks, of which the Trainer watches a few.
        per_device_eval_batch_size=max(1, min(WATCHED_CHUNKS, valid) // processes),
        save_strategy="steps",
        auto_find_batch_size=False,  # the batch is part of the recipe
        # By default the main process alone would read a stream, and send the others their share.
        accelerator_config={"dispatch_batches": False},
        **changes)


def _trainer(preset: Preset, prepared: TrainingData, arguments: TrainingArguments, processes: int) -> Trainer:
    set_seed(arguments.seed)
    record = prepared.record and prepared.record | {"stream.processes": processes}
    trainer = build_trainer(
        new_model(preset, prepared.tokenizer), arguments, prepared.datasets, prepared.tokenizer, preset=preset,
        callbacks=[TrainingProgress(preset.batch * preset.context_length, live=False)], collator=collate_packed,
        record=record)
    ours = _guard(trainer).configuration
    for index, theirs in enumerate(gather_object([ours])):
        different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if different:
            raise ValueError(f"Process {index} begins with other {', '.join(different[:4])} than process "
                             f"{arguments.process_index}: give all the same arguments, files and "
                             "LLM_TUTORIAL_SOURCE=hub or offline.")
    return trainer


def _guard(trainer: Trainer) -> CheckpointGuard:
    return next(one for one in trainer.callback_handler.callbacks if isinstance(one, CheckpointGuard))


def _agreed_checkpoint(folder: Path, resume: bool, tell: Callable[[str], object]) -> str | None:
    """Return the checkpoint that the main process chose: damage can be noticed by one and not by the others."""
    chosen = [newest_checkpoint(folder, report=tell) if resume and is_main_process() else None]
    return broadcast_object_list(chosen)[0]


def _state(checkpoint: str) -> TrainerState:
    return TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))


def _finish(trainer: Trainer, checkpoint: str) -> bool:
    """Take the weights of a run's last checkpoint, if this is it: only its model was not saved any more."""
    state = _state(checkpoint)
    if state.global_step < state.max_steps:
        return False
    _guard(trainer).check_record(Path(trainer.args.output_dir), has_checkpoints=True)
    trained = GPT2LMHeadModel.from_pretrained(checkpoint, dtype=torch.float32, use_safetensors=True)
    trainer.model.load_state_dict(trained.state_dict())
    trainer.state = state
    return True


def _train(trainer: Trainer, checkpoint: str | None, preset: Preset) -> None:
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except torch.OutOfMemoryError as error:
        raise ValueError(f"A batch of {trainer.args.per_device_train_batch_size} chunks of {preset.context_length} "
                         "tokens does not fit into the memory of the GPU. Choose a smaller --batch or "
                         f"--context-length, or more processes. ({error})") from error


def _figures(
    trainer: Trainer, preset: Preset, prepared: TrainingData, processes: int, first_step: int, seconds: float,
    validation_loss: float,
) -> dict[str, Any]:
    history, steps = trainer.state.log_history, trainer.state.global_step
    tokens = (steps - first_step) * preset.batch * preset.context_length
    train = prepared.datasets["train"]
    precision = "bf16" if trainer.args.bf16 else "fp16" if trainer.args.fp16 else "fp32"
    return {
        "preset": asdict(preset), "data": prepared.description, "seed": trainer.args.seed,
        "training_chunks": None if isinstance(train, IterableDataset) else len(train),
        "validation_chunks": len(prepared.datasets["valid"]),
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


@contextlib.contextmanager
def _interruptible(folder: Path, tell: Callable[[str], object]) -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, as Ctrl-C is one, and tell how to go on."""
    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    arrived: list[int] = []

    def stop(number: int, _frame: object) -> None:
        arrived.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        # A process that waits for another one to answer gets an error from the connection instead.
        if isinstance(error, RuntimeError) and not arrived:
            raise
        checkpoint = newest_checkpoint(folder, report=_keep_quiet)
        tell("Stopped. " + (f"The same command resumes from {checkpoint}." if checkpoint else
                            "There is no checkpoint yet: the same command begins again."))
        raise KeyboardInterrupt from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep_quiet(_line: str) -> None:
    """What processes other than the main one report."""
