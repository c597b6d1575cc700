"""Arguments and variables that choose a checkpoint, without network and without loading a model."""

import pytest

from llm_tutorial import checkpoints
from llm_tutorial.checkpoints import Checkpoint, load_gpt2_tokenizer, resolve_checkpoint
from llm_tutorial.sources import chosen_source, hub, offline

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """The hub is unreachable, its cache is empty, and the offline causal model is fetched."""
    monkeypatch.delenv("LLM_TUTORIAL_SOURCE", raising=False)
    monkeypatch.setattr(hub, "cached_snapshot", lambda *_: None)
    monkeypatch.setattr(hub, "why_unreachable", lambda *_, **__: "nobody answered")
    monkeypatch.setattr(hub, "download_snapshot", lambda *_, **__: pytest.fail("nothing may be downloaded"))
    monkeypatch.setattr(offline, "fetched_causal_lm", lambda: tmp_path)


@pytest.mark.parametrize("name", ["bert", "", "a/b/c", "a b/c", "owner/name@main"])
def test_an_unknown_name_is_named_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"Unknown checkpoint .*: use 'masked', 'causal', or a repo") as caught:
        resolve_checkpoint(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(("argument", "variable", "expected"), [
    (None, "", ("auto", "the default")),
    (None, " Offline ", ("offline", "LLM_TUTORIAL_SOURCE=offline")),
    ("offline", "hub", ("offline", "source='offline'")),
])
def test_the_argument_has_priority_over_the_variable(argument, variable, expected, monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", variable)
    assert chosen_source(argument) == expected


def test_an_unknown_source_is_named_with_its_origin(monkeypatch):
    with pytest.raises(ValueError, match=r"Unknown source 'cache' \(source='cache'\): use one of auto, hub, offline"):
        resolve_checkpoint("masked", source="cache")
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "online")
    with pytest.raises(ValueError, match=r"Unknown source 'online' \(LLM_TUTORIAL_SOURCE=online\)"):
        resolve_checkpoint("masked")


@pytest.mark.parametrize(("name", "shown"), [
    ("masked", "minilm-mlm"), ("causal", "SmolLM2-135M-Instruct"), ("gpt2", "recited-gpt2")])
def test_the_reason_says_why_the_offline_model_is_taken(name, shown, monkeypatch, tmp_path):
    found = resolve_checkpoint(name)
    assert (found.source, found.name, found.reason) == ("offline", shown, "hub not reachable: nobody answered")
    monkeypatch.setattr(hub, "cached_snapshot", lambda *_: tmp_path)
    assert resolve_checkpoint(name, source="offline").reason == "source='offline'"


def test_the_offline_causal_model_is_fetched_if_it_is_absent(monkeypatch, tmp_path):
    monkeypatch.setattr(offline, "fetched_causal_lm", lambda: None)
    monkeypatch.setattr(offline, "fetch_causal_lm", lambda: tmp_path / "fetched")
    assert resolve_checkpoint("causal").path == tmp_path / "fetched"


def test_a_repository_of_the_readers_own_is_not_available_offline():
    with pytest.raises(ValueError, match=r"not available offline \(source='offline'\).*LLM_TUTORIAL_SOURCE=hub"):
        resolve_checkpoint("someone/something", source="offline")


@pytest.mark.parametrize("source", ["auto", "hub"])
def test_the_cache_is_used_before_the_hub(source, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "cached_snapshot", lambda *_: tmp_path / COMMIT)
    monkeypatch.setattr(hub, "why_unreachable", lambda *_, **__: pytest.fail("the hub may not be asked"))
    repo, revision, _ = checkpoints.HUB_CHECKPOINTS["masked"]
    assert resolve_checkpoint("masked", source=source) == Checkpoint(
        tmp_path / COMMIT, revision, "cache", "downloaded earlier", repo)
    assert resolve_checkpoint("someone/something", source=source).revision == COMMIT


@pytest.mark.parametrize("name", ["causal", "gpt2"])
def test_the_hub_is_used_when_it_answers_with_the_pinned_revision_and_hash(name, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(hub, "why_unreachable", lambda *_, **__: None)
    monkeypatch.setattr(hub, "download_snapshot", lambda *names, **_: asked.append(names) or tmp_path)
    found = resolve_checkpoint(name)
    assert (found.source, found.reason, found.path) == ("hub", "the hub answered", tmp_path)
    assert asked == [checkpoints.HUB_CHECKPOINTS["causal"]]
    assert [(len(revision), len(sha)) for _, revision, sha in checkpoints.HUB_CHECKPOINTS.values()] == [(40, 64)] * 2


def test_gpt2s_tokenizer_gives_the_published_ids_and_shows_no_path():
    tokenizer = load_gpt2_tokenizer()
    assert (len(tokenizer), tokenizer.eos_token_id, tokenizer.model_max_length) == (50257, 50256, 1024)
    assert tokenizer("Swimming at the beach is")["input_ids"] == [10462, 27428, 379, 262, 10481, 318]
    assert tokenizer.decode([10462, 27428, 379]) == "Swimming at"
    trained = tokenizer.train_new_from_iterator(["some words to train on"], 300, show_progress=False)
    assert not [each for each in (tokenizer, trained) if "data" in repr(each) + str(each.init_kwargs)]
