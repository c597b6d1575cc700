"""From the start of Python to the first prediction; a child process imports this, so it imports no large library."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llm_tutorial.benchmarks.children import run_child

if TYPE_CHECKING:
    from llm_tutorial.plots import Figure

__all__ = ["bench_load", "first_prediction", "load_figure", "load_table"]

MODELS = ("masked", "causal")
STAGES = ("start", "imports", "checking", "loading", "prediction")


def bench_load(
    models: Sequence[str] = MODELS, *, repeats: int = 3, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure the seconds from process start to the first prediction, and those of ``import llm_tutorial``.

    Every model is measured from the offline source.  Where ``LLM_TUTORIAL_SOURCE`` lets the hub's model be used, it is
    measured too: the results say whether it came from the hub or from its cache.

    Args:
        models: ``"masked"``, ``"causal"``.
        repeats: processes for each model and source, of which medians are given.
        report: gets a line of text at each stage, for progress.

    Raises:
        ValueError: unknown model or source, or ``repeats`` below 1.
        OSError: the offline causal model cannot be fetched, or a process failed that loads an offline one; one that
            loads from the hub and fails is told in the notes.
    """
    if repeats < 1 or not models or not set(models) <= set(MODELS):
        raise ValueError(f"models={tuple(models)}, repeats={repeats}: choose from {', '.join(MODELS)}, and at least 1 "
                         "repeat.")
    from llm_tutorial.benchmarks.measuring import summary
    from llm_tutorial.checkpoints import chosen_source
    from llm_tutorial.offline import fetch_causal_lm

    configured = chosen_source(None)[0]
    if "causal" in models:
        fetch_causal_lm(report=lambda line: report(f"load: {line}"))  # once, and before the clock runs
    report("load: import llm_tutorial")
    imports = _import_seconds(repeats)
    measured: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    notes = []
    for model in models:
        for source in dict.fromkeys(["offline", configured]):
            for number in range(repeats):
                try:
                    run = run_child(first_prediction, label=f"load: {model}, {source}, run {number + 1} of {repeats}",
                                    report=report, model=model, source=source, started=time.time())
                except OSError as error:
                    if source == "offline":
                        raise
                    notes.append(f"{model}: the hub's model could not be measured ({error})")
                    break
                found = run.pop("source")
                if source != "offline" and found == "offline":
                    notes.append(f"{model}: the hub's model is not in use here ({run['reason']})")
                    break
                run.pop("reason")
                measured.setdefault((model, found, run.pop("name")), []).append(run)
    return {
        "benchmark": "load", "settings": {"repeats": repeats, "source": configured},
        "import": imports, "notes": notes,
        "first_prediction": [{"model": model, "source": source, "name": name, **summary(runs)}
                             for (model, source, name), runs in measured.items()],
    }


def first_prediction(model: str, source: str, started: float) -> dict[str, Any]:
    """Load a model in this process, which has imported nothing large yet, and predict a token.

    Args:
        model: ``"masked"`` or ``"causal"``.
        started: when the process was started, as ``time.time()`` says.

    Returns:
        The seconds of each stage, their sum as ``total``, and which ``name`` from which ``source`` for what ``reason``:
        ``start`` is Python's own, ``imports`` those of what the package needs, ``checking`` finds the files and checks
        their hashes, ``loading`` reads tokenizer and weights, ``prediction`` is the first one.
    """
    times = [started, time.time()]
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    from llm_tutorial.checkpoints import load_checkpoint, resolve_checkpoint
    from llm_tutorial.decoding import next_tokens, top_predictions

    times.append(time.time())
    checkpoint = resolve_checkpoint(model, source=source)
    times.append(time.time())
    tokenizer, loaded = load_checkpoint(checkpoint, AutoModelForMaskedLM if model == "masked" else AutoModelForCausalLM)
    times.append(time.time())
    if model == "masked":
        top_predictions(loaded, tokenizer, f"Life is like a {tokenizer.mask_token} of chocolates.")
    else:
        next_tokens(loaded, tokenizer, "Swimming at the beach is")
    times.append(time.time())
    stages = {stage: after - before for stage, before, after in zip(STAGES, times[:-1], times[1:], strict=True)}
    return stages | {"total": times[-1] - started, "source": checkpoint.source, "name": checkpoint.name,
                     "reason": checkpoint.reason}


def _import_seconds(repeats: int) -> dict[str, Any]:
    """Seconds of a Python that imports the package, of one that does nothing, and the difference; medians."""
    from llm_tutorial.benchmarks.measuring import summary

    runs = []
    for _ in range(max(repeats, 5)):  # fractions of a second each
        empty, package = _python_seconds("pass"), _python_seconds("import llm_tutorial")
        runs.append({"empty_python": empty, "with_package": package, "difference": package - empty})
    return summary(runs)


def _python_seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began


def load_table(results: dict[str, Any]) -> str:
    """Return the results of ``bench_load`` as lines of text."""
    from llm_tutorial.benchmarks.measuring import text_table

    rows = [("seconds to the first prediction", *STAGES, "total", "runs")]
    rows += [(f"{found['model']}: {found['name']} ({found['source']})", *(f"{found[stage]:.2f}" for stage in STAGES),
              f"{found['total']:.2f}", f"{len(found['runs'])}") for found in results["first_prediction"]]
    imports = results["import"]
    return "\n".join([
        text_table(rows),
        f"import llm_tutorial: {imports['with_package']:.3f} s, of which an empty Python takes "
        f"{imports['empty_python']:.3f} s", *results["notes"], "medians; files that were read before are in memory"])


def load_figure(results: dict[str, Any]) -> Figure:
    """Draw the seconds of each stage, a chart per model and source."""
    from llm_tutorial.plots import panels

    charts = {f"{found['model']}: {found['name']} ({found['source']}), {found['total']:.2f} s":
              {stage: found[stage] for stage in STAGES} for found in results["first_prediction"]}
    alt = "Bar charts of the seconds from process start to the first prediction. " + " ".join(
        f"{title}: " + ", ".join(f"{stage} {value:.2f}" for stage, value in shares.items()) + "."
        for title, shares in charts.items())
    return panels(charts, xlabel="seconds", caption="From process start to the first prediction.", alt=alt)
