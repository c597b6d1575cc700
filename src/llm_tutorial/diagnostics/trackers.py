"""Experiment trackers that would join a training run without being asked."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping

from llm_tutorial.diagnostics.finding import Finding
from llm_tutorial.diagnostics.variables import is_true

__all__ = ["tracker_findings"]

# The module of each, how the variables that configure it begin, and the setting that switches it off.
_TRACKERS = {
    "wandb": (("WANDB_",), ("WANDB_MODE", "disabled")),
    "mlflow": (("MLFLOW_", "HF_MLFLOW_"), ("DISABLE_MLFLOW_INTEGRATION", "true")),
    "comet_ml": (("COMET_",), ("COMET_MODE", "disabled")),
    "tensorboard": (("TENSORBOARD_LOGGING_DIR",), None),
    "clearml": (("CLEARML_",), None),
    "neptune": (("NEPTUNE_",), ("NEPTUNE_MODE", "debug")),
    "swanlab": (("SWANLAB_",), ("SWANLAB_MODE", "disabled")),
    "trackio": (("TRACKIO_",), None),
    "dvclive": (("DVCLIVE_", "HF_DVCLIVE_"), None),
    "codecarbon": (("CODECARBON_",), None),
}


def tracker_findings(
    environ: Mapping[str, str] = os.environ, is_installed: Callable[[str], bool] | None = None,
) -> Iterator[Finding]:
    """Report trackers that are installed and that variables configure, and whether a Trainer asks them by default.

    Since transformers 5 it does not; the values of the variables are not shown, for some are keys.
    """
    from transformers import TrainingArguments

    is_installed = is_installed or (lambda module: importlib.util.find_spec(module) is not None)
    fields = {field.name: field for field in dataclasses.fields(TrainingArguments)}
    default = fields["report_to"].default
    default = "all" if default is None else default  # as transformers 4 has it
    found = []
    for module, (prefixes, off) in _TRACKERS.items():
        names = sorted(name for name in environ if name.startswith(prefixes))
        is_off = off is not None and environ.get(off[0], "").strip().lower() == off[1]
        if names and not is_off and is_installed(module):
            found.append(Finding(
                "note", module, f"is installed, and {', '.join(names)} set: it records runs that name it or \"all\" in "
                f"report_to (by default {default!r} here)", "leave report_to at \"none\", as the package sets it"))
    # The one that joins in whatever report_to says.
    if environ.get("KUBEFLOW_TRAINER_SERVER_URL") and not is_true(environ.get("DISABLE_KUBEFLOW_INTEGRATION", "")):
        found.append(Finding("note", "kubeflow", "KUBEFLOW_TRAINER_SERVER_URL is set: a Trainer sends it its progress, "
                             "whatever report_to says", "set DISABLE_KUBEFLOW_INTEGRATION=TRUE"))
    yield from found or [Finding("ok", "trackers", f"none is switched on; report_to is {default!r} by default")]
