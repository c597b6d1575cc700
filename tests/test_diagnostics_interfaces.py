"""The doctor's table of keywords: what the package and the notebooks pass, and the installed libraries know."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
import transformers

from llm_tutorial.diagnostics import interfaces
from llm_tutorial.diagnostics.interfaces import (
    KEYWORDS,
    LOADING_KEYWORDS,
    keyword_findings,
    loading_findings,
    missing_keywords,
)

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
NOTEBOOKS = sorted([*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks" / "solutions").glob("*.ipynb")])
CALLS = {name.rpartition(".")[2]: name for name in KEYWORDS} | {"from_pretrained": "from_pretrained"}
KNOWN = {name: set().union(*(interfaces._taken(interfaces._resolved(one))
                             for one in (name, *interfaces._ALSO_TAKEN_BY.get(name, ())))) for name in KEYWORDS}
KNOWN["from_pretrained"] = set(LOADING_KEYWORDS)
FOLDER_OF_GGUF = {"gguf_file", "quantization_config"}  # in calls that the doctor has no file for


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def wrappers(tree: ast.Module) -> dict[str, tuple[str, set[str]]]:
    """Return the functions that hand ``**keywords`` on to a call of the table, with the parameters they keep."""
    known: dict[str, tuple[str, set[str]]] = {}
    for _ in range(2):  # a function may hand them to another one
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and function.args.kwarg:
                own = {argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]}
                for call in ast.walk(function):
                    name = called(call) if isinstance(call, ast.Call) else ""
                    target = known[name][0] if name in known else CALLS.get(name)
                    if target and any(keyword.arg is None and function.args.kwarg.arg in ast.unparse(keyword.value)
                                      for keyword in call.keywords):
                        known[function.name] = (target, own)
    return known


def dictionary_keys(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Dict):
        return {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    if isinstance(node, ast.Call) and called(node) == "dict":
        return {keyword.arg for keyword in node.keywords if keyword.arg}
    return set()


def passed_keywords(source: str, handed_on: dict[str, tuple[str, set[str]]]) -> dict[str, set[str]]:
    """Return the keywords that a source passes to each call of the table.

    Where a call spreads dictionaries, every one in the source that holds nothing but what the call takes may be meant.
    """
    tree = ast.parse(source)
    handed_on = handed_on | wrappers(tree)
    dictionaries = [keys for node in ast.walk(tree) if (keys := dictionary_keys(node))]
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        name = called(node) if isinstance(node, ast.Call) else ""
        target, own = handed_on.get(name, (CALLS.get(name), set()))
        if target is None:
            continue
        direct = {keyword.arg for keyword in node.keywords if keyword.arg} - own
        if direct & FOLDER_OF_GGUF:
            continue
        spread = any(keyword.arg is None for keyword in node.keywords)
        meant = [keys for keys in dictionaries if keys <= KNOWN[target]] if spread else []
        found.setdefault(target, set()).update(direct, *meant)
    return found


def notebook_source(path: Path) -> str:
    """Return the code of a notebook, without what only IPython understands and what is shown to fail."""
    return "\n".join(re.sub(r"^(\s*)[%!?].*", r"\1pass", cell["source"], flags=re.MULTILINE)
                     for cell in nbformat.read(path, as_version=4)["cells"] if cell["cell_type"] == "code"
                     and "raises-exception" not in cell["metadata"].get("tags", [])
                     and not re.search(r"#.*\bignored by design\b", cell["source"]))


@pytest.fixture(scope="module")
def passed() -> dict[str, set[str]]:
    """All keywords of the package and the notebooks."""
    training = ROOT / "src" / "llm_tutorial" / "training.py"
    handed_on = wrappers(ast.parse(training.read_text(encoding="utf-8")))
    assert "training_arguments" in handed_on
    found: dict[str, set[str]] = {}
    sources = [path.read_text(encoding="utf-8") for path in SOURCES if path.parent.name != "diagnostics"]
    for source in [*sources, *map(notebook_source, NOTEBOOKS)]:
        for target, keywords in passed_keywords(source, handed_on).items():
            found.setdefault(target, set()).update(keywords)
    return found


@pytest.mark.parametrize("name", KEYWORDS)
def test_the_table_is_what_is_passed(name, passed):
    assert sorted(KEYWORDS[name]) == sorted(passed[name])


def test_models_are_loaded_with_what_the_doctor_tries(passed):
    assert sorted(LOADING_KEYWORDS) == sorted(passed["from_pretrained"])


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_arguments_of_each_device_are_in_the_table(device, monkeypatch, tmp_path):
    """What the arguments are made of, seen from inside: the scan above reads only what is written out."""
    from llm_tutorial import training
    from llm_tutorial.device import Device

    seen: set[str] = set()
    monkeypatch.setattr(training, "TrainingArguments", lambda **keywords: seen.update(keywords))
    training.training_arguments("smoke", tmp_path, device=Device(device, True, ""))
    assert len(seen) > 10
    assert seen <= set(KEYWORDS["transformers.TrainingArguments"])


@pytest.mark.parametrize(("source", "expected"), [
    ("Trainer(model, args=a, processing_class=t)", {"transformers.Trainer": {"args", "processing_class"}}),
    ("settings = {'max_steps': 3, 'bf16': True}\nlabels = {'x': 1}\nTrainingArguments('o', **settings)",
     {"transformers.TrainingArguments": {"max_steps", "bf16"}}),
    ("def mine(n, **more):\n    return TrainingArguments(seed=n, **(dict(fp16=True) | more))\nmine(n=1, tf32=True)",
     {"transformers.TrainingArguments": {"seed", "fp16", "tf32"}}),
    ("model.generate(**inputs, max_new_tokens=3)", {"transformers.GPT2LMHeadModel.generate": {"max_new_tokens"}}),
    ("AutoModel.from_pretrained(x, dtype=y)", {"from_pretrained": {"dtype"}}),
    ("AutoModel.from_pretrained(x, gguf_file=y, dtype=z)", {}),
    ("train(seed=1)", {}),
])  # fmt: skip
def test_calls_are_seen(source, expected):
    assert passed_keywords(source, {}) == expected


@pytest.mark.parametrize("name", KEYWORDS)
def test_the_installed_libraries_know_them_and_nothing_else(name):
    assert missing_keywords(name, KEYWORDS[name]) == []
    assert missing_keywords(name, (*KEYWORDS[name], "no_such_keyword")) == ["no_such_keyword"]


@pytest.mark.parametrize(("name", "gone"), [
    ("transformers.TrainingArguments", "evaluation_strategy"), ("transformers.Trainer", "tokenizer"),
    ("transformers.GPT2Config", "n_ctx"), ("transformers.DataCollatorForLanguageModeling", "mlm_prob"),
    ("transformers.GPT2LMHeadModel.generate", "max_tokens"), ("huggingface_hub.snapshot_download", "resume"),
])  # fmt: skip
def test_what_is_gone_is_reported(monkeypatch, name, gone):
    monkeypatch.setattr(interfaces, "KEYWORDS", {name: (*KEYWORDS[name], gone)})
    [finding] = keyword_findings()
    assert (finding.verdict, finding.what) == ("FAIL", name)
    assert finding.detail.endswith(f"has no {gone}")
    assert "constraints.txt" in finding.remedy


@pytest.mark.parametrize("name", ["transformers.TextDataset", "datasets.Dataset.no_such_method", "datasets.nothing.x"])
def test_classes_and_functions_that_are_gone_are_reported(monkeypatch, name):
    monkeypatch.setattr(interfaces, "KEYWORDS", {name: ("x",)})
    [finding] = keyword_findings()
    assert (finding.verdict, finding.what) == ("FAIL", name)
    assert "does not have it" in finding.detail


def test_a_sound_installation_gives_one_line():
    assert [finding.verdict for finding in keyword_findings()] == ["ok"]


def test_loading_in_fp32_is_tried_out(monkeypatch):
    [finding] = loading_findings()
    assert finding.verdict == "ok"
    load = transformers.AutoModelForCausalLM.from_pretrained

    def load_as_stored(*arguments, **options):
        assert set(options) == set(LOADING_KEYWORDS)
        return load(*arguments, **(options | {"dtype": "auto"}))

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load_as_stored)
    [finding] = loading_findings()
    assert finding.verdict == "FAIL"
    assert "float16" in finding.detail
