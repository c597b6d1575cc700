"""The doctor's deadlines, and installations so broken that the checks crash, hang, or cannot import anything."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import constants

import llm_tutorial
from llm_tutorial import corpus, hub
from llm_tutorial.diagnostics import checks, report, sources
from llm_tutorial.diagnostics.finding import Finding
from llm_tutorial.diagnostics.report import findings_of_process

PACKAGE = Path(llm_tutorial.__file__).parents[1]
FINE = '{"begin": "first"}\n{"finding": {"verdict": "ok", "what": "first", "detail": "good", "remedy": ""}}\n'


def found_by(script: str, seconds: float = 120.0) -> list[Finding]:
    return list(findings_of_process([sys.executable, "-c", script], seconds))


def test_findings_arrive_and_other_lines_do_not():
    script = f"print('a banner'); print({FINE!r} + '{{\"done\": true}}')"
    assert found_by(script) == [Finding("ok", "first", "good")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals that end a process")
def test_a_crash_names_the_check_and_the_signal():
    script = (f"import os, sys; print({FINE!r} + '{{\"begin\": \"import torch\"}}', flush=True); "
              "print('Illegal instruction', file=sys.stderr, flush=True); os.kill(os.getpid(), 11)")
    first, crash = found_by(script)
    assert first.detail == "good"
    assert (crash.verdict, crash.what) == ("FAIL", "import torch")
    assert "SIGSEGV" in crash.detail
    assert "Illegal instruction" in crash.detail
    assert crash.remedy == "python -m pip install --force-reinstall torch"


def test_an_end_before_the_last_check_is_no_success():
    [first, end] = found_by(f"print({FINE!r}, flush=True); raise SystemExit(3)")
    assert first.detail == "good"
    assert (end.verdict, end.what) == ("FAIL", "first")
    assert "exit status 3" in end.detail


def test_a_line_cut_short_is_no_crash_of_the_report():
    [end] = found_by("print('{\"begin\": \"first\"}\\n{\"find', end='', flush=True)")
    assert (end.verdict, end.what) == ("FAIL", "first")


def test_a_process_that_hangs_is_stopped_in_time():
    started = time.monotonic()
    script = (f"import time; print({FINE!r}, flush=True)\nfor _ in range(100): "
              "print('{\"begin\": \"import torch\"}', flush=True); time.sleep(0.2)")
    fine, hang = found_by(script, seconds=3.0)
    assert time.monotonic() - started < 3 + 5
    assert fine.verdict == "ok"
    assert (hang.verdict, hang.what) == ("FAIL", "import torch")
    assert "did not end within 3 s" in hang.detail  # it is no longer true that nothing was heard


def test_a_process_that_says_no_more_and_does_not_end_is_stopped_in_time():
    started = time.monotonic()
    fine, hang = found_by(f"import os, time; print({FINE!r}, flush=True); os.close(1); time.sleep(600)", seconds=3.0)
    assert time.monotonic() - started < 3 + 5
    assert (fine.verdict, hang.verdict, hang.what) == ("ok", "FAIL", "first")
    assert "did not end within 3 s" in hang.detail


def test_a_process_that_cannot_be_killed_does_not_hold_the_doctor(monkeypatch):
    """As one that waits for a dead network disk."""
    children = []

    class Unkillable(subprocess.Popen):
        def kill(self):
            children.append(self)

    monkeypatch.setattr(report.subprocess, "Popen", Unkillable)
    started = time.monotonic()
    script = "import time; print('{\"begin\": \"hub cache\"}', flush=True); time.sleep(20)"
    [hang] = found_by(script, seconds=3.0)
    taken = time.monotonic() - started
    for child in children:
        child.terminate()
        child.wait(timeout=20)
        child.stdout.close()
    assert taken < 3 + 5
    assert (hang.verdict, hang.what) == ("FAIL", "hub cache")


def test_a_check_that_hangs_leaves_time_for_the_next(monkeypatch):
    released = threading.Event()

    def hangs():
        released.wait(600)
        return []

    fine = Finding("ok", "second", "good")
    monkeypatch.setattr(checks, "all_checks", lambda: [
        checks.Check("first", hangs, 0.01), checks.Check("second", lambda: [fine])])
    started = time.monotonic()
    hang, second = checks.findings(60.0)
    assert time.monotonic() - started < 30
    released.set()
    assert (hang.verdict, hang.what) == ("FAIL", "first")
    assert "not finished within 1 s" in hang.detail
    assert "--seconds" in hang.remedy
    assert second == fine


def test_what_was_not_begun_in_time_is_named_as_a_failure(monkeypatch):
    monkeypatch.setattr(checks, "all_checks", lambda: [checks.Check(name, lambda: []) for name in ("first", "second")])
    [finding] = checks.findings(0.0)
    assert finding.verdict == "FAIL"
    assert "first, second" in finding.detail


def test_shares_leave_no_check_without_time():
    assert all(0 < check.share < 1 for check in checks.all_checks())


def test_a_hub_that_never_answers_costs_its_deadline(monkeypatch, tmp_path):
    monkeypatch.delenv("LLM_TUTORIAL_SOURCE")
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "cached_snapshot", lambda *_: None)
    hub.forget_answers()
    with HubServer([]) as server:
        server.set_fault("silence")
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        started = time.monotonic()
        found = list(sources.hub_repositories(seconds=0.5))
        assert time.monotonic() - started < 3.5  # less than one request may take
    hub.forget_answers()
    assert [finding.verdict for finding in found] == ["note"] * 3
    assert found[-1].what == corpus.REPOSITORY
    assert all("no answer within 0.5 s" in finding.detail for finding in found)


def test_answers_are_awaited_together():
    started = time.monotonic()
    late = threading.Event()
    answers = sources.answers_within(1.0, {"a": lambda: late.wait(600), "b": lambda: late.wait(600), "c": lambda: "no"})
    assert time.monotonic() - started < 1.9
    late.set()
    assert answers == {"a": "no answer within 1 s", "b": "no answer within 1 s", "c": "no"}


def run_doctor(tmp_path: Path, module: str, source: str, seconds: int) -> tuple[int, dict[str, Finding], float]:
    """Run the command where ``module`` is one with this source text; return status, findings, and seconds taken."""
    poison = tmp_path / "poison" / module
    poison.mkdir(parents=True)
    (poison / "__init__.py").write_text(source, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(poison.parent), str(PACKAGE)]),
                                "HF_HUB_OFFLINE": "1", "LLM_TUTORIAL_CACHE": str(tmp_path / "cache")}  # fmt: skip
    command = [sys.executable, "-m", "llm_tutorial", "doctor", "--json", "--seconds", str(seconds)]
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + 60)
    assert done.stdout.startswith("["), done.stderr
    return done.returncode, {entry["what"]: Finding(**entry) for entry in json.loads(done.stdout)}, \
        time.monotonic() - started


@pytest.mark.parametrize("module", ["torch", "numpy", "transformers", "platformdirs"])
def test_starts_where_a_library_does_not_import(tmp_path, module):
    status, found, _ = run_doctor(tmp_path, module, "raise ImportError('it is from another system')", 500)
    assert status == 1
    assert found[f"import {module}"].verdict == "FAIL"
    assert "it is from another system" in found[f"import {module}"].detail
    assert module in found[f"import {module}"].remedy
    assert found["Python"].verdict == "ok"
    assert found["import safetensors"].verdict == "ok"
    assert found["kernel"].verdict == ("note" if module == "platformdirs" else "ok")  # which Jupyter needs as well
    broken = {"torch": "device", "numpy": "needs", "transformers": "interfaces", "platformdirs": "bundled data"}[module]
    assert found[broken].verdict == "note"
    assert "a library is missing" in found[broken].detail


@pytest.mark.parametrize("hang", [
    "import time; time.sleep(600)",
    "import re; re.match('(a+)+b', 'a' * 100)",  # holds the interpreter, so that no other thread goes on
], ids=["alone", "with all threads"])
def test_ends_in_time_where_an_import_hangs(tmp_path, hang):
    status, found, seconds = run_doctor(tmp_path, "torch", hang, 6)
    assert status == 1
    assert seconds < 6 + 5
    failed = [name for name, finding in found.items() if finding.verdict == "FAIL"]
    assert failed[0] == "import torch"


def test_importing_the_doctor_imports_no_large_library():
    script = "import sys, llm_tutorial.diagnostics.checks; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(PACKAGE)}, timeout=120,
                          capture_output=True, text=True, check=True)
    large = {"torch", "transformers", "datasets", "numpy", "pandas", "huggingface_hub", "platformdirs", "packaging"}
    assert not large & set(done.stdout.split())
    assert "llm_tutorial.diagnostics.needs" in done.stdout.split()
