"""make test-gpu in miniature on the CPU: the script runs, and its checks can fail."""

import json

import gpu_check
import pytest
import torch

from llm_tutorial import training
from llm_tutorial.commands import bench


def test_every_check_passes_in_miniature(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "SQUARES", (64,))
    assert gpu_check.main(["--smallest", "--json", str(tmp_path / "gpu.json")]) == 0
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["checks"]
    assert {row["check"].partition(":")[0] for row in rows} == {*gpu_check.CHECKS}
    assert {row["result"] for row in rows} == {"pass"}
    shown = capsys.readouterr().out
    assert [shown.count(f"| {row['result']} | {row['check']} |") for row in rows] == [2] * len(rows)


def test_checks_that_fail_are_named_and_the_others_go_on(monkeypatch, capsys):
    checks = {"wrong": lambda *_: [("far", False, {"distance": 2.0})], "none": lambda *_: [("bf16", None, {})]}
    monkeypatch.setattr(gpu_check, "CHECKS", checks)
    assert gpu_check.main(["--smallest", "wrong", "unheard-of", "none"]) == 1
    shown = capsys.readouterr().out
    assert "| FAIL | wrong: far |" in shown
    assert "| FAIL | unheard-of |" in shown
    assert "KeyError: 'unheard-of'" in shown
    assert "| not run | none: bf16 |" in shown


def test_a_real_check_can_fail(monkeypatch, capsys):
    monkeypatch.setattr(training, "newest_checkpoint", lambda _folder: None)
    assert gpu_check.main(["--smallest", "resume"]) == 1
    assert "| FAIL | resume: step 13 of 24 |" in capsys.readouterr().out


def test_a_machine_without_a_gpu_is_told_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"can use only .*no GPU was found"):
        gpu_check.main([])
