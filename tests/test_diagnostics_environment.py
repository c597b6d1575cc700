"""The doctor on variables, trackers, widgets, kernels, memory and disk, one thing broken at a time."""

import ast
import json
import re
import sys
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import transformers
from huggingface_hub import constants

from llm_tutorial.budgets import BUDGETS, Budget, NotebookBudget
from llm_tutorial.diagnostics import frontend, needs, sources
from llm_tutorial.diagnostics.finding import one_line
from llm_tutorial.diagnostics.needs import DOWNLOADS, Memory, available_memory, need_findings
from llm_tutorial.diagnostics.trackers import tracker_findings
from llm_tutorial.diagnostics.variables import certificate_findings, hub_variable_findings, proxy_findings
from llm_tutorial.redaction import redacted

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "hf_" + "a1B2" * 9


# Secrets.

@pytest.mark.parametrize(("address", "password", "kept"), [
    ("http://me:pass-w0rd@proxy:8080", "pass-w0rd", "http://***@proxy:8080"),
    ("me:pass-w0rd@proxy:8080", "pass-w0rd", "***@proxy:8080"),
    ("http://me:pass/w@rd@proxy:8080", "pass/w@rd", "http://***@proxy:8080"),  # though nobody has quoted it
    ("http://me:pass%2Dw0rd@proxy", "pass-w0rd", "http://***@proxy"),
])  # fmt: skip
def test_passwords_of_proxies_are_never_shown(address, password, kept):
    environ = {"https_proxy": address}
    [finding] = proxy_findings(environ)
    message = redacted(f"ProxyError: cannot connect to {address} (user me, password {password})", environ)
    for text in (finding.detail, message):
        assert password not in text
        assert not re.search(r"pass|w0rd|@rd", text.replace("password", ""))  # nor a part of it
        assert kept in text


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_tokens_are_said_to_be_set_and_never_shown(name):
    [finding] = hub_variable_findings({name: TOKEN})
    assert (finding.verdict, finding.what) == ("note", name)
    assert finding.detail == "set (not shown); sent only for repositories that you name yourself"
    assert TOKEN not in str(finding)
    assert redacted(f"401 for Bearer {TOKEN}", {}) == "401 for Bearer ***"
    assert redacted("key 0123-abcd refused", {"WANDB_API_KEY": "0123-abcd"}) == "key *** refused"


def test_passwords_in_addresses_of_unknown_origin_are_masked():
    assert redacted("no route to https://me:pass-w0rd@mirror/a", {}) == "no route to https://***@mirror/a"


def test_what_is_no_secret_stays():
    text = "datasets/wikimedia/wikipedia@b04c8d1 at https://huggingface.co/a/b@main, user@host"
    assert redacted(text, {"HTTP_PROXY": "http://proxy:8080", "NO_PROXY": "localhost", "X_TOKEN": ""}) == text


def test_error_on_one_line():
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(ValueError()) == "ValueError"


# Network and hub.

def test_no_variable_is_one_line_each():
    environ = {"PATH": "/bin", "HTTP_PROXY": "", "HF_HUB_OFFLINE": "0"}
    for check in (proxy_findings, certificate_findings, hub_variable_findings):
        assert [finding.verdict for finding in check(environ)] == ["ok"]


def test_proxies_that_differ():
    [note, listed] = proxy_findings({"HTTP_PROXY": "http://a", "http_proxy": "http://b", "NO_PROXY": "x"})
    assert note.verdict == "note"
    assert "HTTP_PROXY and http_proxy differ" in note.detail
    assert "NO_PROXY=x" in listed.detail


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_are_not_there(tmp_path, name):
    [finding] = certificate_findings({name: str(tmp_path / "gone.pem")})
    assert finding.verdict == "FAIL"
    assert f"{name}={tmp_path / 'gone.pem'}" in finding.detail
    assert f"unset {name}" in finding.remedy
    (tmp_path / "there.pem").touch()
    there = tmp_path if name == "SSL_CERT_DIR" else tmp_path / "there.pem"
    assert [found.verdict for found in certificate_findings({name: str(there)})] == ["ok"]
    wrong_kind = tmp_path / "there.pem" if name == "SSL_CERT_DIR" else tmp_path
    verdict = "FAIL" if name.startswith("SSL") else "ok"  # requests and curl take a folder
    assert [found.verdict for found in certificate_findings({name: str(wrong_kind)})] == [verdict]


@pytest.mark.parametrize(("name", "value", "part"), [
    ("HF_HUB_OFFLINE", "1", "never asked"), ("TRANSFORMERS_OFFLINE", "yes", "never asked"),
    ("HF_DATASETS_OFFLINE", "TRUE", "no dataset"), ("HF_ENDPOINT", "https://mirror", "https://mirror is asked"),
    ("HF_HOME", "/big/disk", "/big/disk holds"), ("TRANSFORMERS_CACHE", "/x", "no effect any more"),
])  # fmt: skip
def test_hub_variables(name, value, part):
    [finding] = hub_variable_findings({name: value})
    assert (finding.verdict, finding.what) == ("note", name)
    assert part in finding.detail


def test_hub_address_without_a_scheme():
    address, trouble = hub_variable_findings({"HF_ENDPOINT": "me:pass-w0rd@mirror"})
    assert "pass-w0rd" not in address.detail
    assert "does not begin with https://" in trouble.detail


def test_switches_mean_to_the_doctor_what_they_mean_to_the_hub():
    from llm_tutorial.diagnostics.variables import is_true

    for value in ("1", "on", "Yes", "TRUE", "0", "", "no", "off", "2", "y"):
        assert is_true(value) == constants._is_true(value)


# Trackers.

def all_installed(_module: str) -> bool:
    return True


@pytest.mark.parametrize(("module", "variable"), [
    ("wandb", "WANDB_API_KEY"), ("mlflow", "MLFLOW_TRACKING_URI"), ("comet_ml", "COMET_API_KEY"),
    ("tensorboard", "TENSORBOARD_LOGGING_DIR"), ("clearml", "CLEARML_TASK")])  # fmt: skip
def test_tracker_that_is_installed_and_switched_on(module, variable):
    [finding] = tracker_findings({variable: "a-secret-value"}, all_installed)
    assert (finding.verdict, finding.what) == ("note", module)
    assert variable in finding.detail
    assert "a-secret-value" not in str(finding)
    assert "'none'" in finding.detail
    [finding] = tracker_findings({variable: "a-secret-value"}, lambda _: False)
    assert finding.verdict == "ok"


@pytest.mark.parametrize("off", [{"WANDB_MODE": "disabled", "WANDB_PROJECT": "x"}, {"COMET_MODE": "DISABLED"},
                                 {"DISABLE_MLFLOW_INTEGRATION": "TRUE", "MLFLOW_RUN_ID": "1"}])
def test_tracker_that_is_switched_off(off):
    assert [finding.verdict for finding in tracker_findings(off, all_installed)] == ["ok"]


def test_the_one_that_joins_in_without_being_asked(monkeypatch):
    on = {"KUBEFLOW_TRAINER_SERVER_URL": "https://server"}
    [finding] = tracker_findings(on, all_installed)
    assert finding.what == "kubeflow"
    assert [found.verdict for found in tracker_findings(on | {"DISABLE_KUBEFLOW_INTEGRATION": "true"})] == ["ok"]
    # The oracle: what a Trainer would report to.
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "https://server")
    assert transformers.TrainingArguments("x", report_to="none", use_cpu=True).report_to == ["kubeflow"]
    monkeypatch.setenv("DISABLE_KUBEFLOW_INTEGRATION", "true")
    assert transformers.TrainingArguments("x", report_to="none", use_cpu=True).report_to == []


def test_default_of_report_to_is_the_library_s():
    [finding] = tracker_findings({}, all_installed)
    assert transformers.TrainingArguments("x", use_cpu=True).report_to == []
    assert "'none' by default" in finding.detail


# Widgets and kernel.

@pytest.mark.parametrize(("ipywidgets", "lab", "notebook", "verdict"), [
    ("8.1.9", "3.0.17", "4.0.16", "ok"), ("7.7.1", "1.1.11", "3.6.10", "ok"), ("8.1.9", "3.0.17", None, "ok"),
    ("8.1.9", "1.1.11", "4.0.16", "note"), ("7.7.1", "1.1.11", "4.0.16", "note"), ("8.1.9", None, None, "note"),
    ("9.0.0", "3.0.17", "4.0.16", "note")])  # fmt: skip
def test_widgets_of_one_generation(monkeypatch, ipywidgets, lab, notebook, verdict):
    there = {"ipywidgets": ipywidgets, "jupyterlab_widgets": lab, "widgetsnbextension": notebook}

    def version(name: str) -> str:
        if there[name] is None:
            raise metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(metadata, "version", version)
    [finding] = frontend.widget_findings()
    assert finding.verdict == verdict, finding
    assert bool(finding.remedy) == (verdict == "note")


def write_kernel(folder: Path, monkeypatch, *argv: str) -> None:
    spec = folder / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder))


@pytest.mark.parametrize("program", ["python", "python3", sys.executable])
def test_kernel_of_this_interpreter(tmp_path, monkeypatch, program):
    write_kernel(tmp_path, monkeypatch, program, "-m", "ipykernel_launcher")
    [finding] = frontend.kernel_findings()
    assert finding.verdict == "ok", finding
    assert str(tmp_path) in finding.detail


@pytest.mark.parametrize("other", ["a file", "the same interpreter in another environment"])
def test_kernel_of_another_interpreter(tmp_path, monkeypatch, other):
    program = tmp_path / "bin" / Path(sys.executable).name
    program.parent.mkdir()
    program.touch() if other == "a file" else program.symlink_to(sys.executable)
    write_kernel(tmp_path, monkeypatch, str(program))
    [finding] = frontend.kernel_findings()
    assert finding.verdict == "note"
    assert f"starts {program}, not {sys.executable}" in finding.detail
    assert "ipykernel install" in finding.remedy


@pytest.mark.parametrize("argv", [("/gone/bin/python", "-m"), ()])
def test_kernel_that_cannot_start(tmp_path, monkeypatch, argv):
    write_kernel(tmp_path, monkeypatch, *argv)
    [finding] = frontend.kernel_findings()
    assert finding.verdict == "FAIL"
    assert "no such file" in finding.detail


def test_no_kernel(monkeypatch):
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    def missing(_self, name):
        raise NoSuchKernel(name)

    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", missing)
    [finding] = frontend.kernel_findings()
    assert finding.verdict == "FAIL"
    assert "ipykernel" in finding.remedy


def test_kernel_without_jupyter(monkeypatch):
    monkeypatch.setattr(frontend.importlib.util, "find_spec", lambda _: None)
    [finding] = frontend.kernel_findings()
    assert finding.verdict == "note"
    assert "not installed" in finding.detail


# Memory and disk.

LOADERS = {"load_masked_lm": "masked", "load_causal_lm": "causal"}


def loaded_checkpoints(path: Path) -> set[str]:
    source = "\n".join(re.sub(r"^(\s*)[%!?].*", r"\1pass", cell["source"], flags=re.MULTILINE)
                       for cell in nbformat.read(path, as_version=4)["cells"] if cell["cell_type"] == "code")
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "resolve_checkpoint":
                found.add(node.args[0].value)
            elif node.func.id in LOADERS:
                found.add(LOADERS[node.func.id])
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_budgets_name_the_checkpoints_that_a_notebook_loads(path):
    assert set(BUDGETS[path.stem].checkpoints) == loaded_checkpoints(path)


@pytest.fixture
def plenty(monkeypatch, tmp_path):
    """Four notebooks of the same size, nothing downloaded yet, and room for all of it."""
    size = {"cpu": Budget(60, 1_300_000_000)}
    checkpoints = {"01": ("masked",), "02": ("masked", "causal"), "03": (), "04": ("masked",)}
    monkeypatch.setattr(needs, "BUDGETS", {name: NotebookBudget(size, names) for name, names in checkpoints.items()})
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub" / "not" / "there" / "yet"))
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "auto")
    return resources(monkeypatch)


def resources(monkeypatch, *, available=8e9, total=16e9, hub=9e9, offline=9e9) -> None:
    monkeypatch.setattr(needs, "available_memory", lambda: Memory(int(available), int(total)))
    monkeypatch.setattr(needs, "_free", lambda folder: int(hub if "hub" in str(folder) else offline))


def verdicts() -> dict[str, str]:
    return {finding.what[:2]: finding.verdict for finding in need_findings()}


@pytest.mark.usefixtures("plenty")
@pytest.mark.parametrize(("source", "there", "expected"), [
    ("auto", {}, "ok ok ok ok"),
    ("auto", {"available": 1.5e9}, "ok note ok ok"),  # the conversion takes more
    ("hub", {"available": 1.5e9}, "ok ok ok ok"),
    ("auto", {"available": 1.2e9, "total": 1.5e9}, "note FAIL note note"),
    ("offline", {"available": 1.0e9, "total": 1.2e9}, "FAIL FAIL FAIL FAIL"),
    ("auto", {"hub": 0.5e9}, "ok note ok ok"),  # for which the offline one can stand in
    ("hub", {"hub": 0.5e9}, "ok FAIL ok ok"),
    ("hub", {"hub": 0.4e9}, "FAIL FAIL ok FAIL"),
    ("offline", {"hub": 0, "offline": 0.7e9}, "ok ok ok ok"),
    ("offline", {"offline": 0.5e9}, "ok FAIL ok ok"),
])  # fmt: skip
def test_needs_of_each_notebook(monkeypatch, source, there, expected):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", source)
    resources(monkeypatch, **there)
    assert verdicts() == dict(zip(("01", "02", "03", "04"), expected.split(), strict=True))


@pytest.mark.usefixtures("plenty")
def test_what_is_kept_needs_no_room(monkeypatch):
    resources(monkeypatch, hub=0, offline=0, available=1.5e9)
    assert verdicts() == {"01": "note", "02": "note", "03": "ok", "04": "note"}
    for place in ("hub", "offline"):
        monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "auto" if place == "hub" else "offline")
        monkeypatch.setattr(needs, "_is_kept", lambda _, where, place=place: where == place)
        assert verdicts() == {"01": "ok", "02": "ok", "03": "ok", "04": "ok"}


def test_kept_is_what_the_caches_hold(monkeypatch, tmp_path):
    from llm_tutorial import checkpoints, offline

    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert not needs._is_kept("masked", "hub")
    assert not needs._is_kept("causal", "offline")
    assert needs._is_kept("masked", "offline"), "that one is bundled"
    offline._target().mkdir(parents=True)
    assert needs._is_kept("causal", "offline")
    repo, revision = checkpoints._HUB_CHECKPOINTS["masked"]
    snapshot = tmp_path / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert needs._is_kept("masked", "hub")


@pytest.mark.usefixtures("plenty")
def test_memory_that_nobody_knows_is_no_failure(monkeypatch):
    monkeypatch.setattr(needs, "available_memory", lambda: None)
    found = list(need_findings())
    assert {finding.verdict for finding in found} == {"ok"}
    assert "psutil" in found[0].detail


def test_memory_with_and_without_psutil(monkeypatch, tmp_path):
    psutil = pytest.importorskip("psutil")
    nowhere, meminfo = tmp_path / "nowhere", tmp_path / "meminfo"
    assert available_memory(nowhere).total == psutil.virtual_memory().total
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert available_memory(nowhere, nowhere) is None
    meminfo.write_text("MemTotal:       4000 kB\nMemFree:         10 kB\nMemAvailable:    2000 kB\n")
    assert available_memory(nowhere, meminfo) == Memory(2000 * 1024, 4000 * 1024)


def test_memory_of_a_container(monkeypatch, tmp_path):
    monkeypatch.setattr(needs, "_system_memory", lambda _: Memory(6_000, 9_000))
    for name, text in {"max": "4000\n", "current": "3000\n", "stat": "anon 1\ninactive_file 700\nfile 2\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert available_memory(tmp_path) == Memory(1_700, 4_000)
    (tmp_path / "memory.max").write_text("9500\n")  # the machine has less
    assert available_memory(tmp_path) == Memory(6_000, 9_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) == Memory(6_000, 9_000)


def test_free_disk_of_a_folder_that_is_not_there_yet(tmp_path):
    import shutil

    assert abs(needs._free(tmp_path / "a" / "b") - shutil.disk_usage(tmp_path).free) < 1e9


def test_all_sources_are_judged():
    from llm_tutorial import checkpoints

    assert set(DOWNLOADS) == set(checkpoints._HUB_CHECKPOINTS)
    assert sources.source_or_auto() == "offline"
