"""What shows the notebooks: the widgets of both sides, and the kernel that runs the cells."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from llm_tutorial.diagnostics.finding import Finding

__all__ = ["kernel_findings", "widget_findings"]

# For each major version of ipywidgets: what draws its widgets in JupyterLab, and in Jupyter Notebook 6.
_FITTING = {"7": {"jupyterlab_widgets": "1", "widgetsnbextension": "3"},
            "8": {"jupyterlab_widgets": "3", "widgetsnbextension": "4"}}
# What jupyter_client replaces by the interpreter that asks for the kernel.
_ANY_PYTHON = {"python", f"python{sys.version_info[0]}", f"python{sys.version_info[0]}.{sys.version_info[1]}"}


def widget_findings() -> Iterator[Finding]:
    """Report ipywidgets, and whether the packages that draw the widgets belong to the same generation."""
    importlib.import_module("ipywidgets")
    found = metadata.version("ipywidgets")
    fitting = _FITTING.get(found.partition(".")[0], {})
    if not fitting:
        yield Finding("note", "ipywidgets", f"{found} is newer or older than what was tested (7.7 and 8)",
                      'python -m pip install "ipywidgets>=8,<9"')
    drawn_by, unfit = [], []
    for package, major in fitting.items():
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # Colab and VS Code bring their own
        drawn_by.append(f"{package} {version}")
        if version.partition(".")[0] != major:
            unfit.append(f"{package} {version} (needed: {major}.x)")
    if unfit:
        yield Finding("note", "widgets", f"ipywidgets {found} does not go with {', '.join(unfit)}: no playground shows",
                      "python -m pip install --force-reinstall ipywidgets")
    elif drawn_by:
        yield Finding("ok", "widgets", f"ipywidgets {found}, drawn by {', '.join(drawn_by)}")
    elif fitting:
        yield Finding("note", "widgets", f"ipywidgets {found}; JupyterLab would need jupyterlab_widgets to draw them",
                      "python -m pip install jupyterlab_widgets")


def kernel_findings() -> Iterator[Finding]:
    """Report the kernel ``python3``, which the notebooks name, and the interpreter that it starts."""
    if importlib.util.find_spec("jupyter_client") is None:
        yield Finding("note", "kernel", "jupyter_client is not installed, only needed for the extra [lab]",
                      'python -m pip install "jupyterlab>=4.2" ipykernel')
        return
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    install = "python -m ipykernel install --sys-prefix --name python3"
    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        yield Finding("FAIL", "kernel", "there is no kernel called python3, which the notebooks name",
                      f"python -m pip install ipykernel, then: {install}")
        return
    program = spec.argv[0] if spec.argv else ""
    folder = spec.resource_dir
    if program in _ANY_PYTHON:
        yield Finding("ok", "kernel", f"python3 starts this interpreter ({folder})")
    elif not Path(program).is_file():
        yield Finding("FAIL", "kernel", f"python3 in {folder} starts {program or 'nothing'}: no such file", install)
    elif _same_interpreter(program, sys.executable):
        yield Finding("ok", "kernel", f"python3 starts {program} ({folder})")
    else:
        yield Finding("note", "kernel", f"python3 in {folder} starts {program}, not {sys.executable}: notebooks see "
                      "what is installed there", install)


def _same_interpreter(one: str, other: str) -> bool:
    """Whether both names lead to one interpreter in one environment; a virtual one links to that of the system."""
    one, other = (os.path.normcase(os.path.abspath(path)) for path in (one, other))
    return os.path.dirname(one) == os.path.dirname(other) and os.path.samefile(one, other)
