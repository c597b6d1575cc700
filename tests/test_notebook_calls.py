"""Every keyword the notebooks pass to the library or to this package exists in the installed signature.

Several of these calls swallow unknown keywords without a word, so that running the notebooks does not show them.
A cell tagged ``raises-exception`` may show a call that fails, one with the comment ``ignored by design`` one that
has no effect.
"""

import ast
import importlib
import inspect
import re
from pathlib import Path

import nbformat
import pytest
import transformers

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted([*FOLDER.glob("*.ipynb"), *FOLDER.glob("solutions/*.ipynb")])


def parameters(function) -> set[str]:
    return {name for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)} - {"self"}


def declared(config: type) -> set[str]:
    """Return the fields of a configuration class; its constructor ignores keywords it does not know."""
    taken = {"attn_implementation"} if hasattr(config, "_attn_implementation") else set()  # it keeps it out of the dict
    return set(config().to_dict()) | set(config.attribute_map) | taken


TRAINING = parameters(transformers.TrainingArguments.__init__)
KNOWN = {
    "TrainingArguments": TRAINING,
    "Trainer": parameters(transformers.Trainer.__init__),
    "GPT2Config": declared(transformers.GPT2Config),
    "BertConfig": declared(transformers.BertConfig),
    "DataCollatorForLanguageModeling": parameters(transformers.DataCollatorForLanguageModeling.__init__),
    "generate": {name for name in vars(transformers.GenerationConfig()) if not name.startswith("_")}
    | parameters(transformers.GPT2LMHeadModel.generate)
    | {"input_ids", "attention_mask", "past_key_values", "streamer"},
    "from_pretrained": {"dtype", "use_safetensors", "trust_remote_code", "revision", "attn_implementation",
                        "output_loading_info", "local_files_only", "gguf_file", "model_max_length", "padding_side"},
}  # fmt: skip


def own_functions(tree: ast.Module) -> dict[str, set[str]]:
    """Return the keywords of what is imported from this package; what it passes on to the library is known as well."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "llm_tutorial":
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):  # a module of a package, which it imports only when asked
                    importlib.import_module(f"{node.module}.{alias.name}")
                value = getattr(module, alias.name)
                if callable(value):
                    takes_any = any(parameter.kind == parameter.VAR_KEYWORD
                                    for parameter in inspect.signature(value).parameters.values())
                    if alias.name == "training_arguments":
                        found[alias.asname or alias.name] = parameters(value) | TRAINING
                    elif not takes_any:
                        found[alias.asname or alias.name] = parameters(value)
    return found


def dictionaries(tree: ast.Module) -> dict[str, set[str]]:
    """Return the keys of the dictionaries that are written out and named, for calls with ``**name``."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, set()).update(keys(node.value))
    return found


def keys(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Dict):
        return {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg for keyword in node.keywords if keyword.arg}
    return set()


def code(cells: list[dict]) -> list[str]:
    """Return the sources that are to be checked, without the lines that only IPython understands."""
    return [re.sub(r"^(\s*)[%!?].*", r"\1pass", cell["source"], flags=re.MULTILINE)
            for cell in cells if cell["cell_type"] == "code"
            and "raises-exception" not in cell["metadata"].get("tags", [])
            and not re.search(r"#.*\bignored by design\b", cell["source"])]


def unknown_keywords(cells: list[dict]) -> tuple[list[str], int]:
    """Return the keywords no signature has, and how many calls were looked at."""
    sources = code(cells)
    whole = ast.parse("\n".join(sources))
    known, named = own_functions(whole) | KNOWN, dictionaries(whole)
    found, calls = [], 0
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name not in known:
                continue
            calls += 1
            passed = set()
            for keyword in node.keywords:
                value = keyword.value
                spread = named.get(value.id, set()) if isinstance(value, ast.Name) else keys(value)
                passed |= {keyword.arg} if keyword.arg else spread
            found += [f"{name}({keyword}=...) in: {source.strip().splitlines()[0]}"
                      for keyword in sorted(passed - known[name])]
    return found, calls


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_keywords_exist(path):
    found, _ = unknown_keywords(nbformat.read(path, as_version=4)["cells"])
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("01_masked_lm", {"from_pretrained"}),
     ("02_causal_lm", {"from_pretrained", "generate"}),
     ("03_pretraining", {"GPT2Config", "TrainingArguments", "Trainer", "DataCollatorForLanguageModeling", "generate"})],
)  # fmt: skip
def test_calls_are_recognised(name, expected):
    """The check above sees the calls that matter; renamed or hidden ones would pass it unseen."""
    sources = code(nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)["cells"])
    for call in sorted(expected):
        counted = unknown_keywords([{"cell_type": "code", "metadata": {}, "source": source} for source in sources
                                    if re.search(rf"\b{call}\(", source)])[1]
        assert counted, f"{name} has no call of {call}"


def cell(source: str, *tags: str) -> dict:
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source}


WRONG = {
    "TrainingArguments('x', evaluation_strategy='steps')": "TrainingArguments(evaluation_strategy",
    "options = {'warmup_ratio': 0.1}\nTrainingArguments('x', **options)": "TrainingArguments(warmup_ratio",
    "TrainingArguments('x', **dict(no_cuda=True))": "TrainingArguments(no_cuda",
    "trainer = Trainer(model, args, tokenizer=tokenizer)": "Trainer(tokenizer",
    "transformers.GPT2Config(n_ctx=128)": "GPT2Config(n_ctx",
    "GPT2Config(loss_type='ForCausalLM')": "GPT2Config(loss_type",
    "DataCollatorForLanguageModeling(tokenizer, mlm_prob=0.1)": "DataCollatorForLanguageModeling(mlm_prob",
    "model.generate(**inputs, max_tokens=3)": "generate(max_tokens",
    "AutoModel.from_pretrained(path, torch_dtype='auto')": "from_pretrained(torch_dtype",
    "from llm_tutorial.chunking import chunk_documents\nchunk_documents(a, b, length=3)": "chunk_documents(length",
    "from llm_tutorial.training import training_arguments as t\nt('cpu', 'x', evaluation_strategy=1)":
        "t(evaluation_strategy",
    "from llm_tutorial.training import training_arguments\ntraining_arguments('cpu', 'x', no_cuda=1)":
        "training_arguments(no_cuda",
}  # fmt: skip


@pytest.mark.parametrize("source", WRONG)
def test_wrong_keywords_are_found(source):
    found, calls = unknown_keywords([cell("%matplotlib inline\n" + source)])
    assert calls == 1
    assert len(found) == 1
    assert found[0].startswith(WRONG[source])


def test_what_is_shown_on_purpose_is_left_alone():
    assert unknown_keywords([cell("TrainingArguments(evaluation_strategy=1)", "raises-exception"),
                             cell("GPT2Config(n_ctx=8)  # n_ctx is ignored by design")]) == ([], 0)


def test_right_keywords_pass():
    source = """
from llm_tutorial.chunking import chunk_documents
settings = {"learning_rate": 1e-3, "eval_strategy": "epoch"}
arguments = TrainingArguments("x", use_cpu=True, **settings)
trainer = Trainer(model, arguments, processing_class=tokenizer)
GPT2Config(n_positions=8, n_embd=8, hidden_size=8, bos_token_id=0)
model.generate(**inputs, max_new_tokens=3, do_sample=False, num_beams=2)
AutoModel.from_pretrained(path, dtype="auto", revision="x")
chunk_documents(texts, tokenizer, context_length=8)
"""
    assert unknown_keywords([cell(source)]) == ([], 6)
