"""Presets, the Trainer around them, and the loss that it reports."""

import dataclasses
import inspect

import pytest
import torch
from datasets import Dataset, DatasetDict
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel, TrainingArguments

from llm_tutorial.chunking import chunked_dataset
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.device import Device, pick_device, set_seed
from llm_tutorial.optimizers import MuonAdamW
from llm_tutorial.training import (
    PRESETS,
    _device_arguments,
    build_trainer,
    gpt2_config,
    pick_preset,
    preset_tokenizer,
    training_arguments,
)


def loss_by_hand(model: GPT2LMHeadModel, rows: list[list[int]]) -> float:
    """Mean over all tokens that have a predecessor."""
    ids = torch.tensor(rows)
    with torch.no_grad():
        logits = model.eval()(ids).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()


def tiny_trainer(model, chunks, tokenizer, folder, **overrides):
    arguments = training_arguments("smoke", folder, **overrides)
    return build_trainer(model, arguments, chunks, tokenizer, preset="smoke")


def test_the_shifted_cross_entropy_is_the_models_own_loss(causal_lm, chunks):
    ids = torch.tensor(chunks["valid"]["input_ids"][:])
    with torch.no_grad():
        loss = causal_lm(input_ids=ids, labels=ids).loss.item()
    assert loss_by_hand(causal_lm, ids.tolist()) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_the_trainer_reports_the_shifted_cross_entropy(causal_lm, causal_tokenizer, chunks, tmp_path, batch):
    trainer = tiny_trainer(causal_lm, chunks, causal_tokenizer, tmp_path, per_device_eval_batch_size=batch)
    expected = loss_by_hand(causal_lm, chunks["valid"]["input_ids"][:])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_training_loss_is_the_shifted_cross_entropy_too(
    causal_lm, causal_tokenizer, chunks, tmp_path, accumulate
):
    trainer = tiny_trainer(
        causal_lm, chunks, causal_tokenizer, tmp_path, per_device_train_batch_size=10 // accumulate,
        gradient_accumulation_steps=accumulate, max_steps=1, logging_steps=1)
    expected = loss_by_hand(causal_lm, chunks["train"]["input_ids"][:])
    assert trainer.train().training_loss == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The smoke preset trained on a few real articles, as the notebooks do it."""
    texts = load_wikipedia(6, 3, source="offline")
    tokenizer = preset_tokenizer("smoke", texts["train"]["text"])
    set_seed(42)
    model = GPT2LMHeadModel(gpt2_config("smoke", tokenizer))
    arguments = training_arguments("smoke", tmp_path_factory.mktemp("smoke"), device=Device("cpu", False, ""))
    trainer = build_trainer(model, arguments, chunked_dataset(texts, tokenizer, 128), tokenizer, preset="smoke")
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    return trainer, before, trainer.evaluate()["eval_loss"]


def test_the_smoke_preset_learns_in_20_steps(smoke):
    trainer, before, after = smoke
    assert trainer.state.global_step == 20
    assert before == pytest.approx(torch.log(torch.tensor(512.0)).item(), rel=0.1)
    assert after < before - 0.5
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged[-1] < logged[0]


def test_muon_and_its_schedule_pass_through_the_trainer(smoke):
    trainer = smoke[0]
    optimizer = trainer.optimizer.optimizer  # accelerate wraps it
    assert isinstance(optimizer, MuonAdamW)
    assert [group["muon"] for group in optimizer.param_groups] == [True, False]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [5e-3, 2e-3]
    assert all(group["lr"] < 1e-3 for group in optimizer.param_groups), "the schedule reaches every group"
    assert len(optimizer.state) == sum(len(group["params"]) for group in optimizer.param_groups)


def test_an_interrupted_training_resumes_to_the_same_weights(causal_lm, causal_tokenizer, chunks, tmp_path):
    start = {name: value.clone() for name, value in causal_lm.state_dict().items()}
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 4}
    trainer = tiny_trainer(causal_lm, chunks, causal_tokenizer, tmp_path, **options)
    trainer.train()
    expected = {name: value.clone() for name, value in causal_lm.state_dict().items()}

    causal_lm.load_state_dict(start)
    trainer = tiny_trainer(causal_lm, chunks, causal_tokenizer, tmp_path, **options)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [group["muon"] for group in trainer.optimizer.param_groups] == [True, False]
    assert all(torch.equal(value, expected[name]) for name, value in causal_lm.state_dict().items())
    assert not all(torch.equal(value, start[name]) for name, value in causal_lm.state_dict().items())


def test_a_preset_without_muon_leaves_the_optimiser_to_the_trainer(causal_lm, causal_tokenizer, chunks, tmp_path):
    arguments = training_arguments("smoke", tmp_path)
    trainer = build_trainer(causal_lm, arguments, chunks, causal_tokenizer,
                            preset=dataclasses.replace(PRESETS["smoke"], muon_lr=None))
    assert trainer.optimizer is None


def test_training_prints_nothing_by_itself(causal_lm, causal_tokenizer, chunks, tmp_path, capsys):
    tiny_trainer(causal_lm, chunks, causal_tokenizer, tmp_path, max_steps=1, logging_steps=1).train()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_a_model_and_arguments(name, causal_tokenizer, tmp_path):
    preset = PRESETS[name]
    with torch.device("meta"):
        model = GPT2LMHeadModel(gpt2_config(name, causal_tokenizer))
    assert (model.config.n_layer, model.config.n_embd, model.config.n_head) == (
        preset.layers, preset.width, preset.heads)
    assert (model.config.n_positions, model.config.vocab_size) == (128, len(causal_tokenizer))
    assert {model.config.bos_token_id, model.config.eos_token_id} == {causal_tokenizer.eos_token_id}
    arguments = training_arguments(name, tmp_path)
    assert (arguments.num_train_epochs, arguments.learning_rate) == (preset.epochs, preset.learning_rate)
    assert arguments.per_device_train_batch_size == preset.batch
    assert arguments.get_warmup_steps(1000) == 1000 * preset.warmup


def test_overrides_go_before_the_preset(tmp_path):
    arguments = training_arguments("cpu", tmp_path, learning_rate=1e-5, num_train_epochs=2, logging_steps=7)
    assert (arguments.learning_rate, arguments.num_train_epochs, arguments.logging_steps) == (1e-5, 2, 7)
    assert (arguments.use_cpu, arguments.bf16) == (True, False)


@pytest.mark.parametrize(("device", "expected"), [
    (Device("cpu", False, ""), {"use_cpu": True, "bf16": False}),
    (Device("cpu", True, ""), {"use_cpu": True, "bf16": True}),
    (Device("cuda", True, ""), {"bf16": True, "fp16": False, "tf32": True}),
    (Device("cuda", False, "", fp16=True), {"bf16": False, "fp16": True, "tf32": False}),
    (Device("cuda", False, ""), {"bf16": False, "fp16": False, "tf32": False}),
    (Device("mps", False, ""), {}),
])
def test_each_device_gets_its_keys(device, expected):
    arguments = _device_arguments(device)
    assert arguments == expected
    assert set(arguments) <= set(inspect.signature(TrainingArguments).parameters)


def test_a_device_picks_the_preset_of_its_name():
    assert pick_preset(pick_device()) is PRESETS["cpu"]
    assert pick_preset(Device("cuda", True, "")) is PRESETS["cuda"]
    assert pick_preset(PRESETS["mps"]) is PRESETS["mps"]


def test_a_presets_tokenizer_has_the_size_wanted_and_encodes_any_text():
    texts = load_wikipedia(6, 3)["train"]["text"][:]
    tokenizer = preset_tokenizer("smoke", texts)
    assert len(tokenizer) == 512
    for text in ("żółć 漢字 🙂", texts[0]):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(preset_tokenizer("cuda", [])) == 50_257


@pytest.mark.parametrize("call", [
    pick_preset, lambda name: training_arguments(name, "out"), lambda name: gpt2_config(name, None),
    lambda name: preset_tokenizer(name, []), lambda name: build_trainer(None, None, None, None, preset=name),
])
def test_an_unknown_preset_is_named_with_a_remedy(call):
    with pytest.raises(ValueError, match="Unknown preset 'tpu': use one of cpu, cuda, mps, smoke"):
        call("tpu")


def test_an_unknown_override_is_named(tmp_path):
    with pytest.raises(TypeError, match="'evaluation_strategy'"):
        training_arguments("smoke", tmp_path, evaluation_strategy="steps")


def test_too_few_texts_for_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match=r"give only \d+ of the 512 entries that the preset 'smoke' wants: add texts"):
        preset_tokenizer("smoke", ["a few words"])


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize(("rows", "message"), [
    ([], "There is no '{}' chunk: give texts longer than the context length"),
    ([[1] * 65], "A '{}' chunk has 65 tokens, but the model has 64 positions: chunk with a shorter context_length"),
    ([[1, 288]], "A '{}' chunk has token id 288, but the model's vocabulary has 288 entries: use the same tokenizer"),
    (None, "There is no '{}' chunk"),
])
def test_chunks_that_the_model_cannot_take_are_named(
    causal_lm, causal_tokenizer, chunks, tmp_path, split, rows, message
):
    splits = {name: data for name, data in chunks.items() if name != split}
    if rows is not None:
        splits[split] = Dataset.from_dict({"input_ids": rows})
    with pytest.raises(ValueError, match=message.format(split)):
        tiny_trainer(causal_lm, DatasetDict(splits), causal_tokenizer, tmp_path)


def test_texts_that_were_not_chunked_are_refused(causal_lm, causal_tokenizer, tmp_path):
    texts = DatasetDict({name: Dataset.from_dict({"text": ["a box"]}) for name in ("train", "valid")})
    with pytest.raises(ValueError, match=r"'train' has the columns \['text'\].*chunked_dataset"):
        tiny_trainer(causal_lm, texts, causal_tokenizer, tmp_path)
