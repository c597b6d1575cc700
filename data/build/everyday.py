"""Let the offline causal language model write everyday English, ``data/build/everyday.parquet``, for the masked one.

The Wikipedia texts hardly contain what people say to each other or do at home.  SmolLM2-135M-Instruct writes short
stories, conversations, diary entries, letters and the like, each prompt being a form, a subject and somebody whom the
text is about, drawn at random.

    python data/build/everyday.py            # goes on where it was interrupted

Each batch is drawn with a seed of its own, so an interrupted run ends with the texts of an uninterrupted one.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import time
from pathlib import Path

import pandas as pd
import torch
from transformers import DynamicCache

from llm_tutorial.checkpoints import load_causal_lm

ROOT = Path(__file__).resolve().parents[2]
BATCH = 96
NEW_TOKENS = 140
TEMPERATURE = 0.6
TOP_K = 40
END = "<|im_end|>"

FORMS = (
    "Write a short story for children about {subject}. It is about {person}.",
    "Write a short story for adults about {subject}. It is about {person}.",
    "Write a conversation about {subject} between {person} and somebody else.",
    "Write a diary entry about {subject}, by {person}.",
    "Write a letter to a friend about {subject}, by {person}.",
    "Tell what happened to {person} yesterday. It has to do with {subject}.",
    "Describe a scene with {subject} and {person} in plain words.",
    "{person} has a problem with {subject}. Tell how it is solved.",
    "Write a message from {person} to the family about {subject}.",
    "Write the beginning of a novel about {subject} and {person}.",
    "Explain {subject} to a child in simple sentences, as {person} would do it.",
    "What does {person} think about {subject}? Answer in the first person.",
)
PERSONS = (
    "a boy", "a girl", "two brothers", "two sisters", "a mother", "a father", "a grandmother", "an old man",
    "a young woman", "a young man", "a teacher", "a nurse", "a farmer", "a driver", "a shopkeeper", "a cook",
    "a neighbour", "a family", "a student", "a class at school", "a policeman", "a doctor", "a group of friends",
    "a tired worker", "a traveller", "a child who is ill", "a married couple", "an aunt", "a painter", "a sailor",
)
SUBJECTS = (
    "breakfast", "cooking dinner", "a picnic", "baking", "a restaurant", "vegetables", "a market", "a shop", "prices",
    "a lost purse", "a present", "a birthday", "a wedding", "a holiday", "a long journey", "a train", "a bus", "a car",
    "a bicycle", "an aeroplane", "a boat", "a map", "a hotel", "a suitcase", "rain", "snow", "wind", "a hot summer",
    "the winter", "spring", "autumn", "the night sky", "the moon", "a storm", "a river", "the sea", "a mountain",
    "a forest", "a garden", "flowers", "a farm", "a horse", "a cow", "a dog", "a cat", "birds", "fish", "insects",
    "a zoo", "a bear", "school", "homework", "an exam", "a book", "reading", "writing", "drawing", "numbers", "music",
    "a song", "a guitar", "dancing", "a film", "a game", "football", "swimming", "running", "winning and losing",
    "a toy", "a puzzle", "friends", "a quarrel", "a secret", "a promise", "a lie", "a mistake", "a joke", "fear",
    "anger", "love", "courage", "being alone", "sleep", "a dream", "getting up early", "being late", "a clock",
    "a week of work", "a new job", "an office", "a factory", "money", "a bank", "a letter", "the telephone",
    "a computer", "a broken machine", "tools", "building a house", "a kitchen", "a bedroom", "a window", "a door",
    "a key", "a chair and a table", "a lamp", "a fire", "cleaning", "washing clothes", "a coat", "shoes", "a dress",
    "hair", "the body", "a cold", "a hospital", "a dentist", "medicine", "an accident", "old age", "a baby", "growing",
    "parents", "grandparents", "a neighbour's help", "a village", "a big city", "traffic", "a bridge", "a park",
    "a church", "a library", "a museum", "the police", "a thief", "a king", "a magic stone", "a treasure", "a ghost",
    "a war that is over", "a vote", "a meeting", "a question", "an idea", "colours", "sounds", "smells", "time",
    "yesterday", "tomorrow", "the news", "a newspaper", "a photograph", "a bottle", "bread", "milk", "sugar",
    "an apple tree", "a walk", "a queue", "a party",
)  # fmt: skip


def prompts(batch: int) -> list[str]:
    """Return the prompts of the batch of this number, the same in every run."""
    draw = random.Random(batch)
    texts = [draw.choice(FORMS).format(subject=draw.choice(SUBJECTS), person=draw.choice(PERSONS))
             for _ in range(BATCH)]
    return [text[0].upper() + text[1:] for text in texts]


def plain(text: str) -> str:
    """Return whole sentences of running text: no headings, list marks or emphasis, nothing cut off at the end."""
    lines = [re.sub(r"^\s*(?:[-*#>]+|\d+[.)])\s*", "", line).replace("*", "").strip() for line in text.splitlines()]
    text = " ".join(line for line in lines if line.endswith((".", "!", "?", '"', "”", ",", ";")))
    end = max(text.rfind(mark) for mark in ".!?")
    return text[: end + 1] + ('"' if text[end + 1 : end + 2] == '"' else "")


@torch.inference_mode()
def write(model, tokenizer, batch: int) -> list[str]:
    """Return the texts that the model writes to the prompts of this batch.

    ``generate`` draws from the whole vocabulary, which takes a third of its time; here it is the best few tokens.
    """
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts(batch)]
    inputs = tokenizer.apply_chat_template(chats, add_generation_prompt=True, padding=True, return_tensors="pt",
                                           return_dict=True)
    ids, mask, cache = inputs["input_ids"], inputs["attention_mask"], DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    generator = torch.Generator().manual_seed(batch)
    written = []
    for _ in range(NEW_TOKENS):
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache,
                       logits_to_keep=1).logits[:, -1].float()
        values, indices = logits.topk(TOP_K)
        choice = torch.multinomial((values / TEMPERATURE).softmax(-1), 1, generator=generator)
        ids = indices.gather(1, choice)
        written.append(ids)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        positions = positions[:, -1:] + 1
    texts = tokenizer.batch_decode(torch.cat(written, dim=1))
    return [plain(text.partition(END)[0]) for text in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=200_000, help="stop at this many tokens of the causal model")
    parser.add_argument("--output", type=Path, default=ROOT / "data/build/everyday.parquet")
    arguments = parser.parse_args()
    output = arguments.output
    output.parent.mkdir(parents=True, exist_ok=True)
    tokenizer, model = load_causal_lm(source="offline")
    model = model.to(torch.bfloat16)
    tokenizer.padding_side = "left"
    rows = pd.read_parquet(output).to_dict("records") if output.exists() else []
    began, before = time.perf_counter(), sum(row["tokens"] for row in rows)
    while (total := sum(row["tokens"] for row in rows)) < arguments.tokens:
        batch = 1 + max((row["batch"] for row in rows), default=-1)
        texts = write(model, tokenizer, batch)
        rows += [{"batch": batch, "prompt": prompt, "text": text,
                  "tokens": len(tokenizer(text, add_special_tokens=False)["input_ids"])}
                 for prompt, text in zip(prompts(batch), texts, strict=True)]
        partial = output.with_suffix(".partial")
        pd.DataFrame(rows).to_parquet(partial, index=False)
        os.replace(partial, output)
        now = sum(row["tokens"] for row in rows)
        print(f"batch {batch}: {now:,} tokens, {(now - before) / (time.perf_counter() - began):.0f} a second",
              flush=True)
    print(f"{len(rows):,} texts of {total:,} tokens in {output}")


if __name__ == "__main__":
    main()
