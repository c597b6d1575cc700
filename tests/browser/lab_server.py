"""``llm-tutorial lab`` for the tests: a free port of 127.0.0.1, a token, a folder that is thrown away."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llm_tutorial.commands.run import REFERENCE_ENVIRONMENT

START_SECONDS = 120
# JupyterLab would ask for leave in a window of its own, and then ask the network; all else is as readers have it.
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}
WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class LabServer:
    """Where a JupyterLab answers, and the folder whose notebooks it opens."""

    url: str
    token: str
    folder: Path

    def ask(self, path: str, method: str = "GET") -> bytes:
        """Return what the server's interface answers; raises OSError if it does not."""
        request = urllib.request.Request(
            f"{self.url}/{path}", method=method, headers={"Authorization": f"token {self.token}"})
        with WITHOUT_PROXY.open(request, timeout=30) as answer:
            return answer.read()

    def end_kernels(self) -> None:
        """End every kernel, so that the next notebook has the memory and the cores."""
        for session in json.loads(self.ask("api/sessions")):
            self.ask(f"api/sessions/{session['id']}", "DELETE")


@contextmanager
def running_lab(folder: Path, state: Path) -> Iterator[LabServer]:
    """Run JupyterLab on ``folder``, which is called notebooks; its settings, log and all it writes go to ``state``.

    The kernels see the bundled models and data on the CPU, and else what a reader's kernel sees: live figures,
    progress bars, playgrounds.
    """
    path = state / "lab-settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(NO_NEWS), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = LabServer(f"http://127.0.0.1:{port}", secrets.token_urlsafe(16), folder)
    log = state / "jupyterlab.log"
    command = [sys.executable, "-m", "llm_tutorial", "lab", "--no-browser", "--allow-root", "--expose-app-in-browser",
               "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
               "--LabApp.extension_manager=readonly"]
    with log.open("wb") as output, subprocess.Popen(
            command, cwd=folder.parent, env=_environment(state, server.token), stdout=output, stderr=output) as process:
        try:
            _wait_until_it_answers(server, process, log)
            yield server
        finally:
            process.terminate()  # it ends the kernels
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            process.kill()


def _environment(state: Path, token: str) -> dict[str, str]:
    """A reader's environment with the bundled models and data; the tests' own settings and the user's are left out."""
    kept = {name: value for name, value in os.environ.items()
            if name not in REFERENCE_ENVIRONMENT and not name.startswith(("JUPYTER", "IPYTHON"))}
    chosen = {name: REFERENCE_ENVIRONMENT[name]
              for name in ("LLM_TUTORIAL_SOURCE", "LLM_TUTORIAL_DEVICE", "LLM_TUTORIAL_PRECISION")}
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
               "JUPYTERLAB_SETTINGS_DIR": "lab-settings", "JUPYTERLAB_WORKSPACES_DIR": "lab-workspaces",
               "IPYTHONDIR": "ipython"}
    # The token is no argument: every user of the machine could read it.
    return kept | chosen | {"JUPYTER_TOKEN": token} | {name: str(state / part) for name, part in folders.items()}


def _wait_until_it_answers(server: LabServer, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            server.ask("api/status")
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab does not answer at {server.url} (status {process.returncode}). Its log ends:\n"
                       f"{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")
