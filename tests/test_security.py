"""Nothing in this repository loads a pickle, runs a stranger's code, or gives away a secret.

The scan reads the Python of the package, of the build scripts, of the tests and of the notebooks' cells.  The files
with a trap show that what it allows is safe: code in a pickle does not run.
"""

import ast
import json
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, GPT2LMHeadModel, TrainerControl, TrainerState

from llm_tutorial import hub
from llm_tutorial.checkpoints import Checkpoint, load_checkpoint
from llm_tutorial.device import Device
from llm_tutorial.resuming import CheckpointGuard, newest_checkpoint
from llm_tutorial.training import build_trainer, training_arguments

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [ROOT / "conftest.py", *sorted(path for folder in ("src", "data/build", "tests")
                                         for path in (ROOT / folder).rglob("*.py"))]
NOTEBOOKS = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/solutions/*.ipynb")])
DOCUMENTS = [path for pattern in ("*.md", "*.toml", "*.txt", "Makefile", ".ci/*", "data/*.md", "data/build/*.json",
                                  "data/models/*/*.json", "data/models/*/*.md", "notebooks/**/*.md")
             for path in sorted(ROOT.glob(pattern)) if path.is_file()]
FILES = [*SCRIPTS, *NOTEBOOKS, *DOCUMENTS]

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# Calls that make code or start a shell; tests may: they try out what a reader could do.
COMMANDS = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
LOADS_NO_MODEL = re.compile(r"(Tokenizer|TokenizerFast|Config|Processor|FeatureExtractor)$")
IMPORTS_PICKLE, LOADS_PICKLE, REMOTE_CODE, MAYBE_REMOTE, ANY_FORMAT, RUNS_TEXT, FETCHES = (
    "imports a module that loads pickles", "loads a pickle", "trusts remote code", "does not refuse remote code",
    "loads weights of any format", "runs text as code", "fetches files")
# Classes of transformers whose own code is all there is to run; an Auto class, or one that a variable holds, looks into
# the repository for code unless it is told not to.
KNOWN_CLASS = re.compile(r"(^|\.)(?!Auto)[A-Z]\w*\.from_\w+$")
# Calls by which something arrives over a network, as the end of a dotted name.
FETCHING = ("snapshot_download", "hf_hub_download", "HfFileSystem", "urlopen", "urlretrieve", "requests.get",
            "httpx.get", "load_state_dict_from_url")
# Where that is done, and what makes sure that it is what was published.
FETCHERS = {
    "src/llm_tutorial/hub.py": "each file has the sha256 or git hash under which the hub lists it",
    "src/llm_tutorial/transfers.py": "whole files: hub.py checks their hashes; rows of Wikipedia are part of a file, "
                                     "and no hash is published for a part: there is a pinned commit over HTTPS, and "
                                     "the checksum of each page where there is one; corpus.py checks what was kept",
    "src/llm_tutorial/streams.py": "parts of files too, of the pinned commit",
}
# What the scan finds and why it may stay; an entry that is not needed any more fails.
EXCEPTIONS = {
    ("tests/test_security.py", IMPORTS_PICKLE): "makes the traps, and shows that they would work",
    ("tests/test_resuming.py", IMPORTS_PICKLE): "makes a trap, and shows that it would work",
}

SECRETS = {
    "a token of the model hub": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a token of GitHub": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"),
    "a key of AWS": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a key of a service": re.compile(
        r"\b(?:sk-[A-Za-z0-9_-]{20,}|AIza[\w-]{35}|xox[abprs]-[\w-]{10,}|npm_[A-Za-z0-9]{30,}|pypi-AgE[\w-]{20,}"
        r"|glpat-[\w-]{20,})|\bBearer [\w.~+/-]{20,}"),
    "a password in an address": re.compile(r"\bhttps?://[^\s/:@\"'{}]+:[^\s/@\"'{}]+@[\w-]+\.\w"),
}
HOME = re.compile(r"(?<![\w.:/-])/(?:home|root|Users|work|workspaces?)/[\w.]|\b[A-Za-z]:\\Users\\\w")


def called(node: ast.Call) -> str:
    """Return the dotted name of what is called, as far as it is one."""
    return ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""


def is_literally(node: ast.expr | None, value: str | bool) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is type(value) and node.value == value


def code_faults(source: str, *, is_test: bool = False) -> Iterator[tuple[int, str]]:
    """Yield the line and the fault of all that loads pickles, trusts remote code, or runs text as code."""
    tree = ast.parse(source)
    named_load = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                  and node.module == "torch" for alias in node.names if alias.name == "load"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if any(name.partition(".")[0] in PICKLES for name in names):
                yield node.lineno, IMPORTS_PICKLE
        elif isinstance(node, ast.Dict):  # of keywords that a call may spread
            for key, value in zip(node.keys, node.values, strict=True):
                if is_literally(key, "trust_remote_code") and not is_literally(value, False):
                    yield node.lineno, REMOTE_CODE
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, fault) for fault in call_faults(node, named_load, is_test))


def call_faults(node: ast.Call, named_load: set[str], is_test: bool) -> Iterator[str]:
    name, keywords = called(node), {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    loads_any = name in {"torch.load", *named_load} and not is_literally(keywords.get("weights_only"), True)
    allows = "allow_pickle" in keywords and not is_literally(keywords["allow_pickle"], False)
    if loads_any or allows or name.endswith(("read_pickle", "__import__")):
        yield LOADS_PICKLE
    if name.endswith("import_module") and any(is_literally(argument, pickle_) for argument in node.args
                                              for pickle_ in PICKLES):
        yield IMPORTS_PICKLE
    if "trust_remote_code" in keywords:
        if not is_literally(keywords["trust_remote_code"], False):
            yield REMOTE_CODE
    elif name.rpartition(".")[2] in {"from_pretrained", "from_config", "pipeline"} and not KNOWN_CLASS.search(name):
        yield MAYBE_REMOTE
    if not is_test and name.endswith(FETCHING):
        yield FETCHES
    loads_model = name.endswith(".from_pretrained") and not LOADS_NO_MODEL.search(name.removesuffix(".from_pretrained"))
    # A GGUF file is no pickle, and is named by itself: no other format can take its place.
    if loads_model and not is_literally(keywords.get("use_safetensors"), True) and "gguf_file" not in keywords:
        yield ANY_FORMAT
    if not is_test and (name in COMMANDS or not is_literally(keywords.get("shell", ast.Constant(False)), False)):
        yield RUNS_TEXT


def cells(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the name, the source and the outputs of each cell; magics stay out of the source of code."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            source = re.sub(r"^(\s*)[%!?].*", r"\1pass", source, flags=re.MULTILINE)
        outputs = [json.dumps({kind: text for kind, text in output.get("data", {}).items() if "image" not in kind})
                   + "".join(output.get("text", [])) + "".join(output.get("traceback", []))
                   for output in cell.get("outputs", [])]
        yield cell["cell_type"], source, outputs


def faults_of_file(path: Path) -> list[tuple[str, str]]:
    """Return where and what, for a script or all code cells of a notebook."""
    name = path.relative_to(ROOT).as_posix()
    if path.suffix == ".py":
        found = code_faults(path.read_text(encoding="utf-8"), is_test=name.startswith("tests/"))
        return [(f"{name}:{line}", fault) for line, fault in found]
    return [(f"{name}: {source.strip().splitlines()[0]}", fault) for kind, source, _ in cells(path) if kind == "code"
            for _, fault in code_faults(source)]


def text_faults(text: str) -> list[str]:
    """Return the secrets and the paths of somebody's machine in a text."""
    found = [what for what, pattern in SECRETS.items() if pattern.search(text)]
    return found + (["a path of somebody's machine"] if HOME.search(text) or str(ROOT) in text else [])


# The scan.

@pytest.mark.parametrize("path", [*SCRIPTS, *NOTEBOOKS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_unsafe_code(path):
    name = path.relative_to(ROOT).as_posix()
    found = [(where, fault) for where, fault in faults_of_file(path)
             if (name, fault) not in EXCEPTIONS and not (fault == FETCHES and name in FETCHERS)]
    assert not found, "\n".join(": ".join(pair) for pair in found)


@pytest.mark.parametrize(("name", "fault"), EXCEPTIONS)
def test_exceptions_are_still_needed(name, fault):
    assert fault in {found for _, found in faults_of_file(ROOT / name)}


@pytest.mark.parametrize("name", FETCHERS)
def test_what_fetches_is_known(name):
    assert FETCHES in {found for _, found in faults_of_file(ROOT / name)}


def test_the_scan_sees_what_it_is_for():
    assert len(SCRIPTS) > 60
    assert len(NOTEBOOKS) >= 8
    loads = [source for path in NOTEBOOKS for kind, source, _ in cells(path)
             if kind == "code" and re.search(r"\w\.from_pretrained\(", source)]
    assert len(loads) >= 8


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_secret_and_no_path_of_a_machine(path):
    if path.suffix == ".ipynb":  # pictures are left out: base64 spells anything
        text = "\n".join(part for _, source, outputs in cells(path) for part in (source, *outputs))
    else:
        text = path.read_text(encoding="utf-8")
    if path.name == "test_notebook_style.py":  # where notebooks get such paths, to see them found
        text = re.sub(r"^    \"an absolute path .*$", "", text, flags=re.MULTILINE)
    assert text_faults(text) == []


UNSAFE = {
    "import pickle": IMPORTS_PICKLE,
    "import numpy, joblib.memory as memory": IMPORTS_PICKLE,
    "from dill import loads": IMPORTS_PICKLE,
    "def f():\n    import cloudpickle": IMPORTS_PICKLE,
    "importlib.import_module('pickle')": IMPORTS_PICKLE,
    "np.load(path, allow_pickle=True)": LOADS_PICKLE,
    "np.load(path, allow_pickle=allow)": LOADS_PICKLE,
    "pd.read_pickle(path)": LOADS_PICKLE,
    "torch.load(path)": LOADS_PICKLE,
    "torch.load(path, weights_only=False)": LOADS_PICKLE,
    "torch.load(path, weights_only=safe)": LOADS_PICKLE,
    "from torch import load as get\nget(path)": LOADS_PICKLE,
    "AutoTokenizer.from_pretrained(path, trust_remote_code=True)": REMOTE_CODE,
    "load_dataset(name, trust_remote_code=flag)": REMOTE_CODE,
    "pipeline('fill-mask', trust_remote_code=1)": REMOTE_CODE,
    "options = {'trust_remote_code': True}": REMOTE_CODE,
    "AutoTokenizer.from_pretrained(path)": MAYBE_REMOTE,
    "transformers.AutoConfig.from_pretrained(path, revision=commit)": MAYBE_REMOTE,
    "transformers.AutoModel.from_config(config)": MAYBE_REMOTE,
    "pipeline('fill-mask')": MAYBE_REMOTE,
    "kind.from_pretrained(path, use_safetensors=True)": MAYBE_REMOTE,
    "BertForMaskedLM.from_pretrained(path)": ANY_FORMAT,
    "transformers.AutoModel.from_pretrained(path, use_safetensors=False, trust_remote_code=False)": ANY_FORMAT,
    "auto_class.from_pretrained(path, trust_remote_code=False, **options)": ANY_FORMAT,
    "huggingface_hub.snapshot_download(name)": FETCHES,
    "urllib.request.urlopen(address)": FETCHES,
    "eval(text)": RUNS_TEXT,
    "exec(compile(text, 'x', 'exec'))": RUNS_TEXT,
    "os.system('ls')": RUNS_TEXT,
    "subprocess.run('ls', shell=True)": RUNS_TEXT,
    "subprocess.run('ls', shell=flag)": RUNS_TEXT,
}


@pytest.mark.parametrize("source", UNSAFE)
def test_unsafe_code_is_found(source):
    assert [fault for _, fault in code_faults(source)] == [UNSAFE[source]]


@pytest.mark.parametrize("source", [
    "model.eval()", "table.eval('a - b')", "np.load(path, allow_pickle=False)", "json.load(file)",
    "torch.load(path, weights_only=True)", "subprocess.run(['ls'], shell=False)",
    "AutoModel.from_pretrained(path, use_safetensors=True, trust_remote_code=False)",
    "AutoTokenizer.from_pretrained(path, trust_remote_code=False)", "GPT2Config.from_pretrained(path)",
    "BertTokenizer.from_pretrained(path)", "transformers.GPT2TokenizerFast.from_pretrained(path)",
    "AutoModelForCausalLM.from_pretrained(folder, gguf_file='model.gguf', trust_remote_code=False)",
    "importlib.import_module('json')",
])  # fmt: skip
def test_safe_code_passes(source):
    assert list(code_faults(source)) == []


def test_tests_may_run_text_but_load_no_pickle():
    assert list(code_faults("exec('x = 1')", is_test=True)) == []
    assert [fault for _, fault in code_faults("import pickle", is_test=True)] == [IMPORTS_PICKLE]


@pytest.mark.parametrize(("text", "what"), [
    ("hf_" + "aB3" * 12, "a token of the model hub"), ("ghp_" + "aB3" * 12, "a token of GitHub"),
    ("sk-" + "aB3" * 12, "a key of a service"), ("npm_" + "aB3" * 12, "a key of a service"),
    ("Authorization: Bea" + "rer " + "aB3." * 9, "a key of a service"),
    ("AKIA" + "ABCD" * 4, "a key of AWS"), ("-----BEGIN RSA " + "PRIVATE KEY-----", "a private key"),
    ("https://me:secret" + "@index.example/simple", "a password in an address"),
    ("open('/ho" + "me/me/x')", "a path of somebody's machine"), ("/ro" + "ot/.cache", "a path of somebody's machine"),
    (str(ROOT / "data"), "a path of somebody's machine"), ("C:\\Use" + "rs\\me", "a path of somebody's machine"),
])  # fmt: skip
def test_secrets_and_paths_are_found(text, what):
    assert text_faults(f"value = {text!r}" if "\\" not in text else text) == [what]


# Files with a trap.

class Touch:
    """Makes a file when it is read back from a pickle: what an attacker would run could be anything."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def set_trap(file: Path, trace: Path) -> None:
    """Put a pickle with code into a file, once it is seen to run."""
    file.write_bytes(pickle.dumps(Touch(trace), protocol=2))  # the one that PyTorch writes
    pickle.loads(file.read_bytes())
    assert trace.exists(), "the trap works"
    trace.unlink()


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_weights_in_a_pickle_are_refused(kind, request, tmp_path):
    model, tokenizer = (request.getfixturevalue(f"{kind}_{part}") for part in ("lm", "tokenizer"))
    folder, trace = tmp_path / "model", tmp_path / "trace"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    checkpoint = Checkpoint(folder, "0" * 40, "hub", "the hub answered", "someone/something")
    auto_class = AutoModelForMaskedLM if kind == "masked" else AutoModelForCausalLM
    load_checkpoint(checkpoint, auto_class)  # as long as the weights are safe
    (folder / "model.safetensors").unlink()
    set_trap(folder / "pytorch_model.bin", trace)
    with pytest.raises(OSError, match=r"safetensors"):
        load_checkpoint(checkpoint, auto_class)
    assert not trace.exists()


def test_a_pickle_beside_the_weights_is_not_read(causal_lm, causal_tokenizer, tmp_path):
    folder, trace = tmp_path / "model", tmp_path / "trace"
    causal_lm.save_pretrained(folder)
    causal_tokenizer.save_pretrained(folder)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        set_trap(folder / name, trace)
    _, model = load_checkpoint(Checkpoint(folder, "0" * 40, "hub", "", "x/y"), AutoModelForCausalLM)
    assert torch.equal(model.transformer.wte.weight, causal_lm.transformer.wte.weight)
    assert not trace.exists()


def test_no_file_that_can_hold_code_is_downloaded():
    assert {Path(name).suffix for name in hub.CHECKPOINT_FILES} == {".json", ".txt", ".safetensors"}


def test_a_repository_of_pickles_counts_as_not_cached(monkeypatch, tmp_path):
    set_trap(tmp_path / "pytorch_model.bin", tmp_path / "trace")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    assert hub.cached_snapshot("someone/something", "0" * 40) is None
    monkeypatch.setattr(hub.transfers, "fetch_snapshot", lambda *_: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors; only .* in one file, model\.safetensors"):
        hub.download_snapshot("someone/something", "0" * 40)
    assert not (tmp_path / "trace").exists()


@pytest.fixture
def run(causal_lm, causal_tokenizer, chunks, tmp_path):
    """Return how to train in ``tmp_path / "run"`` to a step; two steps are made, each with a checkpoint."""
    def train(steps: int, **options):
        model = GPT2LMHeadModel(causal_lm.config)
        arguments = training_arguments("smoke", tmp_path / "run", device=Device("cpu", False, ""), max_steps=2,
                                       save_strategy="steps", save_steps=1, eval_strategy="no")
        trainer = build_trainer(model, arguments, chunks, causal_tokenizer, preset="smoke")
        trainer.train(**options)
        assert trainer.state.global_step == steps
        return trainer

    train(2)
    return train


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "rng_state.pth", "extra.bin"])
def test_a_checkpoint_with_a_trap_is_passed_over(run, tmp_path, name):
    folder, trace = tmp_path / "run", tmp_path / "trace"
    set_trap(folder / "checkpoint-2" / name, trace)
    lines = []
    assert newest_checkpoint(folder, report=lines.append) == str(folder / "checkpoint-1")
    [line] = lines
    assert f"checkpoint-2 is passed over: {name}" in line
    run(2, resume_from_checkpoint=newest_checkpoint(folder, report=lines.append))
    assert not trace.exists()


@pytest.mark.usefixtures("run")
def test_a_trap_of_the_right_size_is_passed_over(tmp_path):
    file = tmp_path / "run" / "checkpoint-2" / "optimizer.pt"
    size = file.stat().st_size
    set_trap(file, tmp_path / "trace")
    file.write_bytes(file.read_bytes().ljust(size, b"\0"))
    lines = []
    assert newest_checkpoint(tmp_path / "run", report=lines.append).endswith("checkpoint-1")
    assert "optimizer.pt was changed: its hash differs" in lines[0]


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_who_insists_on_a_checkpoint_with_a_trap_runs_none_of_it(run, tmp_path, name):
    folder, trace = tmp_path / "run", tmp_path / "trace"
    shutil.rmtree(folder / "checkpoint-2")
    set_trap(folder / "checkpoint-1" / name, trace)
    # The Trainer reads what it needs without code; what it does not read, the guard refuses.
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        run(2, resume_from_checkpoint=str(folder / "checkpoint-1"))
    assert not trace.exists()


def test_weights_of_a_resumed_run_are_no_pickle(run, tmp_path):
    checkpoint, trace = tmp_path / "run" / "checkpoint-2", tmp_path / "trace"
    (checkpoint / "model.safetensors").unlink()
    set_trap(checkpoint / "pytorch_model.bin", trace)
    assert newest_checkpoint(tmp_path / "run", report=str).endswith("checkpoint-1")
    # Even where an attacker writes the manifest anew, nothing of it runs.
    arguments = training_arguments("smoke", tmp_path / "run", device=Device("cpu", False, ""))
    CheckpointGuard({}).on_save(arguments, TrainerState(global_step=2), TrainerControl())
    shutil.rmtree(tmp_path / "run" / "checkpoint-1")
    assert newest_checkpoint(tmp_path / "run") == str(checkpoint)
    with pytest.raises((ValueError, OSError, pickle.UnpicklingError)):
        run(2, resume_from_checkpoint=str(checkpoint))
    assert not trace.exists()
