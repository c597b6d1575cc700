"""Reuse pre-trained models: vectors of texts, numbers of classes, rows of questions and answers, and LoRA."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from datasets import Dataset
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from llm_tutorial.decoding import evaluating

__all__ = ["LoRA", "add_lora", "chat_dataset", "class_numbers", "embed", "merge_lora", "padded_batch"]


def embed(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int = 32,
          batch_size: int = 64) -> torch.Tensor:
    """Return the mean of each text's last hidden vectors, padding left out, divided by its length: (texts, width).

    The vectors are fp32 and on the CPU; texts are cut to ``max_length`` tokens (https://arxiv.org/abs/1908.10084).
    """
    limit = getattr(model.config, "max_position_embeddings", max_length)
    if not texts or not 1 <= max_length <= limit:
        raise ValueError(f"{len(texts)} texts, max_length={max_length}: give a text, and 1 to {limit} positions.")
    vectors = []
    with evaluating(model):
        for start in range(0, len(texts), batch_size):
            batch = tokenizer(list(texts[start:start + batch_size]), truncation=True, max_length=max_length,
                              padding=True, return_tensors="pt").to(model.device)
            hidden, real = model.base_model(**batch).last_hidden_state.float(), batch["attention_mask"][:, :, None]
            vectors.append(((hidden * real).sum(dim=1) / real.sum(dim=1)).cpu())
    return nn.functional.normalize(torch.cat(vectors), dim=-1)


def class_numbers(labels: Iterable[str], classes: Sequence[str]) -> torch.Tensor:
    """Return each label's place in the list of classes; fewer than two different labels are refused."""
    if len(found := set(labels := list(labels))) < 2 or not found <= set(classes):
        raise ValueError(f"The {len(labels)} labels are of {sorted(found)}: a classifier needs labels of at least two "
                         f"classes, all of them among {list(classes)}. Choose other topics, or draw more texts.")
    return torch.tensor([classes.index(label) for label in labels])


def chat_dataset(tokenizer: PreTrainedTokenizerBase, pairs: Iterable[tuple[str, str]], length: int = 128) -> Dataset:
    """Return ``input_ids`` and ``labels``, −100 on the question; rows of more than ``length`` tokens are refused."""
    if not tokenizer.chat_template:
        raise ValueError("This tokenizer has no chat template, so its model was not trained to answer: set "
                         "tokenizer.chat_template to a template of your own first.")
    rows = []
    for question, answer in pairs:
        chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        asked = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(chat, tokenize=False)
        if not whole.startswith(asked) or whole == asked:
            raise ValueError(f"The chat template writes no answer after {question[:60]!r}, so all labels are −100: "
                             "use another template, or an answer that is not empty.")
        given, wanted = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, whole[len(asked):]))
        if len(given) + len(wanted) > length:
            why = "all labels would be −100" if len(given) >= length else "the answer would lose its end"
            raise ValueError(f"{question[:60]!r} and its answer have {len(given)} + {len(wanted)} tokens, more than "
                             f"length={length}, so {why}: shorten them, or raise length.")
        rows.append({"input_ids": given + wanted, "labels": [-100] * len(given) + wanted})
    return Dataset.from_list(rows)


def padded_batch(rows: Sequence[Mapping[str, list[int]]], padding: int) -> dict[str, torch.Tensor]:
    """Return ``input_ids``, ``attention_mask`` and ``labels`` of shape (rows, longest row), padded on the right."""
    if all(label == -100 for row in rows for label in row["labels"]):
        raise ValueError(f"All labels of {len(rows)} rows are −100: the loss would be NaN. Keep those of the answers.")
    rows = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
    return {name: pad_sequence([torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=fill)
            for name, fill in {"input_ids": padding, "attention_mask": 0, "labels": -100}.items()}


class LoRA(nn.Module):
    """A frozen linear layer plus ``alpha / rank * B A x``, where B starts at zero (https://arxiv.org/abs/2106.09685)."""

    def __init__(self, layer: nn.Linear | Conv1D, rank: int, alpha: float) -> None:
        super().__init__()
        outputs, inputs = layer.weight.T.shape if isinstance(layer, Conv1D) else layer.weight.shape
        if not 1 <= rank <= min(outputs, inputs):
            raise ValueError(f"rank={rank} for a matrix of {outputs} by {inputs}: 0 would train nothing, and more than "
                             f"the smaller side adds nothing. Use 1 to {min(outputs, inputs)}.")
        self.layer, self.scale = layer, alpha / rank
        self.A = nn.Parameter(torch.empty(rank, inputs, device=layer.weight.device))
        self.B = nn.Parameter(torch.zeros(outputs, rank, device=layer.weight.device))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of both paths."""
        return self.layer(x) + self.scale * (x @ self.A.T @ self.B.T)


def add_lora(model: PreTrainedModel, rank: int, alpha: float, targets: Sequence[str] = ()) -> list[nn.Parameter]:
    """Freeze the model, put ``LoRA`` around its linear layers (all but the last, or ``targets``), return A and B."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | Conv1D) and (
        name.split(".")[-1] in targets if targets else layer is not model.get_output_embeddings())}
    if not layers or any(isinstance(module, LoRA) for module in model.modules()):
        raise ValueError(f"The model has LoRA already, or no linear layer of targets={targets}: load it again, or look "
                         "at model.named_modules().")
    added = {name: LoRA(layer, rank, alpha) for name, layer in layers.items()}
    model.requires_grad_(False)
    for name, layer in added.items():
        model.set_submodule(name, layer)
    return [weight for layer in added.values() for weight in (layer.A, layer.B)]


@torch.no_grad()
def merge_lora(model: PreTrainedModel) -> None:
    """Add each ``B A`` to its matrix and take ``LoRA`` away, in place; the outputs stay, up to rounding."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRA):
            change = module.scale * (module.B @ module.A)
            module.layer.weight += change.T if isinstance(module.layer, Conv1D) else change
            model.set_submodule(name, module.layer)
