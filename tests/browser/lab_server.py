"""A JupyterLab of its own for the tests: a free port of 127.0.0.1, a token, a folder that is thrown away."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llm_tutorial.execution import REFERENCE_ENVIRONMENT

__all__ = ["LabServer", "running_lab"]

START_SECONDS = 120
# What JupyterLab would ask in a window of its own on a first visit, or ask of the network; all else as readers have it.
SETTINGS = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}


@dataclass(frozen=True)
class LabServer:
    """Where a JupyterLab answers, and the folder whose notebooks it opens."""

    url: str
    token: str
    folder: Path

    def page_of(self, notebook: str) -> str:
        """Return the address at which JupyterLab opens one notebook of the folder, in a workspace without tabs."""
        return f"{self.url}/lab/tree/{notebook}?token={self.token}&reset"

    def ask(self, path: str, method: str = "GET") -> bytes:
        """Return what the server's interface answers; raises URLError if it does not."""
        request = urllib.request.Request(
            f"{self.url}/{path}", method=method, headers={"Authorization": f"token {self.token}"})
        with _without_proxy().open(request, timeout=30) as answer:
            return answer.read()

    def end_kernels(self) -> None:
        """End every kernel, so that the next notebook has the memory and the cores."""
        for session in json.loads(self.ask("api/sessions")):
            self.ask(f"api/sessions/{session['id']}", "DELETE")


@contextmanager
def running_lab(folder: Path, state: Path) -> Iterator[LabServer]:
    """Run JupyterLab on ``folder`` while the block runs; its settings, its log and all it writes go to ``state``.

    The kernels see the bundled models and data on the CPU, and else what a reader's kernel sees: live figures,
    progress bars, playgrounds.

    Raises:
        RuntimeError: JupyterLab ended, or did not answer, within two minutes; the end of its log is quoted.
    """
    for name, values in SETTINGS.items():
        path = state / "lab-settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    port, token = _free_port(), secrets.token_urlsafe(16)
    server = LabServer(f"http://127.0.0.1:{port}", token, folder)
    log = state / "jupyterlab.log"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
               "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
               f"--ServerApp.root_dir={folder}", "--LabApp.extension_manager=readonly"]
    with log.open("wb") as output, subprocess.Popen(
            command, cwd=folder, env=_environment(state, token), stdout=output, stderr=output) as process:
        try:
            _wait_until_it_answers(server, process, log)
            yield server
            server.end_kernels()
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def _environment(state: Path, token: str) -> dict[str, str]:
    """A reader's environment with the bundled models and data; the tests' own settings and the user's are left out."""
    kept = {name: value for name, value in os.environ.items()
            if name not in REFERENCE_ENVIRONMENT and not name.startswith(("JUPYTER", "IPYTHON"))}
    return kept | {
        "LLM_TUTORIAL_SOURCE": "offline",
        "LLM_TUTORIAL_DEVICE": "cpu",
        "LLM_TUTORIAL_PRECISION": "fp32",
        "JUPYTER_TOKEN": token,  # on the command line, every user of the machine could read it
        "JUPYTER_CONFIG_DIR": str(state / "config"),
        "JUPYTER_DATA_DIR": str(state / "data"),
        "JUPYTER_RUNTIME_DIR": str(state / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(state / "lab-settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(state / "lab-workspaces"),
        "IPYTHONDIR": str(state / "ipython"),
    }


def _wait_until_it_answers(server: LabServer, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            server.ask("api/status")
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    what = f"ended with status {process.returncode}" if process.returncode is not None else "does not answer"
    raise RuntimeError(f"JupyterLab {what} at {server.url}. Its log ends:\n"
                       f"{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _without_proxy() -> urllib.request.OpenerDirector:
    """127.0.0.1 is no place to be reached through a proxy, whatever the machine's variables say."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
