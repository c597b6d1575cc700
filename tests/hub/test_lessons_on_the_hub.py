"""The notebooks, executed with models and articles from a hub, and once more from the cache when it is gone."""

import functools
import shutil
from pathlib import Path

import pytest
from hub_repositories import bert_base_uncased, gpt2, trusting_kernels, wikipedia
from hub_server import HubServer

from llm_tutorial.commands.run import Run, execute_notebook
from llm_tutorial.sources.offline import fetch_causal_lm

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
WANTED = {
    "01_masked_lm": {"google-bert/bert-base-uncased"},
    "02_causal_lm": {"google-bert/bert-base-uncased", "openai-community/gpt2"},
    "03_pretraining": {"wikimedia/wikipedia"},
    "04_inside": {"google-bert/bert-base-uncased", "openai-community/gpt2"},
    "05_training_well": {"wikimedia/wikipedia"},
    "06_reuse": {"google-bert/bert-base-uncased", "openai-community/gpt2", "wikimedia/wikipedia"},
    "07_tokenizers": {"google-bert/bert-base-uncased", "wikimedia/wikipedia"},
    "08_scaling_up": {"wikimedia/wikipedia"},
}
STREAMED = {"08_scaling_up": {"wikimedia/wikipedia"}}  # read again each time, nothing of it is kept
UNWANTED_SUFFIXES = (".bin", ".h5", ".onnx", ".ot", ".msgpack", ".tflite", ".md")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return [bert_base_uncased(), gpt2(tmp_path_factory.mktemp("gpt2"))]


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    with HubServer([*models, wikipedia(tmp_path_factory.mktemp("wikipedia"))]) as server:
        yield server


@pytest.fixture(scope="module")
def caches(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("caches")
    trusting_kernels(folder / "ipython", models)
    model = fetch_causal_lm()  # lesson 7 always cuts with its tokenizer
    shutil.copytree(model, folder / "ours" / model.name)
    return folder


@pytest.fixture
def hub_settings(server, caches, monkeypatch):
    """Settings that the kernels inherit; with this source, a lesson that finds no hub ends with an error."""
    for name, value in {"HF_ENDPOINT": server.url, "HF_HOME": str(caches / "hf"), "LLM_TUTORIAL_SOURCE": "hub",
                        "LLM_TUTORIAL_CACHE": str(caches / "ours"), "IPYTHONDIR": str(caches / "ipython"),
                        "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1,localhost",
                        "no_proxy": "127.0.0.1,localhost"}.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def first_run(server, caches):
    """A function that runs a notebook on the hub, once for all tests; it returns the run and what was asked for."""
    @functools.cache
    def first_run(name: str) -> tuple[Run, list[str]]:
        before = len(server.answers)
        folder = caches / name
        folder.mkdir()
        run = execute_notebook(NOTEBOOKS / f"{name}.ipynb", folder=folder, timeout=900)
        return run, [answer.path for answer in server.answers[before:]]

    return first_run


@pytest.mark.usefixtures("hub_settings")
@pytest.mark.parametrize("name", WANTED)
def test_lesson_runs_on_the_hub(name, server, first_run):
    run, asked = first_run(name)
    assert run.error is None, run.error
    # What an earlier lesson brought is in the cache; nothing else is asked for.
    earlier = {repository for other in list(WANTED)[: list(WANTED).index(name)] for repository in WANTED[other]}
    for repository in WANTED[name] - earlier:
        assert any(repository in path for path in asked), repository
    for repository in STREAMED.get(name, set()):
        parts = [path for path in asked if path.startswith(f"/-/large/{repository}/")]
        assert len(set(parts)) == 2, "of both of its files the content is read"
    assert not [path for path in asked if path.endswith(UNWANTED_SUFFIXES)]
    assert server.unknown == []


@pytest.mark.usefixtures("hub_settings")
def test_lesson_runs_from_the_cache_when_the_hub_is_gone(server, tmp_path, first_run):
    first_run("01_masked_lm")
    server.stop()
    again = execute_notebook(NOTEBOOKS / "01_masked_lm.ipynb", folder=tmp_path, timeout=900)
    assert again.error is None, again.error
