"""llm-tutorial doctor: it names faults, fails only for what is needed, and goes on behind a broken check."""

import importlib
import json
from argparse import Namespace
from importlib import metadata
from types import SimpleNamespace

import psutil
import pytest

from llm_tutorial.checkpoints import HUB_CHECKPOINTS
from llm_tutorial.commands import doctor
from llm_tutorial.commands.doctor import Finding
from llm_tutorial.sources import files, hub, offline


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path))
    return tmp_path


def outcome(check):
    """Return verdict, detail and remedy of each thing that a check looks at."""
    return {found.what: (found.verdict, found.detail, found.remedy) for found in doctor._outcome(check)}


def test_a_sound_machine_passes_and_every_finding_is_in_the_json(capsys):
    assert doctor.main(Namespace(json=True)) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(set(finding) == {"verdict", "what", "detail", "remedy"} for finding in found)
    assert {"Python", "torch", "import torch", "device", "source", "bundled data",
            "offline causal model", "disk", "memory"} <= {finding["what"] for finding in found}


def test_one_line_a_finding_and_status_1_if_something_fails(capsys, monkeypatch):
    found = [Finding("ok", "Python", "3.11"), Finding("FAIL", "device", "there is none", "buy one")]
    monkeypatch.setattr(doctor, "_findings", lambda: iter(found))
    assert doctor.main(Namespace(json=False)) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.split() == ["ok", "Python", "3.11"]
    assert second.startswith("FAIL  device ")
    assert second.endswith("there is none  ->  buy one")
    assert all(command in last for command in ("pip check", "hf env", "jupyter kernelspec list"))


def test_a_check_that_breaks_is_a_finding_and_the_others_follow(monkeypatch):
    def half_broken():
        yield Finding("ok", "half", "is fine")
        raise RuntimeError("unforeseen\nthing")

    monkeypatch.setattr(doctor, "_imports", half_broken)
    found = {finding.what: finding for finding in doctor._findings()}
    assert found["half"].verdict == "ok"
    broken = found["half broken"]
    assert (broken.verdict, broken.detail) == ("FAIL", "RuntimeError: unforeseen thing")
    assert "install again" in broken.remedy
    assert "disk" in found


@pytest.mark.parametrize(("name", "version", "expected"), [
    ("torch", "2.11.0+cpu", ("ok", "2.11.0+cpu (>=2.11)", "")),
    ("torch", "2.10.1", ("FAIL", "2.10.1, but >=2.11 is needed", 'python -m pip install "torch>=2.11"')),
    ("torch", None, ("FAIL", "absent, but >=2.11 is needed", 'python -m pip install "torch>=2.11"')),
    ("nbclient", None, ("note", "absent, but >=0.1 is needed", 'python -m pip install "nbclient>=0.1"')),
])
def test_versions_are_compared_with_what_the_package_declares(monkeypatch, name, version, expected):
    versions = {"torch": "2.13.0", "nbclient": "0.1"} | {name: version}

    def found(name):
        if versions[name] is None:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", found)
    monkeypatch.setattr(metadata, "requires", lambda _: [
        "torch>=2.11", 'nbclient>=0.1; extra == "lab"', 'ruff>=1; extra == "test"', 'absent>=1; python_version < "3"'])
    outcomes = outcome(doctor._packages)
    assert outcomes[name] == expected
    assert outcomes.keys() == {"Python", "torch", "nbclient"}


def test_a_library_that_does_not_import_is_named_with_its_error(monkeypatch):
    def load(name):
        if name == "torch":
            raise OSError("libcudart.so: cannot open")

    monkeypatch.setattr(importlib, "import_module", load)
    found = outcome(doctor._imports)
    assert found.pop("import torch") == (
        "FAIL", "OSError: libcudart.so: cannot open", "python -m pip install --force-reinstall torch")
    assert {verdict for verdict, _, _ in found.values()} == {"ok"}


def test_a_variable_with_an_unknown_value_fails(monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "nonsense")
    verdict, detail, _ = outcome(doctor._source)["source"]
    assert verdict == "FAIL"
    assert "nonsense" in detail


@pytest.mark.parametrize(("source", "cached", "trouble", "verdicts"), [
    ("auto", True, "no network", ["ok"]),
    ("auto", False, None, ["ok", "ok"]),
    ("auto", False, "no network", ["ok", "note"]),
    ("hub", False, "no network", ["ok", "FAIL"]),
    ("offline", False, "no network", ["ok"]),
])
def test_the_hub_is_asked_once_and_only_where_its_answer_matters(
    monkeypatch, cache, source, cached, trouble, verdicts
):
    questions = []
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", source)
    monkeypatch.setattr(hub, "cached_snapshot", lambda *_: cache if cached else None)
    monkeypatch.setattr(hub, "why_unreachable", lambda *question: questions.append(question) or trouble)
    found = list(doctor._outcome(doctor._source))
    assert [finding.verdict for finding in found] == verdicts
    assert len(questions) == len(verdicts) - 1
    if questions:
        assert (trouble or "answered") in found[1].detail
        assert HUB_CHECKPOINTS["masked"][0] in found[1].detail


def test_a_damaged_bundled_file_fails(monkeypatch, tmp_path):
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  intros.parquet\n", encoding="utf-8")
    (tmp_path / "intros.parquet").write_text("changed", encoding="utf-8")
    monkeypatch.setattr(files, "data_folder", lambda: tmp_path)
    verdict, detail, _ = outcome(doctor._bundled_data)["bundled data"]
    assert verdict == "FAIL"
    assert "intros.parquet is damaged" in detail


def test_the_offline_model_is_wanted_but_not_needed(monkeypatch, cache):
    assert outcome(doctor._offline_causal_model)["offline causal model"][::2] == ("note", "llm-tutorial fetch")
    monkeypatch.setattr(offline, "fetched_causal_lm", lambda: cache)
    assert outcome(doctor._offline_causal_model)["offline causal model"] == ("ok", f"fetched and intact: {cache}", "")


def test_little_disk_or_memory_is_a_note(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_500_000_000))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1e9))
    found = outcome(doctor._room)
    assert found["disk"] == ("note", "1.5 GB free", "set LLM_TUTORIAL_CACHE to a folder on another disk")
    assert found["memory"] == ("note", "1.0 GB free", "close other programs and notebooks")
