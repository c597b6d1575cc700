"""Pretrained models: from the hub's cache, from the hub, or offline with smaller models in their place."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    GPT2Tokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llm_tutorial.sources import chosen_source, files, hub, offline

__all__ = ["HUB_CHECKPOINTS", "Checkpoint", "load_causal_lm", "load_gpt2_lm", "load_gpt2_tokenizer",
           "load_masked_lm", "resolve_checkpoint"]

# The repository, its commit, and the sha256 of its model.safetensors.
HUB_CHECKPOINTS = {
    "masked": ("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594",
               "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3"),
    "causal": ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e",
               "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"),
}
_BUNDLED = {"masked": "minilm-mlm", "gpt2": "recited-gpt2"}


@dataclass(frozen=True)
class Checkpoint:
    """Files that are ready to be loaded, and where they come from.

    Attributes:
        path: a local folder (of a dataset, a file).
        revision: the commit hash on the hub, or the sha256 of an offline source.
        source: ``"cache"``, ``"hub"`` or ``"offline"``, chosen for ``reason``.
    """

    path: Path
    revision: str
    source: str
    reason: str
    name: str


def resolve_checkpoint(name: str, *, source: str | None = None) -> Checkpoint:
    """Return the checkpoint ``name`` from the first source that has it.

    ``auto`` tries the hub's cache, then the hub, then the offline model; ``hub`` does without the offline model, and
    ``offline`` takes nothing else. By default ``LLM_TUTORIAL_SOURCE`` decides.

    Args:
        name: ``"masked"`` (BERT), ``"causal"`` (GPT-2, offline SmolLM2), ``"gpt2"`` (offline the small GPT-2 of lesson
            3), or a repository id, ``"owner/name"`` or ``"owner/name@commit"``, which has no offline model. Without a
            commit, the newest one is downloaded the first time, and that one is used from then on.
    """
    chosen, origin = chosen_source(source)
    if name not in ("masked", "causal", "gpt2"):
        return _resolve_repository(name, chosen, origin)
    repo, revision, sha256 = HUB_CHECKPOINTS["masked" if name == "masked" else "causal"]
    cached = None if chosen == "offline" else hub.cached_snapshot(repo, revision, sha256)
    if cached:
        return Checkpoint(cached, revision, "cache", "downloaded earlier", repo)
    wanted, reason = hub.use_hub(repo, revision, source=source)
    if wanted:
        return Checkpoint(hub.download_snapshot(repo, revision, sha256), revision, "hub", reason, repo)
    if name == "causal":
        folder = offline.fetched_causal_lm() or offline.fetch_causal_lm()
        return Checkpoint(folder, offline.REVISION, "offline", reason, "SmolLM2-135M-Instruct")
    folder = files.verified_folder(files.data_folder() / "models" / _BUNDLED[name])
    return Checkpoint(folder, files.listed_sha256(folder / "model.safetensors"), "offline", reason, folder.name)


def _resolve_repository(name: str, chosen: str, origin: str) -> Checkpoint:
    """Resolve a repository id of the reader's own, with the reader's token for the hub if there is one."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[0-9a-f]{40})?", name):
        raise ValueError(f"Unknown checkpoint {name!r}: use 'masked', 'causal', or a repository id such as "
                         "'distilbert/distilgpt2'.")
    if chosen == "offline":
        raise ValueError(f"{name!r} is not available offline ({origin}): use 'masked' or 'causal', "
                         "or set LLM_TUTORIAL_SOURCE=hub.")
    repo, _, revision = name.partition("@")
    cached = hub.cached_snapshot(repo, revision or "main")
    if cached:
        return Checkpoint(cached, cached.name, "cache", "downloaded earlier", repo)
    trouble = hub.why_unreachable(repo, revision or None, token=None)
    if trouble:
        raise ConnectionError(f"{repo} is not in the cache and the hub does not deliver it ({trouble}). "
                              "Check the name and the connection, or use 'masked' or 'causal'.")
    folder = hub.download_snapshot(repo, revision or "main", token=None)
    return Checkpoint(folder, folder.name, "hub", "the hub answered", repo)


def load_masked_lm(*, source: str | None = None) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Return the tokenizer and the masked language model, fp32, on the CPU, in evaluation mode."""
    return _load(resolve_checkpoint("masked", source=source).path, AutoModelForMaskedLM)


def load_causal_lm(*, source: str | None = None) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Return the tokenizer and the causal language model, fp32, on the CPU, in evaluation mode."""
    return _load(resolve_checkpoint("causal", source=source).path, AutoModelForCausalLM)


def load_gpt2_lm(*, source: str | None = None) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Return a tokenizer and a GPT-2 as ``load_causal_lm`` does, offline the small one of lesson 3's recipe."""
    return _load(resolve_checkpoint("gpt2", source=source).path, AutoModelForCausalLM)


def _load(folder: Path, auto_class: type) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    # Without dtype, the weights keep the type they are stored in, which is float16 for the offline causal model.
    model = auto_class.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    return tokenizer, model.eval()


def load_gpt2_tokenizer() -> PreTrainedTokenizerBase:
    """Return GPT-2's byte-level BPE tokenizer (50,257 entries) from the bundled files, which are OpenAI's."""
    folder = files.data_folder() / "tokenizers" / "gpt2"
    vocabulary, merges = (files.verified(folder / name).read_text(encoding="utf-8")
                          for name in ("vocab.json", "merges.txt"))
    # Not by from_pretrained(folder): the tokenizer, and those trained from it, would show a path of this computer.
    pairs = [tuple(line.split(" ")) for line in merges.rstrip("\n").split("\n")[1:]]  # the first line names a version
    return GPT2Tokenizer(vocab=json.loads(vocabulary), merges=pairs, model_max_length=1024)
