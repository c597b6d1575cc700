"""How a pre-training ends: its last weights, the folder they are kept in, and a disk that has no room for them."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase, Trainer, TrainerState

from llm_tutorial.disks import DISK_FULL
from llm_tutorial.files import new_folder

__all__ = ["checkpoint_state", "keep_model", "take_last_weights", "written"]


def checkpoint_state(checkpoint: str) -> TrainerState:
    """Return what the Trainer noted in a checkpoint, such as its step."""
    return TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))


def take_last_weights(trainer: Trainer, checkpoint: str) -> bool:
    """Take the weights of a run's last checkpoint, and say whether it is one: only its model was not saved any more.

    The last is that of the last step, or of one at which a callback asked the Trainer to stop.
    """
    state = checkpoint_state(checkpoint)
    if not (state.global_step >= state.max_steps
            or state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]):
        return False
    trained = GPT2LMHeadModel.from_pretrained(checkpoint, dtype=torch.float32, use_safetensors=True)
    trainer.model.load_state_dict(trained.state_dict())
    trainer.state = state
    return True


def keep_model(
    trainer: Trainer, tokenizer: PreTrainedTokenizerBase, folder: Path, figures: Mapping[str, Any], *, main: bool
) -> None:
    """Keep model, tokenizer and ``figures.json`` in a new folder, whole or not at all.

    Every process has to call it, as each may hold a part of the weights only; the main one writes.

    Raises:
        OSError: it cannot be written.
    """
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if main:
        with written(lambda: folder), new_folder(folder) as whole:
            trainer.accelerator.unwrap_model(trainer.model_wrapped).save_pretrained(whole, state_dict=weights)
            tokenizer.save_pretrained(whole)
            (whole / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    trainer.accelerator.wait_for_everyone()


@contextmanager
def written(target: Callable[[], Path]) -> Iterator[None]:
    """Turn what libraries raise in the block when a disk is full into an OSError that says how to go on.

    Args:
        target: returns what was being written.

    Raises:
        OSError: files cannot be written.
    """
    try:
        yield
    except (safetensors.SafetensorError, RuntimeError, OSError) as error:
        if not _is_of_the_disk(error):
            raise
        path = target()
        raise OSError(f"{path} could not be written ({error}). The disk may be full: it has "
                      f"{shutil.disk_usage(path.parent).free / 1e9:.2f} GB free. Make room on it; the same command "
                      "then resumes from the newest whole checkpoint, if there is one.") from error


def _is_of_the_disk(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in DISK_FULL
    cause = error.__context__
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):  # leaves the file incomplete too, of which the writer then complains
            return False
        cause = cause.__context__
    # Told by where it comes from: the texts are those of several C++ libraries.
    writers = (torch.save.__code__, safetensors.torch.save_file.__code__)
    return any(frame.f_code in writers for frame, _ in traceback.walk_tb(error.__traceback__))
