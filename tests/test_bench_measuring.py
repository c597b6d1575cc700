"""What the benchmarks share: medians, the machine, memory and processes of their own, tables."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from llm_tutorial.benchmarks import children, measuring
from llm_tutorial.benchmarks.children import run_child
from llm_tutorial.benchmarks.measuring import machine, precision, summary, synchronize, text_table
from llm_tutorial.benchmarks.memory import peak_memory
from llm_tutorial.device import Device, pick_device


def test_each_figure_gets_its_own_median():
    runs = [{"seconds": 3.0, "steps": 1}, {"seconds": 1.0, "steps": 3}, {"seconds": 10.0, "steps": 2}]
    assert summary(runs) == {"seconds": 3.0, "steps": 2, "runs": runs}
    assert summary(runs[:2])["seconds"] == 2.0


def test_a_run_that_never_got_there_counts_as_more_than_any_number():
    runs = [{"seconds_to_95": value, "seconds": 1.0} for value in (None, 3.0, None)]
    assert summary(runs)["seconds_to_95"] is None
    runs[0]["seconds_to_95"] = 5.0
    assert summary(runs)["seconds_to_95"] == 5.0


def test_no_run_has_no_median():
    with pytest.raises(ValueError, match="measure at least one"):
        summary([])


def test_the_machine_is_described_without_its_name():
    found = json.loads(json.dumps(machine(pick_device())))
    assert (found["device"], found["precision"], found["threads"]) == ("cpu", "fp32", torch.get_num_threads())
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["processors"] == os.cpu_count()
    assert found["processor"]
    assert platform.node() not in json.dumps(found)


@pytest.mark.parametrize(("device", "name"), [
    (Device("cpu", True, ""), "bf16"), (Device("cuda", False, "", fp16=True), "fp16"),
    (Device("mps", False, ""), "fp32")])
def test_the_precision_is_that_of_training(device, name):
    assert precision(device) == name


def test_the_load_is_that_of_the_last_minute(monkeypatch):
    monkeypatch.setattr(measuring.os, "getloadavg", lambda: (1.5, 2.5, 3.5), raising=False)
    assert machine(pick_device())["load_average"] == 1.5
    monkeypatch.delattr(measuring.os, "getloadavg")
    assert machine(pick_device())["load_average"] is None


def test_the_clock_waits_for_a_gpu_only(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append("cuda"))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for name in ("cpu", "cuda", "mps"):
        synchronize(Device(name, False, ""))
    assert waited == ["cuda", "mps"]


def test_peak_memory_is_in_bytes_and_does_not_fall():
    code = """
from llm_tutorial.benchmarks.memory import peak_memory
peaks = [peak_memory()]
held = bytearray(b"x") * 300_000_000
peaks.append(peak_memory())
del held
print(*peaks, peak_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, within, after = map(int, done.stdout.split())
    assert 296_000_000 < within - before < 305_000_000, "kilobytes of 1,024 bytes"
    assert after > within - 10**6, "the count of pages is a little behind"


def test_a_child_has_a_peak_of_its_own():
    assert torch.get_num_threads(), "PyTorch is in the memory of this process"
    assert 10**6 < run_child(peak_memory, label="child", report=[].append) < peak_memory() / 4


def test_a_child_gets_and_returns_json():
    said = []
    found = run_child(platform.uname, label="asking", report=said.append)
    assert found[0] == platform.system()
    assert said == ["asking"]
    assert run_child(json.loads, label="reading", report=said.append, s='{"a": [1, null]}') == {"a": [1, None]}


def test_a_child_runs_in_another_process():
    assert run_child(os.getpid, label="asking", report=[].append) != os.getpid()


def test_a_child_that_fails_says_why():
    with pytest.raises(OSError, match=r"reading: the process ended with status 1\.\n(.|\n)*JSONDecodeError: Expecting"):
        run_child(json.loads, label="reading", report=[].append, s="{")


def test_a_child_has_nothing_to_read():
    own, (readable, writable) = os.dup(0), os.pipe()
    try:
        os.write(writable, b"typed\n")
        os.dup2(readable, 0)
        with pytest.raises(OSError, match="EOFError"):
            run_child(input, label="asking", report=[].append)
    finally:
        os.dup2(own, 0)
        for descriptor in (own, readable, writable):
            os.close(descriptor)


def test_a_child_uses_this_package_whatever_else_is_on_the_path(tmp_path, monkeypatch):
    (tmp_path / "llm_tutorial").mkdir()
    (tmp_path / "llm_tutorial" / "__init__.py").write_text("raise ImportError('another one')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_child(os.getpid, label="asking", report=[].append)


def test_a_child_that_takes_long_is_reported(monkeypatch):
    monkeypatch.setattr(children, "TICK_SECONDS", 0.2)
    said = []
    run_child(subprocess.check_call, label="sleeping", report=said.append,
              args=[sys.executable, "-c", "import time; time.sleep(1)"])
    assert said[0] == "sleeping"
    assert said[1].startswith("sleeping: ")


def test_an_interrupt_ends_the_child(monkeypatch):
    started = []

    class Process(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

        def wait(self, timeout=None):
            if timeout is not None:
                raise KeyboardInterrupt
            return super().wait()

    monkeypatch.setattr(children.subprocess, "Popen", Process)
    with pytest.raises(KeyboardInterrupt):
        run_child(subprocess.check_call, label="sleeping", report=[].append,
                  args=[sys.executable, "-c", "import time; time.sleep(60)"])
    assert started[0].returncode not in (None, 0)


@pytest.mark.parametrize("module", ["llm_tutorial", "llm_tutorial.benchmarks.children",
                                    "llm_tutorial.benchmarks.commands", "llm_tutorial.benchmarks.loading",
                                    "llm_tutorial.benchmarks.memory"])
def test_nothing_large_is_imported_where_start_up_counts(module):
    check = f"import {module}, sys; assert not {{'torch', 'transformers', 'numpy', 'datasets'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_table_aligns_its_columns():
    assert text_table([("", "tokens/s"), ("Trainer", "9"), ("bare loop", "12,345")]).splitlines() == [
        "           tokens/s",
        "Trainer           9",
        "bare loop    12,345",
    ]
