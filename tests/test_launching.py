"""Processes of one training: what each is told, what is shown, and that none is left behind."""

import os
import time

import pytest

from llm_tutorial.launching import run_processes

NAMES = "RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR MORE"


def test_each_process_knows_its_rank_and_what_it_prints_is_shown(capsys):
    run_processes(["-c", f"import os; print(*(os.environ[name] for name in '{NAMES}'.split()))"], 2, MORE="more")
    assert sorted(capsys.readouterr().out.splitlines()) == ["0 0 2 127.0.0.1 more", "1 1 2 127.0.0.1 more"]
    assert "MORE" not in os.environ


def test_all_end_with_the_first_that_fails(tmp_path, capsys):
    script = ("import os, pathlib, sys, time; print('bad luck') or sys.exit(3) if os.environ['RANK'] == '1' else "
              f"(pathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid())), time.sleep(600))")
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="Of 2 processes, one ended with status 3"):
        run_processes(["-c", script], 2)
    assert time.monotonic() - began < 300
    assert "bad luck" in capsys.readouterr().out
    if (tmp_path / "pid").exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)
