"""What the package and the notebooks ask of the libraries, and whether the installed ones have it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import tempfile
from collections.abc import Iterator
from typing import Any

from llm_tutorial.diagnostics.finding import Finding

__all__ = ["KEYWORDS", "LOADING_KEYWORDS", "keyword_findings", "loading_findings", "missing_keywords"]

# Every keyword that the package and the notebooks pass; a test compares this with their calls.
KEYWORDS: dict[str, tuple[str, ...]] = {
    "transformers.TrainingArguments": (
        "accelerator_config", "auto_find_batch_size", "bf16", "ddp_backend", "ddp_find_unused_parameters",
        "disable_tqdm", "eval_steps", "eval_strategy", "fp16", "learning_rate", "log_level_replica",
        "logging_nan_inf_filter", "logging_steps", "lr_scheduler_type", "max_steps", "num_train_epochs", "optim",
        "output_dir", "per_device_eval_batch_size", "per_device_train_batch_size", "report_to", "save_steps",
        "save_strategy", "save_total_limit", "seed", "tf32", "train_sampling_strategy", "use_cpu", "warmup_steps"),
    "transformers.Trainer": ("args", "callbacks", "compute_loss_func", "data_collator", "eval_dataset", "model",
                             "optimizers", "processing_class", "train_dataset"),
    "transformers.DataCollatorForLanguageModeling": ("mlm",),
    "transformers.GPT2Config": (
        "activation_function", "attn_implementation", "attn_pdrop", "bos_token_id", "embd_pdrop", "eos_token_id",
        "n_embd", "n_head", "n_layer", "n_positions", "pad_token_id", "resid_pdrop", "vocab_size"),
    "transformers.GPT2LMHeadModel.generate": (
        "attention_mask", "do_sample", "input_ids", "max_length", "max_new_tokens", "min_new_tokens", "num_beams",
        "pad_token_id", "streamer", "temperature", "top_k", "top_p", "use_cache"),
    "huggingface_hub.snapshot_download": ("allow_patterns", "cache_dir", "endpoint", "local_files_only", "repo_id",
                                          "revision", "token"),
    "huggingface_hub.HfApi.repo_info": ("repo_type", "revision", "timeout", "token"),
    "datasets.load_dataset": ("columns", "data_files", "split", "streaming", "token"),
    "datasets.Dataset.map": ("batch_size", "batched", "remove_columns"),
}
# What from_pretrained takes is in no signature: loading_findings() loads a model with these.  Left out is "gguf_file",
# which needs a file of that kind; llm-tutorial fetch reports what goes wrong with it.
LOADING_KEYWORDS = ("dtype", "output_loading_info", "trust_remote_code", "use_safetensors")

# Where a call hands its keywords on to.
_ALSO_TAKEN_BY = {
    "transformers.GPT2LMHeadModel.generate": ("transformers.GenerationConfig", "transformers.GPT2LMHeadModel.forward"),
    "datasets.load_dataset": ("datasets.packaged_modules.parquet.parquet.ParquetConfig",),
}


def missing_keywords(name: str, keywords: tuple[str, ...]) -> list[str]:
    """Return those of ``keywords`` that the installed class or function does not know.

    Args:
        name: its dotted name, such as ``"transformers.Trainer"``.

    Raises:
        ImportError: its library is not there.
        AttributeError: the library does not have it.
    """
    known = set().union(*(_taken(_resolved(one)) for one in (name, *_ALSO_TAKEN_BY.get(name, ()))))
    return [keyword for keyword in keywords if keyword not in known]


def keyword_findings() -> Iterator[Finding]:
    """Report each class or function that lacks a keyword, or is gone."""
    faults = 0
    for name, keywords in KEYWORDS.items():
        try:
            missing = missing_keywords(name, keywords)
        except AttributeError:
            trouble = "the installed version does not have it"
        else:
            trouble = f"the installed version has no {', '.join(missing)}" if missing else ""
        if trouble:
            faults += 1
            library = name.partition(".")[0]
            yield Finding("FAIL", name, trouble, f"python -m pip install --upgrade -c constraints.txt {library}")
    if not faults:
        count = sum(map(len, KEYWORDS.values()))
        yield Finding("ok", "interfaces", f"{count} keywords of {len(KEYWORDS)} calls are known to the libraries")


def loading_findings() -> Iterator[Finding]:
    """Save a model of a few numbers in half precision and load it in fp32, as the notebooks load theirs."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(vocab_size=8, n_positions=8, n_embd=4, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    # Windows cannot remove a file that is still mapped into memory.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float16, trust_remote_code=False)
        model.save_pretrained(folder)
        model, _ = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False, use_safetensors=True)
    if model.dtype == torch.float32:
        yield Finding("ok", "loading", "a model saved in half precision is loaded in fp32, from safetensors")
    else:
        yield Finding("FAIL", "loading", f"from_pretrained(dtype=torch.float32) gives a model in {model.dtype}",
                      "python -m pip install --upgrade -c constraints.txt transformers")


def _resolved(name: str) -> Any:
    """Return what a dotted name means: attributes of the longest part of it that is a module."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if length > 1 and f"{module}.".startswith(f"{error.name}."):  # a class has no modules in it
                continue
            raise
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ValueError(f"{name!r} names nothing in a module.")


def _taken(target: Any) -> set[str]:
    """Return the keywords of a configuration, a dataclass, or anything with a signature."""
    if hasattr(target, "attribute_map"):  # a model's configuration, which ignores keywords it does not know
        kept_apart = {"attn_implementation"} if hasattr(target, "_attn_implementation") else set()
        return set(target().to_dict()) | set(target.attribute_map) | kept_apart
    if dataclasses.is_dataclass(target):
        return {field.name for field in dataclasses.fields(target) if field.init}
    if inspect.isclass(target) and hasattr(target, "to_dict"):  # of generation
        return {name for name in vars(target()) if not name.startswith("_")}
    return {name for name, parameter in inspect.signature(target).parameters.items()
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)}
