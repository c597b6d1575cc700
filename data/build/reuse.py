"""Measure what pre-training is worth: topics from few labels, and answers learned with LoRA and with all weights.

    python data/build/reuse.py labels    # the pre-trained and the random encoder, and counted words
    python data/build/reuse.py answers   # 200 pairs for the offline causal model; needs ``llm-tutorial fetch``

About ten and twenty minutes of one core. State is kept in ``build/levers``, so an interrupted run goes on; the result
is ``data/runs/reuse.json``. Nothing that is judged was trained on: topics are judged on introductions that the offline
masked model was not trained on, and answers on other titles. Learning rates of the encoders are chosen on a third set.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence

import pandas as pd
import torch
from levers import ROOT, keep, kept
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from llm_tutorial.checkpoints import load_causal_lm, load_masked_lm
from llm_tutorial.corpus import load_introductions, load_wikipedia
from llm_tutorial.finetuning import add_lora, chat_dataset, class_numbers, padded_batch
from llm_tutorial.reporting import quiet
from llm_tutorial.sources.files import replace_file

TOPICS = ("Arts", "Biology and health sciences", "Geography", "People", "Physical sciences", "Technology")
LABELS, SEEDS, LENGTH, BATCH, STEPS, LONGER = (50, 200, 1000), (0, 1, 2), 24, 16, 40, 160
RATES = (3e-4, 1e-3)
PAIRS, HELD_OUT, ARTICLES, ARTICLE_TOKENS = 200, 50, 16, 128
ANSWER_STEPS, ANSWER_BATCH, RANK, ALPHA = 100, 4, 8, 16
ANSWER_RATES = {"LoRA": (1e-3, 3e-3), "all weights": (1e-4, 3e-5)}
ASKED = ("What is a telescope?", "What is Lake Victoria?", "Tell me a story about a cat.",
         "What is the capital of France?")


def held_out(title: str) -> bool:
    """Whether the offline masked model was not trained on the introduction (as in ``masked_lm_corpus.py``)."""
    return hashlib.sha256(title.strip().casefold().encode()).digest()[0] * 20 < 256


class Classifier(torch.nn.Module):
    """An encoder, the mean over the tokens of a text, and a linear layer with one output per class."""

    def __init__(self, encoder: PreTrainedModel, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, torch.nn.Linear(encoder.config.hidden_size, classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (texts, classes)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        real = attention_mask[:, :, None]
        return self.head((hidden * real).sum(1) / real.sum(1))


def cut(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the first tokens of the texts as one padded batch."""
    batch = tokenizer(list(texts), truncation=True, max_length=LENGTH, padding="max_length", return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def accuracy(model: Classifier, batch: dict[str, torch.Tensor], classes: torch.Tensor) -> float:
    """Return the share of texts with the right class."""
    model.eval()
    with torch.no_grad():
        best = torch.cat([model(*rows).argmax(-1) for rows in zip(
            batch["input_ids"].split(64), batch["attention_mask"].split(64), strict=True)])
    return (best == classes).float().mean().item()


def classifier(pretrained: bool, rate: float, seed: int, steps: int, batch: dict[str, torch.Tensor],
               classes: torch.Tensor) -> Classifier:
    """Train a classifier from pre-trained or from random weights on the rows of the batch."""
    set_seed(seed)
    encoder = load_masked_lm()[1].base_model
    if not pretrained:
        encoder = AutoModel.from_config(encoder.config, add_pooling_layer=False, trust_remote_code=False)
    model = Classifier(encoder, len(TOPICS)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    order = torch.cat([torch.randperm(len(classes)) for _ in range(steps * BATCH // len(classes) + 1)])
    for rows in order[:steps * BATCH].split(BATCH):
        logits = model(batch["input_ids"][rows], batch["attention_mask"][rows])
        torch.nn.functional.cross_entropy(logits, classes[rows]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model


def counted(tokenizer: PreTrainedTokenizerBase, train: dict[str, torch.Tensor], classes: torch.Tensor,
            test: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the classes that naive Bayes finds from counted tokens, each counted once more than it occurs."""
    def counts(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        empty = torch.zeros(len(batch["input_ids"]), len(tokenizer))
        return empty.scatter_add_(1, batch["input_ids"], batch["attention_mask"].float())
    seen, of_class = counts(train), torch.nn.functional.one_hot(classes, len(TOPICS)).float()
    per_class = of_class.T @ seen + 1
    prior = (of_class.sum(0) + 1).log()
    return (counts(test) @ (per_class / per_class.sum(1, keepdim=True)).log().T + prior).argmax(-1)


def labels() -> None:
    """Train all classifiers that are missing."""
    tokenizer, _ = load_masked_lm()
    table = load_introductions().to_pandas()
    table = table[table["topic"].isin(TOPICS)]
    outside = table["title"].map(held_out)
    rest = table[~outside].sample(frac=1, random_state=0)
    tests = {"test": table[outside], "choice": rest[:200]}
    pool = rest[200:]
    batches = {name: (cut(tokenizer, rows["text"]), class_numbers(rows["topic"], TOPICS))
               for name, rows in tests.items()}
    state = kept("reuse-labels")
    state["texts"] = {"test": len(tests["test"]), "choice": 200, "pool": len(pool)}

    def measure(key: str, pretrained: bool, rate: float, count: int, seed: int, steps: int, test: str) -> None:
        if key in state:
            return
        drawn = pool.sample(frac=1, random_state=seed)[:count]
        batch, classes = cut(tokenizer, drawn["text"]), class_numbers(drawn["topic"], TOPICS)
        began, some = time.process_time(), {name: part[:50] for name, part in batch.items()}
        model = classifier(pretrained, rate, seed, steps, batch, classes)
        state[key] = {"accuracy": round(accuracy(model, *batches[test]), 4), "rate": rate,
                      "training": round(accuracy(model, some, classes[:50]), 4),
                      "processor_seconds": round(time.process_time() - began, 1)}
        keep("reuse-labels", state)
        print(time.strftime("%H:%M:%S"), key, state[key], flush=True)

    names = {"pre-trained": True, "random": False}
    for name, pretrained in names.items():
        for rate in RATES:
            measure(f"choice / {name} / {rate:g}", pretrained, rate, 200, 100, STEPS, "choice")
    best = {name: max(RATES, key=lambda rate, name=name: state[f"choice / {name} / {rate:g}"]["accuracy"])
            for name in names}
    state["rates"] = best
    for seed in SEEDS:
        for count in LABELS:
            for name, pretrained in names.items():
                measure(f"{name} / {count} / {seed}", pretrained, best[name], count, seed, STEPS, "test")
            drawn = pool.sample(frac=1, random_state=seed)[:count]
            found = counted(tokenizer, cut(tokenizer, drawn["text"]), class_numbers(drawn["topic"], TOPICS),
                            batches["test"][0])
            share = (found == batches["test"][1]).float().mean().item()
            state[f"counted words / {count} / {seed}"] = {"accuracy": round(share, 4)}
    measure("random, longer / 1000 / 0", False, best["random"], 1000, 0, LONGER, "test")
    keep("reuse-labels", state)


def question_pairs() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return pairs to train on and others: what is it, and its short description."""
    table = load_introductions().to_pandas()
    short = table["description"].str.split().str.len().between(3, 10)
    table = table[short & ~table["topic"].isin(["People", "Uncategorized"])].sample(frac=1, random_state=0)
    pairs = [(f"What is {title}?", f"{description}.")
             for title, description in zip(table["title"], table["description"], strict=True)]
    return pairs[:PAIRS], pairs[PAIRS:PAIRS + HELD_OUT]


@torch.no_grad()
def answer_loss(model: PreTrainedModel, rows: Sequence[dict], padding: int) -> float:
    """Return the mean loss over the tokens of all answers."""
    model.eval()
    total = count = 0
    for start in range(0, len(rows), 10):
        batch = padded_batch(rows[start:start + 10], padding)
        tokens = (batch["labels"][:, 1:] != -100).sum().item()
        total, count = total + model(**batch).loss.item() * tokens, count + tokens
    return total / count


@torch.no_grad()
def article_loss(model: PreTrainedModel, chunks: torch.Tensor) -> float:
    """Return the mean loss over the tokens of the beginnings of articles."""
    model.eval()
    return statistics.fmean(model(input_ids=part, labels=part).loss.item() for part in chunks.split(8))


def answers_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return greedy answers to the fixed questions."""
    model.eval()
    found = {}
    for question in ASKED:
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False,
                                               add_generation_prompt=True)
        inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=30, do_sample=False)[0, inputs["input_ids"].shape[1]:]
        found[question] = tokenizer.decode(ids, skip_special_tokens=True)
    return found


def answers() -> None:
    """Train on the pairs with LoRA and with all weights, at two rates each."""
    train_pairs, test_pairs = question_pairs()
    articles = load_wikipedia(50, 50, 42)["valid"]["text"][:ARTICLES]
    state = kept("reuse-answers")
    queue = [("before", None, None)] + [
        (f"{name} / {rate:g}", name, rate) for index in (0, 1)
        for name, rates in ANSWER_RATES.items() for rate in [rates[index]]]
    for key, name, rate in queue:
        if key in state:
            continue
        began = time.process_time()
        tokenizer, model = load_causal_lm()
        padding = tokenizer.pad_token_id
        train, test = (list(chat_dataset(tokenizer, pairs)) for pairs in (train_pairs, test_pairs))
        chunks = torch.tensor([tokenizer(text)["input_ids"][:ARTICLE_TOKENS] for text in articles
                               if len(tokenizer(text)["input_ids"]) >= ARTICLE_TOKENS])
        set_seed(0)
        weights, losses, curve = [], [], []
        if name:
            weights = add_lora(model, RANK, ALPHA) if name == "LoRA" else list(model.parameters())
            optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0, fused=True)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=ANSWER_STEPS)
            order = torch.cat([torch.randperm(PAIRS) for _ in range(ANSWER_STEPS * ANSWER_BATCH // PAIRS + 1)])
            for step, picked in enumerate(order[:ANSWER_STEPS * ANSWER_BATCH].split(ANSWER_BATCH), 1):
                model.train()
                loss = model(**padded_batch([train[i] for i in picked.tolist()], padding)).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                losses.append(round(loss.item(), 4))
                if step % 50 == 0:
                    curve.append([step, round(answer_loss(model, test[:20], padding), 4)])
                    print(time.strftime("%H:%M:%S"), key, step, curve[-1], flush=True)
        state[key] = {
            "method": name, "rate": rate, "trained_weights": sum(weight.numel() for weight in weights),
            "training_losses": losses, "held_out_curve": curve,
            "training_loss": round(answer_loss(model, train[:40], padding), 4),
            "held_out_loss": round(answer_loss(model, test, padding), 4),
            "article_loss": round(article_loss(model, chunks), 4), "answers": answers_of(model, tokenizer),
            "processor_seconds": round(time.process_time() - began),
        }
        keep("reuse-answers", state)
        print(time.strftime("%H:%M:%S"), key, json.dumps(state[key], indent=1), flush=True)


def write() -> None:
    """Write the result of what is there."""
    first, second = kept("reuse-labels"), kept("reuse-answers")
    grid = [{"weights": name, "labels": int(count), "seed": int(seed), **values}
            for key, values in first.items() if key.count(" / ") == 2 and not key.startswith("choice")
            for name, count, seed in [key.split(" / ")]]
    choice = [{"weights": name, "rate": float(rate), "accuracy": values["accuracy"]}
              for key, values in first.items() if key.startswith("choice")
              for _, name, rate in [key.split(" / ")]]
    result = {
        "command": "python data/build/reuse.py labels, then answers", "device": "cpu", "precision": "fp32",
        "labels": {"topics": TOPICS, "tokens": LENGTH, "batch": BATCH, "steps": STEPS, "longer_steps": LONGER,
                   "rates": first.get("rates"), "texts": first.get("texts"), "choice": choice, "runs": grid},
        "answers": {"pairs": PAIRS, "held_out": HELD_OUT, "steps": ANSWER_STEPS, "batch": ANSWER_BATCH, "rank": RANK,
                    "alpha": ALPHA, "articles": ARTICLES, "article_tokens": ARTICLE_TOKENS,
                    "before": second.get("before"),
                    "runs": [run for key, run in second.items() if key != "before"]},
        "versions": {"python": platform.python_version(), "processor": platform.machine()} | {
            name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers", "datasets")},
    }
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    replace_file(ROOT / "data" / "runs" / "reuse.json", text.encode())
    table = pd.DataFrame(grid)
    if len(table):
        print(table.groupby(["weights", "labels"])["accuracy"].agg(["mean", "std", "count"]))


def main() -> None:
    """Run a part, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=["labels", "answers", "write"])
    part = parser.parse_args().part
    os.environ.update({"LLM_TUTORIAL_SOURCE": "offline", "LLM_TUTORIAL_DEVICE": "cpu"})
    quiet()
    if part != "write":
        {"labels": labels, "answers": answers}[part]()
    write()


if __name__ == "__main__":
    main()
