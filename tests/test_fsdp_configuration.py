"""The configuration of FSDP that lesson 5 shows: the installed libraries read it and know every key.

FSDP itself needs GPUs; on a CPU accelerate falls back to plain data parallelism, so no test here runs it.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType
from transformers import GPT2LMHeadModel, TrainingArguments

from llm_tutorial.pretraining_command import add_pretrain_command, changed_fields

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks/05_scaling_up.ipynb"


@pytest.fixture(scope="module")
def cells():
    return nbformat.read(NOTEBOOK, as_version=4).cells


@pytest.fixture
def shown(cells) -> str:
    """The text that the notebook gives to ``accelerate launch``."""
    (source,) = (cell.source for cell in cells if cell.cell_type == "code" and "fsdp_yaml = " in cell.source)
    return next(ast.literal_eval(node.value) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)
                and node.targets[0].id == "fsdp_yaml")


@pytest.fixture
def config(shown, tmp_path):
    (tmp_path / "fsdp.yaml").write_text(shown, encoding="utf-8")
    return load_config_from_file(str(tmp_path / "fsdp.yaml"))


def test_accelerate_reads_it_as_fsdp_of_the_second_version(config):
    assert config.distributed_type is DistributedType.FSDP
    assert config.fsdp_config["fsdp_version"] == 2
    assert config.num_processes > 1
    assert config.mixed_precision in ("no", "fp16", "bf16")


def test_every_key_is_an_option_of_the_launcher(config):
    """Accelerate takes keys that it does not know without a word."""
    known = vars(launch_command_parser().parse_args(["program.py"]))
    assert set(config.fsdp_config) <= set(known)


def test_what_it_wraps_is_the_block_of_a_gpt2(config):
    blocks = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
    assert set(blocks) <= set(GPT2LMHeadModel._no_split_modules)


def test_the_arguments_of_the_trainer_mean_the_same(cells, config, tmp_path):
    shown = re.compile(r"`TrainingArguments\(\.\.\., (fsdp=[^`]+)\)`")
    (call,) = (found for cell in cells for found in shown.findall(cell.source))
    given = {word.arg: ast.literal_eval(word.value) for word in ast.parse(f"f({call})", mode="eval").body.keywords}
    plugin = TrainingArguments(str(tmp_path), use_cpu=True, **given).fsdp_plugin_args
    assert plugin["fsdp_version"] == config.fsdp_config["fsdp_version"]
    assert plugin["transformer_cls_names_to_wrap"] == config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"]
    assert plugin["reshard_after_forward"] == config.fsdp_config["fsdp_reshard_after_forward"]
    assert plugin["auto_wrap_policy"] == config.fsdp_config["fsdp_auto_wrap_policy"]


def test_commands_that_the_lesson_names_exist(cells):
    """Every complete ``pretrain`` command in its text is one that the command line accepts."""
    import argparse

    parser = argparse.ArgumentParser(exit_on_error=False)
    add_pretrain_command(parser.add_subparsers())
    # A backslash at the end of a line joins it with the next one.
    texts = [re.sub(r" \\\n\s*", " ", cell.source) for cell in cells if cell.cell_type == "markdown"]
    commands = [found.split() for text in texts
                for found in re.findall(r"^    .*?(pretrain --[^\n]*?)(?: \.\.\.)?$", text, re.MULTILINE)]
    assert len(commands) >= 4
    parsed = [parser.parse_args(command) for command in commands]
    folders = [arguments.output_dir for arguments in parsed]
    assert len(set(folders)) == len(folders), "a second run in one folder is refused"
    assert "muon_lr" in changed_fields(parsed[-1]), "the last one is for FSDP, which Muon does not work with"
    assert changed_fields(parsed[-1])["muon_lr"] is None
