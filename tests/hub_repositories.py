"""Small repositories with the file names of the real ones, and content good enough for the notebooks."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import transformers
from hub_server import Repository

from llm_tutorial.checkpoints import HUB_CHECKPOINTS, load_gpt2_tokenizer
from llm_tutorial.corpus import COLUMNS, CONFIGURATION, REPOSITORY, REVISION, load_introductions, load_wikipedia
from llm_tutorial.sources import files

# The files beside those of a checkpoint; nobody may ask for them.
UNWANTED = dict.fromkeys(("README.md", "onnx/model.onnx", "pytorch_model.bin", "tf_model.h5"), b"not wanted")


def bert_base_uncased() -> Repository:
    """The bundled masked model under the name of the hub's: architecture and vocabulary are the same."""
    folder = files.data_folder() / "models" / "minilm-mlm"
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
    contents = {name: (folder / name).read_bytes() for name in names}
    return Repository.of(*HUB_CHECKPOINTS["masked"][:2], UNWANTED | contents)


def gpt2(folder: Path) -> Repository:
    """A two-layer GPT-2 with random weights, and with GPT-2's own tokenizer and positions."""
    tokenizer = load_gpt2_tokenizer()
    transformers.set_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_embd=64, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    model.eval().save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}', encoding="utf-8")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(files.data_folder() / "tokenizers" / "gpt2" / name, folder / name)
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    return Repository.of(*HUB_CHECKPOINTS["causal"][:2], UNWANTED | contents)


def wikipedia(folder: Path) -> Repository:
    """Two of the hub's 41 files: the hundred articles that are drawn from offline, and the introductions."""
    articles = pd.concat([split.to_pandas() for split in load_wikipedia(source="offline").values()])
    contents = {"README.md": f"---\nconfigs:\n- config_name: {CONFIGURATION}\n---\n".encode()}
    for number, rows in enumerate((articles, load_introductions().to_pandas())):
        rows[COLUMNS].to_parquet(folder / "part.parquet", row_group_size=1000, index=False)
        contents[f"{CONFIGURATION}/train-{number:05}-of-00041.parquet"] = (folder / "part.parquet").read_bytes()
    return Repository.of(REPOSITORY, REVISION, contents, "datasets")


def trusting_kernels(folder: Path, repositories: Iterable[Repository]) -> Path:
    """Return an ``IPYTHONDIR`` in which kernels accept the weights of these repositories instead of the published."""
    hashes = {repository.name: repository.files["model.safetensors"].sha256 for repository in repositories}
    startup = folder / "profile_default" / "startup" / "hashes.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(
        "from llm_tutorial import checkpoints\n"
        "for _name, (_repo, _revision, _) in checkpoints.HUB_CHECKPOINTS.items():\n"
        f"    checkpoints.HUB_CHECKPOINTS[_name] = (_repo, _revision, {hashes!r}[_repo])\n", encoding="utf-8")
    return folder
