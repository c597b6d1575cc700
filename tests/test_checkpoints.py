"""Arguments and variables that choose a checkpoint, without network and without loading a model."""

import pytest

from llm_tutorial import checkpoints, hub
from llm_tutorial.checkpoints import Checkpoint, chosen_source, load_gpt2_tokenizer, resolve_checkpoint

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Let nothing leave this process: the hub is unreachable, its cache empty, the offline models are elsewhere."""
    monkeypatch.delenv("LLM_TUTORIAL_SOURCE", raising=False)
    monkeypatch.setattr(hub, "cached_snapshot", lambda *_: None)
    monkeypatch.setattr(hub, "why_unreachable", lambda *_, **__: "nobody answered")
    monkeypatch.setattr(hub, "download_snapshot", lambda *_, **__: pytest.fail("nothing may be downloaded"))
    monkeypatch.setattr(
        checkpoints, "_offline_checkpoint", lambda name, why: Checkpoint(tmp_path, "0" * 64, "offline", why, name))


@pytest.mark.parametrize("name", ["bert", "", "Masked", "a/b/c", "../a/b", "a b/c", "owner/name@main"])
def test_unknown_name_is_named_with_the_known_ones(name):
    with pytest.raises(ValueError, match="Unknown checkpoint") as caught:
        resolve_checkpoint(name)
    assert repr(name) in str(caught.value)
    assert "'masked', 'causal'" in str(caught.value)


@pytest.mark.parametrize("name", ["masked", "someone/something"])
def test_unknown_source_is_named_with_who_chose_it(name, monkeypatch):
    with pytest.raises(ValueError, match=r"Unknown source 'cache' \(source='cache'\): use one of auto, hub, offline"):
        resolve_checkpoint(name, source="cache")
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "online")
    with pytest.raises(ValueError, match=r"Unknown source 'online' \(LLM_TUTORIAL_SOURCE=online\)"):
        resolve_checkpoint(name)


@pytest.mark.parametrize(
    ("argument", "variable", "expected"),
    [
        (None, None, ("auto", "the default")),
        (None, "", ("auto", "the default")),
        (None, " Offline ", ("offline", "LLM_TUTORIAL_SOURCE=offline")),
        (None, "hub", ("hub", "LLM_TUTORIAL_SOURCE=hub")),
        ("offline", "hub", ("offline", "source='offline'")),
        ("auto", "hub", ("auto", "source='auto'")),
    ],
)
def test_an_argument_goes_before_the_variable_and_that_before_the_default(argument, variable, expected, monkeypatch):
    if variable is not None:
        monkeypatch.setenv("LLM_TUTORIAL_SOURCE", variable)
    assert chosen_source(argument) == expected


def test_the_argument_wins_over_a_wrong_variable(monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "online")
    assert resolve_checkpoint("masked", source="offline").source == "offline"


@pytest.mark.parametrize("name", ["someone/something", f"someone/something@{COMMIT}"])
def test_a_repository_of_ones_own_has_no_stand_in(name, monkeypatch):
    with pytest.raises(ValueError, match=r"no offline stand-in.*source='offline'.*LLM_TUTORIAL_SOURCE=hub"):
        resolve_checkpoint(name, source="offline")
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "offline")
    with pytest.raises(ValueError, match=r"no offline stand-in.*\(LLM_TUTORIAL_SOURCE=offline\)"):
        resolve_checkpoint(name)


@pytest.mark.parametrize("name", ["masked", "causal"])
def test_reason_says_why_offline(name, monkeypatch):
    assert resolve_checkpoint(name).reason == "hub not reachable: nobody answered"
    assert resolve_checkpoint(name, source="offline").reason == "source='offline'"
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "offline")
    assert resolve_checkpoint(name).reason == "LLM_TUTORIAL_SOURCE=offline"


@pytest.mark.parametrize("name", ["masked", "causal"])
def test_hub_wanted_but_unreachable_is_an_error(name):
    with pytest.raises(ConnectionError, match=r"\(source='hub'\).*nobody answered.*LLM_TUTORIAL_SOURCE=auto"):
        resolve_checkpoint(name, source="hub")


@pytest.mark.parametrize("source", ["auto", "hub"])
def test_the_cache_goes_before_the_hub(source, monkeypatch, tmp_path):
    folder = tmp_path / COMMIT
    monkeypatch.setattr(hub, "cached_snapshot", lambda *_: folder)
    monkeypatch.setattr(hub, "why_unreachable", lambda *_: pytest.fail("the hub may not be asked"))
    repo, revision = checkpoints._HUB_CHECKPOINTS["masked"]
    assert resolve_checkpoint("masked", source=source) == Checkpoint(
        folder, revision, "cache", "downloaded earlier", repo)
    own = resolve_checkpoint("someone/something", source=source)
    assert (own.source, own.revision, own.name) == ("cache", COMMIT, "someone/something")


def test_offline_ignores_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "cached_snapshot", lambda *_: tmp_path)
    assert resolve_checkpoint("causal", source="offline").source == "offline"


def test_the_hub_is_used_when_it_answers(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(hub, "why_unreachable", lambda *_: None)
    monkeypatch.setattr(hub, "download_snapshot", lambda *names, **_: asked.append(names) or tmp_path)
    found = resolve_checkpoint("causal")
    assert (found.source, found.reason, found.path) == ("hub", "the hub answered", tmp_path)
    assert asked == [checkpoints._HUB_CHECKPOINTS["causal"]]


def test_pinned_revisions_are_commit_hashes():
    assert {len(revision) for _, revision in checkpoints._HUB_CHECKPOINTS.values()} == {40}


def test_gpt2_tokenizer_is_the_published_one():
    tokenizer = load_gpt2_tokenizer()
    assert len(tokenizer) == 50257
    assert tokenizer("Swimming at the beach is")["input_ids"] == [10462, 27428, 379, 262, 10481, 318]
    assert tokenizer.decode([10462, 27428, 379]) == "Swimming at"
    assert tokenizer.model_max_length == 1024
