"""The commands and arguments that lesson 8 shows in its text are ones that the installed libraries take."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from transformers import TrainingArguments

from llm_tutorial import cli
from llm_tutorial.commands.pretrain import changed_preset
from llm_tutorial.training import PRESETS

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks/solutions/08_scaling_up.ipynb"


@pytest.fixture(scope="module")
def texts():
    return [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "markdown"]


def test_the_arguments_for_fsdp_name_the_block_and_the_version(texts, tmp_path):
    [call] = [found for text in texts for found in re.findall(r"`TrainingArguments\(\.\.\., (fsdp=[^`]+)\)`", text)]
    given = {word.arg: ast.literal_eval(word.value) for word in ast.parse(f"f({call})", mode="eval").body.keywords}
    plugin = TrainingArguments(str(tmp_path), use_cpu=True, **given).fsdp_plugin_args
    assert plugin["fsdp_version"] == 2
    assert plugin["transformer_cls_names_to_wrap"] in ("GPT2Block", ["GPT2Block"])


def test_the_commands_are_accepted(texts):
    shown = [line.split("pretrain ", 1)[1].split() for text in texts
             for line in text.replace("\\\n", " ").splitlines() if line.startswith("    ") and "pretrain --" in line]
    assert len(shown) >= 2
    commands = [cli._parser().parse_args(["pretrain", *words]) for words in shown]
    assert len({command.output_dir for command in commands}) == len(commands), "a second run in one folder is refused"
    assert all(changed_preset(PRESETS[command.preset or "cpu"], command.set) for command in commands)
