"""The doctor: it names what is wrong, fails only for what is needed, and goes on behind a check that breaks."""

import importlib
import json
import os
import re
from importlib import metadata
from pathlib import Path

import pytest
from huggingface_hub import constants

from llm_tutorial import checkpoints, corpus, files, hub, offline
from llm_tutorial.budgets import BUDGETS
from llm_tutorial.diagnostics import caches, checks, report, sources, versions
from llm_tutorial.diagnostics.finding import Finding

VERSIONS = {"llm-tutorial": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0", "ruff": "0.1"}
REQUIRES = ["torch>=2.11", "transformers>=5.15", 'ruff>=0.1; extra == "test"', 'absent>=1; python_version < "3"']
VARIABLES = ("HF_", "HUGGING", "TRANSFORMERS_", "WANDB_", "MLFLOW_", "COMET_", "KUBEFLOW_", "TENSORBOARD_", "SSL_CERT_",
             "REQUESTS_CA", "CURL_CA", "JUPYTER")  # fmt: skip
SECONDS = 600.0  # the machine that tests may be busy


@pytest.fixture
def versions_there() -> dict[str, str]:
    return dict(VERSIONS)


@pytest.fixture
def machine(tmp_path, monkeypatch, versions_there) -> Path:
    """Make a sound machine of nothing but a few bundled files; the tests break one thing each."""
    for name in versions.IMPORTED:
        importlib.import_module(name)  # while the versions are still the real ones
    list(versions.own_modules())
    real = metadata.version

    def version(name: str) -> str:
        if name not in VERSIONS:
            return real(name)
        if name not in versions_there:
            raise metadata.PackageNotFoundError(name)
        return versions_there[name]

    data = tmp_path / "data"
    for name in caches._BUNDLED:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name, encoding="utf-8")
    sums = [f"{files.sha256_of(data / name)}  {name}\n" for name in caches._BUNDLED]
    (data / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    for variable in os.environ.copy():
        if variable.startswith(VARIABLES) or variable.lower().endswith("_proxy"):
            monkeypatch.delenv(variable)
    for variable in ("LLM_TUTORIAL_SOURCE", "LLM_TUTORIAL_DEVICE", "LLM_TUTORIAL_PRECISION"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda _name: REQUIRES)
    monkeypatch.setattr(files, "data_folder", lambda: data)
    monkeypatch.setattr(hub, "why_unreachable", lambda *_: None)
    monkeypatch.setattr(hub, "cached_snapshot", lambda *_: None)
    monkeypatch.setattr(offline, "fetched_causal_lm", lambda: tmp_path / "smollm2")
    return data


def findings_by_subject(status: int, *names: str) -> dict[str, Finding]:
    """Make the checks of these names, or all of them, and check the exit status they give."""
    chosen = [check for check in checks.all_checks() if check.name in names or not names]
    assert len(chosen) == len(names) or not names
    found = [finding for check in chosen for finding in checks.outcome(check, SECONDS)]
    assert report.exit_status(found) == status, found
    return {finding.what: finding for finding in found}


@pytest.mark.usefixtures("machine")
def test_sound_machine_passes():
    found = findings_by_subject(0)
    bfloat16 = found.pop("CPU bfloat16")
    assert bfloat16.verdict in ("ok", "note")
    needs = {notebook: found.pop(notebook) for notebook in BUDGETS}
    assert {finding.verdict for finding in needs.values()} <= {"ok", "note"}  # memory may be short at the moment
    assert {finding.verdict for finding in found.values()} == {"ok"}, found
    repositories = {repository for repository, _ in checkpoints._HUB_CHECKPOINTS.values()} | {corpus.REPOSITORY}
    assert repositories <= set(found)
    assert {"Python", "torch", "ruff", "import torch", "modules", "interfaces", "loading", "device", "source",
            "bundled data", "offline causal", "disk", "hub cache", "leftovers", "widgets", "kernel", "trackers",
            "proxy", "certificates", "HF_ variables"} <= set(found)  # fmt: skip
    assert found["torch"].detail == "2.13.0+cpu (>=2.11)"
    assert "absent" not in found


def scripted(monkeypatch, *runs) -> None:
    """Let these functions be the checks, called first, second and so on."""
    names = ("first", "second", "third")
    monkeypatch.setattr(checks, "all_checks", lambda: [checks.Check(*pair) for pair in zip(names, runs, strict=False)])


def fine():
    yield Finding("ok", "a fine thing", "it works")


def test_one_line_for_each_finding(capsys, monkeypatch):
    found = [Finding("ok", "Python", "3.11"), Finding("note", "disk", "is small", "free some space")]
    monkeypatch.setattr(report, "findings_of_process", lambda *_: iter(found))
    assert report.doctor() == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["ok", "Python", "3.11"]
    assert second.startswith("note  disk ")
    assert second.endswith("is small  ->  free some space")


def test_json_and_exit_status(capsys, monkeypatch):
    found = [Finding("ok", "Python", "3.11"), Finding("FAIL", "device", "there is none", "buy one")]
    monkeypatch.setattr(report, "findings_of_process", lambda *_: iter(found))
    assert report.doctor(as_json=True) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"verdict": "ok", "what": "Python", "detail": "3.11", "remedy": ""},
        {"verdict": "FAIL", "what": "device", "detail": "there is none", "remedy": "buy one"}]


def test_a_check_that_breaks_is_reported_and_the_rest_follows(monkeypatch):
    def broken():
        yield Finding("ok", "half", "was fine")
        raise RuntimeError("unforeseen\nthing")

    def exits():
        raise SystemExit("a library that ends the program")
        yield

    scripted(monkeypatch, broken, exits, fine)
    half, broke, ended, last = checks.findings(SECONDS)
    assert half.detail == "was fine"
    assert (broke.verdict, broke.what, broke.detail) == ("FAIL", "first", "RuntimeError: unforeseen thing")
    assert "install again" in broke.remedy
    assert (ended.verdict, ended.what) == ("FAIL", "second")
    assert last == Finding("ok", "a fine thing", "it works")


def test_what_needs_a_missing_library_is_a_note(monkeypatch):
    def needs_library():
        import no_such_library  # noqa: F401
        yield

    scripted(monkeypatch, needs_library)
    [finding] = checks.findings(SECONDS)
    assert (finding.verdict, finding.what) == ("note", "first")
    assert "no_such_library" in finding.detail


def test_no_password_leaves_with_the_message_of_an_error(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:s3cr3t-word@proxy:8080")

    def broken():
        raise RuntimeError("cannot connect to http://me:s3cr3t-word@proxy:8080")
        yield

    scripted(monkeypatch, broken)
    [finding] = checks.findings(SECONDS)
    assert "s3cr3t" not in finding.detail
    assert "http://***@proxy:8080" in finding.detail


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
def test_package_that_is_missing_or_old(versions_there, name, version, verdict, detail, status):
    if version is None:
        del versions_there[name]
    else:
        versions_there[name] = version
    finding = findings_by_subject(status, "packages")[name]
    assert (finding.verdict, finding.detail) == (verdict, detail)
    assert f"{name}>=" in finding.remedy


@pytest.mark.usefixtures("machine")
def test_not_installed_but_used_from_a_folder(monkeypatch, versions_there):
    monkeypatch.setattr(versions, "_USED", ("torch",))
    del versions_there["llm-tutorial"]
    found = findings_by_subject(0, "packages")
    assert found["llm-tutorial"].verdict == "note"
    assert found["torch"].verdict == "ok"


def test_all_that_pyproject_declares_is_looked_at():
    declared = {re.split(r"[><=;\s]", text)[0].replace("-", "_").lower()
                for text in metadata.requires("llm-tutorial") if "extra" not in text}
    assert {name.replace("-", "_") for name in versions._USED} == declared
    # sentencepiece is read where a tokenizer asks for it; pillow is imported under another name.
    assert declared - {"sentencepiece", "pillow"} <= set(versions.IMPORTED)
    assert "PIL" in versions.IMPORTED


@pytest.mark.parametrize(("error", "status"), [("ImportError('renamed')", 1), ("ModuleNotFoundError(name='torchx')", 1),
                                               ("ModuleNotFoundError(name='nbclient.client')", 0)])
def test_a_module_of_the_package_that_does_not_import(tmp_path, monkeypatch, error, status):
    import llm_tutorial

    (tmp_path / "broken_one.py").write_text(f"raise {error}\n", encoding="utf-8")
    monkeypatch.setattr(llm_tutorial, "__path__", [*llm_tutorial.__path__, str(tmp_path)])
    found = findings_by_subject(status, "modules")
    assert ("llm_tutorial.broken_one" in found) == bool(status)
    assert ("modules" in found) != bool(status)


@pytest.mark.parametrize("damage", ["changed", "missing", "unlisted"])
def test_damaged_bundled_file(machine, damage):
    name = "wikipedia/intros.parquet"
    if damage == "changed":
        (machine / name).write_text("changed", encoding="utf-8")
    elif damage == "missing":
        (machine / name).unlink()
    else:
        sums = (machine / "SHA256SUMS").read_text(encoding="utf-8").splitlines(keepends=True)
        (machine / "SHA256SUMS").write_text("".join(line for line in sums if name not in line), encoding="utf-8")
    finding = findings_by_subject(1, "bundled data")["bundled data"]
    assert finding.verdict == "FAIL"
    assert "intros.parquet" in finding.detail


@pytest.mark.usefixtures("machine")
def test_hub_out_of_reach_is_a_note_unless_it_is_wanted(monkeypatch):
    monkeypatch.setattr(hub, "why_unreachable", lambda *_: "nobody answered")
    finding = findings_by_subject(0, "hub")["openai-community/gpt2"]
    assert finding.verdict == "note"
    assert "nobody answered" in finding.detail
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "hub")
    finding = findings_by_subject(1, "hub")["openai-community/gpt2"]
    assert finding.verdict == "FAIL"
    assert "LLM_TUTORIAL_SOURCE=auto" in finding.remedy


@pytest.mark.usefixtures("machine")
def test_offline_asks_nothing_of_the_hub(monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "why_unreachable", lambda *question: asked.append(question))
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "offline")
    found = findings_by_subject(0, "hub")
    assert asked == []
    assert {(finding.verdict, finding.detail) for finding in found.values()} == {
        ("ok", "not in the cache; the hub is not asked, as the source is offline")}
    assert len(found) == len(checkpoints._HUB_CHECKPOINTS) + 1
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "auto")
    assert "the hub answers" in findings_by_subject(0, "hub")[corpus.REPOSITORY].detail
    assert len(asked) == len(found)


@pytest.mark.usefixtures("machine")
def test_what_is_cached_needs_no_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "hub")
    monkeypatch.setattr(hub, "why_unreachable", lambda *_: "nobody answered")
    monkeypatch.setattr(hub, "cached_snapshot", lambda *_: tmp_path)
    keep_articles()
    found = findings_by_subject(0, "hub")
    assert found[corpus.REPOSITORY].detail.startswith("in the cache: ")


def keep_articles() -> Path:
    kept = corpus._kept_file()
    kept.write_bytes(b"articles")
    corpus._recorded_hash(kept).write_text(files.sha256_of(kept))
    return kept


@pytest.mark.usefixtures("machine")
def test_damaged_articles_are_removed_by_the_look_at_them(monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "auto")
    monkeypatch.setattr(hub, "why_unreachable", lambda *_: None)
    kept = keep_articles()
    kept.write_bytes(b"Articles")
    finding = findings_by_subject(0, "hub")[corpus.REPOSITORY]
    assert finding.verdict == "note"
    assert f"{kept} was damaged" in finding.detail
    assert "has been removed" in finding.detail
    finding = findings_by_subject(0, "hub")[corpus.REPOSITORY]
    assert (finding.verdict, finding.detail) == ("ok", "the hub answers; it will be downloaded when it is first used")


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(("source", "verdict"), [("auto", "FAIL"), ("offline", "note")])
def test_damaged_articles_that_cannot_be_removed_are_a_failure(monkeypatch, source, verdict):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", source)
    keep_articles().write_bytes(b"Articles")
    monkeypatch.setattr(Path, "unlink", refuse)
    finding = findings_by_subject(int(verdict == "FAIL"), "hub")[corpus.REPOSITORY]
    assert finding.verdict == verdict
    assert "cannot be removed. Delete it, then run the cell again" in finding.detail


@pytest.mark.usefixtures("machine")
def test_damaged_cache_is_a_note(monkeypatch):
    def damaged(*_):
        raise OSError("the file\nwas damaged and has been removed")

    monkeypatch.setattr(hub, "cached_snapshot", damaged)
    finding = findings_by_subject(0, "hub")["openai-community/gpt2"]
    assert (finding.verdict, finding.detail) == ("note", "the file was damaged and has been removed")


@pytest.mark.usefixtures("machine")
def test_offline_causal_model(monkeypatch):
    monkeypatch.setattr(offline, "fetched_causal_lm", lambda: None)
    finding = findings_by_subject(0, "offline causal")["offline causal"]
    assert (finding.verdict, finding.remedy) == ("note", "llm-tutorial fetch")

    def damaged():
        raise OSError("model.safetensors is missing")

    monkeypatch.setattr(offline, "fetched_causal_lm", damaged)
    finding = findings_by_subject(1, "offline causal")["offline causal"]
    assert (finding.verdict, finding.remedy) == ("FAIL", "llm-tutorial fetch")


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(("variable", "what"), [("LLM_TUTORIAL_DEVICE", "device"), ("LLM_TUTORIAL_SOURCE", "source")])
def test_wrong_variables(monkeypatch, variable, what):
    monkeypatch.setenv(variable, "nonsense")
    finding = findings_by_subject(1, what)[what]
    assert finding.verdict == "FAIL"
    assert "nonsense" in finding.detail
    findings_by_subject(0, "hub", "disk", "needs")  # which go on as if the default were chosen


@pytest.mark.usefixtures("machine")
def test_cache_folder_that_cannot_be_used(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path / "file"))
    found = findings_by_subject(1, "disk", "leftovers", "needs")
    assert found.pop("disk").verdict == "FAIL"
    assert {name: finding.verdict for name, finding in found.items() if finding.verdict != "ok"} == {
        "leftovers": "note", "needs": "note"}  # said once is enough


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(("source", "verdict"), [("auto", "FAIL"), ("offline", "note")])
def test_hub_cache_that_cannot_be_used(monkeypatch, tmp_path, source, verdict):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", source)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    finding = findings_by_subject(int(verdict == "FAIL"), "disk")["hub cache"]
    assert finding.verdict == verdict
    assert "HF_HOME" in finding.remedy
    assert f"{tmp_path / 'file'} is no folder" in finding.detail


@pytest.mark.usefixtures("machine")
def test_leftovers_of_interrupted_downloads_are_named(tmp_path):
    half = tmp_path / "cache" / ".smollm2-abc.partial"
    blob = tmp_path / "hub" / "models--a--b" / "blobs" / "0f1e.incomplete"
    for folder in (half, blob.parent):
        folder.mkdir(parents=True)
    (half / "model.gguf").write_bytes(b"x" * 2_500_000)
    blob.write_bytes(b"x" * 300_000)
    (blob.parent / "whole").write_bytes(b"x")
    found = [finding for check in checks.all_checks() if check.name == "leftovers" for finding in check.run()]
    assert {finding.verdict for finding in found} == {"note"}
    assert sorted(finding.detail.split(") ")[0] for finding in found) == sorted(
        [f"{half} (2.5 MB", f"{blob} (0.3 MB"])
    assert all("delete it" in finding.remedy for finding in found)


@pytest.mark.usefixtures("machine")
def test_a_download_that_ends_during_the_check_is_no_failure(monkeypatch, tmp_path):
    partial, blob = tmp_path / "cache/.smollm2-abc.partial", tmp_path / "hub/models--a--b/blobs/0f1e.incomplete"
    for file in (partial / "model.gguf", blob):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
    looked, look = [], Path.stat

    def stat(self, **options):
        found = look(self, **options)
        if self.name in {"model.gguf", blob.name}:
            looked.append(self)
            self.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "stat", stat)
    found = [finding for check in checks.all_checks() if check.name == "leftovers"
             for finding in checks.outcome(check, SECONDS)]
    assert {path.name for path in looked} == {"model.gguf", blob.name}
    assert [finding.verdict for finding in found] == ["note", "note"], found


def test_source_is_that_of_the_loading(monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "hub")
    assert sources.source_or_auto() == "hub"
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "nonsense")
    assert sources.source_or_auto() == "auto"
