"""Processes of one training: what each is told, what is shown, and that none is left behind."""

import _thread
import os
import signal
import subprocess
import threading
import time

import pytest

from llm_tutorial.launching import run_processes

NAMES = "RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR MORE"


def test_each_process_knows_its_rank_and_what_it_prints_is_shown(capsys, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")  # as a console of Windows may have it
    run_processes(["-c", f"import os; print(*(os.environ[name] for name in '{NAMES}'.split()))"], 2, MORE="möre")
    assert sorted(capsys.readouterr().out.splitlines()) == ["0 0 2 127.0.0.1 möre", "1 1 2 127.0.0.1 möre"]
    assert "MORE" not in os.environ


@pytest.fixture
def processes(monkeypatch):
    """Those that were started."""
    begun, start = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *given, **named: begun.append(start(*given, **named)) or begun[-1])
    return begun


def test_all_end_with_the_first_that_fails(capsys, processes):
    script = "import os, sys, time; print('bad luck') or sys.exit(3) if os.environ['RANK'] == '1' else time.sleep(600)"
    with pytest.raises(RuntimeError, match="Of 2 processes, one ended with status 3"):
        run_processes(["-c", script], 2)
    assert "bad luck" in capsys.readouterr().out
    assert [process.returncode is None for process in processes] == [False, False]


def test_none_is_left_running_after_an_interruption(tmp_path, processes):
    script = ("import os, pathlib, signal, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
              "pathlib.Path(sys.argv[1], os.environ['RANK']).touch(); time.sleep(600)")

    def interrupt():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        _thread.interrupt_main()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_processes(["-c", script, str(tmp_path)], 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [process.returncode is None for process in processes] == [False, False]
