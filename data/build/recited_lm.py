"""Train lesson 3's GPT-2 on its fifty articles and keep it as ``data/models/recited-gpt2``, for lesson 4.

    python data/build/recited_lm.py

Under a minute on two cores. The weights are stored in half precision; the script says what share of the chunks is
recited with them.
"""

from __future__ import annotations

import os
import shutil

import torch
from transformers import GPT2LMHeadModel, set_seed

from llm_tutorial import chunking, corpus, reporting, training
from llm_tutorial.evaluation import recited_share
from llm_tutorial.sources.files import data_folder

SEED = 42


def main() -> None:
    os.environ |= {"LLM_TUTORIAL_SOURCE": "offline", "LLM_TUTORIAL_DEVICE": "cpu"}
    reporting.quiet()
    articles = corpus.load_wikipedia(train=50, valid=50, seed=SEED)
    tokenizer = training.preset_tokenizer("cpu", articles["train"]["text"])
    chunks = chunking.chunked_dataset(articles, tokenizer)
    set_seed(SEED)
    trainer = training.build_trainer(
        training.new_model("cpu", tokenizer), training.training_arguments("cpu", "build/recited-lm"), chunks, tokenizer,
        preset="cpu")
    trainer.train()
    folder = data_folder() / "models" / "recited-gpt2"
    shutil.rmtree(folder, ignore_errors=True)
    trainer.model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    stored = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    print(f"{folder}: {recited_share(stored, chunks['train']['input_ids'][:]):.1%} of the chunks are recited")


if __name__ == "__main__":
    main()
