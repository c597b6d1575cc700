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
NOTEBOOKS = sorted(FOLDER.glob("solutions/*.ipynb"))  # they have all that the learners' notebooks have


def parameters(function) -> set[str]:
    return {name for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)} - {"self"}


def declared(config: type) -> set[str]:
    """Return the fields of a configuration class; its constructor ignores keywords it does not know."""
    return set(config().to_dict()) | set(config.attribute_map) | {"attn_implementation"}


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
    """Return the keywords of this package's functions under the names by which a notebook calls them."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "llm_tutorial":
            for alias in node.names:
                name, value = alias.asname or alias.name, imported(node.module, alias.name)
                public = {f"{name}.{each}": getattr(value, each) for each in value.__all__} \
                    if inspect.ismodule(value) else {name: value}
                found |= {called: parameters(function) for called, function in public.items() if callable(function)}
    for name in found:
        if name.endswith("training_arguments"):  # which passes them on
            found[name] |= TRAINING
    takes_any = ("Exercises", "run_processes", "train_sentencepiece")
    return {name: known for name, known in found.items() if not name.endswith(takes_any)}


def imported(module: str, name: str) -> object:
    found = importlib.import_module(module)
    return getattr(found, name) if hasattr(found, name) else importlib.import_module(f"{module}.{name}")


def called(node: ast.Call, known: dict[str, set[str]]) -> str:
    """Return the name of what is called, with its module in front if that is one of this package's."""
    whole = ast.unparse(node.func)
    return whole if whole in known else whole.rpartition(".")[2]


def keys(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Dict):
        return {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg for keyword in node.keywords if keyword.arg}
    return set()


def unknown_keywords(cells: list[dict]) -> tuple[list[str], list[str]]:
    """Return the keywords no signature has, and the names of the functions that were looked at."""
    sources = [re.sub(r"^(\s*)[%!?].*", r"\1pass", cell["source"], flags=re.MULTILINE)
               for cell in cells if cell["cell_type"] == "code"
               and "raises-exception" not in cell["metadata"].get("tags", [])
               and not re.search(r"#.*\bignored by design\b", cell["source"])]
    whole = ast.parse("\n".join(sources))
    known = own_functions(whole) | KNOWN
    written = {node.targets[0].id: keys(node.value) for node in ast.walk(whole)  # for calls with **name
               if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}
    found, calls = [], []
    for node in ast.walk(whole):
        if not isinstance(node, ast.Call) or (name := called(node, known)) not in known:
            continue
        calls.append(name)
        passed = set()
        for keyword in node.keywords:
            value = keyword.value
            spread = written.get(value.id, set()) if isinstance(value, ast.Name) else keys(value)
            passed |= {keyword.arg} if keyword.arg else spread
        found += [f"{name}({keyword}=" for keyword in sorted(passed - known[name])]
    return found, calls


CALLS = {
    "01_masked_lm": {"from_pretrained", "plots.heat_map"},
    "02_causal_lm": {"from_pretrained", "generate", "greedy_decode"},
    "03_pretraining": {"GPT2Config", "TrainingArguments", "Trainer", "DataCollatorForLanguageModeling", "generate",
                       "training.build_trainer", "training_arguments"},
}  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_keywords_exist(path):
    found, calls = unknown_keywords(nbformat.read(path, as_version=4)["cells"])
    assert found == []
    assert CALLS.get(path.stem, set()) <= set(calls), "renamed or hidden calls would pass the check unseen"


def cell(source: str, *tags: str) -> dict:
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source}


WRONG = {
    "TrainingArguments('x', evaluation_strategy='steps')": "TrainingArguments(evaluation_strategy=",
    "options = {'warmup_ratio': 0.1}\nTrainingArguments('x', **options)": "TrainingArguments(warmup_ratio=",
    "TrainingArguments('x', **dict(no_cuda=True))": "TrainingArguments(no_cuda=",
    "trainer = Trainer(model, args, tokenizer=tokenizer)": "Trainer(tokenizer=",
    "transformers.GPT2Config(n_ctx=128)": "GPT2Config(n_ctx=",
    "DataCollatorForLanguageModeling(tokenizer, mlm_prob=0.1)": "DataCollatorForLanguageModeling(mlm_prob=",
    "model.generate(**inputs, max_tokens=3)": "generate(max_tokens=",
    "AutoModel.from_pretrained(path, torch_dtype='auto')": "from_pretrained(torch_dtype=",
    "from llm_tutorial.chunking import chunk_documents\nchunk_documents(a, b, length=3)": "chunk_documents(length=",
    "from llm_tutorial import plots\nplots.lines({}, x='a')": "plots.lines(x=",
    "from llm_tutorial import training as t\nt.training_arguments('cpu', 'x', no_cuda=1)":
        "t.training_arguments(no_cuda=",
}  # fmt: skip


@pytest.mark.parametrize("source", WRONG)
def test_wrong_keywords_are_found(source):
    found, calls = unknown_keywords([cell("%matplotlib inline\n" + source)])
    assert len(calls) == 1
    assert found == [WRONG[source]]


def test_right_keywords_and_what_is_shown_on_purpose_pass():
    source = """
from llm_tutorial import training
settings = {"learning_rate": 1e-3, "eval_strategy": "epoch"}
arguments = TrainingArguments("x", use_cpu=True, **settings)
trainer = Trainer(model, arguments, processing_class=tokenizer)
GPT2Config(n_positions=8, n_embd=8, hidden_size=8, bos_token_id=0)
model.generate(**inputs, max_new_tokens=3, do_sample=False, num_beams=2)
training.training_arguments("cpu", "x", device=device, save_steps=5)
"""
    shown = [cell("TrainingArguments(evaluation_strategy=1)", "raises-exception"),
             cell("GPT2Config(n_ctx=8)  # n_ctx is ignored by design")]
    assert unknown_keywords([cell(source), *shown]) == ([], [
        "TrainingArguments", "Trainer", "GPT2Config", "generate", "training.training_arguments"])
