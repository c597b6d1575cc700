"""Small repositories with the file names of the real ones, and content good enough for the notebooks' asserts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import torch
import transformers
from hub_server import Entry, Repository

from llm_tutorial import files
from llm_tutorial.checkpoints import _HUB_CHECKPOINTS, load_gpt2_tokenizer
from llm_tutorial.corpus import COLUMNS, CONFIGURATION, REPOSITORY, REVISION, _usable_articles, resolve_wikipedia

# What the repositories hold beside the files we want, as a listing of the real ones shows.
UNWANTED = {
    "masked": (".gitattributes", "LICENSE", "README.md", "coreml/fill-mask/float32_model.mlpackage/Manifest.json",
               "flax_model.msgpack", "model.onnx", "pytorch_model.bin", "rust_model.ot", "tf_model.h5"),
    "causal": (".gitattributes", "64-8bits.tflite", "64-fp16.tflite", "64.tflite", "README.md", "flax_model.msgpack",
               "onnx/config.json", "onnx/decoder_model.onnx", "pytorch_model.bin", "rust_model.ot", "tf_model.h5"),
}
# Notebook 2 measures these, so a model that knows nothing else passes its asserts.
KNOWN_SENTENCES = ("Swimming at the beach is a great way to cool off.", "The children play in the garden.",
                   "On a hot day in July, with the whole family in the car, Swimming at the beach is a great way.")


def bert_base_uncased() -> Repository:
    """The bundled masked model under the name of the hub's: the architecture and the vocabulary are the same."""
    folder = files.data_folder() / "models" / "minilm-mlm"
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
    return _repository("masked", {name: (folder / name).read_bytes() for name in names})


def gpt2(folder: Path) -> Repository:
    """A two-layer GPT-2 with GPT-2's own tokenizer and positions, which has learnt a few sentences by heart."""
    tokenizer = load_gpt2_tokenizer()
    transformers.set_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_embd=64, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    model.loss_type = "ForCausalLM"  # what it is; unset, the library says so on the console
    rows = [torch.tensor([tokenizer(sentence)["input_ids"]]) for sentence in KNOWN_SENTENCES]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(30):
        loss = sum(model(input_ids=ids, labels=ids).loss for ids in rows) / len(rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}', encoding="utf-8")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(files.data_folder() / "tokenizers" / "gpt2" / name, folder / name)
    return _repository("causal", {path.name: path.read_bytes() for path in folder.iterdir()})


def wikipedia(folder: Path) -> Repository:
    """The first of the hub's 41 files, with exactly the articles that are drawn from offline, and a second one."""
    articles = _usable_articles(resolve_wikipedia(source="offline"))[COLUMNS]
    introductions = pd.read_parquet(files.data_folder() / "wikipedia" / "intros.parquet")[COLUMNS]
    contents = {".gitattributes": b"", "README.md": b"---\nconfigs:\n- config_name: 20231101.en\n---\n"}
    for number, rows in enumerate((articles, introductions)):
        rows.to_parquet(folder / "part.parquet", row_group_size=1000, index=False)
        contents[f"{CONFIGURATION}/train-{number:05}-of-00041.parquet"] = (folder / "part.parquet").read_bytes()
    return Repository(REPOSITORY, REVISION, {path: Entry(path, content) for path, content in contents.items()},
                      "datasets")


def _repository(kind: str, contents: dict[str, bytes]) -> Repository:
    contents |= dict.fromkeys(UNWANTED[kind], b"not wanted here\n")
    return Repository(*_HUB_CHECKPOINTS[kind], {path: Entry(path, contents[path]) for path in sorted(contents)})
