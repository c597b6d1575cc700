"""The command ``llm-tutorial bench``; the benchmarks, and the libraries they need, are imported when it runs."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_tutorial.console import positive, report_progress, writable_folder

if TYPE_CHECKING:
    from llm_tutorial.plots import Figure

__all__ = ["add_bench_command"]


def add_bench_command(commands: Any) -> None:
    """Add ``bench`` to the subparsers of a command line."""
    bench = commands.add_parser("bench", help="measure speed, memory and start-up; minutes for each kind", description=(
        "Measure on this machine: how soon a model recites its text (recite), training (throughput), cutting "
        "documents into chunks (tokenise), writing text (generate), and the time to the first prediction (load)."))
    bench.add_argument("kind", nargs="?", choices=tuple(_KINDS), metavar="KIND",
                       help=f"{', '.join(_KINDS)}; default: all, one after the other")
    bench.add_argument("--repeats", type=positive, default=3, metavar="N", help="runs, of which medians are shown")
    bench.add_argument("--json", action="store_true", help="print all figures as one JSON object")
    bench.add_argument("--plot", type=Path, metavar="FILE", help="PNG to draw to (default: build/bench-KIND.png)")
    bench.add_argument("--preset", metavar="NAME", help="for recite, throughput (default: the one for this device)")
    bench.add_argument("--steps", type=positive, metavar="N", help="for throughput: steps of a run (default: 20)")
    bench.add_argument("--documents", type=int, metavar="N",
                       help="for tokenise: documents, and a tenth of it beside them (default: 10000)")
    bench.add_argument("--full-size-steps", type=int, metavar="N",
                       help="for recite: steps of the full GPT-2 to measure (default: 3; 0: none)")
    bench.set_defaults(command=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    """Measure the kinds asked for; what one of several cannot do is told, and the others follow."""
    kinds = [arguments.kind] if arguments.kind else list(_KINDS)
    plots = _checked(arguments, kinds)

    from llm_tutorial.benchmarks.measuring import machine
    from llm_tutorial.device import pick_device
    from llm_tutorial.reporting import quiet

    quiet()
    results: dict[str, Any] = {"machine": machine(pick_device()), "results": {}, "plots": {}, "errors": {}}
    _warn_if_busy(results["machine"])
    if not arguments.json:
        print(_machine_line(results["machine"]), flush=True)
    try:
        for kind in kinds:
            try:
                found, table, figure = _KINDS[kind](arguments)
            except (OSError, ValueError, FloatingPointError, RuntimeError, subprocess.SubprocessError) as error:
                if arguments.kind:
                    raise
                results["errors"][kind] = str(error)
                report_progress(f"llm-tutorial: error: {kind}: {error}")
                continue
            results["results"][kind] = found
            if not arguments.json:
                print(f"\n{kind}\n{table}", flush=True)
            _write_plot(plots[kind], figure)
            results["plots"][kind] = {"file": str(plots[kind]), "alt": figure.alt}
            if not arguments.json:
                print(f"Figure {plots[kind]}: {figure.alt}", flush=True)
    finally:  # interrupted, those that are finished are not lost
        if arguments.json and results["results"]:
            print(json.dumps(results, indent=2), flush=True)
    return 2 if results["errors"] else 0


def _recite(arguments: argparse.Namespace) -> tuple[dict[str, Any], str, Figure]:
    from llm_tutorial.benchmarks.recite import bench_recite, recite_figure, recite_table

    found = bench_recite(arguments.preset, repeats=arguments.repeats, report=report_progress,
                         full_size_steps=3 if arguments.full_size_steps is None else arguments.full_size_steps)
    return found, recite_table(found), recite_figure(found)


def _throughput(arguments: argparse.Namespace) -> tuple[dict[str, Any], str, Figure]:
    from llm_tutorial.benchmarks.throughput import bench_throughput, throughput_figure, throughput_table

    found = bench_throughput(arguments.preset, repeats=arguments.repeats, steps=arguments.steps or 20,
                             report=report_progress)
    return found, throughput_table(found), throughput_figure(found)


def _tokenise(arguments: argparse.Namespace) -> tuple[dict[str, Any], str, Figure]:
    from llm_tutorial.benchmarks.tokenization import bench_tokenise, tokenise_figure, tokenise_table

    documents = arguments.documents or 10_000
    found = bench_tokenise((documents // 10, documents), repeats=arguments.repeats, report=report_progress)
    return found, tokenise_table(found), tokenise_figure(found)


def _generate(arguments: argparse.Namespace) -> tuple[dict[str, Any], str, Figure]:
    from llm_tutorial.benchmarks.generation import bench_generate, generate_figure, generate_table

    found = bench_generate(repeats=arguments.repeats, report=report_progress)
    return found, generate_table(found), generate_figure(found)


def _load(arguments: argparse.Namespace) -> tuple[dict[str, Any], str, Figure]:
    from llm_tutorial.benchmarks.loading import bench_load, load_figure, load_table

    found = bench_load(repeats=arguments.repeats, report=report_progress)
    return found, load_table(found), load_figure(found)


_KINDS: dict[str, Callable[[argparse.Namespace], tuple[dict[str, Any], str, Any]]] = {
    "recite": _recite, "throughput": _throughput, "tokenise": _tokenise, "generate": _generate, "load": _load}
_KINDS_OF_OPTIONS = {"preset": ("recite", "throughput"), "steps": ("throughput",), "documents": ("tokenise",),
                     "full_size_steps": ("recite",)}


def _checked(arguments: argparse.Namespace, kinds: list[str]) -> dict[str, Path]:
    """Return the file of each kind's plot once all options are known to make sense, before anything is measured."""
    for option, of_kinds in _KINDS_OF_OPTIONS.items():
        if getattr(arguments, option) is not None and not set(of_kinds) & set(kinds):
            raise ValueError(f"--{option.replace('_', '-')} is for {' and '.join(of_kinds)}, not for {kinds[0]}: "
                             "leave it out.")
    if arguments.documents is not None and arguments.documents < 100:
        raise ValueError(f"--documents {arguments.documents}: give at least 100, because a tenth is measured too.")
    if arguments.full_size_steps is not None and arguments.full_size_steps < 0:
        raise ValueError(f"--full-size-steps {arguments.full_size_steps}: give 0 or more.")
    if arguments.preset is not None:
        from llm_tutorial.presets import pick_preset

        pick_preset(arguments.preset)
    if arguments.plot is None:
        plots = {kind: Path("build") / f"bench-{kind}.png" for kind in kinds}
    elif len(kinds) > 1:
        raise ValueError(f"--plot {arguments.plot} is one file, but {len(kinds)} kinds give one each: name a KIND, or "
                         "leave --plot out.")
    else:
        plots = {kinds[0]: arguments.plot}
    for path in plots.values():
        _check_plot(path)
    return plots


def _check_plot(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise ValueError(f"--plot {path}: the picture is a PNG, so give a name that ends in .png.")
    writable_folder(path.parent, "Choose another --plot.")
    if path.is_dir():
        raise IsADirectoryError(f"--plot {path} is a folder: name a file in it.")


def _write_plot(path: Path, figure: Figure) -> None:
    """Write the picture with its alternative text as the PNG's description."""
    import io

    from PIL import Image, PngImagePlugin

    from llm_tutorial.files import replace_file

    texts, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    texts.add_itxt("Description", figure.alt)
    with Image.open(io.BytesIO(figure.png)) as image:
        image.save(buffer, "PNG", pnginfo=texts)
    replace_file(path, buffer.getvalue())


def _machine_line(found: dict[str, Any]) -> str:
    return (f"{found['device']} ({found['device_reason']}), {found['precision']}; {found['processor']}, "
            f"{found['threads']} of {found['processors']} processors; {found['system']}; Python {found['python']}, "
            f"torch {found['torch']}, transformers {found['transformers']}, datasets {found['datasets']}")


def _warn_if_busy(found: dict[str, Any]) -> None:
    load, processors = found["load_average"], found["processors"] or os.cpu_count() or 1
    if load is not None and load > processors / 2:
        print(f"bench: {load:.1f} processes were at work on {processors} processors in the last minute. Close what "
              "else is running, or the figures say more about that.", file=sys.stderr, flush=True)
