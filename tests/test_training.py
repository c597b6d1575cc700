"""Presets, the Trainer around them, and the loss that it reports."""

import dataclasses
import inspect
import json

import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2LMHeadModel, TrainerCallback, TrainingArguments

from llm_tutorial.chunking import chunked_dataset
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.device import Device, pick_device, set_seed
from llm_tutorial.evaluation import recitation
from llm_tutorial.optimizers import MuonAdamW
from llm_tutorial.presets import PRESETS, pick_preset
from llm_tutorial.resuming import newest_checkpoint
from llm_tutorial.training import (
    _device_arguments,
    build_trainer,
    gpt2_config,
    new_model,
    preset_tokenizer,
    training_arguments,
)

ON_CUDA = {"optim": "adamw_torch_fused", "auto_find_batch_size": True}


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


class LogitsInFloat32(TorchDispatchMode):
    """Counts how often a tensor as wide as the vocabulary is converted to float32."""

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary, self.count = vocabulary, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.count += (function is torch.ops.aten._to_copy.default and result.dtype == torch.float32
                       and result.shape[-1:] == (self.vocabulary,))
        return result


def test_half_precision_logits_are_converted_once_and_weights_stay_the_same(
    causal_lm, causal_tokenizer, chunks, tmp_path
):
    start = {name: value.clone() for name, value in causal_lm.state_dict().items()}
    arguments = training_arguments("smoke", tmp_path, device=Device("cpu", True, ""), max_steps=3, eval_strategy="no")

    def trained(by_the_model):
        causal_lm.load_state_dict(start)
        trainer = build_trainer(causal_lm, arguments, chunks, causal_tokenizer, preset="smoke")
        if by_the_model:
            trainer.compute_loss_func = None
        with LogitsInFloat32(len(causal_tokenizer)) as converted:
            trainer.train()
        return converted.count, {name: value.clone() for name, value in causal_lm.state_dict().items()}

    (once, weights), (twice, expected) = trained(False), trained(True)
    assert (once, twice) == (3, 6)
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())


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
    (Device("cuda", True, ""), {"bf16": True, "fp16": False, "tf32": True} | ON_CUDA),
    (Device("cuda", False, "", fp16=True), {"bf16": False, "fp16": True, "tf32": False} | ON_CUDA),
    (Device("cuda", False, ""), {"bf16": False, "fp16": False, "tf32": False} | ON_CUDA),
    (Device("mps", False, ""), {}),
])
def test_each_device_gets_its_keys(device, expected):
    arguments = _device_arguments(device)
    assert arguments == expected
    assert set(arguments) <= set(inspect.signature(TrainingArguments).parameters)


def test_the_full_size_preset_is_gpt2(tmp_path):
    tokenizer = preset_tokenizer("cuda", [])
    with torch.device("meta"):
        model = new_model("cuda", tokenizer)
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808 - (1024 - 128) * 768
    assert training_arguments("cuda", tmp_path).per_device_train_batch_size == 8
    assert PRESETS["cuda"].muon_lr is None


def test_a_training_that_runs_out_of_memory_goes_on_with_half_the_batch(
    causal_lm, causal_tokenizer, chunks, tmp_path, monkeypatch
):
    sizes, forward = [], causal_lm.forward

    def forward_in_little_memory(*args, input_ids, **kwargs):
        sizes.append(len(input_ids))
        if len(input_ids) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(causal_lm, "forward", forward_in_little_memory)
    arguments = training_arguments("smoke", tmp_path, per_device_train_batch_size=8, auto_find_batch_size=True,
                                   eval_strategy="no", max_steps=2)
    trainer = build_trainer(causal_lm, arguments, chunks, causal_tokenizer,
                            preset=dataclasses.replace(PRESETS["smoke"], muon_lr=None))
    trainer.train()
    assert sizes[0] == 8
    assert sizes[-1] <= 3
    assert trainer.state.global_step == 2


def test_new_models_embeddings_start_as_far_apart_as_the_preset_says(causal_tokenizer):
    wide = dataclasses.replace(PRESETS["smoke"], embedding_std=0.1)
    for preset, std in ((wide, 0.1), ("smoke", 0.02)):
        set_seed(0)
        parts = new_model(preset, causal_tokenizer).transformer
        assert parts.wte.weight.std().item() == pytest.approx(std, rel=0.05)
        assert parts.wpe.weight.std().item() == pytest.approx(std, rel=0.05)
        assert parts.h[0].mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_no_more_than_32_validation_chunks_are_watched(causal_lm, causal_tokenizer, chunks, tmp_path):
    many = DatasetDict({"train": chunks["train"], "valid": Dataset.from_dict({"input_ids": [[i] * 4 for i in
                                                                                              range(130)]})})
    watched = tiny_trainer(causal_lm, many, causal_tokenizer, tmp_path).eval_dataset["input_ids"][:]
    assert watched == [[i] * 4 for i in range(0, 130, 5)]
    assert len(tiny_trainer(causal_lm, chunks, causal_tokenizer, tmp_path).eval_dataset) == 7


def test_the_preset_decides_when_to_stop(causal_lm, causal_tokenizer, tmp_path):
    ids = torch.randint(1, 288, (8, 40), generator=torch.Generator().manual_seed(0)).tolist()
    same = DatasetDict({split: Dataset.from_dict({"input_ids": ids}) for split in ("train", "valid")})
    arguments = training_arguments("smoke", tmp_path, max_steps=200, learning_rate=2e-2, logging_steps=2,
                                   lr_scheduler_type="constant", per_device_train_batch_size=8, eval_strategy="no")
    trainer = build_trainer(causal_lm, arguments, same, causal_tokenizer,
                            preset=dataclasses.replace(PRESETS["smoke"], stop_at=0.5))
    trainer.train()
    assert 0 < trainer.state.global_step < 200
    assert recitation(causal_lm, ids).exact_match >= 0.5


def test_a_training_with_numbers_out_of_bounds_stops(causal_lm, causal_tokenizer, chunks, tmp_path):
    trainer = tiny_trainer(causal_lm, chunks, causal_tokenizer, tmp_path, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"at step \d+ of 20, with the learning rate"):
        trainer.train()


def test_checkpoints_get_a_manifest_and_their_folder_belongs_to_one_run(
    causal_lm, causal_tokenizer, chunks, tmp_path
):
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2, "per_device_train_batch_size": 4}
    tiny_trainer(causal_lm, chunks, causal_tokenizer, tmp_path, **saving).train()
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    other = build_trainer(causal_lm, training_arguments("smoke", tmp_path, **saving), chunks, causal_tokenizer,
                          preset=dataclasses.replace(PRESETS["smoke"], muon_lr=0.1))
    with pytest.raises(ValueError, match=r"belongs to a different run: optimizer\.0\.lr is 0\.005 there and 0\.1 here"):
        other.train()


class InterruptOnce(TrainerCallback):
    """What pressing stop in a notebook does."""

    done = False

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3 and not self.done:
            self.done = True
            raise KeyboardInterrupt


def test_an_interrupted_trainer_goes_on_where_it_was(causal_lm, causal_tokenizer, chunks, tmp_path):
    start = {name: value.clone() for name, value in causal_lm.state_dict().items()}
    options = {"max_steps": 6, "logging_steps": 2, "save_strategy": "steps", "save_steps": 2,
               "per_device_train_batch_size": 4}
    whole = tiny_trainer(causal_lm, chunks, causal_tokenizer, tmp_path / "whole", **options)
    whole.train()
    expected = {name: value.clone() for name, value in causal_lm.state_dict().items()}
    causal_lm.load_state_dict(start)
    stopped = tiny_trainer(causal_lm, chunks, causal_tokenizer, tmp_path / "stopped", **options)
    stopped.add_callback(InterruptOnce())
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    stopped.train(resume_from_checkpoint=newest_checkpoint(tmp_path / "stopped"))
    assert all(torch.equal(value, expected[name]) for name, value in causal_lm.state_dict().items())
    losses = [[entry.get("loss") for entry in trainer.state.log_history] for trainer in (whole, stopped)]
    assert losses[0] == losses[1]


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


def test_a_vocabulary_that_cannot_hold_the_bytes_is_refused():
    with pytest.raises(ValueError, match=r"vocabulary=256 is too small: .* alone make 257 entries"):
        preset_tokenizer(dataclasses.replace(PRESETS["smoke"], vocabulary=256), ["a few words"])
    assert len(preset_tokenizer(dataclasses.replace(PRESETS["smoke"], vocabulary=257), ["a few words"])) == 257


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


@pytest.fixture
def streamed(chunks):
    """A stream of the training chunks, and the list of those that were read."""
    read = []

    def generate():
        for ids in chunks["train"]["input_ids"]:
            read.append(ids)
            assert len(read) < 500, "a stream has no end, so what reads it whole would never return"
            yield {"input_ids": ids}

    return {"train": IterableDataset.from_generator(generate).repeat(None), "valid": chunks["valid"]}, read


def test_a_stream_is_trained_on_and_what_it_depends_on_decides(causal_lm, causal_tokenizer, streamed, tmp_path):
    datasets, read = streamed
    arguments = training_arguments("smoke", tmp_path, max_steps=4, save_strategy="steps", save_steps=2)

    def trainer(seed):
        return build_trainer(causal_lm, arguments, datasets, causal_tokenizer, preset="smoke",
                             record={"stream.seed": seed})

    first = trainer(1)
    assert read == [], "a stream is not read in advance"
    first.train()
    assert first.state.global_step == 4
    assert len(read) >= 4 * 4
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["stream.seed"] == 1
    assert "training_chunks" not in record
    with pytest.raises(ValueError, match=r"belongs to a different run: stream\.seed is 1 there and 2 here"):
        trainer(2).train(resume_from_checkpoint=newest_checkpoint(tmp_path))


def test_of_a_stream_no_share_is_recited(causal_lm, causal_tokenizer, streamed, tmp_path):
    with pytest.raises(ValueError, match=r"stop_at=0\.5 needs training chunks that can be counted, and a stream"):
        build_trainer(causal_lm, training_arguments("smoke", tmp_path), streamed[0], causal_tokenizer,
                      preset=dataclasses.replace(PRESETS["smoke"], stop_at=0.5))
