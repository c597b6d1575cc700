"""``llm-tutorial pretrain``: its options, one process and two, interruptions, and what ends it before it begins."""

import argparse
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from transformers import AutoTokenizer, GPT2LMHeadModel, Trainer
from two_processes import results

from llm_tutorial import cli, pretraining, pretraining_checks, training
from llm_tutorial.callbacks import StopWhenRecited, TrainingProgress
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.device import Device
from llm_tutorial.launching import locked_folder
from llm_tutorial.presets import PRESETS, Preset
from llm_tutorial.pretraining import pretrain
from llm_tutorial.pretraining_checks import check_recipe, training_device
from llm_tutorial.pretraining_command import add_pretrain_command, changed_fields
from llm_tutorial.resuming import newest_checkpoint
from llm_tutorial.training import preset_tokenizer

SMOKE = PRESETS["smoke"]
# Five steps an epoch, the last of which has to be filled up.
FEW = ["--preset", "smoke", "--precision", "fp32", "--documents", "2", "--validation-documents", "2",
       "--context-length", "64", "--max-steps", "12", "--log-every", "1", "--save-every", "5"]


def run(folder, *options):
    return cli.main(["pretrain", *FEW, "--output-dir", str(folder), "--json", f"{folder}.json", *options])


def figures(folder):
    with open(f"{folder}.json", encoding="utf-8") as file:
        return json.load(file)


def weights(folder):
    return GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).state_dict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of one process that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    variables = {"LLM_TUTORIAL_SOURCE": "offline", "LLM_TUTORIAL_DEVICE": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        assert run(folder) == 0
    return folder


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_pretrain_command(parser.add_subparsers())
    return parser.parse_args(["pretrain", *arguments])


OTHER = {"name": "mine", "layers": 3, "width": 96, "heads": 3, "batch": 6, "epochs": 2, "learning_rate": 1.5e-3,
         "vocabulary": 288, "muon_lr": 1e-2, "embedding_std": 0.05, "activation": "relu", "attention": "eager",
         "dropout": 0.1, "warmup": 0.1, "context_length": 32, "max_steps": 7, "stop_at": 0.5}


@pytest.mark.parametrize("field", dataclasses.fields(Preset), ids=lambda field: field.name)
def test_every_field_of_a_preset_is_an_option(field):
    value = OTHER[field.name]
    assert value != getattr(SMOKE, field.name)
    given = changed_fields(parsed(f"--{field.name.replace('_', '-')}", str(value)))
    assert given == {field.name: value}
    assert type(given[field.name]) is type(value)
    if "None" in field.type:
        assert changed_fields(parsed(f"--{field.name.replace('_', '-')}", "none")) == {field.name: None}
    elif field.type == "str":
        assert changed_fields(parsed(f"--{field.name}", "none")) == {field.name: "none"}
    else:
        with pytest.raises(SystemExit):
            parsed(f"--{field.name.replace('_', '-')}", "none")


def test_without_options_the_preset_is_as_it_is():
    assert changed_fields(parsed()) == {}
    assert set(OTHER) == {field.name for field in dataclasses.fields(Preset)}


@pytest.fixture
def called(monkeypatch, tmp_path):
    """Note what ``pretrain`` is called with, instead of training."""
    calls = []

    def call(preset, output_dir, **options):
        calls.append((preset, output_dir, options))
        return {"steps": 1, "validation_loss": 1.0, "model": "model"}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretraining, "pretrain", call)
    return calls


@pytest.fixture
def saved(tmp_path, causal_tokenizer):
    """A tokenizer of as many entries as OTHER wants, and the folder it is in."""
    causal_tokenizer.save_pretrained(tmp_path / "saved")
    assert len(causal_tokenizer) == OTHER["vocabulary"]
    return tmp_path / "saved"


def test_options_reach_the_training(called, tmp_path, saved):
    text = tmp_path / "text.txt"
    text.write_text("text")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in OTHER.items()]
    assert cli.main(["pretrain", *options, "--data", str(text), "--documents", "3", "--validation-documents", "4",
                     "--seed", "5", "--save-every", "6", "--log-every", "7", "--validate-every", "8", "--no-resume",
                     "--validate-on-all", "--validate-with", str(text), "--tokenizer", str(saved)]) == 0
    [(preset, output_dir, given)] = called
    assert preset == Preset(**OTHER)
    assert str(output_dir) == os.path.join("build", "pretrain-mine")
    assert given.pop("report")
    assert given == {"data": [str(text)], "documents": 3, "validation_documents": 4, "validate_with": [str(text)],
                     "tokenizer": saved, "seed": 5, "precision": "auto", "save_every": 6, "log_every": 7,
                     "validate_every": 8, "validate_on_all": True, "resume": False}


def test_the_preset_is_the_devices_and_the_run_resumes(called):
    assert cli.main(["pretrain"]) == 0
    [(preset, output_dir, given)] = called
    assert (preset, str(output_dir)) == (PRESETS["cpu"], os.path.join("build", "pretrain-cpu"))
    assert (given["data"], given["resume"], given["seed"]) == ("articles", True, 42)
    assert (given["validate_with"], given["tokenizer"], given["validate_on_all"]) == (None, None, False)
    assert cli.main(["pretrain", "--validate-with", "introductions"]) == 0
    assert called[1][2]["validate_with"] == "introductions"


def test_a_stream_does_not_stop_when_recited_unless_that_is_asked_for(called, capsys):
    assert cli.main(["pretrain", "--data", "stream", "--max-steps", "9"]) == 0
    assert (called[0][0].stop_at, called[0][2]["data"]) == (None, "stream")
    assert cli.main(["pretrain", "--data", "stream", "--max-steps", "9", "--stop-at", "0.5"]) == 2
    assert "stop_at=0.5 needs chunks that can be counted, and a stream has no end" in capsys.readouterr().err
    assert cli.main(["pretrain", "--data", "stream"]) == 2
    assert "A stream has no end, and so no epochs (given: 7): set max_steps" in capsys.readouterr().err


def test_the_model_and_the_figures_are_kept(whole):
    found = figures(whole)
    assert sorted(path.name for path in (whole / "model").iterdir()) == [
        "config.json", "figures.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json"]
    assert json.loads((whole / "model" / "figures.json").read_text(encoding="utf-8")) == found
    tokenizer = AutoTokenizer.from_pretrained(whole / "model", trust_remote_code=False)
    assert (len(tokenizer), tokenizer.decode(tokenizer("a box")["input_ids"])) == (512, "a box")
    last = weights(newest_checkpoint(whole))
    assert all(torch.equal(value, last[name]) for name, value in weights(whole / "model").items())
    assert [entry["step"] for entry in found["losses"]] == list(range(1, 13))
    assert found["losses"][-1]["loss"] < found["losses"][0]["loss"] - 0.2
    assert (found["world_size"], found["batch_per_process"], found["steps"], found["first_step"]) == (1, 4, 12, 0)
    assert found["tokens"] == 12 * 4 * 64
    assert found["tokens_per_second"] == pytest.approx(found["tokens"] / found["seconds"])
    assert found["training_chunks"] % 4 == 0
    assert found["steps"] * 4 > found["training_chunks"], "the run goes beyond an epoch"
    assert found["validation_loss"] == pytest.approx(found["validation_losses"][-1]["loss"], abs=0.1)
    assert found["preset"] == dataclasses.asdict(dataclasses.replace(SMOKE, context_length=64, max_steps=12))
    assert [entry["step"] for entry in found["validation_losses"]] == [2, 4, 6, 8, 10, 12]
    assert found["left_out"] is None


def test_the_seconds_are_those_of_the_steps(tmp_path, monkeypatch):
    class Timed(TrainingProgress):
        def on_train_end(self, *arguments, **options):
            super().on_train_end(*arguments, **options)
            self.seconds = 123.0

    monkeypatch.setattr(pretraining, "TrainingProgress", Timed)
    assert run(tmp_path / "run") == 0
    assert figures(tmp_path / "run")["seconds"] == 123.0


def test_two_processes_have_the_losses_of_one(whole, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", os.devnull)  # the launcher is not looked for there
    (tmp_path / "token.py").write_text("raise ImportError('a module of mine')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # what learners have there does not stand in for the standard library
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run(tmp_path / "run", "--processes", "2") == 0
    out, err = capfd.readouterr()
    assert out.count("training from step 0 to at most 12") == 1, "only the main process shows progress"
    assert out.count("2 documents to train on, 2 to validate with") == 1
    assert out.count("the model is in ") == 1
    assert err == ""
    one, two = figures(whole), figures(tmp_path / "run")
    assert (two["world_size"], two["batch_per_process"], two["tokens"]) == (2, 2, one["tokens"])
    for key in ("losses", "validation_losses"):
        assert [entry["step"] for entry in two[key]] == [entry["step"] for entry in one[key]]
        assert [entry["loss"] for entry in two[key]] == pytest.approx([entry["loss"] for entry in one[key]], abs=1e-4)
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], abs=1e-4)
    other = weights(tmp_path / "run" / "model")
    assert all(torch.allclose(value, other[name], atol=1e-4) for name, value in weights(whole / "model").items())


def test_two_processes_that_ctrl_c_ends_go_on_with_the_same_command(whole, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Validated at length, so that steps are left when the signal comes.
    slowly = ["--processes", "2", "--validation-documents", "10", "--validate-every", "1", "--validate-on-all"]
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "llm_tutorial", "pretrain", *FEW, *slowly, "--output-dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        ends = time.monotonic() + 120
        while not (folder / "checkpoint-5" / "manifest.json").exists():
            assert process.poll() is None
            assert time.monotonic() < ends
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # to all, as a terminal does
        out = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    assert out.count("Stopped. ") == 1
    assert f"Stopped. The same command resumes from {folder / 'checkpoint-5'}." in out
    assert not (folder / "model").exists()
    capfd.readouterr()
    assert run(folder, *slowly) == 0
    assert "training from step 5 to at most 12" in capfd.readouterr().out
    resumed, expected = figures(folder), figures(whole)
    assert (resumed["first_step"], resumed["world_size"]) == (5, 2)
    assert [entry["step"] for entry in resumed["losses"]] == list(range(1, 13))
    assert [entry["loss"] for entry in resumed["losses"]] == pytest.approx(
        [entry["loss"] for entry in expected["losses"]], abs=1e-4)
    other = weights(folder / "model")
    assert all(torch.allclose(value, other[name], atol=1e-4) for name, value in weights(whole / "model").items())


def test_gradients_are_averaged_before_muons_step():
    first, second = (found["muon"] for found in results())
    assert {first["wrapper"], second["wrapper"]} == {"DistributedDataParallel"}
    assert first["optimizer"] == "MuonAdamW"
    assert first["seen"] != second["seen"], "each has its own share"
    assert first["weights"] == second["weights"]
    assert first["losses"] == second["losses"]
    assert first["losses"][-1] < first["losses"][0] - 0.5
    assert first["validation"] == second["validation"]


def test_all_processes_stop_together():
    first, second = results()
    assert first["recited"] == second["recited"]
    assert 0 < first["recited"]["step"] < 300
    assert "is not finite at step" in first["infinite"]
    assert first["infinite"] == second["infinite"]


class StopAtSeven(TrainingProgress):
    """What a batch system does when the time is up."""

    number = signal.SIGTERM

    def on_step_end(self, args, state, control, **_):
        if state.global_step == 7:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_with_the_same_command(whole, tmp_path, monkeypatch, capsys, number):
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(StopAtSeven, "number", number)
        patch.setattr(pretraining, "TrainingProgress", StopAtSeven)
        assert run(folder) == 130
    assert f"Stopped. The same command resumes from {folder / 'checkpoint-5'}." in capsys.readouterr().out
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    assert not (folder / "model").exists()
    assert run(folder) == 0
    assert f"resuming from {folder / 'checkpoint-5'}\ntraining from step 5 to at most 12" in capsys.readouterr().out
    found, expected = figures(folder), figures(whole)
    assert (found["first_step"], found["tokens"]) == (5, 7 * 4 * 64)
    assert found["losses"] == expected["losses"], "those from before the interruption too"
    other = weights(folder / "model")
    assert all(torch.equal(value, other[name]) for name, value in weights(whole / "model").items())


def test_a_run_that_is_stopped_before_its_first_checkpoint_begins_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretraining, "TrainingProgress", StopAtSeven)
    assert run(tmp_path / "run", "--save-every", "10") == 130
    assert "Stopped. There is no checkpoint yet: the same command begins again." in capsys.readouterr().out


def test_a_run_that_ended_before_its_model_was_kept_only_keeps_it(whole, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(GPT2LMHeadModel, "save_pretrained", lambda self, folder, **options: (
            full() if "model" in str(folder) else real(self, folder, **options)))
        real = GPT2LMHeadModel.__mro__[1].save_pretrained
        assert run(folder) == 2
    assert re.search(r"run.model could not be written \(\[Errno 28\] No space left on device\)\. The disk may be full",
                     capsys.readouterr().err)
    assert not (folder / "model").exists()
    assert not list(folder.glob(".model*")), "nothing half-written is left"
    assert run(folder) == 0
    assert "training from step" not in capsys.readouterr().out
    found, expected = figures(folder), figures(whole)
    assert (found["tokens"], found["tokens_per_second"], found["steps"]) == (0, None, 12)
    assert found["losses"] == expected["losses"]
    assert found["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-6)
    other = weights(folder / "model")
    assert all(torch.equal(value, other[name]) for name, value in weights(whole / "model").items())


def test_the_last_checkpoint_of_another_run_is_not_kept_as_this_ones_model(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("model", "run.lock"))
    assert run(folder, "--learning-rate", "0.1") == 2
    assert "belongs to a different run: learning_rate is 0.002 there and 0.1 here" in capsys.readouterr().err
    assert not (folder / "model").exists()


def test_a_run_that_stopped_early_is_not_trained_past_its_stop(tmp_path, monkeypatch, capsys):
    class StopAtTen(StopWhenRecited):
        """Where a checkpoint is saved."""

        def on_log(self, args, state, control, **_):
            control.should_training_stop |= state.global_step == 10

    monkeypatch.setattr(training, "StopWhenRecited", StopAtTen)
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "run"
    assert run(undisturbed, "--stop-at", "0.5") == 0
    shutil.copytree(undisturbed, folder, ignore=shutil.ignore_patterns("model"))  # all that was there before the model
    capsys.readouterr()
    assert run(folder, "--stop-at", "0.5") == 0
    assert "training from step" not in capsys.readouterr().out
    found, expected = figures(folder), figures(undisturbed)
    assert found["steps"] == expected["steps"] == 10
    assert (found["losses"], found["validation_losses"]) == (expected["losses"], expected["validation_losses"])
    assert found["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-6)
    other = weights(folder / "model")
    assert all(torch.equal(value, other[name]) for name, value in weights(undisturbed / "model").items())


class FillUp(TrainingProgress):
    """After the first checkpoint, and before the second."""

    fill = None

    def on_step_end(self, args, state, control, **_):
        if state.global_step == 7:
            self.fill()


@pytest.fixture(params=["model", "optimizer", "disk"])
def full(request, tmp_path):
    """Where the next checkpoint finds no room: a folder, what takes the room, what frees it, the library's words."""
    resource = pytest.importorskip("resource", reason="limits of Unix")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if request.param != "disk":
        most, words = {"model": (200_000, "File too large"), "optimizer": (600_000, "enforce fail")}[request.param]
        yield (tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard)),
               lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)), words)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    filler = tmp_path / "filler"
    yield (tmp_path, lambda: filler.write_bytes(bytes(shutil.disk_usage(tmp_path).free - 200_000)), filler.unlink,
           "No space left on device")
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_full_disk_is_told_and_once_there_is_room_the_run_goes_on(whole, full, monkeypatch, capsys):
    place, fill, free, words = full
    folder = place / "run"
    with monkeypatch.context() as patch:
        patch.setattr(FillUp, "fill", staticmethod(fill))
        patch.setattr(pretraining, "TrainingProgress", FillUp)
        try:
            assert run(folder) == 2
        finally:
            free()
    err = capsys.readouterr().err
    assert err.startswith(f"llm-tutorial: error: {folder / 'checkpoint-10'} could not be written (")
    assert words in err
    assert re.search(r"The disk may be full: it has \d+\.\d\d GB free\. Make room on it; the same command then resumes "
                     r"from the newest whole checkpoint", err)
    assert run(folder) == 0
    assert f"resuming from {folder / 'checkpoint-5'}\n" in capsys.readouterr().out
    other = weights(folder / "model")
    assert all(torch.equal(value, other[name]) for name, value in weights(whole / "model").items())


def test_a_stream_that_was_killed_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "run"
    options = ["--data", "stream", "--documents", "20"]

    class CopyAtSeven(TrainingProgress):
        """What a kill would leave."""

        def on_step_end(self, args, state, control, **_):
            if state.global_step == 7:
                shutil.copytree(undisturbed, folder)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "TrainingProgress", CopyAtSeven)
        assert run(undisturbed, *options) == 0
    capsys.readouterr()
    assert run(folder, *options) == 0
    assert f"resuming from {folder / 'checkpoint-5'}, once the stream has been read up to there" in (
        capsys.readouterr().out)
    found, expected = figures(folder), figures(undisturbed)
    assert (found["first_step"], found["steps"], found["training_chunks"]) == (5, 12, None)
    for key in ("losses", "validation_losses", "validation_loss"):
        assert found[key] == expected[key]
    other = weights(folder / "model")
    assert all(torch.equal(value, other[name]) for name, value in weights(undisturbed / "model").items())


# More validation chunks than are watched by default.
ELSEWHERE = ["--validate-with", "articles", "--validation-documents", "8", "--validate-every", "3", "--validate-on-all"]


@pytest.fixture(scope="module")
def stopped(whole, tmp_path_factory):
    """A run with the tokenizer of another one, validated with other documents, stopped at its seventh step."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LLM_TUTORIAL_SOURCE": "offline", "LLM_TUTORIAL_DEVICE": "cpu"}.items():
            patch.setenv(name, value)
        patch.setattr(pretraining, "TrainingProgress", StopAtSeven)
        assert run(folder, *ELSEWHERE, "--tokenizer", str(whole / "model")) == 130
    return folder


def test_a_run_takes_the_tokenizer_and_the_validation_set_of_another(whole, stopped, tmp_path):
    folder = shutil.copytree(stopped, tmp_path / "run")
    assert run(folder, *ELSEWHERE, "--tokenizer", str(whole / "model")) == 0
    vocabularies = [AutoTokenizer.from_pretrained(each / "model", trust_remote_code=False).get_vocab()
                    for each in (whole, folder)]
    assert vocabularies[0] == vocabularies[1]
    found = figures(folder)
    assert (found["first_step"], found["data"], found["left_out"]) == (5, "articles, validated with articles", 0)
    assert found["validation_chunks"] >= 64
    assert [entry["step"] for entry in found["validation_losses"]] == [3, 6, 9, 12]
    assert found["validation_losses"][-1]["loss"] == pytest.approx(found["validation_loss"], rel=1e-6)


def test_a_run_that_is_resumed_logs_validates_and_saves_as_often_as_now_asked_for(whole, stopped, tmp_path):
    folder = shutil.copytree(stopped, tmp_path / "run")
    assert run(folder, *ELSEWHERE, "--tokenizer", str(whole / "model"), "--log-every", "3", "--save-every", "4",
               "--validate-every", "2") == 0
    found = figures(folder)
    assert [entry["step"] for entry in found["losses"]] == [1, 2, 3, 4, 5, 6, 8, 9, 12], "with every checkpoint too"
    assert [entry["step"] for entry in found["validation_losses"]] == [3, 6, 8, 10, 12]
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-8"]


@pytest.mark.parametrize(("tokenizer", "options", "different"), [
    ("other", ELSEWHERE, "tokenizer, training_chunks, validation_chunks"),
    ("same", [], "validation_chunks, watched_chunks"),
    ("same", ["--validate-with", "introductions"], "validation_chunks, watched_chunks"),
    ("same", [*ELSEWHERE, "--validation-documents", "9"], "validation_chunks"),
    ("same", ELSEWHERE[:-1], "watched_chunks"),
    ("same", [*ELSEWHERE, "--embedding-std", "0.1"], "embedding_std"),
    ("same", [*ELSEWHERE, "--stop-at", "0.5"], "stop_at"),
    ("same", [*ELSEWHERE, "--width", "96"], "model.n_embd"),
    ("same", [*ELSEWHERE, "--context-length", "32"], "model.n_positions, training_chunks, validation_chunks"),
    ("same", [*ELSEWHERE, "--muon-lr", "none"],
     "optimizer, optimizer.0.betas, optimizer.0.bf16, optimizer.0.coefficients"),
])
def test_a_run_does_not_go_on_with_another_recipe_tokenizer_or_validation_set(
        whole, stopped, tmp_path, capsys, tokenizer, options, different):
    preset_tokenizer(SMOKE, load_wikipedia(5, 1)["train"]["text"]).save_pretrained(tmp_path)
    folder = whole / "model" if tokenizer == "same" else tmp_path
    before = contents(stopped)
    assert run(stopped, "--tokenizer", str(folder), *options) == 2
    err = capsys.readouterr().err
    assert f"{stopped} belongs to a different run: " in err
    assert ", ".join(re.findall(r"([\w.]+) is [^;]+ there and [^;]+ here", err)) == different
    assert contents(stopped) == before


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "run.lock"}


@pytest.mark.parametrize("options", [[], ["--processes", "2"]])
def test_a_second_run_on_a_folder_in_use_is_refused_and_harms_nothing(tmp_path, monkeypatch, capsys, options):
    folder = tmp_path / "run"
    (folder / "checkpoint-5").mkdir(parents=True)
    before = contents(folder)
    monkeypatch.setattr(pretraining, "training_data", None)  # nothing is prepared
    with locked_folder(folder):
        assert run(folder, *options) == 2
    assert "is in use by another run. Wait until that has ended, or choose another --output-dir" in (
        capsys.readouterr().err)
    assert contents(folder) == before


def test_other_processes_of_a_launch_take_no_lock(tmp_path, monkeypatch):
    entered = []
    monkeypatch.setattr(pretraining, "locked_folder", entered.append)
    monkeypatch.setenv("RANK", "1")

    def reached(*_, **options):
        options["report"]("not shown")
        raise ValueError("reached")

    monkeypatch.setattr(pretraining, "training_data", reached)
    lines = []
    with pytest.raises(ValueError, match="reached"):
        pretrain(SMOKE, tmp_path, report=lines.append)
    assert (entered, lines) == ([], [])


@pytest.mark.parametrize("options", [[], ["--no-resume"], ["--processes", "2"]])
def test_a_finished_run_is_not_begun_again(whole, capsys, options):
    before = contents(whole)
    assert run(whole, *options) == 2
    assert (f"{whole / 'model'} is there already, so the run in {whole} is finished; its figures are in "
            f"{whole / 'model' / 'figures.json'}. Choose another --output-dir") in capsys.readouterr().err
    assert contents(whole) == before


def test_checkpoints_are_not_overwritten(tmp_path, capsys):
    (tmp_path / "run" / "checkpoint-5").mkdir(parents=True)
    assert run(tmp_path / "run", "--no-resume") == 2
    assert "holds checkpoint-5, which a new run would overwrite. Leave out --no-resume" in capsys.readouterr().err


def test_processes_that_begin_differently_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretraining, "gather_object", lambda given: [*given, given[0] | {"tokenizer": "other"}])
    assert run(tmp_path / "run") == 2
    assert "Process 1 begins with other tokenizer than process 0: give all the same arguments" in (
        capsys.readouterr().err)


def test_a_lack_of_memory_names_the_batch(tmp_path, monkeypatch, capsys):
    def train(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Trainer, "train", train)
    assert run(tmp_path / "run") == 2
    assert "A batch of 4 chunks of 64 tokens does not fit into the memory of the GPU. Choose a smaller --batch" in (
        capsys.readouterr().err)
    assert run(tmp_path / "run", "--batch", "2", "--no-resume") == 2
    assert "A batch of 2 chunks of 64 tokens does not fit" in capsys.readouterr().err, "not: a different run"


def test_every_process_takes_part_when_the_weights_are_collected(tmp_path, monkeypatch):
    taken, trainers, real = [], [], pretraining._trainer

    def trainer(*arguments):
        trainers.append(real(*arguments))
        collect = trainers[-1].accelerator.get_state_dict
        monkeypatch.setattr(trainers[-1].accelerator, "get_state_dict", lambda model: taken.append(model) or
                            collect(model))
        return trainers[-1]

    monkeypatch.setattr(pretraining, "_trainer", trainer)
    few = {"documents": 2, "validation_documents": 2, "report": lambda _line: None}
    preset = dataclasses.replace(SMOKE, max_steps=1)
    pretrain(preset, tmp_path / "main", **few)
    monkeypatch.setenv("RANK", "1")
    pretrain(preset, tmp_path / "other", **few)
    assert taken == [trainer.model_wrapped for trainer in trainers]
    assert (tmp_path / "main" / "model").is_dir()
    assert not (tmp_path / "other" / "model").exists(), "the main process alone writes"
    trainers[0].model.save_pretrained(tmp_path / "directly")
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        assert (tmp_path / "main" / "model" / name).read_bytes() == (tmp_path / "directly" / name).read_bytes()


def test_muon_is_refused_where_fsdp_shards_its_matrices(tmp_path, monkeypatch, capsys):
    real = Trainer.create_accelerator_and_postprocess

    def create(self):
        real(self)
        self.is_fsdp_enabled = True
        patch.setitem(PartialState._shared_state, "distributed_type", DistributedType.FSDP)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "create_accelerator_and_postprocess", create)
        assert run(tmp_path / "run") == 2
    assert ("muon_lr=0.005: Muon needs whole matrices, of which FSDP leaves each process a part. Give --muon-lr none"
            in capsys.readouterr().err)


@pytest.mark.parametrize(("changes", "expected"), [
    ({"max_steps": 10_000}, 0.1), ({"max_steps": 10_001}, 1000), ({"max_steps": None, "epochs": 9}, 0.1),
    ({"max_steps": None, "epochs": 50_000}, 1000)])
def test_a_crash_costs_no_more_than_a_thousand_steps(tmp_path, monkeypatch, changes, expected):
    def reached(*_, save_steps, **__):
        raise ValueError(f"save_steps={save_steps}")

    monkeypatch.setattr(pretraining, "_arguments", reached)
    with pytest.raises(ValueError, match=rf"^save_steps={expected}$"):
        pretrain(dataclasses.replace(SMOKE, **changes), tmp_path, documents=2, validation_documents=2)


@pytest.mark.parametrize(("changes", "message"), [
    ({"layers": 0}, "layers=0: at least 1"),
    ({"batch": -4}, "batch=-4: at least 1"),
    ({"vocabulary": 0}, "vocabulary=0: at least 1"),
    ({"max_steps": 0}, "max_steps=0: at least 1"),
    ({"learning_rate": float("nan")}, "learning_rate=nan: give a number above 0"),
    ({"muon_lr": -1.0}, "muon_lr=-1.0: give a number above 0"),
    ({"embedding_std": float("inf")}, "embedding_std=inf: give a number above 0"),
    ({"dropout": 1.0}, "dropout=1.0: give a share, at least 0 and below 1"),
    ({"warmup": -0.1}, "warmup=-0.1: give a share"),
    ({"stop_at": 1.5}, "stop_at=1.5: give the share to be recited, above 0 and at most 1"),
    ({"heads": 3}, "width=64 cannot be divided among heads=3: choose a multiple"),
    ({"activation": "swish9"}, "activation='swish9' is unknown: use one of .*gelu_new"),
    ({"attention": "flash_attention_2"}, "attention='flash_attention_2' is unknown or not installed: use one of eager"),
    ({"attention": "someone/kernel"}, "attention='someone/kernel' is unknown or not installed"),
    ({"context_length": 1}, "context_length=1: at least 2 tokens are needed"),
    ({"context_length": 31, "stop_at": 0.5}, "stop_at=0.5 needs chunks of 32 tokens to recite, but context_length=31"),
])
def test_a_recipe_that_cannot_work_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        check_recipe(dataclasses.replace(SMOKE, **changes), "articles")


def test_an_attention_of_another_package_passes_where_that_is_installed(monkeypatch):
    monkeypatch.setattr(pretraining_checks, "is_flash_attn_2_available", lambda: True)
    check_recipe(dataclasses.replace(SMOKE, attention="flash_attention_2"), "articles")


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_pass(name):
    check_recipe(PRESETS[name], "articles")


@pytest.mark.parametrize(("options", "message"), [
    (["--data", "nowhere.txt"], "nowhere.txt: no such file or folder. --data takes one of articles, introd"),
    (["--data", "articles", "stream"], "articles, stream: no such file or folder"),
    (["--batch", "6", "--processes", "4"], "A global batch of 6 cannot be divided among 4 processes"),
    (["--output-dir", "text.md/run"], "no files can be written to text.md.run .*another --output-dir"),
    (["--json", "saved"], "--json saved is a folder. Name a file in it"),
    (["--json", "text.md/figures.json"], "no files can be written to text.md .*another --json"),
    (["--validate-with", "nowhere"], "nowhere: no such file or folder. --validate-with takes one of articles, introdu"),
    (["--validate-with", "stream"], "stream: no such file or folder. --validate-with takes one of articles, introdu"),
    (["--tokenizer", "nowhere"], "nowhere.tokenizer.json does not exist .*name a folder with a saved tokenizer"),
    (["--tokenizer", "saved"], "saved has 288 entries, but vocabulary=512: set the vocabulary to 288, or name"),
    (["--tokenizer", "saved", "--processes", "2"], "saved has 288 entries, but vocabulary=512"),
    (["--seed", "-1"], "seed=-1 is not an integer from 0"),
    (["--context-length", "2000"], "context_length=2000 is not between 1 and 1,024"),
])
def test_errors_are_told_before_anything_is_trained(tmp_path, monkeypatch, capsys, saved, options, message):
    monkeypatch.chdir(saved.parent)
    (tmp_path / "text.md").write_text("text")
    assert cli.main(["pretrain", "--preset", "smoke", "--output-dir", "run", *options]) == 2
    out, err = capsys.readouterr()
    assert "training from" not in out
    assert err.startswith("llm-tutorial: error: ")
    assert re.search(message, err)


def test_processes_may_be_started_by_another_launcher(called, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["pretrain", "--processes", "2"]) == 0
    assert len(called) == 1
    assert cli.main(["pretrain", "--processes", "4"]) == 2
    assert "--processes 4, but a launcher has started 2 (WORLD_SIZE): leave out" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    capsys.readouterr()
    assert cli.main(["pretrain", "--json", "figures.json"]) == 0
    assert capsys.readouterr().out == ""
    assert not os.path.exists("figures.json"), "the main process alone writes"


@pytest.mark.parametrize(("status", "told"), [(0, False), (2, True), (130, False)])
def test_the_status_of_the_launch_is_the_commands(tmp_path, monkeypatch, capsys, status, told):
    given = []
    monkeypatch.setattr("llm_tutorial.launching.launch_processes", lambda *arguments: given.append(arguments) or status)
    options = ["pretrain", "--preset", "smoke", "--output-dir", str(tmp_path / "run"), "--processes", "2"]
    assert cli.main(options) == status
    assert given == [(2, options)]
    assert ("a process failed, see above" in capsys.readouterr().err) is told


@pytest.mark.parametrize(("device", "gpus", "processes", "message"), [
    ("mps", 0, 2, "Apple's GPU cannot be shared by 2 processes: use one, or set LLM_TUTORIAL_DEVICE=cpu"),
    ("cuda", 1, 2, "2 processes on this machine, but it has 1 GPUs, and each needs its own: give --processes 1"),
    ("cuda", 4, 1, "There are 4 GPUs: give --processes 4, or choose one with CUDA_VISIBLE_DEVICES=0"),
])
def test_devices_that_cannot_be_used_like_that_are_named(monkeypatch, device, gpus, processes, message):
    monkeypatch.setattr(pretraining_checks, "pick_device", lambda: Device(device, True, "present"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=message):
        training_device("auto", processes)


def test_the_precision_can_be_fp32(monkeypatch):
    monkeypatch.setattr(pretraining_checks, "pick_device", lambda: Device("cpu", True, "present"))
    assert training_device("auto", 1).bf16 is True
    assert training_device("fp32", 1).bf16 is False
    with pytest.raises(ValueError, match="precision='half' is unknown: use auto or fp32"):
        training_device("half", 1)


def test_gloo_is_for_several_processes_on_a_cpu(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(pretraining, "training_arguments", lambda *_, **given: made.append(given))
    for name, processes in (("cpu", 1), ("cpu", 2), ("cuda", 2)):
        pretraining._arguments(SMOKE, tmp_path, Device(name, False, ""), 2, processes, 16)
    assert [given.get("ddp_backend") for given in made] == [None, "gloo", None]
    assert [given.get("log_level_replica") for given in made] == [None, "error", "error"], "one of them warns, or none"
    assert [given["per_device_eval_batch_size"] for given in made] == [16, 8, 8]
    for processes, batch in ((1, 32), (2, 16), (3, 1), (4, 8), (6, 1), (32, 1), (64, 1)):
        pretraining._arguments(SMOKE, tmp_path, Device("cpu", False, ""), 1, processes, 320)
        assert made[-1]["per_device_eval_batch_size"] == batch, "all chunks count alike, or are validated one by one"
    assert all(given["accelerator_config"] == {"dispatch_batches": False} for given in made)


