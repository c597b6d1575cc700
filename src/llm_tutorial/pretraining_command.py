"""The command ``llm-tutorial pretrain``: its options, and how it starts itself again in several processes."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from llm_tutorial.console import positive, report_progress, writable_folder
from llm_tutorial.presets import PRESETS, Preset

__all__ = ["add_pretrain_command", "changed_fields"]

_FIELD = "preset_field_"
_DESCRIPTION = """
Train a GPT-2 from random weights, in one process or in several. It is kept in <output-dir>/model. A run that was
interrupted goes on when the same command is given again.
"""


def add_pretrain_command(commands: Any) -> None:
    """Add ``pretrain`` to the subparsers, with an option for each field of ``Preset``."""
    parser = commands.add_parser("pretrain", help="train a GPT-2 from scratch, in one process or in several",
                                 description=_DESCRIPTION)
    parser.add_argument("--preset", metavar="NAME", choices=list(PRESETS),
                        help=f"the recipe to begin with: {', '.join(PRESETS)} (default: the one for the device)")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="default: build/pretrain-<preset>")
    parser.add_argument("--data", nargs="+", default=["articles"], metavar="DATA",
                        help="articles (50, each chunked by itself), introductions (10,033, packed), stream (all of "
                             "Wikipedia, packed; needs --max-steps), or paths of text files (default: articles)")
    parser.add_argument("--documents", type=positive, metavar="N", help="train on no more than so many documents")
    parser.add_argument("--validation-documents", type=positive, metavar="N", help="hold out so many documents")
    parser.add_argument("--validate-with", nargs="+", metavar="DATA",
                        help="articles, introductions, or paths of text files: hold out documents of those, and train "
                             "on none of their titles (default: documents of --data)")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR",
                        help="a saved tokenizer, such as <output-dir>/model of an earlier run (default: the preset's)")
    parser.add_argument("--seed", type=int, default=42, metavar="N",
                        help="draws documents, weights and the order of the batches (default: 42)")
    parser.add_argument("--precision", choices=["fp32", "auto"], default="auto",
                        help="auto is bf16 or fp16 where that is fast (default: auto)")
    parser.add_argument("--save-every", type=positive, metavar="STEPS",
                        help="default: a tenth of all steps, at most 1,000")
    parser.add_argument("--log-every", type=positive, metavar="STEPS", help="default: a twentieth of all steps")
    parser.add_argument("--validate-every", type=positive, metavar="STEPS", help="default: a tenth of all steps")
    parser.add_argument("--validate-on-all", action="store_true",
                        help="take every validation loss on all chunks held out, not on 32 of them until the end")
    parser.add_argument("--no-resume", action="store_true", help="begin anew rather than from the newest checkpoint")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of the run there")
    parser.add_argument("--processes", type=positive, metavar="N", help="train in N processes on this machine")
    recipe = parser.add_argument_group("the recipe", "Fields of the preset. --batch is that of all processes together.")
    hints = get_type_hints(Preset)
    for field in fields(Preset):
        kinds = get_args(hints[field.name]) or (hints[field.name],)
        kind = next(kind for kind in kinds if kind is not NoneType)
        recipe.add_argument(
            f"--{field.name.replace('_', '-')}", dest=_FIELD + field.name, default=argparse.SUPPRESS,
            type=_value(kind, NoneType in kinds), metavar={int: "N", float: "X", str: "NAME"}[kind],
            help="or none" if NoneType in kinds else None)
    parser.set_defaults(command=_pretrain)


def changed_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of ``Preset`` that were given as options, with their values."""
    return {name.removeprefix(_FIELD): value for name, value in vars(arguments).items() if name.startswith(_FIELD)}


def _value(kind: type, optional: bool) -> Callable[[str], Any]:
    def value(text: str) -> Any:
        return None if optional and text.lower() == "none" else kind(text)

    value.__name__ = {int: "whole number", float: "number", str: "name"}[kind]  # argparse names it in its errors
    return value


def _pretrain(arguments: argparse.Namespace) -> int:
    from llm_tutorial.device import pick_device
    from llm_tutorial.launching import is_main_process, launch_processes, locked_folder, per_process_batch
    from llm_tutorial.presets import pick_preset
    from llm_tutorial.pretraining import pretrain
    from llm_tutorial.pretraining_checks import check_folder, check_recipe
    from llm_tutorial.reporting import quiet
    from llm_tutorial.saved_tokenizers import load_saved_tokenizer
    from llm_tutorial.splits import NAMES
    from llm_tutorial.validation import VALIDATION_NAMES

    quiet()
    data = _data("--data", arguments.data, NAMES)
    validate_with = arguments.validate_with and _data("--validate-with", arguments.validate_with, VALIDATION_NAMES)
    changes = changed_fields(arguments)
    preset = replace(pick_preset(arguments.preset or pick_device()), **changes)
    if data == "stream" and "stop_at" not in changes:
        preset = replace(preset, stop_at=None)  # chunks without end cannot be recited
    output_dir = arguments.output_dir or Path("build") / f"pretrain-{preset.name}"
    writable_folder(output_dir, "Choose another --output-dir.")
    if arguments.json is not None:
        if arguments.json.is_dir():
            raise IsADirectoryError(f"--json {arguments.json} is a folder. Name a file in it.")
        writable_folder(arguments.json.parent, "Choose another --json.")
    check_recipe(preset, data)
    if arguments.tokenizer is not None:
        load_saved_tokenizer(arguments.tokenizer, preset.vocabulary)  # refuses a wrong one before all else
    if _starts_processes(arguments.processes):
        per_process_batch(preset.batch, arguments.processes)
        with locked_folder(output_dir):  # so that a second run is told at once, before anything is started
            check_folder(output_dir, resume=not arguments.no_resume)
        status = launch_processes(arguments.processes, arguments.given)
        if status == 2:
            report_progress("llm-tutorial: error: a process failed, see above. Once the cause is removed, the same "
                            "command goes on from the newest checkpoint, if there is one.")
        return status
    figures = pretrain(
        preset, output_dir, data=data, documents=arguments.documents,
        validation_documents=arguments.validation_documents, validate_with=validate_with,
        tokenizer=arguments.tokenizer, seed=arguments.seed, precision=arguments.precision,
        save_every=arguments.save_every, log_every=arguments.log_every, validate_every=arguments.validate_every,
        validate_on_all=arguments.validate_on_all, resume=not arguments.no_resume,
        report=lambda line: print(line, flush=True))
    if is_main_process():
        if arguments.json is not None:
            from llm_tutorial.files import replace_file

            replace_file(arguments.json, json.dumps(figures, indent=1).encode())
        print(f"{figures['steps']} steps, validation loss {figures['validation_loss']:.3f} nats per token; the model "
              f"is in {figures['model']}")
    return 0


def _data(option: str, given: Sequence[str], names: Sequence[str]) -> str | list[str]:
    if len(given) == 1 and given[0] in names:
        return given[0]
    missing = [path for path in given if not Path(path).expanduser().exists()]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)}: no such file or folder. {option} takes one of "
                                f"{', '.join(names)}, or paths of text files.")
    return list(given)


def _starts_processes(processes: int | None) -> bool:
    """Whether to start processes; those that were started are given the same options."""
    if processes is None:
        return False
    if "WORLD_SIZE" not in os.environ:
        return processes > 1
    if os.environ["WORLD_SIZE"] != str(processes):
        raise ValueError(f"--processes {processes}, but a launcher has started {os.environ['WORLD_SIZE']} (WORLD_SIZE):"
                         " leave out --processes.")
    return False
