"""Training runs that can be killed at any moment and resumed exactly.

Exactly means to the last bit on the same kind of device with as many threads: others round sums differently.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

from llm_tutorial.disks import flush_folder
from llm_tutorial.files import replace_file, sha256_of

__all__ = ["CheckpointGuard", "chunks_sha256", "newest_checkpoint", "run_configuration"]

# Of the model's configuration: what says where it came from or how it generates text, not how it is trained.
_NOT_TRAINED = {"_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "pad_token_id",
                "transformers_version", "use_cache"}
# Of the training arguments: what changes the weights.
_DECISIVE = ("learning_rate", "num_train_epochs", "max_steps", "lr_scheduler_type", "lr_scheduler_kwargs",
             "warmup_steps", "weight_decay", "max_grad_norm", "optim", "optim_args", "adam_beta1", "adam_beta2",
             "adam_epsilon", "label_smoothing_factor", "bf16", "fp16", "seed", "data_seed", "dataloader_drop_last",
             "train_sampling_strategy")


def run_configuration(
    model: PreTrainedModel,
    arguments: TrainingArguments,
    datasets: Mapping[str, Dataset | IterableDataset],
    tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, Any]:
    """Return what decides where a run ends, for ``CheckpointGuard``: model, arguments, training chunks, tokenizer.

    The devices and how often the run logs, evaluates and saves are left out.  So are the chunks of a stream, which
    cannot be read in advance: add what they depend on.

    Args:
        optimizer: the optimiser handed to the Trainer, before it trains; None if ``arguments.optim`` names it.
    """
    facts = {f"model.{key}": value for key, value in model.config.to_diff_dict().items() if key not in _NOT_TRAINED}
    facts["model"] = type(model).__name__
    # Fields that the installed library does not know yet have no effect in it either.
    facts |= {name: getattr(arguments, name, None) for name in _DECISIVE}
    facts["global_batch"] = (
        arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size)
    if not isinstance(datasets["train"], IterableDataset):
        facts["training_chunks"] = chunks_sha256(datasets["train"])
    words = json.dumps([tokenizer.get_vocab(), tokenizer.special_tokens_map], sort_keys=True)
    facts["tokenizer"] = _sha256([words.encode()])
    if optimizer is not None:
        facts["optimizer"] = type(optimizer).__name__
        for index, group in enumerate(optimizer.param_groups):
            facts |= {f"optimizer.{index}.{key}": value for key, value in group.items() if key != "params"}
    # As it reads back from a file: enumerations as their texts, tuples as lists.
    return json.loads(json.dumps(facts, sort_keys=True))


def chunks_sha256(chunks: Dataset) -> str:
    """Return the SHA-256 of the token ids (``input_ids``) of all rows, in their order."""
    ids = (np.asarray(row, dtype="<i8").tobytes() for row in chunks["input_ids"])
    return _sha256(part for row in ids for part in (len(row).to_bytes(8, "little"), row))


def newest_checkpoint(folder: str | os.PathLike[str], *, report: Callable[[str], object] = print) -> str | None:
    """Return the newest whole checkpoint in ``folder`` for ``train(resume_from_checkpoint=...)``; None if none is.

    Whole is what ``CheckpointGuard`` finished and nothing changed since.  Each newer one that is not whole is passed
    over with a line through ``report`` that says why.
    """
    for step, checkpoint in reversed(_checkpoints(Path(folder))):
        damage = _damage(checkpoint, step)
        if damage is None:
            return str(checkpoint)
        report(f"{checkpoint} is passed over: {damage}.")
    return None


class CheckpointGuard(TrainerCallback):
    """Let a run resume only from its own whole checkpoints: each gets a manifest of hashes, written last.

    It belongs behind all callbacks that write into a checkpoint.

    Args:
        configuration: what ``run_configuration`` returns; ``run.json`` in the output folder keeps it.
    """

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.configuration = json.loads(json.dumps(configuration))

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Check that the output folder is this run's, and set damaged checkpoints in it aside.

        How often to log, evaluate and save is what the arguments say, also where the run began with something else.

        Raises:
            ValueError: the folder belongs to another run, holds checkpoints beyond the step where this training
                begins, that step's checkpoint is damaged or already the last, or the arguments preclude resuming.
        """
        if args.save_total_limit == 1 or args.save_only_model:
            raise ValueError(
                "With save_total_limit=1 the Trainer deletes the older checkpoint before the newer one is whole, and "
                "with save_only_model=True it keeps no optimiser: such a run cannot be resumed. Use "
                f"save_total_limit=2 and save_only_model=False (given: {args.save_total_limit}, "
                f"{args.save_only_model}).")
        # The Trainer takes them from the checkpoint, not from the arguments of this call.
        state.compute_steps(args, state.max_steps)
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir)
        found = [(step, path, _damage(path, step)) for step, path in _checkpoints(folder)]
        self.check_record(folder)
        newest = f"resume_from_checkpoint=newest_checkpoint({args.output_dir!r})"
        for step, path, damage in found:
            if damage is None and step > state.global_step:
                raise ValueError(f"{path} is beyond step {state.global_step}, where this training begins, and would "
                                 f"be overwritten. Give train() {newest}, or choose another output_dir.")
            if damage and 0 < step == state.global_step:
                raise ValueError(f"{path}, which this training resumes from, is damaged: {damage}. "
                                 f"Give train() {newest}.")
        # Inside an epoch the Trainer notices only after the next step that there was none left to do.
        if state.global_step >= state.max_steps and (state.epoch or 0) % 1:
            raise ValueError(f"The run in {folder} is finished: step {state.global_step} of {state.max_steps} is its "
                             "last. Load the model from that checkpoint, or choose another output_dir.")
        # Also the older ones: the Trainer, which keeps the last few by date, could keep them and delete whole ones.
        for _, path, damage in found:
            if damage:
                aside = path.with_name(f"damaged-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                print(f"{path} is set aside as {aside.name}: {damage}.", flush=True)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Log with every checkpoint: the mean loss since the last log is not part of it and would be lost."""
        control.should_log |= control.should_save

    on_epoch_end = on_step_end

    def on_save(self, args, state, control, **kwargs) -> None:
        """Write the manifest of the checkpoint that the Trainer has just written."""
        PartialState().wait_for_everyone()  # each process saves the state of its random numbers
        if not state.is_world_process_zero:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        flush_folder(checkpoint)
        files = {name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
                 for name, path in _files(checkpoint).items()}
        _write_record(checkpoint / "manifest.json", {"format": 1, "step": state.global_step, "files": files})

    def check_record(self, folder: Path) -> None:
        """Check that ``run.json`` in the output folder is this run's, or write it where no checkpoint can be lost.

        Raises:
            ValueError: the folder belongs to another run, or to another program.
        """
        remedy = "Choose another output_dir, or delete that folder if nothing in it is needed."
        path, recorded, has_checkpoints = folder / "run.json", None, bool(_checkpoints(folder))
        if not path.is_file():
            if has_checkpoints:
                raise ValueError(f"{folder} holds checkpoints but no run.json, so another program wrote them. {remedy}")
            folder.mkdir(parents=True, exist_ok=True)
            _write_record(path, self.configuration)
            return
        with contextlib.suppress(ValueError):
            recorded = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(recorded, dict):
            raise ValueError(f"{path} is not a run's record. {remedy}")
        there, here = ({key: f"{value!s:.24}" for key, value in facts.items() if other.get(key, "absent") != value}
                       for facts, other in ((recorded, self.configuration), (self.configuration, recorded)))
        keys = sorted(there.keys() | here.keys())
        if keys and not has_checkpoints:
            _write_record(path, self.configuration)
        elif keys:
            listed = "; ".join(f"{key} is {there.get(key, 'absent')} there and {here.get(key, 'absent')} here"
                               for key in keys[:4])
            more = f"; {len(keys) - 4} more differ" if len(keys) > 4 else ""
            raise ValueError(f"{folder} belongs to a different run: {listed}{more}. {remedy}")


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints in a folder with their steps, oldest first, whole or not."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((int(match[1]), path) for path in paths
                  if (match := re.fullmatch(r"checkpoint-([0-9]+)", path.name)) and path.is_dir())


def _files(checkpoint: Path) -> dict[str, Path]:
    return {path.relative_to(checkpoint).as_posix(): path for path in sorted(checkpoint.rglob("*"))
            if path.is_file() and path != checkpoint / "manifest.json"}


def _damage(checkpoint: Path, step: int) -> str | None:
    """Return why a checkpoint does not count; None if it is as its manifest says."""
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
        if (manifest["format"], manifest["step"]) != (1, step):
            return "its manifest is of an unknown format or of another step"
        known = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
        found = _files(checkpoint)
        for name in sorted(known.keys() | found.keys()):
            if name not in found:
                return f"{name} is missing"
            if name not in known:
                return f"{name} is not in its manifest"
            if found[name].stat().st_size != known[name][0]:
                return f"{name} has {found[name].stat().st_size} bytes, not {known[name][0]}"
            if sha256_of(found[name]) != known[name][1]:
                return f"{name} was changed: its hash differs"
    except FileNotFoundError:
        return "it has no manifest, so its writing was interrupted"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"
    return None


def _write_record(path: Path, record: dict[str, Any]) -> None:
    replace_file(path, json.dumps(record, indent=1, sort_keys=True).encode())


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
