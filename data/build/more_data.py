"""Train the same small GPT-2 on fifty articles and on ten thousand introductions, and keep figures and samples.

    python data/build/more_data.py

About a quarter of an hour on two free cores, up to half an hour on slow ones. If it was interrupted, the same command
goes on; a training that is finished is not repeated. Figures, losses and samples go to ``data/runs/more_data.json``,
the models stay in ``build/more-data``. With ``--steps 20 --folder DIR``, a trial: everything goes to DIR.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase, set_seed

from llm_tutorial.chunking import chunked_dataset, packed_dataset
from llm_tutorial.corpus import load_introductions, load_wikipedia, title_key
from llm_tutorial.decoding import greedy_decode, sample_decode
from llm_tutorial.device import pick_device
from llm_tutorial.evaluation import bigram_loss, recitation, uniform_loss, unigram_loss
from llm_tutorial.reporting import TrainingProgress, quiet
from llm_tutorial.sources.files import new_folder, replace_file
from llm_tutorial.training import (
    PRESETS,
    build_trainer,
    new_model,
    newest_checkpoint,
    preset_tokenizer,
    training_arguments,
)

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "python data/build/more_data.py"
# The bundled texts and the recipe for a CPU, wherever this runs.
ENVIRONMENT = {"LLM_TUTORIAL_SOURCE": "offline", "LLM_TUTORIAL_DEVICE": "cpu"}
SEED = 42
PRESET = {"fifty": PRESETS["cpu"], "introductions": replace(PRESETS["cpu"], epochs=6, stop_at=None)}
INTERVALS = {"fifty": {"eval_steps": 5}, "introductions": {"eval_steps": 100, "logging_steps": 50}}
DATA = {"fifty": "articles", "introductions": "introductions, validated with articles"}
EVERYDAY = ("Swimming at the beach is", "My grandmother was born in", "The best way to learn is to")
VALIDATION_PROMPTS, PROMPT_WORDS = 3, 12  # the beginnings of the first validation articles
NEW_TOKENS = 40
SAMPLING = {"temperature": 0.8, "top_k": 50}
RECITED_CHUNKS = 240  # as many as the fifty articles give
PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "numpy")

Rows = list[list[int]]


def chunks() -> tuple[PreTrainedTokenizerBase, dict[str, Rows], Rows, int]:
    """Return the tokenizer, the training chunks of both runs, the validation chunks, and how many texts are left out.

    Both runs share the tokenizer of the fifty articles and the validation chunks of fifty others. Introductions with
    the title of an article to validate with are left out.
    """
    articles = load_wikipedia(50, 50, SEED)
    tokenizer = preset_tokenizer("cpu", articles["train"]["text"])
    fifty = chunked_dataset(articles, tokenizer)
    held_out = {title_key(title) for title in articles["valid"]["title"]}
    introductions = load_introductions().shuffle(seed=SEED)
    others = introductions.filter(lambda title: title_key(title) not in held_out, input_columns="title")
    packed = packed_dataset(others, tokenizer)
    train = {"fifty": fifty["train"]["input_ids"][:], "introductions": packed["input_ids"][:]}
    for rows in train.values():  # filled up to whole batches from the beginning
        rows += rows[:-len(rows) % PRESETS["cpu"].batch]
    valid = fifty["valid"]["input_ids"][:]
    return tokenizer, train, valid[:len(valid) // 32 * 32], len(introductions) - len(others)


def train(
    run: str, tokenizer: PreTrainedTokenizerBase, rows: Rows, valid: Rows, folder: Path, steps: int | None
) -> dict[str, Any]:
    """Return the figures of a run; train, or go on training, where the folder does not hold them yet."""
    kept = folder / "model" / "figures.json"
    if kept.is_file():
        print(f"{kept} is there: not trained again", flush=True)
        return json.loads(kept.read_text(encoding="utf-8"))
    preset = replace(PRESET[run], max_steps=steps)
    # With labels, so that the model learns from the end-of-text tokens too.
    datasets = {split: Dataset.from_dict({"input_ids": ids, "labels": ids})
                for split, ids in (("train", rows), ("valid", valid))}
    arguments = training_arguments(preset, folder, seed=SEED, per_device_eval_batch_size=32, save_strategy="steps",
                                   save_steps=0.1, **INTERVALS[run])
    set_seed(SEED)
    progress = TrainingProgress(preset.batch * preset.context_length, live=False)
    trainer = build_trainer(new_model(preset, tokenizer), arguments, datasets, tokenizer, preset=preset,
                            callbacks=[progress])
    trainer.eval_dataset = datasets["valid"]  # all of it, not only 32 chunks
    print(f"training on {DATA[run]}", flush=True)
    checkpoint = newest_checkpoint(folder)
    first_step = 0 if checkpoint is None else int(checkpoint.rpartition("-")[2])
    trainer.train(resume_from_checkpoint=checkpoint)
    loss, history = trainer.evaluate()["eval_loss"], trainer.state.log_history[:-1]
    tokens = (trainer.state.global_step - first_step) * preset.batch * preset.context_length
    figures = {
        "preset": asdict(preset), "data": DATA[run], "seed": SEED, "training_chunks": len(rows),
        "validation_chunks": len(valid), "parameters": trainer.model.num_parameters(),
        "device": arguments.device.type, "precision": "bf16" if arguments.bf16 else "fp32",
        "first_step": first_step, "steps": trainer.state.global_step, "tokens": tokens, "seconds": progress.seconds,
        "tokens_per_second": tokens / progress.seconds,
        "losses": [{"step": entry["step"], "loss": entry["loss"]} for entry in history if "loss" in entry],
        "validation_losses": [{"step": entry["step"], "loss": entry["eval_loss"]} for entry in history
                              if "eval_loss" in entry],
        "validation_loss": loss,
    }
    with new_folder(folder / "model") as whole:
        trainer.model.save_pretrained(whole)
        (whole / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return figures


def prompts() -> list[dict[str, str]]:
    """Return the prompts that both models continue, each with the title of its article or the word "everyday"."""
    articles = load_wikipedia(50, 50, SEED)["valid"].select(range(VALIDATION_PROMPTS))
    unseen = [{"prompt": " ".join(row["text"].split()[:PROMPT_WORDS]), "from": row["title"]} for row in articles]
    return unseen + [{"prompt": text, "from": "everyday"} for text in EVERYDAY]


def continued(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> dict[str, str]:
    """Return how the model goes on, always with its best token and drawn with a fixed seed; up to the end of text."""
    drawn = sample_decode(model, tokenizer, prompt, NEW_TOKENS, **SAMPLING, generator=torch.Generator().manual_seed(0))
    begun = len(tokenizer(prompt)["input_ids"])
    return {way: tokenizer.decode(ids[0, begun:])
            for way, ids in (("greedy", greedy_decode(model, tokenizer, prompt, NEW_TOKENS)), ("sampled", drawn))}


def measured(model: GPT2LMHeadModel, figures: dict[str, Any], rows: Rows, valid: Rows, size: int) -> dict[str, Any]:
    """Return the figures of a run with the losses of counting baselines and the share of its text that is recited."""
    recited = recitation(model, rows[:RECITED_CHUNKS])
    losses = [*(point["loss"] for point in figures["validation_losses"]), figures["validation_loss"]]
    return figures | {
        "command": COMMAND,
        "passes": figures["steps"] * figures["preset"]["batch"] / len(rows),
        "best_validation_loss": min(losses),
        "baselines": {"uniform": uniform_loss(size), "unigram": unigram_loss(rows, valid, size),
                      "bigram": bigram_loss(rows, valid, size)},
        "recited": {"chunks": len(rows[:RECITED_CHUNKS]), "token_accuracy": recited.token_accuracy,
                    "exact_match": recited.exact_match},
    }


def validation_of(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the size of the shared validation chunks: predicted tokens, and the bytes that they stand for."""
    digest = hashlib.sha256()
    for row in rows:
        part = np.asarray(row, dtype="<i8").tobytes()
        digest.update(len(part).to_bytes(8, "little") + part)
    return {"chunks": len(rows), "tokens": sum(len(row) - 1 for row in rows),
            "bytes": sum(len(tokenizer.decode(row[1:]).encode()) for row in rows), "sha256": digest.hexdigest()}


def main() -> None:
    """Train both, and write the result whole."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, metavar="N", help="a trial: stop after N steps, and keep the result apart")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "more-data", metavar="DIR",
                        help="where the models are kept (default: build/more-data)")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    quiet()
    tokenizer, training_chunks, valid, left_out = chunks()
    print(f"{left_out} introductions left out, whose titles are among those to validate with; device "
          f"{pick_device().name} ({pick_device().reason})", flush=True)
    runs, samples = {}, prompts()
    for run, rows in training_chunks.items():
        figures = train(run, tokenizer, rows, valid, options.folder / run, options.steps)
        model = GPT2LMHeadModel.from_pretrained(options.folder / run / "model", dtype=torch.float32,
                                                use_safetensors=True).eval()
        runs[run] = measured(model, figures, rows, valid, len(tokenizer))
        print(f"continuing {len(samples)} prompts with the model of {run}", flush=True)
        samples = [sample | {run: continued(model, tokenizer, sample["prompt"])} for sample in samples]
    runs["introductions"]["left_out"] = left_out
    few, many = runs["fifty"], runs["introductions"]
    lower = {"last": few["validation_loss"] - many["validation_loss"],
             "best": few["best_validation_loss"] - many["best_validation_loss"],
             "last against best of fifty": few["best_validation_loss"] - many["validation_loss"]}
    result = {
        "validation": validation_of(valid, tokenizer), "lower_by": lower, "runs": runs,
        "sampling": SAMPLING | {"new_tokens": NEW_TOKENS, "seed": 0}, "samples": samples, "environment": {},
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name)
                                                              for name in PACKAGES},
        "threads": torch.get_num_threads(),
    }
    path = ROOT / "data" / "runs" / "more_data.json" if options.steps is None else options.folder / "more_data.json"
    replace_file(path, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    print(f"{path}: validation loss lower by {lower}", flush=True)


if __name__ == "__main__":
    main()
