"""Runs that are killed and resumed, checkpoints that count, and numbers that stay finite."""

import dataclasses
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)

from llm_tutorial import resuming
from llm_tutorial.callbacks import FiniteLoss
from llm_tutorial.device import Device
from llm_tutorial.optimizers import MuonAdamW
from llm_tutorial.presets import PRESETS
from llm_tutorial.resuming import CheckpointGuard, newest_checkpoint, run_configuration
from llm_tutorial.training import build_trainer, training_arguments

LAST_STEP = 8


def tiny_model(tokenizer, **changes):
    """A model with dropout, so that the state of the random numbers matters."""
    torch.manual_seed(0)
    end = tokenizer.eos_token_id
    return GPT2LMHeadModel(GPT2Config(**{
        "vocab_size": len(tokenizer), "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2,
        "bos_token_id": end, "eos_token_id": end, "pad_token_id": end} | changes))


def tiny_chunks(seed=0):
    """Ten rows: three steps of four make an epoch."""
    ids = torch.randint(1, 200, (12, 16), generator=torch.Generator().manual_seed(seed)).tolist()
    return DatasetDict({"train": Dataset.from_dict({"input_ids": ids[:10]}),
                        "valid": Dataset.from_dict({"input_ids": ids[10:]})})


def tiny_arguments(folder, **changes):
    # Checkpoints fall between logs, and both inside epochs.
    return training_arguments("smoke", folder, device=Device("cpu", False, ""), **{
        "max_steps": LAST_STEP, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 2, "logging_steps": 3,
        "eval_steps": 4} | changes)


def tiny_trainer(folder, tokenizer, *callbacks, muon_lr=5e-3, **changes):
    model, chunks, arguments = tiny_model(tokenizer), tiny_chunks(), tiny_arguments(folder, **changes)
    return build_trainer(model, arguments, chunks, tokenizer, callbacks=callbacks,
                         preset=dataclasses.replace(PRESETS["smoke"], muon_lr=muon_lr))


def train(folder, tokenizer, *callbacks, **changes):
    trainer = tiny_trainer(folder, tokenizer, *callbacks, **changes)
    trainer.train(resume_from_checkpoint=newest_checkpoint(folder))
    return trainer


# Runs that are killed, each in a process of its own.

def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def halve(path):
    os.truncate(path, os.path.getsize(path) // 2)


class KillAtStep(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            kill()


def kill_in(owner, name, *, argument, ending, damage=halve, before=False):
    """Kill the process in a call of ``owner.name`` once a path ends so, with the file damaged."""
    real = getattr(owner, name)

    def call(*values, **options):
        path = str(values[argument])
        if not path.endswith(ending):
            return real(*values, **options)
        if not before:
            real(*values, **options)
        damage(path)
        return kill()

    setattr(owner, name, call)


def kill_while_saving(name, step):
    kill_in(torch, "save", argument=1, ending=f"checkpoint-{step}/{name}")


def kill_in_rotation():
    kill_in(shutil, "rmtree", argument=0, ending="/checkpoint-2", before=True,
            damage=lambda path: os.remove(f"{path}/optimizer.pt"))


SCENARIOS = {  # what happens to the successive attempts of a run
    "inside an epoch": [lambda: KillAtStep(5)],
    "after the last step": [lambda: KillAtStep(LAST_STEP)],
    "in the optimiser": [lambda: kill_while_saving("optimizer.pt", 4)],
    "in the first checkpoint": [lambda: kill_while_saving("scheduler.pt", 2)],
    "in the manifest": [lambda: kill_in(os, "replace", argument=1, ending="-6/manifest.json", before=True,
                                        damage=lambda path: halve(next(Path(path).parent.glob(".manifest-*.tmp"))))],
    "in a deletion, then in the manifest": [
        kill_in_rotation,
        lambda: kill_in(os, "replace", argument=1, ending="-6/manifest.json", before=True, damage=lambda _: None)],
}


def run_scenarios(base, tokenizer_folder, threads):
    """Run every scenario's attempts, each in a fork of this process, until it is killed."""
    torch.set_num_threads(threads)  # two would round some sums differently
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    for name, attempts in SCENARIOS.items():
        for number, attempt in enumerate(attempts):
            child = os.fork()
            if child == 0:
                try:
                    callback = attempt()
                    train(Path(base) / name, tokenizer, *([callback] if callback else []))
                except BaseException:
                    traceback.print_exc()
                os._exit(1)
            status = os.waitpid(child, 0)[1]
            assert os.WIFSIGNALED(status), f"attempt {number} of {name!r} was not killed"
            # As if the whole checkpoint were much older than the one in deletion.
            if "deletion" in name:
                os.utime(Path(base) / name / "checkpoint-4", (0, 0))


@pytest.fixture(scope="module")
def killed(tmp_path_factory, causal_tokenizer):
    if not hasattr(os, "fork"):
        pytest.skip("needs fork and SIGKILL")
    base = tmp_path_factory.mktemp("killed")
    causal_tokenizer.save_pretrained(base / "tokenizer")
    code = (f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]; import test_resuming; "
            f"test_resuming.run_scenarios({str(base)!r}, {str(base / 'tokenizer')!r}, "
            f"{torch.get_num_threads()})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return base


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, causal_tokenizer):
    return train(tmp_path_factory.mktemp("whole"), causal_tokenizer)


def assert_same_run(trainer, expected):
    logs, expected_logs = ([{key: entry[key] for key in ("step", "loss", "grad_norm", "learning_rate", "epoch")}
                            for entry in run.state.log_history if "loss" in entry] for run in (trainer, expected))
    assert logs == expected_logs
    assert trainer.lr_scheduler.state_dict() == expected.lr_scheduler.state_dict()
    weights, expected_weights = trainer.model.state_dict(), expected.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in expected_weights.items())
    assert isinstance(trainer.optimizer.optimizer, MuonAdamW)
    state, expected_state = trainer.optimizer.state_dict(), expected.optimizer.state_dict()
    assert state["param_groups"] == expected_state["param_groups"]
    assert {key for entry in expected_state["state"].values() for key in entry} == {
        "momentum_buffer", "exp_avg", "exp_avg_sq", "step"}
    assert all(torch.equal(state["state"][index][key], value)
               for index, entry in expected_state["state"].items() for key, value in entry.items())


@pytest.mark.parametrize(("scenario", "begins", "messages"), [
    ("inside an epoch", 4, []),
    ("after the last step", 6, []),
    ("in the optimiser", 2, ["checkpoint-4 is passed over: it has no manifest, so its writing was interrupted.",
                             "checkpoint-4 is set aside as damaged-checkpoint-4: it has no manifest"]),
    ("in the first checkpoint", 0, ["checkpoint-2 is passed over: it has no manifest"]),
    ("in the manifest", 4, ["checkpoint-6 is passed over: it has no manifest"]),
    ("in a deletion, then in the manifest", 4, ["checkpoint-6 is passed over: it has no manifest"]),
])
def test_a_run_that_is_killed_and_resumed_equals_one_that_is_not(
    killed, uninterrupted, causal_tokenizer, capsys, scenario, begins, messages
):
    folder, steps = killed / scenario, []

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            steps.append(state.global_step)

    trainer = train(folder, causal_tokenizer, Watch())
    assert steps[0] == begins
    assert_same_run(trainer, uninterrupted)
    printed = capsys.readouterr().out
    assert all(message in printed for message in messages)
    assert bool(printed) == bool(messages)
    assert newest_checkpoint(folder) == str(folder / f"checkpoint-{LAST_STEP}")


def test_a_finished_run_is_not_trained_any_further(uninterrupted, causal_tokenizer):
    folder = uninterrupted.args.output_dir
    with pytest.raises(ValueError, match=r"is finished: step 8 of 8 is its last\. Load the model from that checkpoint"):
        train(folder, causal_tokenizer)
    with pytest.raises(ValueError, match=r"checkpoint-6 is beyond step 0, .*newest_checkpoint\(.*another output_dir"):
        tiny_trainer(folder, causal_tokenizer).train()


def test_a_run_that_ends_with_an_epoch_may_be_resumed_at_its_end(causal_tokenizer, tmp_path):
    train(tmp_path, causal_tokenizer, max_steps=3)
    assert train(tmp_path, causal_tokenizer, max_steps=3).state.global_step == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3", "run.json"]


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_resuming_runs_no_pickled_code(causal_tokenizer, tmp_path):
    train(tmp_path / "run", causal_tokenizer, max_steps=2)
    checkpoint, trace = tmp_path / "run" / "checkpoint-2", tmp_path / "trace"
    (checkpoint / "training_args.bin").write_bytes(pickle.dumps(Touch(trace)))
    guard = CheckpointGuard({})
    arguments = tiny_arguments(tmp_path / "run")
    guard.on_save(arguments, TrainerState(global_step=2), TrainerControl())
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"max_steps": 3}))
    assert train(tmp_path / "run", causal_tokenizer, max_steps=3).state.global_step == 3
    assert not trace.exists()
    pickle.loads((checkpoint / "training_args.bin").read_bytes())
    assert trace.exists(), "the trap works"


# Which checkpoints count.

def write_checkpoint(folder, step, arguments=None):
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "part").mkdir(parents=True)
    (checkpoint / "weights").write_bytes(b"w" * 100)
    (checkpoint / "part" / "state").write_bytes(b"s" * 10)
    CheckpointGuard({}).on_save(arguments or tiny_arguments(folder), TrainerState(global_step=step), TrainerControl())
    return checkpoint


def edit_manifest(checkpoint, **changes):
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    (checkpoint / "manifest.json").write_text(json.dumps(manifest | changes))


def flip_a_byte(checkpoint):
    (checkpoint / "weights").write_bytes(b"w" * 50 + b"v" + b"w" * 49)


DAMAGES = [
    (lambda checkpoint: halve(checkpoint / "weights"), "weights has 50 bytes, not 100"),
    (flip_a_byte, "weights was changed: its hash differs"),
    (lambda checkpoint: (checkpoint / "part" / "state").unlink(), "part/state is missing"),
    (lambda checkpoint: (checkpoint / "manifest.json").unlink(), "it has no manifest, so its writing was interrupted"),
    (lambda checkpoint: halve(checkpoint / "manifest.json"), "its manifest cannot be read"),
    (lambda checkpoint: (checkpoint / "manifest.json").write_bytes(b"\xff\x00"), "its manifest cannot be read"),
    (lambda checkpoint: (checkpoint / "manifest.json").write_text("[]"), "its manifest cannot be read"),
    (lambda checkpoint: edit_manifest(checkpoint, files={"weights": 100}), "its manifest cannot be read"),
    (lambda checkpoint: edit_manifest(checkpoint, format=2), "its manifest is of an unknown format or of another step"),
    (lambda checkpoint: edit_manifest(checkpoint, step=4), "its manifest is of an unknown format or of another step"),
    (lambda checkpoint: (checkpoint / "part" / "more").touch(), "part/more is not in its manifest"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_the_reason(tmp_path, damage, reason):
    older, newer = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    messages = []
    assert newest_checkpoint(tmp_path, report=messages.append) == str(newer)
    damage(newer)
    assert newest_checkpoint(str(tmp_path), report=messages.append) == str(older)
    assert messages == [f"{newer} is passed over: {reason}."]
    damage(older)
    assert newest_checkpoint(tmp_path, report=messages.append) is None
    assert len(messages) == 3


def test_a_checkpoint_that_the_disk_does_not_give_is_passed_over(tmp_path, monkeypatch, capsys):
    write_checkpoint(tmp_path, 1)

    def fail(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(resuming, "sha256_of", fail)
    assert newest_checkpoint(tmp_path) is None
    assert "checkpoint-1 is passed over: it cannot be read (Input/output error)." in capsys.readouterr().out


def test_a_folder_without_checkpoints_gives_none(tmp_path):
    for name in ("checkpoint-x", "old-checkpoint-3", "checkpoint-3.bak"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-4").touch()
    for folder in (tmp_path, tmp_path / "missing", tmp_path / "checkpoint-4"):
        assert newest_checkpoint(folder, report=pytest.fail) is None


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_an_interrupted_manifest_leaves_none(tmp_path, monkeypatch, call):
    arguments = tiny_arguments(tmp_path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, 1, arguments)
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "checkpoint-1").iterdir()) == ["part", "weights"]
    assert newest_checkpoint(tmp_path, report=lambda _: None) is None


def test_every_file_is_on_the_disk_before_the_manifest_is(tmp_path, monkeypatch):
    arguments, events, fsync, replace = tiny_arguments(tmp_path), [], os.fsync, os.replace

    def watch_fsync(descriptor):
        events.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def watch_replace(source, target):
        events.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    checkpoint = write_checkpoint(tmp_path, 1, arguments)
    before = events[:events.index("manifest.json")]
    for name in ("weights", "part/state", "manifest.json", "."):
        assert (checkpoint / name).stat().st_ino in before, name


# Which runs may write into a folder.

def begin(folder, configuration, step=0, zero=True, **changes):
    state = TrainerState(global_step=step, max_steps=100, is_world_process_zero=zero)
    CheckpointGuard(configuration).on_train_begin(tiny_arguments(folder, **changes), state, TrainerControl())


def test_a_run_keeps_its_record_and_another_one_is_refused(tmp_path):
    folder, here = tmp_path / "run", {"learning_rate": 0.003, "betas": (0.9, 0.95), "new": None}
    begin(folder, here)
    assert json.loads((folder / "run.json").read_text()) == {"learning_rate": 0.003, "betas": [0.9, 0.95], "new": None}
    begin(folder, here)
    (folder / "checkpoint-1").mkdir()
    with pytest.raises(ValueError, match=r"run belongs to a different run: learning_rate is 0.003 there and 0.001 "
                                         r"here; new is None there and absent here; old is absent there and None here"
                                         r"\. Choose another output_dir, or delete that folder"):
        begin(folder, {"learning_rate": 0.001, "betas": [0.9, 0.95], "old": None})
    with pytest.raises(ValueError, match=r"d is absent there and 3 here; 4 more differ\. Choose"):
        begin(folder, {**here, **dict(zip("abcdefgh", range(8), strict=True))})
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-1", "run.json"]


def test_where_there_is_no_checkpoint_another_run_may_begin(tmp_path):
    begin(tmp_path, {"batch": 8})
    begin(tmp_path, {"batch": 4})
    assert json.loads((tmp_path / "run.json").read_text()) == {"batch": 4}


def test_another_configuration_is_refused_by_name(causal_tokenizer, tmp_path):
    train(tmp_path, causal_tokenizer, max_steps=2)
    with pytest.raises(ValueError, match=r"learning_rate is 0\.002 there and 0\.001 here; max_steps is 2 there and 8"):
        train(tmp_path, causal_tokenizer, learning_rate=1e-3)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_record_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run.json is not a run's record\. Choose another output_dir"):
        begin(tmp_path, {})


def test_the_checkpoints_of_others_are_refused(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(ValueError, match=r"holds checkpoints but no run.json, .*Choose another output_dir"):
        begin(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_only_damaged_checkpoints_are_set_aside(tmp_path, capsys):
    begin(tmp_path, {})
    for step in (2, 4, 6):
        write_checkpoint(tmp_path, step)
    halve(tmp_path / "checkpoint-6" / "weights")
    with pytest.raises(ValueError, match="checkpoint-4 is beyond step 2, where this training begins"):
        begin(tmp_path, {}, step=2)
    assert (tmp_path / "checkpoint-6").is_dir(), "nothing is touched before all is checked"
    begin(tmp_path, {}, step=4, zero=False)
    assert (tmp_path / "checkpoint-6").is_dir(), "one process does it"
    begin(tmp_path, {}, step=4)
    assert f"{tmp_path / 'checkpoint-6'} is set aside as damaged-checkpoint-6: weights has" in capsys.readouterr().out
    # A second one of the same name takes the first one's place.
    halve(write_checkpoint(tmp_path, 6) / "part" / "state")
    begin(tmp_path, {}, step=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-2", "checkpoint-4", "damaged-checkpoint-6", "run.json"]
    assert (tmp_path / "damaged-checkpoint-6" / "part" / "state").stat().st_size == 5


def test_a_damaged_checkpoint_is_not_resumed_from(tmp_path):
    begin(tmp_path, {})
    flip_a_byte(write_checkpoint(tmp_path, 2))
    with pytest.raises(ValueError, match=r"resumes from, is damaged: weights was changed: its hash differs\. Give"):
        begin(tmp_path, {}, step=2)


@pytest.mark.parametrize("changes", [{"save_total_limit": 1}, {"save_only_model": True}])
def test_arguments_that_preclude_resuming_are_refused(tmp_path, changes):
    with pytest.raises(ValueError, match="Use save_total_limit=2 and save_only_model=False"):
        begin(tmp_path / "run", {}, **changes)
    assert not (tmp_path / "run").exists()


def test_one_process_writes(tmp_path):
    begin(tmp_path / "run", {}, zero=False)
    (tmp_path / "run" / "checkpoint-1").mkdir(parents=True)
    CheckpointGuard({}).on_save(tiny_arguments(tmp_path / "run"),
                                TrainerState(global_step=1, is_world_process_zero=False), TrainerControl())
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["checkpoint-1"]


def test_the_configuration_is_what_decides_the_result(causal_tokenizer, tmp_path):
    model, chunks = tiny_model(causal_tokenizer), tiny_chunks()

    def facts(model=model, chunks=chunks, tokenizer=causal_tokenizer, optimizer=None, **changes):
        return run_configuration(model, tiny_arguments(tmp_path, **changes), chunks, tokenizer, optimizer)

    base = facts()
    assert base == json.loads(json.dumps(base))
    assert list(base) == sorted(base)
    assert (base["global_batch"], base["model.n_embd"], base["lr_scheduler_type"]) == (4, 16, "linear")
    model.save_pretrained(tmp_path / "model")
    other = PreTrainedTokenizerFast(tokenizer_object=causal_tokenizer.backend_tokenizer, pad_token="a")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for same in (facts(logging_steps=1, save_steps=3, per_device_eval_batch_size=1, max_steps=LAST_STEP),
                 facts(per_device_train_batch_size=2, gradient_accumulation_steps=2), facts(chunks=tiny_chunks()),
                 facts(model=GPT2LMHeadModel.from_pretrained(tmp_path / "model", use_safetensors=True))):
        assert same == base
    for different, keys in (
        (facts(learning_rate=1.0, seed=1), {"learning_rate", "seed"}),
        (facts(per_device_train_batch_size=8), {"global_batch"}),
        (facts(chunks=tiny_chunks(seed=1)), {"training_chunks"}),
        (facts(tokenizer=other), {"tokenizer"}),
        (facts(model=tiny_model(causal_tokenizer, n_layer=1)), {"model.n_layer"}),
        (facts(optimizer=optimizer), {"optimizer", *(f"optimizer.0.{key}" for key in optimizer.defaults)}),
    ):
        assert {key for key in base.keys() | different.keys()
                if base.get(key, "absent") != different.get(key, "absent")} == keys


# Numbers that are not finite.

class Poison(TrainerCallback):
    """Damage the model just before its third step."""

    def __init__(self, damage):
        self.damage = damage

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == 2:
            self.damage(model.transformer)


def poison_embedding(transformer):
    transformer.wte.weight.data[5] = torch.nan


def poison_norm(transformer):
    transformer.h[0].ln_1.weight.data[0] = torch.inf


def poison_one_gradient(transformer):
    transformer.h[0].mlp.c_fc.weight.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))


@pytest.mark.parametrize("damage", [poison_embedding, poison_norm, poison_one_gradient])
@pytest.mark.parametrize(("muon_lr", "rates", "max_grad_norm"), [
    (5e-3, "0.002 and 0.005. Train again in another output_dir with a third of it (0.00067 and 0.0017)", 1.0),
    (None, "0.002. Train again in another output_dir with a third of it (0.00067)", 0.0)])
def test_a_run_stops_at_the_step_that_breaks_it(
    causal_tokenizer, tmp_path, damage, muon_lr, rates, max_grad_norm
):
    with pytest.raises(FloatingPointError) as caught:
        train(tmp_path, causal_tokenizer, Poison(damage), muon_lr=muon_lr, max_grad_norm=max_grad_norm, save_steps=1)
    assert f"A weight is not finite at step 3 of 8, with the learning rate {rates}." in str(caught.value)
    assert f"Checkpoints in {tmp_path} are from before this step." in str(caught.value)
    assert newest_checkpoint(tmp_path, report=pytest.fail) == str(tmp_path / "checkpoint-2")


@pytest.mark.parametrize("muon_lr", [1e30, None])
def test_a_learning_rate_far_too_high_stops_without_a_log(causal_tokenizer, tmp_path, muon_lr):
    with pytest.raises(FloatingPointError, match=r"at step 2 of 8, with the learning rate 1e\+30\."):
        train(tmp_path, causal_tokenizer, muon_lr=muon_lr, learning_rate=1e30, warmup_steps=0)
    assert newest_checkpoint(tmp_path, report=pytest.fail) is None


def test_gradients_that_are_not_finite_do_no_harm_if_the_step_is_skipped(causal_tokenizer, tmp_path):
    model, state = tiny_model(causal_tokenizer), TrainerState(global_step=1, max_steps=2)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    for control in (TrainerControl(), TrainerControl(should_save=True)):
        FiniteLoss().on_step_end(tiny_arguments(tmp_path), state, control, model=model)


@pytest.mark.parametrize("name", ["loss", "eval_loss"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, name, value):
    arguments, state = tiny_arguments(tmp_path), TrainerState(global_step=7, max_steps=9)
    FiniteLoss().on_log(arguments, state, TrainerControl(), logs={name: 1.0, "grad_norm": value})
    arguments.fp16 = True
    with pytest.raises(FloatingPointError, match=rf"{name}={value} is not finite at step 7 of 9, with the learning "
                                                 r"rate 0\.002\..*, or in fp32 rather than fp16\. Checkpoints"):
        FiniteLoss().on_log(arguments, state, TrainerControl(), logs={name: value})


def test_the_filter_of_the_library_is_refused(causal_tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"logging_nan_inf_filter=True, .*: set it to False"):
        train(tmp_path, causal_tokenizer, logging_nan_inf_filter=True)
