"""The files around the project: valid by their schemas, and their commands are those of the README and the Makefile."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llm_tutorial import __version__

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
CONFIG = ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"
FORMS = sorted({*CONFIG.parent.glob("*.yml")} - {CONFIG})


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def is_documented(command):
    """Whether a line is a target of the Makefile, or stands in a block of commands of the documents."""
    if command.startswith("make "):
        return command.split()[1:] == re.findall(rf"^({re.escape(command.split()[1])}):", text_of("Makefile"), re.M)
    documents = "\n".join(map(text_of, ("README.md", "CONTRIBUTING.md", "docs/COMMANDS.md", "docs/INSTALLING.md")))
    lines = {line.partition("  ")[0].strip() for line in re.findall(r"^ {4}(\S.*)", documents, re.M)}
    return command in lines or command == ".ci/run"


@pytest.mark.parametrize(("schema", "files"), [
    ("github-workflows", WORKFLOWS), ("github-issue-forms", FORMS), ("citation-file-format", [ROOT / "CITATION.cff"]),
    ("github-issue-config", [CONFIG]),
])
def test_files_are_valid_by_their_schema(schema, files):
    pytest.importorskip("check_jsonschema", reason="it comes with the extra test")
    done = subprocess.run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, len(files) > 0) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_documented_commands_with_pinned_actions_and_least_permissions(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    lines = [line for step in steps for line in step.get("run", "").splitlines()]
    assert lines
    assert [line for line in lines if not is_documented(line)] == []
    assert re.findall(r"uses: (?!actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$).*", path.read_text(), re.M) == []
    assert workflow["permissions"] == {"contents": "read"}
    granted = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    assert granted in ({}, {"deploy": {"pages": "write", "id-token": "write"}})


def test_the_commands_of_the_dev_container_binder_and_conda_are_those_of_the_readme():
    container = json.loads(text_of(".devcontainer/devcontainer.json"))
    assert is_documented(container["postCreateCommand"])
    *_, fetch = text_of("binder/postBuild").splitlines()
    assert is_documented(fetch)
    assert text_of("binder/requirements.txt").splitlines()[1:] == ["-c ../constraints.txt", "-e .[lab]"]
    [conda] = [part["pip"] for part in yaml.safe_load(text_of("environment.yml"))["dependencies"]
               if isinstance(part, dict)]
    assert is_documented(f'python -m pip install -e "{conda[1].removeprefix("-e ")}" {conda[0]}')


def test_the_issue_forms_ask_for_what_the_commands_print(capsys):
    from llm_tutorial.cli import main

    commands = re.findall(r"`llm-tutorial ([^`]+)`", "\n".join(form.read_text(encoding="utf-8") for form in FORMS))
    assert "doctor --json" in commands
    for command in commands:
        with pytest.raises(SystemExit, match="0"):
            main([*command.split(), "--help"])
    assert "usage: llm-tutorial doctor" in capsys.readouterr().out


def test_version_numbers_agree_and_the_newest_changes_are_described():
    assert yaml.safe_load(text_of("CITATION.cff"))["version"] == __version__
    assert f"llm_tutorial-{__version__}-py3" in text_of("CONTRIBUTING.md")
    newest = re.search(r"^## (.+)", text_of("CHANGELOG.md"), re.M)[1]
    assert newest == __version__ or newest.endswith("not yet released")
