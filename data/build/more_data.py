"""Train the same small GPT-2 on fifty articles and on ten thousand introductions, and keep what came of it.

    python data/build/more_data.py

About a quarter of an hour on two cores that are free, up to half an hour where they are slower.  A run that was
interrupted goes on when the command is given again; one that is finished is not repeated.  The figures, losses and
samples go to ``data/runs/more_data.json``, the models stay in ``build/more-data/``.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

from llm_tutorial.baselines import bigram_loss, uniform_loss, unigram_loss
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.decoding import greedy_decode, sample_decode
from llm_tutorial.evaluation import recitation
from llm_tutorial.files import replace_file
from llm_tutorial.presets import Preset
from llm_tutorial.reporting import quiet
from llm_tutorial.splits import TrainingData, training_data

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "build/more-data"
RESULT = ROOT / "data" / "runs" / "more_data.json"
# The bundled texts and the recipe for a CPU, wherever this runs.
ENVIRONMENT = {"LLM_TUTORIAL_SOURCE": "offline", "LLM_TUTORIAL_DEVICE": "cpu"}
OPTIONS = {
    "fifty": "--preset cpu --validate-every 5 --validate-on-all",
    "introductions": f"--preset cpu --data introductions --validate-with articles --tokenizer {FOLDER}/fifty/model "
                     "--stop-at none --epochs 6 --log-every 50 --validate-every 100 --validate-on-all",
}
EVERYDAY = ("Swimming at the beach is", "My grandmother was born in", "The best way to learn is to")
VALIDATION_PROMPTS, PROMPT_WORDS = 3, 12  # the beginnings of the first validation articles
NEW_TOKENS = 40
SAMPLING = {"temperature": 0.8, "top_k": 50}
RECITED_CHUNKS = 240  # as many as the fifty articles give
PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "numpy")


def command(run: str) -> str:
    """Return the command of a run, as a reader types it in the repository's folder."""
    return f"llm-tutorial pretrain {OPTIONS[run]} --output-dir {FOLDER}/{run} --json {FOLDER}/{run}.json"


def train(run: str) -> dict[str, Any]:
    """Return the figures of a run; train, or go on training, where they are not there yet."""
    kept, beside = ROOT / FOLDER / f"{run}.json", ROOT / FOLDER / run / "model" / "figures.json"
    if not kept.is_file() and beside.is_file():  # the run was ended between the model and the file asked for
        kept = beside
    if kept.is_file():
        print(f"{kept.relative_to(ROOT).as_posix()} is there: not trained again", flush=True)
    else:
        print(command(run), flush=True)
        words = [sys.executable, "-m", "llm_tutorial", *command(run).split()[1:]]
        status = subprocess.run(words, cwd=ROOT, env=os.environ | ENVIRONMENT, check=False).returncode
        if status:
            sys.exit(f"The run {run!r} ended with status {status}, see above.")
    return json.loads(kept.read_text(encoding="utf-8"))


def chunks_of(run: str, trained: dict[str, Any]) -> TrainingData:
    """Return the chunks that a run was trained on and validated with."""
    shared = {"tokenizer": ROOT / FOLDER / "fifty" / "model", "seed": trained["seed"], "report": lambda _line: None}
    preset = Preset(**trained["preset"])
    if run == "fifty":
        return training_data("articles", preset, **shared)
    return training_data(run, preset, validate_with="articles", **shared)


def baselines(prepared: TrainingData) -> dict[str, float]:
    """Return the losses in nats per token, on the validation chunks, of counting in the training chunks."""
    train, valid = (prepared.datasets[split]["input_ids"][:] for split in ("train", "valid"))
    size = len(prepared.tokenizer)
    return {"uniform": uniform_loss(size), "unigram": unigram_loss(train, valid, size),
            "bigram": bigram_loss(train, valid, size)}


def prompts() -> list[dict[str, str]]:
    """Return what both models continue, with the title of the article or a word on where it comes from."""
    articles = load_wikipedia()["valid"].select(range(VALIDATION_PROMPTS))
    unseen = [{"prompt": " ".join(row["text"].split()[:PROMPT_WORDS]), "from": row["title"]} for row in articles]
    return unseen + [{"prompt": text, "from": "everyday"} for text in EVERYDAY]


def continued(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> dict[str, str]:
    """Return how the model goes on, always with its best token and drawn with a fixed seed; up to the end of text."""
    drawn = sample_decode(model, tokenizer, prompt, NEW_TOKENS, **SAMPLING, generator=torch.Generator().manual_seed(0))
    begun = len(tokenizer(prompt)["input_ids"])
    return {way: tokenizer.decode(ids[0, begun:])
            for way, ids in (("greedy", greedy_decode(model, tokenizer, prompt, NEW_TOKENS)), ("sampled", drawn))}


def figures_of(run: str, trained: dict[str, Any]) -> tuple[dict[str, Any], Sequence[dict[str, str]]]:
    """Return the figures to keep of a run, and its continuations of the prompts."""
    prepared = chunks_of(run, trained)
    model = GPT2LMHeadModel.from_pretrained(ROOT / trained["model"], dtype=torch.float32, use_safetensors=True).eval()
    chunks = prepared.datasets["train"]["input_ids"][:RECITED_CHUNKS]
    recited = recitation(model, chunks)
    curve = trained["validation_losses"]
    kept = {key: value for key, value in trained.items() if key not in {"model", "validation_sha256"}} | {
        "command": command(run),
        "passes": trained["steps"] * trained["preset"]["batch"] / trained["training_chunks"],
        "best_validation_loss": min([*(point["loss"] for point in curve), trained["validation_loss"]]),
        "baselines": baselines(prepared),
        "recited": {"chunks": len(chunks), "token_accuracy": recited.token_accuracy,
                    "exact_match": recited.exact_match},
    }
    return kept, [continued(model, prepared.tokenizer, one["prompt"]) for one in prompts()]


def validation_of(prepared: TrainingData, sha256: str) -> dict[str, Any]:
    """Return the size of what both runs are validated with: predicted tokens, and the bytes that they stand for."""
    rows = prepared.datasets["valid"]["input_ids"][:]
    return {"chunks": len(rows), "tokens": sum(len(row) - 1 for row in rows),
            "bytes": sum(len(prepared.tokenizer.decode(row[1:]).encode()) for row in rows), "sha256": sha256}


def main() -> None:
    """Train both, and write the result whole."""
    os.environ.update(ENVIRONMENT)
    quiet()
    trained = {run: train(run) for run in OPTIONS}
    hashes = {figures["validation_sha256"] for figures in trained.values()}
    if len(hashes) != 1:
        sys.exit(f"The runs were validated with different chunks ({', '.join(sorted(hashes))}): remove {FOLDER} and "
                 "begin again.")
    runs, samples = {}, prompts()
    for run, figures in trained.items():
        print(f"continuing {len(samples)} prompts with the model of {run}", flush=True)
        runs[run], texts = figures_of(run, figures)
        samples = [sample | {run: text} for sample, text in zip(samples, texts, strict=True)]
    few, many = runs["fifty"], runs["introductions"]
    lower = {"last": few["validation_loss"] - many["validation_loss"],
             "best": few["best_validation_loss"] - many["best_validation_loss"],
             "last against best of fifty": few["best_validation_loss"] - many["validation_loss"]}
    result = {
        "validation": validation_of(chunks_of("fifty", trained["fifty"]), hashes.pop()),
        "lower_by": lower, "runs": runs,
        "sampling": SAMPLING | {"new_tokens": NEW_TOKENS, "seed": 0}, "samples": samples, "environment": ENVIRONMENT,
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name)
                                                              for name in PACKAGES},
        "threads": torch.get_num_threads(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    replace_file(RESULT, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    print(f"{RESULT.relative_to(ROOT)}: validation loss lower by {lower}", flush=True)


if __name__ == "__main__":
    main()
