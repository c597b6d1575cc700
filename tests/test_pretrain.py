"""``llm-tutorial pretrain``: its options, one process and two, interruptions."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, GPT2LMHeadModel
from two_processes import BATCH, DOCUMENTS, started

from llm_tutorial import chunking, cli, corpus, training
from llm_tutorial.commands import pretrain
from llm_tutorial.commands.pretrain import changed_preset
from llm_tutorial.corpus import load_introductions, load_wikipedia
from llm_tutorial.reporting import TrainingProgress
from llm_tutorial.training import PRESETS, Preset

SMOKE = PRESETS["smoke"]
SECONDS = 300  # that a process may take on a busy machine


def options(folder: Path, *more: str) -> list[str]:
    """A run beyond one epoch on texts beside its folder, with checkpoints at even steps."""
    return ["pretrain", "--preset", "smoke", "--set", "context_length=64", "--data", str(folder.parent / "texts"),
            "--max-steps", "15", "--output-dir", str(folder), "--json", f"{folder}.json", *more]


def run(folder: Path, *more: str) -> int:
    return cli.main(options(folder, *more))


def figures(folder: Path) -> dict:
    return json.loads(Path(f"{folder}.json").read_text(encoding="utf-8"))


def assert_same_weights(folder: Path, other: Path, **tolerance: float) -> None:
    weights, expected = (
        GPT2LMHeadModel.from_pretrained(each / "model", dtype=torch.float32, use_safetensors=True).state_dict()
        for each in (folder, other))
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, **({"rtol": 0, "atol": 0} | tolerance))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with texts, and the environment for fixtures that several tests share."""
    base = tmp_path_factory.mktemp("base")
    (base / "texts").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"SOURCE": "offline", "DEVICE": "cpu", "PRECISION": "fp32"}.items():
            patch.setenv(f"LLM_TUTORIAL_{name}", value)
        for number, text in enumerate(load_wikipedia(4, 1)["train"]["text"]):
            (base / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
        yield base


@pytest.fixture(scope="module")
def whole(base):
    """A run of one process that nothing disturbs."""
    assert run(base / "whole") == 0
    return base / "whole"


@pytest.fixture
def folder(base, request):
    """An output folder that does not exist yet, beside the texts."""
    return base / re.sub(r"\W+", "-", request.node.name)


# Options.

OTHER = {"name": "mine", "layers": 3, "width": 96, "heads": 3, "batch": 6, "epochs": 2, "learning_rate": 1.5e-3,
         "vocabulary": 288, "muon_lr": 1e-2, "embedding_std": 0.05, "activation": "relu", "attention": "eager",
         "dropout": 0.1, "warmup": 0.1, "context_length": 32, "max_steps": 7, "stop_at": 0.5,
         "at_once": 3}


def test_every_field_of_a_preset_can_be_set():
    changed = changed_preset(SMOKE, [f"{name}={value}" for name, value in OTHER.items()])
    assert changed == Preset(**OTHER)
    optional = {field.name for field in dataclasses.fields(Preset) if "None" in field.type}
    assert changed_preset(changed, [f"{name}=none" for name in optional]) == dataclasses.replace(
        changed, **dict.fromkeys(optional))


@pytest.mark.parametrize(("setting", "message"), [
    ("layerz=3", "--set layerz=3: a preset has no field 'layerz'. Write field=value with one of name, layers, width"),
    ("layers=none", "--set layers=none: 'none' is not a value for layers, which takes int."),
    ("muon_lr=fast", "--set muon_lr=fast: 'fast' is not a value for muon_lr, which takes float or none."),
])
def test_a_wrong_setting_is_named(setting, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        changed_preset(SMOKE, [setting])


@pytest.fixture
def called(monkeypatch, tmp_path):
    """What the command gives to the function, in place of a training."""
    calls = []

    def call(preset, output_dir, **others):
        calls.append((preset, output_dir, *others.values()))
        return {"steps": 1, "validation_loss": 1.0, "model": "model"}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrain, "pretrain", call)
    return calls


def test_options_reach_the_training(called, capsys):
    assert cli.main(["pretrain"]) == 0
    assert cli.main(["pretrain", "--set", "layers=3", "--max-steps", "9", "--data", "a", "b", "--column", "c",
                     "--output-dir", "out", "--json", "new/figures.json"]) == 0
    assert called == [(PRESETS["cpu"], Path("build/pretrain-cpu"), "articles", ""),
                      (dataclasses.replace(PRESETS["cpu"], layers=3, max_steps=9), Path("out"), ["a", "b"], "c")]
    assert "1 steps, validation loss 1.000 nats per token; the model is in model" in capsys.readouterr().out
    assert json.loads(Path("new/figures.json").read_text(encoding="utf-8"))["steps"] == 1


@pytest.mark.parametrize(("more", "message"), [
    (["--data", "nowhere.txt"], "nowhere.txt does not exist"),
    (["--set", "batch=6"], "A batch of 6 cannot be divided equally among 4 processes: choose a multiple of 4"),
    (["--data", "stream"], "A stream has no end, so the training needs one: give --max-steps"),
])
def test_errors_are_told_in_a_line_before_anything_is_trained(tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert cli.main(["pretrain", "--preset", "cpu", "--output-dir", str(tmp_path / "run"), *more]) == 2
    out, err = capsys.readouterr()
    assert "training from" not in out
    assert err.startswith("llm-tutorial: error: ")
    assert message in err


# One process and two.

def test_the_model_and_the_figures_are_kept(whole):
    found = figures(whole)
    assert json.loads((whole / "model" / "figures.json").read_text(encoding="utf-8")) == found
    tokenizer = AutoTokenizer.from_pretrained(whole / "model", trust_remote_code=False)
    assert (len(tokenizer), tokenizer.decode(tokenizer("a box")["input_ids"])) == (512, "a box")
    assert found["preset"] == vars(dataclasses.replace(SMOKE, context_length=64, max_steps=15))
    assert [entry["step"] for entry in found["losses"]] == list(range(1, 16))
    assert found["losses"][-1]["loss"] < found["losses"][0]["loss"] - 0.2
    assert (found["data"], found["world_size"], found["steps"], found["first_step"]) == ("files", 1, 15, 0)
    assert found["tokens"] == 15 * 4 * 64 == pytest.approx(found["tokens_per_second"] * found["seconds"])
    assert found["training_chunks"] % 4 == 0
    assert found["steps"] * 4 > found["training_chunks"], "the run goes beyond an epoch"
    assert found["validation_losses"][-1]["loss"] == pytest.approx(found["validation_loss"], abs=0.1)


@pytest.fixture(scope="module")
def two(base):
    """The folder of the same run in two processes, which trained on a stream first and were ended once."""
    processes = started(str(Path(__file__).with_name("two_processes.py")), str(base), *options(base / "two"))
    outputs = [process.communicate(timeout=SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert re.findall(r"training from step (\d+)|(resuming)", outputs[0][0]) == [("0", ""), ("", "resuming"), ("8", "")]
    assert (outputs[0][1], outputs[1]) == ("", ("", "")), "only the main process prints, and nothing warns"
    return base / "two"


def test_two_processes_have_the_losses_of_one(whole, two):
    one, other = figures(whole), figures(two)
    assert (other["world_size"], other["first_step"]) == (2, 8)
    for key in ("losses", "validation_losses"):
        assert [entry["step"] for entry in other[key]] == [entry["step"] for entry in one[key]]
        assert [entry["loss"] for entry in other[key]] == pytest.approx([entry["loss"] for entry in one[key]], abs=1e-4)
    assert other["validation_loss"] == pytest.approx(one["validation_loss"], abs=1e-4)
    assert_same_weights(two, whole, atol=1e-4)


def test_of_two_processes_each_reads_its_own_file_of_a_stream(two):
    by_process = [json.loads((two.parent / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
    assert [[len(step) for step in steps] for steps in by_process] == [[BATCH // 2] * 8] * 2
    seen = [sorted(number for step in steps for number in step) for steps in by_process]
    assert sorted(seen) == [list(range(DOCUMENTS)), list(range(DOCUMENTS, 2 * DOCUMENTS))]


def test_processes_share_the_validation_chunks_equally(monkeypatch):
    chunks = Dataset.from_dict({"input_ids": [[1]] * 320})
    kept = [len(pretrain._evenly_divided(chunks.select(range(count)))) for count in (1, 3, 31, 32, 63, 320)]
    assert kept == [1, 2, 16, 32, 32, 320]
    monkeypatch.setattr(training, "training_arguments", lambda *_, **given: given)
    sizes = [pretrain._arguments(SMOKE, Path(), None, {"train": chunks, "valid": chunks}, processes)
             ["per_device_eval_batch_size"] for processes in (2, 3, 64)]
    assert sizes == [16, 1, 1], "a batch that is not full would be filled up with chunks that count twice"


# Data.

@pytest.mark.parametrize(("data", "told"), [
    ("articles", "texts to train on: 50, to validate with: 50"),
    ("introductions", "texts to train on: 700, to validate with: 500"),
])
def test_articles_are_chunked_one_by_one_and_introductions_packed_in_whole_batches(monkeypatch, capsys, data, told):
    introductions = load_introductions().select(range(1200))
    monkeypatch.setattr(corpus, "load_introductions", lambda: introductions)
    tokenizer, datasets, name = pretrain._training_data(data, SMOKE)
    assert (capsys.readouterr().out, len(tokenizer), name) == (f"{told}\n", 512, data)
    assert len(datasets["train"]) % SMOKE.batch == 0
    ids = datasets["train"]["input_ids"][:]
    assert any(tokenizer.eos_token_id in row for row in ids) is (data == "introductions")
    if data == "articles":
        by_hand = chunking.chunked_dataset(corpus.load_wikipedia(50, 50, 42)["train"], tokenizer)["input_ids"][:]
        assert ids == [*by_hand, *by_hand[:len(ids) - len(by_hand)]]


def test_one_text_file_is_trained_on_and_validates_with_its_last_tenth(tmp_path, capsys):
    (tmp_path / "book.txt").write_text("\n".join(f"Line {n} of a book." for n in range(2000)), encoding="utf-8")
    (tmp_path / "cover.png").write_bytes(b"\x89PNG\0")
    tokenizer, datasets, _ = pretrain._training_data([tmp_path], SMOKE)
    passed_over, sizes = capsys.readouterr().out.splitlines()
    assert passed_over.startswith("Passed over 1 .png file(s). The first: ")
    assert sizes == "texts to train on: 1, to validate with: 1"
    assert tokenizer.decode(datasets["train"][0]["input_ids"]).startswith("Line 0 of")
    assert re.match(r"\s*Line 18\d\d of", tokenizer.decode(datasets["valid"][0]["input_ids"]))


@pytest.fixture
def small_stream(base, monkeypatch):
    """Two files in place of Wikipedia's; four documents of the second one are held out."""
    rows, files = corpus.load_wikipedia(40, 1)["train"].select_columns(["title", "text"]), []
    for number in (0, 1):
        files.append(str(base / f"{number}.parquet"))
        rows.shard(2, number).to_parquet(files[-1])
    source = corpus.StreamSource(tuple(files), "0" * 40, "offline", "a test", "two files")
    monkeypatch.setattr(corpus, "wikipedia_files", lambda: source)
    monkeypatch.setattr(pretrain, "_HELD_OUT", {"stream": 4})
    return rows.shard(2, 1)


@pytest.mark.usefixtures("small_stream")
def test_a_stream_is_trained_on_and_goes_on_where_it_was(folder, monkeypatch, capsys):
    undisturbed = folder.with_name("undisturbed")

    class Copied(TrainingProgress):
        """Keeps what a kill at the ninth step would leave."""

        def on_step_end(self, args, state, control, **_):
            if state.global_step == 9:
                shutil.copytree(undisturbed, folder)

    stream = ["--data", "stream", "--set", "stop_at=0.5", "context_length=64"]
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "TrainingProgress", Copied)
        assert run(undisturbed, *stream) == 0
    assert "streaming two files: 2 files, source offline (a test)" in capsys.readouterr().out
    assert run(folder, *stream) == 0
    found, expected = figures(folder), figures(undisturbed)
    assert (found["first_step"], found["training_chunks"], found["preset"]["stop_at"]) == (8, None, None)
    assert (found["losses"], found["validation_loss"]) == (expected["losses"], expected["validation_loss"])
    assert_same_weights(folder, undisturbed)


def test_a_stream_leaves_out_the_documents_held_out(small_stream):
    tokenizer, datasets, _ = pretrain._training_data("stream", SMOKE)
    texts = [tokenizer.decode([index for row in rows for index in row["input_ids"]])
             for rows in (datasets["train"].take(2000), datasets["valid"])]
    for number, document in enumerate(small_stream.select(range(8))):
        pieces = [document["text"][start:start + 30] for start in range(0, len(document["text"]) - 30, 30)]
        shares = [sum(piece in text for piece in pieces) / len(pieces) for text in texts]
        assert (shares[0] < 0.05) is (number < 4), (number, shares)


# Interruptions, and runs that go on.

STOPPED_WHILE_SAVING = """
import os, signal, sys, time, torch
from llm_tutorial import cli
torch.set_num_threads(1)
save = torch.save
def stopped(value, path):
    save(value, path)
    if str(path).endswith(os.path.join("checkpoint-10", "optimizer.pt")):
        os.truncate(path, 1000)
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(600)
torch.save = stopped
cli.main(sys.argv[2:])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals for a process itself")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_process_stopped_while_saving_leaves_a_run_that_goes_on_with_the_same_command(whole, folder, capsys, name):
    number = getattr(signal, name)
    done = subprocess.run([sys.executable, "-c", STOPPED_WHILE_SAVING, str(int(number)), *options(folder)],
                          capture_output=True, text=True, timeout=SECONDS)
    assert (folder / "checkpoint-10" / "model.safetensors").exists(), done.stderr
    goes_on = f"Stopped. The same command resumes from {folder / 'checkpoint-8'}.\n"
    assert (done.returncode, done.stdout.endswith(goes_on)) == ((130, True) if name == "SIGTERM" else (-number, False))
    assert run(folder) == 0
    assert f"resuming from {folder / 'checkpoint-8'}\ntraining from step 8 to at most 15" in capsys.readouterr().out
    found, expected = figures(folder), figures(whole)
    assert (found["first_step"], found["tokens"]) == (8, 7 * 4 * 64)
    assert found["losses"] == expected["losses"], "those from before the interruption too"
    assert_same_weights(folder, whole)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no Ctrl-C to a single process")
def test_ctrl_c_ends_both_processes_with_one_line(folder):
    processes = started("-m", "llm_tutorial", *options(folder), "--max-steps", "1000000")
    ends = time.monotonic() + SECONDS
    while not (folder / "run.json").exists():  # written when the training begins
        assert time.monotonic() < ends
        assert all(process.poll() is None for process in processes), [each.communicate() for each in processes]
        time.sleep(0.05)
    for process in processes:  # as a terminal does
        process.send_signal(signal.SIGINT)
    outputs = [process.communicate(timeout=SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [130, 130], outputs
    assert outputs[0][0].count("Stopped. The same command begins again.") == 1
    assert outputs[1] == ("", "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM for another process")
def test_a_process_that_waits_for_one_that_never_comes_ends_at_a_signal(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": address[0],
                 "MASTER_PORT": str(address[1])}
    process = subprocess.Popen([sys.executable, "-m", "llm_tutorial", *options(folder)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=os.environ | variables)
    try:
        while True:  # until it listens: from then on the library waits, and Python's handlers with it
            assert process.poll() is None, process.communicate()
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(address).close()
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130
    assert output.endswith("Stopped. The same command begins again.\n")


def test_a_disk_without_room_for_checkpoints_is_refused_before_the_training(folder, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=10**6))
    assert run(folder) == 2
    assert re.search(r"has 0\.00 GB free, but two checkpoints take 0\.00 GB: make room", capsys.readouterr().err)
    assert not list(folder.glob("checkpoint-*"))


def test_a_finished_run_is_not_begun_again(whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert run(whole) == 2
    assert f"{whole / 'model'} is there already, so this run is finished. Choose another" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
