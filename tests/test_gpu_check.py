"""make test-gpu in miniature on the CPU: the script runs, and its checks can fail."""

import json
from pathlib import Path

import gpu_check
import pytest
import torch
from transformers import PreTrainedModel

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
    newest, move = training.newest_checkpoint, PreTrainedModel.to

    def without_optimizer(folder):
        if found := newest(folder):
            Path(found, "optimizer.pt").unlink(missing_ok=True)
        return found

    def to_a_wrong_place(model, *arguments):
        if torch.float64 in arguments:
            torch.nn.init.normal_(next(model.parameters()))
        return move(model, *arguments)

    monkeypatch.setattr(training, "newest_checkpoint", without_optimizer)
    monkeypatch.setattr(PreTrainedModel, "to", to_a_wrong_place)
    monkeypatch.setitem(gpu_check.CHECKS, "precisions", lambda *_: [("bf16", None, {"reason": "no units for it"})])
    assert gpu_check.main(["--smallest", "agree", "unheard-of", "resume", "precisions"]) == 1
    shown = capsys.readouterr().out
    for name in ("agree: masked", "agree: gpt2", "unheard-of", "resume: step 13 of 24"):
        assert f"| FAIL | {name} |" in shown
    assert "KeyError: 'unheard-of'" in shown
    assert "| not run | precisions: bf16 |" in shown


def test_a_machine_without_a_gpu_is_told_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"can use only .*no GPU was found"):
        gpu_check.main([])
