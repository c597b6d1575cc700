"""Models and articles from a hub: the real client libraries, in processes of their own, against ``hub_server``.

The libraries read their environment when they are imported, so every scenario is a script run by a fresh interpreter.
It prints one JSON object; the assertions are made here.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from http.client import IncompleteRead
from pathlib import Path
from urllib.request import Request, urlopen

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers
from hub_server import HubServer, Repository

import llm_tutorial
from llm_tutorial import files
from llm_tutorial.checkpoints import _HUB_CHECKPOINTS, load_gpt2_tokenizer
from llm_tutorial.corpus import _STREAMED_ROWS, REPOSITORY, REVISION

OWN, OWN_COMMIT = "someone/tiny-bert", "a" * 40
SHIPPED = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
           "special_tokens_map.json", "vocab.json", "vocab.txt", "merges.txt"}  # fmt: skip
PREAMBLE = """
import json, sys, time
from urllib.request import urlopen
from llm_tutorial import checkpoints, files, hub
from llm_tutorial.checkpoints import load_causal_lm, load_masked_lm, resolve_checkpoint
from huggingface_hub import constants

def fault(name, file=""):
    urlopen(f"{constants.ENDPOINT}/-/fault/{name}?file={file}", timeout=5).read()
    hub.forget_answers()

def attempt(function, *arguments, **options):
    started = time.monotonic()
    try:
        value = function(*arguments, **options)
    except Exception as error:
        facts = {"error": type(error).__name__, "text": str(error), "kinds": [t.__name__ for t in type(error).__mro__]}
    else:
        facts = {"source": value.source, "reason": value.reason, "path": str(value.path), "revision": value.revision,
                 "name": value.name} if isinstance(value, checkpoints.Checkpoint) else {"value": value}
    return facts | {"seconds": time.monotonic() - started}
"""


def write_bert(folder: Path) -> None:
    """Write the files of ``bert-base-uncased`` with a vocabulary of letters and a few words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "life", "is", "like", "a", "of", "chocolate", "box"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = list(dict.fromkeys([*words, *letters, *(f"##{letter}" for letter in letters)]))
    tokenizer = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)})
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    settings = {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    transformers.BertForMaskedLM(config).save_pretrained(folder)


def write_gpt2(folder: Path) -> None:
    """Write the files of ``gpt2`` with its real tokenizer and a tiny model."""
    tokenizer = load_gpt2_tokenizer()
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    bundled = files.data_folder() / "tokenizers" / "gpt2"
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(bundled / name, folder / name)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}', encoding="utf-8")
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=64)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)


def write_other_formats(folder: Path) -> None:
    """Add what the real repositories also hold and nobody here needs."""
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n", encoding="utf-8")
    (folder / ".gitattributes").write_text("*.bin filter=lfs\n", encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(os.urandom(100_000))
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}", encoding="utf-8")


def write_wikipedia(folder: Path) -> None:
    """Write two parquet files laid out as on the hub; the first begins with small row groups and then is large."""
    letters = random.Random(0)

    def rows(first: int, count: int, characters: int) -> pa.Table:
        numbers = range(first, first + count)
        return pa.table({
            "id": [str(number) for number in numbers],
            "url": [f"https://en.wikipedia.org/wiki/Article_{number}" for number in numbers],
            "title": [f"Article {number}" for number in numbers],
            "text": [f"Article {number}. {letters.randbytes(characters // 2).hex()}" for number in numbers],
        })  # fmt: skip

    (folder / "20231101.en").mkdir(parents=True)
    for number in range(2):
        first = rows(number * 10_000, _STREAMED_ROWS, 1000)
        path = folder / "20231101.en" / f"train-{number:05}-of-00002.parquet"
        with pq.ParquetWriter(path, first.schema) as writer:
            writer.write_table(first, row_group_size=300)
            for group in range(4):
                writer.write_table(rows(number * 10_000 + 1000 * (group + 1), 100, 60_000))
    configs = "configs:\n- config_name: 20231101.en\n  data_files:\n  - split: train\n    path: 20231101.en/train-*\n"
    (folder / "README.md").write_text(f"---\nlanguage:\n- en\n{configs}---\n# Wikipedia\n", encoding="utf-8")


@pytest.fixture(scope="session")
def repositories(tmp_path_factory) -> list[Repository]:
    transformers.set_seed(0)
    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("hub")
    built = []
    for name, write in (("masked", write_bert), ("causal", write_gpt2)):
        (folder / name).mkdir()
        write(folder / name)
        write_other_formats(folder / name)
        built.append(Repository.of_folder(*_HUB_CHECKPOINTS[name], folder / name))
    built.append(Repository(OWN, OWN_COMMIT, built[0].files))
    write_wikipedia(folder / "wikipedia")
    built.append(Repository.of_folder(REPOSITORY, REVISION, folder / "wikipedia", "datasets"))
    return built


@pytest.fixture
def server(repositories):
    with HubServer(repositories) as server:
        yield server
    assert server.unknown == []


@pytest.fixture
def run(server, tmp_path):
    """Return a function that runs a script against the server and returns what it printed; the caches stay."""

    def run(script: str, *, source: str = "hub", timeout: float = 300, **environment: str) -> dict:
        foreign = ("HF_", "HUGGING", "LLM_TUTORIAL_", "TRANSFORMERS_", "DATASETS_")
        inherited = {name: value for name, value in os.environ.items()
                     if not name.startswith(foreign) and not name.lower().endswith("_proxy")}
        settings = {
            "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "LLM_TUTORIAL_SOURCE": source, "PYTHONPATH": str(Path(llm_tutorial.__file__).parents[1]),
            "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(script)], env=inherited | settings | environment,
            cwd=tmp_path, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1]) | {"stderr": done.stderr}

    return run


def requested(server: HubServer) -> set[str]:
    """Return the names of the files of which content was sent; large files are known by their hash."""
    names = {entry.sha256: entry.path for repository in server.repositories.values()
             for entry in repository.files.values() if entry.large}
    paths = [answer.path.rpartition("/")[2] for answer in server.answers
             if answer.sent and ("/resolve/" in answer.path or "/-/large/" in answer.path)]
    return {names.get(path, path) for path in paths}


LOAD = """
    from llm_tutorial.corpus import load_wikipedia, resolve_wikipedia
    started = time.monotonic()
    found = {}
    for name, load in (("masked", load_masked_lm), ("causal", load_causal_lm)):
        found[name] = attempt(resolve_checkpoint, name)
        tokenizer, model = load()
        batch = tokenizer("Swimming at the beach is", return_tensors="pt")
        found[name]["ids"] = batch["input_ids"].tolist()[0]
        found[name]["class"] = type(model).__name__
        found[name]["dtype"] = str(model.dtype)
        found[name]["logits"] = list(model(**batch).logits.shape)
    drawn = load_wikipedia(train=50, valid=50)
    found["articles"] = {"columns": drawn["train"].column_names, "rows": drawn.num_rows,
                         "titles": [title for split in ("train", "valid") for title in drawn[split]["title"]]}
    found["articles"] |= attempt(resolve_wikipedia)
    print(json.dumps(found | {"seconds": time.monotonic() - started}))
"""


def test_all_comes_from_the_hub_once_and_from_the_cache_when_it_is_gone(run, server, tmp_path):
    first = run(LOAD)
    assert [first[name]["source"] for name in ("masked", "causal")] == ["hub", "hub"]
    assert [first[name]["class"] for name in ("masked", "causal")] == ["BertForMaskedLM", "GPT2LMHeadModel"]
    assert first["causal"]["ids"] == [10462, 27428, 379, 262, 10481, 318]
    assert first["causal"]["logits"] == [1, 6, 50257]
    assert first["masked"]["dtype"] == first["causal"]["dtype"] == "torch.float32"
    for name in ("masked", "causal"):
        repository, commit = _HUB_CHECKPOINTS[name]
        assert (first[name]["name"], first[name]["revision"]) == (repository, commit)
        assert Path(first[name]["path"]).is_relative_to(tmp_path / "hf")
    articles = first["articles"]
    assert articles["rows"] == {"train": 50, "valid": 50}
    assert articles["columns"] == ["id", "url", "title", "text"]
    assert len(set(articles["titles"])) == 100
    kept = Path(articles["path"])
    assert pd.read_parquet(kept)["title"].tolist() == [f"Article {number}" for number in range(_STREAMED_ROWS)]
    assert kept.is_relative_to(tmp_path / "cache")
    assert sorted(path.name for path in kept.parent.iterdir()) == [kept.name, f"{kept.name}.sha256"]

    parquet = "20231101.en/train-00000-of-00002.parquet"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= requested(server) <= SHIPPED | {parquet}
    dataset = server.repositories["datasets", REPOSITORY].files[parquet]
    sent = sum(answer.sent for answer in server.answers if dataset.sha256 in answer.path)
    assert sent < 1_000_000 < 20_000_000 < len(dataset.content)  # only the pages that hold the first rows

    # A hub library with a store that all repositories share keeps a link where the weights were.
    repository = tmp_path / "hf/hub/models--google-bert--bert-base-uncased"
    weights = (repository / "snapshots" / _HUB_CHECKPOINTS["masked"][1] / "model.safetensors").resolve()
    shared = tmp_path / "hf/hub/blobs/ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    weights.rename(shared)
    weights.symlink_to(shared)

    server.stop()
    again = run(LOAD)
    assert [again[name]["source"] for name in ("masked", "causal")] == ["cache", "cache"]
    assert again["masked"]["path"] == first["masked"]["path"]
    assert again["articles"]["source"] == "cache"
    assert again["articles"]["titles"] == articles["titles"]
    assert again["seconds"] < 20  # the hub's libraries would try for 23 s for each file


def test_hub_that_is_gone_gives_the_offline_model_at_once(run, server):
    server.stop()
    found = run("""
        from llm_tutorial.corpus import resolve_wikipedia
        constants.HF_HUB_OFFLINE = True
        offline = attempt(resolve_checkpoint, "masked")
        constants.HF_HUB_OFFLINE = False
        hub.forget_answers()
        print(json.dumps({"offline": offline, "default": attempt(resolve_checkpoint, "masked"),
                          "wanted": attempt(resolve_checkpoint, "causal", source="hub"),
                          "own": attempt(resolve_checkpoint, "someone/tiny-bert"),
                          "articles": attempt(resolve_wikipedia),
                          "articles wanted": attempt(resolve_wikipedia, source="hub")}))
    """, source="")
    assert "HF_HUB_OFFLINE is set" in found["offline"]["reason"]
    assert found["default"]["source"] == found["offline"]["source"] == "offline"
    assert found["default"]["seconds"] < 6
    assert "refused" in found["default"]["reason"]
    assert found["wanted"]["error"] == found["own"]["error"] == "ConnectionError"
    assert "Check the name and the connection" in found["own"]["text"]
    assert found["articles"]["source"] == "offline"
    assert found["articles"]["reason"].startswith("hub not reachable: ")
    assert found["articles wanted"]["error"] == "ConnectionError"
    assert "Set LLM_TUTORIAL_SOURCE=auto or offline" in found["articles wanted"]["text"]


def test_broken_and_damaged_transfers_are_never_trusted(run, server):
    found = run(f"""
        from llm_tutorial.corpus import resolve_wikipedia
        own = {OWN!r}
        found = {{}}
        fault("forbidden", "train-00000")
        found["broken stream"] = attempt(resolve_wikipedia)
        found["left"] = [path.name for path in files.cache_folder().iterdir()]
        fault("none")
        found["repaired stream"] = attempt(resolve_wikipedia)
        fault("short", "model.safetensors")
        found["short"] = attempt(resolve_checkpoint, "masked", source="auto")
        fault("forbidden")
        found["after short"] = attempt(resolve_checkpoint, "masked", source="auto")
        fault("none")
        found["after repair"] = attempt(resolve_checkpoint, "masked")
        for name, file in (("causal", "model.safetensors"), (own, "tokenizer.json")):
            fault("corrupt", file)
            found["damaged " + file] = attempt(resolve_checkpoint, name, source="auto")
            fault("forbidden")
            found["after damaged " + file] = attempt(resolve_checkpoint, name)
        fault("none")
        found["causal"] = attempt(resolve_checkpoint, "causal")
        found["own"] = attempt(resolve_checkpoint, own)
        fault("forbidden")
        found["own again"] = attempt(resolve_checkpoint, own)
        found["own at its commit"] = attempt(resolve_checkpoint, own + "@" + {OWN_COMMIT!r})
        weights = files.Path(found["causal"]["path"]) / "model.safetensors"
        with weights.open("r+b") as file:
            file.truncate(1000)
        found["rotten"] = attempt(resolve_checkpoint, "causal")
        found["after rotten"] = attempt(resolve_checkpoint, "causal")
        print(json.dumps(found))
    """)
    for name in ("short", "broken stream"):
        assert found[name]["error"] == "ConnectionError"
        assert "LLM_TUTORIAL_SOURCE=offline" in found[name]["text"]
    assert found["left"] == []
    assert found["repaired stream"]["source"] == "hub"
    assert "Run the cell again" in found["short"]["text"]
    assert found["after short"]["source"] == "offline"
    assert found["after repair"]["source"] == "hub"
    for file, hash_name in (("model.safetensors", "sha256"), ("tokenizer.json", "git hash")):
        damaged = found[f"damaged {file}"]
        assert damaged["error"] == "OSError", damaged
        assert f"its {hash_name} is not the published one" in damaged["text"]
        assert "Run the cell again" in damaged["text"]
        assert found[f"after damaged {file}"]["error"] == "ConnectionError"
    assert found["causal"]["source"] == "hub"
    assert (found["own"]["source"], found["own"]["revision"]) == ("hub", OWN_COMMIT)
    for name in ("own again", "own at its commit"):
        assert (found[name]["source"], found[name]["revision"]) == ("cache", OWN_COMMIT)
    assert found["rotten"]["error"] == "OSError"
    assert found["after rotten"]["error"] == "ConnectionError"
    assert server.answers[-1].status == 403


def test_without_links_in_the_cache_every_file_has_the_published_hash(run, server):
    """As on Windows: where a link would name the hash there is the file itself."""
    found = run("""
        def flip(file):
            path = files.Path(found["whole"]["path"]) / file
            content = bytearray(path.read_bytes())
            content[-9] ^= 1  # of the last weight, or within a JSON string
            path.write_bytes(content)
            return path

        found = {}
        fault("corrupt", "model.safetensors")
        found["damaged on the way"] = attempt(resolve_checkpoint, "masked")
        fault("none")
        found["whole"] = attempt(resolve_checkpoint, "masked")
        fault("forbidden")
        found["again"] = attempt(resolve_checkpoint, "masked")
        for file in ("model.safetensors", "tokenizer.json"):
            path = flip(file)
            found["linked"] = path.is_symlink()
            found["rotten " + file] = attempt(resolve_checkpoint, "masked")
            found["after " + file] = attempt(resolve_checkpoint, "masked")
            fault("none")
            found["repaired " + file] = attempt(resolve_checkpoint, "masked")
            fault("forbidden")
        folder = files.Path(found["whole"]["path"])
        listing = folder.parents[1] / "trees" / (folder.name + ".json")
        listing.unlink()
        found["without list"] = attempt(resolve_checkpoint, "masked", source="auto")
        fault("none")
        before = len(json.loads(urlopen(constants.ENDPOINT + "/-/answers", timeout=5).read()))
        found["list again"] = attempt(resolve_checkpoint, "masked")
        print(json.dumps(found | {"before": before}))
    """, HF_HUB_DISABLE_SYMLINKS="1")
    assert found["linked"] is False
    assert "its sha256 is not the published one" in found["damaged on the way"]["text"]
    assert [found[name]["source"] for name in ("whole", "again")] == ["hub", "cache"]
    for file, hash_name in (("model.safetensors", "sha256"), ("tokenizer.json", "git hash")):
        assert f"its {hash_name} is not the published one" in found[f"rotten {file}"]["text"]
        assert "has been removed. Run the cell again" in found[f"rotten {file}"]["text"]
        assert found[f"after {file}"]["error"] == "ConnectionError"
        assert found[f"repaired {file}"]["source"] == "hub"
    assert found["without list"]["source"] == "offline", "nothing says what its files should be"
    assert found["list again"]["source"] == "hub"
    content = [answer for answer in server.answers[found["before"]:] if answer.sent and "/resolve/" in answer.path]
    assert content == [], "the list is enough"


def test_server_answers_as_the_hub_does(server):
    """Guard the stand-in itself: what the scenarios rely on."""
    weights = server.repositories["models", OWN].files["model.safetensors"]
    with urlopen(f"{server.url}/{OWN}/resolve/main/model.safetensors") as answer:
        assert answer.read() == weights.content
    part = Request(f"{server.url}/{OWN}/resolve/main/model.safetensors", headers={"Range": "bytes=10-19"})
    with urlopen(part) as answer:
        assert (answer.status, answer.read()) == (206, weights.content[10:20])
    server.set_fault("corrupt", "model.safetensors")
    with urlopen(f"{server.url}/{OWN}/resolve/main/model.safetensors") as answer:
        content = answer.read()
    assert len(content) == len(weights.content)
    assert content != weights.content
    server.set_fault("cut", "model.safetensors")
    with urlopen(part) as answer:
        assert answer.read() == weights.content[10:20]
    with urlopen(f"{server.url}/{OWN}/resolve/main/model.safetensors") as answer, pytest.raises(IncompleteRead):
        answer.read()
    with pytest.raises(ValueError, match="Unknown fault"):
        server.set_fault("cutt")
