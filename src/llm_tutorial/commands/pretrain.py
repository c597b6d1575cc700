"""``llm-tutorial pretrain``: train a GPT-2 from random weights, in one process or as one of several."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import transformers
from datasets import Dataset, IterableDataset, load_dataset
from torch import distributed

from llm_tutorial import chunking, corpus, training
from llm_tutorial.device import Device, pick_device
from llm_tutorial.reporting import TrainingProgress, quiet
from llm_tutorial.sources.files import new_folder

__all__ = ["changed_preset", "main", "pretrain"]

_NAMES = ("articles", "introductions", "stream")
_HELD_OUT = {"introductions": 500, "stream": 200}  # documents to validate with
_TOKENIZER_DOCUMENTS = 2000  # of a stream, to train a small vocabulary on
_MOST_BETWEEN_SAVES = 1000  # steps

Splits = Mapping[str, Dataset | IterableDataset]


def main(arguments: argparse.Namespace) -> int:
    """Run the command with the options that ``llm-tutorial pretrain --help`` lists."""
    quiet()
    preset = changed_preset(training.pick_preset(arguments.preset or pick_device()), arguments.set)
    preset = replace(preset, max_steps=arguments.max_steps or preset.max_steps)
    folder = arguments.output_dir or Path("build") / f"pretrain-{preset.name}"
    data = arguments.data[0] if len(arguments.data) == 1 and arguments.data[0] in _NAMES else arguments.data
    with _stopping(folder):
        figures = pretrain(preset, folder, data=data, column=arguments.column)
        if _is_main_process() and arguments.json is not None:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
        _tell(f"{figures['steps']} steps, validation loss {figures['validation_loss']:.3f} nats per token; the model "
              f"is in {figures['model']}")
    if distributed.is_initialized():  # NCCL complains about a group that is left open
        distributed.destroy_process_group()
    return 0


def changed_preset(preset: training.Preset, settings: Sequence[str]) -> training.Preset:
    """Return the preset with the fields changed by ``settings``, texts such as ``"layers=4"`` or ``"muon_lr=none"``.

    Raises:
        ValueError: a setting names no field, or its value has another type than the field.
    """
    kinds, changes = get_type_hints(training.Preset), {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in kinds:
            raise ValueError(f"--set {setting}: a preset has no field {name!r}. Write field=value with one of "
                             f"{', '.join(kinds)}.")
        types = get_args(kinds[name]) or (kinds[name],)
        try:
            changes[name] = None if NoneType in types and text.lower() == "none" else types[0](text)
        except ValueError:
            wanted = " or ".join("none" if kind is NoneType else kind.__name__ for kind in types)
            raise ValueError(f"--set {setting}: {text!r} is not a value for {name}, which takes {wanted}.") from None
    return replace(preset, **changes)


def pretrain(
    preset: training.Preset, output_dir: str | Path, *, data: str | Sequence[str | Path] = "articles", column: str = ""
) -> dict[str, Any]:
    """Train a new GPT-2, keep it with its tokenizer in ``output_dir/model``, and return the figures of the run.

    A run that was interrupted goes on from its newest checkpoint. Under ``torchrun``, ``accelerate launch``, or with
    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in the environment, this is one of several processes, each
    with a share of the preset's batch. In fp32 and without dropout, the losses do not depend on the number of
    processes, unless the data are a stream: each process reads its own part of it.

    Args:
        data: ``"articles"``, 50 of Wikipedia, each chunked by itself; ``"introductions"`` of 10,033 articles, packed;
            ``"stream"``, all of Wikipedia, packed; or paths of text files, packed.
        column: the column with the texts in CSV and JSON files.

    Raises:
        ValueError: data and recipe do not fit, or the output folder holds a finished or a different run.
        OSError: files cannot be read or written, or the disk has no room for the checkpoints.
    """
    processes, folder, device = int(os.environ.get("WORLD_SIZE", "1")), Path(output_dir), pick_device()
    if preset.batch < 1 or preset.batch % processes:
        raise ValueError(f"A batch of {preset.batch} cannot be divided equally among {processes} processes: choose a "
                         f"multiple of {processes}.")
    if (folder / "model").exists():
        raise ValueError(f"{folder / 'model'} is there already, so this run is finished. Choose another --output-dir, "
                         f"or delete {folder} if nothing in it is needed.")
    if data == "stream":
        if preset.max_steps is None:
            raise ValueError("A stream has no end, so the training needs one: give --max-steps.")
        preset = replace(preset, stop_at=None)  # chunks without end cannot be recited
    folder.mkdir(parents=True, exist_ok=True)
    _tell(f"training on {device.name} ({device.reason})")
    tokenizer, datasets, source = _training_data(data, preset, column)
    arguments = _arguments(preset, folder, device, datasets, processes)
    transformers.set_seed(arguments.seed)
    model = training.new_model(preset, tokenizer)
    _check_room(folder, model)
    progress = TrainingProgress(preset.batch * preset.context_length, live=False)
    trainer = training.build_trainer(model, arguments, datasets, tokenizer, preset=preset, callbacks=[progress])
    checkpoint, first_step = training.newest_checkpoint(folder), 0
    if checkpoint is not None:
        first_step = transformers.TrainerState.load_from_json(f"{checkpoint}/trainer_state.json").global_step
        _tell(f"resuming from {checkpoint}")
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.evaluate(datasets["valid"])
    figures = {"preset": asdict(preset), "data": source, "device": device.name, "world_size": processes} | _figures(
        trainer, preset, datasets, first_step, progress.seconds)
    _keep_model(trainer, folder / "model", figures)
    return figures


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _tell(line: str) -> None:
    if _is_main_process():
        print(line, flush=True)


def _training_data(
    data: str | Sequence[str | Path], preset: training.Preset, column: str = ""
) -> tuple[transformers.PreTrainedTokenizerBase, Splits, str]:
    """Return the tokenizer, the chunks to train on and to validate with, and a name for the data."""
    if data == "stream":
        return _streamed_data(preset)
    if data == "articles":
        documents = corpus.load_wikipedia()
    elif data == "introductions":
        documents = corpus.split_by_title(corpus.load_introductions(), _HELD_OUT[data], seed=42)
    else:
        documents = corpus.split_texts(corpus.load_texts(data, column=column, report=_tell))
    _tell(f"texts to train on: {len(documents['train']):,}, to validate with: {len(documents['valid']):,}")
    tokenizer = training.preset_tokenizer(preset, documents["train"]["text"])
    cut = chunking.chunked_dataset if data == "articles" else chunking.packed_dataset
    chunks = cut(documents, tokenizer, preset.context_length)
    # Filled up from the beginning: several processes would fill the last batch of an epoch with other chunks.
    rows = math.ceil(len(chunks["train"]) / preset.batch) * preset.batch
    train = chunks["train"].select([row % len(chunks["train"]) for row in range(rows)])
    return tokenizer, {"train": train, "valid": _evenly_divided(chunks["valid"])}, data if data in _NAMES else "files"


def _streamed_data(preset: training.Preset) -> tuple[transformers.PreTrainedTokenizerBase, Splits, str]:
    source = corpus.wikipedia_files()
    _tell(f"streaming {source.name}: {len(source.files)} files, source {source.source} ({source.reason})")

    def documents(files: Sequence[str]) -> Iterator[dict[str, str]]:
        rows = load_dataset("parquet", data_files=list(files), split="train", streaming=True,
                            columns=["title", "text"], token=False)
        return (row for row in rows if row["text"].strip())

    held_out = Dataset.from_list(list(islice(documents(source.files[-1:]), _HELD_OUT["stream"])))
    keys = {corpus.title_key(title) for title in held_out["title"]}
    texts = (row["text"] for row in documents(source.files) if corpus.title_key(row["title"]) not in keys)
    tokenizer = training.preset_tokenizer(preset, islice(texts, _TOKENIZER_DOCUMENTS))
    train = chunking.packed_stream(source.files, tokenizer, preset.context_length, without_titles=held_out["title"][:])
    valid = chunking.packed_dataset(held_out, tokenizer, preset.context_length)
    return tokenizer, {"train": train, "valid": _evenly_divided(valid)}, source.name


def _evenly_divided(valid: Dataset) -> Dataset:
    """Return the first chunks, a multiple of 32 or, of fewer, a power of two, so that processes share them equally."""
    chunks, unit = len(valid), training.WATCHED_CHUNKS
    return valid.select(range(chunks // unit * unit or 1 << chunks.bit_length() - 1))


def _arguments(
    preset: training.Preset, folder: Path, device: Device, datasets: Splits, processes: int
) -> transformers.TrainingArguments:
    changes: dict[str, Any] = {}
    if "LOCAL_RANK" in os.environ:  # a launcher started this process
        # Every parameter of a GPT-2 has a gradient at every step, so none has to be looked for.
        changes = {"ddp_find_unused_parameters": False, "log_level_replica": "error"}
        if device.name == "cpu":
            changes["ddp_backend"] = "gloo"
            # accelerate numbers CPUs as if they were GPUs, and transformers 5.15 loads no optimizer onto "cpu:0".
            os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    steps = preset.max_steps or preset.epochs * len(datasets["train"]) // preset.batch
    watched = min(training.WATCHED_CHUNKS, len(datasets["valid"]))
    return training.training_arguments(
        preset, folder, device=device, per_device_train_batch_size=preset.batch // processes,
        # A batch that is not full would be filled up with chunks that then count twice.
        per_device_eval_batch_size=1 if watched % processes else watched // processes,
        save_strategy="steps", save_steps=min(math.ceil(steps / 10), _MOST_BETWEEN_SAVES),
        # By default the main process alone would read a stream, and send the others their share.
        accelerator_config={"dispatch_batches": False}, **changes)


def _figures(
    trainer: transformers.Trainer, preset: training.Preset, datasets: Splits, first_step: int, seconds: float
) -> dict[str, Any]:
    arguments, history, steps = trainer.args, trainer.state.log_history, trainer.state.global_step
    tokens = (steps - first_step) * preset.batch * preset.context_length
    return {
        "training_chunks": None if isinstance(datasets["train"], IterableDataset) else len(datasets["train"]),
        "validation_chunks": len(datasets["valid"]), "parameters": trainer.model.num_parameters(),
        "precision": "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "fp32",
        "first_step": first_step, "steps": steps, "tokens": tokens, "seconds": seconds,
        "tokens_per_second": tokens / seconds if tokens else None,
        "losses": [{"step": entry["step"], "loss": entry["loss"]} for entry in history if "loss" in entry],
        "validation_losses": [{"step": entry["step"], "loss": entry["eval_loss"]} for entry in history[:-1]
                              if "eval_loss" in entry],
        "validation_loss": history[-1]["eval_loss"],  # over all chunks, after the training
        "model": str(Path(arguments.output_dir) / "model"),
    }


def _keep_model(trainer: transformers.Trainer, folder: Path, figures: Mapping[str, Any]) -> None:
    """Write model, tokenizer and ``figures.json`` into a new folder, whole or not at all."""
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # by all processes: each may hold a part only
    if _is_main_process():
        with new_folder(folder) as whole:
            trainer.accelerator.unwrap_model(trainer.model_wrapped).save_pretrained(whole, state_dict=weights)
            trainer.processing_class.save_pretrained(whole)
            (whole / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    trainer.accelerator.wait_for_everyone()


def _check_room(folder: Path, model: transformers.PreTrainedModel) -> None:
    """Refuse a disk without room for two checkpoints, which the libraries would report late and unclearly."""
    free, needed = shutil.disk_usage(folder).free, 24 * model.num_parameters()  # weights and two moments each, in fp32
    if free < needed:
        raise OSError(f"{folder} has {free / 1e9:.2f} GB free, but two checkpoints take {needed / 1e9:.2f} GB: make "
                      "room, or choose an --output-dir on another disk.")


@contextlib.contextmanager
def _stopping(folder: Path) -> Iterator[None]:
    """End the program at a Ctrl-C or SIGTERM during the block, with a line on how to go on.

    A thread does it: Python itself looks at signals between the calls of libraries, and one that waits for another
    process can take half an hour. What is saved is whole at any time.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    woken, waker = socket.socketpair()
    waker.setblocking(False)

    def watch() -> None:
        while number := woken.recv(1):
            if number[0] in numbers:
                try:
                    newest = training.newest_checkpoint(folder)
                    _tell("Stopped. The same command " + (f"resumes from {newest}." if newest else "begins again."))
                finally:
                    os._exit(130)

    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    descriptor = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        waker.close()
        watching.join()
        woken.close()
        for number, handler in before.items():
            signal.signal(number, handler)
