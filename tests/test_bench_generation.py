"""llm-tutorial bench generate: the same text with and without the key-value cache."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmark_results import GENERATE

from llm_tutorial.benchmarks import generation
from llm_tutorial.benchmarks.generation import (
    bench_generate,
    generate_figure,
    generate_table,
    measure_generation,
)
from llm_tutorial.checkpoints import Checkpoint
from llm_tutorial.decoding import greedy_decode
from llm_tutorial.device import Device

CPU = Device("cpu", False, "for a test")
PROMPT = "life is like"


def measure(model, tokenizer, lengths, **options):
    return measure_generation(model, tokenizer, lengths, device=CPU, prompt=PROMPT,
                              **{"report": [].append, "repeats": 1} | options)


@pytest.fixture
def uses(monkeypatch, causal_lm):
    """(use_cache, new tokens) of each call of the tiny model's ``generate``."""
    calls, generate = [], causal_lm.generate

    def spied(**options):
        calls.append((options["use_cache"], options["max_new_tokens"]))
        return generate(**options)

    monkeypatch.setattr(causal_lm, "generate", spied)
    return calls


def test_both_ways_are_measured_in_turn_after_one_to_warm_up(causal_lm, causal_tokenizer, uses):
    found = json.loads(json.dumps(measure(causal_lm, causal_tokenizer, (4, 8), repeats=2)))
    assert uses == [(True, 4), *2 * [(True, 4), (False, 4), (True, 8), (False, 8)]]
    for length, of_length in zip((4, 8), found["lengths"], strict=True):
        assert of_length["new_tokens"] == length
        for name in ("with_cache", "without_cache"):
            assert len(of_length[name]["runs"]) == 2
            for run in of_length[name]["runs"]:
                assert run["tokens_per_second"] == pytest.approx(length / run["seconds"])
        assert of_length["speedup"] == pytest.approx(
            of_length["without_cache"]["seconds"] / of_length["with_cache"]["seconds"])
    assert found["settings"]["prompt_tokens"] == len(causal_tokenizer(PROMPT).input_ids)


def test_the_text_is_the_greedy_one(causal_lm, causal_tokenizer):
    [found] = measure(causal_lm, causal_tokenizer, (6,))["lengths"]
    prompt = len(causal_tokenizer(PROMPT).input_ids)
    ids = greedy_decode(causal_lm, causal_tokenizer, PROMPT, 6)[0, prompt:]
    assert len(ids) == 6, "no end of text in it, which only one of the two may write"
    assert found["text"] == causal_tokenizer.decode(ids)


def test_a_model_that_would_end_its_text_writes_on(causal_lm, causal_tokenizer):
    ending = torch.nn.functional.one_hot(torch.tensor(causal_tokenizer.eos_token_id), causal_lm.config.vocab_size)
    causal_lm.lm_head.register_forward_hook(lambda _layer, _inputs, logits: logits + 1e4 * ending)
    inputs = causal_tokenizer(PROMPT, return_tensors="pt")
    for use_cache in (True, False):
        written = generation._written(causal_lm, inputs, 5, use_cache, "", [].append)
        assert len(written) == 5
        assert causal_tokenizer.eos_token_id not in written


def test_without_the_cache_the_whole_text_is_read_again(causal_lm, causal_tokenizer):
    read = []
    causal_lm.transformer.wte.register_forward_pre_hook(lambda _, ids: read.append(ids[0].shape[1]))
    measure(causal_lm, causal_tokenizer, (3,))
    prompt = len(causal_tokenizer(PROMPT).input_ids)
    assert read == [prompt, 1, 1, prompt, 1, 1, prompt, prompt + 1, prompt + 2]


def test_texts_that_differ_are_no_result(causal_lm, causal_tokenizer, monkeypatch):
    written = iter([[0, 0], [5, 6], [5, 7]])
    monkeypatch.setattr(generation, "_written", lambda *_: torch.tensor(next(written)))
    with pytest.raises(FloatingPointError, match=r"the texts differ, first in new token 2 \(6 and 7\)"):
        measure(causal_lm, causal_tokenizer, (2,))


def test_progress_is_told_within_a_text(causal_lm, causal_tokenizer, monkeypatch):
    monkeypatch.setattr(generation, "SECONDS_BETWEEN_LINES", 0.0)
    said = []
    measure(causal_lm, causal_tokenizer, (3,), report=said.append)
    label = "generate: 3 tokens without, run 1 of 1"
    assert said[-5:] == [label, *(f"{label}: {count} of 3" for count in range(4))]


def test_progress_is_told_every_few_seconds_only(monkeypatch):
    now, said = [10.0], []
    monkeypatch.setattr(generation, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    ticks = generation._Ticks("writing", 4, said.append)
    for seconds in (1.0, 4.5, 1.0, 4.5, 1.0):  # the prompt, then four tokens
        now[0] += seconds
        ticks.put(None)
    assert said == ["writing: 1 of 4", "writing: 3 of 4"]


@pytest.mark.parametrize(("lengths", "options", "message"), [
    ((), {}, r"lengths=\(\)"), ((4, 0), {}, r"lengths=\(4, 0\)"), ((4,), {"repeats": 0}, "repeats=0"),
    ((4, 100), {}, "and 100 new ones, but the model reads at most 64")])
def test_impossible_arguments_are_refused(causal_lm, causal_tokenizer, lengths, options, message):
    with pytest.raises(ValueError, match=message):
        measure(causal_lm, causal_tokenizer, lengths, **options)


def test_the_model_of_the_source_in_use_is_measured(causal_lm, causal_tokenizer, monkeypatch):
    checkpoint = Checkpoint(Path("model"), "abc", "cache", "downloaded earlier", "openai-community/gpt2")
    monkeypatch.setattr(generation, "resolve_checkpoint", lambda name: {"causal": checkpoint}[name])
    monkeypatch.setattr(generation, "load_checkpoint", lambda *_: (causal_tokenizer, causal_lm))
    settings = bench_generate((2,), repeats=1, report=[].append)["settings"]
    assert (settings["model"], settings["source"]) == ("openai-community/gpt2", "cache")
    assert (settings["device"], settings["precision"]) == ("cpu", "float32")


def test_the_table_shows_both_speeds():
    table = generate_table(GENERATE).splitlines()
    assert table[1].split() == ["64", "20.0", "8.0", "2.5"]
    assert table[2].split() == ["128", "20.0", "5.0", "4.0"]
    assert table[3].startswith("SmolLM2 (offline), 134,515,008 parameters in float32 on cpu, greedy, same text")


def test_the_figure_tells_the_speeds():
    figure = generate_figure(GENERATE)
    assert figure.png.startswith(b"\x89PNG")
    assert "64, 128 new tokens: with the cache 20.0, 20.0; without 8.0, 5.0." in figure.alt
