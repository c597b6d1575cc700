"""Nothing in this repository loads a pickle, runs a stranger's code, or gives away a secret.

The scan reads the Python of the package, of the build scripts, of the tests and of the notebooks' cells.
"""

import ast
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_tutorial import checkpoints
from llm_tutorial.checkpoints import load_causal_lm, load_masked_lm
from llm_tutorial.sources import hub

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [path for folder in ("src", "data/build", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
NOTEBOOKS = sorted(ROOT.glob("notebooks/**/*.ipynb"))
DOCUMENTS = [path for pattern in ("*.md", "*.toml", "*.txt", "Makefile", ".ci/*", ".github/**/*", "data/**/*.md",
                                  "data/**/*.json", "notebooks/**/*.md")
             for path in sorted(ROOT.glob(pattern)) if path.is_file()]

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SETS_TRAPS = {"tests/test_security.py", "tests/test_training.py"}
# An Auto class, or one that a variable holds, looks for code in the repository unless it is told not to.
KNOWN_CLASS = re.compile(r"(^|\.)(?!Auto)[A-Z]\w*\.from_\w+$|^type\(")
LOADS_NO_MODEL = re.compile(r"(Tokenizer|TokenizerFast|Config|Processor)\.from_pretrained$")

SECRETS = {
    "a token": re.compile(
        r"\bhf_[A-Za-z0-9]{30,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
        r"|\bsk-[A-Za-z0-9_-]{20,}|\bAIza[\w-]{35}|\bxox[abprs]-[\w-]{10,}|\bnpm_[A-Za-z0-9]{30,}|\bpypi-AgE[\w-]{20,}"
        r"|\bglpat-[\w-]{20,}|\bBearer [\w.~+/-]{20,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(r"\bhttps?://[^\s/:@\"'{}]+:[^\s/@\"'{}]+@[\w-]+\.\w"),
    "a path of a computer": re.compile(
        r"(?<![\w.:/-])/(?:home|root|Users|work|workspaces?)/[\w.]|\b[A-Za-z]:\\Users\\\w|" + re.escape(str(ROOT))),
}
# Outputs tell on whose machine a notebook was executed. A source may name Colab's mounted drive.
TRACES = {
    "an absolute path": re.compile(
        r"(?<![\w.:/<-])/(?:home|root|Users|work|workspaces?|tmp|opt|usr|var|private|mnt|media|srv|kaggle|etc)/[\w.]"
        r"|\b[A-Za-z]:\\(?:Users|Windows|Program|Temp)\b|\bfile://|~/\w"),
    "a folder of installed packages": re.compile(r"\b(?:site|dist)-packages\b|\.(?:venv|conda|pyenv|cache)\b"),
    "the number of a process": re.compile(r"ipykernel_\d+|<ipython-input-\d+-[0-9a-f]{6,}>"),
    "an address in a network": re.compile(
        r"(?<![\d.])(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}(?![\d.])"),
}


def is_literally(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def faults(source: str) -> set[str]:
    """Return what is unsafe in Python code."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if PICKLES & {name.partition(".")[0] for name in names}:
                found.add("imports a module that loads pickles")
        elif isinstance(node, ast.Call):
            found |= call_faults(node)
    return found


def call_faults(node: ast.Call) -> set[str]:
    name = ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    trusts, loads = keywords.get("trust_remote_code"), name.endswith(".from_pretrained")
    finds_code = re.search(r"(^|\.)(from_pretrained|from_config|pipeline)$", name) and not KNOWN_CLASS.search(name)
    any_pickle = "allow_pickle" in keywords and not is_literally(keywords["allow_pickle"], False)
    any_object = name == "torch.load" and not is_literally(keywords.get("weights_only"), True)
    any_format = not is_literally(keywords.get("use_safetensors"), True) and "gguf_file" not in keywords
    checks = {
        "loads a pickle": any_pickle or any_object or name.endswith("read_pickle"),
        "trusts remote code": not is_literally(trusts, False) and (trusts or finds_code),
        "loads weights of any format": loads and any_format and not LOADS_NO_MODEL.search(name),
    }
    return {fault for fault, unsafe in checks.items() if unsafe}


def code_of(path: Path) -> str:
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    sources = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
               if cell["cell_type"] == "code"]
    return re.sub(r"^(\s*)[%!?].*", r"\1pass", "\n".join(sources), flags=re.MULTILINE)


def text_of(path: Path) -> str:
    """Return the text of a file; of a notebook all strings in it but pictures, whose base64 spells anything."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return "\n".join(strings(json.loads(path.read_text(encoding="utf-8"))))


def strings(part: object) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, list) and all(isinstance(line, str) for line in part):
        yield "".join(part)  # a text is stored as a list of lines
    elif isinstance(part, list | dict):
        for key, item in part.items() if isinstance(part, dict) else [("", item) for item in part]:
            yield key
            if not (key.startswith("image/") and isinstance(item, str | list)):  # in metadata, it leads to a dict
                yield from strings(item)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*SCRIPTS, *NOTEBOOKS], ids=relative)
def test_no_unsafe_code(path):
    found = faults(code_of(path))
    assert found == ({"imports a module that loads pickles"} if relative(path) in SETS_TRAPS else set())


@pytest.mark.parametrize("path", [*SCRIPTS, *NOTEBOOKS, *DOCUMENTS], ids=relative)
def test_no_secret_and_no_path_of_a_computer(path):
    text = text_of(path)
    assert [what for what, pattern in SECRETS.items() if pattern.search(text)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_no_trace_of_a_computer_in_a_notebook(path):
    text = text_of(path)
    assert [hit.group() for pattern in TRACES.values() if (hit := pattern.search(text))] == []


@pytest.mark.parametrize(("source", "fault"), [
    ("import numpy, joblib.memory as memory", "imports a module that loads pickles"),
    ("pd.read_pickle(path)", "loads a pickle"),
    ("torch.load(path, weights_only=safe)", "loads a pickle"),
    ("load_dataset(name, trust_remote_code=flag)", "trusts remote code"),
    ("kind.from_pretrained(path, use_safetensors=True)", "trusts remote code"),
    ("pipeline('fill-mask')", "trusts remote code"),
    ("BertForMaskedLM.from_pretrained(path)", "loads weights of any format"),
    ("np.load(path, allow_pickle=False); torch.load(path, weights_only=True)", None),
    ("GPT2Config.from_pretrained(path)", None),
    ("AutoModel.from_pretrained(path, use_safetensors=True, trust_remote_code=False)", None),
])
def test_the_scan_tells_unsafe_code_from_safe_code(source, fault):
    assert faults(source) == ({fault} if fault else set())


@pytest.mark.parametrize(("text", "what"), [
    ("hf_" + "aB3" * 12, "a token"), ("-----BEGIN RSA " + "PRIVATE KEY-----", "a private key"),
    ("https://me:secret" + "@index.example/simple", "a password in an address"),
    ("open('/ho" + "me/me/x')", "a path of a computer"), ("C:\\Use" + "rs\\me", "a path of a computer"),
])
def test_secrets_and_paths_are_found(text, what):
    assert [each for each, pattern in SECRETS.items() if pattern.search(f"value = '{text}'")] == [what]


@pytest.mark.parametrize(("output", "what"), [
    ({"text": ["saved to /tm", "p/run"]}, "an absolute path"),
    ({"metadata": {"image/png": {"alt": "~/" + "work"}}}, "an absolute path"),
    ({"traceback": ["python3.11/site-packages/torch"]}, "a folder of installed packages"),
    ({"text": "ipykernel_1234/99.py:1"}, "the number of a process"),
    ({"text": "http://192.168.1.7:8888"}, "an address in a network"),
    ({"data": {"text/plain": "and/or, https://huggingface.co/a/b, data/models, 10.1, version 5.10.2"}}, None),
])
def test_traces_are_found_wherever_they_are(output, what):
    text = "\n".join(strings({"cells": [{"source": [], "outputs": [output]}], "metadata": {}}))
    assert [name for name, pattern in TRACES.items() if pattern.search(text)] == ([what] if what else [])


class Touch:
    """Makes a file when it is read back from a pickle: an attacker's code could do anything."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(("kind", "load"), [("masked", load_masked_lm), ("causal", load_causal_lm)])
def test_weights_in_a_pickle_are_never_read(kind, load, request, tmp_path, monkeypatch):
    folder, trace = tmp_path / "model", tmp_path / "trace"
    for part in ("lm", "tokenizer"):
        request.getfixturevalue(f"{kind}_{part}").save_pretrained(folder)
    trap = pickle.dumps(Touch(trace), protocol=2)  # the one that PyTorch writes
    pickle.loads(trap)
    trace.unlink()  # the trap works
    for name in ("pytorch_model.bin", "training_args.bin"):
        (folder / name).write_bytes(trap)
    monkeypatch.setattr(checkpoints, "resolve_checkpoint", lambda *_, **__: checkpoints.Checkpoint(
        folder, "0" * 40, "hub", "", "x/y"))
    load()
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        load()
    assert not trace.exists()


def test_no_file_that_can_hold_code_is_downloaded():
    assert {Path(name).suffix for name in hub.CHECKPOINT_FILES} == {".json", ".txt", ".safetensors"}
