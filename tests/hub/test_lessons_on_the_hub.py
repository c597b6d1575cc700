"""The notebooks, executed with models and articles from a hub, and once more from the cache when it is gone."""

import shutil
from pathlib import Path

import pytest
from hub_repositories import bert_base_uncased, gpt2, trusting_kernels, wikipedia
from hub_server import HubServer

from llm_tutorial.commands.run import execute_notebook
from llm_tutorial.sources.offline import fetch_causal_lm

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
UNWANTED_SUFFIXES = (".bin", ".h5", ".onnx", ".md")  # of hub_repositories.UNWANTED


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


@pytest.fixture(autouse=True)
def hub_settings(server, caches, monkeypatch):
    """Settings that the kernels inherit; with this source, a lesson that finds no hub ends with an error."""
    for name, value in {"HF_ENDPOINT": server.url, "HF_HOME": str(caches / "hf"), "LLM_TUTORIAL_SOURCE": "hub",
                        "LLM_TUTORIAL_CACHE": str(caches / "ours"), "IPYTHONDIR": str(caches / "ipython"),
                        "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1,localhost",
                        "no_proxy": "127.0.0.1,localhost"}.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_lesson_runs_on_the_hub(notebook, server, tmp_path):
    run = execute_notebook(notebook, folder=tmp_path, timeout=900)
    assert run.error is None, run.error
    assert server.answers, "what is not in the cache yet was asked for"
    assert not [answer.path for answer in server.answers if answer.path.endswith(UNWANTED_SUFFIXES)]
    assert server.unknown == []


def test_lesson_runs_from_the_cache_when_the_hub_is_gone(server, tmp_path):
    for folder in (tmp_path / "hub", tmp_path / "cache"):
        folder.mkdir()
        run = execute_notebook(NOTEBOOKS[0], folder=folder, timeout=900)
        assert run.error is None, run.error
        server.stop()
