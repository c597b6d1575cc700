"""Presets, the Trainer around them, the loss that it reports, its two stops, and runs that are killed and resumed."""

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset, IterableDataset
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback, TrainerState, TrainingArguments

from llm_tutorial import training
from llm_tutorial.chunking import packed_dataset
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.device import Device
from llm_tutorial.evaluation import recitation
from llm_tutorial.optimizers import MuonAdamW
from llm_tutorial.training import (
    PRESETS,
    FiniteLoss,
    StopWhenRecited,
    build_trainer,
    gpt2_config,
    new_model,
    newest_checkpoint,
    pick_preset,
    preset_tokenizer,
    training_arguments,
)

SMOKE = PRESETS["smoke"]


def loss_by_hand(model: GPT2LMHeadModel, rows: list[list[int]]) -> float:
    """Mean over all tokens that have a predecessor."""
    ids = torch.tensor(rows)
    with torch.no_grad():
        logits = model.eval()(ids).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()


def small_trainer(model, chunks, tokenizer, folder, *callbacks, preset=SMOKE, **overrides):
    options = {"max_steps": 4, "eval_strategy": "no"} | overrides
    return build_trainer(model, training_arguments(preset, folder, **options), chunks, tokenizer, preset=preset,
                         callbacks=callbacks)


# Presets.

@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_a_model_and_arguments(name, causal_tokenizer, tmp_path):
    preset = PRESETS[name]
    with torch.device("meta"):
        config = GPT2LMHeadModel(gpt2_config(name, causal_tokenizer)).config
    assert (config.n_layer, config.n_embd, config.n_head) == (preset.layers, preset.width, preset.heads)
    assert (config.n_positions, config.vocab_size) == (preset.context_length, len(causal_tokenizer))
    assert {config.bos_token_id, config.eos_token_id} == {causal_tokenizer.eos_token_id}
    arguments = training_arguments(name, tmp_path)
    assert (arguments.num_train_epochs, arguments.learning_rate) == (preset.epochs, preset.learning_rate)
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == preset.batch
    assert arguments.get_warmup_steps(1000) == 1000 * preset.warmup
    assert not arguments.logging_nan_inf_filter, "the log would hide a loss of NaN"


def test_the_preset_for_streams_is_gpt2_with_steps_of_half_a_million_tokens_in_parts(tmp_path):
    with torch.device("meta"):
        assert new_model("gpt2", preset_tokenizer("gpt2", [])).num_parameters() == 124_439_808
    preset, arguments = PRESETS["gpt2"], training_arguments("gpt2", tmp_path)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (8, 64)
    assert (8 * 64 * preset.context_length, preset.stop_at, preset.muon_lr) == (2**19, None, None)


@pytest.mark.parametrize(("name", "rows", "allowed"), [("cuda", 32, 8), ("gpt2", 32, 1), ("smoke", 3, 3)])
def test_a_batch_to_validate_with_has_no_more_logits_than_memory_for_them(tmp_path, name, rows, allowed):
    arguments = training_arguments(name, tmp_path, per_device_eval_batch_size=rows)
    assert arguments.per_device_eval_batch_size == allowed


def test_a_device_picks_the_preset_of_its_name_and_an_unknown_name_is_refused():
    assert pick_preset(Device("cuda", True, "")) is PRESETS["cuda"]
    with pytest.raises(ValueError, match="Unknown preset 'tpu': use one of cpu, cuda, gpt2, mps, smoke"):
        pick_preset("tpu")


@pytest.mark.parametrize("device", [Device("cpu", True, ""), Device("cuda", False, "", fp16=True)])
def test_the_device_decides_the_precision_and_overrides_go_before_the_preset(monkeypatch, device):
    monkeypatch.setattr(training, "_OneGpuArguments", dict)  # this machine may have no such GPU
    arguments = training_arguments("smoke", "out", device=device, max_steps=7)
    assert (arguments["use_cpu"], arguments["max_steps"]) == (device.name == "cpu", 7)
    assert (arguments["bf16"], arguments["fp16"]) == (device.bf16, device.fp16)


def test_a_presets_tokenizer_has_the_size_wanted_and_encodes_any_text():
    tokenizer = preset_tokenizer("smoke", load_wikipedia(6, 3)["train"]["text"])
    assert (len(tokenizer), len(preset_tokenizer("cuda", []))) == (512, 50_257)
    assert tokenizer.decode(tokenizer("żółć 漢字 🙂").input_ids) == "żółć 漢字 🙂"


def test_new_models_embeddings_start_as_far_apart_as_the_preset_says(causal_tokenizer):
    for preset, std in ((replace(SMOKE, embedding_std=0.1), 0.1), (SMOKE, 0.02)):
        parts = new_model(preset, causal_tokenizer).transformer
        assert parts.wte.weight.std().item() == pytest.approx(std, rel=0.05)
        assert parts.wpe.weight.std().item() == pytest.approx(std, rel=0.05)
        assert parts.h[0].mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.05)


# The loss.

def test_the_trainer_reports_the_shifted_cross_entropy(causal_lm, causal_tokenizer, chunks, tmp_path):
    expected = {split: loss_by_hand(causal_lm, chunks[split]["input_ids"][:]) for split in ("train", "valid")}
    trainer = small_trainer(causal_lm, chunks, causal_tokenizer, tmp_path, max_steps=1, per_device_eval_batch_size=3,
                            per_device_train_batch_size=5, gradient_accumulation_steps=2)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected["valid"], rel=1e-5)
    assert trainer.train().training_loss == pytest.approx(expected["train"], rel=1e-5)


class LogitsInFloat32(TorchDispatchMode):
    """Counts how often a tensor as wide as the vocabulary is converted to float32."""

    vocabulary, count = 288, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.count += (function is torch.ops.aten._to_copy.default and result.dtype == torch.float32
                       and result.shape[-1:] == (self.vocabulary,))
        return result


def test_half_precision_logits_are_converted_once(causal_lm, causal_tokenizer, chunks, tmp_path):
    trainer = small_trainer(causal_lm, chunks, causal_tokenizer, tmp_path, device=Device("cpu", True, ""), max_steps=3)
    with LogitsInFloat32() as converted:
        trainer.train()
    assert converted.count == 3


def test_packed_rows_teach_the_model_where_a_text_ends(causal_lm, causal_tokenizer, tmp_path):
    packed = packed_dataset(Dataset.from_dict({"text": ["a box", "the beach"] * 20}), causal_tokenizer, 16)
    end = causal_tokenizer.eos_token_id
    for rows, taught in ((packed, True), (packed.remove_columns("labels"), False)):
        trainer = small_trainer(causal_lm, {"train": rows, "valid": rows}, causal_tokenizer, tmp_path)
        batch = next(iter(trainer.get_train_dataloader()))
        assert (end in batch["input_ids"], end in batch["labels"]) == (True, taught)


def test_no_more_than_32_validation_chunks_are_taken_during_the_training(
    causal_lm, causal_tokenizer, chunks, tmp_path
):
    many = {"train": chunks["train"], "valid": Dataset.from_dict({"input_ids": [[i] * 4 for i in range(130)]})}
    taken = small_trainer(causal_lm, many, causal_tokenizer, tmp_path).eval_dataset["input_ids"][:]
    assert taken == [[i] * 4 for i in range(0, 130, 5)]


# Training.

def test_the_smoke_preset_learns_in_20_steps_with_muon_and_says_nothing(capsys, tmp_path):
    texts = load_wikipedia(6, 3)
    tokenizer = preset_tokenizer("smoke", texts["train"]["text"])
    torch.manual_seed(0)
    trainer = build_trainer(new_model("smoke", tokenizer), training_arguments("smoke", tmp_path),
                            packed_dataset(texts, tokenizer, 128), tokenizer, preset="smoke")
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert before == pytest.approx(torch.log(torch.tensor(512.0)).item(), rel=0.1)
    assert trainer.evaluate()["eval_loss"] < before - 0.5
    assert trainer.state.global_step == 20
    optimizer = trainer.optimizer.optimizer  # accelerate wraps it
    assert isinstance(optimizer, MuonAdamW)
    assert [group["initial_lr"] for group in optimizer.param_groups] == [5e-3, 2e-3]
    assert all(group["lr"] < 1e-3 for group in optimizer.param_groups), "the schedule reaches every group"
    assert capsys.readouterr().out == ""


def test_a_stream_is_trained_on_without_being_read_in_advance(causal_lm, causal_tokenizer, chunks, tmp_path):
    read = []

    def generate():
        for ids in chunks["train"]["input_ids"]:
            read.append(ids)
            assert len(read) < 500, "a program that reads an endless stream whole never returns"
            yield {"input_ids": ids}

    datasets = {"train": IterableDataset.from_generator(generate).repeat(None), "valid": chunks["valid"]}
    trainer = small_trainer(causal_lm, datasets, causal_tokenizer, tmp_path, save_strategy="steps", save_steps=2)
    assert read == []
    trainer.train()
    assert trainer.state.global_step == 4
    assert len(read) >= 4 * 4


@pytest.mark.parametrize(("split", "rows", "message"), [
    ("train", [], "There is no 'train' chunk: give texts longer than the context length"),
    ("valid", [[1] * 65], "A 'valid' chunk has 65 tokens, but the model has 64 positions: chunk with a shorter"),
    ("train", [[1, 288]], "A 'train' chunk has token id 288, but the model's vocabulary has 288 entries: use the same"),
])
def test_chunks_that_the_model_cannot_read_are_named(
    causal_lm, causal_tokenizer, chunks, tmp_path, split, rows, message
):
    with pytest.raises(ValueError, match=message):
        small_trainer(causal_lm, dict(chunks) | {split: Dataset.from_dict({"input_ids": rows})}, causal_tokenizer,
                      tmp_path)


def test_one_of_two_gpus_is_used_and_batch_and_loss_stay_the_same(
    causal_lm, causal_tokenizer, chunks, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # in a process that is not one of several
    trainer = small_trainer(causal_lm, chunks, causal_tokenizer, tmp_path, device=Device("none", False, ""),
                            max_steps=1, per_device_train_batch_size=10, dataloader_pin_memory=False)
    expected = loss_by_hand(causal_lm, chunks["train"]["input_ids"][:])
    assert trainer.args.train_batch_size == 10
    assert trainer.train().training_loss == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match=r"One process with 2 GPUs multiplies the batch by 2\. Take the arguments"):
        build_trainer(causal_lm, TrainingArguments(tmp_path, report_to="none"), chunks, causal_tokenizer, preset=SMOKE)


class Full(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB")


def test_a_full_gpu_ends_the_training_with_what_to_change(causal_lm, causal_tokenizer, chunks, tmp_path):
    trainer = small_trainer(causal_lm, chunks, causal_tokenizer, tmp_path, Full(), save_strategy="steps", save_steps=1,
                            per_device_train_batch_size=8)
    with pytest.raises(MemoryError, match=r"for 8 rows at once\. Start again with batch=4 in the preset, or with at_o"):
        trainer.train()
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


# The stop when enough is recited.

def test_training_stops_at_the_first_check_that_recites_enough(causal_lm, causal_tokenizer, tmp_path):
    rows = torch.randint(1, len(causal_tokenizer), (8, 40), generator=torch.Generator().manual_seed(0)).tolist()
    trainer = small_trainer(
        causal_lm, dict.fromkeys(("train", "valid"), Dataset.from_dict({"input_ids": rows})), causal_tokenizer,
        tmp_path, preset=replace(SMOKE, stop_at=0.5), max_steps=200, learning_rate=2e-2, logging_steps=2,
        lr_scheduler_type="constant", per_device_train_batch_size=8)
    trainer.train()
    assert 0 < trainer.state.global_step < 200
    shares = next(each for each in trainer.callback_handler.callbacks if isinstance(each, StopWhenRecited)).shares
    assert shares[-1] == (trainer.state.global_step, recitation(causal_lm, rows).exact_match)
    assert shares[-1][1] >= 0.5 > max([share for _, share in shares[:-1]], default=0)
    losses = {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
    assert [step for step, _ in shares] == [step for step, loss in losses.items() if loss < 1], "none before"


@pytest.mark.parametrize("share", [0, 95])
def test_a_share_that_would_never_or_always_stop_is_refused(share):
    with pytest.raises(ValueError, match=f"stop_at={share} is not a share: give a number above 0 and at most 1"):
        StopWhenRecited([[1] * 32], share)


# Runs that are killed and resumed. A process that is killed leaves the same files as one that ends at that place.

class Killed(BaseException):
    """Stands for SIGKILL: nothing in the libraries catches it."""


class KilledAtStep(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


def killed_in(monkeypatch, owner, name, ending):
    """End a call of ``owner.name`` with a path that ends so; the file is cut short, the folder in deletion as well."""
    real = getattr(owner, name)

    def call(*arguments, **options):
        path = next(Path(value) for value in arguments if isinstance(value, str | Path))
        if not path.as_posix().endswith(ending):
            return real(*arguments, **options)
        if path.is_dir():
            (path / "optimizer.pt").unlink()
        else:
            real(*arguments, **options)
            os.truncate(path, path.stat().st_size // 2)
        raise Killed

    monkeypatch.setattr(owner, name, call)


def resumable(tokenizer, folder, *callbacks, preset=SMOKE, seed=0, **overrides):
    """A trainer whose model has dropout, so that random numbers matter; three steps make an epoch."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=16, n_embd=16, n_layer=2, n_head=2,
                                       bos_token_id=0, eos_token_id=0, pad_token_id=0))
    ids = torch.randint(1, 200, (12, 16), generator=torch.Generator().manual_seed(seed)).tolist()
    chunks = {"train": Dataset.from_dict({"input_ids": ids[:10]}), "valid": Dataset.from_dict({"input_ids": ids[10:]})}
    # Checkpoints fall between logs, and both inside epochs.
    options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2, "logging_steps": 3} | overrides
    return small_trainer(model, chunks, tokenizer, folder, *callbacks, preset=preset, seed=seed, **options)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, causal_tokenizer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_TUTORIAL_DEVICE", "cpu")
        patch.setenv("LLM_TUTORIAL_PRECISION", "fp32")
        trainer = resumable(causal_tokenizer, tmp_path_factory.mktemp("whole"))
    trainer.train()
    return trainer


def logs(trainer):
    return [{key: entry[key] for key in ("step", "loss", "grad_norm", "learning_rate")}
            for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(("kill", "begins"), [
    (KilledAtStep(5), 4),
    ((torch, "save", "checkpoint-4/optimizer.pt"), 2),
    ((torch, "save", "checkpoint-2/scheduler.pt"), 0),
    ((shutil, "rmtree", "/checkpoint-2"), 6),
], ids=["between saves", "optimizer", "first checkpoint", "deletion of an old one"])
def test_a_run_that_is_killed_and_resumed_equals_one_that_is_not(
    uninterrupted, causal_tokenizer, tmp_path, monkeypatch, kill, begins
):
    with monkeypatch.context() as patch:
        if isinstance(kill, tuple):
            killed_in(patch, *kill)
        trainer = resumable(causal_tokenizer, tmp_path, *([kill] if isinstance(kill, TrainerCallback) else []))
        with pytest.raises(Killed):
            trainer.train()
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint == (str(tmp_path / f"checkpoint-{begins}") if begins else None)
    trainer = resumable(causal_tokenizer, tmp_path)
    trainer.train(resume_from_checkpoint=checkpoint)
    assert logs(trainer) == logs(uninterrupted), "with the mean losses of steps before the checkpoint"
    weights, states = trainer.model.state_dict(), trainer.optimizer.state_dict()["state"]
    assert all(torch.equal(weights[name], value) for name, value in uninterrupted.model.state_dict().items())
    expected = uninterrupted.optimizer.state_dict()["state"]
    assert {key for entry in expected.values() for key in entry} == {
        "momentum_buffer", "exp_avg", "exp_avg_sq", "step"}
    assert {entry.get("step") for entry in expected.values()} == {None, 8}, "a number, not a tensor on a GPU"
    assert all(torch.equal(torch.as_tensor(states[index][key]), torch.as_tensor(value))
               for index, entry in expected.items() for key, value in entry.items())
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-8")


def test_a_checkpoint_without_its_last_file_is_passed_over(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere") is None
    for step in (9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
        TrainerState(global_step=step).save_to_json(str(tmp_path / f"checkpoint-{step}" / "trainer_state.json"))
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-11")
    (tmp_path / "checkpoint-11" / "trainer_state.json").unlink()
    os.truncate(tmp_path / "checkpoint-10" / "trainer_state.json", 100)
    assert newest_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-9")


@pytest.mark.parametrize(("changes", "different"), [
    ({"learning_rate": 1e-3, "per_device_train_batch_size": 8},
     "batch is 4 there and 8 here; learning_rate is 0.002 there and 0.001 here"),
    ({"preset": replace(SMOKE, muon_lr=None, width=96)}, "muon_lr is 0.005 there and None here; width is 64 there"),
    ({"seed": 1}, r"seed is 0 there and 1 here; train_chunks is \w{12} there and \w{12} here; valid_chunks is"),
])
def test_the_folder_of_a_different_run_is_refused_and_stays_as_it_is(
    uninterrupted, causal_tokenizer, tmp_path, changes, different
):
    folder = Path(shutil.copytree(uninterrupted.args.output_dir, tmp_path / "run"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(ValueError, match=f"run belongs to a different run: {different}"):
        resumable(causal_tokenizer, folder, **changes)
    with pytest.raises(ValueError, match=r"checkpoint-8 is beyond step 0.* Give train\(\) resume_from_checkpoint"):
        resumable(causal_tokenizer, folder, logging_steps=1, per_device_eval_batch_size=1).train()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_batch_in_parts_is_the_same_run(uninterrupted, causal_tokenizer, tmp_path):
    folder = Path(shutil.copytree(uninterrupted.args.output_dir, tmp_path / "run"))
    shutil.rmtree(folder / "checkpoint-8")
    trainer = resumable(causal_tokenizer, folder, preset=replace(SMOKE, at_once=3))
    assert (trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps) == (2, 2)
    trainer.train(resume_from_checkpoint=newest_checkpoint(folder))
    assert trainer.state.global_step == 8


def test_a_run_that_was_begun_in_fp16_goes_on_in_fp16(uninterrupted, causal_tokenizer, tmp_path):
    folder = Path(shutil.copytree(uninterrupted.args.output_dir, tmp_path / "run"))
    record = folder / "run.json"
    facts = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps(facts | {"fp16": True}), encoding="utf-8")
    with pytest.raises(ValueError, match="different run: fp16 is True there and False here"):
        resumable(causal_tokenizer, folder)


def test_a_folder_without_a_whole_checkpoint_is_free_for_another_run(causal_tokenizer, tmp_path):
    with pytest.raises(Killed):
        resumable(causal_tokenizer, tmp_path, KilledAtStep(1)).train()
    resumable(causal_tokenizer, tmp_path, max_steps=2).train()
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    (tmp_path / "run.json").unlink()  # as if the folder had been deleted during the training
    with pytest.raises(ValueError, match=r"has checkpoints but no run\.json, .* Choose another output_dir, or delete"):
        resumable(causal_tokenizer, tmp_path, max_steps=2)


def test_processes_with_different_data_are_refused(causal_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "gather_object", lambda given: [*given, given[0] | {"train_chunks": "other"}])
    with pytest.raises(ValueError, match="The processes of this run have different data or recipes"):
        resumable(causal_tokenizer, tmp_path).train()


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_resuming_runs_no_pickled_code(uninterrupted, causal_tokenizer, tmp_path):
    folder, trace = shutil.copytree(uninterrupted.args.output_dir, tmp_path / "run"), tmp_path / "trace"
    shutil.rmtree(folder / "checkpoint-8")
    (folder / "checkpoint-6" / "training_args.bin").write_bytes(pickle.dumps(Touch(trace)))
    resumable(causal_tokenizer, folder).train(resume_from_checkpoint=newest_checkpoint(folder))
    assert not trace.exists()


# Numbers that are not finite.

class NanEmbedding(TrainerCallback):
    """Makes the third step's loss NaN."""

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == 2:
            model.transformer.wte.weight.data[5] = torch.nan


class InfiniteWeight(TrainerCallback):
    """Does what an update can do that is far too large; only the next step's loss would show it."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 3:
            model.transformer.h[0].ln_1.weight.data[0] = torch.inf


@pytest.mark.parametrize(("damage", "muon_lr"), [(NanEmbedding(), 5e-3), (InfiniteWeight(), None)])
def test_a_run_stops_before_a_checkpoint_keeps_the_step_that_breaks_it(causal_tokenizer, tmp_path, damage, muon_lr):
    trainer = resumable(causal_tokenizer, tmp_path, damage, preset=replace(SMOKE, muon_lr=muon_lr), save_steps=1)
    with pytest.raises(FloatingPointError, match=r"A weight is not finite at step 3 of 8\. The learning rate is prob"):
        trainer.train()
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_a_learning_rate_far_too_high_stops_the_run_at_the_next_log(causal_tokenizer, tmp_path):
    trainer = resumable(causal_tokenizer, tmp_path, learning_rate=1e30, warmup_steps=0, save_steps=8)
    with pytest.raises(FloatingPointError, match=r"set learning_rate \(now 1e\+30\), and muon_lr"):
        trainer.train()
    assert (trainer.state.global_step, newest_checkpoint(tmp_path)) == (3, None)


@pytest.mark.parametrize(("name", "value"), [("loss", float("nan")), ("eval_loss", float("inf"))])
def test_a_logged_loss_that_is_not_finite_stops_the_run(tmp_path, name, value):
    arguments, state = training_arguments(SMOKE, tmp_path), TrainerState(global_step=7, max_steps=9)
    FiniteLoss().on_log(arguments, state, None, logs={name: 1.0, "grad_norm": value})
    with pytest.raises(FloatingPointError, match=rf"{name}={value} is not finite at step 7 of 9"):
        FiniteLoss().on_log(arguments, state, None, logs={name: value})
