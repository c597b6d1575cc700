"""Training as one would write it in plain PyTorch, beside which the Trainer is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from transformers import GPT2LMHeadModel, TrainingArguments

from llm_tutorial.device import Device
from llm_tutorial.optimizers import MuonAdamW, muon_parameter_groups
from llm_tutorial.presets import Preset

__all__ = ["BareLoop", "autocast_dtype"]


def autocast_dtype(device: Device) -> torch.dtype | None:
    """Return the half precision to train in on this device, None for float32."""
    return torch.bfloat16 if device.bf16 else torch.float16 if device.fp16 else None


class BareLoop:
    """The same steps as the Trainer's: model, optimiser, batches, precision, clipping, schedule and logging.

    Batches come in the order of the chunks, as the Trainer takes them with ``train_sampling_strategy="sequential"``.

    Args:
        model: is moved to the device and trained.
        chunks: equally long rows of token ids, in a number that the batch divides.
        arguments: with a number of steps in ``max_steps`` and in ``logging_steps``.

    Attributes:
        losses: the mean loss of each ``logging_steps`` steps, in nats per token.

    Raises:
        ValueError: the batch does not divide the number of chunks.
    """

    def __init__(
        self, model: GPT2LMHeadModel, chunks: Sequence[Sequence[int]], *, preset: Preset, arguments: TrainingArguments,
        device: Device,
    ) -> None:
        self.batch = arguments.per_device_train_batch_size
        if len(chunks) == 0 or len(chunks) % self.batch:
            raise ValueError(f"{len(chunks)} chunks make no whole number of batches of {self.batch}: leave some out.")
        self.model, self.device, self.arguments = model.to(device.name).train(), device, arguments
        self.batches = torch.tensor(chunks).split(self.batch)
        self.optimizer = _optimizer(model, preset, arguments)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, _linear_schedule(arguments.get_warmup_steps(arguments.max_steps), arguments.max_steps))
        self.scaler = torch.amp.GradScaler(device.name, enabled=device.fp16)
        self.steps, self.losses, self._sum = 0, [], torch.zeros((), device=device.name)

    def step(self) -> None:
        """Train on the next batch.

        Raises:
            FloatingPointError: a logged loss is not finite.
        """
        ids = self.batches[self.steps % len(self.batches)].to(self.device.name)
        labels = ids.masked_fill(ids == self.model.config.pad_token_id, -100)
        dtype = autocast_dtype(self.device)
        with torch.autocast(self.device.name, dtype, enabled=dtype is not None):
            loss = self.model(input_ids=ids, labels=labels, use_cache=False).loss
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.arguments.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad()
        self._sum += loss.detach()
        self.steps += 1
        if self.steps % self.arguments.logging_steps == 0:
            self.losses.append(self._sum.item() / self.arguments.logging_steps)
            self._sum.zero_()
            if not math.isfinite(self.losses[-1]):
                raise FloatingPointError(f"The bare loop's loss is {self.losses[-1]} at step {self.steps}.")


def _optimizer(model: GPT2LMHeadModel, preset: Preset, arguments: TrainingArguments) -> torch.optim.Optimizer:
    if preset.muon_lr is not None:
        groups = muon_parameter_groups(model, muon_lr=preset.muon_lr, adamw_lr=arguments.learning_rate,
                                       weight_decay=arguments.weight_decay)
        return MuonAdamW(groups, bf16=arguments.bf16)
    return torch.optim.AdamW(
        model.parameters(), lr=arguments.learning_rate, betas=(arguments.adam_beta1, arguments.adam_beta2),
        eps=arguments.adam_epsilon, weight_decay=arguments.weight_decay, fused=True)


def _linear_schedule(warmup: int, steps: int):
    """The learning rate's factor: up in a straight line over the first steps, then down to zero at the last."""
    return lambda step: step / warmup if step < warmup else max(0.0, (steps - step) / max(1, steps - warmup))
