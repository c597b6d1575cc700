"""The doctor: it names what is wrong, fails only for what is needed, and survives a broken installation."""

import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

import llm_tutorial
from llm_tutorial import checkpoints, corpus, diagnostics, files, hub, offline
from llm_tutorial.diagnostics import Finding, doctor

VERSIONS = {"llm-tutorial": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0", "ruff": "0.1"}
REQUIRES = ["torch>=2.11", "transformers>=5.15", 'ruff>=0.1; extra == "test"', 'absent>=1; python_version < "3"']


@pytest.fixture
def versions() -> dict[str, str]:
    return dict(VERSIONS)


@pytest.fixture
def machine(tmp_path, monkeypatch, versions) -> Path:
    """Make a sound machine of nothing but a few bundled files; the tests break one thing each."""

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    data = tmp_path / "data"
    for name in diagnostics._BUNDLED:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name, encoding="utf-8")
    sums = [f"{files.sha256_of(data / name)}  {name}\n" for name in diagnostics._BUNDLED]
    (data / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    for variable in ("LLM_TUTORIAL_SOURCE", "LLM_TUTORIAL_DEVICE", "LLM_TUTORIAL_PRECISION"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda _name: REQUIRES)
    monkeypatch.setattr(files, "data_folder", lambda: data)
    monkeypatch.setattr(hub, "why_unreachable", lambda *_: None)
    monkeypatch.setattr(hub, "cached_snapshot", lambda *_: None)
    monkeypatch.setattr(offline, "fetched_causal_lm", lambda: tmp_path / "smollm2")
    return data


def report(capsys, status: int) -> dict[str, dict]:
    """Run the doctor, check its exit status, and return its findings by what they are about."""
    assert doctor(as_json=True) == status
    found = json.loads(capsys.readouterr().out)
    assert all(set(finding) == {"verdict", "what", "detail", "remedy"} for finding in found)
    return {finding["what"]: finding for finding in found}


@pytest.mark.usefixtures("machine")
def test_sound_machine_passes(capsys):
    found = report(capsys, 0)
    bfloat16 = found.pop("CPU bfloat16")
    assert bfloat16["verdict"] in ("ok", "note")
    assert {finding["verdict"] for finding in found.values()} == {"ok"}, found
    repositories = {repository for repository, _ in checkpoints._HUB_CHECKPOINTS.values()} | {corpus._REPOSITORY}
    assert repositories <= set(found)
    assert {"Python", "torch", "ruff", "device", "source", "bundled data", "offline causal", "disk"} <= set(found)
    assert found["torch"]["detail"] == "2.13.0+cpu (>=2.11)"
    assert "absent" not in found


@pytest.mark.usefixtures("machine")
def test_one_line_for_each_finding(capsys):
    assert doctor() == 0
    lines = capsys.readouterr().out.splitlines()
    found = list(diagnostics.findings())
    assert len(lines) == len(found)
    assert lines[0].startswith("ok    Python")
    assert all(line[:6].strip() == finding.verdict for line, finding in zip(lines, found, strict=True))


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("name", "version", "verdict", "detail", "status"),
    [
        ("torch", "2.10.1", "FAIL", "2.10.1, but >=2.11 is needed", 1),
        ("transformers", None, "FAIL", "not installed", 1),
        ("ruff", None, "note", "not installed, only needed for the extra [test]", 0),
        ("ruff", "0.0.9", "note", "0.0.9, but >=0.1 is needed", 0),
    ],
)
def test_package_that_is_missing_or_old(capsys, versions, name, version, verdict, detail, status):
    if version is None:
        del versions[name]
    else:
        versions[name] = version
    finding = report(capsys, status)[name]
    assert (finding["verdict"], finding["detail"]) == (verdict, detail)
    assert f"{name}>=" in finding["remedy"]


@pytest.mark.usefixtures("machine")
def test_not_installed_but_used_from_a_folder(capsys, monkeypatch, versions):
    monkeypatch.setattr(diagnostics, "_USED", ("torch",))
    del versions["llm-tutorial"]
    found = report(capsys, 0)
    assert found["llm-tutorial"]["verdict"] == "note"
    assert found["torch"]["verdict"] == "ok"


@pytest.mark.parametrize("damage", ["changed", "missing", "unlisted"])
def test_damaged_bundled_file(capsys, machine, damage):
    name = "wikipedia/intros.parquet"
    if damage == "changed":
        (machine / name).write_text("changed", encoding="utf-8")
    elif damage == "missing":
        (machine / name).unlink()
    else:
        sums = (machine / "SHA256SUMS").read_text(encoding="utf-8").splitlines(keepends=True)
        (machine / "SHA256SUMS").write_text("".join(line for line in sums if name not in line), encoding="utf-8")
    finding = report(capsys, 1)["bundled data"]
    assert finding["verdict"] == "FAIL"
    assert "intros.parquet" in finding["detail"]


@pytest.mark.usefixtures("machine")
def test_hub_out_of_reach_is_a_note_unless_it_is_wanted(capsys, monkeypatch):
    monkeypatch.setattr(hub, "why_unreachable", lambda *_: "nobody answered")
    found = report(capsys, 0)
    assert found["openai-community/gpt2"]["verdict"] == "note"
    assert "nobody answered" in found["openai-community/gpt2"]["detail"]
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "hub")
    found = report(capsys, 1)
    assert found["openai-community/gpt2"]["verdict"] == "FAIL"
    assert "LLM_TUTORIAL_SOURCE=auto" in found["openai-community/gpt2"]["remedy"]


@pytest.mark.usefixtures("machine")
def test_what_is_cached_needs_no_hub(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "hub")
    monkeypatch.setattr(hub, "why_unreachable", lambda *_: "nobody answered")
    monkeypatch.setattr(hub, "cached_snapshot", lambda *_: tmp_path)
    corpus._kept_file().touch()
    found = report(capsys, 0)
    assert found[corpus._REPOSITORY]["detail"].startswith("in the cache: ")


@pytest.mark.usefixtures("machine")
def test_damaged_cache_is_a_note(capsys, monkeypatch):
    def damaged(*_):
        raise OSError("the weights\nwere damaged")

    monkeypatch.setattr(hub, "cached_snapshot", damaged)
    finding = report(capsys, 0)["openai-community/gpt2"]
    assert (finding["verdict"], finding["detail"]) == ("note", "the weights were damaged")


@pytest.mark.usefixtures("machine")
def test_repositories_are_asked_at_the_same_time_and_not_for_long(capsys, monkeypatch):
    monkeypatch.setattr(diagnostics, "_SECONDS", 1.0)
    monkeypatch.setattr(hub, "why_unreachable", lambda *_: time.sleep(5))
    started = time.monotonic()
    found = report(capsys, 0)
    assert time.monotonic() - started < 2.5
    assert "no answer within 1 s" in found[corpus._REPOSITORY]["detail"]


@pytest.mark.usefixtures("machine")
def test_offline_causal_model(capsys, monkeypatch):
    monkeypatch.setattr(offline, "fetched_causal_lm", lambda: None)
    finding = report(capsys, 0)["offline causal"]
    assert (finding["verdict"], finding["remedy"]) == ("note", "llm-tutorial fetch")

    def damaged():
        raise OSError("model.safetensors is missing")

    monkeypatch.setattr(offline, "fetched_causal_lm", damaged)
    finding = report(capsys, 1)["offline causal"]
    assert (finding["verdict"], finding["remedy"]) == ("FAIL", "llm-tutorial fetch")


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(("variable", "what"), [("LLM_TUTORIAL_DEVICE", "device"), ("LLM_TUTORIAL_SOURCE", "source")])
def test_wrong_variables(capsys, monkeypatch, variable, what):
    monkeypatch.setenv(variable, "nonsense")
    finding = report(capsys, 1)[what]
    assert finding["verdict"] == "FAIL"
    assert "nonsense" in finding["detail"]


@pytest.mark.usefixtures("machine")
def test_cache_folder_and_disk(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(diagnostics, "_DISK_BYTES", 10**18)
    assert report(capsys, 0)["disk"]["verdict"] == "note"
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path / "file"))
    assert report(capsys, 1)["disk"]["verdict"] == "FAIL"


@pytest.mark.usefixtures("machine")
def test_a_check_that_breaks_is_reported_and_the_rest_follows(capsys, monkeypatch):
    def broken():
        raise RuntimeError("unforeseen\nthing")
        yield

    monkeypatch.setattr(diagnostics, "_bundled_data", broken)
    found = report(capsys, 1)
    assert found["broken"]["detail"] == "RuntimeError: unforeseen thing"
    assert found["disk"]["verdict"] == "ok"


def test_works_where_torch_does_not_import(tmp_path):
    script = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("libtorch.so is from another system")

sys.meta_path.insert(0, Block())
from llm_tutorial.diagnostics import doctor
status = doctor(as_json=True)
assert "torch" not in sys.modules
sys.exit(status)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(llm_tutorial.__file__).parents[1]), "HF_HUB_OFFLINE": "1",
                                "LLM_TUTORIAL_CACHE": str(tmp_path)}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    found = {finding["what"]: Finding(**finding) for finding in json.loads(done.stdout)}
    assert found["import torch"].verdict == "FAIL"
    assert "libtorch.so is from another system" in found["import torch"].detail
    assert found["device"].verdict == "note"
    assert found["disk"].verdict == "ok"
    assert {"bundled data", "offline causal", "Python"} <= set(found)
