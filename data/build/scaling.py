"""Train five sizes of GPT-2 on three amounts of text, and a sixth, larger size, for a small scaling law.

    python data/build/scaling.py

About three minutes on two free cores. The texts are the bundled introductions in a fixed order, packed; each training
reads its tokens once, and a smaller amount is the beginning of a larger one. All validate with the same chunks of other
introductions, share a vocabulary of 1,024 entries, and have the CPU preset's optimizer and rates, with a batch of 8 in
fp32. State is kept in ``build/levers``, so an interrupted run goes on; the result is ``data/runs/scaling.json``.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from dataclasses import asdict, replace

import torch
from levers import ROOT, fresh, keep, kept, steps_of
from transformers import PreTrainedTokenizerBase

from llm_tutorial.chunking import pack_tokens
from llm_tutorial.corpus import load_introductions
from llm_tutorial.reporting import quiet
from llm_tutorial.sources.files import replace_file
from llm_tutorial.training import PRESETS, Preset, preset_tokenizer

WIDTHS, SIXTH, TOKENS = (32, 48, 64, 96, 128), 192, (50_000, 150_000, 500_000)
SEED, VALIDATION_CHUNKS, BATCH, VOCABULARY, HEAD = 42, 128, 8, 1024, 16


def preset_of(width: int) -> Preset:
    """Return the recipe of this width: two layers, heads of 16."""
    return replace(PRESETS["cpu"], name=f"width {width}", width=width, heads=width // HEAD, batch=BATCH,
                   vocabulary=VOCABULARY, epochs=1, stop_at=None)


def chunks() -> tuple[PreTrainedTokenizerBase, torch.Tensor, torch.Tensor, float]:
    """Return the tokenizer, training and validation chunks, and the bytes that a validation token stands for."""
    texts = load_introductions().shuffle(seed=SEED)["text"][:]
    tokenizer = preset_tokenizer(preset_of(SIXTH), texts)
    documents = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    rows = torch.tensor(list(pack_tokens(documents, tokenizer.eos_token_id, 128)))
    valid, train = rows[-VALIDATION_CHUNKS:], rows[:-VALIDATION_CHUNKS - 128]  # the gap: no document in both
    size = sum(len(tokenizer.decode(row[1:]).encode()) for row in valid)
    return tokenizer, train, valid, size / valid[:, 1:].numel()


@torch.no_grad()
def loss_on(model: torch.nn.Module, rows: torch.Tensor) -> float:
    """Return the mean loss over all predicted tokens."""
    model.eval()
    return statistics.fmean(torch.nn.functional.cross_entropy(
        model(input_ids=batch).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()).item() for batch in rows.split(16))


def main() -> None:
    """Train what is missing, and write the result."""
    os.environ.update({"LLM_TUTORIAL_SOURCE": "offline", "LLM_TUTORIAL_DEVICE": "cpu"})
    quiet()
    tokenizer, train, valid, bytes_per_token = chunks()
    print(f"{train.numel():,} tokens to train on", flush=True)
    runs = kept("scaling")
    for width in (*WIDTHS, SIXTH):
        for tokens in TOKENS if width != SIXTH else TOKENS[-1:]:
            key, preset = f"{width} / {tokens}", preset_of(width)
            if key in runs:
                continue
            steps = round(tokens / preset.context_length / BATCH)
            model, began = fresh(preset, tokenizer, SEED), time.process_time()
            losses = list(steps_of(model, preset, iter(train[:steps * BATCH].split(BATCH)), steps, bf16=False))
            runs[key] = {
                "width": width, "layers": preset.layers, "parameters": model.num_parameters(),
                "tokens": steps * BATCH * preset.context_length, "steps": steps,
                "training_loss": round(statistics.fmean(losses[-20:]), 4),
                "validation_loss": round(loss_on(model, valid), 4),
            }
            keep("scaling", runs)
            print(f"{time.strftime('%H:%M:%S')} {runs[key]}, {time.process_time() - began:.0f} s of a processor",
                  flush=True)
    sixth = [run for run in runs.values() if run["width"] == SIXTH]
    result = {
        "command": "python data/build/scaling.py", "preset": asdict(preset_of(SIXTH)), "seed": SEED,
        "validation": {"chunks": len(valid), "bytes_per_token": round(bytes_per_token, 4)},
        "runs": [run for run in runs.values() if run["width"] != SIXTH], "sixth": sixth[0],
        "versions": {"python": platform.python_version()} | {
            name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers", "datasets")},
    }
    replace_file(ROOT / "data" / "runs" / "scaling.json", (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
