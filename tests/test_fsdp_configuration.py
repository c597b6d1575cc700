"""The configuration of FSDP that lesson 8 shows: the installed libraries read it and know every key.

FSDP itself needs GPUs: on a CPU accelerate falls back to plain data parallelism, so no test here runs it.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType
from transformers import TrainingArguments

from llm_tutorial import cli
from llm_tutorial.commands.pretrain import changed_preset
from llm_tutorial.training import PRESETS

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks/08_scaling_up.ipynb"


@pytest.fixture(scope="module")
def cells():
    return nbformat.read(NOTEBOOK, as_version=4).cells


@pytest.fixture
def config(cells, tmp_path):
    [source] = [cell.source for cell in cells if cell.cell_type == "code" and "fsdp_yaml = " in cell.source]
    [shown] = [ast.literal_eval(node.value) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)
               and node.targets[0].id == "fsdp_yaml"]
    (tmp_path / "fsdp.yaml").write_text(shown, encoding="utf-8")
    return load_config_from_file(str(tmp_path / "fsdp.yaml"))


def test_accelerate_reads_it_as_fsdp_and_knows_every_key(config):
    assert config.distributed_type is DistributedType.FSDP
    assert config.fsdp_config["fsdp_version"] == 2
    known = vars(launch_command_parser().parse_args(["program.py"]))  # unknown keys are taken without a word
    assert set(config.fsdp_config) <= set(known)


def test_the_arguments_of_the_trainer_mean_the_same(cells, config, tmp_path):
    shown = re.compile(r"`TrainingArguments\(\.\.\., (fsdp=[^`]+)\)`")
    [call] = [found for cell in cells for found in shown.findall(cell.source)]
    given = {word.arg: ast.literal_eval(word.value) for word in ast.parse(f"f({call})", mode="eval").body.keywords}
    plugin = TrainingArguments(str(tmp_path), use_cpu=True, **given).fsdp_plugin_args
    assert plugin["fsdp_version"] == config.fsdp_config["fsdp_version"]
    assert plugin["transformer_cls_names_to_wrap"] == config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"]
    assert plugin["reshard_after_forward"] == config.fsdp_config["fsdp_reshard_after_forward"]
    assert plugin["auto_wrap_policy"] == config.fsdp_config["fsdp_auto_wrap_policy"]


def test_the_commands_that_the_lesson_shows_are_accepted(cells):
    texts = [cell.source.replace("\\\n", " ") for cell in cells if cell.cell_type == "markdown"]
    shown = [line.split("pretrain ", 1)[1].split() for text in texts for line in text.splitlines()
             if line.startswith("    ") and "pretrain --" in line]
    assert len(shown) >= 4
    commands = [cli._parser().parse_args(["pretrain", *words]) for words in shown]
    assert len({command.output_dir for command in commands}) == len(commands), "a second run in one folder is refused"
    presets = [changed_preset(PRESETS[command.preset or "cpu"], command.set) for command in commands]
    assert [preset.muon_lr for command, preset in zip(commands, presets, strict=True)
            if command.preset == "cuda"] == [None], "the one for FSDP, where Muon would not have whole matrices"
