"""The form of the notebooks: what a reader sees is complete, short, executed in order, and really compared."""

import ast
import re
import statistics
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
import transformers
from nbconvert import get_exporter

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted([*FOLDER.glob("*.ipynb"), *FOLDER.glob("solutions/*.ipynb")])
CORE = ("01_masked_lm", "02_causal_lm", "03_pretraining")
# These calls ignore a keyword that they do not know, so that running a notebook does not show a wrong one.
KNOWN = {config.__name__: {*config().to_dict(), *config.attribute_map, "attn_implementation"}
         for config in (transformers.GPT2Config, transformers.BertConfig)}
KNOWN["from_pretrained"] = {"dtype", "use_safetensors", "trust_remote_code", "revision", "attn_implementation",
                            "output_loading_info", "local_files_only", "gguf_file", "model_max_length", "padding_side"}
TAGS = {"nbval-ignore-output", "nbval-check-output", "raises-exception", "nbval-raises-exception", "colab-bootstrap",
        "setup", "exercise", "check", "slide", "hide-input", "scroll-output"}  # fmt: skip
TERMS = set(re.findall(r"^\| \*\*(.+?)\*\*", (FOLDER / "GLOSSARY.md").read_text(encoding="utf-8").lower(), re.M))
BOLD = re.compile(r"(?<![*\w])\*\*([^*\n]+?)\*\*(?![*\w])")
HTML_IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
FILLED_ALT = re.compile(r"\balt\s*=\s*(?:\"[^\"]*\S[^\"]*\"|'[^']*\S[^']*')", re.IGNORECASE)
PIP_INSTALL = re.compile(r"\bpip3?\s+install\b|\bpip['\"],\s*['\"]install\b")
IMAGE_TYPES = {"image/png", "image/jpeg", "image/svg+xml"}
FIGURE_WORDS = {"alt", "caption", "colour_label"}  # the plotting function writes the text; a lesson passes a title
# A cell that hides its result: a capture magic, a comment for nbval, a value thrown at _, a last line that ends in ";".
SILENCED = re.compile(r"^%%capture|\bcapture_output\(|^\s*# *NBVAL_|^_ = |;\s*\Z", re.MULTILINE)
BRITISH = re.compile(r"\w*(?:learnt|colour|neighbour|behaviour|optimis|normalis|tokenis|generalis|memoris)\w*", re.I)


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def lines(cell: dict) -> list[str]:
    return [line for line in cell["source"].splitlines() if line.strip()]


def opening(cell: dict) -> str:
    return cell["source"].strip().splitlines()[0][:60] if cell["source"].strip() else "(empty)"


def parsed(cell: dict) -> ast.Module:
    """Return the code of a cell, without the lines that only IPython understands."""
    return ast.parse(re.sub(r"^(\s*)[%!?].*", r"\1pass", cell["source"], flags=re.MULTILINE))


def has_text(cell: dict) -> bool:
    """Whether a reader sees more than a picture below the cell."""
    return any(output.get("text") or output.get("traceback") or set(output.get("data", {})) - IMAGE_TYPES
               for output in cell.get("outputs", []))


def structure(notebook: dict, name: str) -> list[str]:
    cells, code = notebook["cells"], code_cells(notebook)
    found = []
    if len({cell.get("id") for cell in cells}) != len(cells) or not all(cell.get("id") for cell in cells):
        found.append("cells lack an id, or share one")
    else:
        try:
            nbformat.validate(nbformat.from_dict(notebook))
        except nbformat.ValidationError as error:
            found.append(f"it is no valid notebook: {error.message}")
    if cells[0]["cell_type"] != "markdown" or not re.match(r"# \S", cells[0]["source"]):
        found.append("the first cell is not a markdown heading of the first level")
    lesson = [cell for cell in cells if "exercise" not in tags(cell)]
    if name in CORE and not 30 <= len(lesson) <= 82:
        found.append(f"{len(lesson)} cells; a core notebook has 30 to 82, without its exercises")
    share = 1 - len(code) / len(cells)
    if name in CORE and not 0.40 <= share <= 0.65:
        found.append(f"{share:.0%} of the cells are markdown; 40 to 65 % are asked for")
    lengths = [len(lines(cell)) for cell in code]
    if statistics.median(lengths) > 5:
        found.append(f"the median code cell has {statistics.median(lengths):g} lines; at most 5 are asked for")
    found += [f"a code cell has {len(lines(cell))} lines, more than 25: {opening(cell)}"
              for cell in code if len(lines(cell)) > 25]
    if len(long := [cell for cell in code if len(lines(cell)) > 15]) > 2:
        found.append(f"{len(long)} code cells have more than 15 lines, two may: {'; '.join(map(opening, long))}")
    found += [f"a line of {len(line)} characters is cut off on the page: {line.strip()[:60]}"
              for cell in code for line in lines(cell) if len(line) > 96]
    for kind, run in groupby(cells, key=lambda cell: cell["cell_type"]):
        run = list(run)
        if kind == "code" and len(run) > 3:
            found.append(f"{len(run)} code cells in a row, more than 3, from: {opening(run[0])}")
    found += [f"the set-up cell has {len(lines(cell))} lines, more than 5: {opening(cell)}"
              for cell in code if "setup" in tags(cell) and len(lines(cell)) > 5]
    return found


def teaching(notebook: dict, name: str) -> list[str]:
    """A lesson gives its first result soon, has parts, formulas or drawings, a recap, and questions."""
    if not name:
        return []
    cells, found = [cell for cell in notebook["cells"] if "exercise" not in tags(cell)], []
    bootstrap = [cell for cell in cells if "colab-bootstrap" in tags(cell)]
    if not all(cell["metadata"].get("jupyter", {}).get("source_hidden") for cell in bootstrap):
        found.append("the colab-bootstrap cell is not folded")
    first = next((number for number, cell in enumerate(cells)
                  if cell.get("outputs") and not {"setup", "colab-bootstrap"} & set(tags(cell))), 99)
    words = sum(len(cell["source"].split()) for cell in cells[:first] if cell["cell_type"] == "markdown")
    if first > 11 or words > 300:
        found.append(f"the first result is in cell {first} after {words} words, not before cell 12 and 300 words")
    text = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    asserts = sum(isinstance(node, ast.Assert) for cell in code_cells({"cells": cells})
                  if not cell["metadata"].get("jupyter", {}).get("source_hidden") for node in ast.walk(parsed(cell)))
    if asserts > 3:
        found.append(f"{asserts} asserts in cells that are not folded; three may be")
    parts = len(re.findall(r"^## Part \d · ", text, re.M))
    if not 3 <= parts <= 5 or text.count("*A good place to stop") < parts - 1:
        found.append(f"{parts} parts with {text.count('*A good place to stop')} places to stop; 3 to 5 are asked for")
    recap = re.search(r"^## In five sentences\s+(.+?)(?=^## |\Z)", text, re.M | re.S)
    sentences = re.split(r"(?<=[.?!])\s+(?=[A-Z*$`])", recap[1].strip()) if recap else []
    if len(sentences) != 5:
        found.append(f"the recap has {len(sentences)} sentences, not five")
    source = "\n".join(cell["source"] for cell in code_cells(notebook))
    found += [f"{needed} is missing" for needed in ("plots.drawing(", f'questions.check_yourself("{name}")', ".check(")
              if needed not in source]
    terms = {term.strip(".:,").lower() for term in BOLD.findall(text)}
    terms = {term for term in terms if not re.match(r"(question|read next|\d)", term)}
    if len(terms) > 14:
        found.append(f"{len(terms)} bold terms, more than 14: {sorted(terms)}")
    found += [f"the bold term {term!r} is not in the glossary" for term in sorted(terms)
              if not any(term.rstrip("s") in known for known in TERMS)]
    return found


def imports(notebook: dict, _name: str) -> list[str]:
    """A lesson imports all that it uses, in few lines, and no variable of it hides a module."""
    bootstrap = [cell for cell in code_cells(notebook) if "colab-bootstrap" in tags(cell)]
    code = [cell for cell in code_cells(notebook) if cell not in bootstrap]
    statements = (ast.Import, ast.ImportFrom)
    found = [f"an import cell has {len(lines(cell))} lines, more than 9: {opening(cell)}" for cell in code
             if len(lines(cell)) > 9 and all(isinstance(statement, statements) for statement in parsed(cell).body)]
    nodes = [node for cell in code for node in ast.walk(parsed(cell))]
    imported = {alias.asname or alias.name: node for node in nodes if isinstance(node, statements)
                for alias in node.names}
    borrowed = {alias.name for cell in bootstrap for node in ast.walk(parsed(cell)) if isinstance(node, ast.Import)
                for alias in node.names} - set(imported)
    if "*" in imported:
        found.append("an import of everything with *")
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in borrowed:
            found.append(f"{node.id} is used, but only the colab-bootstrap cell imports it")
        elif (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
              and getattr(imported.get(node.id), "module", "") == "llm_tutorial"):
            found.append(f"the variable {node.id} hides the module of this name")
    return found


def keywords(notebook: dict, _name: str) -> list[str]:
    """A cell with the comment "ignored by design" may show a keyword that has no effect."""
    calls = [node for cell in code_cells(notebook) if "ignored by design" not in cell["source"]
             for node in ast.walk(parsed(cell)) if isinstance(node, ast.Call)]
    called = [(ast.unparse(call.func).rpartition(".")[2], keyword.arg) for call in calls for keyword in call.keywords]
    return [f"{name} does not know {keyword}=" for name, keyword in called
            if keyword and keyword not in KNOWN.get(name, {keyword})]


def wording(notebook: dict, _name: str) -> list[str]:
    found = [f"{keyword.arg}= in a lesson: {opening(cell)}" for cell in code_cells(notebook)
             for node in ast.walk(parsed(cell)) if isinstance(node, ast.Call)
             for keyword in node.keywords if keyword.arg in FIGURE_WORDS]
    return found + [f"British spelling, {hit.group()!r}: {opening(cell)}" for cell in notebook["cells"]
                    for hit in BRITISH.finditer(cell["source"])]


def execution(notebook: dict, _name: str) -> list[str]:
    code = code_cells(notebook)
    found, counts = [], [cell["execution_count"] for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"execution counts are {counts}, not 1 to {len(code)}: run `make outputs`")
    meant = {"raises-exception", "nbval-raises-exception"}
    found += [f"an error is stored: {opening(cell)}" for cell in code if not meant & set(tags(cell))
              for output in cell["outputs"] if output["output_type"] == "error"]
    if "widgets" in notebook["metadata"]:
        found.append("the state of widgets is stored in metadata.widgets: remove it, GitHub refuses such notebooks")
    return found


def comparison(notebook: dict, _name: str) -> list[str]:
    """Cells that print nothing are nothing to compare; cells that could print but were silenced count as escaped."""
    found = [f"unknown tag {tag!r}: {opening(cell)}" for cell in notebook["cells"] for tag in tags(cell)
             if tag not in TAGS]
    shown = [cell for cell in code_cells(notebook) if has_text(cell) or SILENCED.search(cell["source"])]
    escaped = [cell for cell in shown if "nbval-ignore-output" in tags(cell) or SILENCED.search(cell["source"])]
    if len(escaped) > 0.2 * len(shown):
        found.append(f"{len(escaped)} of {len(shown)} cells with output are not compared, more than 20 %: "
                     + "; ".join(map(opening, escaped)))
    return found


def portability(notebook: dict, _name: str) -> list[str]:
    code = code_cells(notebook)
    bootstraps = [cell for cell in notebook["cells"] if "colab-bootstrap" in tags(cell)]
    found = [f"pip install outside the colab-bootstrap cell: {opening(cell)}" for cell in code
             if cell not in bootstraps and PIP_INSTALL.search(cell["source"])]
    if bootstraps and bootstraps != code[:1]:
        found.append("the cell tagged colab-bootstrap is not the first code cell, or not the only one")
    metadata = notebook["metadata"]
    if metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("metadata.kernelspec.name is not python3")
    if metadata.get("accelerator") != "GPU" or metadata.get("colab", {}).get("gpuType") != "T4":
        found.append('metadata lacks "accelerator": "GPU" or "colab": {"gpuType": "T4"}')
    return found


def pictures(notebook: dict, _name: str) -> list[str]:
    """A picture says in words what it shows, in its metadata (``alt``)."""
    found = []
    for cell in notebook["cells"]:
        sources = [cell["source"]] if cell["cell_type"] == "markdown" else []
        htmls = sources + [output.get("data", {}).get("text/html", "") for output in cell.get("outputs", [])]
        found += [f"an image without alt text in: {opening(cell)}"
                  for text in sources for alt in re.findall(r"!\[([^\]]*)\]\(", text) if not alt.strip()]
        found += [f"an <img> without alt text in: {opening(cell)}"
                  for text in htmls for image in HTML_IMAGE.findall(text) if not FILLED_ALT.search(image)]
        for output in cell.get("outputs", []):
            for kind in IMAGE_TYPES & set(output.get("data", {})):
                alt = output["metadata"].get(kind, {}).get("alt", "")
                if len(alt.strip()) < 20:
                    found.append(f"a figure whose alt text is {alt!r}, shorter than 20 characters: {opening(cell)}")
    return found


CHECKS = (structure, teaching, imports, keywords, wording, execution, comparison, portability, pictures)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_form(path, check):
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=nbformat.NO_CONVERT)
    found = check(notebook, path.stem if path.parent == FOLDER else "")
    assert not found, "\n".join([f"{path.name}:", *found])


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_lesson_can_be_exported_as_program_text_slides_and_page(path):
    """As Jupyter's "Save and Export Notebook As" does; without ``language_info`` a program would end in .txt."""
    exports = {kind: get_exporter(kind)().from_filename(str(path)) for kind in ("script", "markdown", "slides", "html")}
    assert [resources["output_extension"] for _, resources in exports.values()] == [
        ".py", ".md", ".slides.html", ".html"]
    ast.parse(exports["script"][0])
    title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ")
    assert [kind for kind, (body, _) in exports.items() if title not in body] == []


def edit(notebook, source, count=1):
    for cell in code_cells(notebook)[4 : 4 + count]:
        cell["source"] = source


def show(notebook, kind, **content):
    notebook["cells"][5]["outputs"].append(nbformat.v4.new_output(kind, **content))


# What each change to lesson 1 has to bring to light; its cell 4 is text, its cell 5 is code with an output.
FLAWS = [
    ("no valid notebook", lambda n: n["cells"][2].update(cell_type="codex")),
    ("not a markdown heading", lambda n: n["cells"][0].update(source="## Title")),
    ("more than 15 lines", lambda n: edit(n, "a = 1\n" * 16, 3)),
    ("is cut off on the page", lambda n: edit(n, "a = " + "1 + " * 30 + "1")),
    ("code cells in a row", lambda n: n["cells"].__delitem__(slice(6, 11, 2))),
    ("the first result is in cell", lambda n: n["cells"][4].update(source="word " * 301)),
    ("asserts in cells", lambda n: edit(n, "assert a", 4)),
    ("0 parts with", lambda n: [cell.update(source="x") for cell in n["cells"] if "## Part" in cell["source"]]),
    ("the recap has 0", lambda n: [cell.update(source="x") for cell in n["cells"] if "## In five" in cell["source"]]),
    ("'qwertz' is not in the glossary", lambda n: n["cells"][4].update(source="A **qwertz**.")),
    ("sys is used", lambda n: edit(n, "sys.path")),
    ("device hides the module", lambda n: edit(n, "from llm_tutorial import device\ndevice = device.pick_device()")),
    ("GPT2Config does not know n_ctx=", lambda n: edit(n, "transformers.GPT2Config(n_ctx=128)")),
    ("caption= in a lesson", lambda n: edit(n, "plots.lines({}, caption='x')")),
    ("British spelling, 'unlearnt'", lambda n: n["cells"][4].update(source="It is unlearnt.")),
    ("execution counts", lambda n: n["cells"][5].update(execution_count=None)),
    ("an error is stored", lambda n: show(n, "error", ename="E", evalue="e", traceback=["t"])),
    ("unknown tag 'x'", lambda n: n["cells"][5]["metadata"].update(tags=["x"])),
    ("not compared", lambda n: [cell["metadata"].update(tags=["nbval-ignore-output"]) for cell in code_cells(n)[4:]]),
    ("not compared", lambda n: edit(n, "figure();", 20)),
    ("is not the first code cell", lambda n: n["cells"][5]["metadata"].update(tags=["colab-bootstrap"])),
    ("pip install outside", lambda n: edit(n, "!pip install it")),
    ("an image without alt", lambda n: n["cells"][4].update(source="![](x.png)")),
    ("an <img> without", lambda n: n["cells"][4].update(source="<img src='x.png' alt=''>")),
    ("a figure whose alt text is ''", lambda n: show(n, "display_data", data={"image/png": "aGVsbG8="})),
]


@pytest.mark.parametrize(("flaw", "change"), FLAWS)
def test_each_flaw_is_found(flaw, change):
    notebook = nbformat.read(FOLDER / f"{CORE[0]}.ipynb", as_version=4)
    change(notebook)
    assert flaw in "\n".join(problem for check in CHECKS for problem in check(notebook, CORE[0]))
