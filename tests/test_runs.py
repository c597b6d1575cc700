"""The comparison of little and much text: what is bundled is what its script makes, and says what the lesson says."""

import importlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_tutorial import cli, files
from llm_tutorial.corpus import load_wikipedia
from llm_tutorial.presets import PRESETS, Preset
from llm_tutorial.resuming import chunks_sha256
from llm_tutorial.runs import load_run
from llm_tutorial.splits import training_data

BUILD = Path(__file__).resolve().parents[1] / "data" / "build"


@pytest.fixture
def more_data(monkeypatch):
    """The script belongs to no package."""
    monkeypatch.syspath_prepend(str(BUILD))
    yield importlib.import_module("more_data")
    del sys.modules["more_data"]


@pytest.fixture(scope="module")
def kept():
    return load_run("more_data")


def test_an_unknown_run_is_named():
    with pytest.raises(ValueError, match="No run 'less_data' is bundled: use one of more_data"):
        load_run("less_data")


def test_a_damaged_run_is_refused(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    for name in ("SHA256SUMS", "runs/more_data.json"):
        shutil.copy(files.data_folder() / name, tmp_path / name)
    monkeypatch.setattr(files, "data_folder", lambda: tmp_path)
    path = tmp_path / "runs" / "more_data.json"
    path.write_bytes(path.read_bytes().replace(b"7", b"3", 1))
    with pytest.raises(OSError, match=r"more_data\.json is damaged"):
        load_run("more_data")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"more_data\.json is missing"):
        load_run("more_data")


def test_ten_thousand_introductions_teach_more_than_fifty_articles(kept):
    few, many = kept["runs"]["fifty"], kept["runs"]["introductions"]
    assert few["best_validation_loss"] - many["validation_loss"] > 1
    assert few["validation_loss"] - many["validation_loss"] > 2
    assert kept["lower_by"] == pytest.approx({
        "last": few["validation_loss"] - many["validation_loss"],
        "best": few["best_validation_loss"] - many["best_validation_loss"],
        "last against best of fifty": few["best_validation_loss"] - many["validation_loss"]})
    assert many["validation_loss"] < many["baselines"]["bigram"] < many["baselines"]["unigram"]
    assert few["recited"]["exact_match"] > 0.9 > 0.1 > many["recited"]["exact_match"]


def test_both_runs_differ_in_nothing_but_the_text(kept):
    few, many = kept["runs"]["fifty"], kept["runs"]["introductions"]
    assert Preset(**few["preset"]) == PRESETS["cpu"]
    assert Preset(**many["preset"]) == replace(PRESETS["cpu"], stop_at=None, epochs=many["preset"]["epochs"])
    for key in ("parameters", "validation_chunks", "seed", "precision", "world_size", "device"):
        assert few[key] == many[key], key
    assert (few["left_out"], many["left_out"]) == (None, 15)
    assert few["passes"] == pytest.approx(many["passes"], abs=0.5)


@pytest.mark.parametrize("run", ["fifty", "introductions"])
def test_the_figures_of_a_run_agree_with_each_other(kept, run):
    found = kept["runs"][run]
    assert found["first_step"] == 0, "in one go, or its speed would not be that of the whole"
    assert found["tokens"] == found["steps"] * found["preset"]["batch"] * found["preset"]["context_length"]
    assert found["tokens_per_second"] == pytest.approx(found["tokens"] / found["seconds"])
    assert found["passes"] == pytest.approx(found["steps"] * 16 / found["training_chunks"])
    curve = found["validation_losses"]
    assert len(curve) >= 10
    assert found["best_validation_loss"] == min([point["loss"] for point in curve] + [found["validation_loss"]])
    assert curve[-1]["step"] == found["losses"][-1]["step"] == found["steps"]
    assert curve[-1]["loss"] == pytest.approx(found["validation_loss"], abs=1e-3), "on all chunks all along"


def test_the_validation_chunks_are_those_of_the_lesson(kept):
    prepared = training_data("articles", PRESETS["cpu"], report=lambda _line: None)
    valid = prepared.datasets["valid"]
    assert chunks_sha256(valid) == kept["validation"]["sha256"]
    assert (len(valid), len(valid) * 127) == (kept["validation"]["chunks"], kept["validation"]["tokens"])
    text = "".join(prepared.tokenizer.decode(row[1:]) for row in valid["input_ids"])
    assert kept["validation"]["bytes"] == pytest.approx(len(text.encode()), rel=1e-3)  # characters cut between chunks


def test_the_samples_go_on_from_articles_that_neither_has_read(kept):
    articles = load_wikipedia()["valid"]
    for row, sample in zip(articles, kept["samples"][:3], strict=False):
        assert (sample["from"], row["text"].split()[:12]) == (row["title"], sample["prompt"].split())
    assert [sample["from"] for sample in kept["samples"][3:]] == ["everyday"] * 3
    texts = [sample[run][how] for sample in kept["samples"] for run in kept["runs"] for how in ("greedy", "sampled")]
    assert all(texts)
    assert len(set(texts)) == len(texts) == 24


def test_the_commands_are_the_scripts_and_are_understood(kept, more_data, monkeypatch):
    given = []
    monkeypatch.setattr("llm_tutorial.pretraining_command._pretrain", lambda arguments: given.append(arguments) or 0)
    for run in ("fifty", "introductions"):
        assert kept["runs"][run]["command"] == more_data.command(run)
        assert cli.main(more_data.command(run).split()[1:]) == 0
    assert [arguments.data for arguments in given] == [["articles"], ["introductions"]]
    assert given[0].output_dir / "model" == given[1].tokenizer


@pytest.fixture
def small(more_data, monkeypatch, tmp_path):
    """The script with a recipe of four steps, in a folder of its own; commands run in this process."""
    folder, given = more_data.FOLDER, []

    def run(words, *, cwd, env, check):
        assert (words[:3], cwd, check) == ([sys.executable, "-m", "llm_tutorial"], tmp_path, False)
        assert {name: env[name] for name in more_data.ENVIRONMENT} == more_data.ENVIRONMENT
        given.append(words[3:])
        return SimpleNamespace(returncode=cli.main(words[3:]))

    recipe = "--preset smoke --max-steps 4 --validate-every 2 --validate-on-all"
    monkeypatch.setattr(more_data, "OPTIONS", {
        "fifty": recipe,
        "introductions": f"{recipe} --data introductions --validate-with articles --tokenizer {folder}/fifty/model"})
    monkeypatch.setattr(more_data, "ROOT", tmp_path)
    monkeypatch.setattr(more_data, "RESULT", tmp_path / "data" / "runs" / "more_data.json")
    monkeypatch.setattr(more_data, "NEW_TOKENS", 4)
    monkeypatch.setattr(more_data.subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return SimpleNamespace(given=given, folder=tmp_path / folder, result=more_data.RESULT, main=more_data.main)


def shape(value):
    """The names in a record, and the kinds of its values, of lists that of their first entry."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    return [shape(value[0])] if isinstance(value, list) else type(value)


def test_the_script_makes_what_is_bundled_and_repeats_nothing(small, kept, capsys):
    small.main()
    made = json.loads(small.result.read_text(encoding="utf-8"))
    for run in made["runs"]:  # whose fields may be numbers or none
        made["runs"][run]["preset"] = kept["runs"][run]["preset"]
    assert shape(made) == shape(kept)
    assert [words[0] for words in small.given] == ["pretrain", "pretrain"]
    assert [made["runs"][run]["validation_chunks"] for run in made["runs"]] == [made["validation"]["chunks"]] * 2
    assert made["samples"][0]["fifty"] != made["samples"][0]["introductions"]
    small.result.unlink()
    small.main()
    assert len(small.given) == 2
    assert "fifty.json is there: not trained again" in capsys.readouterr().out
    again = json.loads(small.result.read_text(encoding="utf-8"))
    assert again["samples"] == made["samples"]
    # Killed when the model was there and the figures were not yet where they were asked for.
    (small.folder / "fifty.json").unlink()
    small.main()
    assert len(small.given) == 2
    assert "fifty/model/figures.json is there: not trained again" in capsys.readouterr().out
    assert json.loads(small.result.read_text(encoding="utf-8")) == again


def test_runs_that_were_validated_differently_are_not_compared(small):
    small.folder.mkdir(parents=True)
    for run, digest in (("fifty", "a" * 64), ("introductions", "b" * 64)):
        (small.folder / f"{run}.json").write_text(json.dumps({"validation_sha256": digest}))
    with pytest.raises(SystemExit, match=r"validated with different chunks .*remove build/more-data and begin again"):
        small.main()
    assert not small.result.exists()


def test_a_run_that_fails_ends_the_script(small, monkeypatch, more_data):
    monkeypatch.setattr(more_data.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=2))
    with pytest.raises(SystemExit, match="The run 'fifty' ended with status 2, see above"):
        small.main()
